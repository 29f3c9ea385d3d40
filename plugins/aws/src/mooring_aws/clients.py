"""Ready native clients that renew their own credentials: aioboto3 for async hosts, boto3 for blocking ones.

A client asks for the credentials whenever it signs a request. While they have enough life left, the answer is at hand;
after that `renew` is asked, which the broker's cache answers, so asking often is cheap. If renewing fails, what is
there is used until it ends.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

import mooring as m
from mooring_aws import ids
from mooring_aws.credentials import AwsCredentials
from mooring_aws.endpoints import lookup

EARLY = timedelta(minutes=5)
"""With less life than this left, fresh credentials are asked for."""


def _due(credentials: AwsCredentials, within: timedelta) -> bool:
    return credentials.expires_at is not None and credentials.expires_at - datetime.now(UTC) < within


def _plain(credentials: AwsCredentials) -> tuple[str, str, str | None]:
    token = credentials.session_token.reveal() if credentials.session_token else None
    return credentials.access_key_id, credentials.secret_access_key.reveal(), token


def _checked(credentials: m.Credentials) -> AwsCredentials:
    if not isinstance(credentials, AwsCredentials):
        raise m.UnsupportedResource(
            "mooring-aws makes clients of AWS credentials alone; for a cluster or a registry install its plugin"
        )
    return credentials


def _bare(kind: type, provider: Any) -> Any:
    """A botocore session with credentials of ours, which reads no profile of the machine."""
    nowhere = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    session = kind(session_vars={"profile": (None, None, None, None), **nowhere})
    session.register_component("credential_provider", provider)
    return session


def _at_endpoints(kind: Any, endpoints: dict[str, str]) -> Any:
    """A session class whose clients go to these endpoints, unless they are told another."""

    class Session(kind):  # type: ignore[misc]  # boto3 has no types
        def client(self, service_name: str, *arguments: Any, **options: Any) -> Any:
            if options.get("endpoint_url") is None and len(arguments) < 5:  # noqa: PLR2004  (the fifth is endpoint_url)
                options["endpoint_url"] = lookup(endpoints, service_name)
            return super().client(service_name, *arguments, **options)

    return Session


def _straight(kind: Any) -> Any:
    """A session class whose clients follow no redirect, as botocore's own do not."""
    from aiobotocore.config import AioConfig
    from aiobotocore.httpsession import AIOHTTPSession

    from mooring_aws.wire import Straight

    class Session(kind):  # type: ignore[misc]  # botocore has no types
        def create_client(self, *arguments: Any, config: Any = None, **options: Any) -> Any:
            config = copy.copy(config) if isinstance(config, AioConfig) else AioConfig().merge(config or AioConfig())
            if config.http_session_cls is AIOHTTPSession:
                config.http_session_cls = Straight
            return super().create_client(*arguments, config=config, **options)

    return Session


@asynccontextmanager
async def client(request: m.ClientRequest) -> AsyncGenerator[Any, None]:
    """An aioboto3 S3 client for a bucket, an aioboto3 session for anything else."""
    import aioboto3
    from aiobotocore.session import AioSession

    first = _checked(request.credentials)
    provider = _async_provider(first, request.renew)
    kind = _at_endpoints(aioboto3.Session, first.endpoint_urls)
    session = kind(botocore_session=_bare(_straight(AioSession), provider), region_name=first.region)
    if request.resource_type != ids.S3:
        yield session
        return
    async with session.client("s3") as s3:
        yield s3


@contextmanager
def blocking_client(request: m.BlockingClientRequest) -> Generator[Any, None, None]:
    """A boto3 S3 client for a bucket, a boto3 session for anything else."""
    import boto3
    import botocore.session

    first = _checked(request.credentials)
    provider = _blocking_provider(first, request.renew)
    kind = _at_endpoints(boto3.Session, first.endpoint_urls)
    session = kind(botocore_session=_bare(botocore.session.Session, provider), region_name=first.region)
    if request.resource_type != ids.S3:
        yield session
        return
    s3 = session.client("s3")
    try:
        yield s3
    finally:
        s3.close()


def _async_provider(first: AwsCredentials, renew: Callable[[], Awaitable[m.Credentials]]) -> Any:
    from aiobotocore.credentials import AioCredentials
    from botocore.credentials import ReadOnlyCredentials

    class Renewing(AioCredentials):  # type: ignore[misc]  # botocore has no types
        """Asked by aiobotocore before each signature."""

        def __init__(self) -> None:
            super().__init__(*_plain(first), method="mooring")
            self._held = first
            self._lock = anyio.Lock()

        async def get_frozen_credentials(self) -> Any:
            if _due(self._held, EARLY):
                async with self._lock:
                    if _due(self._held, EARLY):
                        await self._renew()
            return ReadOnlyCredentials(*_plain(self._held))

        async def _renew(self) -> None:
            try:
                self._held = _checked(await renew())
            except m.MooringError:
                if _due(self._held, timedelta(0)):
                    raise
            self.access_key, self.secret_key, self.token = _plain(self._held)

    class Provider:
        async def load_credentials(self) -> Any:
            return renewing

    renewing = Renewing()
    return Provider()


def _blocking_provider(first: AwsCredentials, renew: Callable[[], m.Credentials]) -> Any:
    from botocore.credentials import Credentials, ReadOnlyCredentials

    class Renewing(Credentials):  # type: ignore[misc]  # botocore has no types
        """Asked by botocore before each signature, from any thread."""

        def __init__(self) -> None:
            super().__init__(*_plain(first), method="mooring")
            self._held = first
            self._lock = threading.Lock()

        def get_frozen_credentials(self) -> Any:
            if _due(self._held, EARLY):
                with self._lock:
                    if _due(self._held, EARLY):
                        self._renew()
            return ReadOnlyCredentials(*_plain(self._held))

        def _renew(self) -> None:
            try:
                self._held = _checked(renew())
            except m.MooringError:
                if _due(self._held, timedelta(0)):
                    raise
            self.access_key, self.secret_key, self.token = _plain(self._held)

    class Provider:
        def load_credentials(self) -> Any:
            return renewing

    renewing = Renewing()
    return Provider()
