"""Ready clients that renew their own credentials: kubernetes-asyncio for async hosts, kubernetes for blocking ones.

A client asks for the credentials before each request; `mooring.held` says when others are asked for. Where the server
answers 401, others are asked for at once, and the request is sent once more.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import anyio

import mooring as m
from mooring.held import BlockingHeld, Held
from mooring_kubernetes.access import access_of
from mooring_kubernetes.tls import context_of, proxy_of

if TYPE_CHECKING:
    from mooring_kubernetes.api import Door

OFFICIAL = "kubernetes>=36,<37"
"""The extra `blocking`."""


def door_of(credentials: m.KubernetesAccess) -> Door:
    """What a request needs of credentials."""
    from mooring_kubernetes.api import Door

    token = credentials.token
    return Door(
        server=credentials.server.rstrip("/"),
        context=context_of(
            credentials.certificate_authority,
            insecure=credentials.insecure_skip_tls_verify,
            client_certificate=credentials.client_certificate,
            client_key=credentials.client_key,
        ),
        tls_server_name=credentials.tls_server_name,
        proxy=proxy_of(credentials.server, credentials.proxy_url),
        authorization=m.Secret(f"Bearer {token.reveal()}") if token is not None else None,
    )


class _Doors:
    """The door of the credentials that are held: a TLS context is made once for each. Good for any thread."""

    def __init__(self, first: m.KubernetesAccess) -> None:
        self._last = (first, door_of(first))

    def of(self, credentials: m.KubernetesAccess) -> Door:
        last = self._last
        if last[0] is not credentials:
            last = self._last = (credentials, door_of(credentials))
        return last[1]

    def behind(self, door: Door) -> m.KubernetesAccess | None:
        """The credentials whose door it is; None if there are others by now."""
        credentials, last = self._last
        return credentials if last is door else None


@asynccontextmanager
async def client(request: m.ClientRequest) -> AsyncGenerator[Any, None]:
    """A kubernetes_asyncio ApiClient."""
    from mooring_kubernetes.api import Api

    held = Held(access_of(request.credentials), request.renew, access_of)
    doors = _Doors(held.current)

    async def fresh() -> Door:
        return doors.of(await held.fresh())

    async def instead_of(refused: Door) -> Door:
        if (credentials := doors.behind(refused)) is not None:
            await held.instead_of(credentials)
        return doors.of(held.current)

    api = Api(fresh, instead_of)
    try:
        yield api
    finally:
        with anyio.CancelScope(shield=True):
            await api.close()


@contextmanager
def blocking_client(request: m.BlockingClientRequest) -> Generator[Any, None, None]:
    """A kubernetes ApiClient, good for use from any thread.

    Raises:
        InvalidConfig: the package `kubernetes` is not installed.
    """
    missing = False
    try:
        import kubernetes.client  # noqa: F401
    except ImportError:
        missing = True
    if missing:
        raise m.InvalidConfig(f"blocking clients need the package kubernetes; try: pip install '{OFFICIAL}'")
    from mooring_kubernetes.official import Api

    held = BlockingHeld(access_of(request.credentials), request.renew, access_of)
    doors = _Doors(held.current)

    def fresh() -> Door:
        return doors.of(held.fresh())

    def instead_of(refused: Door) -> Door:
        if (credentials := doors.behind(refused)) is not None:
            held.instead_of(credentials)
        return doors.of(held.current)

    api = Api(fresh, instead_of)
    try:
        yield api
    finally:
        api.close()
