"""`mooring events`: what is listed, and how a second process follows what others do."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import yaml

FIRST = ("-r", "acme-bucket", "-i", "first")
CANARY = "c4nary+p4ss/word=="
ENDS = 60


@pytest.fixture
def history(cli, registered, monkeypatch) -> list[str]:
    """What has happened."""
    monkeypatch.setenv("ACME_GIVES", CANARY)
    cli("issue", "one", *FIRST)
    cli("connector", "register", "two", "-t", "acme", "-a", "key", "--token=-", "--no-verify", input="t0ken-two")
    return [
        *("ConnectorRegistered", "ConnectorVerified", "DiscoveryStarted", "DiscoveryFinished", "CredentialsIssued"),
        "ConnectorRegistered",
    ]


Follow = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def follow() -> Iterator[Follow]:
    """Follow in a process of its own, which heeds SIGINT."""
    started: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def follow(*arguments: str) -> subprocess.Popen[str]:
        code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        command = [
            sys.executable,
            "-c",
            f"{code}from mooring.cli import main; main()",
            "events",
            "--follow",
            *arguments,
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
        )
        started.append((process, threading.Timer(ENDS, process.kill)))  # so that no test waits for ever
        started[-1][1].start()
        return process

    yield follow
    for process, timer in started:
        timer.cancel()
        with process:
            process.kill()


def logged(cli, *arguments: str) -> list[dict[str, Any]]:
    return json.loads(cli("events", "-o", "json", *arguments).stdout)


def drop(home, before: int) -> None:
    with closing(sqlite3.connect(home / "mooring.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM events WHERE seq < ?", (before,))


def test_list(cli, history) -> None:
    found = logged(cli)
    assert [one["event"] for one in found] == history
    assert [one["seq"] for one in found] == [1, 2, 3, 4, 5, 6]
    assert found[4]["resource_id"] == "first"
    assert yaml.safe_load(cli("events", "-o", "yaml").stdout)[4]["connector"] == "one"
    header, *rows = cli("events").stdout.splitlines()
    assert header.split() == ["NUMBER", "AT", "EVENT", "CONNECTOR", "DETAILS"]
    assert "resource_type acme-bucket, resource_id first, access read" in rows[4]
    for kind in ("table", "json", "yaml"):
        assert CANARY not in cli("events", "-o", kind).output


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        (("--after", "0"), [1, 2, 3, 4, 5, 6]),
        (("--after", "4"), [5, 6]),
        (("--type", "CredentialsIssued"), [5]),
        (("-t", "connectorregistered", "-t", "CredentialsIssued"), [1, 5, 6]),
        (("--connector", "one"), [1, 2, 5]),
        (("--connector", "two", "--after", "5"), [6]),
        (("--connector", "two", "-t", "CredentialsIssued"), []),
    ],
)
def test_list_filters(cli, history, filters, numbers) -> None:
    result = cli("events", "-o", "json", *filters)
    assert [one["seq"] for one in json.loads(result.stdout)] == numbers
    assert result.stderr == ("" if numbers else "No event matches.\n")


def test_of_a_connector_that_is_gone(cli, history) -> None:
    cli("connector", "delete", "one")
    assert [one["seq"] for one in logged(cli, "--connector", "one")] == [1, 2, 5, 7]


def test_an_empty_log_and_one_that_is_not_as_long(cli, history) -> None:
    result = cli("events", "--after", "10")
    assert result.stderr == "Note: the newest event is 6; there is no 10 yet.\nNo event matches.\n"


def test_what_was_dropped_is_told(cli, history, home) -> None:
    drop(home, 4)
    result = cli("events", "--after", "1", "-o", "json")
    assert result.stderr == "Note: 2 events had been dropped before event 4.\n"
    assert [one["seq"] for one in json.loads(result.stdout)] == [4, 5, 6]
    assert cli("events").stderr == ""


def test_follow_in_another_process(cli, history, follow) -> None:
    process = follow("--after", "4", "-o", "json")
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [(one["seq"], one["event"]) for one in lines] == [(5, "CredentialsIssued"), (6, "ConnectorRegistered")]
    cli("connector", "delete", "two")
    line = process.stdout.readline()
    assert json.loads(line)["event"] == "ConnectorDeleted"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=ENDS) == ("", "")
    assert process.returncode == 0


def test_follow_filters_and_tells_what_was_dropped(cli, history, follow, home) -> None:
    drop(home, 3)
    process = follow("--after", "1", "-o", "json", "-t", "ConnectorDeleted", "--connector", "two")
    assert process.stderr.readline() == "Note: 1 event had been dropped before event 3.\n"
    cli("connector", "delete", "one")
    cli("connector", "delete", "two")
    assert json.loads(process.stdout.readline())["connector"] == "two"


@pytest.mark.parametrize("kind", ["yaml", "table"])
def test_follow_in_other_forms(cli, history, follow, kind) -> None:
    process = follow("--after", "5", "-o", kind)
    first = process.stdout.readline()
    if kind == "table":
        assert "ConnectorRegistered  two" in first
        return
    assert first == "---\n"
    assert process.stdout.readline() == "seq: 6\n"


def test_follow_goes_on_in_a_log_that_was_replaced(cli, history, follow) -> None:
    process = follow("--after", "99", "-o", "json")
    assert process.stderr.readline() == (
        "Note: the newest event is 6, not 99: the log was replaced; going on from there.\n"
    )
    cli("connector", "delete", "two")
    assert json.loads(process.stdout.readline())["seq"] == 7


def test_follow_from_now_on(cli, history, follow) -> None:
    process = follow("-o", "json")
    for number in range(100):  # it is on from some moment on
        cli("connector", "update", "two", "--description", str(number))
        os.set_blocking(process.stdout.fileno(), False)
        if line := process.stdout.readline():
            break
    assert json.loads(line)["event"] == "ConnectorUpdated"
    assert json.loads(line)["seq"] > 6


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_reader_that_leaves_ends_it(cli, history, follow) -> None:
    process = follow("--after", "0", "-o", "json")
    process.stdout.readline()
    process.stdout.close()
    cli("connector", "update", "two", "--description", "x")
    assert process.wait(timeout=ENDS) == 141
    assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--type", "CredentialsIsued"), "there is no event 'CredentialsIsued'; did you mean 'CredentialsIssued'?"),
        (("--type", ""), "there is no event ''"),
        (("--after", "-1"), "'--after'"),
        (("--after", "soon"), "'--after'"),
        (("--connector", "onne"), "did you mean 'one'?"),
        (("--connector", ""), "no connector is named ''"),
        (("-o", "xml"), "'-o'"),
        (("more",), "1 argument too many"),
    ],
)
@pytest.mark.parametrize("follow", [(), ("--follow",)], ids=["list", "follow"])
def test_what_is_wrong(cli, history, follow, arguments, says) -> None:
    result = cli("events", *follow, *arguments, code=2)
    assert result.stdout == ""
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
