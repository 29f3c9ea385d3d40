import json
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SYSTEM = """
import click
from mooring.hookspecs import hookimpl

class Plugin:
    @hookimpl
    def commands(self, cli):
        @cli.command()
        def hello():
            "Say hello."
            click.echo("hello from a plugin")
        @cli.command()
        def issue():
            click.echo("stolen")

plugin = Plugin()
"""
BROKEN = """
from mooring.hookspecs import hookimpl

class Plugin:
    @hookimpl
    def commands(self, cli):
        raise RuntimeError("s3cret")

plugin = Plugin()
"""


def test_help_documents_the_exit_codes(cli) -> None:
    text = cli("--help").stdout
    for code in ("0    done", "4    the vendor refused", "7    every connector failed", "130  interrupted"):
        assert code in text
    for command in ("connector", "issue", "lease", "status", "events", "audit", "plugins", "doctor", "completion"):
        assert command in text


@pytest.mark.parametrize("group", ["service-connector", "connector", "service_connector"])
def test_every_command_has_help(cli, group) -> None:
    listed = cli(group, "--help").stdout.partition("Commands:")[2].split()
    for command in ("list-types", "describe-type", "register", "list", "describe", "update", "delete", "verify"):
        assert command in listed
        assert "Usage: mooring" in cli(group, command, "-h").stdout


@pytest.mark.parametrize("arguments", [(), ("service-connector",), ("connector",)])
def test_without_arguments_the_help_is_shown(cli, arguments) -> None:
    assert cli(*arguments, code=2).stderr == cli(*arguments, "--help").stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", ["version", "connector list-types", "--help"])
def test_a_full_disk_is_said(acme, home, arguments) -> None:
    command = f"{shlex.quote(sys.executable)} -m mooring {arguments} > /dev/full"
    for columns in ("", "80"):
        environment = os.environ | {"MOORING_COLUMNS": columns}
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode, done.stderr) == (1, "Error: stdout cannot be written: No space left on device\n")


def test_unknown_commands_and_options_suggest(cli) -> None:
    assert cli("conector", "list", code=2).stderr.startswith("Error: no command 'conector'; did you mean 'connector'?")
    assert "did you mean 'list'?" in cli("connector", "lisst", code=2).stderr
    result = cli("connector", "list", "--labell", "x", code=2)
    assert result.stderr.startswith("Error: No such option")
    assert "--label" in result.stderr
    assert result.stderr.endswith("see: mooring connector list --help\n")
    assert cli("connector", "describe", code=2).stderr.startswith("Error: Missing argument")


def test_plugins_add_commands_but_replace_none(cli, install, registered) -> None:
    install("mooring-hello", "[mooring.system]\nhello = hello_plugin:plugin\n", {"hello_plugin": SYSTEM})
    result = cli("hello")
    assert result.stdout == "hello from a plugin\n"
    assert "adds a command 'issue', which there is; left out" in result.stderr
    assert "Say hello." in cli("--help").stdout
    assert "robot" in cli("issue", "one", "-r", "acme-bucket", "-i", "a").stdout


def test_a_broken_system_plugin_breaks_nothing(cli, install, registered) -> None:
    points = "[mooring.system]\nbad = bad_plugin:plugin\nworse = worse_plugin:plugin\n"
    install("mooring-bad", points, {"bad_plugin": BROKEN, "worse_plugin": "1 / 0\n"})
    for arguments in (("connector", "list"), ("issue", "one", "-r", "acme-bucket", "-i", "a"), ("version",)):
        assert cli(*arguments).stderr == ""
    result = cli("--help")
    assert "bad' could not add its commands: RuntimeError" in result.stderr
    assert "Warning: the plugin 'worse' of mooring-bad is broken" in result.stderr
    assert "s3cret" not in result.output
    assert cli("helo", code=2).stderr.splitlines()[-1].startswith("Error: no command 'helo'")
    plugins = {one["name"]: one for one in json.loads(cli("plugins", "-o", "json").stdout)}
    assert plugins["acme"]["error"] is None
    assert plugins["acme"]["powers"] == [
        "units",
        "lift",
        "lift_all",
        "explain",
        "render",
        "environment",
        "serve",
        "login",
        "logout",
        "undo",
    ]
    assert "ZeroDivisionError" in plugins["worse"]["error"]
    assert "ZeroDivisionError" in cli("plugins").stdout


def test_version(cli) -> None:
    about = yaml.safe_load(cli("version", "-o", "yaml").stdout)
    assert about["mooring-acme"] == "1.0"
    assert cli("--version").stdout == f"mooring {about['mooring']}\n"


def test_python_dash_m(process) -> None:
    assert process("--version").stdout.startswith("mooring ")


def test_a_reader_that_leaves_is_no_traceback(acme, home) -> None:
    command = f"{shlex.quote(sys.executable)} -m mooring connector describe-type acme | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_tables_fit_a_given_width(cli, registered, monkeypatch: pytest.MonkeyPatch) -> None:
    cli(
        "connector",
        "update",
        "one",
        "--label=a-rather-long-label=with-a-value",
        "--label=b=c",
        "--description",
        "word " * 30,
    )
    monkeypatch.setenv("MOORING_COLUMNS", "80")
    for command in (
        *("connector list", "connector list-types", "connector list-resources", "connector describe one"),
        *("connector describe-type acme", "connector verify one", "plugins", "version"),
    ):
        text = cli(*command.split()).stdout
        assert max(map(len, text.splitlines())) <= 80, text
        assert "\x1b" not in text
    short = re.search(r"\b[0-9a-f]{8}\b", cli("connector", "list").stdout)[0]
    assert json.loads(cli("connector", "describe", short, "-o", "json").stdout)["name"] == "one"


def test_narrow_tables_break_no_name(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    name, owner = "a-connector-with-a-rather-long-name", "somebody@some-machine.example"
    add = ("connector", "register", name, "-t", "acme", "-a", "key", "--token=-", "--owner", owner, "-l", "team=ml")
    cli(*add, "--no-verify", input="s3cret")
    wide = cli("connector", "list-resources").stdout
    assert "CONNECTOR NAME" in wide
    assert "EXPIRES IN" in cli("connector", "list").stdout
    for columns in ("60", "80"):
        monkeypatch.setenv("MOORING_COLUMNS", columns)
        text = cli("connector", "list").stdout
        assert "EXPIRES" not in text
        assert max(map(len, text.splitlines())) <= int(columns), text
        for word in (name, owner, "acme-bucket", "acme-account", "<multiple>", "team=ml"):
            assert word in text, text
        text = cli("connector", "list-resources").stdout
        assert "CONNECTOR" not in text
        for word in (name, "acme-bucket", "acme-account", "second", "4711"):
            assert word in text, text


def test_a_pipe_gets_whole_ids_and_no_control_characters(cli) -> None:
    add = ("connector", "register", "one", "-t", "acme", "-a", "key", "--token=-", "--mode=escape")
    result = cli(*add, input="s3cret")
    assert "\x1b" not in result.output
    assert "second line" in result.stdout
    assert "\\u001b" in cli("connector", "list-resources", "-o", "json").stdout


def test_errors_of_the_store_and_the_vault(cli, registered, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORING_MASTER_KEY", "k1:" + "A" * 43 + "=")
    assert cli("connector", "verify", "one", code=6).stderr.startswith("Error: the secret is sealed under master key")
    monkeypatch.setenv("MOORING_MASTER_KEY", "nonsense")
    assert cli("connector", "verify", "one", code=6).stderr.startswith("Error: master key 1 in MOORING_MASTER_KEY")
    monkeypatch.setenv("MOORING_STORE", "nowhere://x")
    assert cli("connector", "list", code=5).stderr.startswith("Error: no installed plugin serves a store")
    monkeypatch.delenv("MOORING_STORE")
    (home / "mooring.db").write_text("this is no database, and it is long enough to be looked at" * 20)
    assert cli("connector", "list", code=5).stderr.startswith("Error: ")


def checks(cli, *arguments: str, code: int = 0) -> dict[str, tuple[str, str]]:
    found = json.loads(cli("doctor", "-o", "json", *arguments, code=code).stdout)
    return {one["check"]: (one["status"], one["detail"]) for one in found}


def test_doctor_on_a_fresh_machine(cli, home: Path) -> None:
    found = checks(cli)
    assert found["master key"] == ("ok", f"none yet; {home / 'master.key'} is made with the first secret")
    assert found["file modes"][0] == "ok"
    assert found["plugin acme"] == ("ok", "mooring-acme 1.0")
    assert found["clock"][0] == "skip"
    assert not (home / "master.key").exists()


def test_doctor_asks_every_connector(cli, registered) -> None:
    found = checks(cli)
    assert found["connector one"] == ("ok", "accepted as robot")
    assert (found["clock"][0], found["store"][0]) == ("ok", "ok")
    cli("connector", "update", "one", "--mode=deny", "--no-verify")
    found = checks(cli, code=7)
    assert found["connector one"] == ("fail", "acme does not accept the token; give another")
    assert "connector one" not in checks(cli, "--offline")


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_doctor_finds_open_files(cli, registered, home: Path) -> None:
    (home / "mooring.db").chmod(0o644)
    (home / "master.key").chmod(0o640)
    home.chmod(0o755)
    result = cli("doctor", "--offline", code=7)
    for part in (f"chmod 600 {home / 'mooring.db'}", f"chmod 600 {home / 'master.key'}", f"chmod 700 {home}"):
        assert part in result.stdout
    for path, mode in ((home / "mooring.db", 0o600), (home / "master.key", 0o600), (home, 0o700)):
        path.chmod(mode)
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert checks(cli, "--offline")["file modes"][0] == "ok"


def test_doctor_tells_of_a_lost_key_without_a_vendor(cli, registered, home: Path) -> None:
    assert checks(cli, "--offline")["seals"] == ("ok", "1 seal opened")
    (home / "master.key").unlink()
    status, detail = checks(cli, "--offline", code=7)["seals"]
    assert (status, detail.partition(":")[0]) == ("fail", "1 of 1 closed")
    assert "restore its file" in detail
    assert not (home / "master.key").exists()


def test_doctor_tells_of_a_wrong_key_and_a_lost_clock(cli, registered, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime, timedelta

    class Earlier(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(UTC) - timedelta(hours=1)

    monkeypatch.setattr("mooring.cli._doctor.datetime", Earlier)
    monkeypatch.setenv("MOORING_MASTER_KEY", "k1:" + "A" * 43 + "=")
    found = checks(cli, code=7)
    assert found["clock"][0] == "fail"
    assert found["clock"][1].startswith("60 minutes behind what is stored")
    assert found["connector one"][0] == "fail"
    assert "sealed under master key" in found["connector one"][1]
    monkeypatch.setenv("MOORING_MASTER_KEY", "k1:short")
    assert checks(cli, "--offline", code=7)["master key"][0] == "fail"


def test_doctor_warns_of_limits_that_there_are_none(cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def limits(text: str) -> list[tuple[str, str]]:
        monkeypatch.setenv("MOORING_LIMITS", text)
        checks = json.loads(cli("doctor", "--offline", "-o", "json").stdout)
        return [(one["status"], one["detail"]) for one in checks if one["check"] == "limits"]

    assert limits("") == []
    assert limits("acme-api.rate=5,service.at_once=none") == [("ok", "2 limits changed by MOORING_LIMITS")]
    (warning,) = limits("acme-app.rate=5,vendor.at_once=3")
    assert warning == (
        "warn", "MOORING_LIMITS names 'acme-app', and no limit is called that; did you mean 'acme-api'?",
    )  # fmt: skip
