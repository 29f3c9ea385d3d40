"""A session: one connector's way to its cluster, and calls along it."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import anyio
import anyio.to_thread
import msgspec

import mooring as m
from mooring_kubernetes import errors, formats, program, settings
from mooring_kubernetes.api import Api, Door
from mooring_kubernetes.tls import Trust, context_of, proxy_of
from mooring_kubernetes.way import ExecPlugin, Way, read, way_of

FRESH = timedelta(seconds=30)
"""What a program printed is asked for anew with less life than this."""
TOO_MANY, SERVER_FAILED = 429, 500
LONGEST_ANSWER = 16 * 1024 * 1024


class Answer:
    """A status, and the JSON object that came with it (None: something else did)."""

    def __init__(self, status: int, headers: dict[str, str], document: dict[str, Any] | None) -> None:
        self.status = status
        self.headers = headers
        self.document = document


class KubernetesSession:
    """Makes calls for one connector. Opening it costs none; files are read and programs run at the first."""

    def __init__(self, config: settings.KubernetesConfig, context: m.Context, trust: Trust) -> None:
        self.config = config
        self.context = context
        self._trust = trust
        self._lock = anyio.Lock()
        self._way: Way | None = None
        self._printed: program.Printed | None = None
        self._tls: ssl.SSLContext | None = None
        self._api = Api(self._door)

    def __repr__(self) -> str:
        return f"KubernetesSession({self.context.connector!r})"

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def way(self) -> Way:
        """The way, with what a program printed in it, and the token that a file has now."""
        async with self._lock:
            way = self._way
            if way is None:
                way = self._way = await anyio.to_thread.run_sync(way_of, self.config)
            if way.exec is not None:
                way = await self._with_printed(way, way.exec)
        if way.token_file is not None:
            text = await anyio.to_thread.run_sync(read, way.token_file, "token_file")
            token = m.Secret(text.strip())
            del text
            formats.check_token(token, "token_file")
            way = msgspec.structs.replace(way, token=token)
        return way

    @property
    def ends(self) -> datetime | None:
        """When what a program printed ends, as it says."""
        return self._printed.expires_at if self._printed is not None else None

    async def _with_printed(self, way: Way, plugin: ExecPlugin) -> Way:
        """The way with what the program prints; with what it has printed, while that is fresh."""
        kept, now = self._printed, self.context.clock.now()
        if kept is None or (kept.expires_at is not None and kept.expires_at - now < FRESH):
            kept = self._printed = await program.run(plugin, way, now)
            self._tls = None
        return msgspec.structs.replace(
            way, token=kept.token, client_certificate=kept.client_certificate, client_key=kept.client_key
        )

    async def _door(self) -> Door:
        way = await self.way()
        if way.client_certificate is None:
            tls = self._trust.context(way.certificate_authority, insecure=way.insecure_skip_tls_verify)
        else:
            tls = self._tls = self._tls or context_of(
                way.certificate_authority,
                insecure=way.insecure_skip_tls_verify,
                client_certificate=way.client_certificate,
                client_key=way.client_key,
            )
        return Door(
            server=way.server,
            context=tls,
            tls_server_name=way.tls_server_name,
            proxy=proxy_of(way.server, way.proxy_url),
            authorization=_authorization(way),
        )

    async def server(self) -> str:
        """The address, for people."""
        return (await self.way()).server

    async def call(self, call: str, method: str, path: str, body: Any = None, **names: str) -> dict[str, Any]:
        """The object that the server answers; `names` stand in the path.

        Raises:
            VendorError: it answered something else, or nothing.
        """
        answer = await self.ask(call, method, path, body, **names)
        server = await self.server()
        if not 200 <= answer.status < 300:  # noqa: PLR2004  (2xx)
            raise errors.refusal(answer.status, answer.headers, call, server)
        if answer.document is None:
            raise errors.foreign(call, server)
        return answer.document

    async def ask(self, call: str, method: str, path: str, body: Any = None, **names: str) -> Answer:
        """The same, whatever the status, but for those that say that there is no answer now (429, 5xx).

        What makes nothing is tried again where that may help.
        """
        server = (await self.way()).server
        limits, labels = self.context.tools.limits, ("kubernetes", urlsplit(server).netloc)
        work = partial(self._asked, server, call, method, path, body, names)
        if method == "GET" or path.endswith("reviews"):
            return await limits.call(work, *labels)
        async with limits.slot(*labels):
            return await work()

    async def _asked(self, server: str, call: str, method: str, path: str, body: Any, names: dict[str, str]) -> Answer:
        problem: m.MooringError
        try:
            answer = await self._sent(call, method, path, body, names)
        except m.MooringError:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            problem = errors.failure(error, call, server)
        else:
            if answer.status != TOO_MANY and answer.status < SERVER_FAILED:
                return answer
            problem = errors.refusal(answer.status, answer.headers, call, server)
        raise problem

    async def _sent(self, call: str, method: str, path: str, body: Any, names: dict[str, str]) -> Answer:
        # not preloaded: kubernetes-asyncio would write the answer, with the token in it, to its log
        response = await self._api.call_api(
            path,
            method,
            names,
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            _preload_content=False,
        )
        async with response:
            content = bytearray()
            async for part in response.content.iter_any():
                content += part
                if len(content) > LONGEST_ANSWER:
                    raise errors.too_long(call, await self.server())
        return Answer(response.status, dict(response.headers), _object(bytes(content)))


@asynccontextmanager
async def opened(
    config: settings.KubernetesConfig, context: m.Context, trust: Trust
) -> AsyncGenerator[KubernetesSession, None]:
    """A session, closed at the end."""
    session = KubernetesSession(config, context, trust)
    try:
        yield session
    finally:
        with anyio.CancelScope(shield=True):
            await session.close()


def _authorization(way: Way) -> m.Secret | None:
    if way.token is not None:
        return m.Secret(f"Bearer {way.token.reveal()}")
    if way.password is not None:
        pair = f"{way.username}:{way.password.reveal()}".encode()
        return m.Secret("Basic " + base64.b64encode(pair).decode())
    return None


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
