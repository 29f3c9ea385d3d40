import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from mooring.types import instant

FIRST = ("-r", "acme-bucket", "-i", "acme://first")
PROBE = """
import sys
sys.argv = ["mooring", *sys.argv[1:]]
from mooring.cli import main
try:
    main()
finally:
    heavy = ("rich", "yaml", "httpx", "structlog", "botocore", "mooring_aws", "mooring_sandbox")
    print(*(name for name in heavy if name in sys.modules), file=sys.stderr)
"""


def test_issue_prints_credentials_and_the_facts_about_them(cli, registered) -> None:
    result = cli("issue", "one", *FIRST, "--ttl", "1h30m", "--access", "write", "--consumer", "job-7")
    data = json.loads(result.stdout)
    assert result.stderr == ""
    assert data["credentials"] == {"user": "robot", "password": "p4ss"}
    wanted = {"connector": "one", "resource_type": "acme-bucket", "resource_id": "first", "access": "write"}
    wanted |= {"consumer": "job-7", "kind": "acme", "narrowed": True, "clamped": [], "cached": False}
    assert {key: data[key] for key in wanted} == wanted
    assert timedelta(minutes=89) < instant(data["expires_at"]) - datetime.now(UTC) < timedelta(minutes=91)


def test_issue_says_what_was_clamped(cli, registered) -> None:
    data = yaml.safe_load(cli("issue", "one", *FIRST, "--ttl", "2d", "--format", "yaml").stdout)
    assert data["clamped"] == ["the ttl of 48h was shortened to 12h, the bound of key"]
    result = cli("issue", "one", *FIRST, "--ttl", "2d", "--format", "env")
    assert result.stderr == "Note: the ttl of 48h was shortened to 12h, the bound of key.\n"
    quiet = cli("issue", "one", *FIRST, "--ttl", "48h", "-f", "env", "--quiet")
    assert (quiet.stdout, quiet.stderr) == (result.stdout, "")
    assert "export ACME_USER=" in result.stdout


def test_issue_says_when_an_object_was_taken_as_a_prefix(cli, registered) -> None:
    note = "Note: taken as the prefix first/model.json/; a single object cannot be named.\n"
    for given in ("acme://first/model.json", "first/model.json"):
        assert cli("issue", "one", "-r", "acme-bucket", "-i", given).stderr == note
    assert cli("issue", "one", "-r", "acme-bucket", "-i", "acme://first/models/").stderr == ""


def test_issue_in_the_plugins_formats(cli, registered) -> None:
    assert cli("issue", "one", *FIRST, "--format", "lines").stdout == "ACME_USER=robot\nACME_PASSWORD=p4ss\n"
    error = cli("issue", "one", *FIRST, "--format", "toml", code=2).stderr
    known = "json, yaml, lines, env, posix, fish, powershell, dotenv"
    assert f"acme credentials are not written as 'toml'; use one of: {known}" in error


@pytest.mark.parametrize(
    ("format", "lines"),
    [
        ("env", ["unset ACME_OLD", "export ACME_USER=robot", "export ACME_PASSWORD=p4ss"]),
        ("posix", ["unset ACME_OLD", "export ACME_USER=robot", "export ACME_PASSWORD=p4ss"]),
        ("fish", ["set -e ACME_OLD", "set -gx ACME_USER 'robot'", "set -gx ACME_PASSWORD 'p4ss'"]),
        (
            "powershell",
            [
                "Remove-Item -ErrorAction Ignore Env:ACME_OLD",
                "$env:ACME_USER = 'robot'",
                "$env:ACME_PASSWORD = 'p4ss'",
            ],
        ),
        ("dotenv", ["ACME_USER=robot", "ACME_PASSWORD=p4ss"]),
    ],
)
def test_issue_in_the_formats_of_shells(cli, registered, format, lines) -> None:
    result = cli("issue", "one", *FIRST, "--format", format)
    assert (result.stdout.splitlines(), result.stderr) == (lines, "")


def test_what_needs_a_file_is_not_written_as_variables(cli, registered, monkeypatch) -> None:
    monkeypatch.setenv("ACME_FILES", "1")
    for format in ("env", "dotenv", "fish"):
        assert cli("issue", "one", *FIRST, "--format", format, code=2).stderr == (
            f"Error: acme credentials need a file (ACME_FILE), which {format!r} has no place for; "
            "use mooring exec, or one of: json, yaml, lines\n"
        )


def test_describe_type_lists_all_formats(cli) -> None:
    data = json.loads(cli("connector", "describe-type", "acme", "-o", "json").stdout)
    assert data["formats"] == ["json", "yaml", "lines", "env", "posix", "fish", "powershell", "dotenv"]


def test_issue_is_served_from_the_cache_of_another_process(process, registered) -> None:
    first, second = (json.loads(process("issue", "one", *FIRST).stdout) for _ in range(2))
    assert (first["cached"], second["cached"]) == (False, True)
    assert first["credentials"] == second["credentials"]
    assert first["expires_at"] == second["expires_at"]


@pytest.mark.parametrize(
    "arguments",
    [("issue", "one", *FIRST), ("issue", "one", *FIRST, "-f", "env"), ("exec", "one", *FIRST, "--", "true")],
    ids=["json", "env", "exec"],
)
def test_what_is_cached_is_given_with_one_plugin_and_without_rich(process, registered, arguments) -> None:
    process("issue", "one", *FIRST)
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.split() == []
    if arguments[-1] != "env" and arguments[0] == "issue":
        assert json.loads(done.stdout)["cached"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("onne", *FIRST), 2, "did you mean 'one'?"),
        (("one",), 2, "reaches several resource types; name one of: acme-bucket, acme-account"),
        (("one", "-r", "acme-bucket"), 2, "name one with --resource-id"),
        (("one", *FIRST, "--access", "own"), 2, "'--access'"),
        (("one", *FIRST, "--ttl", "soon"), 2, "not a duration"),
    ],
)
def test_issue_says_what_is_wrong(cli, registered, arguments, code, says) -> None:
    for verb in ("issue", "explain"):
        result = cli(verb, *arguments, code=code)
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert says in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_explain(cli, registered) -> None:
    text = cli("explain", "one", *FIRST, "--access", "list").stdout
    for part in ("narrowed  yes", "acme:Mint", "for you", '"on": "first"'):
        assert part in text
    data = json.loads(cli("explain", "one", *FIRST, "-o", "json").stdout)
    assert data == {
        "narrowed": True,
        "calls": ["acme:Mint"],
        "policy": {"allow": ["read"], "on": "first"},
        "notes": ["for you"],
    }
