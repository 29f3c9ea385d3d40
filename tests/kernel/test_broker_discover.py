"""Discovery: everybody is asked at once, what cannot be asked stands beside what was found, and nothing stays open."""

import math
import traceback
from datetime import timedelta

import anyio
import pytest
from trio.testing import MockClock

import mooring as m
from mooring.broker import Budgets, Failed, Finished, Found
from mooring.errors import AuthFailed, BrokenPlugin, Overdue, Throttled, UnknownConnector
from mooring.events import DiscoveryFailed, DiscoveryFinished, DiscoveryStarted, ResourceFound, UnitDiscovered
from mooring.store import MemoryStore
from mooring.testing import Fake, VirtualClock, example, memory_broker, powered

pytestmark = pytest.mark.anyio
VIRTUAL = pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("trio", {"clock": MockClock(autojump_threshold=0)}), id="virtual")]
)
CANARY = "c4n4ry"


class Regional(Fake):
    """Two regions, each of which may be told to fail or hang."""

    regions = ("north", "south")

    @m.hookimpl
    async def units(self, session, resource_type):
        self.calls["units"] += 1
        return tuple(m.Unit(name=name) for name in self.regions)


async def register(broker: m.Broker, name: str = "mine", **more) -> m.types.Connector:
    return await broker.register(name, **{"type": "fake", "auth_method": "key", "verify": False, **more})


async def discovered(broker: m.Broker, **filters) -> list:
    async with broker.discover(**filters) as replies:
        return [one async for one in replies]


def found(replies) -> list[tuple[str, str, str]]:
    return sorted((one.connector.name, one.resource.type, one.resource.id) for one in replies if isinstance(one, Found))


def failed(replies) -> list[tuple[str, str | None, str, str]]:
    return sorted(
        (one.connector.name, one.resource_type, one.unit, type(one.error).__name__)
        for one in replies
        if isinstance(one, Failed)
    )


# -- what is found


async def test_everything_that_a_connector_reaches():
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker)
        replies = await discovered(broker)
    assert found(replies) == [
        ("mine", "bucket", "a"),
        ("mine", "bucket", "b"),
        ("mine", "cluster", "x"),
        ("mine", "generic", "account"),
    ]
    counts = {one.resource_type: one.count for one in replies if isinstance(one, Finished)}
    assert counts == {"bucket": 2, "cluster": 1, "generic": 1}
    assert (fake.calls["authenticate"], fake.opened, fake.closed) == (1, 1, 1)


async def test_many_connectors_one_session_each():
    fake = Fake()
    async with memory_broker(fake, example) as broker:
        for number in range(30):
            await register(broker, f"c{number}")
        await broker.register("other", type="example", config={"user": "u"})
        replies = await discovered(broker, resource_type="bucket")
    assert len(found(replies)) == 60
    assert (fake.opened, fake.closed) == (30, 30)


async def test_units_are_asked_one_by_one():
    fake = Regional()
    async with memory_broker(fake) as broker:
        await register(broker, resource_type="bucket")
        replies = await discovered(broker)
    assert sorted(one.unit for one in replies if isinstance(one, Finished)) == ["north", "south"]
    assert sorted(one.unit.name for one in fake.requests if isinstance(one, m.DiscoverRequest)) == ["north", "south"]
    assert fake.opened == fake.closed == fake.calls["units"] == 1


async def test_the_powered_example():
    async with memory_broker(powered) as broker:
        await broker.register("mine", type="example", config={"user": "u"})
        assert found(await discovered(broker)) == [("mine", "example-bucket", "a"), ("mine", "example-bucket", "b")]


async def test_nobody_to_ask():
    async with memory_broker(Fake()) as broker:
        assert await discovered(broker) == []


# -- filters


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"connectors": ["one"]}, [("one", "bucket", "a"), ("one", "bucket", "b")]),
        ({"connectors": ["one", "one"]}, [("one", "bucket", "a"), ("one", "bucket", "b")]),
        ({"connectors": ["one", "two"], "type": "example"}, []),
        ({"connectors": ["one", "other"], "type": "example", "resource_id": "a"}, [("other", "example-bucket", "a")]),
        ({"connectors": ["one", "two"], "labels": {"team": "b"}}, [("two", "cluster", "x")]),
        ({"type": "example"}, [("other", "example-bucket", "a"), ("other", "example-bucket", "b")]),
        ({"resource_type": "cluster"}, [("two", "cluster", "x")]),
        ({"labels": {"team": None}}, [("two", "cluster", "x")]),
        ({"resource_type": "bucket", "resource_id": "fake://b/"}, [("one", "bucket", "b")]),
        ({"resource_id": "b"}, [("one", "bucket", "b"), ("other", "example-bucket", "b")]),
        ({"resource_type": "bucket", "resource_id": "nope"}, []),
    ],
)  # fmt: skip
async def test_filters(filters, expected):
    async with memory_broker(Fake(), example) as broker:
        await register(broker, "one", resource_type="bucket")
        await register(broker, "two", resource_type="cluster", labels={"team": "b"})
        await broker.register("other", type="example", config={"user": "u"})
        replies = await discovered(broker, **filters)
        assert found(replies) == expected
        assert failed(replies) == []


async def test_a_connector_that_the_filter_rules_out_is_never_asked():
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker, "bucket", resource_type="bucket", resource_id="a")
        await register(broker, "fixed", auth_method="fixed")
        assert await discovered(broker, resource_type="bucket", connectors=["bucket"], resource_id="b") == []
        assert await discovered(broker, resource_type="cluster") == []
        assert await discovered(broker, resource_type="bucket", resource_id="/", connectors=["fixed"]) == []
        assert not fake.calls


async def test_an_unknown_connector():
    async with memory_broker(Fake()) as broker:
        with pytest.raises(UnknownConnector):
            await discovered(broker, connectors=["nope"])


async def test_scopes_bound_what_is_found():
    async with memory_broker(Fake(resources={"bucket": ("a", "b", "a/logs", "ab")})) as broker:
        await register(broker, "bucket", resource_type="bucket", resource_id="a")
        await register(broker, "prefix", resource_type="bucket", resource_id="b/data")
        replies = await discovered(broker)
    assert found(replies) == [
        ("bucket", "bucket", "a"),
        ("bucket", "bucket", "a/logs"),
        ("prefix", "bucket", "b/data"),  # lies in what the vendor lists
    ]


async def test_the_plugin_is_told_what_is_looked_for():
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker, resource_type="bucket", resource_id="a")
        await discovered(broker)
        await discovered(broker, resource_id="a/logs", resource_type="bucket")
    asked = [one.resource_id for one in fake.requests if isinstance(one, m.DiscoverRequest)]
    assert asked == ["a", "a/logs"]


# -- failures


async def test_a_connector_that_fails_stands_beside_those_that_do_not():
    async def authenticate(context):
        if context.connector == "bad":
            raise AuthFailed("no such key")

    fake = Fake()
    fake.on["authenticate"] = authenticate
    async with memory_broker(fake) as broker:
        for name in ("bad", "good"):
            await register(broker, name)
        replies = await discovered(broker)
    assert failed(replies) == [("bad", None, "", "AuthFailed")]
    assert {one.connector.name for one in replies if isinstance(one, Found)} == {"good"}
    error = next(one.error for one in replies if isinstance(one, Failed))
    assert error.where == {"verb": "discover", "connector": "bad", "type": "fake"}


async def test_a_unit_that_fails_stands_beside_those_that_do_not():
    async def discover(request):
        if request.unit.name == "north" and request.resource_type == "bucket":
            raise Throttled("slow down")

    fake = Regional()
    fake.on["discover"] = discover
    async with memory_broker(fake) as broker:
        await register(broker)
        replies = await discovered(broker)
    assert failed(replies) == [("mine", "bucket", "north", "Throttled")]
    assert len([one for one in replies if isinstance(one, Finished)]) == 5
    assert fake.opened == fake.closed == 1


async def test_what_was_found_before_a_failure_stays_found():
    class Stumbling(Fake):
        @m.hookimpl
        async def discover(self, session, request):
            yield m.Resource(type=request.resource_type, id="a")
            raise RuntimeError(CANARY)

    async with memory_broker(Stumbling()) as broker, broker.subscribe(DiscoveryFailed) as events:
        await register(broker, resource_type="bucket")
        replies = await discovered(broker)
        event = await anext(events)
    assert found(replies) == [("mine", "bucket", "a")]
    (failure,) = [one.error for one in replies if isinstance(one, Failed)]
    assert isinstance(failure, BrokenPlugin)
    assert "failed in discover: RuntimeError at" in failure.message
    assert CANARY not in "".join(traceback.format_exception(failure)) + repr(event)
    assert (event.error, event.resource_type, event.message) == ("BrokenPlugin", "bucket", failure.message)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([m.Resource(type="cluster", id="x")], "gave a 'cluster' when asked for 'bucket'"),
        (["a"], "gave a str from discover, not a Resource"),
    ],
)
async def test_an_answer_that_is_not_in_the_contract(answer, words):
    async def discover(request):
        return answer

    fake = Fake()
    fake.on["discover"] = discover
    async with memory_broker(fake) as broker:
        await register(broker, resource_type="bucket")
        (failure,) = await discovered(broker)
    assert isinstance(failure.error, BrokenPlugin)
    assert words in failure.error.message


async def test_units_that_are_not_in_the_contract():
    class Bad(Fake):
        @m.hookimpl
        async def units(self, session, resource_type):
            return ("north",)

    async with memory_broker(Bad()) as broker:
        await register(broker)
        (failure,) = await discovered(broker)
    assert "gave a str from units, not a Unit" in failure.error.message


async def test_a_connector_whose_plugin_is_missing():
    store = MemoryStore()
    async with memory_broker(Fake(), store=store) as broker:
        await register(broker)
    async with memory_broker(store=store) as broker:
        assert failed(await discovered(broker)) == [("mine", None, "", "UnknownConnectorType")]


# -- time


@VIRTUAL
@pytest.mark.parametrize("hook", ["authenticate", "discover", "close"])
async def test_a_connector_that_hangs_ends_in_overdue_while_the_others_are_done(hook):
    async def hang(request):
        name = request.connector if isinstance(request, m.Context) else "slow"
        if name == "slow" and (hook != "discover" or request.resource_type == "bucket"):
            await anyio.sleep_forever()

    fake, slow = Fake(), Fake("slow")
    slow.on[hook] = hang
    async with memory_broker(fake, slow, clock=VirtualClock()) as broker:
        await register(broker, "quick")
        await register(broker, "slow", type="slow")
        began, landed = anyio.current_time(), {}
        async with broker.discover() as replies:
            async for one in replies:
                landed.setdefault((one.connector.name, type(one)), []).append(anyio.current_time() - began)
    assert set(landed["quick", Finished]) == {0}
    assert landed["slow", Failed] == [pytest.approx(30)]
    assert len(landed.get(("slow", Finished), [])) == {"authenticate": 0, "discover": 2, "close": 3}[hook]
    assert slow.opened == slow.closed


@VIRTUAL
async def test_each_unit_has_a_deadline_of_its_own():
    async def discover(request):
        await anyio.sleep({"north": 50, "south": 20}[request.unit.name])

    fake = Regional()
    fake.on["discover"] = discover
    budgets = Budgets(discover=timedelta(seconds=30))
    async with memory_broker(fake, clock=VirtualClock(), budgets=budgets) as broker:
        await register(broker, resource_type="bucket")
        began = anyio.current_time()
        replies = await discovered(broker)
        assert anyio.current_time() - began == pytest.approx(30)
    assert failed(replies) == [("mine", "bucket", "north", "Overdue")]
    assert [one.unit for one in replies if isinstance(one, Finished)] == ["south"]
    (error,) = [one.error for one in replies if isinstance(one, Failed)]
    assert isinstance(error, Overdue)
    assert error.where["connector"] == "mine"


@VIRTUAL
async def test_opening_a_session_and_asking_each_have_the_whole_budget():
    async def slow(request):
        await anyio.sleep(25)

    fake = Fake()
    fake.on["authenticate"] = fake.on["discover"] = fake.on["close"] = slow
    async with memory_broker(fake, clock=VirtualClock()) as broker:
        await register(broker, resource_type="bucket")
        assert failed(await discovered(broker)) == []


@VIRTUAL
async def test_a_slow_reader_makes_nobody_overdue():
    fake = Regional(resources={"bucket": tuple(f"b{number}" for number in range(300))})
    async with memory_broker(fake, clock=VirtualClock()) as broker:
        await register(broker, resource_type="bucket")
        count = 0
        async with broker.discover() as replies:
            async for one in replies:
                await anyio.sleep(1)
                assert not isinstance(one, Failed)
                count += isinstance(one, Found)
    assert count == 600


@VIRTUAL
async def test_connectors_and_units_are_asked_at_once():
    async def slow(request):
        await anyio.sleep(1)

    fake = Regional()
    fake.on["discover"] = slow
    async with memory_broker(fake, clock=VirtualClock()) as broker:
        for number in range(200):
            await register(broker, f"c{number}", resource_type="bucket")
        began = anyio.current_time()
        assert len(found(await discovered(broker))) == 800
        assert anyio.current_time() - began == pytest.approx(1)


# -- leaving


@pytest.mark.parametrize("taken", [0, 1, 5])
async def test_leaving_early_leaves_nothing_running(count_tasks, taken):
    async def linger(request):
        if request.resource_type == "cluster":
            await anyio.sleep_forever()

    fake = Regional()
    fake.on["discover"] = linger
    async with memory_broker(fake) as broker:
        for number in range(5):
            await register(broker, f"c{number}")
        before = count_tasks()
        async with broker.discover() as replies:
            for _ in range(taken):
                await anext(replies)
        assert count_tasks() == before
        assert fake.opened == fake.closed


async def test_what_the_reader_raises_is_not_wrapped(count_tasks):
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker)
        before = count_tasks()
        with pytest.raises(ValueError, match="mine"):  # noqa: PT012
            async with broker.discover() as replies:
                async for _ in replies:
                    raise ValueError("mine")
        assert count_tasks() == before
    assert fake.opened == fake.closed == 1


async def test_deleting_a_connector_meanwhile_disturbs_nobody():
    fake = Fake()
    async with memory_broker(fake) as broker:
        for number in range(3):
            await register(broker, f"c{number}", resource_type="bucket")
        async with broker.discover() as replies:
            first = await anext(replies)
            await broker.delete("c2")
            rest = [one async for one in replies]
    assert len(found([first, *rest])) == 6


# -- events


async def test_events():
    async with memory_broker(Fake(), example) as broker:
        await register(broker, resource_type="bucket")
        async with broker.subscribe() as events:
            await discovered(broker)
            seen = [await anext(events) for _ in range(5)]
    kinds = [DiscoveryStarted, ResourceFound, ResourceFound, UnitDiscovered, DiscoveryFinished]
    assert [type(one) for one in seen] == kinds
    assert {seen[0].discovery, seen[3].discovery, seen[4].discovery} == {seen[0].discovery} != {""}
    assert seen[0].connectors == 1
    assert (seen[1].connector, seen[1].resource_type, seen[1].resource_id) == ("mine", "bucket", "a")
    assert (seen[3].resource_type, seen[3].unit, seen[3].resources) == ("bucket", "", 2)
    assert (seen[4].connectors, seen[4].resources, seen[4].failures) == (1, 2, 0)


# -- across a fleet


async def fleet(broker: m.Broker, size: int) -> None:
    for number in range(size):
        await register(broker, f"c{number}")


async def arrivals(broker: m.Broker) -> dict[str, float]:
    """When each connector had finished its buckets, in seconds since the question."""
    began = anyio.current_time()
    async with broker.discover(resource_type="bucket") as replies:
        return {one.connector.name: anyio.current_time() - began async for one in replies if isinstance(one, Finished)}


@VIRTUAL
async def test_a_fleet_takes_as_long_as_one_connector():
    fake = Fake()
    fake.on["discover"] = lambda _: anyio.sleep(1)
    async with memory_broker(fake) as broker:
        await fleet(broker, 1000)
        assert set((await arrivals(broker)).values()) == {1}


@VIRTUAL
async def test_the_first_result_is_not_later_the_more_connectors_there_are():
    fake = Fake()
    fake.on["discover"] = lambda _: anyio.sleep(1)
    async with memory_broker(fake) as broker:
        await fleet(broker, 2500)  # more than are asked at once
        taken = sorted((await arrivals(broker)).values())
        assert (len(taken), taken[0], taken[-1]) == (2500, 1, 3)


@VIRTUAL
async def test_a_dead_and_a_throttled_connector_delay_nobody():
    class Called(Fake):
        """Makes one call for each question, in a slot, as plugins do."""

        @m.hookimpl
        async def discover(self, session, request):
            name = session.context.connector

            async def call():
                await anyio.sleep(math.inf if name == "c3" else 1)
                if name == "c4":
                    raise Throttled("slow down", retry_after=timedelta(seconds=2))

            await session.context.tools.limits.call(call, "fake", name, "here", "store")
            yield m.Resource(type="bucket", id="a")

    async with memory_broker(Called()) as broker:
        await fleet(broker, 100)
        taken = await arrivals(broker)
        assert len(taken) == 98
        assert set(taken.values()) == {1}


async def test_a_connector_with_one_unit_is_one_task(count_tasks):
    tasks = []
    for size in (20, 60):
        fake, everybody = Fake(), anyio.Event()

        async def wait(_, fake=fake, everybody=everybody, size=size):
            if fake.calls["discover"] == size:
                tasks.append(count_tasks())
                everybody.set()
            await everybody.wait()

        fake.on["discover"] = wait
        async with memory_broker(fake) as broker:
            await fleet(broker, size)
            await discovered(broker, resource_type="bucket")
    assert tasks[1] - tasks[0] == 40
