"""The Prometheus endpoint: scraped for real, by a reader of the format."""

import re
import socket
import sys
from contextlib import closing

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from mooring.errors import InvalidConfig
from mooring.testing import memory_broker
from mooring.testing._fake import Fake
from mooring_telemetry import plugin, recorder
from mooring_telemetry.endpoint import EXPORTER, Place, place

pytestmark = pytest.mark.anyio

CANARY = "canary-of-a-secret"


async def scrape() -> dict[str, Metric]:
    text = (await anyio.to_thread.run_sync(httpx.get, recorder.endpoint.url)).text
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORING_METRICS_PORT", "0")


async def served() -> dict[str, Metric]:
    """As soon as what was issued is there: events take a moment."""
    with anyio.fail_after(10):
        while "mooring_issue_duration_seconds" not in (found := await scrape()):
            await anyio.lowlevel.checkpoint()
    return found


async def test_a_scrape_has_what_happened(asked: None) -> None:
    async with memory_broker(Fake(), system_plugins=[plugin]) as broker:
        await broker.register("test", type="fake", auth_method="key", config={"key": CANARY})
        for _ in range(3):
            await broker.issue("test", resource_type="bucket", resource_id="a", consumer="some-consumer")
        found = await served()

        (made,) = [one for one in found["mooring_issue_duration_seconds"].samples if one.name.endswith("_count")]
        assert made.value == 1
        assert made.labels == {"mooring_connector_type": "fake", "mooring_resource_type": "bucket"}
        assert [one.value for one in found["mooring_cache_entries"].samples] == [1]
        assert [one.name for one in found["mooring_cache_hits"].samples] == ["mooring_cache_hits_total"]
        (target,) = found["target_info"].samples
        assert target.labels["service_name"] == "mooring"


async def test_it_listens_on_loopback_alone_and_says_nothing_of_whom_and_what_it_served(asked: None) -> None:
    async with memory_broker(Fake(), system_plugins=[plugin]) as broker:
        await broker.register("some-connector", type="fake", auth_method="key", config={"key": CANARY})
        await broker.issue("some-connector", resource_type="bucket", resource_id="a", consumer="some-consumer")
        await served()
        url = recorder.endpoint.url
        text = (await anyio.to_thread.run_sync(httpx.get, url)).text

    assert url.startswith("http://127.0.0.1:")
    assert not [word for word in (CANARY, "some-connector", "some-consumer", '"a"', "here-1") if word in text]


async def test_names_keep_to_the_rules_of_prometheus(asked: None) -> None:
    """Those of `promtool check metrics`: base units, and suffixes that mean what they say."""
    async with memory_broker(Fake(), system_plugins=[plugin]) as broker:
        await broker.register("test", type="fake", auth_method="key")
        await broker.issue("test", resource_type="bucket", resource_id="a")
        found = await served()

    for name, family in found.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert family.documentation
        if family.type == "histogram":
            assert name.endswith("_seconds")
        if family.type == "gauge" and name != "target_info":
            assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_info"))


async def test_nothing_is_served_or_said_unless_it_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    async with memory_broker(Fake(), system_plugins=[plugin]):
        assert recorder.endpoint.url == ""
    assert not caplog.records


async def test_a_broker_that_does_not_last_serves_nothing(asked: None) -> None:
    async with memory_broker(Fake(), system_plugins=[plugin], refresh=False):
        assert recorder.endpoint.url == ""


async def test_brokers_of_a_process_share_one_and_the_last_ends_it(asked: None) -> None:
    async with memory_broker(Fake(), system_plugins=[plugin]):
        url = recorder.endpoint.url
        async with memory_broker(Fake(), system_plugins=[plugin]):
            assert recorder.endpoint.url == url
        await scrape()

    assert recorder.endpoint.url == ""
    with pytest.raises(httpx.ConnectError):
        await anyio.to_thread.run_sync(httpx.get, url)


async def test_a_port_that_is_taken_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder, "PAUSE", 0.001)
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        monkeypatch.setenv("MOORING_METRICS_PORT", str(other.getsockname()[1]))
        async with memory_broker(Fake(), system_plugins=[plugin]) as broker:
            await broker.register("test", type="fake", auth_method="key")
            assert recorder.endpoint.url == ""
            assert [one.getMessage() for one in caplog.records] == [
                "Metrics are not served: MOORING_METRICS_PORT cannot be had (Address already in use); it is tried again"
            ]
            other.close()
            with anyio.fail_after(10):
                while not recorder.endpoint.url:
                    await anyio.lowlevel.checkpoint()
            await scrape()


@pytest.mark.parametrize("text", ["x", "-1", "65536", "1.5", "٣", "9" * 5000, "94 64"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="MOORING_METRICS_PORT is no port"):
        place({"MOORING_METRICS_PORT": text})


def test_a_host_can_be_named() -> None:
    asked = {"MOORING_METRICS_PORT": " 9464 "}

    assert place(asked) == Place(port=9464, host="127.0.0.1")
    assert place(asked | {"MOORING_METRICS_HOST": "::1"}) == Place(port=9464, host="::1")


async def test_what_is_no_port_is_told_and_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MOORING_METRICS_PORT", "http")
    async with memory_broker(Fake(), system_plugins=[plugin]) as broker:
        await broker.register("test", type="fake", auth_method="key")

    assert [one.getMessage() for one in caplog.records] == [
        "Metrics are not served: MOORING_METRICS_PORT is no port; give a number up to 65535, such as 9464"
    ]


async def test_a_missing_library_is_named(
    asked: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.prometheus", None)
    async with memory_broker(Fake(), system_plugins=[plugin]):
        pass

    assert [one.getMessage() for one in caplog.records] == [
        f"Metrics are not served: MOORING_METRICS_PORT needs {EXPORTER}; try: pip install {EXPORTER}"
    ]
