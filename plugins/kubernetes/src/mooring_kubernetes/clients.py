"""Ready clients that renew their own credentials: kubernetes-asyncio for async hosts, kubernetes for blocking ones.

A client asks for the credentials before each request. While they have enough life left, the answer is at hand; after
that `renew` is asked, which the broker's cache answers, so asking often is cheap. If renewing fails, what is there is
used until it ends.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio

import mooring as m
from mooring_kubernetes.access import access_of
from mooring_kubernetes.tls import context_of, proxy_of

if TYPE_CHECKING:
    from mooring_kubernetes.api import Door

EARLY = timedelta(minutes=5)
"""With less life than this left, fresh credentials are asked for."""
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


def _due(credentials: m.Credentials, within: timedelta) -> bool:
    return credentials.expires_at is not None and credentials.expires_at - datetime.now(UTC) < within


@asynccontextmanager
async def client(request: m.ClientRequest) -> AsyncGenerator[Any, None]:
    """A kubernetes_asyncio ApiClient."""
    from mooring_kubernetes.api import Api

    held = access_of(request.credentials)
    door = door_of(held)
    lock = anyio.Lock()

    async def fresh() -> Door:
        nonlocal held, door
        if _due(held, EARLY):
            async with lock:
                if _due(held, EARLY):
                    try:
                        renewed = access_of(await request.renew())
                    except m.MooringError:
                        if _due(held, timedelta(0)):
                            raise
                    else:
                        held, door = renewed, door if renewed == held else door_of(renewed)
        return door

    api = Api(fresh)
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

    held = access_of(request.credentials)
    door = door_of(held)
    lock = threading.Lock()

    def fresh() -> Door:
        nonlocal held, door
        if _due(held, EARLY):
            with lock:
                if _due(held, EARLY):
                    try:
                        renewed = access_of(request.renew())
                    except m.MooringError:
                        if _due(held, timedelta(0)):
                            raise
                    else:
                        held, door = renewed, door if renewed == held else door_of(renewed)
        return door

    api = Api(fresh)
    try:
        yield api
    finally:
        api.close()
