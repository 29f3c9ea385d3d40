"""`login` and `logout`: what the plugin is asked, and what is said."""

import json
import stat
import sys
from pathlib import Path

import msgspec

FIRST = ("one", "-r", "acme-bucket", "-i", "acme://first")


def folder_of(home: Path) -> Path:
    return home / "logins" / "acme"


def test_the_plugin_gets_the_command_that_issues_and_no_secret_is_written(cli, registered, home, process) -> None:
    result = cli("login", *FIRST, "--access", "write", "--ttl", "90m", "--consumer", "me", "--name", "mine")
    file = folder_of(home) / "tool.conf"
    assert result.stdout == ""
    said = f"Wrote mine to {file}. What it was before is in b.\nNote: log in to it.\n"
    assert result.stderr == f"{said}Note: the tool needs MOORING_HOME in its environment, as it is here.\n"
    name, kind, program, *arguments = file.read_text().split("\n")
    assert (name, kind) == ("mine", "acme-bucket")
    assert Path(program).is_absolute()
    assert Path(program).parent == Path(sys.executable).parent
    assert arguments == [
        "issue", "one", "--resource-type", "acme-bucket", "--access", "write", "--quiet", "--resource-id", "first",
        "--consumer", "me", "--ttl", "1h30m",
    ]  # fmt: skip
    assert "p4ss" not in file.read_text()
    assert stat.S_IMODE(folder_of(home).stat().st_mode) == 0o700
    assert "p4ss" in process(*arguments).stdout, "the command works as it is"


def test_logout_takes_it_back_also_when_the_connector_is_gone(cli, registered, home) -> None:
    assert cli("logout", "one").stderr == "There was nothing to remove.\n"  # nobody has ever logged in
    cli("login", *FIRST)
    cli("connector", "delete", "one", "-y")
    file = folder_of(home) / "tool.conf"
    looked = f"There was nothing to remove in {file}; if login was given another file, name it with --file.\n"
    assert cli("logout", "one", "-r", "acme-account").stderr == looked
    assert cli("logout", "one").stderr == f"Removed one from {file}.\n"
    assert cli("logout", "one").stderr == looked
    named = cli("logout", "one", "--file", str(home / "other")).stderr
    assert named == f"There was nothing to remove in {home / 'other'}.\n"


def test_a_file_of_the_users_choice(cli, registered, home, tmp_path) -> None:
    file = tmp_path / "mine.conf"
    cli("login", *FIRST, "--file", str(file))
    assert file.exists()
    assert cli("logout", "one", "--file", str(file)).stderr == f"Removed one from {file}.\n"
    assert not file.exists()


def test_login_says_once_what_the_tool_s_calls_keep_quiet_about(cli, registered, home, process) -> None:
    note = "Note: the ttl of 48h was shortened to 12h, the bound of key.\n"
    assert note in cli("login", *FIRST, "--ttl", "48h").stderr
    arguments = (folder_of(home) / "tool.conf").read_text().split("\n")[3:]
    assert process(*arguments, "--format", "env").stderr == ""


def test_a_tool_that_is_told_where_the_home_is_needs_no_note(cli, registered, monkeypatch) -> None:
    from mooring.cli import _login

    real = _login.checked
    monkeypatch.setattr(
        _login, "checked", lambda *given: msgspec.structs.replace(real(*given), variables=("MOORING_HOME",))
    )
    assert "MOORING_HOME" not in cli("login", *FIRST).stderr


def test_what_the_plugin_did_not_expect_is_said(cli, registered, home) -> None:
    cli("login", *FIRST)
    (folder_of(home) / "tool.conf").write_text("no second line")
    result = cli("logout", "one", code=3)
    assert "failed in logout: IndexError" in result.stderr
    assert "report it to its author" in result.stderr


def test_a_login_and_its_failure_are_in_the_audit_log(cli, registered) -> None:
    cli("login", *FIRST, "--consumer", "me")
    cli("login", *FIRST, "--consumer", "me", code=2)
    lines = json.loads(cli("audit", "list", "--action", "login", "-o", "json").stdout)
    told = [[one[name] for name in ("consumer", "connector", "resource_id", "outcome")] for one in lines]
    assert told == [["me", "one", "first", "ok"], ["me", "one", "first", "InvalidConfig"]]
    assert "problems  none" in cli("audit", "verify").stdout


def test_what_the_plugin_refuses_is_said(cli, registered, home) -> None:
    cli("login", *FIRST)
    error = cli("login", *FIRST, code=2).stderr
    assert error == f"Error: {folder_of(home) / 'tool.conf'} has an entry already\n"
    assert "name one with --resource-id" in cli("login", "one", "-r", "acme-bucket", code=2).stderr
