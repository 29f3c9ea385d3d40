"""A connector that needs no vendor: the contract's runnable example, and a fake for tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

import mooring as m
from mooring.hookspecs import Tools
from mooring.http import Http, Tls
from mooring.limits import Limits


class ExampleConfig(m.Config):
    """A user, and a password that one example bucket wants."""

    user: Annotated[str, msgspec.Meta(description="the user's name")]
    password: Annotated[m.Secret | None, msgspec.Meta(description="the user's password")] = None
    buckets: Annotated[tuple[str, ...], msgspec.Meta(description="the buckets that there are")] = ("a", "b")


class Example:
    """Answers from its own configuration."""

    @m.hookimpl
    def describe(self) -> m.ConnectorType:
        """One auth method, one resource type."""
        hour = timedelta(hours=1)
        method = m.AuthMethod(
            name="password",
            config=ExampleConfig,
            temporary=True,
            lifetime=m.Lifetime(minimum=timedelta(minutes=15), default=hour, maximum=12 * hour),
        )
        bucket = m.ResourceType(name="example-bucket", formats=("NAME", "example://NAME"))
        return m.ConnectorType(name="example", auth_methods=(method,), resource_types=(bucket,))

    @m.hookimpl
    def canonical(self, resource_type: str, text: str) -> str:
        """The bucket's name."""
        name = text.removeprefix("example://").strip("/")
        if not name.isidentifier():
            raise m.InvalidConfig(f"not a {resource_type}; write NAME or example://NAME", field="resource_id")
        return name

    @m.hookimpl
    @asynccontextmanager
    async def authenticate(self, config: ExampleConfig, context: m.Context) -> AsyncGenerator[str, None]:
        """The user's name is the whole session."""
        yield config.user

    @m.hookimpl
    async def verify(self, session: str, request: m.VerifyRequest) -> m.Identity:
        """The user."""
        return m.Identity(subject=session)

    @m.hookimpl
    async def discover(self, session: str, request: m.DiscoverRequest) -> AsyncGenerator[m.Resource, None]:
        """Two buckets."""
        for name in ("a", "b"):
            yield m.Resource(type=request.resource_type, id=name)

    @m.hookimpl
    async def issue_credentials(self, session: str, request: m.CredentialRequest) -> m.Credentials:
        """A token that names the bucket."""
        ends = datetime.now(UTC) + (request.ttl or timedelta(hours=1))
        return m.BearerToken(token=m.Secret(f"{session}:{request.resource_id}"), expires_at=ends, narrowed=True)


class _SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        import time

        return time.monotonic()


class MemoryUndoLog:
    """An undo log for calling a plugin's hooks by hand: `steps` holds what is not done with."""

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, str]] = {}
        self.until: dict[str, datetime] = {}

    async def begin(self, step: Mapping[str, str]) -> str:
        """See `UndoLog.begin`."""
        entry = str(len(self.steps))
        self.steps[entry] = dict(step)
        return entry

    async def keep(self, entry: str, until: datetime) -> None:
        """See `UndoLog.keep`."""
        self.until[entry] = until

    async def done(self, entry: str) -> None:
        """See `UndoLog.done`."""
        del self.steps[entry]


def example_context() -> m.Context:
    """A context as the kernel would make it, for calling a plugin's hooks by hand."""
    tools = Tools(http=Http(Tls()), limits=Limits(), clock=_SystemClock())
    return m.Context(connector_id="0", connector="example", consumer="docs", tools=tools, undo=MemoryUndoLog())


example = Example()
contract: m.Connector[ExampleConfig, str] = example
