"""Issue: short-lived credentials for exactly one resource, once for many callers."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple

import anyio
import msgspec

from mooring.broker._desk import Desk, Target, bound, checked, doing, guard, within
from mooring.broker._undo import undo
from mooring.cache import Key
from mooring.credentials import Credentials, Issued, restore, reveal
from mooring.errors import (
    BrokenPlugin,
    ConfigError,
    InvalidConfig,
    LongLived,
    MooringError,
    NotNarrowed,
    Overdue,
    Rejected,
)
from mooring.events import CredentialsIssued, IssueFailed
from mooring.hookspecs import CredentialRequest, Explanation
from mooring.registry import Route
from mooring.types import ACCESSES, Access, AuthMethod, Connector

SYNC_SECONDS = 0.5
"""How old our view of the store may be: another process's change takes effect within a second."""
MAX_REMEMBERED = 10_000
WAIT_LONGER = timedelta(seconds=1)
"""How much longer than one call's budget a caller waits who found another's call under way."""
UNDO_SECONDS = 5
"""How long a failed request may take to remove what it has made."""
EXPIRY_SLACK = timedelta(minutes=5)
"""By how much the end of credentials may lie beyond the longest life that the auth method declares."""


class Wish(NamedTuple):
    """A request as the caller wrote it."""

    connector: str
    resource_type: str | None
    resource_id: str | None
    access: Access
    ttl: timedelta | None


class Resolved(NamedTuple):
    """What a wish comes to: under what its credentials are kept, what the reply says, and when the connector ends."""

    key: Key
    note: str | None
    """What became of the wished ttl."""
    connector: str
    """Its name now, which may have changed since they were issued."""
    expires_at: datetime | None
    expires_skew: timedelta


class Issuer:
    """Remembers how wishes resolved, so that a hit in the cache touches neither the store nor a plugin."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._resolved: dict[Wish, Resolved] = {}
        self._generation = 0
        self._changes = -1
        self._synced = float("-inf")
        self._syncing = anyio.Lock()

    def forget(self) -> None:
        """Resolve every wish anew: a connector has changed."""
        self._resolved.clear()
        self._generation += 1  # what is being resolved now may be of the old connector

    def peek(self, wish: Wish, consumer: str) -> Issued | None:
        """What is at hand and fresh, at once. Safe to call from any thread."""
        if self._desk.clock.monotonic() - self._synced >= SYNC_SECONDS:
            return None
        known = self._resolved.get(wish)
        issued = self._at_hand(known) if known is not None else None
        return _reply(issued, consumer, known, cached=True) if issued and known else None

    async def issue(self, wish: Wish, consumer: str) -> Issued:
        """What is fresh, or made now by the vendor."""
        desk = self._desk
        if desk.clock.monotonic() - self._synced >= SYNC_SECONDS:
            await self._sync()
        known = self._resolved.get(wish)
        if known is not None and (issued := self._at_hand(known)):
            return _reply(issued, consumer, known, cached=True)
        generation = self._generation
        connector = await desk.find(wish.connector)
        with doing("issue", connector, wish.resource_id):
            route = desk.registry.route(connector.type)
            known = self._resolve(connector, route, wish)
        key = known.key
        if connector.expired(desk.clock.now()):
            return await self._make(connector, route, key, consumer)  # which refuses, and says so on the bus
        made: Issued | None = None

        async def make() -> Issued:
            nonlocal made
            made = await self._make(connector, route, key, consumer)
            return made

        try:
            with within(desk.budgets.issue + WAIT_LONGER, "the vendor's answer, to us or to who asked before us,"):
                # the machine's own identity depends on a process's environment, which others do not share
                implicit = route.auth_method(connector.auth_method).implicit
                issued = await desk.cache.get(key, make, share=not implicit)
        except Overdue:
            older = desk.cache.valid(key)
            if older is None:
                raise
            issued = older
        if generation == self._generation:
            if len(self._resolved) >= MAX_REMEMBERED:
                self._resolved.clear()
            self._resolved[wish] = known
        return _reply(issued, consumer, known, cached=issued is not made)

    async def explain(self, wish: Wish, consumer: str) -> Explanation:
        """What `issue` would ask of the vendor, without asking."""
        connector = await self._desk.find(wish.connector)
        with doing("explain", connector, wish.resource_id):
            route = self._desk.registry.route(connector.type)
            key = self._resolve(connector, route, wish).key
            if route.explain is None:
                raise ConfigError(f"the plugin for {connector.type!r} cannot explain what it issues")
            config = await self._desk.open_config(connector, route)
            with guard(route, "explain"):
                return checked(route, "explain", route.explain(config, _request(connector, key, consumer)), Explanation)

    def _at_hand(self, known: Resolved) -> Issued | None:
        ends = known.expires_at
        if ends is not None and ends - self._desk.clock.now() <= known.expires_skew:  # as `Connector.expired`
            return None
        return self._desk.cache.peek(known.key)

    async def _sync(self) -> None:
        """See whether anybody has changed the store."""
        async with self._syncing:
            now = self._desk.clock.monotonic()
            if now - self._synced < SYNC_SECONDS:
                return
            changes = await self._desk.store.changes()
            if changes != self._changes:
                self._changes = changes
                self.forget()
            self._synced = now

    def _resolve(self, connector: Connector, route: Route, wish: Wish) -> Resolved:
        if wish.access not in ACCESSES:
            raise InvalidConfig(f"access is one of: {', '.join(ACCESSES)}", field="access")
        if wish.ttl is not None and (not isinstance(wish.ttl, timedelta) or wish.ttl <= timedelta(0)):
            raise InvalidConfig("a ttl is a timedelta longer than nothing, such as timedelta(minutes=15)", field="ttl")
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
        method = route.auth_method(connector.auth_method)
        self._desk.permit(method)
        key = _key(connector, method, target, wish)
        note = _note(method, wish.ttl or connector.ttl, key.ttl)
        return Resolved(key, note, connector.name, connector.expires_at, connector.expires_skew)

    async def _make(self, connector: Connector, route: Route, key: Key, consumer: str) -> Issued:
        desk = self._desk
        about = {"connector_id": connector.id, "connector": connector.name, "connector_type": connector.type}
        try:
            with doing("issue", connector, key.resource_id):
                asked_at = desk.clock.now()
                credentials = await self._ask(connector, route, key, consumer)
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
        issued = Issued(
            connector_id=connector.id,
            connector=connector.name,
            connector_type=connector.type,
            resource_type=key.resource_type,
            resource_id=key.resource_id,
            access=key.access,
            consumer=consumer,
            issued_at=asked_at,
            credentials=credentials,
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

    async def _ask(self, connector: Connector, route: Route, key: Key, consumer: str) -> Credentials:
        request, undoing, failed = _request(connector, key, consumer), self._desk.undoing(connector), True
        try:
            with within(self._desk.budgets.issue, "the vendor's answer"):
                async with self._desk.session(connector, route, consumer, undoing) as session:
                    with guard(route, "issue_credentials"):
                        hook = "issue_credentials"  # what it gives is in no variable here, as it may not be sealed
                        credentials = _sound(
                            route, checked(route, hook, await route.issue_credentials(session, request), Credentials)
                        )
            _enforce(connector, route, key, credentials, self._desk.clock.now())
            failed = False
            return credentials
        finally:
            if left := undoing.left(failed=failed):
                with anyio.move_on_after(UNDO_SECONDS, shield=True):  # what is left then, the sweep undoes
                    await undo(self._desk, left)


def _sound(route: Route, credentials: Credentials) -> Credentials:
    """The credentials with every field of the type that their kind declares, secrets as `Secret`."""
    ends = credentials.expires_at
    if ends is None or (isinstance(ends, datetime) and ends.tzinfo is not None):
        with suppress(ValueError, NotImplementedError, TypeError):
            return restore(reveal(credentials), route.kinds)
    kind = type(credentials).__name__
    del credentials
    raise BrokenPlugin(
        f"the plugin {route.type.name!r} of {route.distribution} issued {kind} with a field that "
        "is not of its type, or of a kind that it does not declare; report it to its author"
    )


def _reply(issued: Issued, consumer: str, known: Resolved, *, cached: bool) -> Issued:
    credentials = issued.credentials
    if known.note is not None:
        credentials = msgspec.structs.replace(credentials, clamped=(known.note, *credentials.clamped))
    return msgspec.structs.replace(
        issued, connector=known.connector, consumer=consumer, cached=cached, credentials=credentials
    )


def fingerprint(connector: Connector) -> str:
    """Tells apart the configurations of a connector under which different credentials would be issued.

    It is of what the seal binds and of the sealed fields, so it changes with every secret, but neither with a label or
    a text nor when the master key does.
    """
    sealed = sorted(connector.sealed.fields.items()) if connector.sealed else None
    return hashlib.sha256(msgspec.json.encode((bound(connector), sealed))).hexdigest()


def _key(connector: Connector, method: AuthMethod, target: Target, wish: Wish) -> Key:
    ttl = method.lifetime.clamp(wish.ttl or connector.ttl) if method.lifetime else None
    return Key(
        connector_id=connector.id,
        fingerprint=fingerprint(connector),
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
        connector=connector.name,
    )


def _note(method: AuthMethod, wish: timedelta | None, ttl: timedelta | None) -> str | None:
    """A sentence where the wish was brought within the auth method's bounds."""
    if wish is None or wish == ttl:
        return None
    if ttl is None:
        return f"the ttl of {method.name} credentials is not for the caller to choose"
    how = "shortened to" if wish > ttl else "raised to"
    return f"the ttl of {_span(wish)} was {how} {_span(ttl)}, the bound of {method.name}"


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _enforce(connector: Connector, route: Route, key: Key, credentials: Credentials, now: datetime) -> None:
    """Let nothing leave that its plugin says is wider, or lives longer, than the connector allows."""
    narrowable = route.resource_type(key.resource_type).narrowable
    if narrowable and not credentials.narrowed and not connector.allow_unnarrowed:
        raise NotNarrowed(
            f"connector {connector.name!r} cannot confine credentials to {key.resource_id or key.resource_type}; "
            f"if wider ones are acceptable: mooring connector update {connector.name} --allow-unnarrowed"
        )
    ends, lifetime = credentials.expires_at, route.auth_method(connector.auth_method).lifetime
    if ends is not None and ends <= now:
        raise Rejected(f"the vendor gave connector {connector.name!r} credentials that have ended; check both clocks")
    endless = ends is None or (lifetime is not None and ends - now > lifetime.maximum + EXPIRY_SLACK)
    if endless and not connector.allow_long_lived:
        raise LongLived(
            f"connector {connector.name!r} can only hand out credentials without an end here; "
            f"if that is wanted: mooring connector update {connector.name} --allow-long-lived"
        )
