"""A connector type whose vendor does what a test says, and a broker that leaves nothing behind."""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import mooring as m
from mooring.assembly import Settings, open_broker
from mooring.store import MemoryStore
from mooring.vault import Vault, parse_keys

HOUR = timedelta(hours=1)


class FakeConfig(m.Config):
    """A place, and perhaps a key."""

    place: str = "here"
    key: m.Secret | None = None
    size: int = 1


class FakeSession(m.types.Struct):
    """What a session was opened with."""

    config: FakeConfig
    context: m.Context


class Fake:
    """A connector type with buckets, clusters and a generic type; every hook can be told what to do.

    `on["verify"] = handler` has `await handler(request)` called first, which may sleep, raise, or give another answer
    than the usual one; so have `authenticate` (given the context), `discover` (once for each question), `close` (given
    the context) and `issue_credentials`. `calls` counts what was asked, `opened`, `closed` and `issued` the rest.
    """

    def __init__(self, name: str = "fake", resources: Mapping[str, Sequence[str]] | None = None) -> None:
        self.name = name
        self.resources = dict(resources or {"bucket": ("a", "b"), "cluster": ("x",), "generic": ("account",)})
        self.on: dict[str, Callable[[Any], Awaitable[Any]]] = {}
        self.calls: Counter[str] = Counter()
        self.requests: list[Any] = []
        self.opened = self.closed = self.issued = 0

    async def _asked(self, hook: str, request: Any) -> Any:
        self.calls[hook] += 1
        self.requests.append(request)
        return await self.on[hook](request) if hook in self.on else None

    @m.hookimpl
    def describe(self) -> m.ConnectorType:
        """Three auth methods (with a lifetime, without one, implicit) and three resource types."""
        lifetime = m.Lifetime(minimum=HOUR / 4, default=HOUR, maximum=12 * HOUR)
        return m.ConnectorType(
            name=self.name,
            auth_methods=(
                m.AuthMethod(name="key", config=FakeConfig, temporary=True, lifetime=lifetime),
                m.AuthMethod(name="fixed", config=FakeConfig),
                m.AuthMethod(name="implicit", config=FakeConfig, implicit=True),
            ),
            resource_types=(
                m.ResourceType(name="bucket"),
                m.ResourceType(name="cluster", auth_methods=("key", "implicit")),
                m.ResourceType(name="generic", instances=False, narrowable=False),
            ),
        )

    @m.hookimpl
    def canonical(self, resource_type: str, text: str) -> str:
        """`fake://` and slashes around are optional; there is no empty id."""
        if not (name := text.removeprefix("fake://").strip("/")):
            raise m.InvalidConfig(f"not a {resource_type}; write NAME or fake://NAME", field="resource_id")
        return name

    @m.hookimpl
    def covers(self, resource_type: str, scope: str, resource_id: str) -> bool:
        """A bucket contains what lies below it."""
        return resource_type == "bucket" and resource_id.startswith(f"{scope}/")

    @m.hookimpl
    @asynccontextmanager
    async def authenticate(self, config: FakeConfig, context: m.Context) -> AsyncGenerator[FakeSession, None]:
        """A session that remembers what it was opened with."""
        await self._asked("authenticate", context)
        self.opened += 1
        try:
            yield FakeSession(config=config, context=context)
        finally:
            self.closed += 1
            await self._asked("close", context)

    @m.hookimpl
    async def verify(self, session: FakeSession, request: m.VerifyRequest) -> m.Identity:
        """The place."""
        answer = await self._asked("verify", request)
        return answer or m.Identity(subject=session.config.place)

    @m.hookimpl
    async def discover(self, session: FakeSession, request: m.DiscoverRequest) -> AsyncGenerator[m.Resource, None]:
        """What `resources` names."""
        for resource in await self._asked("discover", request) or [
            m.Resource(type=request.resource_type, id=name) for name in self.resources.get(request.resource_type, ())
        ]:
            yield resource

    @m.hookimpl
    async def issue_credentials(self, session: FakeSession, request: m.CredentialRequest) -> m.Credentials:
        """A token that tells the place and counts."""
        answer: m.Credentials | None = await self._asked("issue_credentials", request)
        if answer is not None:
            return answer
        self.issued += 1
        return m.BearerToken(
            token=m.Secret(f"{session.config.place}-{self.issued}"),
            expires_at=session.context.clock.now() + (request.ttl or HOUR),
            narrowed=True,
        )


def memory_broker(*plugins: object, **options: Any) -> AbstractAsyncContextManager[m.Broker]:
    """A broker that leaves nothing behind: connectors in memory, a key of its own, no installed plugin.

    Args:
        plugins: connector plugins.
        options: as `open_broker` takes them.

    >>> import anyio
    >>> async def issue():
    ...     async with memory_broker(Fake()) as broker:
    ...         await broker.register("test", type="fake", auth_method="key")
    ...         return await broker.issue("test", resource_type="bucket", resource_id="a")
    >>> anyio.run(issue).credentials.token.reveal()
    'here-1'
    """
    key = b64encode(secrets.token_bytes(32)).decode()
    defaults: dict[str, Any] = {
        "settings": Settings(home=Path("/nonexistent")),
        "plugins": plugins,
        "system_plugins": (),
        "store": MemoryStore(),
        "vault": Vault(parse_keys(f"test:{key}", "the test")),
        "share_cache": False,
    }
    return open_broker(**defaults | options)


contract: m.Connector[FakeConfig, FakeSession] = Fake()
