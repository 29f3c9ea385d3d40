"""Runs one command of mooring again and again, kills it at every step, and looks at what it has left: test equipment.

usage: killing.py FOLDER COMMAND...      the last line of stdout is JSON; see `main`

Each run is a fork of this process, which has imported mooring and has no thread, so that a run costs tens of
milliseconds; and each look at what is left is a fork of its own, so that no lock or cache outlives the killed one.
Steps are calls that change files (by audit events), `fsync`, and statements of SQLite, before and after each.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

HEAVY = ("mooring", "msgspec", "anyio", "asyncio", "aiosqlite", "cryptography", "filelock", "click", "rich", "pluggy")
CHANGING = {"open", "os.link", "os.rename", "os.remove", "os.chmod", "os.mkdir", "os.truncate", "fcntl.flock"}
NEVER = 1 << 30
MOST_STEPS, MOMENTS = 24, 8
PATIENCE = 30
"""Seconds for one run; beyond that it hangs."""


def forked(work: Callable[[], Any], then: Callable[[int], None] = lambda pid: None) -> tuple[int, Any]:
    """Do it in a fork; how that ended (as waitpid has it), and what it gave."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        signal.alarm(PATIENCE)
        try:
            given = json.dumps(work())
        except BaseException:  # noqa: BLE001  whatever it was is told
            given = json.dumps({"problem": traceback.format_exc()[-1500:]})
        os.write(writer, given.encode())
        os._exit(0)
    os.close(writer)
    then(pid)
    with os.fdopen(reader, "rb") as pipe:
        given = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    return status, json.loads(given) if given else None


class Steps:
    """Counts the steps of this process, and kills it at one of them."""

    def __init__(self, last: int) -> None:
        self.count, self.last = 0, last

    def step(self, *_: object) -> None:
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        counted = self.step

        class Counted(sqlite3.Connection):
            def execute(self, *arguments: Any) -> Any:
                counted()
                cursor = super().execute(*arguments)
                counted()
                return cursor

        connect, fsync = sqlite3.connect, os.fsync
        sqlite3.connect = lambda *a, **k: connect(*a, **k, factory=Counted)  # type: ignore[assignment]
        os.fsync = lambda fd: (counted(), fsync(fd), counted())[1]  # type: ignore[func-returns-value]
        home = os.environ["MOORING_HOME"]

        def hear(event: str, arguments: tuple[Any, ...]) -> None:
            if event in CHANGING and (
                isinstance(arguments[0], int) or home in str(arguments[0])
            ):  # a file that is open
                counted()

        sys.addaudithook(hear)


def run(command: list[str], last: int = NEVER) -> dict[str, Any]:
    """Run a command of mooring to its end, or to that step."""
    from click.testing import CliRunner

    from mooring.cli._app import make_app

    steps = Steps(last)
    steps.install()
    began = time.monotonic()
    done = CliRunner().invoke(make_app(), command)
    return {"code": done.exit_code, "said": done.output, "steps": steps.count, "seconds": time.monotonic() - began}


def look() -> dict[str, Any]:
    """Everything that must hold of a home, whoever was killed in it; what is there, and how long a new start took."""
    import anyio

    import mooring

    async def main() -> dict[str, Any]:
        found = {}
        async with mooring.open_broker(consumer="after") as broker:
            for connector in await broker.list():
                secrets = {name: secret.reveal() for name, secret in (await broker.secrets(connector.name)).items()}
                found[connector.name] = {"settings": connector.settings, "secrets": secrets}
                issued = await broker.issue(connector.name, resource_id="a")
                user = connector.settings["user"]
                assert issued.credentials.token.reveal() == f"{user}:a", "credentials of another version"
            await broker.register("probe", type="example", config={"user": "p", "password": "p"})
            assert (await broker.secrets("probe"))["password"].reveal() == "p"
            await broker.delete("probe")
        return found

    began = time.monotonic()
    found = anyio.run(main)
    seconds = time.monotonic() - began
    home = Path(os.environ["MOORING_HOME"])
    database = sqlite3.connect(home / "mooring.db")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    return {"found": found, "seconds": seconds}


def age(home: Path) -> None:
    """A week has passed since the kill, as far as drafts and sealed entries can tell."""
    week = 7 * 24 * 3600
    for path in home.rglob("*"):
        if path.suffix in (".new", ".sealed") or path.name.startswith("."):
            os.utime(path, (time.time() - week, time.time() - week))


def left(home: Path) -> list[str]:
    """The files that are neither the store, the key, a sealed entry nor a lock."""
    known = ("mooring.db", "mooring.db-wal", "mooring.db-shm", "master.key", "cache")
    others = (path for path in home.rglob("*") if path.name not in known and path.suffix not in (".sealed", ".lock"))
    return sorted(str(path.relative_to(home)) for path in others)


def load(work: Callable[[], Any]) -> None:
    """Import what a run imports."""
    for name in forked(lambda: (work(), list(sys.modules))[1])[1]:  # in the order in which they were imported
        if name.partition(".")[0] in HEAVY:
            with suppress(ImportError):
                importlib.import_module(name)


def main(folder: Path, command: list[str]) -> None:
    """Kill at each step, and at random moments; write what was seen: a list of what each kill left."""
    template, home = folder / "template", folder / "home"
    os.environ["MOORING_HOME"] = str(home)

    def anew() -> None:
        shutil.rmtree(home, ignore_errors=True)
        if template.exists():
            shutil.copytree(template, home)

    def killed(last: int, delay: float | None) -> None:
        def kill(pid: int) -> None:
            if delay is not None:
                time.sleep(delay)
                os.kill(pid, signal.SIGKILL)

        anew()
        status, _ = forked(lambda: run(command, last), kill)
        dead = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        age(home)
        _, after = forked(look)
        _, again = forked(lambda: run(command))
        results.append({"last": last, "delay": delay, "dead": dead, **(after or {"problem": "the look hung"})})
        results[-1] |= {"again": (again or {}).get("code"), "said": (again or {}).get("said")}
        results[-1]["left"] = left(home)

    results: list[dict[str, Any]] = []
    anew()
    load(lambda: (run(command), look()))
    anew()
    _, clean = forked(lambda: run(command))
    _, after = forked(look)
    steps = list(range(1, clean["steps"] + 1))
    chance = random.Random(11)
    for last in sorted(chance.sample(steps, min(MOST_STEPS, len(steps)))):
        killed(last, None)
    for number in range(MOMENTS):
        killed(NEVER, clean["seconds"] * (number + chance.random()) / MOMENTS)
    print(json.dumps({"clean": clean, "after": after, "results": results}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
