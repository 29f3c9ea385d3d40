"""Issue: short-lived credentials for exactly one resource, once for many callers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

import anyio
import msgspec

from mooring.broker._desk import Desk, Target, bound, checked, doing, guard, within
from mooring.broker._handouts import Handouts
from mooring.broker._undo import undo
from mooring.cache import Due, Entry, Key
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
    Unreachable,
)
from mooring.hookspecs import CredentialRequest, Explanation
from mooring.records import LeaseState
from mooring.registry import Route
from mooring.types import ACCESSES, Access, AuthMethod, Connector

SYNC_SECONDS = 0.5
"""How old our view of the store may be: another process's change takes effect within a second."""
WITHDRAWN: tuple[LeaseState, ...] = ("released", "revoking", "revoked", "irrevocable")
"""What is handed out no more."""
MAX_REMEMBERED = 50_000
WAIT_LONGER = timedelta(seconds=1)
"""How much longer than one call's budget a caller waits who found another's call under way."""
UNDO_SECONDS = 5
"""How long a failed request may take to remove what it has made."""
EXPIRY_SLACK = timedelta(minutes=15)
"""By how much the end of credentials may lie beyond the longest life that the auth method declares: the machine's clock
may be ten minutes behind the vendor's."""


class Wish(NamedTuple):
    """A request as the caller wrote it, and who asks."""

    connector: str
    resource_type: str | None
    resource_id: str | None
    access: Access
    ttl: timedelta | None
    consumer: str


Asked = tuple[str, str | None, str | None, Access, timedelta | None, str]
"""A `Wish` as it is looked up: a plain tuple is made in a third of the time."""


class Hit(NamedTuple):
    """What is at hand for a wish, on record as handed to who asks, and the reply that it makes."""

    entry: Entry
    reply: Issued
    use: tuple[str, str]
    """The lease and the consumer, as they are counted."""


class Resolved:
    """What a wish comes to: under what its credentials are kept, what the reply says, and when the connector ends."""

    def __init__(self, key: Key, note: str | None, connector: Connector) -> None:
        """Take the key, what became of the wished ttl, and the connector, whose name may change."""
        self.key = key
        self.note = note
        self.connector = connector.name
        self.ends = connector.expires_at and connector.expires_at - connector.expires_skew  # as `Connector.expired`
        self.hit: Hit | None = None


class Issuer:
    """Remembers how wishes resolved, so that a hit in the cache touches neither the store nor a plugin."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._monotonic, self._serve, self._used = desk.clock.monotonic, desk.cache.serve, desk.books.used
        self._resolved: dict[Asked, Resolved] = {}
        self._handouts = Handouts(desk)
        self._generation = 0
        self._changes = -1
        self._synced = float("-inf")
        self._syncing = anyio.Lock()

    def forget(self) -> None:
        """Resolve every wish anew: a connector has changed."""
        self._resolved.clear()
        self._generation += 1  # what is being resolved now may be of the old connector

    def leave(self, leases: Iterable[str], consumer: str) -> None:
        """A consumer gives leases back: should it get them again, that is a hand-out of its own."""
        self.forget()
        self._handouts.forget(leases, consumer)

    def peek(self, asked: Asked) -> Issued | None:
        """What is at hand and good enough, at once, for who has it already. Safe to call from any thread."""
        if self._monotonic() - self._synced >= SYNC_SECONDS:
            return None
        known = self._resolved.get(asked)
        if known is None or (known.ends is not None and self._desk.clock.now() >= known.ends):
            return None
        hit = known.hit
        if hit is None or not hit.entry.kept:
            hit = self._look(known, asked[-1])
        if hit is None or not self._serve(known.key, hit.entry):
            return None
        self._used(hit.use)
        return hit.reply

    async def issue(self, wish: Wish, *, unlike: str = "") -> Issued:
        """What is good, or made now by the vendor; `unlike` is a lease that will not do."""
        desk, consumer = self._desk, wish.consumer
        if self._monotonic() - self._synced >= SYNC_SECONDS:
            await self._sync()
        if not unlike and (issued := self.peek(wish)):
            return issued
        generation = self._generation
        connector = await desk.find(wish.connector)
        with doing("issue", connector, wish.resource_id):
            route = desk.registry.route(connector.type)
            known = await self._resolve(connector, route, wish)
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
                issued = await desk.cache.get(key, make, share=_shared(connector, route), unlike=unlike)
        except Overdue:
            older = desk.cache.valid(key)
            if older is None or older.lease == unlike:
                raise
            issued = older
        if issued is not made and not await self._handouts.repeated(issued, consumer):  # it was taken back meanwhile
            return await self.issue(wish, unlike=issued.lease)
        if generation == self._generation:
            if len(self._resolved) >= MAX_REMEMBERED:
                self._resolved.clear()
            self._resolved[wish] = known
        return _reply(issued, consumer, known, cached=issued is not made)

    async def renew(self, due: Due[Key]) -> None:
        """New credentials in the place of some that end soon.

        Raises:
            MooringError: there are none now; they are due again after a pause. It is told of on the bus, too.
        """
        desk, before = self._desk, due.entry.issued
        try:
            connector = await desk.store.find(due.key.connector_id)
            if connector is None or fingerprint(connector) != due.key.fingerprint:
                return  # nobody is given them any more
            route = desk.registry.route(connector.type)
            make = partial(self._make, connector, route, due.key, before.consumer, before=before)
            await desk.cache.renew(due, make, share=_shared(connector, route))
        except MooringError:
            desk.cache.postpone(due)
            raise

    async def explain(self, wish: Wish) -> Explanation:
        """What `issue` would ask of the vendor, without asking."""
        connector = await self._desk.find(wish.connector)
        with doing("explain", connector, wish.resource_id):
            route = self._desk.registry.route(connector.type)
            key = (await self._resolve(connector, route, wish)).key
            if route.explain is None:
                raise ConfigError(f"the plugin for {connector.type!r} cannot explain what it issues")
            config = await self._desk.open_config(connector, route)
            with guard(route, "explain"):
                request = _request(connector, key, wish.consumer)
                return checked(route, "explain", route.explain(config, request), Explanation)

    def _look(self, known: Resolved, consumer: str) -> Hit | None:
        """What is kept, if it is on record that the consumer has it: remembered, so that the next look is short."""
        entry = self._desk.cache.at(known.key)
        if entry is None or not self._handouts.known(entry.issued, consumer):
            return None
        reply = _reply(entry.issued, consumer, known, cached=True)
        known.hit = hit = Hit(entry, reply, (reply.lease, consumer))
        return hit

    async def _sync(self) -> None:
        """See whether anybody has changed the store."""
        async with self._syncing:
            now = self._monotonic()
            if now - self._synced < SYNC_SECONDS:
                return
            changes = await self._desk.store.changes()
            if changes != self._changes:
                self.forget()
                withdrawn = await self._desk.books.ledger.leases(states=WITHDRAWN)
                await self._desk.cache.withdraw(lease.id for lease in withdrawn)
                for lease_id, consumer in await self._desk.books.ledger.parted():
                    self._handouts.forget([lease_id], consumer)
                self._changes = changes  # now that all of it was seen
            self._synced = now

    async def _resolve(self, connector: Connector, route: Route, wish: Wish) -> Resolved:
        if not wish.consumer.isprintable():  # which text that is not Unicode is neither
            raise InvalidConfig("a consumer's name is printable text in UTF-8", field="consumer")
        if wish.access not in ACCESSES:
            raise InvalidConfig(f"access is one of: {', '.join(ACCESSES)}", field="access")
        if wish.ttl is not None and (not isinstance(wish.ttl, timedelta) or wish.ttl <= timedelta(0)):
            raise InvalidConfig("a ttl is a timedelta longer than nothing, such as timedelta(minutes=15)", field="ttl")
        referred = await self._desk.referred(connector)
        target = self._desk.target(referred, route, wish.resource_type, wish.resource_id)
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
        return Resolved(key, _note(method, wish.ttl or connector.ttl, key.ttl), connector)

    async def _make(
        self, connector: Connector, route: Route, key: Key, consumer: str, *, before: Issued | None = None
    ) -> Issued:
        """New credentials, on record. Those in the place of others go to nobody yet."""
        began = self._desk.clock.monotonic()
        try:
            with doing("issue", connector, key.resource_id):
                return await self._ask(connector, route, key, consumer, before)
        except MooringError as error:
            asked = not isinstance(error, Unreachable) or error.asked
            if asked or before is None:  # that nobody was asked to renew is no news
                await self._handouts.failed(connector, key, consumer, error, before, self._desk.since(began))
            raise

    async def _ask(self, connector: Connector, route: Route, key: Key, consumer: str, before: Issued | None) -> Issued:
        desk, undoing, failed = self._desk, self._desk.undoing(connector), True
        await self._handouts.ready()
        asked_at, began = desk.clock.now(), desk.clock.monotonic()
        config = await desk.open_config(connector, route)
        try:
            with (
                desk.breakers.calling(desk.endpoint(connector, route, config)),
                within(desk.budgets.issue, "the vendor's answer"),
            ):
                async with desk.session(connector, route, consumer, undoing, config) as session:
                    with guard(route, "issue_credentials"):
                        hook = "issue_credentials"  # what it gives is in no variable here, as it may not be sealed
                        request = _request(connector, key, consumer)
                        credentials = _sound(
                            route, checked(route, hook, await route.issue_credentials(session, request), Credentials)
                        )
            _enforce(connector, route, key, credentials, desk.clock.now())
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
                lease=undoing.lease,
            )
            wide, took = _wide(connector, route, key), desk.since(began)
            with anyio.CancelScope(shield=True):  # on record and kept, or neither
                await self._handouts.made(issued, undoing, before, wide=wide, ttl=key.ttl, took=took)
            failed = False
            return issued
        finally:
            if left := undoing.left(failed=failed):
                with anyio.move_on_after(UNDO_SECONDS, shield=True):  # what is left then, the sweep undoes
                    await undo(desk, left)


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


def _shared(connector: Connector, route: Route) -> bool:
    """Whether other processes get the same; the machine's own identity depends on a process's environment."""
    return not route.auth_method(connector.auth_method).implicit


def _wide(connector: Connector, route: Route, key: Key) -> bool:
    """Whether what is issued can be taken back together with all else of its role."""
    types = route.auth_method(connector.auth_method).role_wide
    return route.revoke_all is not None and (types is None or key.resource_type in types)


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
        consumer=wish.consumer if method.revocable else None,
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
