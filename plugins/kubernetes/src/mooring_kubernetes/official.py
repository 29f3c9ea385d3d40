"""The official client's ApiClient, that asks for what it needs before each request, from whatever thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import urllib3
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration

from mooring_kubernetes.api import UNAUTHORIZED, Door, signed


class Api(ApiClient):  # type: ignore[misc]  # kubernetes has no types
    """An ApiClient of whatever door there is at the moment."""

    def __init__(self, door: Callable[[], Door], instead_of: Callable[[Door], Door]) -> None:
        super().__init__(Configuration())
        self.rest_client.pool_manager = _Pool(instead_of)
        self.user_agent = "mooring"
        self._door = door

    def __repr__(self) -> str:
        return f"Api({self.configuration.host!r})"

    def close(self) -> None:
        """Close the connections too, which the official client leaves to the garbage collector."""
        super().close()
        self.rest_client.pool_manager.clear()

    def update_params_for_auth(
        self, headers: Any, queries: Any, auth_settings: Any, *rest: Any, **options: Any
    ) -> None:
        """Called before each request."""
        door = self._door()
        self.configuration.host = door.server
        self.rest_client.pool_manager.use(door)
        if door.authorization is not None:
            headers["authorization"] = door.authorization.reveal()


class _Pool:
    """urllib3's connections, made anew when the TLS context or the way changes (a client certificate was renewed)."""

    def __init__(self, instead_of: Callable[[Door], Door]) -> None:
        self._instead_of = instead_of
        self._manager: tuple[Door, urllib3.PoolManager] | None = None
        self._lock = threading.Lock()
        self._local = threading.local()

    def use(self, door: Door) -> None:
        """Called in the thread of a request, before it."""
        self._local.door = door

    def request(self, method: str, url: str, **options: Any) -> urllib3.BaseHTTPResponse:
        door: Door = self._local.door
        response = self._through(door).request(method, url, redirect=False, **options)
        if response.status != UNAUTHORIZED:
            return response
        try:
            other = self._instead_of(door)
        except BaseException:
            response.close()
            raise
        if other is door:
            return response
        response.drain_conn()
        options["headers"] = signed(options["headers"], other)
        return self._through(other).request(method, url, redirect=False, **options)

    def _through(self, door: Door) -> urllib3.PoolManager:
        with self._lock:
            if self._manager is None or (self._manager[0].context, self._manager[0].proxy) != (
                door.context,
                door.proxy,
            ):
                self._manager = (door, _manager(door))
            return self._manager[1]

    def clear(self) -> None:
        if self._manager is not None:
            self._manager[1].clear()


def _manager(door: Door) -> urllib3.PoolManager:
    name = {"server_hostname": door.tls_server_name} if door.tls_server_name is not None else {}
    check = {} if door.context.check_hostname else {"assert_hostname": False}
    options: dict[str, Any] = {"ssl_context": door.context, "cert_reqs": door.context.verify_mode, **name, **check}
    if door.tls_server_name is not None and door.context.check_hostname:
        options["assert_hostname"] = door.tls_server_name
    if door.proxy is not None:
        return urllib3.ProxyManager(door.proxy, **options)
    return urllib3.PoolManager(**options)
