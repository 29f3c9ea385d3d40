"""What a broker does, as an OpenTelemetry SDK sees it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

import mooring as m
from mooring import events as happened
from mooring.errors import AuthFailed, Unreachable
from mooring.events import Event
from mooring.testing import ManualClock, memory_broker
from mooring.testing._fake import Fake
from mooring_telemetry import plugin, recorder
from mooring_telemetry.instruments import ATTRIBUTES, DURATIONS
from mooring_telemetry.spans import DETAILS, MOST_DISCOVERIES, VERBS, Spans

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ISSUE = {"resource_type": "bucket", "resource_id": "a"}


def attributes(points: list[Any]) -> list[dict[str, str]]:
    return sorted((dict(point.attributes) for point in points), key=str)


async def test_issuing_is_counted_and_timed_by_type_and_outcome(collected: Any) -> None:
    fake = Fake()

    async def refuse(request: m.CredentialRequest) -> None:
        if request.resource_id == "b":
            raise AuthFailed("no")

    fake.on["issue_credentials"] = refuse
    async with memory_broker(fake, system_plugins=[plugin]) as broker:
        await broker.register("test", type="fake", auth_method="key")
        for consumer in ("one", "one", "two"):
            await broker.issue("test", consumer=consumer, **ISSUE)
        with pytest.raises(AuthFailed):
            await broker.issue("test", resource_type="bucket", resource_id="b")

    found = collected.metrics()
    about = {"mooring.connector.type": "fake", "mooring.resource.type": "bucket"}
    assert attributes(found["mooring.issue.duration"]) == [about | {"error.type": "AuthFailed"}, about]
    assert [point.count for point in found["mooring.issue.duration"]] == [1, 1]
    assert all(0 < point.sum < 60 for point in found["mooring.issue.duration"])
    assert [point.value for point in found["mooring.cache.hits"]] == [2]
    assert [point.count for point in found["mooring.verify.duration"]] == [1]


async def test_what_is_at_hand_is_observed_while_a_broker_is_open(collected: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(recorder, "PAUSE", 0.001)
    async with memory_broker(Fake(), system_plugins=[plugin]) as broker:
        await broker.register("test", type="fake", auth_method="key")
        await broker.issue("test", **ISSUE)
        with anyio.fail_after(10):
            while not (leases := collected.metrics().get("mooring.live_leases")):  # looked for when they were asked for
                await anyio.lowlevel.checkpoint()
        [lease] = leases
        found = collected.metrics()

        assert (lease.value, dict(lease.attributes)) == (
            1,
            {"mooring.connector.type": "fake", "mooring.lease.state": "active"},
        )
        assert [point.value for point in found["mooring.cache.entries"]] == [1]
        assert {one["mooring.breaker.state"] for one in attributes(found["mooring.open_breakers"])} == {
            "open",
            "half-open",
        }
    assert [point.value for point in collected.metrics()["mooring.cache.entries"]] == [0]


async def test_refreshing_is_timed(collected: Any) -> None:
    clock = ManualClock()
    async with memory_broker(Fake(), system_plugins=[plugin], clock=clock) as broker:
        await broker.register("test", type="fake", auth_method="key")
        async with broker.subscribe(happened.CredentialsRefreshed) as refreshed:
            await broker.issue("test", **ISSUE)
            issued = await broker.issue("test", **ISSUE)  # what nobody uses again is not renewed
            clock.advance((issued.expires_at - issued.issued_at) * 0.8)
            with anyio.fail_after(30):
                await anext(refreshed)

    assert [span.name for span in collected.spans()][-1] == "refresh bucket"
    assert [point.count for point in collected.metrics()["mooring.refresh.duration"]] == [1]


async def test_each_thing_that_took_time_is_a_span_that_stands_by_itself(collected: Any) -> None:
    fake = Fake()

    async def fail(_: Any) -> None:
        raise Unreachable("the vendor does not answer")

    async with memory_broker(fake, system_plugins=[plugin]) as broker:
        await broker.register("test", type="fake", auth_method="key")
        with trace.get_tracer("host").start_as_current_span("the caller's"):
            issued = await broker.issue("test", **ISSUE)
        fake.on["issue_credentials"] = fail
        with pytest.raises(Unreachable):
            await broker.issue("test", resource_type="bucket", resource_id="b")

    verify, issue, failed = (span for span in collected.spans() if span.name != "the caller's")
    assert [verify.name, issue.name, failed.name] == ["verify fake", "issue bucket", "issue bucket"]
    assert issue.parent is None
    assert dict(issue.attributes or {}) == {
        "mooring.connector.type": "fake",
        "mooring.connector.name": "test",
        "mooring.resource.type": "bucket",
        "mooring.access": "read",
        "mooring.lease.id": issued.lease,
    }
    assert issue.start_time < issue.end_time
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "Unreachable"


async def test_how_long_it_took_is_by_the_clock_of_the_broker(collected: Any) -> None:
    fake, clock = Fake(), ManualClock()

    async def wait(_: Any) -> None:
        clock.advance(timedelta(seconds=3))

    fake.on["issue_credentials"] = fake.on["verify"] = fake.on["discover"] = wait
    async with memory_broker(fake, system_plugins=[plugin], clock=clock) as broker:
        await broker.register("test", type="fake", auth_method="key")
        await broker.issue("test", **ISSUE)
        async with broker.discover(resource_type="bucket") as replies:
            async for _ in replies:
                pass

    spans = {span.name: span for span in collected.spans()}
    assert spans.keys() == {"verify fake", "issue bucket", "discover bucket", "discover"}
    assert {span.end_time - span.start_time for span in spans.values()} == {3_000_000_000}
    found = collected.metrics()
    for name in ("issue", "verify", "discovery", "discovery.unit"):
        assert [point.sum for point in found[f"mooring.{name}.duration"]] == [3.0]


async def test_a_discovery_is_a_span_with_a_child_for_each_unit(collected: Any) -> None:
    fake = Fake(resources={"bucket": ("a", "b")})

    async def refuse(request: m.DiscoverRequest) -> None:
        if request.resource_type == "cluster":
            raise m.AccessDenied("no")

    fake.on["discover"] = refuse
    async with memory_broker(fake, system_plugins=[plugin]) as broker:
        await broker.register("test", type="fake", auth_method="key", verify=False)
        async with broker.discover() as replies:
            async for _ in replies:
                pass

    *units, whole = collected.spans()
    assert whole.name == "discover"
    assert (whole.attributes or {})["mooring.discovery.failures"] == 1
    assert {unit.name for unit in units} == {"discover bucket", "discover cluster", "discover generic"}
    assert {unit.parent.span_id for unit in units if unit.parent} == {whole.context.span_id}
    assert {unit.name for unit in units if unit.status.status_code is StatusCode.ERROR} == {"discover cluster"}
    assert all(whole.start_time <= unit.start_time + 1_000_000 for unit in units)
    found = collected.metrics()
    assert [point.count for point in found["mooring.discovery.duration"]] == [1]
    assert sum(point.count for point in found["mooring.discovery.unit.duration"]) == 3


async def test_discoveries_that_their_callers_left_are_given_up_in_the_end(collected: Any) -> None:
    spans = Spans(trace.get_tracer_provider())
    for number in range(MOST_DISCOVERIES + 3):
        spans.take(happened.DiscoveryStarted(at=NOW, connectors=1, discovery=str(number)))

    assert len(collected.spans()) == 3
    last = str(MOST_DISCOVERIES + 1)
    spans.take(happened.DiscoveryFinished(at=NOW, connectors=1, resources=0, failures=0, discovery=last))
    assert len(collected.spans()) == 4


async def test_breakers_that_open_are_counted(collected: Any) -> None:
    event = happened.BreakerOpened(at=NOW, endpoint="https://x", failures=5, until=NOW)
    recorder.take(Spans(trace.get_tracer_provider()), event)

    assert [point.value for point in collected.metrics()["mooring.breaker.openings"]] == [1]


def test_no_label_can_take_any_number_of_values() -> None:
    unbounded = {"resource_id", "consumer", "connector", "connector_id", "lease", "message", "endpoint", "subject"}

    assert not ATTRIBUTES.keys() & unbounded
    assert not DETAILS.keys() & {"resource_id", "consumer", "message", "subject"}


def test_whatever_took_time_is_timed() -> None:
    kinds = [one for one in vars(happened).values() if isinstance(one, type) and issubclass(one, Event)]
    timed = {one for one in kinds if "took" in one.__struct_fields__}

    assert timed == DURATIONS.keys()
    assert timed == VERBS.keys() | {happened.DiscoveryFinished}
