"""An address on this machine where programs ask for credentials: HTTP on the loopback, with a random token."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import NamedTuple

import anyio
from anyio.abc import ByteStream, SocketAttribute

from mooring.types import Secret

ADDRESS = "127.0.0.1"
MAX_HEAD = 16 * 1024
"""How many bytes a request may have."""
SECONDS = 60
"""How long one may take, with the vendor's answer."""
HEAD_SECONDS = 5
TOKEN_BYTES = 32


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
        self.token = Secret(secrets.token_urlsafe(TOKEN_BYTES))

    def add(self, path: str, answer: Callable[[], Awaitable[Answer]]) -> str:
        """Answer at a path; its URL."""
        self._answers[path] = answer
        return f"http://{self._host}{path}"

    async def serve(self, stream: ByteStream) -> None:
        """One request."""
        async with stream:
            with anyio.move_on_after(SECONDS), suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                answer = await self._answer(await _head(stream))
                await stream.send(_written(answer))

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
            tasks.start_soon(listener.serve, endpoint.serve)
            try:
                yield endpoint
            finally:
                tasks.cancel_scope.cancel()


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
