"""What only a process of its own has: closed streams, signals, threads that hang, the end of the interpreter."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and descriptors")

HANGING = 60
"""How many seconds things hang in here; what ends in a third of that was not waited for."""
ENDS = HANGING / 3

Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(acme: None, tmp_path: Path) -> Shell:
    """Run a line of sh in which `$MOORING` is the command."""
    script = tmp_path / "mooring"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mooring "$@"\n')
    script.chmod(0o700)

    def call(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", line],
            env=os.environ | {"MOORING": str(script)} | environment,
            capture_output=True, text=True, errors="replace", check=False, timeout=ENDS,
        )  # fmt: skip

    return call


def ended(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    return done.returncode, done.stderr


REGISTER = '"$MOORING" connector register new -t acme -a key --no-verify --token'


@pytest.mark.parametrize(
    ("closed", "code", "says"),
    [
        ("<&-", 0, "Registered the connector 'new'.\n"),
        (">&-", 1, "Registered the connector 'new'.\nError: stdout cannot be written: Bad file descriptor\n"),
        ("2>&-", 0, ""),
        ("<&- >&-", 1, "Registered the connector 'new'.\nError: stdout cannot be written: Bad file descriptor\n"),
        ("<&- >&- 2>&-", 1, ""),
    ],
)
def test_closed_streams(shell: Shell, cli, home: Path, tmp_path: Path, closed: str, code: int, says: str) -> None:
    (tmp_path / "token").write_text("t0ken")
    assert ended(shell(f"{REGISTER} @{tmp_path / 'token'} {closed}")) == (code, says)
    assert json.loads(cli("connector", "list", "-o", "json").stdout)[0]["name"] == "new"
    with sqlite3.connect(home / "mooring.db") as store:  # nothing but SQLite has written to it
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert shell(f'"$MOORING" connector list-types {closed}').returncode == code
    assert shell(f'"$MOORING" connector describe nwe {closed}').returncode == 2


def test_a_closed_standard_input_holds_nothing(shell: Shell) -> None:
    error = "Error: field 'token' was to be read, but there is nothing\n"
    assert ended(shell(f"{REGISTER} - <&-")) == (2, error)


LOCALES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize("locale", LOCALES)
def test_what_stdout_cannot_show_is_escaped(shell: Shell, cli, registered: str, locale: str) -> None:
    cli("connector", "update", "one", "--description", "30 €, \N{ROCKET}", "--label", "a=ü")
    for arguments in ("update one --name two", "describe two", "list", "update two --name one", "list-resources"):
        done = shell(f'"$MOORING" connector {arguments}', **LOCALES[locale])
        assert done.returncode == 0, done.stderr
    assert "30 \\u20ac, \\U0001f680" in shell('"$MOORING" connector describe one', **LOCALES[locale]).stdout
    for kind in ("json", "yaml"):
        done = shell(f'"$MOORING" connector describe one -o {kind}', **LOCALES[locale])
        assert "\\u20ac" in done.stdout.lower()
    text = shell('"$MOORING" connector describe one -o json', **LOCALES[locale]).stdout
    data = json.loads(text)
    assert (data["description"], data["labels"]) == ("30 €, \N{ROCKET}", {"a": "ü"})


@pytest.mark.parametrize("locale", ["C", "latin-1"])
@pytest.mark.parametrize("format", ["env", "posix", "fish", "powershell", "lines"])
def test_what_stdout_cannot_write_is_no_credential(shell: Shell, registered: str, locale: str, format: str) -> None:
    line = f'"$MOORING" issue one -r acme-bucket -i first -f {format}'
    secret = {"ACME_GIVES": "s3cr3t-\u20ac"}
    assert "s3cr3t-\u20ac" in shell(line, **secret, PYTHONIOENCODING="utf-8").stdout
    done = shell(line, **secret, **LOCALES[locale])
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "cannot write; set PYTHONIOENCODING=utf-8, or use json" in done.stderr
    assert "s3cr3t" not in done.stderr
    data = json.loads(shell(f"{line} -o json", **secret, **LOCALES[locale]).stdout)
    assert data["credentials"]["password"] == "s3cr3t-\u20ac"


@pytest.mark.parametrize("where", ["argument", "stdin", "file"])
def test_bytes_that_are_no_text(shell: Shell, cli, tmp_path: Path, where: str) -> None:
    secret, file = r"s3cret\377\376", tmp_path / "token"
    file.write_bytes(b"s3cret\xff\xfe")
    line, says = {
        "argument": (f"{REGISTER} \"$(printf '{secret}')\"", "argument 10 is not text in the encoding of this locale"),
        "stdin": (
            f"printf '{secret}' | {REGISTER} -",
            "field 'token' cannot be read from standard input: it is not te",
        ),
        "file": (f"{REGISTER} @{file}", "the file for field 'token' cannot be read: it is not text in UTF-8"),
    }[where]
    done = shell(line)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith(f"Error: {says}")
    assert "s3cret" not in done.stderr
    assert cli("connector", "list", "-o", "json").stdout == "[]\n"


@pytest.mark.parametrize("arguments", ["connector describe-type acme", "plugins", "version -o json", "--help"])
def test_a_reader_that_leaves(shell: Shell, arguments: str) -> None:
    line = f'{{ "$MOORING" {arguments}; echo $? >&2; }} | true'
    assert shell(line).stderr == "141\n"
    assert shell(line, PYTHONUNBUFFERED="1").stderr == "141\n"
    assert shell(f'"$MOORING" nothing 2>&1 | true; "$MOORING" {arguments} 2>&1 | true').stderr == ""


@pytest.mark.parametrize("module", ["click", "msgspec", "mooring_acme", "anyio"])
def test_an_interruption_while_modules_are_loaded(acme: None, tmp_path: Path, module: str) -> None:
    (tmp_path / "early").mkdir()
    interrupting = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(1000): pass\n"
    (tmp_path / "early" / f"{module}.py").write_text(f"{interrupting}raise RuntimeError('went on')\n")
    path = os.pathsep.join((str(tmp_path / "early"), os.environ["PYTHONPATH"]))
    done = interruptible("connector", "list-types" if module == "mooring_acme" else "list", PYTHONPATH=path)
    _, messages = done.communicate(timeout=ENDS)
    assert (done.returncode, messages) == (130, "Interrupted.\n")


def interruptible(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A process that heeds SIGINT, which nohup and some CI have ignored."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom mooring.cli import main; main()"
    )
    command = [sys.executable, "-c", code, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | environment, start_new_session=True, **pipes)


def when(exists: Path) -> None:
    deadline = time.monotonic() + ENDS
    while not exists.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


HANGS = ["loop", "thread", "shielded", "executor", "process"]


@pytest.fixture
def hanging(registered: str, cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The connector `one` hangs as ACME_HANGS says, after it has written its process's child into this file."""
    monkeypatch.setenv("ACME_HUNG", str(tmp_path / "hung"))
    cli("connector", "update", "one", "--mode=hang", "--no-verify")
    return tmp_path / "hung"


@pytest.mark.parametrize("how", HANGS)
def test_ctrl_c_waits_for_nothing_that_hangs(hanging: Path, how: str) -> None:
    process = interruptible("issue", "one", "-r", "acme-bucket", "-i", "a", ACME_HANGS=how)
    when(hanging)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=ENDS) == ("", "Interrupted.\n")
    assert process.returncode == 130
    assert_no_child(hanging)


def test_what_was_found_is_shown_though_a_thread_hangs(hanging: Path, cli) -> None:
    cli("connector", "register", "quick", "-t", "acme", "-a", "key", "--token=-", "--no-verify", input="t0ken")
    process = interruptible("connector", "list-resources", "-o", "json", ACME_HANGS="shielded")
    when(hanging)
    time.sleep(0.5)  # for what the other says at once
    process.send_signal(signal.SIGINT)
    output, messages = process.communicate(timeout=ENDS)
    assert {one["connector"] for one in json.loads(output)} == {"quick"}
    told = "Interrupted; this is what was found until then.\nNot answered yet: one.\n"
    assert (process.returncode, messages) == (130, told)


@pytest.mark.parametrize("pause", [0, 0.001, 0.02])
def test_ctrl_c_again_and_again_is_still_an_interruption(hanging: Path, pause: float) -> None:
    process = interruptible("connector", "list-resources", "-o", "json", ACME_HANGS="thread")
    when(hanging)
    for _ in range(4):
        process.send_signal(signal.SIGINT)
        time.sleep(pause)
    output, messages = process.communicate(timeout=ENDS)
    assert process.returncode == 130
    assert "rror" not in messages
    assert json.loads(output or "[]") == []


SHORT = """
from datetime import timedelta
from mooring.broker import Budgets
import mooring.assembly
mooring.assembly.Budgets = lambda: Budgets(issue=timedelta(seconds=0.2))
from mooring.cli import main
main()
"""


@pytest.mark.parametrize("how", ["thread", "executor", "process"])
def test_a_budget_that_ran_out_waits_for_no_thread(hanging: Path, how: str) -> None:
    command = [sys.executable, "-c", SHORT, "issue", "one", "-r", "acme-bucket", "-i", "a"]
    environment = os.environ | {"ACME_HANGS": how}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=ENDS, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (4, "", 1)
    assert_no_child(hanging)


def assert_no_child(hanging: Path) -> None:
    if child := int(hanging.read_text() or 0):
        deadline = time.monotonic() + ENDS
        while running(child):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def running(process: int) -> bool:
    """Whether it is there, and not merely waits for somebody to take note of its end."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")


@pytest.mark.parametrize("arguments", ["list", "update one --description x", "delete one --yes"])
def test_a_disk_that_takes_no_more(shell: Shell, cli, registered: str, arguments: str) -> None:
    done = shell(f'ulimit -f 0; exec "$MOORING" connector {arguments}')
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (5, "", 1)
    assert done.stderr.startswith("Error: the store ")
    assert json.loads(cli("connector", "describe", "one", "-o", "json").stdout)["description"] == ""


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["plain", "debug"])
def test_last_words_are_masked(acme: None, registered: str, cli, debug: tuple[str, ...]) -> None:
    cli("connector", "update", "one", "--mode=late", "--no-verify")
    command = [sys.executable, "-m", "mooring", *debug, "connector", "verify", "one", "--verify-only"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ENDS, check=False)
    assert done.returncode == 0
    assert "t0ken" not in done.stdout + done.stderr
    if debug:
        assert "said at exit ********" in done.stderr
        assert "said by a thread ********" in done.stderr
    else:
        assert done.stderr == ""
