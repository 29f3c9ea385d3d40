"""An address on this machine where programs ask for credentials: HTTP on the loopback, with a random token."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import NamedTuple, cast

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketListener, SocketStream

from mooring.types import Secret

ADDRESS = "127.0.0.1"
MAX_HEAD = 16 * 1024
"""How many bytes a request may have."""
SECONDS = 60
"""How long one may take, with the vendor's answer."""
HEAD_SECONDS = 5
TOKEN_BYTES = 32
MAX_WAITING = 64
"""How many may be connected that have not said what they want; for one more the oldest is let go."""
PAUSE_SECONDS = 0.1
"""How long nobody is let in when the system has no place for more."""


class Answer(NamedTuple):
    """What is sent back."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = "text/plain"


class Endpoint:
    """It answers `GET` of its own paths, and nobody who lacks the token or takes it for another host."""

    def __init__(self, port: int) -> None:
        self._host = f"{ADDRESS}:{port}"
        self._answers: dict[str, Callable[[], Awaitable[Answer]]] = {}
        self._waiting: dict[anyio.CancelScope, None] = {}
        self.token = Secret(secrets.token_urlsafe(TOKEN_BYTES))

    def add(self, path: str, answer: Callable[[], Awaitable[Answer]]) -> str:
        """Answer at a path; its URL."""
        self._answers[path] = answer
        return f"http://{self._host}{path}"

    async def serve(self, stream: ByteStream) -> None:
        """One request."""
        async with stream:
            with anyio.move_on_after(SECONDS), suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                answer = await self._answer(await self._asked(stream))
                await stream.send(_written(answer))

    async def _asked(self, stream: ByteStream) -> bytes | None:
        """What it asks, unless too many others come meanwhile that ask nothing."""
        if len(self._waiting) >= MAX_WAITING:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.cancel()
        with anyio.CancelScope() as scope:
            self._waiting[scope] = None
            try:
                return await _head(stream)
            finally:
                self._waiting.pop(scope, None)
        return None

    async def _answer(self, head: bytes | None) -> Answer:
        request = _parsed(head) if head is not None else None
        if request is None:
            return Answer(HTTPStatus.BAD_REQUEST)
        method, path, fields = request
        given = fields.get("authorization", "").encode(errors="surrogateescape")
        known = hmac.compare_digest(given, self.token.reveal().encode())
        if fields.get("host") != self._host or not known:  # a name that was made to mean us is a web page's
            return Answer(HTTPStatus.FORBIDDEN)
        if path not in self._answers:
            return Answer(HTTPStatus.NOT_FOUND)
        if method != "GET":
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED)
        return await self._answers[path]()


@asynccontextmanager
async def open_endpoint() -> AsyncGenerator[Endpoint, None]:
    """An endpoint at a port of the system's choice."""
    async with await anyio.create_tcp_listener(local_host=ADDRESS, local_port=0) as listener:
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610  anyio's, not Django's
        endpoint = Endpoint(port)
        async with anyio.create_task_group() as tasks:
            for one in cast("Sequence[SocketListener]", listener.listeners):
                tasks.start_soon(_accept, one, endpoint.serve)
            try:
                yield endpoint
            finally:
                tasks.cancel_scope.cancel()


async def _accept(listener: SocketListener, serve: Callable[[ByteStream], Awaitable[None]]) -> None:
    """Serve who comes; nothing that a caller does, and no lack of file descriptors, ends it."""

    async def attend(stream: SocketStream) -> None:
        with suppress(OSError):
            await serve(stream)

    async with anyio.create_task_group() as tasks:
        while True:
            try:
                stream = await listener.accept()
            except OSError:  # no file descriptors left, or the other side has gone already
                await anyio.sleep(PAUSE_SECONDS)
            else:
                tasks.start_soon(attend, stream)


async def _head(stream: ByteStream) -> bytes | None:
    """All up to the empty line, if that comes in time and in bounds."""
    head = b""
    with anyio.move_on_after(HEAD_SECONDS):
        while b"\r\n\r\n" not in head and len(head) <= MAX_HEAD:
            head += await stream.receive()
    return head.partition(b"\r\n\r\n")[0] if b"\r\n\r\n" in head else None


def _parsed(head: bytes) -> tuple[str, str, Mapping[str, str]] | None:
    """Method, path and fields (RFC 9112 sections 3 and 5), each field once; None where it is no such thing."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != len(("GET", "/", "HTTP/1.1")) or not words[2].startswith("HTTP/1."):
        return None
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or name.lower() in fields:
            return None
        fields[name.lower()] = value.strip(" \t")
    return words[0], words[1], fields


def _written(answer: Answer) -> bytes:
    status, body, kind = answer
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body
