"""Ready native clients that renew their own credentials: aioboto3 for async hosts, boto3 for blocking ones.

A client asks for the credentials whenever it signs a request; `mooring.held` says when others are asked for. Where AWS
refuses them as expired or unknown, others are asked for at once, and the call is made once more. (An answer to HEAD
names no code, so S3's HeadObject and HeadBucket are not.)
"""

from __future__ import annotations

import copy
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import mooring as m
from mooring.held import BlockingHeld, Held
from mooring_aws import ids
from mooring_aws.credentials import AwsCredentials
from mooring_aws.endpoints import lookup

REFUSALS = (
    *("ExpiredToken", "ExpiredTokenException", "RequestExpired"),
    *("InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"),  # one thing, by three names
)
"""The codes by which AWS refuses credentials that have ended, or that it knows no longer.

Source: https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html and each service's own page.
"""
USED, AGAIN = "mooring_used", "mooring_again"
"""In the context of a request: what signed it, and that it is made once more."""


def _plain(credentials: AwsCredentials) -> tuple[str, str, str | None]:
    token = credentials.session_token.reveal() if credentials.session_token else None
    return credentials.access_key_id, credentials.secret_access_key.reveal(), token


def _checked(credentials: m.Credentials) -> AwsCredentials:
    if not isinstance(credentials, AwsCredentials):
        raise m.UnsupportedResource(
            "mooring-aws makes clients of AWS credentials alone; for a cluster or a registry install its plugin"
        )
    return credentials


def _bare(kind: type, keeper: Any) -> Any:
    """A botocore session with credentials of ours, which reads no profile of the machine."""
    nowhere = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    session = kind(session_vars={"profile": (None, None, None, None), **nowhere})
    session.register_component("credential_provider", keeper)
    session.register("before-sign", keeper.signing)
    session.register("needs-retry", keeper.answered)
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
    keeper = _keeper(Held(first, request.renew, _checked))
    kind = _at_endpoints(aioboto3.Session, first.endpoint_urls)
    session = kind(botocore_session=_bare(_straight(AioSession), keeper), region_name=first.region)
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
    keeper = _blocking_keeper(BlockingHeld(first, request.renew, _checked))
    kind = _at_endpoints(boto3.Session, first.endpoint_urls)
    session = kind(botocore_session=_bare(botocore.session.Session, keeper), region_name=first.region)
    if request.resource_type != ids.S3:
        yield session
        return
    s3 = session.client("s3")
    try:
        yield s3
    finally:
        s3.close()


def _refused(response: Any, request_dict: dict[str, Any]) -> AwsCredentials | None:
    """What signed a request, if AWS has refused it for that, and for the first time; then it is made once more."""
    context = request_dict["context"]
    if response is None or context.get(AGAIN) or response[1].get("Error", {}).get("Code") not in REFUSALS:
        return None
    context[AGAIN] = True
    used: AwsCredentials | None = context.get(USED)
    return used


def _keeper(held: Held[AwsCredentials]) -> Any:
    """What gives aiobotocore credentials, and hears how AWS takes them."""
    from aiobotocore.credentials import AioCredentials
    from botocore.credentials import ReadOnlyCredentials

    class Renewing(AioCredentials):  # type: ignore[misc]  # botocore has no types
        async def get_frozen_credentials(self) -> Any:
            self.access_key, self.secret_key, self.token = plain = _plain(await held.fresh())
            return ReadOnlyCredentials(*plain)

    class Keeper:
        async def load_credentials(self) -> Any:
            return renewing

        async def signing(self, request: Any, **_: Any) -> None:
            request.context[USED] = await held.fresh()

        async def answered(self, response: Any, request_dict: dict[str, Any], **_: Any) -> int | None:
            used = _refused(response, request_dict)
            return None if used is None or await held.instead_of(used) is used else 0

    renewing = Renewing(*_plain(held.current), method="mooring")
    return Keeper()


def _blocking_keeper(held: BlockingHeld[AwsCredentials]) -> Any:
    """The same for botocore, whose threads share it."""
    from botocore.credentials import Credentials, ReadOnlyCredentials

    class Renewing(Credentials):  # type: ignore[misc]  # botocore has no types
        def get_frozen_credentials(self) -> Any:
            self.access_key, self.secret_key, self.token = plain = _plain(held.fresh())
            return ReadOnlyCredentials(*plain)

    class Keeper:
        def load_credentials(self) -> Any:
            return renewing

        def signing(self, request: Any, **_: Any) -> None:
            request.context[USED] = held.fresh()

        def answered(self, response: Any, request_dict: dict[str, Any], **_: Any) -> int | None:
            used = _refused(response, request_dict)
            return None if used is None or held.instead_of(used) is used else 0

    renewing = Renewing(*_plain(held.current), method="mooring")
    return Keeper()
