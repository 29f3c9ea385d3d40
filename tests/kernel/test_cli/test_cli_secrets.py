"""A secret is shown where it was asked for, and nowhere else: in no form, by no error, with or without --debug."""

import base64
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest

from mooring.types import MASK

CANARY = 'c4nary/+ "x"?&ü-z'
FORMS = (
    CANARY,
    base64.b64encode(CANARY.encode()).decode().rstrip("="),
    base64.b64encode(f"user:{CANARY}".encode()).decode()[12:-4],
    urllib.parse.quote(CANARY, safe=""),
    urllib.parse.quote_plus(CANARY),
    repr(CANARY)[1:-1],
    json.dumps(CANARY)[1:-1],
)


def leaks(text: str) -> list[str]:
    return [form for form in FORMS if form in text]


@pytest.mark.parametrize("mode", ["ok", "deny", "leak", "boom"])
@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["plain", "debug"])
def test_no_command_shows_a_secret(cli, process, mode, debug) -> None:
    codes = {"ok": (0, 0, 0), "deny": (4, 4, 7), "leak": (4, 4, 7), "boom": (3, 3, 7)}[mode]
    register = ("connector", "register", "two", "--type", "acme", "-a", "key", f"--mode={mode}")
    first, others, listed = codes
    done = [
        process(*debug, *register, f"--token={CANARY}", code=first),
        cli(*debug, *register[:2], "one", *register[3:], "--token=-", "--no-verify", input=CANARY),
        cli(*debug, "connector", "verify", "one", code=others),
        process(*debug, "connector", "verify", "one", "-o", "json", code=others),
        cli(*debug, "issue", "one", "-r", "acme-bucket", "-i", "a", code=others),
        cli(*debug, "connector", "list-resources", "-n", "one", code=listed),
        process(*debug, "connector", "list-resources", "-n", "one", "-o", "yaml", code=listed),
        cli(*debug, "doctor", code=listed),
        cli(*debug, "connector", "describe", "one"),
        cli(*debug, "connector", "list", "-o", "json"),
        cli(*debug, "explain", "one", "-r", "acme-bucket", "-i", "a"),
        cli(*debug, "connector", "update", "one", f"--backup-token={CANARY}", code=others),
        cli(*debug, "connector", "update", "one", "--port", CANARY, code=2),
        cli(*debug, "connector", "update", "one", "--backup-tokn", CANARY, code=2),
    ]
    assert [leaks(one.stdout + one.stderr) for one in done] == [[] for _ in done]
    if mode != "ok":
        assert ("Traceback" in done[3].stderr) == bool(debug)
    if mode == "leak":
        assert MASK in done[3].stderr


def test_a_lifted_secret_is_masked(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_TOKEN", CANARY)
    arguments = ("connector", "register", "one", "--type", "acme", "--auto-configure", "--mode=leak", "--debug")
    result = cli(*arguments, code=4)
    assert not leaks(result.output)
    assert MASK in result.stderr


def test_an_unexpected_error_is_named_and_not_quoted(cli, registered, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(f"could not write t0ken-registered and {CANARY}")

    monkeypatch.setenv("SOME_PASSWORD", CANARY)
    monkeypatch.setattr("mooring.cli._stored.as_table", fail)
    result = cli("connector", "describe", "one", "-x", code=1)
    assert result.stderr == "Error: unexpected: RuntimeError; run again with --debug\n"
    assert result.stdout == ""
    result = cli("connector", "describe", "one", "-x", "--debug", code=1)
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("Error: unexpected: RuntimeError\n")
    assert not leaks(result.stderr)
    monkeypatch.setenv("MOORING_DEBUG", "1")
    assert "Traceback" in cli("connector", "describe", "one", "-x", code=1).stderr


def test_the_debug_option_stands_anywhere(cli) -> None:
    for arguments in (("--debug", "connector", "verify", "x"), ("connector", "verify", "x", "--debug")):
        assert cli(*arguments, code=2).stderr.startswith("Traceback")
    assert cli("connector", "verify", "x", code=2).stderr.startswith("Error: no connector is named 'x'")


def terminal(*arguments: str, answers: tuple[str, ...] = ()) -> tuple[int, str]:
    """The command on a terminal of 80 columns: its exit code, and all that the terminal shows."""
    child, fd = pty.fork()
    if child == 0:
        os.environ["COLUMNS"] = "80"
        signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored, as nohup and some CI have it
        os.execv(sys.executable, [sys.executable, "-m", "mooring", *arguments])
    shown, waiting, sent, deadline = b"", list(answers), b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([fd], [], [], 5)
        if not ready and sent == b"\x03":
            os.write(fd, sent)  # as a person would: Python misses the first if it comes just before it begins to read
        try:
            data = os.read(fd, 4096) if ready else None
        except OSError:
            break
        if data == b"":
            break
        shown += data or b""
        if waiting and shown.rstrip().endswith(b":"):
            sent = waiting.pop(0).encode()
            os.write(fd, sent)
            shown += b"\n"
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")
def test_on_a_terminal_secrets_are_asked_for_and_not_shown(cli) -> None:
    code, shown = terminal("connector", "register", "one", "-t", "acme", "-a", "key", answers=("h1dden\n",))
    assert code == 0, shown
    assert "token (the token):" in shown
    assert "h1dden" not in shown
    assert "h1dden" in cli("connector", "describe", "one", "-x").stdout
    code, shown = terminal("connector", "register", "two", "-t", "acme", "-a", "role")
    assert (code, "field 'role' is required" in shown, "token" in shown) == (2, True, False), shown  # nothing was asked
    code, shown = terminal("connector", "list-resources")
    assert code == 0
    assert "second" in shown
    assert "\x1b[" in shown  # colour, and progress
    assert all(len(line) <= 80 for line in shown.splitlines() if "\x1b" not in line)
    for answer, expected, says in (
        ("n\n", 130, "Nothing was deleted."),
        ("\x03", 130, "Interrupted."),
        ("y\n", 0, "Deleted"),
    ):
        code, shown = terminal("connector", "delete", "one", answers=(answer,))
        assert (code, says in shown) == (expected, True), shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(process, shell) -> None:
    assert "_MOORING_COMPLETE" in process("completion", shell).stdout


HOSTILE = [
    "a://b/c",
    "a://$(touch x)",
    "a://b;x",
    "a://b*",
    "a://b c",
    "a://b\n--x",
    "a://b'",
    "-a://b",
    "a://b\x1b[0m",
]
"""What a vendor may call things; the shell would obey all but the first."""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "breaks", "shown"),
    [
        ("mooring issue one -i a", " \t\n=:", ["a://b/c"]),
        ("mooring issue one -i a:", " \t\n=:", ["//b/c"]),
        ("mooring issue one -i a://b", " \t\n=:", ["//b/c"]),
        ("mooring issue one -i a://b", " \t\n=", ["a://b/c"]),
        ("mooring issue one --resource-id=a://b", " \t\n=:", ["//b/c"]),
        ("mooring issue one --resource-id=a", " \t\n=:", ["a://b/c"]),
        ("mooring issue one -i 'x", " \t\n=:", []),
        ("mooring issue o", " \t\n=:", ["one"]),
    ],
)
def test_bash_completes_ids_with_colons(registered, line: str, breaks: str, shown: list[str], tmp_path: Path) -> None:
    """By the real bash, the script that we print, and a store in which that was found."""
    found = tmp_path / "found.py"
    found.write_text(
        "from mooring.broker import Broker\nfrom mooring.types import Resource\n"
        f"async def recall(self, *_, **__): return [Resource(type='acme-bucket', id=id) for id in {HOSTILE!r}]\n"
        "Broker.recall = recall\nfrom mooring.cli import main\nmain()\n"
    )
    command = tmp_path / "mooring"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{found}" "$@"\n')
    command.chmod(0o755)
    words = re.findall(r"[:=]+|[^\s:=]+", line) if ":" in breaks else re.findall(r"=|[^\s=]+", line)
    script = (
        'eval "$(mooring completion bash)"; COMP_WORDBREAKS=$1; COMP_LINE=$2; COMP_POINT=${#2}; shift 2\n'
        'COMP_WORDS=("$@")\n'
        'COMP_CWORD=$(($# - 1)); _mooring_completion mooring; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = ["bash", "--norc", "-c", script, "bash", breaks, line, *words]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (shown, "")


def test_completion_names_commands_types_and_connectors(cli, registered) -> None:
    def complete(words: str) -> list[str]:
        environment = os.environ | {"_MOORING_COMPLETE": "bash_complete", "COMP_WORDS": words}
        environment["COMP_CWORD"] = str(len(words.split(" ")) - 1)
        done = subprocess.run(
            [sys.executable, "-c", "from mooring.cli import main; main()"],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [line.partition(",")[2] for line in done.stdout.split()]

    assert complete("mooring connector list-") == ["list-types", "list-resources"]
    assert "acme" in complete("mooring connector describe-type a")
    for command in ("connector describe", "connector update", "connector delete", "issue"):
        assert complete(f"mooring {command} o") == ["one"]
    assert complete("mooring connector describe x") == []
    assert complete("mooring issue one -r acme-bucket -i f") == ["first"]
    assert complete("mooring connector list-resources -n one -i ") == ["4711", "first", "second"]
    assert complete("mooring login nobody -i ") == []
    assert complete("mooring issue one -r acme-") == ["acme-account", "acme-bucket"]
    assert complete("mooring connector register -t acme -a ") == ["key", "role"]
    assert {"json", "yaml", "env"} <= set(complete("mooring issue one --format "))
