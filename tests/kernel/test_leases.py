"""Leases: recorded before they leave, taken back as far as can be, whatever happens meanwhile."""

import os
import subprocess
import sys
import threading
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import anyio
import msgspec
import pytest

import mooring as m
from mooring.assembly import Settings
from mooring.broker import _books, _leases
from mooring.errors import InvalidConfig, NotPermitted, StoreUnavailable, UnknownLease, Unreachable
from mooring.events import CredentialsExpired, CredentialsRevoked, RevocationFailed
from mooring.records import AuditEntry
from mooring.store import MemoryStore, open_sqlite
from mooring.testing import Fake, ManualClock, memory_broker

pytestmark = pytest.mark.anyio
A = {"resource_type": "bucket", "resource_id": "a"}
HOUR = timedelta(hours=1)


class Vendor(Fake):
    """Credentials of the auth method `key` can be taken back one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.things: set[str] = set()
        self.trouble: Exception | None = None
        self.denied: list[object] = []
        self.attempts = 0

    @m.hookimpl
    def describe(self):
        described = super().describe()
        methods = tuple(
            msgspec.structs.replace(one, revocable=True) if one.name == "key" else one for one in described.auth_methods
        )
        return msgspec.structs.replace(described, auth_methods=methods)

    @m.hookimpl
    async def issue_credentials(self, session, request):
        undo, ends = session.context.undo, session.context.clock.now() + HOUR
        self.issued += 1
        name = f"thing-{self.issued}"
        if request.resource_id != "wide":
            entry = await undo.begin({"thing": name})
            self.things.add(name)
            await undo.keep(entry, ends)
        return m.BearerToken(token=m.Secret(name), expires_at=ends, narrowed=True)

    @m.hookimpl
    async def undo(self, session, step):
        await anyio.lowlevel.checkpoint()
        self.attempts += 1
        if self.trouble:
            raise self.trouble
        self.things.discard(step["thing"])

    @m.hookimpl
    async def revoke_all(self, session, request):
        if self.trouble:
            raise self.trouble
        self.denied.append(request.before)
        return "all refused"


async def register(broker: m.Broker, method: str = "key") -> m.types.Connector:
    return await broker.register("mine", type="fake", auth_method=method, verify=False)


async def states(broker: m.Broker) -> list[str]:
    """By who holds them, else by their resource."""
    found = await broker.leases(states=None)
    return [one.state for one in sorted(found, key=lambda one: (one.holders[0].consumer, one.resource_id))]


async def test_a_hand_out_is_on_record_before_it_leaves_and_repeats_are_counted_exactly(tmp_path):
    async with memory_broker(Fake(), clock=ManualClock()) as broker:
        await register(broker)
        issued = await broker.issue("mine", **A, consumer="ann")
        (lease,) = await broker._desk.books.ledger.leases()
        assert [(one.consumer, one.count) for one in lease.holders] == [("ann", 1)]
        await broker.issue("mine", **A, consumer="bob")

        def read() -> None:
            for _ in range(500):
                assert broker.peek("mine", **A, consumer="ann").lease == issued.lease

        threads = [threading.Thread(target=read) for _ in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            await anyio.to_thread.run_sync(one.join)
        (lease,) = await broker.leases(consumer="bob")
        assert [(one.consumer, one.count) for one in lease.holders] == [("ann", 4001), ("bob", 1)]


async def test_what_is_counted_is_written_when_the_broker_closes_also_when_it_is_cancelled():
    for cancelled in (False, True):
        store = MemoryStore()
        with anyio.CancelScope() as scope:
            async with memory_broker(Fake(), store=store, clock=ManualClock()) as broker:
                await register(broker)
                for _ in range(5):
                    await broker.issue("mine", **A)
                if cancelled:
                    scope.cancel()
        (lease,) = await store.ledger.leases()
        assert [one.count for one in lease.holders] == [5]


async def test_where_it_cannot_be_recorded_nothing_is_handed_out_and_what_was_made_is_undone(monkeypatch):
    vendor, store, clock = Vendor(), MemoryStore(), ManualClock()
    async with memory_broker(vendor, store=store, clock=clock) as broker:
        await register(broker)

        async def away(batch, sign, signed):
            raise StoreUnavailable("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(store.ledger, "record", away)
            with pytest.raises(StoreUnavailable, match="cannot be recorded are not handed out: the disk is full"):
                await broker.issue("mine", **A)
            assert (vendor.things, await store.undos()) == (set(), [])
            assert (await broker.get("mine")).name == "mine"
        clock.advance(HOUR)  # longer than a failure is remembered
        await broker.issue("mine", **A)


@pytest.mark.parametrize("consumer", ["\udcff", "a\nb", "\0"])
async def test_a_consumer_that_is_no_text_is_refused(consumer):
    async with memory_broker(Fake(), clock=ManualClock()) as broker:
        await register(broker)
        with pytest.raises(InvalidConfig, match="consumer"):
            await broker.issue("mine", **A, consumer=consumer)
        assert await broker.leases(states=None) == []


# -- taking back


async def test_revoking_is_real_where_the_vendor_can_and_only_from_who_it_is_asked_of():
    vendor = Vendor()
    async with memory_broker(vendor, clock=ManualClock()) as broker:
        await register(broker)
        ann, bob = [await broker.issue("mine", **A, consumer=one) for one in ("ann", "bob")]
        assert ann.lease != bob.lease
        (revoked,) = await broker.revoke(consumer="ann")
        assert (revoked.id, revoked.state, vendor.things) == (ann.lease, "revoked", {"thing-2"})
        assert broker.peek("mine", **A, consumer="ann") is None
        assert await broker.issue("mine", **A, consumer="bob") == msgspec.structs.replace(bob, cached=True)
        assert await broker.revoke(consumer="ann") == []
        assert [one.state for one in await broker.revoke(ann.lease)] == []
        with pytest.raises(UnknownLease):
            await broker.revoke(bob.lease, consumer="ann")
        with pytest.raises(InvalidConfig):
            await broker.revoke()


@pytest.mark.parametrize("named", ["lease", "connector", "resource", "consumer"])
async def test_an_empty_name_revokes_nothing(named):
    vendor = Vendor()
    async with memory_broker(vendor, clock=ManualClock()) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        for more in ({}, {"connector": "mine"}):
            with pytest.raises(InvalidConfig, match="empty"):
                await broker.revoke(**{**more, named: ""})
        assert (await states(broker), vendor.things) == (["active"], {"thing-1"})


async def test_by_resource_prefix_by_connector_and_what_can_only_be_released():
    vendor = Vendor()
    async with memory_broker(vendor, clock=ManualClock()) as broker:
        await register(broker)
        for name in ("logs/a", "logs/b", "other", "wide"):
            await broker.issue("mine", resource_type="bucket", resource_id=name)
        assert {one.resource_id for one in await broker.revoke(resource="logs/")} == {"logs/a", "logs/b"}
        assert await states(broker) == ["revoked", "revoked", "active", "active"]
        done = await broker.revoke(connector="mine")
        assert {one.resource_id: one.state for one in done} == {"other": "revoked", "wide": "released"}
        again = await broker.revoke(connector="mine")
        assert [one.state for one in again] == ["released"]
        lines = [line.entry.action async for line in broker.audit()]
        assert lines.count("release") == 1


async def test_one_lease_of_many_holders_is_taken_from_one():
    async with memory_broker(Fake(), clock=ManualClock()) as broker:
        await register(broker)
        ann = await broker.issue("mine", **A, consumer="ann")
        assert (await broker.issue("mine", **A, consumer="bob")).lease == ann.lease
        (left,) = await broker.revoke(consumer="ann")
        assert ([one.consumer for one in left.holders], left.state) == (["bob"], "active")
        assert (await broker.issue("mine", **A, consumer="bob")).lease == ann.lease
        (released,) = await broker.revoke(consumer="bob")
        assert released.state == "released"


async def test_who_left_a_lease_and_asks_again_is_on_record_as_given_it_again():
    async with memory_broker(Fake(), clock=ManualClock()) as broker:
        await register(broker)
        for consumer in ("ann", "bob", "ann", "bob"):
            await broker.issue("mine", **A, consumer=consumer)
        await broker.revoke(consumer="ann")
        assert broker.peek("mine", **A, consumer="ann") is None
        for consumer in ("ann", "bob", "ann"):
            await broker.issue("mine", **A, consumer=consumer)
        lines = [(line.entry.action, line.entry.consumer) async for line in broker.audit()][1:]
        assert lines == [("issue", "ann"), ("issue", "bob"), ("release", "ann"), ("issue", "ann")]
        (lease,) = await broker.leases()
        assert {one.consumer: one.count for one in lease.holders} == {"ann": 2, "bob": 3}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("kept", ["memory", "file"])
async def test_what_is_renewed_lives_as_long_as_it_was_to_live_before(kept, tmp_path):
    async with AsyncExitStack() as stack:
        store = MemoryStore() if kept == "memory" else await stack.enter_async_context(open_sqlite(tmp_path / "db"))
        broker = await stack.enter_async_context(memory_broker(Fake(), clock=ManualClock(), store=store))
        await register(broker)
        short, usual = timedelta(minutes=20), await broker.issue("mine", **A)
        old = await broker.issue("mine", **A, ttl=short)
        assert (await broker.lease(old.lease)).ttl == short
        new = await broker.renew(old.lease)
        assert new.lease != old.lease
        assert (await broker.lease(new.lease)).ttl == new.expires_at - new.issued_at == short
        assert (await broker.issue("mine", **A, ttl=short)).lease == new.lease
        assert (await broker.issue("mine", **A)).lease == usual.lease


async def test_role_wide_only_where_it_is_asked_for():
    vendor = Vendor()
    async with memory_broker(vendor, clock=ManualClock()) as broker:
        await register(broker)
        await broker.issue("mine", resource_type="bucket", resource_id="wide", consumer="ann")
        await broker.issue("mine", resource_type="bucket", resource_id="wide", consumer="bob")
        await broker.revoke(consumer="ann")
        assert (await states(broker), vendor.denied) == (["released", "active"], [])
        vendor.trouble = Unreachable("the vendor is away; try again")
        with pytest.raises(Unreachable):
            await broker.revoke(consumer="ann", role_wide=True)
        assert await states(broker) == ["released", "active"]
        vendor.trouble = None
        done = await broker.revoke(consumer="ann", role_wide=True)
        assert [one.state for one in done] == ["revoked", "revoked"]
        assert len(vendor.denied) == 1


async def test_a_failure_is_tried_again_is_irrevocable_after_some_and_revoked_when_the_vendor_is_back():
    vendor, clock, seen = Vendor(), ManualClock(), []
    async with memory_broker(vendor, clock=clock) as broker:
        connector = await register(broker)
        connector = await broker.update("mine", ttl=12 * HOUR, verify=False)
        issued = await broker.issue("mine", **A)
        vendor.trouble = Unreachable("the vendor is away; try again")
        async with broker.subscribe(RevocationFailed, CredentialsRevoked) as events:
            (lease,) = await broker.revoke(issued.lease)
            assert (lease.state, lease.attempts, lease.error) == ("revoking", 1, "the vendor is away; try again")
            with pytest.raises(NotPermitted, match="could not be taken back"):
                await broker.delete("mine", revoke=True)
            assert (await broker.get("mine")).id == connector.id
            while lease.state == "revoking":
                (entry,) = await broker._desk.store.undos()
                clock.advance(entry.due_at - clock.now())
                await broker.sweep()
                lease = await broker.lease(issued.lease)
                seen.append(lease.attempts)
            assert (lease.state, seen[-1]) == ("irrevocable", _leases.MOST_ATTEMPTS)
            vendor.trouble = None
            (lease,) = await broker.revoke(issued.lease)
            assert (lease.state, vendor.things) == ("revoked", set())
            kinds = [type(await anext(events)).__name__ for _ in range(_leases.MOST_ATTEMPTS + 1)]
    assert kinds == ["RevocationFailed"] * _leases.MOST_ATTEMPTS + ["CredentialsRevoked"]


async def test_deleting_a_connector_with_what_it_issued_and_the_leases_of_one_that_is_gone():
    vendor, store, clock = Vendor(), MemoryStore(), ManualClock()
    async with memory_broker(vendor, store=store, clock=clock) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        await broker.issue("mine", resource_type="bucket", resource_id="wide")
        with pytest.raises(m.NotPermitted, match="1 leases of connector 'mine' could not be taken back"):
            await broker.delete("mine", revoke=True)
        assert (vendor.things, await states(broker)) == (set(), ["revoked", "released"])
        await broker.delete("mine", revoke=True, role_wide=True)
        assert (len(vendor.denied), await states(broker)) == (1, ["revoked", "revoked"])
        (line,) = [one async for one in broker.audit() if one.entry.detail]
        assert (line.entry.action, line.entry.detail) == ("revoke", "role-wide")
        assert line.entry.by.startswith(line.entry.consumer.partition("@")[0] + "@")
        await register(broker)
        issued = await broker.issue("mine", **A)
        vendor.trouble = Unreachable("the vendor is away; try again")
        with pytest.raises(m.VendorError, match="could not be removed"):
            await broker.delete("mine")
        with pytest.raises(m.NotPermitted, match="could not be taken back"):
            await broker.delete("mine", revoke=True)
        await broker.delete("mine", revoke=True, force=True)
        (lease,) = await broker.revoke(issued.lease)
        assert (lease.state, lease.error) == ("irrevocable", "its connector is gone; remove it by hand")


async def test_two_revoke_at_once_and_only_one_says_so():
    vendor = Vendor()
    async with memory_broker(vendor, clock=ManualClock()) as broker:
        await register(broker)
        issued = await broker.issue("mine", **A)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(broker.revoke, issued.lease)
        lines = [(line.entry.action, line.entry.outcome) async for line in broker.audit()]
        assert lines.count(("revoke", "ok")) == 1
        assert await states(broker) == ["revoked"]


async def test_leases_end_once_whoever_sees_it_and_are_forgotten_after_a_week():
    vendor, store, clock = Fake(), MemoryStore(), ManualClock()
    async with memory_broker(vendor, store=store, clock=clock) as one:
        await register(one)
        for number in range(20):
            await one.issue("mine", resource_type="bucket", resource_id=f"b{number}")
        async with memory_broker(vendor, store=store, clock=clock, vault=one._desk.vault) as other:
            clock.advance(2 * HOUR)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one.sweep)
                tasks.start_soon(other.sweep)
        names = [event.event for event in await one.logged(after=0)]
        assert names.count(CredentialsExpired.__name__) == 20
        assert await states(one) == ["expired"] * 20
        clock.advance(_leases.KEEP)
        await one.sweep()
        assert await states(one) == []
        assert sum([line.entry.action == "expire" async for line in one.audit()]) == 20


async def test_another_broker_serves_what_was_taken_back_for_no_second_more(tmp_path):
    store, clock, vendor = MemoryStore(), ManualClock(), Vendor()
    settings = Settings(home=tmp_path)
    async with memory_broker(vendor, store=store, clock=clock, settings=settings, share_cache=True) as one:
        await register(one)
        issued = await one.issue("mine", **A)
        shared = {"store": store, "clock": clock, "settings": settings, "vault": one._desk.vault, "share_cache": True}
        async with memory_broker(vendor, **shared) as two:
            assert (await two.issue("mine", **A)).lease == issued.lease
            await one.revoke(issued.lease)
            clock.advance(timedelta(seconds=0.6))
            assert (await two.issue("mine", **A)).lease != issued.lease
            latest = (await two.issue("mine", **A)).lease
        (tmp_path / "kept").mkdir()
        lying = {file: file.read_bytes() for file in (tmp_path / "cache").glob("*.sealed")}
        async with memory_broker(vendor, **shared) as three:  # which has nothing of its own to drop
            await three.revoke(latest)
            for file, content in lying.items():
                file.write_bytes(content)
        async with memory_broker(vendor, **shared) as four:
            assert (await four.issue("mine", **A)).lease != latest


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("kept", ["memory", "file"])
async def test_a_share_that_was_taken_back_is_a_hand_out_anew_in_every_process(kept, tmp_path):
    clock, vendor, settings = ManualClock(), Fake(), Settings(home=tmp_path)
    async with AsyncExitStack() as stack:

        async def another(vault=None) -> m.Broker:
            """With a connection of its own, as in another process."""
            store = memory if kept == "memory" else await stack.enter_async_context(open_sqlite(tmp_path / "db"))
            shared = {"store": store, "clock": clock, "settings": settings, "share_cache": True}
            return await stack.enter_async_context(memory_broker(vendor, **shared, vault=vault))

        memory = MemoryStore()
        one = await another()
        two = await another(one._desk.vault)
        await register(one)
        for broker in (one, two):
            for consumer in ("ann", "bob"):
                issued = await broker.issue("mine", **A, consumer=consumer)
        await two._desk.books.flush()
        two._desk.books.used((issued.lease, "ann"))
        await one.revoke(consumer="ann")
        await two._desk.books.flush()  # what was counted before is no hand-out after
        clock.advance(timedelta(seconds=0.6))
        (lease,) = await one.leases()
        assert [holder.consumer for holder in lease.holders] == ["bob"]

        assert two.peek("mine", **A, consumer="ann") is None
        again = [await two.issue("mine", **A, consumer=consumer) for consumer in ("ann", "ann", "bob")]
        assert {given.lease for given in again} == {issued.lease}
        lines = [(line.entry.action, line.entry.consumer) async for line in one.audit()][1:]
        first = [("issue", "ann"), ("issue", "bob")]
        assert lines == [*first, *first, ("release", "ann"), ("issue", "ann")]
        (lease,) = await two.leases()
        assert {holder.consumer: holder.count for holder in lease.holders} == {"ann": 2, "bob": 3}

        await one.revoke(issued.lease)
        clock.advance(timedelta(seconds=0.6))
        assert (await two.issue("mine", **A, consumer="ann")).lease != issued.lease


# -- writing together


async def test_a_cancelled_caller_writes_nothing_and_stops_nobody(monkeypatch):
    store = MemoryStore()
    async with memory_broker(Fake(), store=store, clock=ManualClock()) as broker:
        books, original, gate = broker._desk.books, store.ledger.record, anyio.Event()

        async def slow(batch, sign, signed):
            await gate.wait()
            return await original(batch, sign, signed)

        monkeypatch.setattr(store.ledger, "record", slow)
        done: list[str] = []

        async def write(name: str) -> None:
            entry = AuditEntry(at=broker._desk.clock.now(), action=name, consumer="x", outcome="ok")
            await books.write(audit=[entry])
            done.append(name)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, "leader")
            await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(write, "waiter")
                await anyio.wait_all_tasks_blocked()
                waiting.cancel_scope.cancel()
            tasks.start_soon(write, "next")
            await anyio.wait_all_tasks_blocked()
            gate.set()
        assert done == ["leader", "next"]
        assert [line.entry.action async for line in broker.audit()] == ["leader", "next"]


async def test_a_store_that_raises_what_it_may_not_fails_all_who_wait_and_no_more(monkeypatch):
    store, clock = MemoryStore(), ManualClock()
    async with memory_broker(Fake(), store=store, clock=clock) as broker:
        await register(broker)

        async def broken(batch, sign, signed):
            await anyio.lowlevel.checkpoint()
            raise RuntimeError

        failures = []

        async def issue(consumer: str) -> None:
            try:
                await broker.issue("mine", **A, consumer=consumer)
            except StoreUnavailable as error:
                failures.append(error.message)

        with monkeypatch.context() as patched:
            patched.setattr(store.ledger, "record", broken)
            async with anyio.create_task_group() as tasks:
                for number in range(5):
                    tasks.start_soon(issue, f"c{number}")
        assert len(failures) == 5
        clock.advance(HOUR)  # longer than a failure is remembered
        await issue("later")
        assert len(failures) == 5


async def test_while_the_store_is_away_events_are_bounded_and_counted_and_no_use_is_lost(monkeypatch):
    store = MemoryStore()
    monkeypatch.setattr(_books, "MOST_WAITING", 10)
    async with memory_broker(Fake(), store=store, clock=ManualClock()) as broker:
        await register(broker)
        await broker.issue("mine", **A)

        async def away(batch, sign, signed):
            raise StoreUnavailable("the store is away")

        with monkeypatch.context() as patched:
            patched.setattr(store.ledger, "record", away)
            for _ in range(30):
                await broker.issue("mine", **A)
                await broker.verify("mine")
                with pytest.raises(StoreUnavailable):
                    await broker._desk.books.flush()
            assert len(broker._desk.books._later) == 10
        (lease,) = await broker.leases()
        assert [one.count for one in lease.holders] == [31]
        (lost,) = [one for one in await broker.logged(after=0) if one.event == "Lagged"]
        assert lost.body == {"missed": 50}
        assert (await broker.verify_audit()).problems == ()


# -- processes

PROCESS = """
import os, sys, sqlite3
from pathlib import Path
from datetime import timedelta
import anyio
import test_leases as t
from mooring.assembly import Settings, SystemClock, open_broker

HOME, ROLE, LIMIT = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
steps, counting = 0, False

class Watched(sqlite3.Connection):
    def execute(self, *arguments):
        global steps
        words = arguments[0].split()
        changes = counting and words[0] in ("INSERT", "DELETE", "UPDATE", "COMMIT")
        steps += changes
        if changes and steps == LIMIT:
            os.kill(os.getpid(), 9)
        done = super().execute(*arguments)
        steps += changes
        if changes and steps == LIMIT:
            os.kill(os.getpid(), 9)
        return done

connect = sqlite3.connect
sqlite3.connect = lambda *arguments, **options: connect(*arguments, **options, factory=Watched)

class Vendor(t.Vendor):
    @property
    def things(self):
        return self

    @things.setter
    def things(self, _):
        pass

    def add(self, name):
        (HOME / "things" / f"{os.getpid()}-{name}").touch()

    def discard(self, name):
        for one in (HOME / "things").glob(f"*-{name}"):
            one.unlink()

class Later(SystemClock):
    @staticmethod
    def now():
        return SystemClock.now() + timedelta(minutes=1 if ROLE == "look" else 0)

async def main():
    global counting
    async with open_broker(
        settings=Settings(home=HOME), plugins=[Vendor()], system_plugins=(), clock=Later(), share_cache=False
    ) as broker:
        if ROLE == "prepare":
            await broker.register("mine", type="fake", auth_method="key", verify=False)
            return
        if ROLE == "look":
            await broker.sweep()
            leases = await broker.leases()
            undo = {id for one in leases for id in one.undo}
            stored = {one.id for one in await broker._desk.store.undos()}
            assert undo == stored, (undo, stored)
            assert all(one.state == "active" for one in leases), leases
            assert len(list((HOME / "things").iterdir())) == len(undo)
            assert (await broker.verify_audit()).problems == ()
            assert (await broker.check()).problems == ()
            return
        if ROLE == "issue":
            counting = True
        issued = await broker.issue("mine", **t.A)
        counting = True
        if ROLE == "revoke":
            await broker.revoke(issued.lease)
        if ROLE == "refresh":
            await broker.issue("mine", **t.A, refused=issued.lease)
        counting = False
        print(steps)

anyio.run(main)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("role", ["issue", "refresh", "revoke"])
async def test_killed_at_any_step_nothing_is_lost_and_nothing_stays_at_the_vendor(tmp_path: Path, role: str) -> None:
    """Looked at a minute after: what is at the vendor is what active leases stand for, and the audit log is whole."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}

    def run(home: Path, role: str, limit: int = 0) -> subprocess.CompletedProcess[str]:
        (home / "things").mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", PROCESS, str(home), role, str(limit)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert run(tmp_path / "home", "prepare").stderr == ""
    clean = run(tmp_path / "home", role)
    assert clean.stderr == ""
    last = int(clean.stdout)
    assert last >= 8
    for step in range(1, last + 1, max(1, last // 16)):
        home = tmp_path / f"home-{step}"
        assert run(home, "prepare").stderr == ""
        assert run(home, role, step).returncode == -9
        assert run(home, "look").stderr == "", step


class Jumping(ManualClock):
    """Its wall clock can be put forward and back."""

    off = timedelta(0)

    def now(self):
        return super().now() + self.off


async def test_what_has_ended_by_a_clock_that_was_put_back_since_is_not_served_again():
    vendor, clock = Vendor(), Jumping()
    async with memory_broker(vendor, clock=clock) as broker:
        await register(broker)
        first = await broker.issue("mine", **A)
        clock.off = 2 * HOUR
        await broker.sweep()
        assert await states(broker) == ["expired"]
        clock.off = timedelta(0)
        second = await broker.issue("mine", **A)
        assert second.lease != first.lease
        assert [one.state for one in await broker.revoke(second.lease)] == ["revoked"]
