"""A session: one connector's settings, its source keys, and the shared clients to use them with."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import anyio

import mooring as m
from mooring_aws import ids, plan, settings, sts
from mooring_aws.cloud import Cloud
from mooring_aws.credentials import Keys
from mooring_aws.endpoints import endpoint_of
from mooring_aws.methods import ASSUMED, METHODS

FRESH = timedelta(minutes=2)
"""Standing keys with less life than this are made anew."""


class AwsSession:
    """Makes signed calls for one connector. Costs no call itself: keys are made when first needed, once."""

    def __init__(self, config: settings.AwsConfig, context: m.Context, cloud: Cloud) -> None:
        self.config = config
        self.context = context
        self._cloud = cloud
        self._lock = anyio.Lock()
        self._identity_lock = anyio.Lock()
        self._standing: Keys | None = None
        self._identity: m.Identity | None = None
        self.method = next(method for method in METHODS if method.config is type(config))

    def __repr__(self) -> str:
        return f"AwsSession({self.context.connector!r})"

    async def source(self) -> Keys:
        """The keys that the connector holds, or the machine."""
        config = self.config
        if isinstance(config, settings.ImplicitConfig):
            return await self._cloud.machine(config.profile_name)
        if not isinstance(config, settings.KeyPairConfig):
            raise m.BrokenPlugin("mooring-aws asked for the source keys of an auth method that has none; report this")
        token: m.Secret | None = getattr(config, "aws_session_token", None)
        return Keys(
            access_key_id=config.aws_access_key_id.reveal(),
            secret_access_key=config.aws_secret_access_key,
            session_token=token,
            expires_at=self.context.expires_at if token else None,
        )

    async def keys(self) -> Keys:
        """The keys for verifying and discovering: all rights of the connector, the shortest life, made once."""
        async with self._lock:
            kept = self._standing
            now = self.context.clock.now()
            if kept is None or (kept.expires_at is not None and kept.expires_at - now < FRESH):
                kept = await sts.make(self, plan.standing(self.config), ASSUMED.minimum, self.context.consumer)
                self._standing = kept
            return kept

    async def identity(self) -> m.Identity:
        """Whom AWS takes us for; asked once, and not at all where the keys came with the answer."""
        async with self._identity_lock:
            if self._identity is None:
                keys = await self.keys()
                self._identity = self._told(keys) or await self._whoami(keys)
            return self._identity

    def _told(self, keys: Keys) -> m.Identity | None:
        """What the answer that the keys came with says; some stores name nobody there, or no account."""
        account = ids.account_of_session(keys.identity or "")
        if account is None:
            return None
        return m.Identity(subject=keys.identity or "", account=account, expires_at=self.context.expires_at)

    async def _whoami(self, keys: Keys) -> m.Identity:
        try:
            answer = await self.sts("GetCallerIdentity", keys)
        except m.AccessDenied:
            # AWS lets everybody ask this who signs with a key that it knows; stores say so of a wrong key
            problem: m.VendorError = m.AuthFailed(
                "the credentials are not accepted (sts:GetCallerIdentity); check the access key and its secret"
            )
        except (m.Rejected, m.ResourceNotFound) as error:
            problem = error
        else:
            if "Arn" in answer:
                ends = self.context.expires_at
                return m.Identity(subject=answer["Arn"], account=answer.get("Account"), expires_at=ends)
            problem = m.Rejected(
                "the endpoint answered sts:GetCallerIdentity without an identity; check that it speaks STS"
            )
        endpoint = endpoint_of(self.config, "s3")
        if isinstance(problem, m.AuthFailed) or endpoint is None:
            raise problem
        with suppress(m.AccessDenied):  # a store without identities: that it knows the key is what can be asked
            await self.call("s3", "ListBuckets", MaxBuckets=1)
        return m.Identity(subject=f"a key of {urlsplit(endpoint).netloc}", expires_at=self.context.expires_at)

    def reaches(self, region: str) -> None:
        """Raise UnsupportedResource unless the region is one of the connector's."""
        plan.within(self.config, region)

    def wished(self, ttl: timedelta | None) -> bool:
        """Whether a life was wished for, as far as can be told: one that is not the auth method's usual one."""
        return ttl is not None and self.method.lifetime is not None and ttl != self.method.lifetime.default

    async def sts(self, operation: str, keys: Keys | None, **parameters: Any) -> dict[str, Any]:
        """The answer of the regional STS; unsigned without keys."""
        return await self._call("sts", operation, self.config.home, keys, parameters)

    async def call(
        self, service: str, operation: str, *, region: str | None = None, keys: Keys | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """The answer of a service, to the standing keys unless others are given."""
        return await self._call(service, operation, region or self.config.home, keys or await self.keys(), parameters)

    async def pages(
        self, service: str, operation: str, token: str, *, region: str | None = None, **parameters: Any
    ) -> AsyncGenerator[dict[str, Any], None]:
        """All pages of a listing, where `token` names what leads from one to the next."""
        seen: set[str] = set()
        while True:
            page = await self.call(service, operation, region=region, **parameters)
            yield page
            following = page.get(token)
            if not following:
                return
            if following in seen:
                raise m.Rejected(f"the listing goes in a circle ({service}:{operation}); the endpoint repeats a page")
            seen.add(following)
            parameters[token] = following

    async def _call(
        self, service: str, operation: str, region: str, keys: Keys | None, parameters: dict[str, Any]
    ) -> dict[str, Any]:
        endpoint = endpoint_of(self.config, service)
        return await self._cloud.call(
            service, operation, parameters, region=region, endpoint=endpoint, keys=keys, bucket=self._bucket
        )

    @property
    def _bucket(self) -> str:
        """Whose limits a call counts against: the account of the role or of the key, or else the connector."""
        if role := settings.role_of(self.config):
            return role.split(":")[4]
        key: m.Secret | None = getattr(self.config, "aws_access_key_id", None)
        return (key and ids.account_of_key(key.reveal())) or self.context.connector_id
