"""`list-resources --cached`: what was found before, with its age; and asking again for what is old."""

import json
import os
import re
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
from filelock import FileLock

from mooring.assembly import SystemClock
from mooring.broker import Broker

CACHED = ("connector", "list-resources", "--cached")
PATIENCE = 60
"""How many seconds something may take that should come."""
kept = pytest.mark.skipif(find_spec("mooring.broker._findings") is None, reason="the store does not keep what is found")


def add(cli, name: str, *more: str) -> None:
    cli("connector", "register", name, "-t", "acme", "-a", "key", "--token=-", "--no-verify", *more, input="s3cret")


class Memory:
    """A broker's memory: how many minutes ago connectors were asked, by name; who is asked now."""

    def __init__(self) -> None:
        self.minutes: dict[str, float] = {}
        self.asked: list[dict[str, Any]] = []

    def discover(self, broker: Broker, original: Any, *, cached: bool = False, refresh: bool = True, **how: Any) -> Any:
        assert not (cached and refresh), "the command refreshes in a process of its own"
        if not cached:
            self.asked.append(how)

        @asynccontextmanager
        async def remembered() -> AsyncGenerator[AsyncIterator[Any]]:
            async def aged(replies: AsyncIterator[Any]) -> AsyncGenerator[Any]:
                async for one in replies:
                    minutes = self.minutes.get(one.connector.name) if cached else None
                    at = None if minutes is None else datetime.now(UTC) - timedelta(minutes=minutes)
                    yield msgspec.structs.replace(one, at=at)

            async with original(broker, **how) as replies:
                yield aged(replies)

        return remembered()


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory, original = Memory(), Broker.discover
    monkeypatch.setattr(Broker, "discover", lambda broker, **how: memory.discover(broker, original, **how))
    return memory


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments of processes that would refresh; none is started."""
    started: list[list[str]] = []
    monkeypatch.setattr("mooring.cli._resources.start", lambda arguments: not started.append(arguments))
    return started


def test_the_age_is_a_column_and_a_value(cli, memory: Memory, started) -> None:
    add(cli, "one", "--regions", "south", "--regions", "north")
    add(cli, "two", "-r", "acme-bucket")
    memory.minutes = {"one": 3.2}
    result = cli(*CACHED)
    head, *rows = result.stdout.splitlines()
    assert head.split()[-3:] == ["AGE", "RESOURCE", "NAMES"]
    ages = [re.findall(r"  (\d+[smhd])  (?:.*?)(\S+)$", row) for row in rows]
    assert ages == [[("3m", "4711")], [("3m", "first")], [], [], [("0s", "first")], []]
    assert result.stderr == ""
    assert started == []
    groups = json.loads(cli(*CACHED, "-o", "json", "--stats").stdout)
    for group in groups:
        every = [*group["resources"], *group["errors"], *group["stats"]]
        assert len(every) > 2
        if group["connector"] == "two":
            assert {one["at"] for one in every} == {None}
        else:
            passed = {datetime.now(UTC) - datetime.fromisoformat(one["at"]) for one in every}
            assert all(timedelta(minutes=3) < one < timedelta(minutes=4) for one in passed)
    assert "AGE" not in cli("connector", "list-resources").stdout
    assert '"at"' not in cli("connector", "list-resources", "-o", "json", "--stats").stdout


def test_what_is_old_is_asked_again_after_the_answer(cli, memory: Memory, started) -> None:
    add(cli, "old", "-l", "team=data")
    add(cli, "new", "-l", "team=d")
    add(cli, "other", "-l", "team=ops")
    memory.minutes = {"old": 125, "new": 9.9, "other": 500}
    result = cli(*CACHED, "-r", "acme-bucket", "-c", "acme", "-l", "team=d*", "--match", "f*")
    assert result.stderr == "Some of this was found 2h ago; it is being refreshed.\n"
    ((*arguments,),) = started
    assert memory.asked == []

    cli("connector", "list-resources", "--refresh-stale", *arguments)
    ((asked),) = memory.asked
    assert [one.name for one in asked.pop("connectors")] == ["old"]
    assert asked == {"resource_type": "acme-bucket"}  # all ids: only whole answers are kept

    started.clear()
    assert cli(*CACHED, "--no-refresh").stderr == "Some of this was found 8h ago.\n"
    assert cli(*CACHED, "-n", "new").stderr == ""
    assert started == []
    cli(*CACHED, "-n", "new", "-n", "old")
    memory.asked.clear()
    cli("connector", "list-resources", "--refresh-stale", *started[0])
    assert [one.name for one in memory.asked[0]["connectors"]] == ["old"]
    result = cli("connector", "list-resources", "--no-refresh", code=2)
    assert result.stderr.startswith("Error: --no-refresh goes with --cached")


def test_one_process_refreshes_at_a_time(cli, memory: Memory, home: Path) -> None:
    add(cli, "old")
    memory.minutes = {"old": 60}
    with FileLock(home / "refresh.lock"):
        result = cli("connector", "list-resources", "--refresh-stale")
    assert (memory.asked, result.output) == ([], "")
    cli("connector", "list-resources", "--refresh-stale")
    assert len(memory.asked) == 1


@kept
def test_the_answer_waits_for_no_refresh(cli, process, home: Path, tmp_path: Path, monkeypatch) -> None:
    """With the store as it is: what was found 20 minutes ago is told at once, though asking takes a minute."""
    monkeypatch.setenv("ACME_MANY", "3")
    add(cli, "many", "--mode=many", "-r", "acme-bucket")
    with monkeypatch.context() as long_ago:
        long_ago.setattr(SystemClock, "now", lambda _: datetime.now(UTC) - timedelta(minutes=20))
        cli("connector", "list-resources")
    waits = tmp_path / "waits"
    environment = os.environ | {"ACME_SLOW": str(waits)}
    done = process(*CACHED, env=environment)
    assert "20m" in done.stdout
    assert done.stderr == "Some of this was found 20m ago; it is being refreshed.\n"
    until(waits.exists)  # what refreshes lives on, with nothing of the command's
    assert json.loads(waits.read_text()) != os.getpid()
    os.kill(int(waits.read_text()), signal.SIGKILL)

    done = process(*CACHED, "-o", "json")
    assert {one["id"] for group in json.loads(done.stdout) for one in group["resources"]} > {"bucket-000000", "first"}
    until(lambda: fresh(process(*CACHED, "--no-refresh", "-o", "json").stdout))


def fresh(output: str) -> bool:
    found = [one["at"] for group in json.loads(output) for one in group["resources"]]
    return all(datetime.now(UTC) - datetime.fromisoformat(at) < timedelta(minutes=10) for at in found)


def until(true: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
