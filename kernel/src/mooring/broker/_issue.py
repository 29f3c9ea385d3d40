"""Issue: short-lived credentials for exactly one resource, once for many callers."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

import msgspec

from mooring.broker._desk import Desk, Target, doing, guard, within
from mooring.cache import Key
from mooring.credentials import Credentials, Issued
from mooring.errors import BrokenPlugin, ConfigError, InvalidConfig, LongLived, MooringError, NotNarrowed
from mooring.events import CredentialsIssued, IssueFailed
from mooring.hookspecs import CredentialRequest, Explanation
from mooring.registry import Route
from mooring.types import ACCESSES, Access, AuthMethod, Connector

SYNC_SECONDS = 0.5
"""How old our view of the store may be: another process's change takes effect within a second."""
MAX_REMEMBERED = 10_000


class Wish(NamedTuple):
    """A request as the caller wrote it."""

    connector: str
    resource_type: str | None
    resource_id: str | None
    access: Access
    ttl: timedelta | None


class Issuer:
    """Remembers how wishes resolved, so that a hit in the cache touches neither the store nor a plugin."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._keys: dict[Wish, Key] = {}
        self._changes = -1
        self._synced = float("-inf")

    def forget(self) -> None:
        """Resolve every wish anew: a connector has changed."""
        self._keys.clear()

    def peek(self, wish: Wish, consumer: str) -> Issued | None:
        """What is at hand and fresh, at once. Safe to call from any thread."""
        if self._desk.clock.monotonic() - self._synced >= SYNC_SECONDS:
            return None
        key = self._keys.get(wish)
        issued = self._desk.cache.peek(key) if key is not None else None
        return issued and _for(issued, consumer)

    async def issue(self, wish: Wish, consumer: str) -> Issued:
        """What is fresh, or made now by the vendor."""
        desk = self._desk
        if desk.clock.monotonic() - self._synced >= SYNC_SECONDS:
            await self._sync()
        key = self._keys.get(wish)
        if key is not None and (issued := desk.cache.peek(key)):
            return _for(issued, consumer)
        connector = await desk.find(wish.connector)
        with doing("issue", connector, wish.resource_id):
            route = desk.registry.route(connector.type)
            key = self._resolve(connector, route, wish)

        async def make() -> Issued:
            return await self._make(connector, route, key, wish.ttl, consumer)

        issued = await desk.cache.get(key, make)
        if len(self._keys) >= MAX_REMEMBERED:
            self._keys.clear()
        self._keys[wish] = key
        return issued if issued.consumer == consumer else _for(issued, consumer)

    async def explain(self, wish: Wish, consumer: str) -> Explanation:
        """What `issue` would ask of the vendor, without asking."""
        connector = await self._desk.find(wish.connector)
        with doing("explain", connector, wish.resource_id):
            route = self._desk.registry.route(connector.type)
            key = self._resolve(connector, route, wish)
            if route.explain is None:
                raise ConfigError(f"the plugin for {connector.type!r} cannot explain what it issues")
            config = self._desk.open_config(connector, route)
            with guard(route, "explain"):
                return route.explain(config, _request(connector, key, consumer))

    async def _sync(self) -> None:
        """See whether anybody has changed the store."""
        self._synced = self._desk.clock.monotonic()
        changes = await self._desk.store.changes()
        if changes != self._changes:
            self._changes = changes
            self.forget()

    def _resolve(self, connector: Connector, route: Route, wish: Wish) -> Key:
        if wish.access not in ACCESSES:
            raise InvalidConfig(f"access is one of: {', '.join(ACCESSES)}", field="access")
        if wish.ttl is not None and wish.ttl <= timedelta(0):
            raise InvalidConfig("a ttl is longer than nothing", field="ttl")
        target = self._desk.target(connector, route, wish.resource_type, wish.resource_id)
        if target is None:
            known = ", ".join(kind.name for kind in route.type.resource_types)
            raise InvalidConfig(
                f"connector {connector.name!r} reaches several resource types; name one of: {known}",
                field="resource_type",
            )
        if target.resource_id is None and route.resource_type(target.resource_type).instances:
            raise InvalidConfig(
                f"connector {connector.name!r} reaches several resources; name one with --resource-id "
                f"(mooring connector list-resources --resource-type {target.resource_type})",
                field="resource_id",
            )
        return _key(connector, route.auth_method(connector.auth_method), target, wish)

    async def _make(
        self, connector: Connector, route: Route, key: Key, wish: timedelta | None, consumer: str
    ) -> Issued:
        desk = self._desk
        about = {"connector_id": connector.id, "connector": connector.name, "connector_type": connector.type}
        try:
            with doing("issue", connector, key.resource_id):
                asked_at = desk.clock.now()
                credentials = await self._ask(connector, route, _request(connector, key, consumer))
                _enforce(connector, route, key, credentials)
        except MooringError as error:
            desk.bus.publish(
                IssueFailed(
                    at=desk.clock.now(),
                    resource_type=key.resource_type,
                    resource_id=key.resource_id,
                    consumer=consumer,
                    error=type(error).__name__,
                    message=error.message,
                    **about,
                )
            )
            raise
        method = route.auth_method(connector.auth_method)
        issued = Issued(
            connector_id=connector.id,
            connector=connector.name,
            connector_type=connector.type,
            resource_type=key.resource_type,
            resource_id=key.resource_id,
            access=key.access,
            consumer=consumer,
            issued_at=asked_at,
            credentials=_noted(credentials, method, wish or connector.ttl, key.ttl),
        )
        desk.bus.publish(
            CredentialsIssued(
                at=desk.clock.now(),
                resource_type=key.resource_type,
                resource_id=key.resource_id,
                access=key.access,
                consumer=consumer,
                expires_at=issued.expires_at,
                narrowed=issued.narrowed,
                **about,
            )
        )
        return issued

    async def _ask(self, connector: Connector, route: Route, request: CredentialRequest) -> Credentials:
        with within(self._desk.budgets.issue, "the vendor's answer"):
            async with self._desk.session(connector, route, request.consumer) as session:
                with guard(route, "issue_credentials"):
                    return await route.issue_credentials(session, request)
        raise AssertionError  # `within` has raised


def _for(issued: Issued, consumer: str) -> Issued:
    return msgspec.structs.replace(issued, consumer=consumer, cached=True)


def _key(connector: Connector, method: AuthMethod, target: Target, wish: Wish) -> Key:
    ttl = method.lifetime.clamp(wish.ttl or connector.ttl) if method.lifetime else None
    return Key(
        connector_id=connector.id,
        version=connector.version,
        resource_type=target.resource_type,
        resource_id=target.resource_id,
        access=wish.access,
        ttl=ttl,
    )


def _request(connector: Connector, key: Key, consumer: str) -> CredentialRequest:
    return CredentialRequest(
        resource_type=key.resource_type,
        resource_id=key.resource_id,
        access=key.access,
        ttl=key.ttl,
        consumer=consumer,
        allow_unnarrowed=connector.allow_unnarrowed,
        allow_long_lived=connector.allow_long_lived,
    )


def _noted(credentials: Credentials, method: AuthMethod, wish: timedelta | None, ttl: timedelta | None) -> Credentials:
    """The credentials, with a sentence where the wish was brought within the auth method's bounds."""
    if wish is None or wish == ttl:
        return credentials
    if ttl is None:
        note = f"the ttl of {method.name} credentials is not for the caller to choose"
    else:
        how = "shortened to" if wish > ttl else "raised to"
        note = f"the ttl of {_span(wish)} was {how} {_span(ttl)}, the bound of {method.name}"
    return msgspec.structs.replace(credentials, clamped=(note, *credentials.clamped))


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _enforce(connector: Connector, route: Route, key: Key, credentials: Credentials) -> None:
    """Let nothing wider or longer leave than the connector allows, whatever the plugin did."""
    if not isinstance(credentials, Credentials):
        raise BrokenPlugin(
            f"the plugin {route.type.name!r} of {route.distribution} issued something that is not credentials"
        )
    if credentials.expires_at is None and not connector.allow_long_lived:
        raise LongLived(
            f"connector {connector.name!r} can only hand out credentials without an end here; "
            f"if that is wanted: mooring connector update {connector.name} --allow-long-lived"
        )
    narrowable = route.resource_type(key.resource_type).narrowable
    if narrowable and not credentials.narrowed and credentials.expires_at and not connector.allow_unnarrowed:
        raise NotNarrowed(
            f"connector {connector.name!r} cannot confine credentials to {key.resource_id or key.resource_type}; "
            f"if wider ones are acceptable: mooring connector update {connector.name} --allow-unnarrowed"
        )
