"""kubernetes-asyncio's ApiClient, that asks for what it needs before each request: address, trust and authorization.

It follows no redirect, takes no cookie, and reads no file of the machine (aiohttp's `trust_env` would send what
~/.netrc says to a server).
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from kubernetes_asyncio.client.api_client import ApiClient
from kubernetes_asyncio.client.configuration import Configuration
from kubernetes_asyncio.client.rest import RESTClientObject

import mooring as m
from mooring.types import Struct

WATCH_BUFFER = 2**21
"""Bytes; events of a watch come in lines of up to the 1.5 MiB that etcd takes (as kubernetes-asyncio has it)."""


class Door(Struct):
    """What a request needs: where to, whom to trust, and by what the server knows us."""

    server: str
    context: ssl.SSLContext
    tls_server_name: str | None = None
    proxy: str | None = None
    authorization: m.Secret | None = None


class Api(ApiClient):
    """An ApiClient of whatever door there is at the moment."""

    def __init__(self, door: Callable[[], Awaitable[Door]]) -> None:
        # not super(), which would make a TLS context of its own
        self.configuration = Configuration()
        self.pool_threads = 1
        pool = _Pool()
        self.rest_client = _Rest(pool)
        self.default_headers = {}
        self.cookie = None  # type: ignore[assignment]  # as kubernetes-asyncio has it
        self.user_agent = "mooring"
        self.client_side_validation = self.configuration.client_side_validation
        self._doors = pool
        self._door = door

    def __repr__(self) -> str:
        return f"Api({self.configuration.host!r})"

    async def update_params_for_auth(
        self, headers: Any, queries: Any, auth_settings: Any, request_auth: Any = None
    ) -> None:
        """Called before each request."""
        door = await self._door()
        self.configuration.host = door.server
        self._doors.door = door
        if door.authorization is not None:
            headers["authorization"] = door.authorization.reveal()


class _Rest(RESTClientObject):
    def __init__(self, pool: Any) -> None:
        unsaid: Any = None  # the pool says them
        self.server_hostname = self.proxy = self.proxy_headers = unsaid
        self.pool_manager = pool


class _Pool:
    """An aiohttp session, whose every request goes through the door."""

    def __init__(self) -> None:
        self.door: Door | None = None
        self._session: aiohttp.ClientSession | None = None

    async def request(self, **options: Any) -> aiohttp.ClientResponse:
        if self._session is None:
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(cookie_jar=jar, read_bufsize=WATCH_BUFFER)
        if self.door is not None:
            options |= {"ssl": self.door.context, "proxy": self.door.proxy}
            if self.door.tls_server_name is not None:
                options["server_hostname"] = self.door.tls_server_name
        return await self._session.request(allow_redirects=False, **options)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
