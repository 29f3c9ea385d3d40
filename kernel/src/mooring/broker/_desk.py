"""What every verb needs: the rooms, and the few steps that all verbs share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Hashable, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import msgspec

from mooring.breakers import Breakers
from mooring.broker._books import Books
from mooring.broker._lifespans import Lifespans
from mooring.broker._undolog import Undoing
from mooring.bus import Bus
from mooring.cache import Cache
from mooring.errors import (
    BrokenPlugin,
    ConnectorExpired,
    InUse,
    InvalidConfig,
    KeyRetired,
    MooringError,
    NoMasterKey,
    NotPermitted,
    Overdue,
    StoreConflict,
    Tampered,
    UnknownConnector,
    UnknownDocument,
    UnsupportedResource,
    WrongKey,
    suggest,
)
from mooring.hookspecs import Context, Tools
from mooring.records import AuditEntry
from mooring.references import references, resolve
from mooring.registry import Registry, Route
from mooring.store import Connectors, KeyRecord, Store
from mooring.types import AuthMethod, Config, Connector, Secret, Struct
from mooring.vault import MasterKey, Vault

if TYPE_CHECKING:
    from mooring.broker._findings import Run

T = TypeVar("T")
SHOWN = 5
"""How many names a message lists at most."""
DRAFT = "new"
"""The id of a connector that is not stored yet."""
DOCUMENT = "mooring."
"""What the types of documents begin with; no plugin's does."""
Users = Callable[[str, str], Awaitable[Iterable[str]]]
"""Who uses a thing: its kind (`connector`, or a document's) and id are given, and names of users are wanted."""


class Budgets(Struct):
    """The time that each verb may take before it ends in `Overdue`."""

    verify: timedelta = timedelta(seconds=30)
    discover: timedelta = timedelta(seconds=30)
    """For one unit (connector, region or account, resource type), not for all of them."""
    issue: timedelta = timedelta(seconds=30)
    lift: timedelta = timedelta(seconds=30)


class Target(Struct):
    """A resource type, and a canonical id within the connector's scope unless it is about all of them."""

    resource_type: str
    resource_id: str | None


class Figures(Struct):
    """What one broker has at hand, in numbers; cheap to ask."""

    entries: int
    """Sets of credentials in the cache."""
    repeats: int
    """Hand-outs of what had been made before, since the broker was opened; what is being written is left out."""
    renewing: bool
    """Whether it renews what is in use by itself, as one that lasts does."""


class Desk:
    """The rooms of one broker, handed in, and the steps that verbs share."""

    def __init__(
        self,
        *,
        registry: Registry,
        store: Store,
        vault: Vault,
        cache: Cache,
        bus: Bus,
        tools: Tools,
        budgets: Budgets,
        owner: str,
        consumer: str,
        allow_implicit: bool,
        books: Books,
        breakers: Breakers,
        opened: Callable[[Iterable[Secret]], None] | None = None,
    ) -> None:
        self.registry = registry
        self.store = store
        self.vault = vault
        self.cache = cache
        self.bus = bus
        self.tools = tools
        self.clock = tools.clock
        self.budgets = budgets
        self.owner = owner
        self.consumer = consumer
        self.allow_implicit = allow_implicit
        self.books = books
        self.breakers = breakers
        self.opened = opened
        self.lifespans = Lifespans(bus, tools)
        self.users: list[Users] = []
        self.runs: dict[Hashable, Run] = {}
        """What is being asked just now, by unit."""
        self.refreshing: set[str] = set()
        """The connectors that are asked again in the background."""
        self._noted: list[MasterKey] = []

    def since(self, began: float) -> timedelta:
        """How long ago that instant of the monotonic clock was."""
        return timedelta(seconds=self.clock.monotonic() - began)

    async def find(self, name_or_id: str) -> Connector:
        """The connector of that name, id or unique beginning of an id, or `UnknownConnector`."""
        connector = await self.store.find(name_or_id)
        if connector is not None and not connector.type.startswith(DOCUMENT):
            return connector
        names = [one.name for one in await self.connectors()]
        raise UnknownConnector(f"no connector is named {name_or_id!r}; {suggest(name_or_id, names)}")

    async def connectors(self, **filters: Any) -> Connectors:
        """What `Store.list` has of connectors; documents are none."""
        found = await self.store.list(**filters)
        damaged = (one for one in found.damaged if not one.type.startswith(DOCUMENT))
        return Connectors((one for one in found if not one.type.startswith(DOCUMENT)), damaged)

    async def as_read(self, connector: str | Connector) -> Connector:
        """The connector of that name; or this one, if it is still as it was read, else `StoreConflict`."""
        if isinstance(connector, str):
            return await self.find(connector)
        found = await self.find(connector.id)
        if found.version != connector.version:
            raise StoreConflict(f"connector {connector.name!r} was changed since it was read; read it again")
        return found

    async def unused(self, kind: str, id: str, name: str, also: Iterable[str] = ()) -> None:
        """Refuse where something uses it: what system plugins know of, and what else is known of already.

        Raises:
            InUse: something does.
        """
        if users := sorted({*also, *[user for ask in self.users for user in await ask(kind, id)]}):
            named = ", ".join([*users[:SHOWN], *(["..."] if users[SHOWN:] else [])])
            raise InUse(
                f"{kind} {name!r} is used by {named}; change them first, or delete it all the same with --force"
            )

    def permit(self, method: AuthMethod) -> None:
        """Refuse implicit authentication where the configuration does not allow it."""
        if method.implicit and not self.allow_implicit:
            raise NotPermitted(
                f"auth method {method.name!r} takes the identity of the machine that mooring runs on; "
                "allow it with MOORING_ALLOW_IMPLICIT=1"
            )

    async def prepare_to_seal(self) -> None:
        """Have a master key, and have the store know it; the first one is made, if nothing is sealed yet.

        Raises:
            NoMasterKey: there is none, but connectors are sealed: a new one would hide that the old one is lost.
            WrongKey: the store knows another key of that name.
        """
        if self.vault.ring is not None:
            self.vault.reload()  # another process may have rotated them, or put another ring in place
        if not self.vault.ready():
            if lost := await self.store.key_uses():
                names = ", ".join(sorted(map(repr, lost)))
                raise NoMasterKey(
                    f"there is no master key, but connectors are sealed under {names}; "
                    "restore its file, or set MOORING_MASTER_KEY"
                )
            self.vault.make_key()
        await self.note_key(self.vault.keys[0])

    async def note_key(self, key: MasterKey) -> None:
        """Have the store know a master key, once.

        Raises:
            WrongKey: the store knows another key of that name.
        """
        if key in self._noted:
            return
        await self.fetch(key.id)
        check = self.vault.check(key)
        record = KeyRecord(id=key.id, check=check, source=key.source, created_at=self.clock.now())
        if (await self.store.note_key(record)).check != check:
            raise WrongKey(
                f"master key {key.id!r} from {key.source} is not the key of that name that this store knows; "
                "provide the right one, or give the new one a name of its own"
            )
        self._noted.append(key)

    def forget_keys(self) -> None:
        """What the store knows of master keys may be another now."""
        self._noted.clear()

    async def fetch(self, key_id: str | None = None) -> None:
        """Have a master key (the active one, if none is named) at hand; the OS keyring may take a while."""
        if self.vault.waits(key_id):
            await anyio.to_thread.run_sync(self.vault.fetch, key_id, abandon_on_cancel=True)

    async def seal(self, connector: Connector, secrets: Mapping[str, Secret]) -> Connector:
        """The connector with these secrets, sealed for it as it is (see `bound`); without secrets it binds no less."""
        await self.prepare_to_seal()
        return msgspec.structs.replace(connector, sealed=self.vault.seal(bound(connector), secrets))

    async def write(self, write: Callable[[Connector], Awaitable[None]], connector: Connector) -> Connector:
        """Store a sealed connector; wrapped anew, if its master key was retired by another process meanwhile."""
        while True:
            try:
                await write(connector)
            except KeyRetired:
                await self.prepare_to_seal()
                if connector.sealed is None or connector.sealed.key_id == self.vault.keys[0].id:
                    raise  # there is no newer one
                await self.fetch(connector.sealed.key_id)
                sealed = self.vault.rewrap(bound(connector), connector.sealed)
                connector = msgspec.structs.replace(connector, sealed=sealed)
            else:
                return connector

    async def open(self, connector: Connector) -> dict[str, Secret]:
        """The connector's secrets.

        Raises:
            WrongKey, Tampered: they cannot be opened, or the record was altered around them.
        """
        if connector.sealed is None:
            raise Tampered(f"connector {connector.name!r} has lost its seal; restore a backup or register it again")
        await self.fetch(connector.sealed.key_id)
        secrets = self.vault.open(bound(connector), connector.sealed)
        self.books.masked.learn(*secrets.values())
        if self.opened is not None:
            self.opened(secrets.values())
        return secrets

    async def open_config(self, connector: Connector, route: Route) -> Config:
        """The connector's configuration with its secrets, for a plugin's eyes."""
        values: dict[str, Any] = connector.settings | await self.open(connector)
        if references(values):
            values = await resolve(values, self.open_secret)
        return route.build(connector.auth_method, values)

    async def referred(self, connector: Connector) -> Connector:
        """The connector with what its settings refer to in place of the references: never to be stored."""
        if not references(connector.settings):
            return connector
        return msgspec.structs.replace(connector, settings=await resolve(connector.settings, self.open_secret))

    async def open_secret(self, name: str) -> dict[str, Secret]:
        """The values of a named secret."""
        found = await self.store.find(f"secret/{name}")
        if found is None:
            raise UnknownDocument(
                f"no secret is named {name!r}, which a configuration refers to; see: mooring secret list"
            )
        return await self.open(found)

    def target(
        self, connector: Connector, route: Route, resource_type: str | None, resource_id: str | None
    ) -> Target | None:
        """What a request is about, within the connector's scope; None where no type is named and several would do.

        Args:
            connector: as `referred` gives it.
            route: its plugin.
            resource_type: None for the connector's own, or its plugin's only one.
            resource_id: in any accepted form; None for the connector's own.

        Raises:
            UnsupportedResource: the type or the resource is outside of what the connector reaches.
            InvalidConfig: the id does not parse.
        """
        name = resource_type or connector.resource_type or _only(kind.name for kind in route.type.resource_types)
        if name is None:
            if resource_id is None:
                return None
            known = ", ".join(kind.name for kind in route.type.resource_types)
            raise InvalidConfig(f"name the resource type too; one of: {known}", field="resource_type")
        kind = route.resource_type(name)
        if connector.resource_type not in (None, name):
            raise UnsupportedResource(
                f"connector {connector.name!r} is scoped to {connector.resource_type!r} and does not reach {name!r}"
            )
        if kind.auth_methods and connector.auth_method not in kind.auth_methods:
            raise UnsupportedResource(
                f"auth method {connector.auth_method!r} does not reach {name!r}; "
                f"use one of: {', '.join(kind.auth_methods)}"
            )
        if resource_id is None:
            return Target(resource_type=name, resource_id=connector.resource_id)
        canonical = self.canonical(route, name, resource_id, connector.settings)
        scope = connector.resource_id
        if scope is not None and not self.covers(route, name, scope, canonical):
            raise UnsupportedResource(
                f"connector {connector.name!r} is scoped to {scope!r} and does not reach {canonical!r}"
            )
        return Target(resource_type=name, resource_id=canonical)

    def canonical(self, route: Route, resource_type: str, text: str, settings: dict[str, Any]) -> str:
        """The one form of an id, completed from the settings where the plugin can."""
        with guard(route, "canonical"):
            canonical = checked(route, "canonical", route.canonical(resource_type, text), str)
            if route.qualify is None:
                return canonical
            return checked(route, "qualify", route.qualify(resource_type, canonical, settings), str)

    def covers(self, route: Route, resource_type: str, scope: str, resource_id: str) -> bool:
        """Whether a scope contains an id."""
        with guard(route, "covers"):
            return scope == resource_id or bool(route.covers and route.covers(resource_type, scope, resource_id))

    def endpoint(self, connector: Connector, route: Route, config: Config) -> str:
        """What a connector's calls depend on: the host that its plugin names, else the connector itself."""
        if route.endpoint is None:
            return f"the vendor of connector {connector.name!r}"
        with guard(route, "endpoint"):
            return checked(route, "endpoint", route.endpoint(config), str)

    def entry(self, action: str, connector: Connector | None = None, error: MooringError | None = None) -> AuditEntry:
        """A line for the audit log about what the user of this broker has done, or failed to do."""
        about: dict[str, Any] = {}
        if connector is not None:
            about = {
                "connector_id": connector.id if connector.id != DRAFT else "",
                "connector": connector.name,
                "resource_type": connector.resource_type or "",
                "resource_id": connector.resource_id,
            }
        outcome = "ok" if error is None else type(error).__name__
        return AuditEntry(at=self.clock.now(), action=action, consumer=self.consumer, outcome=outcome, **about)

    @contextmanager
    def failing_on_record(self, action: str, connector: Connector | None = None) -> Generator[None, None, None]:
        """A failure becomes a line of the audit log, within a second."""
        try:
            yield
        except MooringError as error:
            self.books.note(self.entry(action, connector, error))
            raise

    def undoing(self, connector: Connector) -> Undoing:
        """An undo log for one request."""
        return Undoing(self.store, self.clock, connector.id, self.budgets.issue)

    @asynccontextmanager
    async def session(
        self,
        connector: Connector,
        route: Route,
        consumer: str,
        undo: Undoing | None = None,
        config: Config | None = None,
    ) -> AsyncGenerator[Any, None]:
        """An authenticated session of the plugin; what it makes at the vendor is written into the undo log.

        Raises:
            ConnectorExpired: the connector's own credentials have ended.
        """
        method = route.auth_method(connector.auth_method)
        self.permit(method)
        self.tools.limits.learn(route.type.limits)
        if connector.expired(self.clock.now()):
            secrets = sorted(connector.sealed.fields) if connector.sealed else ()
            fields = "".join(f" --{name.replace('_', '-')} @FILE" for name in secrets)
            raise ConnectorExpired(
                f"the credentials of connector {connector.name!r} expired at "
                f"{connector.expires_at:%Y-%m-%d %H:%M:%SZ}; "
                f"renew them: mooring connector update {connector.name}{fields}"
            )
        with guard(route, "lifespan"):
            shared = await self.lifespans.shared(route)
        context = Context(
            connector_id=connector.id,
            connector=connector.name,
            consumer=consumer,
            tools=self.tools,
            undo=undo or self.undoing(connector),
            expires_at=connector.expires_at,
            shared=shared,
        )
        config = config if config is not None else await self.open_config(connector, route)
        failure: Exception | None = None
        with guard(route, "authenticate"):
            async with route.authenticate(config, context) as session:
                try:
                    yield session
                except Exception as error:  # noqa: BLE001  the plugin's context neither sees nor changes it
                    failure = error
        if failure is not None:
            raise failure


@contextmanager
def doing(verb: str, connector: Connector, resource: str | None = None) -> Generator[None, None, None]:
    """Stamp our errors with where they happened."""
    try:
        yield
    except MooringError as error:
        error.stamp(verb=verb, connector=connector.name, type=connector.type, resource=resource)
        raise


@contextmanager
def within(budget: timedelta, what: str) -> Generator[anyio.CancelScope, None, None]:
    """Bound the time; what runs out becomes `Overdue`. Yields the scope, whose deadline may be moved."""
    with anyio.move_on_after(budget.total_seconds()) as scope:
        yield scope
    if scope.cancelled_caught:
        raise Overdue(f"{what} took longer than {budget.total_seconds():g} s; check the network, then try again")


@contextmanager
def guard(route: Route, hook: str) -> Generator[None, None, None]:
    """Name the plugin where it raises what is not in the contract.

    The foreign error's text and cause are dropped, since it may quote a secret; where it was raised is kept. So is what
    hangs on an error of ours that the plugin made: its causes and notes are foreign.
    """
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except MooringError as error:
        unchain(error)
        raise
    except BaseException as error:  # a plugin may raise anything, SystemExit and the panics of extensions too
        if _is_cancellation(error):
            raise
        trace = error.__traceback__
        while trace and trace.tb_next:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}" if trace else "?"
        reason = f"{type(error).__name__} at {place}"
    else:
        return
    problem = BrokenPlugin(
        f"the plugin {route.type.name!r} of {route.distribution} failed in {hook}: {reason}; report it to its author"
    )
    try:
        raise problem
    finally:
        unchain(problem)  # here the foreign error is still being handled: by who called this generator


def unchain(error: MooringError) -> None:
    error.__cause__ = error.__context__ = None
    vars(error).pop("__notes__", None)


def _is_cancellation(error: BaseException) -> bool:
    try:
        cancelled = anyio.get_cancelled_exc_class()
    except RuntimeError:  # outside of an event loop nothing is cancelled
        return False
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(cancelled) is not None
    return isinstance(error, cancelled)


def checked(route: Route, hook: str, value: Any, kind: type[T]) -> T:
    """What a hook gave, if it is of the contract's kind."""
    if isinstance(value, kind):
        return value
    given, value = (
        type(value).__name__,
        None,
    )  # it may be a vendor's answer, with secrets: no frame of an error holds it
    raise BrokenPlugin(
        f"the plugin {route.type.name!r} of {route.distribution} gave a {given} from {hook}, "
        f"not a {kind.__name__}; report it to its author"
    )


def bound(connector: Connector) -> str:
    """What the seal binds: the id, and all that says where the secrets go and what may be issued with them.

    Whoever can write the store, but has no master key, cannot lead a key to an endpoint of his own, nor widen a scope.
    """
    return msgspec.json.encode(
        (
            connector.id,
            connector.type,
            connector.auth_method,
            connector.resource_type,
            connector.resource_id,
            connector.settings,
            connector.allow_unnarrowed,
            connector.allow_long_lived,
        ),
        order="deterministic",
    ).decode()


def _only(names: Iterable[str]) -> str | None:
    found = list(names)
    return found[0] if len(found) == 1 else None
