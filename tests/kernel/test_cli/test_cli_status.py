"""`mooring status`: what it tells of what is stored, without a vendor, a plugin or a change."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

FIRST = ("-r", "acme-bucket", "-i", "first")
PROBE = """
import sys
from mooring.cli import main
sys.argv = ["mooring", *sys.argv[1:]]
try:
    main()
finally:
    heavy = ("rich", "yaml", "httpx", "structlog", "botocore", "mooring_aws", "mooring_sandbox", "mooring_acme")
    print(*(name for name in heavy if name in sys.modules), file=sys.stderr)
"""


def told(cli, **options: Any) -> dict[str, Any]:
    return json.loads(cli("status", "-o", "json", **options).stdout)


def happened(home: Path, event: str, at: datetime, **body: Any) -> None:
    """Put an event into the log, as another process might have."""
    with closing(sqlite3.connect(home / "mooring.db", isolation_level=None)) as connection:
        values = (at.isoformat(), event, json.dumps(body))
        connection.execute("INSERT INTO events (at, event, connector_id, body) VALUES (?, ?, '', ?)", values)


def test_where_nothing_is_nothing_is_made(cli, home) -> None:
    data = told(cli)
    assert (data["connectors"], data["leases"], data["master_key"]) == (0, {}, None)
    assert data["store"] == str(home / "mooring.db")
    assert not home.exists()
    assert "none yet" in cli("status").stdout


def test_what_it_tells(cli, registered, home) -> None:
    cli("connector", "update", "one", "--expires-at", (datetime.now(UTC) + timedelta(days=2)).isoformat())
    cli("issue", "one", *FIRST)
    released = json.loads(cli("issue", "one", "-r", "acme-account").stdout)["lease"]
    cli("lease", "revoke", released, code=7)
    data = told(cli)
    assert data["connectors"] == 1
    assert data["leases"] == {"active": 1, "released": 1}
    assert [one["connector"] for one in data["ending"]] == ["one"]
    assert [one["resource_id"] for one in data["next_to_end"]] == ["first"]
    assert data["master_key"]["source"] == str(home / "master.key")
    assert data["plugins"]["mooring-acme"] == "1.0"
    assert data["failures"] == []
    text = cli("status").stdout
    for part in (
        "1 active, 1 released",
        "new today",
        "mooring-acme 1.0",
        "connector one",
        "1d23h",
        "one: first",
        "all are asked",
    ):
        assert part in text
    assert yaml.safe_load(cli("status", "-o", "yaml").stdout)["leases"] == data["leases"]


def test_what_failed_lately(cli, registered, home, monkeypatch) -> None:
    cli("connector", "update", "one", "--mode=leak", "--no-verify")
    for _ in range(7):
        assert "t0ken" not in cli("issue", "one", *FIRST, code=4).output
    happened(home, "TaskFailed", datetime.now(UTC) - timedelta(days=2), task="old", error="RuntimeError")
    data = told(cli)
    assert [one["event"] for one in data["failures"]] == ["IssueFailed"] * 5
    assert data["failures"][0]["connector"] == "one"
    assert data["failures"][0]["message"].startswith("bad ********")
    result = cli("status")
    assert "last failures" in result.stdout
    assert "t0ken" not in result.output + json.dumps(data)
    monkeypatch.setenv("MOORING_COLUMNS", "80")
    assert max(map(len, cli("status").stdout.splitlines())) <= 80


def test_what_could_not_be_revoked(cli, registered) -> None:
    cli("connector", "update", "one", "--mode=stubborn", "--no-verify")
    lease = json.loads(cli("issue", "one", *FIRST).stdout)["lease"]
    cli("lease", "revoke", lease, code=7)
    assert [one["id"] for one in told(cli)["unrevoked"]] == [lease]
    assert "not revoked yet" in cli("status").stdout


def test_it_does_not_do_what_is_due(cli, registered, home) -> None:
    cli("connector", "update", "one", "--mode=stubborn", "--no-verify")
    lease = json.loads(cli("issue", "one", *FIRST).stdout)["lease"]
    cli("lease", "revoke", lease, code=7)
    with closing(sqlite3.connect(home / "mooring.db", isolation_level=None)) as connection:
        connection.execute("UPDATE undo_log SET due_at = '2001-01-01T00:00:00+00:00'")
    assert [told(cli)["unrevoked"][0]["attempts"] for _ in range(2)] == [1, 1]
    cli("connector", "describe", "one")
    assert told(cli)["unrevoked"][0]["attempts"] == 2


def test_endpoints_by_the_event_log(cli, registered, home) -> None:
    now = datetime.now(UTC)
    until = (now + timedelta(seconds=30)).isoformat()
    for endpoint in ("a.example", "b.example"):
        happened(home, "BreakerOpened", now, endpoint=endpoint, failures=5, until=until)
    happened(home, "BreakerClosed", now, endpoint="b.example")
    for damage in ({"endpoint": "d.example", "failures": 5}, {"until": "then"}, {"until": [], "endpoint": [1]}):
        happened(home, "BreakerOpened", now, **damage)
    happened(home, "BreakerClosed", now)
    long_ago = (now - timedelta(hours=1)).isoformat()
    happened(home, "BreakerOpened", now - timedelta(hours=1), endpoint="c.example", failures=5, until=long_ago)
    assert [one["endpoint"] for one in told(cli)["endpoints"]] == ["a.example"]
    assert "a.example: 5 failures in a row; asked again at" in cli("status").stdout


def test_the_master_key_is_lost(cli, registered, home) -> None:
    (home / "master.key").unlink()
    assert told(cli)["master_key"]["error"].startswith("missing: ")
    assert "see: mooring vault status" in cli("status").stdout


def test_a_store_that_is_none(cli, registered, home) -> None:
    (home / "mooring.db").write_text("this is no database, and it is long enough to be looked at" * 20)
    result = cli("status", code=5)
    assert (result.stdout, len(result.stderr.splitlines())) == ("", 1)


def test_it_loads_no_plugin_and_changes_nothing(cli, registered, home) -> None:
    cli("issue", "one", *FIRST)
    before = {one.name: one.stat().st_mtime_ns for one in home.iterdir() if one.suffix != ".db-shm"}
    command = [sys.executable, "-c", PROBE, "status", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.split() == []
    assert json.loads(done.stdout)["connectors"] == 1
    assert before["mooring.db"] == (home / "mooring.db").stat().st_mtime_ns
    assert json.loads(cli("events", "-o", "json").stdout)[-1]["seq"] == json.loads(done.stdout)["last_event"]


@pytest.mark.parametrize("arguments", [("more",), ("-o", "xml")])
def test_what_is_wrong(cli, arguments) -> None:
    result = cli("status", *arguments, code=2)
    assert (result.stdout, len(result.stderr.splitlines())) == ("", 1)
