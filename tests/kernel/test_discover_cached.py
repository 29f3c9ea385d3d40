"""What was found before: answered at once, refreshed beside, asked once for all who ask, and compared with what is."""

import gc
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from trio.testing import MockClock

import mooring as m
from mooring.broker import Failed, Finished, Found
from mooring.errors import AccessDenied, AuthFailed, InvalidConfig, StoreUnavailable, Throttled
from mooring.events import (
    DiscoveryFailed,
    DiscoveryFinished,
    DiscoveryStarted,
    MoreChanged,
    ResourceFound,
    ResourceGone,
    UnitDiscovered,
)
from mooring.store import MemoryStore, Store, open_sqlite
from mooring.testing import Fake, ManualClock, VirtualClock, memory_broker
from mooring.types import Secret

pytestmark = pytest.mark.anyio
VIRTUAL = pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("trio", {"clock": MockClock(autojump_threshold=0)}), id="virtual")]
)
START, MINUTE = datetime(2026, 1, 1, tzinfo=UTC), timedelta(minutes=1)
BUCKETS = {"resource_type": "bucket"}


class Regional(Fake):
    """Two regions that name the same."""

    regions: dict[str, str] = dict.fromkeys(("north", "south"), "*")

    @m.hookimpl
    async def units(self, session, resource_type):
        self.calls["units"] += 1
        return tuple(m.Unit(name=name, ids=ids) for name, ids in self.regions.items())


async def register(broker: m.Broker, name: str = "mine", **more) -> m.types.Connector:
    return await broker.register(name, **{"type": "fake", "auth_method": "key", "verify": False, **more})


async def discovered(broker: m.Broker, **filters) -> list:
    async with broker.discover(**filters) as replies:
        return [one async for one in replies]


def ids(replies) -> list[str]:
    return sorted(one.resource.id for one in replies if isinstance(one, Found))


def ages(replies) -> set[tuple[type, object]]:
    return {(type(one), one.at and (one.at - START) / MINUTE) for one in replies}


async def logged(broker: m.Broker, *kinds: type) -> list[tuple]:
    await broker._desk.books.flush()
    names = [kind.__name__ for kind in kinds]
    events = await broker.logged(after=0, most=10_000)
    return [
        (one.event, *(one.body.get(name) for name in ("resource_id", "found", "gone")))
        for one in events
        if one.event in names
    ]


# -- answers


async def test_what_was_found_before_is_answered_without_a_session():
    fake, clock = Regional(), ManualClock()
    async with memory_broker(fake, clock=clock) as broker:
        await register(broker)
        live = await discovered(broker)
        asked = Counter(fake.calls)
        clock.advance(9 * MINUTE)
        cached = await discovered(broker, cached=True)
        await anyio.wait_all_tasks_blocked()
    assert fake.calls == asked
    assert ids(cached) == ids(live) == ["a", "a", "account", "account", "b", "b", "x", "x"]
    assert ages(live) == {(Found, None), (Finished, None)}
    assert ages(cached) == {(Found, 0), (Finished, 0)}
    units = [
        sorted((one.resource_type, one.unit, one.count) for one in replies if isinstance(one, Finished))
        for replies in (live, cached)
    ]
    assert units[0] == units[1]
    assert len(units[0]) == 6


async def test_what_was_never_looked_at_is_asked():
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker, "one")
        await discovered(broker, **BUCKETS)
        await register(broker, "two")
        replies = await discovered(broker, cached=True)
        assert [one.resource_type for one in fake.requests if isinstance(one, m.DiscoverRequest)].count("bucket") == 2
        fake.requests.clear()
        assert ids(await discovered(broker, cached=True)) == ids(replies)
        assert not fake.requests
    old = [(one.connector.name, one.resource.id) for one in replies if isinstance(one, Found) and one.at]
    assert sorted(old) == [("one", "a"), ("one", "b")]
    assert ids(replies) == ["a", "a", "account", "account", "b", "b", "x", "x"]


async def test_a_unit_of_which_the_first_look_was_cut_short_is_asked_and_the_others_are_not():
    async def linger(request):
        if request.unit.name == "south" and fake.slow:
            await anyio.sleep_forever()

    fake = Regional()
    fake.slow, fake.on["discover"] = True, linger
    async with memory_broker(fake) as broker:
        await register(broker, **BUCKETS)
        async with broker.discover() as replies:
            async for one in replies:
                if isinstance(one, Finished):
                    break
        fake.slow = False
        fake.requests.clear()
        replies = await discovered(broker, cached=True)
    assert {(one.unit, one.at is None) for one in replies if isinstance(one, Finished)} == {
        ("north", False),
        ("south", True),
    }
    assert [one.unit.name for one in fake.requests if isinstance(one, m.DiscoverRequest)] == ["south"]


async def test_what_a_pattern_rules_out_is_not_told_of_either():
    """Neither that nothing is there, nor that it could not be asked: live it would not be asked."""

    async def refuse(request):
        if request.unit.name == "south":
            raise AccessDenied("no")

    fake = Regional()
    fake.regions, fake.on["discover"] = {"north": "a*", "south": "x*"}, refuse
    async with memory_broker(fake) as broker:
        await register(broker, **BUCKETS)
        assert len([one for one in await discovered(broker) if isinstance(one, Failed)]) == 1
        for match in ("a*", ["a*"]):
            for cached in (False, True):
                replies = await discovered(broker, match=match, cached=cached)
                assert ids(replies) == ["a"]
                assert [one.unit for one in replies if not isinstance(one, Found)] == ["north"]
        (failure,) = await discovered(broker, match="x*", cached=True)
        assert isinstance(failure, Failed)


async def test_one_alone_is_no_list_of_letters():
    async with memory_broker(Fake()) as broker:
        await register(broker, "one")
        await register(broker, "two")
        assert {one.connector.name for one in await discovered(broker, connectors="one")} == {"one"}
        assert ids(await discovered(broker, connectors=await broker.get("one"), match="a")) == ["a"]


@pytest.mark.parametrize("match", ["[", "", [""], [3], "a" * 1001])
async def test_a_pattern_that_nothing_can_match_is_refused(match):
    async with memory_broker(Fake()) as broker:
        with pytest.raises(InvalidConfig):
            await discovered(broker, match=match)


@pytest.mark.parametrize(
    ("scope", "filters"),
    [
        ({}, {"resource_id": "b", **BUCKETS}),
        ({}, {"resource_id": "fake://b/logs/", **BUCKETS}),
        ({}, {"resource_id": "c", **BUCKETS}),
        ({}, {"resource_id": "a"}),
        ({}, {"match": ["b*"]}),
        ({}, {"match": ["b*", "x"], "resource_type": "cluster"}),
        ({"resource_type": "bucket", "resource_id": "a"}, {}),
        ({"resource_type": "bucket", "resource_id": "a"}, {"resource_id": "a/logs"}),
        ({"resource_type": "bucket", "resource_id": "a"}, {"match": ["a/*"]}),
        ({"resource_type": "bucket", "resource_id": "b/data"}, {}),
        ({"resource_type": "bucket", "resource_id": "b/data"}, {"resource_id": "b"}),
        ({"resource_type": "bucket", "resource_id": "b/data"}, {"resource_id": "b/data/x"}),
    ],
)  # fmt: skip
async def test_a_wide_look_answers_a_narrower_question_as_the_vendor_would(scope, filters):
    fake = Fake(resources={"bucket": ("a", "b", "a/logs", "ab"), "cluster": ("x", "b"), "generic": ("account",)})
    async with memory_broker(fake) as broker:
        await register(broker, **scope)
        live = await discovered(broker, **filters)
        await discovered(broker)
        asked = Counter(fake.calls)
        cached = await discovered(broker, cached=True, **filters)
        assert fake.calls == asked
    assert ids(cached) == ids(live)
    counts = [
        {one.resource_type: one.count for one in replies if isinstance(one, Finished)} for replies in (live, cached)
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("filters", [{"match": ["a*"]}, {"resource_id": "a"}])
async def test_a_narrow_look_does_not_pass_for_a_whole_one(filters):
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker, **BUCKETS)
        await discovered(broker)
        fake.resources["bucket"] = ("a", "c")
        assert ids(await discovered(broker, **filters)) == ["a"]
        assert ids(await discovered(broker, cached=True)) == ["a", "b"]


@pytest.mark.parametrize("change", [{"description": "new"}, {"config": {"place": "there"}}])
async def test_a_changed_connector_is_asked_again(change):
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker, **BUCKETS)
        await discovered(broker)
        await broker.update("mine", verify=False, **change)
        fake.resources["bucket"] = ("c",)
        assert ids(await discovered(broker, cached=True)) == ["c"]


# -- failures


async def test_a_failure_is_answered_beside_what_was_found_before():
    async def refuse(request):
        if request.resource_type == "bucket" and fake.angry:
            raise Throttled(f"slow down, {key}")

    key = "c4n4ry-key"
    fake, clock, store = Fake(), ManualClock(), MemoryStore()
    fake.angry, fake.on["discover"] = False, refuse
    async with memory_broker(fake, clock=clock, store=store) as broker:
        mine = await register(broker, config={"key": Secret(key)})
        await discovered(broker, **BUCKETS)
        fake.angry = True
        clock.advance(MINUTE)
        await discovered(broker, **BUCKETS)
        clock.advance(MINUTE)
        replies = await discovered(broker, cached=True, **BUCKETS)
        (failure,) = [one for one in replies if isinstance(one, Failed)]
        assert key not in repr(await store.findings.looks(mine))
        fake.angry = False
        await discovered(broker, **BUCKETS)
        assert ages(await discovered(broker, cached=True, **BUCKETS)) == {(Found, 2), (Finished, 2)}
    assert ages(replies) == {(Found, 0), (Finished, 0), (Failed, 1)}
    assert (type(failure.error), failure.resource_type, failure.unit) == (Throttled, "bucket", "")
    assert failure.error.message.startswith("slow down, ")
    assert failure.error.where == {"verb": "discover", "connector": "mine", "type": "fake"}


async def test_a_connector_that_could_not_be_asked_at_all():
    async def authenticate(context):
        if fake.angry:
            raise AuthFailed("no such key")

    fake, clock = Fake(), ManualClock()
    fake.angry, fake.on["authenticate"] = True, authenticate
    async with memory_broker(fake, clock=clock) as broker:
        await register(broker)
        await discovered(broker)
        for _ in range(2):
            replies = await discovered(broker, cached=True)
            assert [(one.error.message, one.resource_type, one.at) for one in replies] == [("no such key", None, START)]
        assert fake.calls["authenticate"] == 1
        fake.angry = False
        clock.advance(MINUTE)
        await discovered(broker, **BUCKETS)
        replies = await discovered(broker, cached=True)
        assert ids(replies) == ["a", "account", "b", "x"]
        fake.angry = True
        clock.advance(MINUTE)
        await discovered(broker)
        assert ages(await discovered(broker, cached=True)) == {(Failed, 2), (Found, 1), (Finished, 1)}


async def test_what_is_wrong_here_is_not_recorded():
    fake, clock = Fake(), ManualClock()
    async with memory_broker(fake, clock=clock) as broker:
        mine = await register(broker, expires_at=START + MINUTE)
        clock.advance(2 * MINUTE)
        for _ in range(2):
            assert ages(await discovered(broker, cached=True)) == {(Failed, None)}
        assert await broker._desk.store.findings.looks(mine) == []


async def test_a_unit_that_took_too_long_is_a_failure(monkeypatch):
    from mooring.broker import Budgets

    async def hang(request):
        await anyio.sleep_forever()

    fake = Fake()
    fake.on["discover"] = hang
    budgets = Budgets(discover=timedelta(milliseconds=20))
    async with memory_broker(fake, budgets=budgets) as broker:
        await register(broker, **BUCKETS)
        await discovered(broker)
        (failure,) = await discovered(broker, cached=True)
    assert (type(failure.error).__name__, failure.unit, failure.at is None) == ("Overdue", "", False)


class Away:
    """Findings that cannot be had, or not be written."""

    def __init__(self, inner, *broken: str) -> None:
        self._inner, self._broken = inner, broken

    def __getattr__(self, name):
        async def away(*args, **kwargs):
            raise StoreUnavailable("gone fishing")

        return away if name in self._broken else getattr(self._inner, name)


@pytest.mark.parametrize(
    "broken",
    [("expect",), ("add", "finish", "fail"), ("looks",), ("expect", "add", "finish", "fail", "looks", "found")],
)
async def test_a_store_that_does_not_do_its_part_stops_no_discovery(broken, monkeypatch):
    fake, store = Fake(resources={"bucket": tuple(f"{n:04}" for n in range(1200))}), MemoryStore()
    monkeypatch.setattr(store, "_findings", Away(store.findings, *broken))
    async with memory_broker(fake, store=store) as broker:
        await register(broker, **BUCKETS)
        for cached in (False, True, True):
            assert len(ids(await discovered(broker, cached=cached))) == 1200
    assert fake.calls["discover"] == 3


async def test_what_is_no_text_is_given_and_not_recorded():
    bad = "\udcff"

    async def answer(request):
        return [m.Resource(type="bucket", id="a"), m.Resource(type="bucket", id="b", attributes={"x": bad})]

    fake = Fake()
    fake.on["discover"] = answer
    async with memory_broker(fake) as broker:
        await register(broker, **BUCKETS)
        for _ in range(2):
            assert ages(await discovered(broker, cached=True)) == {(Found, None), (Finished, None)}


# -- age


@VIRTUAL
async def test_what_is_stale_is_answered_and_asked_again_beside_once():
    async def slow(request):
        await anyio.sleep(5)

    fake = Regional()
    fake.on["discover"] = slow
    async with memory_broker(fake, clock=VirtualClock()) as broker:
        await register(broker, **BUCKETS)
        await discovered(broker)
        await anyio.sleep(11 * 60)
        fake.resources["bucket"] = ("a", "c")
        async with broker.subscribe(UnitDiscovered, DiscoveryStarted) as events:
            began = anyio.current_time()
            for _ in range(5):
                assert ids(await discovered(broker, cached=True)) == ["a", "a", "b", "b"]
            assert anyio.current_time() == began
            seen = [await anext(events) for _ in range(2)]
            assert anyio.current_time() == began + 5
        await anyio.sleep(1)
        assert {(type(one), one.resources) for one in seen} == {(UnitDiscovered, 2)}
        assert ids(await discovered(broker, cached=True)) == ["a", "a", "c", "c"]
        assert (fake.calls["authenticate"], fake.calls["discover"]) == (2, 4)
        assert not broker._desk.refreshing


@VIRTUAL
async def test_only_the_units_that_are_stale_are_asked_again():
    fake = Fake()
    async with memory_broker(fake, clock=VirtualClock()) as broker:
        await register(broker)
        await discovered(broker)
        await anyio.sleep(6 * 60)
        await discovered(broker, resource_type="cluster")
        await anyio.sleep(6 * 60)
        fake.requests.clear()
        await discovered(broker, cached=True)
        await anyio.sleep(1)
    asked = sorted(one.resource_type for one in fake.requests if isinstance(one, m.DiscoverRequest))
    assert asked == ["bucket", "generic"]


@VIRTUAL
async def test_two_brokers_do_not_ask_again_one_after_the_other():
    fake, store, clock = Fake(), MemoryStore(), VirtualClock()
    async with memory_broker(fake, store=store, clock=clock) as one:
        options = {"vault": one._desk.vault, "store": store, "clock": clock}
        async with memory_broker(fake, **options) as other:
            await register(one, **BUCKETS)
            await discovered(one)
            await anyio.sleep(11 * 60)
            await discovered(one, cached=True)
            async with other.discover(cached=True) as replies:
                await anext(replies)  # it has seen that it is stale
                await anyio.sleep(1)
                [_ async for _ in replies]
            await anyio.sleep(1)
    assert fake.calls["discover"] == 2


@VIRTUAL
@pytest.mark.parametrize("hook", ["authenticate", "discover"])
async def test_a_refresh_that_fails_is_told_of_and_tried_again_when_that_is_long_ago(hook):
    async def fail(request):
        if fake.angry:
            raise AccessDenied("no")

    fake = Fake()
    fake.angry, fake.on[hook] = False, fail
    async with memory_broker(fake, clock=VirtualClock()) as broker:
        await register(broker, **BUCKETS)
        await discovered(broker)
        fake.angry = True
        await anyio.sleep(11 * 60)
        async with broker.subscribe() as events:
            await discovered(broker, cached=True)
            event = await anext(events)
            assert (type(event), event.error, event.discovery) == (DiscoveryFailed, "AccessDenied", "")
        for _ in range(3):
            await anyio.sleep(60)
            assert ages(await discovered(broker, cached=True)) == {(Found, 0), (Finished, 0), (Failed, 11)}
        assert fake.calls[hook] == 2
        fake.angry = False
        await anyio.sleep(10 * 60)
        await discovered(broker, cached=True)
        await anyio.sleep(1)
        assert ages(await discovered(broker, cached=True)) == {(Found, 24), (Finished, 24)}


@VIRTUAL
async def test_a_broker_that_closes_ends_what_it_refreshes(count_tasks):
    async def hang(request):
        if fake.calls["discover"] > 1:
            await anyio.sleep_forever()

    fake, store, clock, before = Fake(), MemoryStore(), VirtualClock(), count_tasks()
    fake.on["discover"] = hang
    async with memory_broker(fake, store=store, clock=clock) as broker:
        mine = await register(broker, **BUCKETS)
        await discovered(broker)
        await anyio.sleep(11 * 60)
        await discovered(broker, cached=True)
        await anyio.sleep(1)
        assert fake.opened == fake.closed + 1
    assert (fake.opened - fake.closed, count_tasks()) == (0, before)
    (look,) = await store.findings.looks(mine)
    assert (look.at, look.failed_at) == (START, None)


# -- one run for all who ask


@VIRTUAL
async def test_all_who_ask_at_once_share_one_run():
    async def slow(request):
        await anyio.sleep(5)

    fake, got = Regional(), []
    fake.on["discover"] = slow

    async def ask(number: int) -> None:
        await anyio.sleep(number)
        got.append(await discovered(broker, **(BUCKETS if number % 2 else {})))

    async with memory_broker(fake, clock=VirtualClock()) as broker:
        await register(broker)
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(ask, number)
        assert anyio.current_time() > 0
        assert broker._desk.runs == {}
    assert sorted(map(ids, got)) == sorted(
        [["a", "a", "account", "account", "b", "b", "x", "x"]] * 3 + [["a", "a", "b", "b"]] * 2
    )
    assert all(ages(replies) == {(Found, None), (Finished, None)} for replies in got)
    assert fake.calls["discover"] == 6
    assert fake.opened == fake.closed == 5


@VIRTUAL
async def test_a_failure_is_shared_too():
    async def fail(request):
        await anyio.sleep(5)
        raise Throttled("slow down")

    fake, got = Fake(), []
    fake.on["discover"] = fail

    async def ask() -> None:
        got.extend(await discovered(broker))

    async with memory_broker(fake, clock=VirtualClock()) as broker:
        await register(broker, **BUCKETS)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
    assert [(type(one.error), one.error.message) for one in got] == [(Throttled, "slow down")] * 3
    assert len({id(one.error) for one in got}) == 3
    assert fake.calls["discover"] == 1


@VIRTUAL
async def test_one_that_takes_too_long_is_not_waited_for_by_each_in_turn():
    async def hang(request):
        await anyio.sleep_forever()

    fake, got = Fake(), []
    fake.on["discover"] = hang

    async def ask() -> None:
        got.extend(await discovered(broker))

    async with memory_broker(fake, clock=VirtualClock()) as broker:
        await register(broker, **BUCKETS)
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
        assert anyio.current_time() - began == pytest.approx(30)
    assert [type(one.error).__name__ for one in got] == ["Overdue"] * 5


@VIRTUAL
async def test_if_the_first_is_cancelled_the_next_takes_over():
    async def slow(request):
        await anyio.sleep(5)

    fake, got = Fake(), []
    fake.on["discover"] = slow

    async def ask() -> None:
        await anyio.sleep(1)
        got.append(ids(await discovered(broker)))

    async with memory_broker(fake, clock=VirtualClock()) as broker:
        await register(broker, **BUCKETS)
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
            with anyio.move_on_after(3):
                await discovered(broker)
        assert anyio.current_time() - began == pytest.approx(8)
    assert got == [["a", "b"]] * 3
    assert fake.calls["discover"] == 2


@VIRTUAL
async def test_a_reader_that_stops_reading_holds_up_nobody_for_ever():
    fake = Fake(resources={"bucket": tuple(f"{n:05}" for n in range(5000))})
    async with memory_broker(fake, clock=VirtualClock()) as broker:
        await register(broker, **BUCKETS)
        async with broker.discover() as stuck:
            await anext(stuck)
            began = anyio.current_time()
            assert len(ids(await discovered(broker))) == 5000
            assert anyio.current_time() - began == pytest.approx(31)
            assert len([_ async for _ in stuck]) == 5000
        assert len(ids(await discovered(broker, cached=True))) == 5000
    assert fake.calls["discover"] == 2


# -- events


async def test_only_what_has_changed_is_news():
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker, **BUCKETS)
        async with broker.subscribe(ResourceFound, ResourceGone) as events:
            await discovered(broker)
            assert [(await anext(events)).resource_id for _ in range(2)] == ["a", "b"]
            assert await logged(broker, ResourceFound) == []
            fake.resources["bucket"] = ("b", "c")
            await discovered(broker)
            await discovered(broker)
            await discovered(broker, match=["*"])
            seen = [await anext(events) for _ in range(2)]
            assert events.receive.statistics().current_buffer_used == 0
        assert [(type(one), one.resource_id, one.connector) for one in seen] == [
            (ResourceFound, "c", "mine"),
            (ResourceGone, "a", "mine"),
        ]
        assert await logged(broker, ResourceFound, ResourceGone) == [
            ("ResourceFound", "c", None, None),
            ("ResourceGone", "a", None, None),
        ]


async def test_the_first_answer_after_a_failure_is_compared_with_the_last_whole_look():
    async def stumble(request):
        if fake.angry:
            raise Throttled("slow down")

    fake = Fake()
    fake.angry, fake.on["discover"] = False, stumble
    async with memory_broker(fake) as broker:
        await register(broker, **BUCKETS)
        await discovered(broker)
        fake.angry = True
        await discovered(broker)
        fake.angry, fake.resources["bucket"] = False, ("a", "c")
        await discovered(broker)
        assert await logged(broker, ResourceFound, ResourceGone) == [
            ("ResourceFound", "c", None, None),
            ("ResourceGone", "b", None, None),
        ]


async def test_of_many_changes_the_first_are_told_one_by_one():
    fake = Fake(resources={"bucket": tuple(f"old-{n:04}" for n in range(700))})
    async with memory_broker(fake) as broker:
        await register(broker, **BUCKETS)
        await discovered(broker)
        fake.resources["bucket"] = tuple(f"new-{n:04}" for n in range(1300))
        await discovered(broker)
        events = await logged(broker, ResourceFound, ResourceGone, MoreChanged)
        assert (len(events), events[-1]) == (1001, ("MoreChanged", None, 300, 700))
        fake.resources["bucket"] = tuple(f"new-{n:04}" for n in range(10, 1310))
        await discovered(broker)
        assert len(await logged(broker, ResourceFound, ResourceGone, MoreChanged)) == 1021


async def test_an_answer_from_before_is_no_event():
    async with memory_broker(Fake()) as broker:
        await register(broker)
        await discovered(broker)
        async with broker.subscribe() as events:
            await discovered(broker, cached=True)
            assert events.receive.statistics().current_buffer_used == 0
            await discovered(broker)
            assert type(await anext(events)) is DiscoveryStarted
        assert len(await logged(broker, DiscoveryStarted)) == len(await logged(broker, DiscoveryFinished)) == 2


# -- how much


class Vast(Fake):
    """A unit with as many resources as there may be, made one by one."""

    many = 100_000

    @m.hookimpl
    async def discover(self, session, request) -> AsyncGenerator[m.Resource, None]:
        for number in range(self.many):
            yield m.Resource(type="bucket", id=f"bucket-{number:06}", attributes={"owner": f"team-{number}"})


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hundred_thousand_resources_are_in_memory_not_even_once(tmp_path: Path):
    """Neither while they are found, written and compared with those before, nor while they are read again."""
    async with open_sqlite(tmp_path / "mooring.db") as store, memory_broker(Vast(), store=store) as broker:
        await register(broker, **BUCKETS)
        await discovered(broker)
        tracemalloc.start()
        try:
            copies = [m.Resource(type="bucket", id=f"{n}", attributes={"owner": f"{n}"}) for n in range(1000)]
            size = tracemalloc.get_traced_memory()[0] / len(copies) * Vast.many
            del copies
            for cached in (False, True):
                gc.collect()
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                count = 0
                async with broker.discover(cached=cached) as replies:
                    async for found in replies:
                        count += isinstance(found, Found)
                assert count == Vast.many
                assert tracemalloc.get_traced_memory()[1] - before < size / 10
        finally:
            tracemalloc.stop()


# -- with a file


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store, None]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        async with open_sqlite(tmp_path / "mooring.db") as store:
            yield store


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_it_outlives_the_broker(store: Store):
    fake = Regional()
    async with memory_broker(fake, store=store) as broker:
        await register(broker, resource_id=None)
        vault = broker._desk.vault
        live = await discovered(broker)
    fake.calls.clear()
    async with memory_broker(fake, store=store, vault=vault) as broker:
        cached = await discovered(broker, cached=True)
        assert ids(cached) == ids(live)
        await broker.delete("mine")
        assert await discovered(broker, cached=True) == []
    assert not fake.calls
