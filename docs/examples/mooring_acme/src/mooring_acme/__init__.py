"""Acme Cloud for mooring: buckets, by API key."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated

from msgspec import Meta

import mooring as m

HOUR = timedelta(hours=1)


class ApiKey(m.Config):
    """What the auth method `api-key` asks for."""

    url: Annotated[str, Meta(description="where Acme Cloud is, such as https://api.acme.example")]
    key: Annotated[m.Secret, Meta(description="the API key")]


class Acme:
    """The plugin of the connector type `acme`; a session is an HTTP client with the key in its header."""

    @m.hookimpl
    def describe(self) -> m.ConnectorType:
        """One auth method, one resource type."""
        life = m.Lifetime(minimum=HOUR / 60, default=HOUR, maximum=12 * HOUR)
        key = m.AuthMethod(name="api-key", config=ApiKey, temporary=True, lifetime=life)
        bucket = m.ResourceType(name="acme-bucket", formats=("NAME", "acme://NAME"))
        return m.ConnectorType(name="acme", title="Acme Cloud", auth_methods=(key,), resource_types=(bucket,))

    @m.hookimpl
    def canonical(self, resource_type: str, text: str) -> str:
        """The bucket's name."""
        name = text.removeprefix("acme://").strip("/")
        if not name.replace("-", "").isalnum():
            raise m.InvalidConfig("not an acme-bucket; write NAME or acme://NAME", field="resource_id")
        return name

    @m.hookimpl
    @asynccontextmanager
    async def authenticate(self, config: ApiKey, context: m.Context) -> AsyncGenerator[m.Http, None]:
        """A session; it makes no call."""
        yield context.http.at(config.url, authorization=f"Bearer {config.key.reveal()}")

    @m.hookimpl
    async def verify(self, session: m.Http, request: m.VerifyRequest) -> m.Identity:
        """The key's owner; with a bucket, only if it is there."""
        me = await session.get_json("/me")
        if request.resource_id:
            await session.get_json(f"/buckets/{request.resource_id}")
        return m.Identity(subject=me["login"])

    @m.hookimpl
    async def discover(self, session: m.Http, request: m.DiscoverRequest) -> AsyncGenerator[m.Resource, None]:
        """The buckets."""
        for bucket in await session.get_json("/buckets"):
            yield m.Resource(type=request.resource_type, id=bucket["name"])

    @m.hookimpl
    async def issue_credentials(self, session: m.Http, request: m.CredentialRequest) -> m.Credentials:
        """A token that is good for the one bucket and the one access."""
        seconds = int((request.ttl or HOUR).total_seconds())
        body = {"bucket": request.resource_id, "access": request.access, "seconds": seconds}
        got = await session.post_json("/tokens", body)
        return m.BearerToken(token=m.Secret(got["id"]), expires_at=m.instant(got["expires"]), narrowed=True)


connector: m.Connector[ApiKey, m.Http] = Acme()  # checked by mypy and pyright
