"""The cache: freshness to the second, one maker for many callers, and what happens when making fails."""

import sys
import threading
from datetime import timedelta

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.cache import Cache, Key, is_fresh, is_valid
from mooring.credentials import BearerToken, Issued
from mooring.errors import AccessDenied, Overdue, Throttled
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
    )


class Maker:
    def __init__(self, clock: ManualClock, life: timedelta | None = HOUR) -> None:
        self.clock, self.life = clock, life
        self.made = 0
        self.error: Exception | None = None

    async def __call__(self) -> Issued:
        self.made += 1
        await anyio.lowlevel.checkpoint()
        if self.error:
            raise self.error
        return issued(self.clock, self.life, f"t{self.made}")


def token(one: Issued) -> str:
    return one.credentials.token.reveal()


# -- freshness


@pytest.mark.parametrize(
    ("life", "fresh_for"),
    [
        (15 * MINUTE, 10 * MINUTE),
        (30 * MINUTE, 20 * MINUTE),
        (45 * MINUTE, 30 * MINUTE),  # where both windows meet
        (60 * MINUTE, 45 * MINUTE),
        (12 * HOUR, 12 * HOUR - 15 * MINUTE),
        (None, 15 * MINUTE),
    ],
)
def test_fresh_until_exactly(life, fresh_for):
    clock = ManualClock()
    one, began = issued(clock, life), clock.now()
    assert is_fresh(one, began)
    assert is_fresh(one, began + fresh_for - TICK)
    assert not is_fresh(one, began + fresh_for)


def test_valid_until_exactly():
    clock = ManualClock()
    one, began = issued(clock), clock.now()
    assert is_valid(one, began + HOUR - TICK)
    assert not is_valid(one, began + HOUR)
    assert is_valid(issued(clock, None), began + 1000 * HOUR)


@given(seconds=st.integers(1, 10**6), part=st.floats(0, 2))
def test_what_is_fresh_is_valid_and_freshness_ends_once(seconds, part):
    clock = ManualClock()
    one = issued(clock, timedelta(seconds=seconds))
    now = clock.now() + part * timedelta(seconds=seconds)
    if is_fresh(one, now):
        assert is_valid(one, now)
    else:
        assert not is_fresh(one, now + TICK)
        assert part >= 2 / 3 - 1e-6


def test_peek_is_fresh_or_nothing():
    clock = ManualClock()
    cache = Cache(clock)
    assert cache.peek(key()) is None
    anyio.run(cache.get, key(), Maker(clock))
    assert token(cache.peek(key())) == "t1"
    clock.advance(45 * MINUTE)
    assert cache.peek(key()) is None


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


@pytest.mark.anyio
async def test_a_failure_is_not_kept():
    clock = ManualClock()
    cache, maker = Cache(clock), Maker(clock)
    maker.error = Throttled("slow down")
    with pytest.raises(Throttled):
        await cache.get(key(), maker)
    maker.error = None
    assert token(await cache.get(key(), maker)) == "t2"


@pytest.mark.anyio
async def test_waiting_callers_try_again_after_a_failure():
    clock = ManualClock()
    cache, results = Cache(clock), []
    made = 0

    async def make() -> Issued:
        nonlocal made
        made += 1
        await anyio.sleep(0.001)
        if made == 1:
            raise AccessDenied("no")
        return issued(clock)

    async def call() -> None:
        try:
            results.append(token(await cache.get(key(), make)))
        except AccessDenied:
            results.append("no")

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(call)
    assert made == 2
    assert sorted(results) == ["no"] + ["t"] * 9


@pytest.mark.anyio
async def test_older_credentials_that_are_still_valid_bridge_a_failure_that_may_pass():
    clock = ManualClock()
    cache, maker = Cache(clock), Maker(clock)
    await cache.get(key(), maker)
    clock.advance(50 * MINUTE)
    maker.error = Overdue("no answer")
    assert token(await cache.get(key(), maker)) == "t1"
    assert maker.made == 2
    clock.advance(10 * MINUTE)
    with pytest.raises(Overdue):
        await cache.get(key(), maker)


@pytest.mark.anyio
@pytest.mark.parametrize("error", [AccessDenied("no"), ValueError("foreign")])
async def test_a_failure_that_does_not_pass_is_raised_whatever_is_at_hand(error):
    clock = ManualClock()
    cache, maker = Cache(clock), Maker(clock)
    await cache.get(key(), maker)
    clock.advance(50 * MINUTE)
    maker.error = error
    with pytest.raises(type(error)):
        await cache.get(key(), maker)


# -- what is kept


@pytest.mark.anyio
async def test_never_more_entries_than_allowed_and_the_oldest_go():
    clock = ManualClock()
    cache = Cache(clock, max_entries=3)
    for number in range(5):
        await cache.get(key(number), Maker(clock))
    assert [number for number in range(5) if cache.peek(key(number))] == [2, 3, 4]


@pytest.mark.anyio
async def test_what_has_ended_goes_before_what_is_good():
    clock = ManualClock()
    cache = Cache(clock, max_entries=3)
    await cache.get(key(0), Maker(clock, 12 * HOUR))
    await cache.get(key(1), Maker(clock))
    await cache.get(key(2), Maker(clock))
    clock.advance(2 * HOUR)
    await cache.get(key(3), Maker(clock))
    assert [number for number in range(4) if cache.peek(key(number))] == [0, 3]


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

    async def get(self, key: Key) -> Issued | None:
        await anyio.lowlevel.checkpoint()
        return self.things.get(key)

    async def put(self, key: Key, issued: Issued) -> None:
        await anyio.lowlevel.checkpoint()
        self.things[key] = issued

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
            cache._keep(key(number % 3), one)
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


# -- property


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["get", "fail", "advance", "forget"]), st.integers(0, 4), st.integers(1, 70)),
        max_size=40,
    )
)
def test_the_cache_against_a_model(steps):
    """A plain dict of what was made last, and the rule of freshness, foretell what is served and what is made."""
    clock = ManualClock()
    cache, model = Cache(clock, max_entries=100), {}

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
                maker = Maker(clock, life)
                maker.made = made * 10
                maker.error = Throttled("slow down") if step == "fail" else None
                valid = old is not None and clock.now() < old.expires_at
                if fresh or (step == "fail" and valid):
                    assert await cache.get(here, maker) is old
                elif step == "fail":
                    with pytest.raises(Throttled):
                        await cache.get(here, maker)
                else:
                    model[here] = await cache.get(here, maker)
                    assert token(model[here]) == f"t{made * 10 + 1}"

    anyio.run(run)
