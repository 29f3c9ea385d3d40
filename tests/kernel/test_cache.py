"""The cache: freshness to the second, one maker for many callers, and what happens when making fails."""

import sys
import threading
from datetime import timedelta

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from mooring.cache import Cache, Due, Entry, Key
from mooring.credentials import BearerToken, Issued
from mooring.errors import AccessDenied, Overdue, StoreUnavailable, Throttled, Unreachable
from mooring.testing import ManualClock
from mooring.types import Secret

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)


def key(number: int = 0, connector: str = "c1") -> Key:
    return Key(
        connector_id=connector,
        fingerprint="f1",
        resource_type="bucket",
        resource_id=f"b{number}",
        access="read",
        ttl=HOUR,
    )


def issued(clock: ManualClock, life: timedelta | None = HOUR, token: str = "t", *, name: str = "c") -> Issued:
    now = clock.now()
    return Issued(
        connector_id="c1",
        connector=name,
        connector_type="fake",
        resource_type="bucket",
        resource_id="b",
        access="read",
        consumer="me",
        issued_at=now,
        credentials=BearerToken(token=Secret(token), expires_at=None if life is None else now + life, narrowed=True),
        lease=token,
    )


class Maker:
    def __init__(self, clock: ManualClock, life: timedelta | None = HOUR) -> None:
        self.clock, self.life = clock, life
        self.made = 0
        self.error: Exception | None = None

    async def __call__(self) -> Issued:
        self.made += 1
        token = f"t{self.made}"
        await anyio.lowlevel.checkpoint()
        if self.error:
            raise self.error
        return issued(self.clock, self.life, token)


def steady(clock: ManualClock, shelf: object = None, **more) -> Cache:
    """A cache without chance: windows open where they do without jitter, and every pause is half of the longest."""
    draws = {"jitter": lambda: 0.5} | more
    return Cache(clock, shelf, **draws)


def token(one: Issued) -> str:
    return one.credentials.token.reveal()


# -- windows


@pytest.mark.parametrize(
    ("life", "renewed_after", "waited_after"),
    [
        (timedelta(seconds=60), timedelta(seconds=40), timedelta(seconds=55)),
        (15 * MINUTE, 10 * MINUTE, 13.75 * MINUTE),
        (30 * MINUTE, 20 * MINUTE, 27.5 * MINUTE),
        (45 * MINUTE, 30 * MINUTE, 41.25 * MINUTE),  # where both windows meet
        (60 * MINUTE, 45 * MINUTE, 55 * MINUTE),
        (12 * HOUR, 12 * HOUR - 15 * MINUTE, 12 * HOUR - 5 * MINUTE),
        (None, 15 * MINUTE, 30 * MINUTE),
    ],
)
def test_the_windows_to_the_tick(life, renewed_after, waited_after):
    for renewing, served_for in ((True, waited_after), (False, renewed_after)):
        clock = ManualClock()
        cache = Cache(clock, renewing=renewing, jitter=lambda: 0.0)
        entry = Entry(issued(clock, life), clock, renewing=renewing)
        assert (entry.renew_after, entry.wait_after) == (renewed_after.total_seconds(), waited_after.total_seconds())
        assert cache.serve(key(), entry)
        clock.advance(served_for - TICK)
        assert cache.serve(key(), entry)
        clock.advance(TICK)
        assert not cache.serve(key(), entry)
        assert entry.valid
        if life is not None:
            clock.advance(life - served_for - TICK)
            assert entry.valid
            clock.advance(TICK)
            assert not entry.valid


@given(seconds=st.integers(1, 10**6), jitter=st.floats(0, 1))
def test_windows_lie_in_order_and_jitter_opens_them_by_a_tenth_at_most(seconds, jitter):
    clock = ManualClock()
    entry = Entry(issued(clock, timedelta(seconds=seconds)), clock, jitter=jitter)
    assert 0.56 * seconds < entry.renew_after < entry.wait_after < entry.ends_after == seconds
    bare = Entry(issued(clock, timedelta(seconds=seconds)), clock)
    assert bare.renew_after - entry.renew_after == pytest.approx(jitter * seconds / 10)


def test_no_life_is_longer_than_what_was_asked_for():
    """A machine whose clock is ten minutes behind the vendor's is told of an end that lies ten minutes too far off."""
    clock = ManualClock()
    assert Entry(issued(clock, 70 * MINUTE), clock, ttl=HOUR).ends_after == 3600
    assert Entry(issued(clock, 50 * MINUTE), clock, ttl=HOUR).ends_after == 3000


def test_peek_is_good_or_nothing():
    clock = ManualClock()
    cache = steady(clock, renewing=True)
    assert cache.peek(key()) is None
    anyio.run(cache.get, key(), Maker(clock))
    assert token(cache.peek(key())) == "t1"
    clock.advance(55 * MINUTE)
    assert cache.peek(key()) is None
    assert token(cache.valid(key())) == "t1"
    clock.advance(5 * MINUTE)
    assert cache.valid(key()) is None


# -- single flight


@pytest.mark.anyio
async def test_a_thousand_callers_make_once():
    clock = ManualClock()
    cache, maker, got = Cache(clock), Maker(clock), []

    async def call() -> None:
        got.append(await cache.get(key(), maker))

    async with anyio.create_task_group() as tasks:
        for _ in range(1000):
            tasks.start_soon(call)
    assert maker.made == 1
    assert [token(one) for one in got] == ["t1"] * 1000


@pytest.mark.anyio
async def test_different_keys_are_made_beside_each_other():
    clock = ManualClock()
    cache, under_way, most = Cache(clock), 0, 0

    async def make() -> Issued:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await anyio.sleep(0.001)
        under_way -= 1
        return issued(clock)

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(cache.get, key(number), make)
    assert most == 10


@pytest.mark.anyio
async def test_when_the_first_caller_is_cancelled_the_next_takes_over():
    clock = ManualClock()
    cache, begun, got = Cache(clock), [], []

    async def slow() -> Issued:
        begun.append("slow")
        await anyio.sleep_forever()
        raise AssertionError

    async def call() -> None:
        got.append(await cache.get(key(), Maker(clock)))

    async with anyio.create_task_group() as waiting, anyio.create_task_group() as first:
        first.start_soon(cache.get, key(), slow)
        await anyio.wait_all_tasks_blocked()
        for _ in range(5):
            waiting.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        assert (begun, got) == (["slow"], [])
        first.cancel_scope.cancel()
    assert [token(one) for one in got] == ["t1"] * 5


@pytest.mark.anyio
async def test_locks_do_not_pile_up():
    clock = ManualClock()
    cache = Cache(clock)
    for number in range(50):
        await cache.get(key(number), Maker(clock))
    assert len(cache._locks) == 0


# -- failures


async def outcome(cache: Cache, maker: Maker) -> str:
    try:
        return token(await cache.get(key(), maker))
    except Exception as error:  # noqa: BLE001  its name is the outcome
        return type(error).__name__


@pytest.mark.anyio
async def test_a_failure_is_remembered_for_a_pause_that_doubles_up_to_a_minute():
    clock = ManualClock()
    cache, maker = steady(clock), Maker(clock)
    maker.error = Unreachable("no answer")
    for asked, pause in enumerate([1, 2, 4, 8, 16, 30, 30, 30], 1):
        assert await outcome(cache, maker) == "Unreachable"
        assert maker.made == asked
        clock.advance(timedelta(seconds=pause) - TICK)
        with pytest.raises(Unreachable) as caught:
            await cache.get(key(), maker)
        assert maker.made == asked
        assert timedelta(0) < caught.value.retry_after < 2 * TICK
        clock.advance(TICK)
    maker.error = None
    assert await outcome(cache, maker) == "t9"
    clock.advance(HOUR)
    maker.error = Unreachable("no answer")
    await outcome(cache, maker)
    clock.advance(timedelta(seconds=1))
    assert cache._failures.pause(key()) == 0, "after a success the pauses begin anew"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (Throttled("slow down"), 1),
        (Throttled("slow down", retry_after=timedelta(seconds=20)), 20),
        (Throttled("slow down", retry_after=timedelta(days=1)), 60),
        (AccessDenied("no"), 1),
        (StoreUnavailable("our own fault"), 0),
    ],
)
async def test_the_pause_is_what_the_vendor_says_and_a_minute_at_most(error, pause):
    clock = ManualClock()
    cache, maker = steady(clock), Maker(clock)
    maker.error = error
    await outcome(cache, maker)
    assert cache._failures.pause(key()) == pause


@pytest.mark.anyio
async def test_what_will_not_pass_by_itself_is_asked_again_after_five_seconds():
    clock = ManualClock()
    cache, maker = steady(clock, jitter=lambda: 1.0), Maker(clock)
    maker.error = AccessDenied("no")
    for _ in range(8):
        await outcome(cache, maker)
        clock.advance(timedelta(seconds=5))
    assert maker.made == 8


@pytest.mark.anyio
async def test_a_breakers_refusal_is_no_failure_more():
    """Else the pause of the key would be added to the breaker's: a vendor that is back would not be asked."""
    clock = ManualClock()
    cache, maker = steady(clock, jitter=lambda: 1.0), Maker(clock)
    maker.error = Unreachable("left alone", retry_after=timedelta(seconds=7))
    maker.error.asked = False
    for _ in range(5):
        await outcome(cache, maker)
        assert cache._failures.pause(key()) == 7
        clock.advance(timedelta(seconds=7))
    maker.error = Unreachable("no answer")
    await outcome(cache, maker)
    assert cache._failures.pause(key()) == 2, "the first of its own"


@pytest.mark.anyio
async def test_a_failure_of_long_ago_says_nothing_of_the_next():
    clock = ManualClock()
    cache, maker = steady(clock, jitter=lambda: 1.0), Maker(clock)
    maker.error = Unreachable("no answer")
    for _ in range(8):
        await outcome(cache, maker)
        clock.advance(timedelta(seconds=60))
    clock.advance(HOUR)
    await outcome(cache, maker)
    assert cache._failures.pause(key()) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("error", [AccessDenied("no"), StoreUnavailable("the disk is full"), Overdue("slow")])
async def test_who_waited_shares_the_failure(error):
    clock = ManualClock()
    cache, maker, results = steady(clock, jitter=lambda: 0.0), Maker(clock), []
    maker.error = error

    async def call() -> None:
        results.append(await outcome(cache, maker))

    async with anyio.create_task_group() as tasks:
        for _ in range(1000):
            tasks.start_soon(call)
    assert maker.made == 1
    assert results == [type(error).__name__] * 1000


@pytest.mark.anyio
async def test_no_more_failures_are_remembered_than_allowed(monkeypatch):
    monkeypatch.setattr("mooring.cache._failures.MOST", 10)
    clock = ManualClock()
    cache, maker = steady(clock), Maker(clock)
    maker.error = Unreachable("no answer")
    for number in range(30):
        with pytest.raises(Unreachable):
            await cache.get(key(number), maker)
    assert list(cache._failures._failures) == [key(number) for number in range(20, 30)]


@pytest.mark.anyio
async def test_what_is_remembered_of_a_failure_holds_no_frame():
    clock = ManualClock()
    cache, maker = steady(clock), Maker(clock)
    maker.error = Unreachable("no answer")
    for _ in range(3):
        with pytest.raises(Unreachable) as caught:
            await cache.get(key(), maker)
    (kept,) = cache._failures._failures.values()
    assert kept.error.__traceback__ is None
    assert kept.error is not caught.value


@pytest.mark.anyio
async def test_older_credentials_that_are_still_valid_bridge_a_failure_that_may_pass():
    clock = ManualClock()
    cache, maker = steady(clock), Maker(clock)
    await cache.get(key(), maker)
    clock.advance(50 * MINUTE)
    maker.error = Overdue("no answer")
    assert await outcome(cache, maker) == "t1"
    assert maker.made == 2
    clock.advance(10 * MINUTE - TICK)
    assert await outcome(cache, maker) == "t1"
    clock.advance(TICK)
    assert await outcome(cache, maker) == "Overdue"


@pytest.mark.anyio
@pytest.mark.parametrize("error", [AccessDenied("no"), ValueError("foreign")])
async def test_a_failure_that_does_not_pass_is_raised_whatever_is_at_hand(error):
    clock = ManualClock()
    cache, maker = steady(clock), Maker(clock)
    await cache.get(key(), maker)
    clock.advance(50 * MINUTE)
    maker.error = error
    assert await outcome(cache, maker) == type(error).__name__


@pytest.mark.anyio
async def test_an_outage_shorter_than_what_is_left_fails_nobody():
    """A thousand callers, each every ten seconds for nine minutes: the vendor is asked once a pause.

    The bound: pauses of 1, 2, 4, 8 and 16 seconds, then of 30: at most 6 calls in the first 31 seconds, and one in
    every 30 of the rest; here 6 + 509 // 30 = 22.
    """
    clock = ManualClock()
    cache, maker = steady(clock, renewing=True), Maker(clock)
    await cache.get(key(), maker)
    clock.advance(50 * MINUTE + timedelta(seconds=59))  # 55 minutes: callers begin to wait
    maker.made, maker.error = 1, Unreachable("no answer")
    results = set()

    async def call() -> None:
        results.add(await outcome(cache, maker))

    for _ in range(54):
        clock.advance(timedelta(seconds=10))
        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(call)
    assert results == {"t1"}
    assert 5 < maker.made - 1 <= 6 + 509 // 30
    maker.error = None
    clock.advance(timedelta(seconds=30))
    assert await outcome(cache, maker) == f"t{maker.made}" != "t1"


# -- credentials that the vendor refuses


@pytest.mark.anyio
async def test_however_many_say_that_theirs_were_refused_others_are_made_once():
    clock = ManualClock()
    cache, maker, got = steady(clock), Maker(clock), []
    first = await cache.get(key(), maker)

    async def refuse() -> None:
        got.append(token(await cache.get(key(), maker, unlike=first.lease)))

    async with anyio.create_task_group() as tasks:
        for _ in range(1000):
            tasks.start_soon(refuse)
    assert (maker.made, set(got)) == (2, {"t2"})
    await refuse()  # late: it was replaced long ago
    assert (maker.made, got[-1]) == (2, "t2")


@pytest.mark.anyio
async def test_refused_credentials_bridge_nothing():
    clock = ManualClock()
    cache, maker = steady(clock), Maker(clock)
    first = await cache.get(key(), maker)
    maker.error = Unreachable("no answer")
    with pytest.raises(Unreachable):
        await cache.get(key(), maker, unlike=first.lease)


@pytest.mark.anyio
async def test_processes_that_share_a_shelf_replace_refused_credentials_once():
    clock, shelf = ManualClock(), ShelfInMemory()
    maker, got = Maker(clock), []
    caches = [steady(clock, shelf) for _ in range(50)]
    leases = {(await cache.get(key(), maker)).lease for cache in caches}

    async def refuse(cache: Cache) -> None:
        got.append(token(await cache.get(key(), maker, unlike="t1")))

    async with anyio.create_task_group() as tasks:
        for cache in caches * 20:
            tasks.start_soon(refuse, cache)
    assert (leases, maker.made, set(got)) == ({"t1"}, 2, {"t2"})


@pytest.mark.anyio
async def test_refused_credentials_do_not_come_back_from_a_shelf_that_takes_nothing():
    """It was full when those in their place were made; what lies there ends sooner, but its window opens later."""
    clock, shelf, draws = ManualClock(), ShelfInMemory(), [0.0]
    cache, maker = steady(clock, shelf, jitter=lambda: draws[-1]), Maker(clock)
    await cache.get(key(), maker)
    shelf.full = True
    draws.append(1.0)
    clock.advance(MINUTE)
    await cache.get(key(), maker, unlike="t1")
    draws.append(0.0)
    clock.advance(43 * MINUTE)
    assert token(await cache.get(key(), maker)) == "t3"


# -- what is kept


@pytest.mark.anyio
async def test_never_more_entries_than_allowed_and_the_oldest_go():
    clock = ManualClock()
    cache = Cache(clock, max_entries=3)
    for number in range(5):
        await cache.get(key(number), Maker(clock))
    assert [number for number in range(5) if cache.peek(key(number))] == [2, 3, 4]


@pytest.mark.anyio
async def test_a_full_cache_is_searched_for_what_has_ended_now_and_then_only():
    clock, looked = ManualClock(), 0

    class Counted(ManualClock):
        def now(self):
            nonlocal looked
            looked += 1
            return clock.now()

    cache, counted = Cache(Counted(), max_entries=1600), 0
    for number in range(4800):
        await cache.get(key(number), Maker(clock))
        if number == 1599:
            counted = looked
    assert looked - counted < 30 * 3200, "and not 1600 times for each"
    assert 1500 <= len(cache._entries) <= 1600


@pytest.mark.anyio
async def test_what_has_ended_goes_before_what_is_good():
    clock = ManualClock()
    cache = Cache(clock, max_entries=3)
    await cache.get(key(0), Maker(clock))
    await cache.get(key(1), Maker(clock, 20 * MINUTE))
    await cache.get(key(2), Maker(clock, 20 * MINUTE))
    clock.advance(30 * MINUTE)
    await cache.get(key(3), Maker(clock))
    assert [number for number in range(4) if cache.peek(key(number))] == [0, 3]


@pytest.mark.anyio
async def test_what_was_replaced_does_not_pile_up_where_renewals_are_planned():
    clock = ManualClock()
    cache, maker = steady(clock, renewing=True, max_entries=10), Maker(clock)
    for number in range(5000):
        await cache.get(key(number % 20), maker, unlike=f"t{maker.made}")
        list(cache.due())
    assert len(cache._entries) <= 10
    assert len(cache._agenda._heap) <= 1021


@pytest.mark.anyio
async def test_forget_drops_one_connector():
    clock = ManualClock()
    cache = Cache(clock)
    for connector in ("c1", "c2"):
        for number in range(3):
            await cache.get(key(number, connector), Maker(clock))
    await cache.forget("c1")
    assert not any(cache.peek(key(number, "c1")) for number in range(3))
    assert all(cache.peek(key(number, "c2")) for number in range(3))


@pytest.mark.anyio
async def test_what_is_renewed_while_another_is_dropped_stays():
    clock, shelf = ManualClock(), ShelfInMemory()
    cache, maker = steady(clock, shelf), Maker(clock)
    for number in range(2):
        await cache.get(key(number), maker)
    clock.advance(2 * HOUR)
    asked = shelf.get

    async def get(of: Key) -> Issued | None:
        if of == key(0):
            shelf.get = asked
            await cache.get(key(1), maker)
        return await asked(of)

    shelf.get = get
    await cache.expire()
    assert len(cache) == 1
    assert token(await cache.get(key(1), maker)) == "t3"


@pytest.mark.anyio
async def test_a_shelf_is_looked_at_before_and_under_the_lock():
    clock = ManualClock()
    shelf = ShelfInMemory()
    maker = Maker(clock)
    one, other = Cache(clock, shelf), Cache(clock, shelf)
    assert token(await one.get(key(), maker)) == token(await other.get(key(), maker)) == "t1"
    assert (maker.made, shelf.locked) == (1, 1)
    clock.advance(50 * MINUTE)
    maker.error = Throttled("slow down")
    assert token(await other.get(key(), maker)) == "t1"  # stale, but valid, and what there is
    assert token(await steady(clock, shelf).get(key(), maker)) == "t1"  # so for a process that had nothing


@pytest.mark.anyio
async def test_what_was_taken_back_is_not_found_again_on_the_shelf():
    clock, shelf = ManualClock(), ShelfInMemory()
    maker = Maker(clock)
    one, other = steady(clock, shelf), steady(clock, shelf)
    await one.get(key(), maker)
    await other.withdraw(["t1"])  # by a process that never had it
    assert token(await other.get(key(), maker)) == "t2"
    await one.withdraw(["t1"])
    assert one.peek(key()) is None
    assert token(await one.get(key(), maker)) == "t2", "what lies there now is another's"
    await one.drop("t2")
    assert shelf.things == {}
    await other.drop("t2")
    assert token(await one.get(key(), maker)) == "t3"


@pytest.mark.anyio
async def test_what_an_older_mooring_laid_there_has_no_lease_and_is_not_taken():
    clock, shelf = ManualClock(), ShelfInMemory()
    shelf.things[key()] = structs.replace(issued(clock), lease="")
    assert token(await steady(clock, shelf).get(key(), Maker(clock))) == "t1"


@pytest.mark.anyio
async def test_a_caller_cancelled_while_the_shelf_is_written_costs_no_call_more():
    clock, shelf = ManualClock(), ShelfInMemory()
    cache, maker = steady(clock, shelf), Maker(clock)
    shelf.writing = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cache.get, key(), maker)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert token(await cache.get(key(), maker)) == "t1"
    assert maker.made == 1


@pytest.mark.anyio
async def test_what_is_not_shared_stays_in_memory():
    clock, shelf = ManualClock(), ShelfInMemory()
    maker = Maker(clock)
    one, other = Cache(clock, shelf), Cache(clock, shelf)
    assert token(await other.get(key(), maker)) == "t1"
    assert token(await one.get(key(), maker, share=False)) == "t2", "not taken from there"
    assert token(shelf.things[key()]) == "t1", "nor laid there"
    assert token(await one.get(key(), maker, share=False)) == "t2"
    assert shelf.locked == 1


@pytest.mark.anyio
async def test_what_is_forgotten_leaves_the_shelf_too_even_when_the_caller_is_cancelled():
    clock, shelf = ManualClock(), ShelfInMemory()
    cache = Cache(clock, shelf)
    for number in range(3):
        await cache.get(key(number), Maker(clock))
    await cache.get(key(0, "c2"), Maker(clock))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await cache.forget("c1")
    assert list(shelf.things) == [key(0, "c2")]


@pytest.mark.anyio
async def test_two_processes_make_once():
    clock = ManualClock()
    shelf, maker, got = ShelfInMemory(), Maker(clock), []

    async def call() -> None:
        got.append(token(await Cache(clock, shelf).get(key(), maker)))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(call)
    assert (maker.made, got) == (1, ["t1"] * 10)


@pytest.mark.anyio
async def test_what_is_long_lived_is_laid_on_no_shelf():
    clock = ManualClock()
    shelf = ShelfInMemory()
    await Cache(clock, shelf).get(key(), Maker(clock, None))
    assert shelf.things == {}


class ShelfInMemory:
    def __init__(self) -> None:
        self.things: dict[Key, Issued] = {}
        self.locks: dict[Key, anyio.Lock] = {}
        self.locked = 0
        self.full = False
        self.writing: anyio.Event | None = None

    async def get(self, key: Key) -> Issued | None:
        await anyio.lowlevel.checkpoint()
        return self.things.get(key)

    async def put(self, key: Key, issued: Issued) -> None:
        await anyio.lowlevel.checkpoint()
        if self.writing:
            await self.writing.wait()
        if not self.full:
            self.things[key] = issued

    async def drop(self, key: Key) -> None:
        await anyio.lowlevel.checkpoint()
        self.things.pop(key, None)

    async def forget(self, connector_id: str) -> None:
        await anyio.lowlevel.checkpoint()
        self.things = {key: one for key, one in self.things.items() if key.connector_id != connector_id}

    def lock(self, key: Key) -> anyio.Lock:
        self.locked += 1
        return self.locks.setdefault(key, anyio.Lock())


# -- threads


def test_peek_from_twenty_threads_while_entries_rotate():
    """No reader ever sees a mixture of two generations: connector, token and end belong together."""
    threads, reads = 20, 4000
    clock = ManualClock()
    cache = Cache(clock, max_entries=2)
    generations: dict[str, tuple[str, object]] = {}
    wrong: list[object] = []
    seen = threading.Semaphore(0)
    stop = threading.Event()

    async def rotate() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            one = issued(clock, HOUR + number * TICK, f"token{number}", name=f"name{number}")
            generations[f"name{number}"] = (f"token{number}", one.expires_at)
            cache._keep(key(number % 3), Entry(one, clock))
            await cache.forget("c2")

    def read() -> None:
        hits = 0
        for number in range(reads):
            one = cache.peek(key(number % 3))
            if one is not None:
                hits += 1
                if generations[one.connector] != (token(one), one.expires_at):
                    wrong.append(one)
        if hits:
            seen.release()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        writer = threading.Thread(target=anyio.run, args=(rotate,))
        writer.start()
        readers = [threading.Thread(target=read) for _ in range(threads)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        stop.set()
        writer.join()
    finally:
        sys.setswitchinterval(before)
    assert wrong == []
    assert seen.acquire(blocking=False)


# -- renewal in the background


async def due_after(cache: Cache, clock: ManualClock, span: timedelta) -> list[Due]:
    clock.advance(span)
    return list(cache.due())


@pytest.mark.anyio
async def test_what_is_in_use_is_due_when_its_window_opens_and_once():
    clock = ManualClock()
    cache, maker = steady(clock, renewing=True, jitter=lambda: 0.0), Maker(clock)
    await cache.get(key(), maker)
    cache.peek(key())
    assert await due_after(cache, clock, 45 * MINUTE - TICK) == []
    (due,) = await due_after(cache, clock, TICK)
    assert await due_after(cache, clock, MINUTE) == []
    await cache.renew(due, maker)
    assert token(cache.peek(key())) == "t2"
    assert len(await due_after(cache, clock, 45 * MINUTE)) == 1


@pytest.mark.anyio
async def test_what_nobody_uses_is_not_renewed_until_somebody_does():
    clock = ManualClock()
    cache, maker = steady(clock, renewing=True, jitter=lambda: 0.0), Maker(clock)
    await cache.get(key(), maker)
    assert await due_after(cache, clock, 50 * MINUTE) == []
    assert token(cache.peek(key())) == "t1"
    cache.peek(key())
    assert len(await due_after(cache, clock, timedelta(0))) == 1


@pytest.mark.anyio
async def test_what_could_not_be_renewed_is_due_again_after_the_pause():
    clock = ManualClock()
    cache, maker = steady(clock, renewing=True), Maker(clock)
    await cache.get(key(), maker)
    cache.peek(key())
    (due,) = await due_after(cache, clock, 45 * MINUTE)
    maker.error = Throttled("slow down", retry_after=timedelta(seconds=20))
    with pytest.raises(Throttled):
        await cache.renew(due, maker)
    cache.postpone(due)
    assert await due_after(cache, clock, timedelta(seconds=19)) == []
    assert await due_after(cache, clock, timedelta(seconds=1)) == [due]
    clock.advance(15 * MINUTE)
    cache.postpone(due)
    assert await due_after(cache, clock, HOUR) == [], "it has ended: who asks has others made"


@pytest.mark.anyio
@pytest.mark.parametrize("change", ["forget", "drop", "refuse"])
async def test_what_was_replaced_or_dropped_while_due_is_left_alone(change):
    clock = ManualClock()
    cache, maker = steady(clock, renewing=True), Maker(clock)
    await cache.get(key(), maker)
    cache.peek(key())
    (due,) = await due_after(cache, clock, 45 * MINUTE)
    if change == "forget":
        await cache.forget("c1")
    elif change == "drop":
        await cache.drop("t1")
    else:
        await cache.get(key(), maker, unlike="t1")
    made = maker.made
    await cache.renew(due, maker)
    cache.postpone(due)
    assert maker.made == made
    assert await due_after(cache, clock, timedelta(seconds=2)) == []


@pytest.mark.anyio
async def test_a_caller_and_the_renewal_ask_once():
    clock = ManualClock()
    cache, maker = steady(clock, renewing=True), Maker(clock)
    await cache.get(key(), maker)
    cache.peek(key())
    (due,) = await due_after(cache, clock, 56 * MINUTE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cache.renew, due, maker)
        tasks.start_soon(cache.get, key(), maker)
        tasks.start_soon(cache.renew, due, maker)
    assert maker.made == 2


@pytest.mark.anyio
async def test_of_processes_that_share_a_shelf_one_renews():
    clock, shelf = ManualClock(), ShelfInMemory()
    maker, caches = Maker(clock), [steady(clock, shelf, renewing=True) for _ in range(10)]
    for cache in caches:
        await cache.get(key(), maker)
        cache.peek(key())
    clock.advance(45 * MINUTE)
    async with anyio.create_task_group() as tasks:
        for cache in caches:
            (due,) = cache.due()
            tasks.start_soon(cache.renew, due, maker)
    assert {token(cache.peek(key())) for cache in caches} == {"t2"}
    assert maker.made == 2


# -- property


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["get", "fail", "advance", "forget"]), st.integers(0, 4), st.integers(1, 70)),
        max_size=40,
    )
)
def test_the_cache_against_a_model(steps):
    """A plain dict of what was made last, and the rule of the windows, foretell what is served and what is made."""
    clock = ManualClock()
    cache, model, paused = Cache(clock, max_entries=100, jitter=lambda: 0.0), {}, {}

    async def run() -> None:
        for made, (step, number, minutes) in enumerate(steps):
            here, life = key(number), minutes * MINUTE
            old = model.get(here)
            fresh = old is not None and clock.now() < max(
                old.issued_at + (old.expires_at - old.issued_at) * 2 / 3, old.expires_at - 15 * MINUTE
            )
            if step == "advance":
                clock.advance(life)
            elif step == "forget":
                await cache.forget("c1")
                model.clear()
            else:
                maker = Maker(clock, min(life, HOUR))
                maker.made = made * 10
                maker.error = Throttled("slow down") if step == "fail" else None
                valid = old is not None and clock.now() < old.expires_at
                failing = step == "fail" or paused.get(here) == clock.now()  # who asks as it fails shares that
                if fresh or (failing and valid):
                    assert await cache.get(here, maker) is old
                elif failing:
                    with pytest.raises(Throttled):
                        await cache.get(here, maker)
                else:
                    model[here] = await cache.get(here, maker)
                    assert token(model[here]) == f"t{made * 10 + 1}"
                if failing and not fresh:
                    paused[here] = clock.now()

    anyio.run(run)
