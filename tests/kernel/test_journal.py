"""The journal: every event as one line of structlog, also the first and the last."""

from datetime import UTC, datetime

import anyio
import pytest
import structlog

from mooring.bus import open_bus
from mooring.events import DiscoveryStarted
from mooring.journal import keep_journal
from mooring.testing import Fake, memory_broker

pytestmark = pytest.mark.anyio


async def test_every_event_is_a_line():
    with structlog.testing.capture_logs() as lines:
        async with memory_broker(Fake(), journal=True) as broker:
            connector = await broker.register("mine", type="fake", auth_method="key", config={"key": "c4n4ry"})
            await broker.issue("mine", resource_type="bucket", resource_id="a", consumer="me")
            await broker.delete("mine")
    assert [line["event"] for line in lines] == [
        "ConnectorVerified",
        "ConnectorRegistered",
        "CredentialsIssued",
        "ConnectorDeleted",
    ]
    assert lines[1] == {
        "event": "ConnectorRegistered",
        "log_level": "info",
        "at": lines[1]["at"],
        "connector_id": connector.id,
        "connector": "mine",
        "connector_type": "fake",
    }
    assert lines[2]["consumer"] == "me"
    assert "c4n4ry" not in repr(lines)


async def test_what_was_missed_is_a_warning():
    with structlog.testing.capture_logs() as lines:
        async with open_bus() as bus:
            bus.spawn("journal", lambda: keep_journal(bus))
            await anyio.wait_all_tasks_blocked()
            for number in range(300):
                bus.publish(DiscoveryStarted(at=datetime.now(UTC), connectors=number))
    missed = [line for line in lines if line["event"] == "events_missed"]
    assert [line["log_level"] for line in missed] == ["warning"]
    assert len(lines) - 1 + missed[0]["missed"] == 300


async def test_without_it_nothing_is_written():
    with structlog.testing.capture_logs() as lines:
        async with memory_broker(Fake()) as broker:
            await broker.register("mine", type="fake", auth_method="key")
    assert lines == []
