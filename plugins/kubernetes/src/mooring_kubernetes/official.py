"""The official client's ApiClient, that asks for what it needs before each request, from whatever thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import urllib3
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration

from mooring_kubernetes.api import Door


class Api(ApiClient):  # type: ignore[misc]  # kubernetes has no types
    """An ApiClient of whatever door there is at the moment."""

    def __init__(self, door: Callable[[], Door]) -> None:
        super().__init__(Configuration())
        self.rest_client.pool_manager = _Pool()
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

    def __init__(self) -> None:
        self._door: Door | None = None
        self._manager: urllib3.PoolManager | None = None
        self._lock = threading.Lock()

    def use(self, door: Door) -> None:
        with self._lock:
            held = self._door
            self._door = door
            if held is None or (held.context, held.proxy) != (door.context, door.proxy):
                self._manager = _manager(door)

    def request(self, method: str, url: str, **options: Any) -> urllib3.BaseHTTPResponse:
        manager = self._manager
        if manager is None:
            raise RuntimeError("a request before its door was asked for")
        return manager.request(method, url, redirect=False, **options)

    def clear(self) -> None:
        if self._manager is not None:
            self._manager.clear()


def _manager(door: Door) -> urllib3.PoolManager:
    name = {"server_hostname": door.tls_server_name} if door.tls_server_name is not None else {}
    check = {} if door.context.check_hostname else {"assert_hostname": False}
    options: dict[str, Any] = {"ssl_context": door.context, "cert_reqs": door.context.verify_mode, **name, **check}
    if door.tls_server_name is not None and door.context.check_hostname:
        options["assert_hostname"] = door.tls_server_name
    if door.proxy is not None:
        return urllib3.ProxyManager(door.proxy, **options)
    return urllib3.PoolManager(**options)
