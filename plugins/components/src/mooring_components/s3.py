"""S3 as a file system of fsspec, by s3fs, with credentials that renew themselves.

The file system is used synchronously, from threads of the host's (`anyio.to_thread.run_sync(store.ls, path)`), as
libraries do that know fsspec; or its coroutines are awaited (`store._ls`), on its own loop. Its requests are made on
fsspec's loop, which asks the broker's for other credentials when a window opens.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import mooring as m
from mooring.held import Held
from mooring_components.flavors import Opening

PATIENCE = 30.0
"""Seconds that fsspec's loop waits for the broker's."""


@asynccontextmanager
async def file_system(opening: Opening) -> AsyncGenerator[Any, None]:
    """An `s3fs.S3FileSystem`.

    Raises:
        InvalidConfig: s3fs is not installed.
    """
    try:
        import s3fs
    except ImportError:
        missing = True
    else:
        missing = False
    if missing:
        raise m.InvalidConfig("file systems of S3 need the package s3fs; try: pip install s3fs")
    if opening.connector:
        first, keeper = await _issued(opening)
        endpoints = getattr(first, "endpoint_urls", {})
        region, endpoint = getattr(first, "region", None), endpoints.get("s3") or endpoints.get("default")
    else:
        keeper = _fixed(opening)
        region, endpoint = getattr(opening.config, "region", None), getattr(opening.config, "endpoint_url", None)
    system = s3fs.S3FileSystem(
        session=_session(keeper),
        endpoint_url=endpoint,
        client_kwargs={"region_name": region} if region else {},
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    try:
        yield system
    finally:
        keeper.close()
        if (client := vars(system).get("_s3")) is not None:  # opened by the first call, on fsspec's loop
            await asyncio.to_thread(s3fs.S3FileSystem.close_session, system.loop, client)


def _session(keeper: Any) -> Any:
    """A session of aiobotocore with credentials of ours, which reads no profile of the machine."""
    from aiobotocore.session import AioSession

    nowhere = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    session = AioSession(session_vars={"profile": (None, None, None, None), **nowhere})
    session.register_component("credential_provider", keeper)
    return session


def _plain(credentials: Any) -> tuple[str, str, str | None]:
    """An access key, its secret, and its session token.

    Raises:
        UnsupportedResource: the credentials are none of S3's.
    """
    if credentials.__struct_config__.tag != "aws":
        raise m.UnsupportedResource("the connector gives no credentials of AWS; connect the component to another one")
    token = credentials.session_token.reveal() if credentials.session_token else None
    return credentials.access_key_id, credentials.secret_access_key.reveal(), token


async def _issued(opening: Opening) -> tuple[m.Credentials, Any]:
    """What a connector issues, renewed on the broker's loop for fsspec's."""
    from aiobotocore.credentials import AioCredentials
    from botocore.credentials import ReadOnlyCredentials

    home = asyncio.get_running_loop()

    async def issue(**more: Any) -> m.Issued:
        return await opening.broker.issue(
            opening.connector,
            resource_type=opening.resource_type,
            resource_id=opening.resource_id,
            access=opening.access,
            consumer=opening.consumer,
            **more,
        )

    last = await issue()

    async def again(refused: m.Credentials | None = None) -> m.Credentials:
        nonlocal last
        last = await issue(refused=last.lease if refused == last.credentials else "")
        return last.credentials

    def elsewhere(refused: m.Credentials | None = None) -> Awaitable[m.Credentials]:
        asked = asyncio.run_coroutine_threadsafe(again(refused), home)
        return asyncio.wait_for(asyncio.wrap_future(asked), PATIENCE)

    held = Held(last.credentials, elsewhere, lambda given: given)

    class Renewing(AioCredentials):  # type: ignore[misc]  # botocore has no types
        async def get_frozen_credentials(self) -> Any:
            self.access_key, self.secret_key, self.token = plain = _plain(await held.fresh())
            return ReadOnlyCredentials(*plain)

    return last.credentials, _Keeper(Renewing(*_plain(last.credentials), method="mooring"))


def _fixed(opening: Opening) -> Any:
    """What a named secret holds."""
    from aiobotocore.credentials import AioCredentials

    held = {key: value.reveal() for key, value in opening.secret.items()}
    key, word = held["aws_access_key_id"], held["aws_secret_access_key"]
    return _Keeper(AioCredentials(key, word, held.get("aws_session_token"), method="mooring"))


class _Keeper:
    """Where botocore looks for credentials, until the file system is closed."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    async def load_credentials(self) -> Any:
        """What is kept.

        Raises:
            BrokerClosed: the block was left in which the file system was to be used.
        """
        if self._credentials is None:
            raise m.errors.BrokerClosed("this file system is closed; open the component again")
        return self._credentials

    def close(self) -> None:
        """Give nobody the credentials any more."""
        self._credentials = None
