"""`register -i` and `secret create -i`, on a real pseudo-terminal: what is asked, what is not, and how it ends."""

import json
import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from mooring.cli._broker import with_broker
from mooring.cli._edge import Run
from mooring.cli._guided import PAGE, Guide

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal"),
    pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning"),
]
CANARY = "c4nary+p4ss/word=="
REGISTER = ("connector", "register", "-i")
MANUAL = [
    ("connector type", "acme"),
    ("name", "one"),
    ("auth method", "1"),
    ("token", CANARY),
    ("field to set", ""),
    ("resource type", ""),
    ("Register it?", ""),
]
"""Everything that is asked of a connector, with what to answer."""


def told_command(shown: str) -> list[str]:
    """The command that is said to do the same."""
    found = re.search(r"The same without questions:\n  mooring (.*)\n", shown)
    assert found, shown
    return shlex.split(found[1])


def described(cli, name: str) -> dict:
    """A connector as it is stored, but for what no two have in common."""
    data = json.loads(cli("connector", "describe", name, "-x", "-o", "json").stdout)
    return {key: value for key, value in data.items() if key not in ("id", "created_at", "updated_at", "expires_at")}


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
def test_everything_is_asked_for_and_the_command_does_the_same(cli, terminal, term: str) -> None:
    screen = terminal(*REGISTER, TERM=term)
    assert "1) acme  (Acme Cloud)" in screen.answer("connector type", "acme")
    screen.answer("name", "one")
    assert "1) key  (By token)" in screen.answer("auth method", "key")
    screen.answer("token (the token, not shown)", CANARY)
    assert "port  (443 unless set)" in screen.answer("field to set", "tags")
    screen.answers([("tags (key=value", "team=a b"), ("tags", "it='s"), ("tags", "")])
    screen.answer("field to set", "insecure")
    screen.answers([("insecure", "y"), ("field to set", "regions"), ("regions", "north"), ("regions", "west")])
    screen.answers(
        [("regions", ""), ("field to set", ""), ("resource type", "acme-bucket"), ("resource id", "acme://first")]
    )
    summary = screen.answer("Register it?")
    assert "token        ********\n" in summary
    assert "tags         team=a b, it='s\n" in summary
    assert "reaches      acme-bucket acme://first\n" in summary
    assert screen.end() == 0
    assert CANARY not in screen.shown
    assert "Asking Acme Cloud whether it accepts it" in screen.shown
    if term == "dumb":
        assert "\x1b" not in screen.shown
    first = described(cli, "one")
    assert first["configuration"]["token"] == CANARY
    assert (first["configuration"]["regions"], first["resource_id"]) == (["north", "west"], "first")
    words = told_command(screen.shown)
    assert CANARY not in " ".join(words)
    cli("connector", "delete", "one", "--yes")
    cli(*words, input=CANARY)
    assert described(cli, "one") == first


def test_the_command_asks_on_a_terminal_for_each_secret(cli, terminal) -> None:
    words = ("connector", "register", "one", "-t", "acme", "-a", "key", "--token=-", "--backup-token=-")
    screen = terminal(*words)
    screen.answers([("token", CANARY), ("backup_token", "other")])
    assert screen.end() == 0
    assert described(cli, "one")["configuration"]["backup_token"] == "other"


def test_a_wrong_answer_is_told_at_once_and_asked_again(cli, registered, terminal) -> None:
    screen = terminal(*REGISTER)
    screen.answers([("connector type", "99"), ("connector type", "0"), ("connector type", "\N{SUPERSCRIPT TWO}")])
    assert "Error: give a number from 1 to" in screen.answer("connector type", "acme")
    screen.answer("name", "no name")
    assert "Error: a connector's name is 1 to 128 letters" in screen.answer("name", "one")
    assert "Error: a connector named 'one' exists already" in screen.answer("name", "t\x1b[Awo")
    assert "Error: it has control characters" in screen.answer("name", "two")
    screen.answer("auth method", "key")
    screen.answer("token")
    assert "Error: an answer is needed" in screen.answer("token", "-----BEGIN KEY-----")
    assert "Error: it has several lines; give it as @FILE" in screen.answer("token", "@/nowhere/at/all")
    assert "Error: the file for field 'token' cannot be read" in screen.answer("token", "-")
    assert "Error: type the value itself, or @FILE" in screen.answer("token", "@@" + CANARY)
    screen.answers([("field to set", "port"), ("port [443]", CANARY)])
    again = screen.answer("port [443]", "8443")
    assert "Error: field 'port' is malformed: expected `int`" in again
    assert CANARY not in again.partition("\n")[2]
    assert "6) port  (now 8443)" in screen.answer("field to set")
    screen.answers([("resource type", "1000"), ("resource type", "acme-bucket"), ("resource id", "bad??")])
    assert "Error: not an id of acme-bucket; write NAME" in screen.answer("resource id")
    screen.answer("Register it?", "maybe")
    assert "Error: answer y or n" in screen.answer("Register it?")
    assert screen.end() == 0
    configuration = described(cli, "two")["configuration"]
    assert (configuration["token"], configuration["port"]) == ("@" + CANARY, 8443)


@pytest.mark.parametrize("stop", range(len(MANUAL)), ids=[prompt for prompt, _ in MANUAL])
def test_ctrl_c_leaves_nothing_behind(cli, home: Path, terminal, stop: int) -> None:
    screen = terminal(*REGISTER)
    screen.answers(MANUAL[:stop])
    screen.asked(MANUAL[stop][0])
    screen.press(b"\x03")
    assert screen.end() == 130
    assert screen.shown.endswith("\nAborted, nothing was registered.\n")
    assert not home.exists()
    assert json.loads(cli("connector", "list", "-o", "json").stdout) == []


def test_ctrl_c_while_the_vendor_is_asked_leaves_nothing_behind(cli, terminal, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ACME_SLOW", str(tmp_path / "slow"))
    screen = terminal(*REGISTER, "--mode=wait")
    screen.answers(MANUAL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "slow").exists():
        assert time.monotonic() < deadline, screen.shown
        time.sleep(0.01)
    screen.press(b"\x03")
    assert screen.end() == 130
    assert screen.shown.endswith("Aborted, nothing was registered.\n")
    assert json.loads(cli("connector", "list", "-o", "json").stdout) == []


@pytest.mark.parametrize("stop", range(len(MANUAL)), ids=[prompt for prompt, _ in MANUAL])
def test_the_end_of_the_input_is_an_error(cli, terminal, process, stop: int) -> None:
    screen = terminal(*REGISTER)
    screen.answers(MANUAL[:stop])
    what = {"name": "name", "token": "token", "auth method": "auth method"}.get(MANUAL[stop][0], MANUAL[stop][0])
    screen.asked(MANUAL[stop][0])
    screen.press(b"\x04")
    assert screen.end() == 2
    says = rf"Error: the input ended before {re.escape(what)}.* was given; nothing was registered\n"
    assert re.search(says, screen.shown), screen.shown
    lines = "".join(f"{text}\n" for _, text in MANUAL[:stop])
    done = process(*REGISTER, input=lines, code=2)
    assert re.search(says + "$", done.stderr), done.stderr
    assert CANARY not in done.stderr
    assert json.loads(cli("connector", "list", "-o", "json").stdout) == []


def test_answers_may_come_from_a_pipe_where_a_wrong_one_ends_it(cli, process) -> None:
    lines = [text for _, text in MANUAL]
    done = process(*REGISTER, "-o", "json", input="\n".join(lines) + "\n")
    assert json.loads(done.stdout)["name"] == "one"
    assert described(cli, "one")["configuration"]["token"] == CANARY
    wrong = ["acme", "two", "no such method", CANARY, CANARY]
    done = process(*REGISTER, input="\n".join(wrong) + "\n", code=2)
    end = "Error: auth method: give a number from 1 to 2, or a name; nothing was registered\n"
    assert done.stderr.endswith(end)
    assert CANARY not in done.stderr
    denied = process(*REGISTER, "--mode=deny", input="\n".join(["acme", "two", *lines[2:]]) + "\n", code=4)
    assert denied.stderr.endswith("Error: acme does not accept the token; give another\n")
    assert [one["name"] for one in json.loads(cli("connector", "list", "-o", "json").stdout)] == ["one"]


def test_what_the_vendor_refuses_is_asked_again_and_nothing_else(cli, terminal) -> None:
    screen = terminal(*REGISTER, "--mode=deny")
    screen.answers(MANUAL)
    menu = screen.answer("what to change [token]", "mode")
    assert "Error: acme does not accept the token; give another" in menu
    assert "1) token  (the token; now ********)" in menu
    assert json.loads(cli("connector", "list", "-o", "json").stdout) == []
    screen.answer("mode [ok]", "ok")
    assert screen.end() == 0
    assert screen.shown.count("name (") == screen.shown.count("token (the token, not shown)") == 1
    assert "Registered the connector 'one'" in screen.shown
    assert "--mode=ok" in told_command(screen.shown)


def test_a_field_that_an_error_names_is_asked_again_at_once(cli, terminal) -> None:
    cli("secret", "create", "db", "port=-", input="not a number")
    screen = terminal(*REGISTER, "--port={{db.port}}")
    screen.answers(MANUAL)
    assert "Error: field 'port' is malformed" in screen.answer("port [443]", "1")
    assert screen.end() == 0
    assert "what to change" not in screen.shown
    assert described(cli, "one")["configuration"]["port"] == 1


@pytest.mark.parametrize(("chosen", "code"), [("do not verify", 0), ("give up", 130)])
def test_what_is_refused_may_be_kept_unverified_or_given_up(cli, terminal, chosen: str, code: int) -> None:
    screen = terminal(*REGISTER, "--mode=deny")
    screen.answers([*MANUAL, ("what to change", chosen)])
    assert screen.end() == code
    names = [one["name"] for one in json.loads(cli("connector", "list", "-o", "json").stdout)]
    if code:
        assert screen.shown.endswith("Nothing was registered.\n")
        assert names == []
    else:
        assert names == ["one"]
        assert "--no-verify" in told_command(screen.shown)


def test_what_was_given_is_not_asked_for(cli, terminal, tmp_path) -> None:
    (tmp_path / "token").write_text(CANARY + "\n")
    options = ("one", "--type=acme", "-a", "role", f"--token=@{tmp_path}/token", "-r", "acme-bucket", "-l", "team=ml")
    screen = terminal(*REGISTER, *options, "--ttl=90m", "--no-verify", "--description=for all of us")
    screen.answers([("role", "-r"), ("Register it?", "")])
    assert screen.end() == 0
    words = told_command(screen.shown)
    given = {"--role=-r", f"--token=@{tmp_path}/token", "--label=team=ml", "--ttl=1h30m", "--no-verify"}
    assert given | {"--description=for all of us", "--resource-type=acme-bucket"} < set(words)
    first = described(cli, "one")
    assert (first["ttl"], first["labels"]) == ("PT5400S", {"team": "ml"})
    cli("connector", "delete", "one", "--yes")
    cli(*words)
    assert described(cli, "one") == first


def test_what_the_machine_has_is_offered(cli, terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_TOKEN", CANARY)
    screen = terminal(*REGISTER, "one", "-t", "acme", "--regions=south")
    found = screen.answer("Take it?")
    assert "This machine has what it takes: the auth method 'key', from the environment (ACME_TOKEN).\n" in found
    screen.answer("resource type")
    assert "from         the environment (ACME_TOKEN)\n" in screen.answer("Register it?")
    assert screen.end() == 0
    assert CANARY not in screen.shown
    first = described(cli, "one")
    assert first["configuration"] == {"token": CANARY, "regions": ["south"]}
    words = told_command(screen.shown)
    assert "--auto-configure" in words
    cli("connector", "delete", "one", "--yes")
    cli(*words)
    assert described(cli, "one") == first
    screen = terminal(*REGISTER, "two", "-t", "acme")
    screen.answers([("Take it?", "n"), ("auth method", "key"), ("token", "other"), ("field to set", "")])
    screen.answers([("resource type", ""), ("Register it?", "n"), ("what to change", "the name"), ("name", "three")])
    screen.answer("Register it?")
    assert screen.end() == 0
    assert described(cli, "three")["configuration"]["token"] == "other"
    assert "--auto-configure" not in told_command(screen.shown)


def test_what_was_taken_from_the_machine_may_be_changed(cli, terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_TOKEN", CANARY)
    screen = terminal(*REGISTER, "one", "-t", "acme", "--auto-configure")
    screen.answers([("resource type", ""), ("Register it?", "n"), ("what to change", "port"), ("port", "1")])
    assert "from " not in screen.answer("Register it?")
    assert screen.end() == 0
    assert described(cli, "one")["configuration"] == {"token": CANARY, "port": 1}
    assert {"--auth-method=key", "--token=-", "--port=1"} <= set(told_command(screen.shown))


def test_all_and_one_do_not_go_together(cli) -> None:
    result = cli(*REGISTER, "-t", "acme", "--auto-configure", "--all", code=2)
    assert result.stderr == "Error: -i is about one connector, --all about many; give one of them\n"


def test_an_interruption_that_came_too_late_says_that_it_is_stored(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(run, store, *_: object, **__: object) -> None:
        with_broker(run, store)
        raise KeyboardInterrupt

    monkeypatch.setattr("mooring.cli._register_guide.store_and_show", late)
    result = cli(*REGISTER, input="".join(f"{text}\n" for _, text in MANUAL), code=130)
    assert result.stderr.endswith("Interrupted; the connector 'one' is stored.\n")
    assert described(cli, "one")["configuration"]["token"] == CANARY


# -- secrets ----------------------------------------------------------------------------------------------------------

CREATE = ("secret", "create", "-i")
SECRET = [("name", "db"), ("key", "user"), ("value of user", CANARY), ("key", ""), ("Create it?", "")]


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
def test_a_secret_is_asked_for(cli, terminal, term: str) -> None:
    screen = terminal(*CREATE, "host=here", TERM=term)
    screen.answer("name", "no name")
    assert "Error: a secret's name is 1 to 128 letters" in screen.answer("name", "db")
    screen.answer("key", "1st")
    assert "Error: the key '1st' is none" in screen.answer("key", "host")
    assert "Error: the key 'host' was given already" in screen.answer("key", "user")
    screen.answer("value of user")
    assert "Error: an answer is needed" in screen.answer("value of user", CANARY)
    screen.answer("key", "user")
    assert "Error: the key 'user' was given already" in screen.answer("key")
    assert "  user  ********\n" in screen.answer("Create it?")
    assert screen.end() == 0
    assert CANARY not in screen.shown
    assert cli("secret", "get", "db", "-k", "user").stdout == CANARY + "\n"
    words = told_command(screen.shown)
    assert words == ["secret", "create", "db", "host=-", "user=-"]
    cli("secret", "delete", "db", "--yes")
    again = terminal(*words)
    again.answers([("host", "there"), ("user", CANARY)])
    assert again.end() == 0
    assert cli("secret", "get", "db", "-k", "user").stdout == CANARY + "\n"
    taken = cli(*CREATE, "db", code=2)
    assert taken.stderr.endswith("Error: a secret named 'db' exists already; choose another name, or update it\n")


@pytest.mark.parametrize("stop", range(len(SECRET)))
@pytest.mark.parametrize(("key", "code"), [(b"\x03", 130), (b"\x04", 2)])
def test_an_interrupted_secret_is_none(cli, terminal, stop: int, key: bytes, code: int) -> None:
    screen = terminal(*CREATE)
    screen.answers(SECRET[:stop])
    screen.asked(SECRET[stop][0])
    screen.press(key)
    assert screen.end() == code
    end = "Aborted, nothing was created.\n" if code == 130 else "was given; nothing was created\n"
    assert screen.shown.endswith(end), screen.shown
    assert json.loads(cli("secret", "list", "-o", "json").stdout) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_terminal_shows_again_what_is_typed_whatever_ends_the_prompt(cli, terminal, number: int) -> None:
    screen = terminal(*CREATE)
    screen.answers(SECRET[:2])
    screen.asked("value of user")
    deadline = time.monotonic() + 30
    while screen.echoes():
        assert time.monotonic() < deadline
    screen.kill(number)
    assert screen.wait() == -number
    assert screen.echoes()


def test_a_secret_that_is_updated_keeps_what_it_had_if_interrupted(cli, terminal) -> None:
    cli("secret", "create", "db", "user=-", input="before")
    for key, code, value in ((b"\x03", 130, "before"), (b"\n", 0, CANARY)):
        screen = terminal("secret", "update", "db", "-i")
        screen.answers([("key", "user"), ("value of user", CANARY)])
        screen.asked("key")
        screen.press(key)
        assert screen.end() == code
        assert ("Aborted, nothing was changed.\n" in screen.shown) == (code == 130)
        assert CANARY not in screen.shown
        assert cli("secret", "get", "db", "-k", "user").stdout == f"{value}\n"


def test_a_secret_from_a_pipe(process, cli) -> None:
    process(*CREATE, input="".join(f"{text}\n" for _, text in SECRET))
    assert cli("secret", "get", "db", "-k", "user").stdout == CANARY + "\n"
    process(*CREATE, input="other\n\n", code=2)
    assert len(json.loads(cli("secret", "list", "-o", "json").stdout)) == 1


# -- long lists -------------------------------------------------------------------------------------------------------


class Person:
    """Standard input with somebody at it, who has made up their mind."""

    def __init__(self, *lines: str) -> None:
        self._lines = list(lines)

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return f"{self._lines.pop(0)}\n"


def test_many_choices_are_shown_in_pages_and_found_by_a_part_of_the_name(monkeypatch, capsys) -> None:
    choices = [(f"bucket-{number:03}", "") for number in range(1, 51)]

    def chosen(*lines: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", Person(*lines))
        return Guide(Run(), "nothing was done").choose("resource", choices), capsys.readouterr().err

    name, shown = chosen("7")
    assert (name, shown.count("bucket-"), f"... 1 to {PAGE} of 50\n" in shown) == ("bucket-007", PAGE, True)
    name, shown = chosen("", "", "", "bucket-050")
    assert (name, shown.count("bucket-"), "... 41 to 50 of 50\n" in shown) == ("bucket-050", 3 * PAGE - 10 + PAGE, True)
    name, shown = chosen("04", "zzz", "45")
    assert (name, "40) bucket-040\n" in shown, "... 1 to 11 of 11\n" in shown) == ("bucket-045", True, True)
    assert "Error: no name has that in it" in shown
    assert "zzz" not in shown


def test_a_line_that_the_terminal_has_cut_is_refused(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", Person("x" * 4095, "x" * 4094))
    assert len(Guide(Run(), "nothing was done").ask("word", str)) == 4094
    assert "a terminal takes no longer line; give it as @FILE" in capsys.readouterr().err
