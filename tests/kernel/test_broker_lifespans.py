"""What plugins keep as long as the broker: entered once, at first use, and left in order."""

import traceback
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import pytest
from trio.testing import MockClock

import mooring as m
from mooring.broker import Budgets
from mooring.errors import AuthFailed, BrokenPlugin, Overdue
from mooring.events import TaskFailed
from mooring.testing import Fake, VirtualClock, memory_broker, powered

pytestmark = pytest.mark.anyio
VIRTUAL = pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("trio", {"clock": MockClock(autojump_threshold=0)}), id="virtual")]
)
CANARY = "c4n4ry"
A = {"resource_type": "bucket", "resource_id": "a"}


class Pooled(Fake):
    """A fake with a pool, in a task group as pools have it."""

    def __init__(self, name: str = "fake") -> None:
        super().__init__(name)
        self.log: list[str] = []
        self.failures: list[Exception] = []
        self.on_enter = self.on_leave = anyio.lowlevel.checkpoint
        self.crash = anyio.Event()

    @m.hookimpl
    @asynccontextmanager
    async def lifespan(self, tools):
        self.log.append("entering")
        await self.on_enter()
        if self.failures:
            raise self.failures.pop()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.work)
            self.log.append("entered")
            try:
                yield f"pool {self.log.count('entered')}"
            finally:
                tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await self.on_leave()
        self.log.append("left")

    async def work(self) -> None:
        await self.crash.wait()
        raise RuntimeError(CANARY)

    @property
    def pools(self) -> list[object]:
        return [one.shared for one in self.requests if isinstance(one, m.Context)]


async def register(broker: m.Broker, name: str = "mine", **more) -> m.types.Connector:
    return await broker.register(name, **{"type": "fake", "auth_method": "key", "verify": False, **more})


async def test_entered_at_first_use_and_left_at_the_end():
    fake = Pooled()
    async with memory_broker(fake) as broker:
        await register(broker)
        assert fake.log == []
        await broker.verify("mine")
        await broker.verify("mine")
        assert fake.log == ["entering", "entered"]
    assert fake.log == ["entering", "entered", "left"]
    assert fake.pools == ["pool 1"] * 4  # two sessions opened, two closed


async def test_entered_once_for_many_at_once():
    fake = Pooled()
    async with memory_broker(fake) as broker:
        await register(broker)
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(broker.verify, "mine")
    assert fake.log == ["entering", "entered", "left"]


async def test_entered_once_though_the_first_caller_is_cancelled():
    fake, gate = Pooled(), anyio.Event()
    fake.on_enter = gate.wait
    async with memory_broker(fake) as broker:
        await register(broker)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broker.verify, "mine")
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broker.verify, "mine")
            await anyio.wait_all_tasks_blocked()
            gate.set()
    assert fake.log == ["entering", "entered", "left"]


async def test_each_plugin_has_its_own():
    one, other = Pooled("fake"), Pooled("other")
    async with memory_broker(one, other) as broker:
        await register(broker)
        await register(broker, "also", type="other")
        await broker.verify("mine")
        assert (one.log, other.log) == (["entering", "entered"], [])
        await broker.verify("also")
    assert one.log == other.log == ["entering", "entered", "left"]


async def test_left_also_when_the_host_is_cancelled():
    fake = Pooled()

    async def host() -> None:
        async with memory_broker(fake) as broker:
            await register(broker)
            await broker.verify("mine")
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert fake.log == ["entering", "entered", "left"]


async def test_left_before_what_the_kernel_lends():
    """A pool may still use the kernel's HTTP client while it closes, and the store is the last to go."""
    order = []

    class System:
        @m.hookimpl
        @asynccontextmanager
        async def lifespan(self, broker):
            yield
            order.append("system plugin")

        @m.hookimpl
        def open_store(self, url):
            @asynccontextmanager
            async def store():
                from mooring.store import MemoryStore

                yield MemoryStore()
                order.append("store")

            return store()

    from pathlib import Path

    from mooring.assembly import Settings

    async def leave() -> None:
        order.append("plugin")

    fake = Pooled()
    fake.on_leave = leave
    settings = Settings(home=Path("/nonexistent"), store="memory:")
    async with memory_broker(fake, store=None, settings=settings, system_plugins=[System()]) as broker:
        await register(broker)
        await broker.verify("mine")
    assert order == ["system plugin", "plugin", "store"]


async def test_one_that_fails_raises_and_can_be_tried_again():
    fake = Pooled()
    fake.failures = [AuthFailed("no pool for you"), RuntimeError(CANARY)]
    async with memory_broker(fake) as broker:
        await register(broker)
        with pytest.raises(BrokenPlugin, match="failed in lifespan: RuntimeError at") as caught:
            await broker.verify("mine")
        assert CANARY not in "".join(traceback.format_exception(caught.value))
        with pytest.raises(AuthFailed, match="no pool for you"):
            await broker.verify("mine")
        await broker.verify("mine")
    assert fake.log == ["entering", "entering", "entering", "entered", "left"]
    assert fake.opened == fake.closed == 1


async def test_a_failure_is_told_to_all_who_wait_each_with_its_own_stamp():
    fake, gate, told = Pooled(), anyio.Event(), []
    fake.on_enter, fake.failures = gate.wait, [AuthFailed("no pool for you")]
    async with memory_broker(fake) as broker:

        async def verify(name: str) -> None:
            try:
                await broker.verify(name)
            except AuthFailed as error:
                told.append(error.where["connector"])

        async with anyio.create_task_group() as tasks:
            for name in ("one", "two", "three"):
                await register(broker, name)
                tasks.start_soon(verify, name)
            await anyio.wait_all_tasks_blocked()
            gate.set()
    assert sorted(told) == ["one", "three", "two"]
    assert fake.log == ["entering"]


async def test_one_that_breaks_later_is_an_event_and_entered_anew():
    fake = Pooled()
    async with memory_broker(fake) as broker, broker.subscribe(TaskFailed) as events:
        await register(broker)
        await broker.verify("mine")
        fake.crash.set()
        failed = await anext(events)
        assert failed.task == "lifespan of fake"
        assert CANARY not in repr(failed)
        fake.crash = anyio.Event()
        await broker.verify("mine")
        assert fake.pools[-1] == "pool 2"


@VIRTUAL
async def test_one_that_hangs_on_entering_costs_the_budget_and_does_not_keep_the_broker_open():
    fake = Pooled()
    fake.on_enter = anyio.sleep_forever
    async with memory_broker(fake, clock=VirtualClock(), budgets=Budgets(verify=timedelta(seconds=5))) as broker:
        await register(broker)
        with pytest.raises(Overdue):
            await broker.verify("mine")
        began = anyio.current_time()
    assert anyio.current_time() - began < 1.5


@VIRTUAL
async def test_one_that_hangs_on_leaving_is_given_ten_seconds():
    class Slow(Fake):
        @m.hookimpl
        @asynccontextmanager
        async def lifespan(self, tools):
            yield
            await anyio.sleep_forever()

    async with memory_broker(Slow(), clock=VirtualClock()) as broker:
        await register(broker)
        await broker.verify("mine")
        began = anyio.current_time()
    assert anyio.current_time() - began == pytest.approx(10)


async def test_the_example_shares_a_pool():
    async with memory_broker(powered) as broker:
        await broker.register("mine", type="example", config={"user": "u"})
        assert (await broker.verify("mine")).subject == "u"
