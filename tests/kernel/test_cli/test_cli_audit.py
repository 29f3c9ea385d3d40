"""`mooring audit`: what it lists, what it notices, and whose secret it finds; the secret itself is shown nowhere."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

FIRST = ("-r", "acme-bucket", "-i", "first")
CANARY = "c4nary+p4ss/word=="


@pytest.fixture
def history(cli, registered, monkeypatch) -> str:
    """A connector was registered, credentials issued to two, and refused once; the lease."""
    monkeypatch.setenv("ACME_GIVES", CANARY)
    lease = json.loads(cli("issue", "one", *FIRST).stdout)["lease"]
    cli("issue", "one", *FIRST, "--consumer", "job-7")
    cli("connector", "update", "one", "--mode=deny", "--no-verify")
    cli("issue", "one", "-r", "acme-account", code=4)
    return lease


def entries(cli, *arguments: str) -> list[dict[str, Any]]:
    return json.loads(cli("audit", "list", "-o", "json", *arguments).stdout)


def verified(cli, *arguments: str, code: int = 0) -> dict[str, Any]:
    return json.loads(cli("audit", "verify", "-o", "json", *arguments, code=code).stdout)


def tamper(home: Path, statement: str) -> None:
    with closing(sqlite3.connect(home / "mooring.db", isolation_level=None)) as connection:
        connection.execute(statement)


def test_list(cli, history) -> None:
    text = cli("audit", "list").stdout
    assert text.splitlines()[0].split() == [
        *("NUMBER", "AT", "ACTION", "OUTCOME", "CONSUMER", "BY", "CONNECTOR", "RESOURCE", "LEASE")
    ]
    assert CANARY not in text
    found = entries(cli)
    assert [(one["seq"], one["action"], one["outcome"]) for one in found] == [
        (1, "register", "ok"),
        (2, "verify", "ok"),
        (3, "issue", "ok"),
        (4, "issue", "ok"),
        (5, "update", "ok"),
        (6, "issue", "AuthFailed"),
    ]
    assert "marks" not in found[2]
    assert yaml.safe_load(cli("audit", "list", "-o", "yaml").stdout)[2]["lease"] == history


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        (("--after", "4"), [5, 6]),
        (("--after", "99"), []),
        (("--action", "issue"), [3, 4, 6]),
        (("--consumer", "job-7"), [4]),
        (("--connector", "one", "--action", "update"), [5]),
        (("--connector", "two"), []),
    ],
)
def test_list_filters(cli, history, filters, numbers) -> None:
    result = cli("audit", "list", "-o", "json", *filters)
    assert [one["seq"] for one in json.loads(result.stdout)] == numbers
    assert result.stderr == ("" if numbers else "No entry matches.\n")


def test_of_one_lease(cli, history) -> None:
    assert [one["seq"] for one in entries(cli, "--lease", history[:8])] == [3, 4]
    assert entries(cli, "--lease", "") == []


def test_an_empty_log_is_whole(cli) -> None:
    assert cli("audit", "list").stderr == "The audit log is empty.\n"
    assert verified(cli) == {"entries": 0, "digest": "0" * 64, "problems": []}


def test_verify_and_expect(cli, history) -> None:
    early = verified(cli)
    cli("connector", "delete", "one")
    late = verified(cli, "--expect", early["digest"].upper())
    assert (early["entries"], late["entries"], late["problems"]) == (6, 7, [])
    assert early["digest"] != late["digest"]
    text = cli("audit", "verify").stdout
    assert late["digest"] in text
    assert "problems  none" in text
    assert yaml.safe_load(cli("audit", "verify", "-o", "yaml").stdout) == late
    assert "no entry has the digest" in verified(cli, "--expect", "0" * 64, code=7)["problems"][0]


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            "UPDATE audit SET body = CAST(replace(CAST(body AS TEXT), 'job-7', 'job-8') AS BLOB)",
            "entry 4 is not as it was written",
        ),
        ("DELETE FROM audit WHERE seq = 3", "entries 3 to 3 are missing"),
        ("DELETE FROM audit WHERE seq = 6", "the log ends with entry 5, but entry 6 was signed as its end"),
        ("DELETE FROM audit_seal", "the end of the log is not signed"),
        ("UPDATE audit_seal SET signature = zeroblob(32)", "the signature of its end is not ours"),
    ],
)
def test_what_was_tampered_with_is_noticed(cli, history, home, statement, says) -> None:
    kept = verified(cli)["digest"]
    tamper(home, statement)
    assert says in verified(cli, code=7)["problems"][0]
    assert says in cli("audit", "verify", code=7).stdout
    verified(cli, "--expect", kept, code=7)


def test_trace(cli, history) -> None:
    result = cli("audit", "trace", "-", input=f"{CANARY}\n")
    assert (history in result.stdout, "active" in result.stdout, result.stderr) == (True, True, "")
    (found,) = json.loads(cli("audit", "trace", "-o", "json", input=CANARY).stdout)
    assert (found["seq"], found["lease"], found["lease_state"]) == (3, history, "active")
    cli("lease", "revoke", history, code=7)
    (found,) = yaml.safe_load(cli("audit", "trace", "-o", "yaml", input=CANARY).stdout)
    assert found["lease_state"] == "released"


def test_trace_of_a_file(cli, history, tmp_path) -> None:
    (tmp_path / "found").write_text(f"{CANARY}\n")
    assert history in cli("audit", "trace", f"@{tmp_path / 'found'}").stdout


def test_trace_of_what_nobody_was_given(cli, history) -> None:
    result = cli("audit", "trace", "-", "-o", "json", input="0ther")
    assert (result.stdout, result.stderr) == ("[]\n", "No hand-out of it is on record.\n")


@pytest.mark.parametrize("options", [(), ("-o", "json"), ("-o", "yaml"), ("--debug",)])
def test_the_secret_is_shown_nowhere(cli, history, options) -> None:
    assert CANARY not in cli("audit", "trace", *options, input=CANARY).output
    assert CANARY not in cli("audit", "trace", CANARY, *options, code=2).output
    assert CANARY not in cli("audit", "trace", "-", CANARY, *options, code=2).output


@pytest.mark.parametrize(
    ("arguments", "given", "says"),
    [
        (("trace", CANARY), "", "a secret on the command line can be seen by others; give it as - (standard input)"),
        (("trace", f"@@{CANARY}"), "", "a secret on the command line can be seen by others"),
        (("trace", f"--secret={CANARY}"), "", "No such option"),
        (("trace",), "", "field 'secret' was to be read, but there is nothing"),
        (("trace", "-"), b"\xff\xfe", "field 'secret' cannot be read from standard input: it is not text in UTF-8"),
        (("trace", "@/no/such/file"), "", "the file for field 'secret' cannot be read: No such file or directory"),
        (("verify", "--expect", "abc"), "", "--expect is no digest; give the 64 hexadecimal digits"),
        (("verify", "--expect", ""), "", "--expect is no digest"),
        (("list", "--after", "-1"), "", "'--after'"),
        (("list", "--after", "x"), "", "'--after'"),
        (("lst",), "", "did you mean 'list'?"),
    ],
)
def test_what_is_wrong(cli, history, arguments, given, says) -> None:
    result = cli("audit", *arguments, code=2, input=given)
    assert result.stdout == ""
    assert says in result.stderr
    assert CANARY not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_doctor_looks_at_the_audit_log(cli, history, home) -> None:
    def found() -> dict[str, str]:
        checks = json.loads(cli("doctor", "--offline", "-o", "json", code=None).stdout)
        return {one["check"]: f"{one['status']} {one['detail']}" for one in checks}

    assert found()["audit log"] == "ok 6 entries, as they were written"
    tamper(home, "DELETE FROM audit WHERE seq = 3")
    assert found()["audit log"].startswith("fail ")
    assert "mooring audit verify" in found()["audit log"]
