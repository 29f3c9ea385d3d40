"""The refresher, in virtual time: nobody waits, nothing is served that has ended, and calls are spread."""

import heapq
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from datetime import timedelta
from random import Random

import anyio
import msgspec
import pytest
import trio.testing

import mooring as m
from mooring.cache import Cache, Due, Entry, Key
from mooring.credentials import BearerToken, Issued
from mooring.errors import MooringError, StoreUnavailable, Unreachable
from mooring.events import CredentialsRefreshed, RefreshFailed, TaskFailed
from mooring.refresher import Refresher
from mooring.store import MemoryStore
from mooring.testing import Fake, VirtualClock, memory_broker
from mooring.types import Secret

HOUR = timedelta(hours=1)
A = {"resource_type": "bucket", "resource_id": "a"}
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


class Many:
    """Many leases of an hour that are issued together and read every five minutes, and their refresher."""

    def __init__(self, number: int) -> None:
        self.clock = VirtualClock()
        self.cache = Cache(self.clock, renewing=True, jitter=Random(5).random)
        self.keys = [
            Key(connector_id="c", fingerprint="f", resource_type="b", resource_id=str(one), access="read", ttl=HOUR)
            for one in range(number)
        ]
        self.made: Counter[str] = Counter()
        self.calls: Counter[int] = Counter()
        self.cycles: dict[int, Counter[int]] = defaultdict(Counter)
        self.waited = 0

    async def make(self, key: Key) -> Issued:
        second = int(self.clock.monotonic())
        self.made[key.resource_id] += 1
        self.calls[second] += 1
        self.cycles[self.made[key.resource_id]][second] += 1
        now = self.clock.now()
        return Issued(
            connector_id="c",
            connector="c",
            connector_type="fake",
            resource_type="b",
            resource_id=key.resource_id,
            access="read",
            consumer="me",
            issued_at=now,
            credentials=BearerToken(token=Secret("t"), expires_at=now + HOUR, narrowed=True),
            lease=f"{key.resource_id}-{self.made[key.resource_id]}",
        )

    async def read(self, key: Key) -> None:
        issued = self.cache.peek(key)
        if issued is None:
            self.waited += 1
            issued = await self.cache.get(key, lambda: self.make(key))
        assert issued.expires_at > self.clock.now()

    async def renew(self, due: Due) -> None:
        await self.cache.renew(due, lambda: self.make(due.key))

    async def live(self, seconds: int) -> None:
        async with anyio.create_task_group() as tasks:
            for key in self.keys:
                await self.read(key)
            self.waited = 0
            refresher = Refresher(self.cache.due, self.renew, lambda _, work: tasks.start_soon(work))
            tasks.start_soon(refresher.run)
            for second in range(seconds):
                for key in self.keys[second % 300 :: 300]:
                    await self.read(key)
                await anyio.sleep(1)
            tasks.cancel_scope.cancel()


async def test_ten_thousand_leases_that_were_issued_together():
    """For four hours. In every cycle, and in the whole from the third on, no second has thrice the mean's calls."""
    many = Many(10_000)
    await many.live(4 * 3600)
    assert many.waited == 0
    cycles = [calls for number, calls in sorted(many.cycles.items()) if calls.total() == 10_000]
    assert len(cycles) >= 5
    peaks = [max(calls.values()) / (calls.total() / len(calls)) for calls in cycles[1:]]
    assert max(peaks) <= 3, peaks
    begin = min(cycles[3])  # the first is the issuing; two of renewals are left out
    later = [many.calls[second] for second in range(begin, 4 * 3600)]
    assert max(later) <= 3 * sum(later) / len(later)


async def test_its_work_is_linear_in_the_number_of_leases(monkeypatch):
    work = Counter()

    def counted(module, name, kind):
        real = getattr(module, name)

        def call(*args):
            work[kind] += 1
            return real(*args)

        monkeypatch.setattr(module, name, call)

    age = Entry.age.fget

    def read(entry):
        work["age"] += 1
        return age(entry)

    counted(heapq, "heappush", "heap")
    counted(heapq, "heappop", "heap")
    monkeypatch.setattr(Entry, "age", property(read))

    async def total(number: int) -> tuple[Counter, int]:
        work.clear()
        many = Many(number)
        await many.live(2 * 3600)
        return work.copy(), many.calls.total()

    few, few_calls = await total(1000)
    lot, lot_calls = await total(10_000)
    assert lot_calls == pytest.approx(10 * few_calls, rel=0.1)
    ticks = 2 * 3600
    for kind in ("heap", "age"):
        assert lot[kind] <= 11 * few[kind]
        assert lot[kind] <= 5 * lot_calls + ticks, "a few for each, and one for each second"


async def test_the_most_urgent_go_first_and_do_not_hurry_the_others():
    """One short life among many long ones: it is renewed at the next tick, which starts hardly more than others do."""
    clock = VirtualClock()
    many = Many(1000)
    cache, started = Cache(clock, renewing=True, jitter=lambda: 0.0), []

    async def renew(due: Due) -> None:
        started.append((int(clock.monotonic()), due.key.resource_id))

    async def keep(key: Key, life: timedelta) -> None:
        issued = await many.make(key)
        ends = m.BearerToken(token=Secret("t"), expires_at=clock.now() + life, narrowed=True)
        cache._keep(key, Entry(_with(issued, ends), clock))
        cache.peek(key)

    async with anyio.create_task_group() as tasks:
        for key in many.keys[1:]:
            await keep(key, HOUR)
        await anyio.sleep(2000)
        await keep(many.keys[0], timedelta(minutes=16))
        refresher = Refresher(cache.due, renew, lambda _, work: tasks.start_soon(work))
        tasks.start_soon(refresher.run)
        await anyio.sleep(2000)
        tasks.cancel_scope.cancel()
    per_second = Counter(second for second, _ in started)
    urgent = next(second for second, name in started if name == "0")
    assert urgent == 2000 + 640
    assert len(started) == 1000
    assert max(count for second, count in per_second.items() if second != urgent) <= 5


def _with(issued: Issued, credentials: m.Credentials) -> Issued:
    import msgspec

    return msgspec.structs.replace(issued, credentials=credentials)


async def register(broker: m.Broker) -> None:
    await broker.register("mine", type="fake", auth_method="key", verify=False)


async def test_a_broker_that_is_asked_every_minute_never_makes_a_caller_wait():
    fake = Fake()
    async with (
        memory_broker(fake, clock=(clock := VirtualClock())) as broker,
        broker.subscribe(CredentialsRefreshed, buffer=100) as events,
    ):
        await register(broker)
        first = await broker.issue("mine", **A)
        fake.on["issue_credentials"] = lambda _: anyio.sleep(10)
        for _ in range(8 * 60):
            before = anyio.current_time()
            issued = await broker.issue("mine", **A)
            assert anyio.current_time() == before
            assert issued.expires_at > clock.now()
            await anyio.sleep(60)
        assert fake.calls["issue_credentials"] in range(10, 14)
        chain = {first.lease}
        for _ in range(fake.calls["issue_credentials"] - 1):
            event = await anext(events)
            assert event.before in chain
            chain.add(event.lease)


async def test_what_nobody_asks_for_any_more_is_not_renewed():
    fake = Fake()
    async with memory_broker(fake, clock=VirtualClock()) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        await broker.issue("mine", **A)
        await anyio.sleep(5 * 3600)
        assert fake.calls["issue_credentials"] == 2, "in use once, then never again"


class Renders(Fake):
    """Makes clients that ask for nothing."""

    @m.hookimpl
    def describe(self):
        return msgspec.structs.replace(super().describe(), credentials=(BearerToken,))

    @m.hookimpl
    @asynccontextmanager
    async def client(self, request):
        yield request


async def test_what_a_client_holds_is_renewed_ahead_until_it_is_closed():
    fake = Renders()
    async with memory_broker(fake, clock=VirtualClock()) as broker:
        await register(broker)
        async with broker.client("mine", **A) as one:
            await anyio.sleep(3600)
            assert fake.calls["issue_credentials"] == 2, "though nobody has asked since it was made"
            await one.renew()
        await anyio.sleep(5 * 3600)
        assert fake.calls["issue_credentials"] == 3, "what a renewal gave is in use once more, then never again"


async def test_an_outage_shorter_than_what_is_left_fails_nobody():
    """A thousand callers, each once a minute. From 38 to 59 minutes nobody answers.

    The bound is the breaker's, which is lower than that of the pauses: 5 calls until it opens, 5 until its pause is the
    longest, and then one in every 54 s.
    """
    fake, served = Fake(), Counter()
    async with memory_broker(fake, clock=(clock := VirtualClock())) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        asked = fake.calls

        async def fail(request):
            if clock.monotonic() < 59 * 60:
                raise Unreachable("no answer")

        async def call() -> None:
            issued = await broker.issue("mine", **A)
            assert issued.expires_at > clock.now()
            served[issued.lease] += 1

        await anyio.sleep(38 * 60)
        fake.on["issue_credentials"] = fail
        for _ in range(24):
            async with anyio.create_task_group() as tasks:
                for _ in range(1000):
                    tasks.start_soon(call)
            await anyio.sleep(60)
        assert served.total() == 24_000
        assert len(served) == 2
        assert asked["issue_credentials"] - 2 <= 5 + 5 + (59 - 38) * 60 / 54


async def test_a_store_that_fails_for_a_moment_ends_no_renewal():
    class Shaky(MemoryStore):
        broken = False

        async def find(self, name_or_id):
            if self.broken:
                raise StoreUnavailable("locked")
            return await super().find(name_or_id)

    fake, store = Fake(), Shaky()
    async with memory_broker(fake, clock=VirtualClock(), store=store) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        await broker.issue("mine", **A)
        await anyio.sleep(30 * 60)
        store.broken = True
        await anyio.sleep(17 * 60)
        assert fake.calls["issue_credentials"] == 1
        store.broken = False
        await anyio.sleep(5)
        assert fake.calls["issue_credentials"] == 2


@pytest.mark.parametrize("change", ["update", "delete"])
async def test_a_connector_that_changes_while_its_credentials_are_due(change):
    fake, failures = Fake(), []
    async with (
        memory_broker(fake, clock=VirtualClock()) as broker,
        broker.subscribe(RefreshFailed, TaskFailed) as events,
    ):
        await register(broker)
        await broker.issue("mine", **A)
        await broker.issue("mine", **A)

        renewing = anyio.Event()

        async def slow(request):
            renewing.set()
            await anyio.sleep(20)

        fake.on["issue_credentials"] = slow
        await renewing.wait()
        if change == "update":
            await broker.update("mine", config={"place": "there"}, verify=False)
        else:
            await broker.delete("mine")
        await anyio.sleep(3600)
        assert fake.calls["issue_credentials"] == 2
        if change == "update":
            assert (await broker.issue("mine", **A)).credentials.token.reveal().startswith("there")
        with anyio.move_on_after(1):
            failures.append(await anext(events))
        assert failures == []


async def test_one_renewal_that_breaks_does_not_end_the_others(monkeypatch):
    fake = Fake()
    async with memory_broker(fake, clock=VirtualClock()) as broker, broker.subscribe(TaskFailed) as events:
        await register(broker)
        for name in ("a", "b"):
            for _ in range(2):
                await broker.issue("mine", resource_type="bucket", resource_id=name)
        real = Cache.renew

        async def renew(self, due, *args, **more):
            if due.key.resource_id == "a":
                raise ValueError("a bug")
            await real(self, due, *args, **more)

        monkeypatch.setattr(Cache, "renew", renew)
        await anyio.sleep(50 * 60)
        assert (await anext(events)).error == "ValueError"
        assert fake.calls["issue_credentials"] == 3


async def test_while_a_breaker_is_open_renewals_are_not_written_down_as_failed():
    fake, seen = Fake(), []
    async with (
        memory_broker(fake, clock=VirtualClock()) as broker,
        broker.subscribe(RefreshFailed, buffer=10_000) as events,
    ):
        await register(broker)
        for number in range(200):
            for _ in range(2):
                await broker.issue("mine", resource_type="bucket", resource_id=f"b{number}")

        async def fail(request):
            raise Unreachable("no answer")

        fake.on["issue_credentials"] = fail
        await anyio.sleep(54 * 60)
        with anyio.move_on_after(1):
            while True:
                seen.append(await anext(events))
        assert 5 <= len(seen) == fake.calls["issue_credentials"] - 200 <= 40


async def test_a_renewal_that_fails_says_so_and_the_credentials_stay():
    fake = Fake()
    async with memory_broker(fake, clock=VirtualClock()) as broker, broker.subscribe(RefreshFailed) as events:
        await register(broker)
        first = await broker.issue("mine", **A)
        await broker.issue("mine", **A)

        async def fail(request):
            raise Unreachable("no answer")

        fake.on["issue_credentials"] = fail
        event = await anext(events)
        assert (event.lease, event.error, event.expires_at) == (first.lease, "Unreachable", first.expires_at)
        assert (await broker.issue("mine", **A)).lease == first.lease
        with pytest.raises(MooringError):
            await broker.issue("mine", refused=first.lease, **A)
