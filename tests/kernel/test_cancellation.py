"""Every verb, cancelled at every checkpoint: nothing stays open, nothing stays locked, and the next call works."""

import gc
import itertools
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import anyio
import msgspec
import pytest

import mooring as m
from mooring.cache import Cache, Key
from mooring.events import Event
from mooring.store import MemoryStore, open_sqlite
from mooring.testing import ExampleSystem, Fake, FakeConfig, ManualClock, memory_broker

pytestmark = pytest.mark.anyio
A = {"resource_type": "bucket", "resource_id": "a"}
pause = anyio.lowlevel.checkpoint


class PausingStore(MemoryStore):
    """A store that gives way before and after it does something, so that a cancelled write may have happened."""

    def __getattribute__(self, name):
        method = super().__getattribute__(name)
        if name not in ("add", "find", "list", "replace", "delete", "changes"):
            return method

        async def pausing(*args, **kwargs):
            await pause()
            result = await method(*args, **kwargs)
            await pause()
            return result

        return pausing


class Pausing(Fake):
    """Every hook that may wait does, every power is there, and what is entered is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.clients = self.lives = 0

        async def step(request):
            await pause()
            await pause()

        self.on = dict.fromkeys(["authenticate", "verify", "discover", "issue_credentials"], step)

        async def close(context):
            with anyio.CancelScope(shield=True):
                await pause()

        self.on["close"] = close

    @m.hookimpl
    def describe(self):
        return msgspec.structs.replace(super().describe(), credentials=(m.BearerToken,))

    @m.hookimpl
    async def units(self, session, resource_type):
        await pause()
        return (m.Unit(name="north"), m.Unit(name="south"))

    @m.hookimpl
    async def lift(self, request):
        await pause()
        return m.Lifted(auth_method="key", config=FakeConfig(), source="here")

    @m.hookimpl
    def explain(self, config, request):
        return m.Explanation(narrowed=True, calls=())

    @m.hookimpl
    @asynccontextmanager
    async def client(self, request):
        self.clients += 1
        try:
            await pause()
            yield request.renew
        finally:
            self.clients -= 1

    @m.hookimpl
    @asynccontextmanager
    async def lifespan(self, tools):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            await pause()
            self.lives += 1
            try:
                yield "pool"
            finally:
                self.lives -= 1
                tasks.cancel_scope.cancel()


async def discover(broker: m.Broker) -> None:
    async with broker.discover() as replies:
        async for _ in replies:
            await pause()


async def client(broker: m.Broker) -> None:
    async with broker.client("mine", **A) as renew:
        await renew()
        await pause()


async def subscribe(broker: m.Broker) -> None:
    async with broker.subscribe(Event) as events:
        await broker.verify("mine")
        await anext(events)


async def delete(broker: m.Broker) -> None:
    name = f"c{next(numbers)}"
    await broker.register(name, type="fake", auth_method="key", verify=False)
    await broker.delete(name)


numbers = itertools.count()
VERBS: dict[str, Callable[[m.Broker], Awaitable[object]]] = {
    "register": lambda broker: broker.register(f"c{next(numbers)}", type="fake", auth_method="key"),
    "register by lift": lambda broker: broker.register(f"c{next(numbers)}", type="fake", lift=True),
    "lift": lambda broker: broker.lift("fake"),
    "get": lambda broker: broker.get("mine"),
    "secrets": lambda broker: broker.secrets("mine"),
    "list": lambda broker: broker.list(resource_type="bucket"),
    "update": lambda broker: broker.update("mine", config={"size": next(numbers)}),
    "delete": delete,
    "verify": lambda broker: broker.verify("mine"),
    "discover": discover,
    "issue": lambda broker: broker.issue("mine", **A),
    "explain": lambda broker: broker.explain("mine", **A),
    "client": client,
    "subscribe": subscribe,
}


async def cancelled_after(checkpoints: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Run the work and cancel it after so many rounds of the event loop; whether it was done before."""
    done = False

    async def run() -> None:
        nonlocal done
        await work()
        done = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        for _ in range(checkpoints):
            await pause()
        tasks.cancel_scope.cancel()
    return done


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb(verb, warm, count_tasks):
    """Cold: with a broker on which nothing was called yet, so that the lifespan is entered within the verb."""
    work = VERBS[verb]
    for checkpoints in itertools.count():
        plugin, store, clock = Pausing(), PausingStore(), ManualClock()
        outside = count_tasks()
        async with memory_broker(plugin, store=store, clock=clock) as broker:
            await broker.register("mine", type="fake", auth_method="key", verify=warm, config={"key": "k"})
            before = count_tasks()
            done = await cancelled_after(checkpoints, partial(work, broker))
            await anyio.wait_all_tasks_blocked()
            assert plugin.opened == plugin.closed
            assert plugin.clients == 0
            assert count_tasks() <= before + (0 if warm else 2)  # the lifespan that was entered meanwhile, and its own
            assert not any(lock.locked() for lock in broker._desk.cache._locks.values())
            assert not broker._desk.bus._subscriptions
            with anyio.fail_after(5):
                await work(broker)
            assert plugin.opened == plugin.closed
            assert plugin.lives <= 1
        assert plugin.lives == 0
        assert count_tasks() == outside
        if done:
            break
    assert checkpoints >= 2


async def test_a_cancelled_update_that_was_stored_takes_effect():
    for checkpoints in itertools.count():
        async with memory_broker(Pausing(), store=PausingStore(), clock=ManualClock()) as broker:
            await broker.register("mine", type="fake", auth_method="key")
            await broker.issue("mine", **A)
            done = await cancelled_after(checkpoints, partial(broker.update, "mine", config={"place": "there"}))
            stored = (await broker.get("mine")).settings.get("place", "here")
            issued = await broker.issue("mine", **A)
            assert issued.credentials.token.reveal().startswith(stored)
        if done:
            assert stored == "there"
            break


async def test_waiting_callers_when_the_first_is_cancelled_anywhere():
    for checkpoints in itertools.count():
        plugin = Pausing()
        async with memory_broker(plugin, store=PausingStore(), clock=ManualClock()) as broker:
            await broker.register("mine", type="fake", auth_method="key")
            got = []

            async def call(broker=broker, got=got) -> None:
                got.append(await broker.issue("mine", **A))

            async with anyio.create_task_group() as tasks:
                done = await cancelled_after(checkpoints, call)
                for _ in range(5):
                    tasks.start_soon(call)
            assert len(got) == 5 + done
            assert plugin.issued in (1, 2)  # 2 where the first was cancelled after its call
            assert plugin.opened == plugin.closed
        if done:
            break


async def test_the_whole_broker(count_tasks):
    plugin, before = Pausing(), count_tasks()

    async def whole() -> None:
        async with memory_broker(
            plugin, store=PausingStore(), system_plugins=[ExampleSystem()], journal=True
        ) as broker:
            await broker.register("mine", type="fake", auth_method="key")
            await broker.issue("mine", **A)
            await discover(broker)

    for checkpoints in itertools.count():
        done = await cancelled_after(checkpoints, whole)
        assert (plugin.opened - plugin.closed, plugin.lives, count_tasks()) == (0, 0, before)
        if done:
            break
    assert checkpoints > 20


async def test_the_caches_lock():
    key = Key(connector_id="c", fingerprint="f1", resource_type="t", resource_id=None, access="read", ttl=timedelta(1))
    cache = Cache(ManualClock())

    async def make():
        await pause()
        raise AssertionError

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(cache.get, key, make)
        await pause()
        tasks.cancel_scope.cancel()
    gc.collect()  # the tracebacks of what was cancelled
    assert len(cache._locks) == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancelled_update_of_a_file_takes_effect_once_it_is_written(tmp_path):
    """The write goes on in SQLite's thread when the caller has gone; nobody else tells the broker of it."""
    async with open_sqlite(tmp_path / "mooring.db") as store, memory_broker(Fake(), store=store) as broker:
        for checkpoints in itertools.count():
            name = f"c{checkpoints}"
            await broker.register(name, type="fake", auth_method="key")
            await broker.issue(name, **A)
            update = partial(broker.update, name, config={"place": "there"}, verify=False)
            done = await cancelled_after(checkpoints, update)
            stored = (await broker.get(name)).settings.get("place", "here")
            issued = await broker.issue(name, **A)
            assert issued.credentials.token.reveal().startswith(stored)
            if done:
                break
