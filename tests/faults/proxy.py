"""A proxy for HTTP that does to it what networks and servers do: test equipment, switched from the test.

It runs in a thread with an event loop of its own, so that what it does is no part of what the tested loop does. It
reads each request whole, counts it, and either passes it on or does what `fault` says; a fault takes effect with the
next request of live connections too.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
import threading
from contextlib import suppress
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

POLL = 0.02
GONE = (OSError, EOFError, asyncio.IncompleteReadError)


class Fault(NamedTuple):
    """What is done to requests and replies; by default nothing."""

    latency: float = 0
    """Seconds before each reply."""
    jitter: float = 0
    """Up to so many seconds more, by chance (always the same)."""
    rate: float | None = None
    """Bytes of a reply in a second."""
    black_hole: bool = False
    """Connections are taken and nothing is ever answered, until there is another fault, or none."""
    reset: str = ""
    """`connection`: RST at once; `request`: RST once a request is read; `reply`: RST in the middle of the reply."""
    cut: int | None = None
    """Replies end here (as in a slice), then the connection is closed."""
    answer: bytes | None = None
    """Sent in place of a reply, and nothing is passed on."""
    endless: bytes = b""
    """Sent after the answer, for ever."""
    closing: bool = False
    """The connection is closed after the answer."""
    times: int | None = None
    """It befalls so many requests, then all pass."""


class Seen(NamedTuple):
    """A request that reached the proxy."""

    method: str
    path: str
    action: str
    """Of an AWS query API; else empty."""


class Proxy:
    """A context manager; `url` is where it listens."""

    def __init__(self, upstream: str, *, tls: ssl.SSLContext | None = None) -> None:
        address = urlsplit(upstream)
        self._upstream = address.hostname, address.port
        self._tls = tls
        self._state: list[Any] = [Fault(), None]
        self._chance = random.Random(5)
        self._live: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self.seen: list[Seen] = []
        self.accepted = 0
        """Connections that were ever made; with TLS, those whose handshake succeeded."""

    def fault(self, **fault: Any) -> None:
        """From now on do this, and count anew."""
        made = Fault(**fault)
        self.seen, self.accepted = [], 0
        self._state = [made, made.times]

    def clear(self) -> None:
        """From now on pass everything, and count anew."""
        self.fault()

    def drop(self) -> None:
        """Reset all live connections, idle ones too."""
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(5)

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._live)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="fault proxy", daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(lambda *_: None)  # resets and failed handshakes are what it is for
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        port = server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _drop(self) -> None:
        for writer in list(self._live):
            reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._live.add(writer)
        self.accepted += 1
        try:
            with suppress(*GONE):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            self._live.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply; whether there may be another."""
        if self._state[0].reset == "connection":
            reset(writer)
            return False
        request = await message(reader)
        self.seen.append(seen(request))
        state = self._state
        fault = state[0]
        if state[1] is not None:
            state[1] -= 1
            if state[1] < 0:
                fault = Fault()
        wait = float("inf") if fault.black_hole else fault.latency + self._chance.random() * fault.jitter
        if not await self._waited(wait, state, reader):
            return False
        if fault.reset == "request":
            reset(writer)
            return False
        if fault.answer is not None:
            reply = fault.answer
        else:
            reply = await self._passed_on(request)
        if fault.reset == "reply":
            writer.write(reply[: len(reply) // 2])
            await writer.drain()
            await asyncio.sleep(POLL)  # else the RST overtakes it
            reset(writer)
            return False
        await self._send(reply[: fault.cut], writer, fault.rate)
        while fault.endless and self._state is state:
            await self._send(fault.endless, writer, fault.rate)
        return fault.cut is None and not fault.closing and not fault.endless

    async def _waited(self, seconds: float, state: list[Any], reader: asyncio.StreamReader) -> bool:
        """Wait, while the fault stands; whether anybody still wants the reply."""
        until = self._loop.time() + seconds
        while self._state is state and not reader.at_eof() and (left := until - self._loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, POLL))
        return not reader.at_eof()

    async def _send(self, data: bytes, writer: asyncio.StreamWriter, rate: float | None) -> None:
        part = max(1, int(rate / 20)) if rate else len(data) or 1
        for start in range(0, len(data), part):
            writer.write(data[start : start + part])
            await writer.drain()
            if rate:
                await asyncio.sleep(part / rate)

    async def _passed_on(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(request)
            await writer.drain()
            return await message(reader, bodiless=request.startswith(b"HEAD "))
        finally:
            writer.close()


async def message(reader: asyncio.StreamReader, *, bodiless: bool = False) -> bytes:
    """A request or a reply as it came, whole (RFC 9112 section 6.3)."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.lower().split(b"\r\n")
    fields = {name: value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    reply = first.startswith(b"http/")
    if bodiless or (reply and first.split()[1] in (b"204", b"304")):
        return head
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        return head + await chunks(reader)
    if b"content-length" in fields:
        return head + await reader.readexactly(int(fields[b"content-length"]))
    return head + (await reader.read() if reply else b"")


async def chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        line = await reader.readline()
        size = int(line.partition(b";")[0], 16)
        body += line + await reader.readexactly(size + 2)
        if not size:
            return body


def seen(request: bytes) -> Seen:
    head, _, body = request.partition(b"\r\n\r\n")
    method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
    form = parse_qs(body.decode(errors="replace"))
    return Seen(method=method, path=target, action=form.get("Action", [""])[0])


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST in place of FIN."""
    found = writer.get_extra_info("socket")
    with suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
