"""Races: what happens when two things happen at once, in the order that would hurt."""

import threading
from datetime import timedelta

import anyio
import pytest

import mooring as m
from mooring.errors import MooringError, NameTaken, StoreConflict, StoreUnavailable, UnknownConnector
from mooring.events import ConnectorEvent
from mooring.store import MemoryStore, open_sqlite
from mooring.testing import Fake, ManualClock, memory_broker
from mooring.vault import Vault, parse_keys

pytestmark = pytest.mark.anyio
A = {"resource_type": "bucket", "resource_id": "a"}
SECOND = timedelta(seconds=1)


class Gate:
    """Holds the first who comes, until it is opened."""

    def __init__(self) -> None:
        self.reached, self.open = anyio.Event(), anyio.Event()

    async def __call__(self, request=None) -> None:
        if not self.reached.is_set():
            self.reached.set()
            await self.open.wait()


class GatedStore(MemoryStore):
    """Lets a test stop `changes` once, or make it fail."""

    gate: Gate | None = None
    broken = False

    async def changes(self) -> int:
        if self.broken:
            raise StoreUnavailable("the disk is gone")
        changes = await super().changes()
        if self.gate:
            await self.gate()
        return changes


async def register(broker: m.Broker, name: str = "mine", **more) -> m.types.Connector:
    return await broker.register(name, **{"type": "fake", "auth_method": "key", "verify": False, **more})


def place(issued: m.Issued) -> str:
    return issued.credentials.token.reveal().partition("-")[0]


# -- a change while credentials are under way


@pytest.mark.parametrize("change", ["update", "delete"])
async def test_what_was_under_way_during_a_change_is_not_served_afterwards(change):
    fake, gate = Fake(), Gate()
    fake.on["issue_credentials"] = gate
    async with memory_broker(fake, clock=ManualClock()) as broker:
        await register(broker)
        got = []

        async def issue() -> None:
            got.append(await broker.issue("mine", **A))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(issue)
            await gate.reached.wait()
            if change == "update":
                await broker.update("mine", config={"place": "there"}, verify=False)
            else:
                await broker.delete("mine")
            gate.open.set()
        assert place(got[0]) == "here"  # it was asked for before the change
        assert broker.peek("mine", **A) is None
        if change == "update":
            assert place(await broker.issue("mine", **A)) == "there"
        else:
            with pytest.raises(UnknownConnector):
                await broker.issue("mine", **A)


async def test_what_was_under_way_during_another_brokers_change_is_not_served_a_second_later():
    store, clock = MemoryStore(), ManualClock()
    shared = {"store": store, "clock": clock, "vault": Vault(parse_keys("k:" + "A" * 43 + "=", "the test"))}
    fake, gate = Fake(), Gate()
    fake.on["issue_credentials"] = gate
    async with memory_broker(fake, **shared) as one, memory_broker(Fake(), **shared) as other:
        await register(one)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: one.issue("mine", **A))
            await gate.reached.wait()
            await other.update("mine", config={"place": "there"}, verify=False)
            clock.advance(SECOND)
            await one.issue("mine", resource_type="bucket", resource_id="b")  # which notices the change
            gate.open.set()
        assert place(await one.issue("mine", **A)) == "there"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_two_brokers_on_one_file(tmp_path):
    clock = ManualClock()
    shared = {"clock": clock, "vault": Vault(parse_keys("k:" + "A" * 43 + "=", "the test"))}
    file = tmp_path / "mooring.db"
    async with (
        open_sqlite(file) as first,
        open_sqlite(file) as second,
        memory_broker(Fake(), store=first, **shared) as one,
        memory_broker(Fake(), store=second, **shared) as other,
    ):
        await register(one)
        assert place(await one.issue("mine", **A)) == place(await other.issue("mine", **A)) == "here"
        stale = await other.get("mine")
        await one.update("mine", config={"place": "there"})
        assert place(await one.issue("mine", **A)) == "there"
        clock.advance(SECOND)
        assert place(await other.issue("mine", **A)) == "there"
        with pytest.raises(StoreConflict):
            await second.delete(stale)
        await other.delete("mine")
        clock.advance(SECOND)
        with pytest.raises(UnknownConnector):
            await one.issue("mine", **A)


async def test_a_caller_that_comes_while_the_store_is_looked_at_waits_for_what_is_found():
    """Otherwise it would be served by the old connector beyond the second that is promised."""
    store, clock = GatedStore(), ManualClock()
    shared = {"store": store, "clock": clock, "vault": Vault(parse_keys("k:" + "A" * 43 + "=", "the test"))}
    async with memory_broker(Fake(), **shared) as one, memory_broker(Fake(), **shared) as other:
        await register(one)
        await one.issue("mine", **A)
        await other.update("mine", config={"place": "there"}, verify=False)
        clock.advance(SECOND)
        store.gate = Gate()
        places = []

        async def issue() -> None:
            places.append(place(await one.issue("mine", **A)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(issue)
            await store.gate.reached.wait()
            tasks.start_soon(issue)
            await anyio.wait_all_tasks_blocked()
            assert places == []
            assert one.peek("mine", **A) is None
            store.gate.open.set()
        assert places == ["there"] * 2


async def test_looking_at_the_store_is_not_skipped_because_it_failed_or_was_cancelled():
    store, clock = GatedStore(), ManualClock()
    async with memory_broker(Fake(), store=store, clock=clock) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        clock.advance(SECOND)
        store.broken = True
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await broker.issue("mine", **A)
            assert broker.peek("mine", **A) is None
        store.broken = False
        store.gate = Gate()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: broker.issue("mine", **A))
            await store.gate.reached.wait()
            tasks.cancel_scope.cancel()
        assert broker.peek("mine", **A) is None
        assert (await broker.issue("mine", **A)).cached


async def test_the_store_is_looked_at_once_for_many_callers():
    class Counting(MemoryStore):
        looked = 0

        async def changes(self) -> int:
            self.looked += 1
            await anyio.lowlevel.checkpoint()
            return await super().changes()

    store, clock = Counting(), ManualClock()
    async with memory_broker(Fake(), store=store, clock=clock) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        clock.advance(SECOND)
        before = store.looked
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(lambda: broker.issue("mine", **A))
        assert store.looked == before + 1


# -- the same name, the same connector


async def test_of_many_registrations_of_one_name_one_wins():
    fake = Fake()

    async def pause(request):
        await anyio.sleep(0.001)

    fake.on["verify"] = pause
    outcomes = []
    async with memory_broker(fake) as broker:

        async def attempt() -> None:
            try:
                outcomes.append((await broker.register("mine", type="fake", auth_method="key")).id)
            except NameTaken:
                outcomes.append(None)

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(attempt)
        (winner,) = [one for one in outcomes if one]
        assert [one.id for one in await broker.list()] == [winner]
    assert fake.opened == fake.closed


async def test_updates_and_deletes_at_once_lose_nothing_silently():
    fake = Fake()

    async def pause(request):
        await anyio.sleep(0.001)

    fake.on["verify"] = pause
    async with memory_broker(fake) as broker:
        before = await register(broker)
        versions, refused = [], 0

        async def update(number: int) -> None:
            nonlocal refused
            for _ in range(100):
                try:
                    versions.append((await broker.update("mine", labels={f"l{number}": "x"})).version)
                except StoreConflict:
                    refused += 1
                else:
                    return

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(update, number)
        after = await broker.get("mine")
        assert set(after.labels) == {f"l{number}" for number in range(8)}
        assert sorted(versions) == list(range(before.version + 1, before.version + 9))
        assert refused


async def test_deleting_while_updating():
    fake, gate = Fake(), Gate()
    async with memory_broker(fake) as broker:
        await register(broker)
        fake.on["verify"] = gate
        outcome = []

        async def update() -> None:
            try:
                await broker.update("mine", description="new")
            except StoreConflict:
                outcome.append("conflict")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(update)
            await gate.reached.wait()
            await broker.delete("mine")
            gate.open.set()
        assert outcome == ["conflict"]
        assert await broker.list() == []


# -- everything at once


async def test_everything_at_once(count_tasks):
    """Verbs of all kinds on a few connectors: only errors of ours, and nothing stays open."""
    fake = Fake()

    async def pause(request):
        await anyio.lowlevel.checkpoint()

    fake.on = dict.fromkeys(["authenticate", "verify", "discover", "issue_credentials"], pause)
    foreign = []
    async with memory_broker(fake) as broker, broker.subscribe(ConnectorEvent, buffer=1):

        async def storm(number: int) -> None:
            name = f"c{number % 3}"
            verbs = [
                lambda: register(broker, name),
                lambda: broker.issue(name, **A),
                lambda: broker.update(name, config={"size": number}),
                lambda: broker.verify(name),
                lambda: broker.list(resource_type="bucket"),
                lambda: discover(broker),
                lambda: broker.delete(name),
                lambda: broker.issue(name, **A),
            ]
            for step in range(24):
                try:
                    with anyio.move_on_after(0.0005 if step % 5 == 4 else None):
                        await verbs[(number + step * (1 + number % 5)) % len(verbs)]()
                except MooringError:
                    pass
                except Exception as error:  # noqa: BLE001
                    foreign.append(error)

        before = count_tasks()
        async with anyio.create_task_group() as tasks:
            for number in range(24):
                tasks.start_soon(storm, number)
        assert foreign == []
        assert count_tasks() == before
        assert fake.opened == fake.closed > 50
        assert not any(lock.locked() for lock in broker._desk.cache._locks.values())


async def discover(broker: m.Broker) -> None:
    async with broker.discover() as replies:
        async for _ in replies:
            pass


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_peek_in_threads_while_connectors_change():
    """Never what was issued before the last change that was complete."""
    clock, stop, wrong = ManualClock(), threading.Event(), []
    async with memory_broker(Fake(), clock=clock) as broker:
        await register(broker, config={"size": 0})
        current = [0]

        def read() -> None:
            while not stop.is_set():
                earliest = current[0]
                issued = broker.peek("mine", **A)
                if issued is not None and int(place(issued)) < earliest:
                    wrong.append((earliest, place(issued)))

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(1, 30):
            await broker.update("mine", config={"place": str(number)}, verify=False)
            current[0] = number
            await broker.issue("mine", **A)
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
