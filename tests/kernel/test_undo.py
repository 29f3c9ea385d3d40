"""The undo log: what issuing makes at a vendor is removed there, whatever becomes of the request, or of the process."""

import json
import os
import subprocess
import sys
from datetime import timedelta

import anyio
import msgspec
import pytest
from trio.testing import MockClock

import mooring as m
from mooring.assembly import Settings, open_broker
from mooring.broker import _undo
from mooring.errors import NotNarrowed, StoreUnavailable, Unreachable, VendorError
from mooring.events import RemovalFailed, RemovalFinished
from mooring.store import MemoryStore
from mooring.testing import Fake, ManualClock, VirtualClock, memory_broker

pytestmark = pytest.mark.anyio
A = {"resource_type": "bucket", "resource_id": "a"}
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


class Maker(Fake):
    """A vendor where issuing makes a thing; `things` is what is there, `at` a moment at which issuing fails."""

    def __init__(self, at: str = "", store: MemoryStore | None = None) -> None:
        super().__init__()
        self.things: set[str] = set()
        self.undone: list[str] = []
        self.at = at
        self.store = store
        self.trouble: Exception | None = None

    async def moment(self, name: str) -> None:
        await anyio.lowlevel.checkpoint()
        if self.at == name:
            raise Unreachable("the vendor is away; try again")

    @m.hookimpl
    async def issue_credentials(self, session, request):
        thing, undo = f"thing-{self.calls['issue_credentials']}", session.context.undo
        self.calls["issue_credentials"] += 1
        await self.moment("first")
        entry = await undo.begin({"thing": thing})
        if self.store:
            assert [one.step for one in await self.store.undos()] == [{"thing": thing}], "written before it is made"
        await self.moment("begun")
        self.things.add(thing)
        await self.moment("made")
        ends = session.context.clock.now() + request.ttl
        if self.at == "nothing made":
            self.things.remove(thing)
            await undo.done(entry)
        elif self.at != "forgotten":
            await undo.keep(entry, ends)
        await self.moment("kept")
        return m.BearerToken(token=m.Secret(thing), expires_at=ends, narrowed=self.at != "wide")

    @m.hookimpl
    async def undo(self, session, step):
        await anyio.lowlevel.checkpoint()
        if self.trouble:
            raise self.trouble
        self.undone.append(step["thing"])
        self.things.discard(step["thing"])


async def register(broker: m.Broker) -> m.types.Connector:
    return await broker.register("mine", type="fake", auth_method="key", verify=False)


@pytest.mark.parametrize("at", ["begun", "made", "kept", "wide"])
async def test_what_a_failed_request_made_is_removed_at_once(at):
    store = MemoryStore()
    maker = Maker(at, store)
    async with memory_broker(maker, store=store, clock=ManualClock()) as broker:
        connector = await register(broker)
        async with broker.subscribe(RemovalFinished) as events:
            with pytest.raises(NotNarrowed if at == "wide" else Unreachable):
                await broker.issue("mine", **A)
            event = await anext(events)
    assert (event.connector_id, json.loads(event.step)) == (connector.id, {"thing": "thing-0"})
    assert (maker.things, maker.undone, await store.undos()) == (set(), ["thing-0"], [])
    assert maker.opened == maker.closed


async def test_what_was_neither_kept_nor_done_is_removed_though_the_request_succeeded():
    maker, store = Maker("forgotten"), MemoryStore()
    async with memory_broker(maker, store=store, clock=ManualClock()) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        assert (maker.undone, await store.undos()) == (["thing-0"], [])


@pytest.mark.parametrize("at", ["first", "nothing made"])
async def test_nothing_is_undone_where_nothing_was_made(at):
    maker, store = Maker(at), MemoryStore()
    async with memory_broker(maker, store=store, clock=ManualClock()) as broker:
        await register(broker)
        if at == "first":
            with pytest.raises(Unreachable):
                await broker.issue("mine", **A)
        else:
            await broker.issue("mine", **A)
    assert (maker.undone, await store.undos()) == ([], [])


async def test_what_is_kept_is_removed_when_its_time_has_come():
    maker, store, clock = Maker(), MemoryStore(), ManualClock()
    async with memory_broker(maker, store=store, clock=clock) as broker:
        await register(broker)
        ends = (await broker.issue("mine", **A)).expires_at
        (entry,) = await store.undos()
        assert (entry.due_at, entry.step, entry.attempts) == (ends, {"thing": "thing-0"}, 0)
        clock.advance(HOUR - MINUTE)
        await broker.sweep()
        assert maker.things == {"thing-0"}
        clock.advance(MINUTE)
        await broker.sweep()
        assert (maker.things, await store.undos()) == (set(), [])


async def test_a_failure_is_tried_again_ever_more_seldom_and_never_dropped():
    maker, store, clock = Maker(), MemoryStore(), ManualClock()
    async with memory_broker(maker, store=store, clock=clock) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        maker.trouble = Unreachable("the vendor is away; try again")
        clock.advance(HOUR)
        pauses = []
        async with broker.subscribe(RemovalFailed) as events:
            for attempt in range(1, 14):
                await broker.sweep()
                event = await anext(events)
                assert (event.error, event.message, event.attempts) == (
                    "Unreachable", "the vendor is away; try again", attempt,
                )  # fmt: skip
                (entry,) = await store.undos()
                assert entry.attempts == attempt
                pauses.append(entry.due_at - clock.now())
                clock.advance(pauses[-1] - timedelta(seconds=1))
                await broker.sweep()  # not due yet
                assert maker.calls["undo"] == 0
                clock.advance(timedelta(seconds=1))
        assert pauses == [min(MINUTE * 2**n, 6 * HOUR) for n in range(13)]
        maker.trouble = None
        await broker.sweep()
        assert (maker.things, await store.undos()) == (set(), [])


@pytest.mark.parametrize("trouble", [RuntimeError("c4n4ry"), m.Rejected("no")])
async def test_whatever_the_plugin_raises_nothing_stops_and_no_foreign_text_is_told(trouble):
    maker, store, clock = Maker(), MemoryStore(), ManualClock()
    async with memory_broker(maker, store=store, clock=clock) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        maker.trouble = trouble
        clock.advance(HOUR)
        async with broker.subscribe(RemovalFailed) as events:
            await broker.sweep()
            event = await anext(events)
    assert event.error == ("Rejected" if isinstance(trouble, m.Rejected) else "BrokenPlugin")
    assert "c4n4ry" not in event.message


async def test_deleting_a_connector_removes_first_what_it_made():
    maker, store = Maker(), MemoryStore()
    async with memory_broker(maker, store=store, clock=ManualClock()) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        await broker.delete("mine")
        assert (maker.things, maker.undone, await store.undos()) == (set(), ["thing-0"], [])


async def test_a_connector_stays_while_what_it_made_cannot_be_removed():
    maker, store, clock = Maker(), MemoryStore(), ManualClock()
    async with memory_broker(maker, store=store, clock=clock) as broker:
        connector = await register(broker)
        for name in "abcdefg":
            await broker.issue("mine", resource_type="bucket", resource_id=name)
        assert await broker.unremoved() == []
        maker.trouble = Unreachable("the vendor is away; try again")
        with pytest.raises(VendorError) as caught:
            await broker.delete("mine")
        assert caught.value.message.startswith("connector 'mine' was not deleted, for 7 of what it made at its vendor")
        assert "(the vendor is away; try again)" in caught.value.message
        assert caught.value.message.count('{"thing":"thing-') == 5
        assert ", ...; mend that and delete it again, or use --force" in caught.value.message
        assert await broker.get("mine") == connector
        assert {one.step["thing"] for one in await broker.unremoved()} == maker.things
        maker.trouble = None
        await broker.delete("mine")
        assert (maker.things, await store.undos(), await broker.unremoved()) == (set(), [], [])


async def test_what_could_not_be_removed_before_its_connector_went_by_force_is_told_and_given_up():
    maker, store, clock = Maker(), MemoryStore(), ManualClock()
    async with memory_broker(maker, store=store, clock=clock) as broker:
        connector = await register(broker)
        await broker.issue("mine", **A)
        maker.trouble = Unreachable("the vendor is away; try again")
        async with broker.subscribe(RemovalFailed) as events:
            await broker.delete("mine", force=True)
            assert (await anext(events)).error == "Unreachable"
            (left,) = await broker.unremoved()
            assert (left.connector_id, left.step) == (connector.id, {"thing": "thing-0"})
            assert await broker.list() == []
            clock.advance(HOUR)
            await broker.sweep()
            event = await anext(events)
    assert (event.error, event.message) == ("UnknownConnector", "its connector is gone; remove it by hand")
    assert (event.connector_id, await store.undos()) == (connector.id, [])


async def test_a_new_connector_of_the_same_name_is_not_asked():
    """Its credentials are other ones."""
    maker, store, clock = Maker(), MemoryStore(), ManualClock()
    async with memory_broker(maker, store=store, clock=clock) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        maker.trouble = Unreachable("the vendor is away; try again")
        await broker.delete("mine", force=True)
        maker.trouble = None
        await register(broker)
        clock.advance(HOUR)
        await broker.sweep()
    assert maker.undone == []


async def test_a_broker_sweeps_when_it_opens_and_before_it_closes():
    maker, store, clock = Maker(), MemoryStore(), ManualClock()
    shared = {"store": store, "clock": clock}
    async with memory_broker(maker, **shared) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        keys = broker._desk.vault
    clock.advance(HOUR)
    async with memory_broker(maker, vault=keys, **shared):
        pass
    assert (maker.things, await store.undos()) == (set(), [])


@pytest.mark.parametrize("anyio_backend", [("trio", {"clock": MockClock(autojump_threshold=0)})], ids=["virtual"])
async def test_a_broker_that_lives_sweeps_again_and_again():
    maker, store = Maker(), MemoryStore()
    async with memory_broker(maker, store=store, clock=VirtualClock()) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        await anyio.sleep(HOUR.total_seconds() - 60)
        assert maker.things == {"thing-0"}
        await anyio.sleep(_undo.PAUSE.total_seconds() + 60)
        assert maker.things == set()


async def test_a_vendor_that_hangs_does_not_keep_a_command_from_ending(monkeypatch):
    monkeypatch.setattr(_undo, "SETTLE", timedelta(milliseconds=10))

    class Hanging(Maker):
        @m.hookimpl
        async def undo(self, session, step):
            await anyio.sleep_forever()

    maker, store, clock = Hanging(), MemoryStore(), ManualClock()
    async with memory_broker(maker, store=store, clock=clock) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        keys = broker._desk.vault
    clock.advance(HOUR)
    with anyio.fail_after(30):
        async with memory_broker(maker, store=store, clock=clock, vault=keys):
            pass
    assert [one.attempts for one in await store.undos()] == [0]
    assert maker.opened == maker.closed


class Failing(MemoryStore):
    """A store that cannot be written or read while `broken` says so."""

    broken = False

    def __getattribute__(self, name):
        method = super().__getattribute__(name)
        if name not in ("put_undo", "drop_undo", "undos") or not self.broken:
            return method

        async def unavailable(*args, **kwargs):
            raise StoreUnavailable("the store is away; try again")

        return unavailable


async def test_a_request_whose_step_cannot_be_written_down_makes_nothing():
    maker, store = Maker(), Failing()
    async with memory_broker(maker, store=store, clock=ManualClock()) as broker:
        await register(broker)
        store.broken = True
        with pytest.raises(StoreUnavailable):
            await broker.issue("mine", **A)
    assert maker.things == set()


async def test_a_store_that_fails_while_undoing_hides_no_error_and_ends_no_sweeper():
    maker, store = Maker("made"), Failing()
    async with memory_broker(maker, store=store, clock=ManualClock()) as broker:
        await register(broker)
        original, maker.moment = maker.moment, None

        async def moment(name):
            if name == "made":
                store.broken = True
            await original(name)

        maker.moment = moment
        with pytest.raises(Unreachable):
            await broker.issue("mine", **A)
        assert maker.things == set()
        sweeper = _undo.Sweeper(broker._desk)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sweeper.run)
            await sweeper.settle()
            tasks.cancel_scope.cancel()
        with pytest.raises(StoreUnavailable):
            await broker.sweep()
        store.broken = False
        assert len(await store.undos()) == 1  # undone, but still written down: it is undone once more


async def test_cancelled_anywhere_nothing_stays_that_is_not_written_down():
    for rounds in range(200):
        store, clock = MemoryStore(), ManualClock()
        maker, done = Maker(), False
        async with memory_broker(maker, store=store, clock=clock) as broker:
            await register(broker)

            async def issue(broker=broker) -> None:
                nonlocal done
                await broker.issue("mine", **A)
                done = True

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(issue)
                for _ in range(rounds):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert maker.things == {one.step["thing"] for one in await store.undos()}
            assert maker.opened == maker.closed
            clock.advance(2 * HOUR)
            await broker.sweep()
            assert (maker.things, await store.undos()) == (set(), [])
        if done:
            break
    assert done
    assert rounds > 5


# -- processes

PROCESS = """
import os, sys
from pathlib import Path

import anyio

import mooring as m
from mooring.assembly import Settings, SystemClock, open_broker
from mooring.testing import Fake

HOME, ROLE = Path(sys.argv[1]), sys.argv[2]


class Later(SystemClock):
    def now(self):
        from datetime import timedelta

        return super().now() + timedelta(hours=2 if ROLE == "later" else 0)


class Vendor(Fake):
    @m.hookimpl
    async def issue_credentials(self, session, request):
        await session.context.undo.begin({"thing": "it"})
        (HOME / "it").touch()
        print("made", flush=True)
        os.kill(os.getpid(), 9)

    @m.hookimpl
    async def undo(self, session, step):
        with open(HOME / "undone", "a") as file:
            file.write(step["thing"] + "\\n")
        (HOME / "it").unlink(missing_ok=True)


async def main():
    async with open_broker(
        settings=Settings(home=HOME), plugins=[Vendor()], system_plugins=(), clock=Later()
    ) as broker:
        if ROLE == "maker":
            await broker.register("mine", type="fake", auth_method="key", verify=False)
            await broker.issue("mine", resource_type="bucket", resource_id="a")

anyio.run(main)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_a_killed_process_made_is_swept_by_the_next_ones(tmp_path):
    """Also when several come at once: each may undo it, which does no harm, and in the end it is forgotten."""

    def run(role: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path), role], stdout=subprocess.PIPE, text=True)

    with run("maker") as maker:
        assert maker.communicate(timeout=60)[0] == "made\n"
    assert (tmp_path / "it").exists()
    with run("now") as early:
        assert early.wait(60) == 0
    assert (tmp_path / "it").exists(), "the request could still be under way in another process"
    sweepers = [run("later") for _ in range(3)]
    for one in sweepers:
        with one:
            assert one.wait(60) == 0
    assert not (tmp_path / "it").exists()
    assert 1 <= len((tmp_path / "undone").read_text().splitlines()) <= 3
    async with open_broker(settings=Settings(home=tmp_path), plugins=[Fake()], system_plugins=()) as broker:
        assert await broker._desk.store.undos() == []


def test_an_entry_is_a_value():
    entry = m.store.UndoEntry(id="1", connector_id="c", step={"a": "b"}, due_at=ManualClock().now())
    assert msgspec.json.decode(msgspec.json.encode(entry), type=type(entry)) == entry
