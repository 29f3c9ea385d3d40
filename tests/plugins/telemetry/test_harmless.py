"""Telemetry that fails, hangs or is overrun stops and slows nobody."""

from threading import Event
from typing import Any

import anyio
import anyio.to_thread
import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from mooring.errors import MooringError
from mooring.testing import memory_broker
from mooring.testing._fake import Fake
from mooring_telemetry import plugin, recorder

pytestmark = pytest.mark.anyio

ISSUE = {"resource_type": "bucket", "resource_id": "a"}


class Broken:
    """Whatever is recorded here fails."""

    def take(self, _: Any) -> None:
        raise RuntimeError("canary-of-a-secret")


class Hanging(SpanProcessor):
    """An exporter in the way of whoever ends a span, until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go, self.left = Event(), Event(), Event()

    def on_end(self, span: Any) -> None:
        self.reached.set()
        self.go.wait(10)
        self.left.set()


async def test_what_fails_while_recording_is_logged_without_its_text(
    collected: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder, "instruments", Broken())
    async with memory_broker(Fake(), system_plugins=[plugin]) as broker:
        await broker.register("test", type="fake", auth_method="key")
        await broker.issue("test", **ISSUE)

    assert [one.getMessage() for one in caplog.records] == [
        "ConnectorVerified was not recorded: RuntimeError",
        "CredentialsIssued was not recorded: RuntimeError",
    ]
    assert "canary-of-a-secret" not in caplog.text
    assert [span.name for span in collected.spans()] == ["verify fake", "issue bucket"]


async def test_an_exporter_that_hangs_holds_up_nobody_and_what_is_missed_is_counted(
    collected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, tracers = Hanging(), TracerProvider()
    tracers.add_span_processor(hanging)
    monkeypatch.setattr(recorder.trace, "get_tracer_provider", lambda: tracers)
    monkeypatch.setattr(recorder, "BUFFER", 2)
    fake = Fake()
    async with memory_broker(fake, system_plugins=[plugin]) as broker:
        await broker.register("test", type="fake", auth_method="key")
        await anyio.to_thread.run_sync(hanging.reached.wait)
        for number in range(10):
            await broker.issue("test", resource_type="bucket", resource_id=f"b{number}")
        assert fake.issued == 10
        hanging.go.set()

    [missed] = collected.metrics()["mooring.events.missed"]
    assert missed.value == 8


async def test_a_broker_closes_while_an_exporter_hangs(collected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, tracers = Hanging(), TracerProvider()
    tracers.add_span_processor(hanging)
    monkeypatch.setattr(recorder.trace, "get_tracer_provider", lambda: tracers)
    try:
        async with memory_broker(Fake(), system_plugins=[plugin]) as broker:
            await broker.register("test", type="fake", auth_method="key")
            await anyio.to_thread.run_sync(hanging.reached.wait)
        assert not hanging.left.is_set()
    finally:
        hanging.go.set()


async def test_a_store_that_cannot_be_read_stops_nobody(collected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: Any) -> None:
        raise RuntimeError("canary-of-a-secret")

    async with memory_broker(Fake(), system_plugins=[plugin]) as broker:
        monkeypatch.setattr(type(broker), "leases", fail)
        await broker.register("test", type="fake", auth_method="key")
        await broker.issue("test", **ISSUE)

    assert [point.count for point in collected.metrics()["mooring.issue.duration"]] == [1]


async def test_what_the_body_raises_comes_out_as_it_is(collected: Any) -> None:
    with pytest.raises(MooringError, match="no connector is named"):
        async with memory_broker(Fake(), system_plugins=[plugin]) as broker:
            await broker.issue("nothing", **ISSUE)


async def test_a_system_plugin_that_fails_harms_neither_the_broker_nor_telemetry(
    collected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as broken:
        broken.setattr(recorder, "record", fail)
        broken.setattr(recorder, "watching", fail)
        async with memory_broker(Fake(), system_plugins=[plugin]) as broker:
            await broker.register("test", type="fake", auth_method="key")
            await broker.issue("test", **ISSUE)
    assert not collected.spans()

    async with memory_broker(Fake(), system_plugins=[plugin]) as broker:
        await broker.register("test", type="fake", auth_method="key")
    assert [span.name for span in collected.spans()] == ["verify fake"]
