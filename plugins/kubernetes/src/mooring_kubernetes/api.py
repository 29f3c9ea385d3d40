"""kubernetes-asyncio's ApiClient, that asks for what it needs before each request: address, trust and authorization.

Where the server does not know us (401), it may ask for another door, once a request. It follows no redirect, takes no
cookie, and reads no file of the machine (aiohttp's `trust_env` would send what ~/.netrc says to a server).
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
from kubernetes_asyncio.client.api_client import ApiClient
from kubernetes_asyncio.client.configuration import Configuration
from kubernetes_asyncio.client.rest import RESTClientObject

import mooring as m
from mooring.types import Struct

UNAUTHORIZED = 401
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

    def __init__(
        self, door: Callable[[], Awaitable[Door]], instead_of: Callable[[Door], Awaitable[Door]] | None = None
    ) -> None:
        # not super(), which would make a TLS context of its own
        self.configuration = Configuration()
        self.pool_threads = 1
        pool = _Pool(instead_of)
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

    def __init__(self, instead_of: Callable[[Door], Awaitable[Door]] | None) -> None:
        self.door: Door | None = None
        self._instead_of = instead_of
        self._session: aiohttp.ClientSession | None = None

    async def request(self, **options: Any) -> aiohttp.ClientResponse:
        door = self.door
        response = await self._request(door, options)
        plain = isinstance(options.get("data"), str | bytes | None)  # a form goes out once
        if response.status != UNAUTHORIZED or door is None or self._instead_of is None or not plain:
            return response
        try:
            other = await self._instead_of(door)
        except BaseException:
            response.close()
            raise
        if other is door:
            return response
        response.close()
        return await self._request(other, options | {"headers": signed(options["headers"], other)})

    async def _request(self, door: Door | None, options: dict[str, Any]) -> aiohttp.ClientResponse:
        if self._session is None:
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(cookie_jar=jar, read_bufsize=WATCH_BUFFER)
        if door is not None:
            options = options | {"ssl": door.context, "proxy": door.proxy}
            if door.tls_server_name is not None:
                options["server_hostname"] = door.tls_server_name
        return await self._session.request(allow_redirects=False, **options)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def signed(headers: Mapping[str, str], door: Door) -> dict[str, str]:
    """The headers of a request, with what the door says of us."""
    others = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    return others | ({"authorization": door.authorization.reveal()} if door.authorization is not None else {})
