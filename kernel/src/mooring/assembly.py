"""`open_broker`: the only place where the rooms meet."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import cast

import anyio.lowlevel

from mooring.breakers import Breaker, Breakers
from mooring.broker import Books, Broker, Budgets, Desk, Sweeper
from mooring.bus import Bus, open_bus
from mooring.cache import Cache
from mooring.errors import InvalidConfig, NoMasterKey, StoreUnavailable
from mooring.events import BreakerClosed, BreakerOpened, TaskFailed
from mooring.hookspecs import Tools
from mooring.http import open_http
from mooring.journal import keep_journal
from mooring.limits import DEFAULTS, Limits, parse_limits
from mooring.refresher import Refresher
from mooring.registry import Registry, SystemPlugins
from mooring.shelf import SealedShelf
from mooring.store import Store, open_sqlite
from mooring.types import Clock, Secret, Struct
from mooring.vault import EXTERNAL, KeyRing, MasterKey, Vault, parse_keys


class SystemClock:
    """The machine's clocks. Both are read whenever something is served: without a frame of their own."""

    now = staticmethod(partial(datetime.now, UTC))
    monotonic = staticmethod(time.monotonic)


class Settings(Struct):
    """What the environment says about where things are and what is allowed."""

    home: Path
    """The store, the key file and the cache: MOORING_HOME, or the user's data folder."""
    store: str | None = None
    """MOORING_STORE: a URL that a system plugin serves; the SQLite file in `home` if there is none."""
    master_key: Secret | None = None
    """MOORING_MASTER_KEY: `id:key`, several separated by commas, or a URL that a system plugin serves."""
    allow_implicit: bool = False
    """MOORING_ALLOW_IMPLICIT: whether connectors may take the identity of this machine."""
    limits: str = ""
    """MOORING_LIMITS: what is changed about limits on calls, such as `aws-ecr.rate=5`."""

    @property
    def store_file(self) -> Path:
        """The SQLite file."""
        return self.home / "mooring.db"

    @property
    def key_file(self) -> Path:
        """The master keys, where the environment holds none."""
        return self.home / "master.key"

    @property
    def cache_folder(self) -> Path:
        """Issued credentials, sealed."""
        return self.home / "cache"


def settings_from(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in environment variables.

    Raises:
        InvalidConfig: a variable is malformed.
    """
    home = environment.get("MOORING_HOME")
    if not home:
        from platformdirs import user_data_path

        home = str(user_data_path("mooring", appauthor=False))
    allow = environment.get("MOORING_ALLOW_IMPLICIT", "").lower()
    if allow not in ("", "0", "1", "false", "true", "no", "yes"):
        raise InvalidConfig("MOORING_ALLOW_IMPLICIT is neither 1 nor 0", field="MOORING_ALLOW_IMPLICIT")
    try:
        folder = Path(home).expanduser()
    except (RuntimeError, ValueError):
        raise InvalidConfig(
            "the user whom MOORING_HOME names is not known; write its path out", field="MOORING_HOME"
        ) from None
    return Settings(
        home=folder,
        store=environment.get("MOORING_STORE") or None,
        master_key=_secret(environment, "MOORING_MASTER_KEY"),
        allow_implicit=allow in ("1", "true", "yes"),
        limits=environment.get("MOORING_LIMITS", ""),
    )


def _secret(environment: Mapping[str, str], name: str) -> Secret | None:
    try:
        return Secret(environment[name]) if environment.get(name) else None
    except ValueError:
        pass
    raise InvalidConfig(f"{name} is not text in UTF-8", field=name)


@asynccontextmanager
async def open_broker(
    *,
    settings: Settings | None = None,
    plugins: Iterable[object] | None = None,
    system_plugins: Iterable[object] | None = None,
    store: Store | None = None,
    vault: Vault | None = None,
    clock: Clock | None = None,
    limits: Limits | None = None,
    budgets: Budgets | None = None,
    consumer: str | None = None,
    share_cache: bool = True,
    refresh: bool = True,
    sweep: bool = True,
    journal: bool = False,
    opened: Callable[[Iterable[Secret]], None] | None = None,
) -> AsyncGenerator[Broker, None]:
    """A broker, for as long as the context lives.

    Args:
        settings: where things are; from the environment unless given.
        plugins: connector plugins; the installed ones unless given.
        system_plugins: the same for plugins that extend mooring itself.
        store: connectors at rest; the SQLite file of the settings unless given.
        vault: seals and opens secrets; with the master key of the settings unless given.
        clock: the machine's unless given.
        limits: on calls of vendors; the usual ones unless given, changed as the settings say.
        budgets: how long each verb may take.
        consumer: who takes credentials when a caller names nobody; user@host unless given.
        share_cache: whether issued credentials are shared, sealed, with other processes of this user.
        refresh: whether what is in use is renewed in the background; else by who asks next.
        sweep: whether what is due is removed at its vendor, and leases are seen to end; not for who only looks.
        journal: whether every event becomes a line of structlog.
        opened: told of each connector's secrets before a plugin gets them, for hosts that mask them in what they print.

    Raises:
        StoreError: the store cannot be used.
        InvalidConfig: an environment variable is malformed.
    """
    settings = settings or settings_from()
    clock = clock or SystemClock()
    system = SystemPlugins(system_plugins)
    registry = Registry(plugins)
    vault = vault or open_vault(settings, system)
    async with AsyncExitStack() as last, AsyncExitStack() as stack:
        if store is None:
            store = await last.enter_async_context(_open_store(settings, system))
        http = await stack.enter_async_context(open_http())
        bus = await stack.enter_async_context(open_bus())
        user = _user()
        shelf = SealedShelf(settings.cache_folder, vault, lambda name: registry.route(name).kinds)
        books = Books(store.ledger, vault, clock, bus, f"{user}@{socket.gethostname()}")
        last.push_async_callback(books.settle)  # when all that runs beside has ended
        desk = Desk(
            registry=registry,
            store=store,
            vault=vault,
            cache=Cache(clock, shelf if share_cache else None, renewing=refresh),
            bus=bus,
            tools=Tools(http=http, limits=limits or Limits(DEFAULTS, parse_limits(settings.limits)), clock=clock),
            budgets=budgets or Budgets(),
            owner=user,
            consumer=consumer or f"{user}@{socket.gethostname()}",
            allow_implicit=settings.allow_implicit,
            books=books,
            breakers=_breakers(books, clock),
            opened=opened,
        )
        broker = Broker(desk)
        stack.callback(broker.close)
        bus.spawn("books", books.run)
        if refresh:
            bus.spawn("refresher", Refresher(desk.cache.due, broker.refresh, bus.spawn).run)
        if sweep:
            sweeper = Sweeper(desk)
            bus.spawn("sweeper", sweeper.run)
            stack.push_async_callback(sweeper.settle)
        if journal:
            bus.spawn("journal", lambda: keep_journal(bus))
        for name, call in system.calls("subscribe", bus=bus):
            with _apart(bus, clock, f"subscribe of the system plugin {name}"):
                call()
        for _ in range(2):  # everything spawned has begun, and misses no event, after the second
            await anyio.lowlevel.checkpoint()
        for name, call in system.calls("lifespan", broker=broker):
            with _apart(bus, clock, f"lifespan of the system plugin {name}"):
                await stack.enter_async_context(call())
        yield broker


def _breakers(books: Books, clock: Clock) -> Breakers:
    def opened(breaker: Breaker) -> None:
        until = breaker.until or clock.now()
        books.tell(BreakerOpened(at=clock.now(), endpoint=breaker.endpoint, failures=breaker.failures, until=until))

    return Breakers(
        clock, opened=opened, closed=lambda endpoint: books.tell(BreakerClosed(at=clock.now(), endpoint=endpoint))
    )


@contextmanager
def _apart(bus: Bus, clock: Clock, task: str) -> Generator[None, None, None]:
    """A system plugin that fails is told of on the bus, and stops neither the broker nor the other plugins."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  a plugin may raise anything
        bus.publish(TaskFailed(at=clock.now(), task=task, error=type(error).__name__))


def _open_store(settings: Settings, system: SystemPlugins) -> AbstractAsyncContextManager[Store]:
    if settings.store is None:
        return open_sqlite(settings.store_file)
    for store in system.hook.open_store(url=settings.store):
        if store is not None:
            return cast("AbstractAsyncContextManager[Store]", store)
    scheme, colon, _ = settings.store.partition("://")
    if not colon:
        raise StoreUnavailable("MOORING_STORE is no URL; write scheme://..., or unset it for the store in MOORING_HOME")
    raise StoreUnavailable(f"no installed plugin serves a store of the scheme {scheme!r}; check MOORING_STORE")


def open_vault(settings: Settings, system: SystemPlugins) -> Vault:
    """A vault with the master keys of the settings: those of the host, else the ring in `home`; read when needed."""
    if settings.master_key is None:
        return Vault(KeyRing(settings.key_file))
    return Vault(partial(_given_keys, settings.master_key, system))


def _given_keys(text: Secret, system: SystemPlugins) -> tuple[MasterKey, ...]:
    try:
        return parse_keys(text, "MOORING_MASTER_KEY")
    except NoMasterKey:
        if "://" not in text.reveal():  # which a key in base64 may hold too
            raise
    import base64

    for key in system.hook.master_key(url=text.reveal()):
        if key is not None:
            return parse_keys(Secret(f"{EXTERNAL}:{base64.b64encode(key).decode()}"), "MOORING_MASTER_KEY")
    raise NoMasterKey("no installed plugin serves the scheme of MOORING_MASTER_KEY; give id:key, or install the plugin")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user, as in containers
        return f"uid-{os.getuid()}" if hasattr(os, "getuid") else "unknown"
