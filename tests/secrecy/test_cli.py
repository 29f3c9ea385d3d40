"""The CLI shows a secret where it was asked for, and nowhere else; no vendor's text gets at the terminal's controls."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mooring.cli._app import make_app
from mooring.registry import Registry
from mooring.types import fields_of

BOX = ("-r", "hostile-box", "-i", "first")
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def issues(canaries, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setenv("HOSTILE_ISSUES", f"{canaries.plant('password')}\n{canaries.plant('second')}")
    return canaries.planted["password"], canaries.planted["second"]


@pytest.fixture
def inside(home: Path, installed: None, issues: object) -> Iterator[Run]:
    """Call `mooring` in this process."""

    def run(*arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
        done = CliRunner().invoke(make_app(), arguments, input=stdin)
        return done.exit_code, done.stdout, done.stderr

    yield run
    sys.modules.pop("mooring_hostile", None)


@pytest.fixture
def process(home: Path, installed: None, issues: object) -> Run:
    """Call `mooring` in a process of its own."""

    def run(*arguments: str, stdin: str | None = None, **environment: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-m", "mooring", *arguments],
            input=stdin, capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return run


def planted(canaries: Any, tmp_path: Path, method: str, name: str) -> list[str]:
    """Each secret field of an auth method, as an option whose value is a file with a canary."""
    config = Registry().route("hostile").auth_method(method).config
    options = []
    for field in fields_of(config):
        if field.secret:
            file = tmp_path / f"{name}-{field.name}"
            file.write_text(
                canaries.plant(f"{name} {field.name}", "C4N4RYC4N4RY" + "*" * 30 if field.name == "pem" else "")
            )
            options.append(f"--{field.name}=@{file}")
    assert options
    return options


def every_command(options: list[str]) -> list[tuple[str, ...]]:
    config = ("-t", "hostile", *options)
    connector = "connector"
    return [
        (connector, "register", "one", *config, "-o", "json"),
        (connector, "register", "two", *config, "--no-verify"),
        (connector, "register", "two", *config, "--no-verify"),
        *[(connector, "describe", "two", "-o", output) for output in ("table", "json", "yaml")],
        *[(connector, "list", "-o", output) for output in ("table", "json", "yaml")],
        *[(connector, "verify", "two", "-o", output) for output in ("table", "json", "yaml")],
        *[(connector, "list-resources", "-o", output) for output in ("table", "json", "yaml")],
        (connector, "update", "two", options[-1]),
        (connector, "update", "two", options[-1], "--no-verify"),
        ("issue", "two", *BOX, "-f", "nonesuch"),
        ("issue", "two", *BOX, "-f", "raise"),
        ("explain", "two", *BOX),
        ("explain", "two", *BOX, "-o", "json"),
        ("doctor",),
        (connector, "register", "--", "two", *config),
        (connector, "register", "x", *config, "--tokn", options[0]),
        (connector, "update", "two", *(one.replace("=@", "=@/nonesuch/") for one in options)),
        (connector, "delete", "two"),
    ]


HOWS = {
    ("pair", "verify"): ("well", "raise", "group", "exit", "caused", "said", "wrong"),
    ("pair", "authenticate"): ("said",),
    ("pair", "discover"): ("said", "raise"),
    ("pair", "issue_credentials"): ("said", "bare"),
    ("key", "verify"): ("said",),
}


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["plain", "debug"])
def test_no_command_shows_a_secret(inside: Run, canaries, tmp_path: Path, debug: tuple[str, ...]) -> None:
    shown, traced = [], 0
    assert {method for method, _ in HOWS} == {one.name for one in Registry().route("hostile").type.auth_methods}
    for (method, at), hows in HOWS.items():
        for how in hows:
            options = planted(canaries, tmp_path, method, f"{method}-{at}-{how}")
            for command in every_command([*options, f"--at={at}", f"--how={how}", "-a", method]):
                words = [one for one in command if "update" not in command or one not in ("-a", method)]
                if how in ("well", "said") or {"verify", "list-resources", "register", "issue"} & set(words):
                    code, out, err = inside(*debug, *words)
                    shown += [out, err]
                    traced += "Traceback" in err
                    assert code in (0, 2, 3, 4, 7) or (code == 1 and "raise" in words), (words, out, err)
            inside("connector", "delete", "one")
            inside("connector", "delete", "two")
    found = canaries(*shown)
    assert not found, "\n".join(found[:4])
    assert bool(traced) == bool(debug)


def test_it_shows_where_it_was_asked_for(inside: Run, canaries, tmp_path: Path, issues, at_rest) -> None:
    options = planted(canaries, tmp_path, "pair", "asked")
    assert inside("connector", "register", "one", "-t", "hostile", "-a", "pair", *options)[0] == 0
    own = [canaries.planted[name] for name in canaries.planted if name.startswith("asked")]
    _, out, err = inside("connector", "describe", "one", "--show-secrets", "-o", "json")
    assert {json.loads(out)["configuration"][name] for name in ("token", "spare", "pem")} == set(own)
    assert canaries(out)
    assert not canaries(err)
    for form in ("json", "yaml", "env"):
        _, out, err = inside("issue", "one", *BOX, "-f", form)
        assert canaries(out), form
        assert not canaries(err)
    assert canaries(inside("connector", "describe", "one", "-x")[1])
    assert not canaries(at_rest())


def test_no_file_argument_or_environment_of_a_process_holds_a_secret(
    process: Run, canaries, tmp_path: Path, at_rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given by file, by standard input or by the environment, while the command runs."""
    monkeypatch.delenv("HOSTILE_ISSUES")
    for place in ("file", "stdin"):
        secret, file, wait = canaries.plant(place), tmp_path / "secret", tmp_path / f"waiting-{place}"
        file.write_text(secret)
        value = f"@{file}" if place == "file" else "-"
        command = [sys.executable, "-m", "mooring", "connector", "register", place, "-t", "hostile", "-a", "key"]
        with subprocess.Popen(
            [*command, "--token", value, "--wait", str(wait)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as running:  # fmt: skip
            running.stdin.write(secret.encode() if place == "stdin" else b"")
            running.stdin.close()
            while not wait.exists() and running.poll() is None:
                time.sleep(0.01)
            if Path("/proc/self/environ").exists():
                seen = [file.read_bytes() for file in proc_files(running.pid)]
                assert len(seen) >= 2
                assert not canaries(*seen)
            assert not canaries(at_rest())
            running.send_signal(signal.SIGINT)
            assert not canaries(running.stdout.read(), running.stderr.read())
            assert running.wait(30) == 130
    assert not canaries(at_rest())


def proc_files(pid: int) -> Iterator[Path]:
    """What other users' `ps` reads of a process and its children (proc(5))."""
    yield from (Path(f"/proc/{pid}/{name}") for name in ("cmdline", "environ"))
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from proc_files(int(child))


@pytest.mark.parametrize("how", ["task", "thread", "dying", "log", "warn"])
def test_what_fails_behind_our_back_is_not_shown(process: Run, canaries, tmp_path: Path, how: str) -> None:
    """Tasks that nobody awaits, threads, objects that die as the interpreter goes: Python itself writes of those."""
    options = [*planted(canaries, tmp_path, "pair", how), f"--how={how}", "--at=verify"]
    command = ("connector", "register", "one", "-t", "hostile", "-a", "pair", *options)
    code, out, err = process(*command)
    assert (code, canaries(out, err)) == (0, []), out + err
    code, out, err = process("--debug", "connector", "verify", "one", NO_COLOR="1")
    assert (code, canaries(out, err)) == (0, []), out + err


def terminal(*arguments: str, answers: tuple[str, ...] = ()) -> str:
    """All that a terminal of 80 columns shows of the command."""
    child, fd = pty.fork()
    if child == 0:
        os.environ["COLUMNS"] = "80"
        os.execv(sys.executable, [sys.executable, "-m", "mooring", *arguments])
    shown, waiting, deadline = b"", list(answers), time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([fd], [], [], 0.2)
        try:
            data = os.read(fd, 4096) if ready else None
        except OSError:
            break
        if data == b"":
            break
        shown += data or b""
        if waiting and shown.rstrip().endswith(b":"):
            os.write(fd, waiting.pop(0).encode() + b"\n")
            shown += b"\n"
    os.close(fd)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)
    return shown.decode()


def harmless(shown: str) -> bool:
    """Nothing that a vendor could use is there: of sequences, only those that we draw with."""
    left = re.sub(
        r"\x1b\[[0-9;]*[mKA]|\x1b\[\?25[lh]|\x1b\[\d*[GF]|\r+\n|\r(?=\x1b)|\r(?=asking|\d+ res|  *)", "", shown
    )
    return not CONTROLS.findall(left)


@pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")
def test_on_a_terminal(process: Run, canaries, issues) -> None:
    secret = canaries.plant("prompted").replace("\\", "/")
    canaries.planted["prompted"] = secret
    shown = [terminal("connector", "register", "one", "-t", "hostile", "-a", "key", answers=(secret,))]
    assert "Registered" in shown[0], shown
    for how in ("said", "named", "raise"):
        process("connector", "update", "one", "--no-verify", f"--how={how}")
        commands = (
            ("connector", "verify", "one"),
            ("connector", "list-resources"),
            ("--debug", "connector", "verify", "one"),
        )
        for command in commands:
            one = terminal(*command)
            assert "\x1b]" not in one, (how, command)
            assert harmless(one), (how, command, one)
            shown += [] if how == "named" else [one]
    assert "Traceback" in shown[-1]
    assert not canaries(*shown)


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_a_vendors_text_has_no_controls(inside: Run, canaries, tmp_path: Path, output: str) -> None:
    options = [*planted(canaries, tmp_path, "key", "named"), "-a", "key"]
    inside("connector", "register", "one", "-t", "hostile", *options, "--how=named", "--no-verify")
    for words in (("connector", "verify", "one"), ("connector", "list-resources"), ("explain", "one", *BOX)):
        for more in ((), ("--debug",)):
            code, out, err = inside(*more, *words, "-o", output)
            assert code == 0, err
            assert "evil" in out
            assert not CONTROLS.search(out + err), (words, CONTROLS.findall(out + err), out)
            if output == "json" and words[1] == "verify":
                subject = json.loads(out)["identity"]["subject"]
                assert subject.startswith("user c4N")  # a vendor's name for its thing is data, and stays what it is
                assert subject.endswith("\u202e\u2066evil")
    inside("connector", "update", "one", "--no-verify", "--how=said")
    for more in ((), ("--debug",)):
        code, out, err = inside(*more, "connector", "verify", "one", "-o", output)
        assert code == 4
        assert "evil" in err
        assert not CONTROLS.search(err), err
        assert not canaries(err)
