"""`register --auto-configure --all`: each thing on its own, and what became of all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ALL = ("connector", "register", "--type", "acme", "--auto-configure", "--all")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    return lambda *found: monkeypatch.setenv("ACME_ALL", " ".join(found))


def stored(cli) -> list[dict]:
    return json.loads(cli("connector", "list", "-o", "json").stdout)


def test_each_thing_becomes_a_connector_and_one_that_fails_stops_no_other(cli, machine) -> None:
    machine("dev:ok", "old:deny", "odd:broken", "prod/eu:ok")
    result = cli(*ALL, "--label", "team=ml", "--owner", "ann", "--ttl", "1h", "--regions", "east")

    rows = result.stdout.splitlines()
    assert rows[0].split() == ["NAME", "ID", "TYPE", "AUTH", "METHOD", "SOURCE", "RESULT"]
    assert [row.split()[0] for row in rows[1:]] == ["dev", "old", "odd", "prod-eu"]
    assert [row.split("  ")[-1].strip() for row in rows[1:]] == [
        "registered",
        "Error: acme does not accept the token; give another",
        "Error: its file is no file; mend it",
        "registered",
    ]
    assert result.stderr == "Registered 2 connectors of 4 found.\n"
    assert [one["name"] for one in stored(cli)] == ["dev", "prod-eu"]
    for one in stored(cli):
        assert (one["labels"], one["owner"], one["ttl"]) == ({"team": "ml"}, "ann", "PT3600S")
        assert one["configuration"]["regions"] == ["east"]
    shown = json.loads(cli("connector", "describe", "prod-eu", "-x", "-o", "json").stdout)
    assert shown["configuration"]["token"] == "t0ken-prod/eu"
    assert "t0ken" not in result.output


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_as_data(cli, machine, output: str) -> None:
    import yaml

    machine("dev:ok", "old:leak")
    result = cli(*ALL, "-o", output)
    one, other = yaml.safe_load(result.stdout)
    assert (one["name"], one["source"], one["error"]) == ("dev", "the profile 'dev'", None)
    assert one["connector"]["name"] == "dev"
    assert (other["name"], other["connector"], other["error"]["error"]) == ("old", None, "Rejected")
    assert "t0ken" not in result.output


def test_a_prefix_and_names_that_clash(cli, machine) -> None:
    machine("a/b:ok", "a:b:ok", "\N{GREEK SMALL LETTER ALPHA}:ok")
    cli(*ALL, "work")
    assert [one["name"] for one in stored(cli)] == ["work-a", "work-a-b", "work-acme"]

    machine("a:ok", "new:ok")
    result = cli(*ALL, "work")
    assert "a connector named 'work-a' exists already" in result.stdout
    assert result.stderr == "Registered 1 connector of 2 found.\n"
    assert len(stored(cli)) == 4

    assert cli(*ALL, "work", code=7).stderr == "Registered 0 connectors of 2 found.\n"
    assert cli(*ALL, "no name", code=2).stderr.startswith("Error: a connector's name is")
    assert cli(*ALL, "one", "two", code=2).stderr.startswith("Error: 1 argument too many")


def test_nobody_is_asked_without_verifying(cli, machine) -> None:
    machine("old:deny", "odd:broken")
    assert cli(*ALL, "--no-verify").stderr == "Registered 1 connector of 2 found.\n"
    assert [one["name"] for one in stored(cli)] == ["old"]


def test_what_is_refused(cli, machine, install) -> None:
    nothing = cli(*ALL, code=2)
    assert nothing.stderr == "Error: there is nothing on this machine that connector type 'acme' could be made of\n"
    machine("dev:ok")
    assert cli(*ALL[:4], "--all", "-a", "key", code=2).stderr.startswith("Error: --all is for what --auto-configure")
    assert cli(*ALL, "--nonsense", "x", code=2).stderr.startswith("Error: no such option or field: --nonsense")
    assert cli(*ALL, "-a", "nope", code=2).stderr.startswith("Error: ")
    module = "from mooring.testing import example as connector"
    install(
        "mooring-example", "[mooring.connectors]\nexample = mooring_example:connector\n", {"mooring_example": module}
    )
    lacking = cli("connector", "register", "--type", "example", "--auto-configure", "--all", code=2)
    assert lacking.stderr.startswith(
        "Error: connector type 'example' cannot find everything on this machine; types that can: acme"
    )
    assert stored(cli) == []


def test_an_interruption_keeps_what_is_registered(cli, machine, tmp_path: Path) -> None:
    machine("dev:ok", "prod:wait")
    environment = {**os.environ, "ACME_SLOW": str(tmp_path / "waits")}
    command = [sys.executable, "-m", "mooring", *ALL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        end = time.monotonic() + 30
        while not (tmp_path / "waits").exists() or not stored(cli):
            assert time.monotonic() < end
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=30)
    assert run.returncode == 130
    assert [line.split("  ")[-1].strip() for line in out.splitlines()[1:]] == [
        "registered",
        "interrupted; not registered",
    ]
    assert err.endswith("Interrupted; 1 connector of 2 registered, and stored.\n")
    assert [one["name"] for one in stored(cli)] == ["dev"]
