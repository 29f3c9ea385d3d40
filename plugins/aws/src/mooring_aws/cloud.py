"""The clients that all sessions share: one per service, region and endpoint, over one TLS context.

Making a client costs tens of milliseconds of CPU and a TLS context as much again; signing a request with other keys
costs nothing. So every call names its keys, and a handler of botocore's `before-sign` event puts them into the request
being signed. The clients themselves hold keys that are good for nothing, so that a call without keys cannot be signed
with somebody's. Whose keys they are travels in a context variable: each task sees its own.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import anyio

import mooring as m
from mooring_aws import machine
from mooring_aws.credentials import Keys
from mooring_aws.errors import translated
from mooring_aws.quiet import quiet

LOOK_AGAIN = timedelta(minutes=1)
"""How long the machine's own keys are taken to stand, and how much life they must have left."""
CONNECT_TIMEOUT, READ_TIMEOUT = 5, 30
CONNECTIONS = 500
"""At most to one endpoint: as many as the kernel lets go at once, for a signed request that waits here ages."""

_signer: ContextVar[Any] = ContextVar("mooring_aws_signer")
"""The keys of the call under way, as botocore wants them."""


class Cloud:
    """Calls of AWS, for any number of sessions."""

    def __init__(self, tools: m.Tools, stack: AsyncExitStack) -> None:
        self._tools = tools
        self._stack = stack
        self._clients: dict[tuple[str, str, str | None], Any] = {}
        self._lock = anyio.Lock()
        self._found: dict[str | None, tuple[float, Keys]] = {}
        self._finding = anyio.Lock()
        self._session: Any = None
        self._config: Any = None

    async def call(
        self,
        service: str,
        operation: str,
        parameters: dict[str, Any],
        *,
        region: str,
        endpoint: str | None,
        keys: Keys | None,
        bucket: str,
    ) -> dict[str, Any]:
        """The answer to a call, signed with the keys; tried again where that may help.

        The operation is named as in AWS's API reference, such as `ListBuckets`; its parameters may be secrets; without
        keys it goes unsigned. `bucket` says whose limits it counts against.
        """
        client = await self._client(service, region, endpoint)
        call = f"{service}:{operation}"

        async def work() -> dict[str, Any]:
            unsaid = _unsaid(parameters, keys)
            return await translated(call, lambda: _signed(client, operation, parameters, keys), endpoint, unsaid)

        place = urlsplit(endpoint).netloc if endpoint else region  # another store or cloud has limits of its own
        return await self._tools.limits.call(work, "aws", bucket, place, service, operation)

    async def machine(self, profile: str | None) -> Keys:
        """The machine's own keys, looked for once in a while: each look costs some 15 ms of CPU."""
        async with self._finding:
            now, clock = self._tools.clock.monotonic(), self._tools.clock
            kept = self._found.get(profile)
            if kept is None or now > kept[0] or (kept[1].expires_at and kept[1].expires_at < clock.now() + LOOK_AGAIN):
                kept = self._found[profile] = (now + LOOK_AGAIN.total_seconds(), await machine.keys(profile))
            return kept[1]

    async def _client(self, service: str, region: str, endpoint: str | None) -> Any:
        key = (service, region, endpoint)
        if key not in self._clients:
            async with self._lock:
                if key not in self._clients:
                    self._clients[key] = await translated(
                        f"opening a client of {service}", lambda: self._open(*key), endpoint
                    )
        return self._clients[key]

    async def _open(self, service: str, region: str, endpoint: str | None) -> Any:
        if self._session is None:
            self._session, self._config = _bare_session(), _client_config()
        opening = self._session.create_client(
            service,
            region_name=region,
            endpoint_url=endpoint,
            config=self._config,
            aws_access_key_id="unsigned",
            aws_secret_access_key="unsigned",  # noqa: S106  (good for nothing)
        )
        with quiet():
            return await self._stack.enter_async_context(opening)


@asynccontextmanager
async def open_cloud(tools: m.Tools) -> AsyncGenerator[Cloud, None]:
    """Shared clients for as long as the broker lives; none is made before the first call."""
    async with AsyncExitStack() as stack:
        yield Cloud(tools, stack)


async def _signed(client: Any, operation: str, parameters: dict[str, Any], keys: Keys | None) -> dict[str, Any]:
    from aiobotocore.credentials import AioCredentials
    from botocore import xform_name

    signer = None
    if keys is not None:
        token = keys.session_token.reveal() if keys.session_token else None
        signer = AioCredentials(keys.access_key_id, keys.secret_access_key.reveal(), token)
    plain = {name: value.reveal() if isinstance(value, m.Secret) else value for name, value in parameters.items()}
    reset = _signer.set(signer)
    try:
        with quiet():
            answer: dict[str, Any] = Answer.of(await getattr(client, xform_name(operation))(**plain))
    finally:
        _signer.reset(reset)
    return answer


class Answer(dict[str, Any]):
    """A part of an answer, which may hold keys, or echo ours: it shows nothing in the frames of an error."""

    @classmethod
    def of(cls, value: Any) -> Any:
        """The value, and all the maps within it, as such."""
        if isinstance(value, dict):
            return cls({name: cls.of(one) for name, one in value.items()})
        return [cls.of(one) for one in value] if isinstance(value, list) else value

    def __repr__(self) -> str:
        return f"Answer(of {len(self)})"


def _unsaid(parameters: dict[str, Any], keys: Keys | None) -> tuple[m.Secret, ...]:
    """What no error may quote: all the secrets that a call sends, and what is as good as one."""
    given = [value for value in parameters.values() if isinstance(value, m.Secret)]
    if parameters.get("ExternalId"):
        given.append(m.Secret(parameters["ExternalId"]))
    if keys is not None:
        given += [keys.secret_access_key, *([keys.session_token] if keys.session_token else [])]
    return tuple(given)


def _sign(request: Any, signature_version: Any, **_: Any) -> None:
    """Give the request that is about to be signed the keys of the call that it belongs to."""
    from botocore import UNSIGNED

    if signature_version is UNSIGNED:
        return
    signer = _signer.get(None)
    if signer is None:
        raise m.BrokenPlugin("mooring-aws would have signed a request with nobody's keys; report this")
    request.context.setdefault("signing", {})["request_credentials"] = signer


def _bare_session() -> Any:
    """A botocore session that reads no file and no profile of the machine."""
    from aiobotocore.session import AioSession

    nowhere = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    session = AioSession(session_vars={"profile": (None, None, None, None), **nowhere})
    session.set_config_variable("sts_regional_endpoints", "regional")
    session.register("before-sign", _sign)
    return session


def _client_config() -> Any:
    from aiobotocore.config import AioConfig

    return AioConfig(
        user_agent=f"mooring/{m.__version__}",  # botocore's own is put together anew for each request
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=CONNECTIONS,
        retries={"total_max_attempts": 1, "mode": "standard"},  # its quota is the client's, so everybody's
        ignore_configured_endpoint_urls=True,  # `endpoints` has read them
        defaults_mode="legacy",  # "auto" asks the instance's metadata
        http_session_cls=_shared_tls(),
    )


def _shared_tls() -> type:
    import aiohttp

    from mooring_aws.wire import Bounded

    context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)

    class SharedTls(Bounded):
        """Connections under one TLS context, where aiobotocore makes one for each client."""

        def _create_connector(self, proxy_url: str | None) -> Any:
            return aiohttp.TCPConnector(limit=self._max_pool_connections, ssl=context, **self._connector_args)

    return SharedTls
