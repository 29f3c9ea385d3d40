"""Many real processes on one home: one vendor call, one holder of a key, no lost update, and nobody left waiting."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import mooring as m
from mooring.assembly import Settings, open_broker
from mooring.store import open_sqlite
from mooring.testing import Fake

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits are POSIX's")
PATIENCE = 120
"""Seconds after which a process that does not answer counts as hanging."""

COMMON = """
import errno, json, os, random, resource, sys
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import msgspec

import mooring as m
import mooring.shelf
from mooring.assembly import Settings, SystemClock, open_broker
from mooring.errors import MooringError, NameTaken, StoreConflict, StoreUnavailable, UnknownConnector
from mooring.store import open_sqlite
from mooring.testing import Fake, ManualClock

HOME, ARGS = Path(sys.argv[1]), sys.argv[2:]
A = {"resource_type": "bucket", "resource_id": "a"}


def say(**what):
    os.write(1, f"{json.dumps(what)}\\n".encode())  # in one piece: several processes may share the pipe


def hear():
    say(ready=True)
    return sys.stdin.readline().split()


class Vendor(Fake):
    hang = False

    @m.hookimpl
    async def issue_credentials(self, session, request):
        calls = os.open(HOME / "calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(calls, b"%d\\n" % os.getpid())
        os.close(calls)
        if self.hang:
            say(asked=True)
            await anyio.sleep_forever()
        await anyio.sleep(0.05)  # long enough for others to come meanwhile
        self.issued += 1
        return m.BearerToken(
            token=m.Secret(f"{session.config.place}-{os.getpid()}-{self.issued}"),
            expires_at=session.context.clock.now() + request.ttl,
            narrowed=True,
        )


def opened(vendor=None, **options):
    return open_broker(
        settings=Settings(home=HOME), plugins=[vendor or Vendor()], system_plugins=(), **options
    )
"""


class Process:
    """A Python of our own, which runs a script after `COMMON` and speaks JSON lines."""

    def __init__(self, script: str, home: Path, *args: object) -> None:
        command = [sys.executable, "-c", f"{COMMON}\n{script}", str(home), *map(str, args)]
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def hears(self) -> dict[str, Any]:
        """The next line that it says."""
        line = self.popen.stdout.readline()
        if not line:
            pytest.fail(self.popen.stderr.read())
        return json.loads(line)

    def tell(self, text: str) -> None:
        self.popen.stdin.write(f"{text}\n")
        self.popen.stdin.flush()

    def ask(self, text: str) -> dict[str, Any]:
        assert self.hears() == {"ready": True}
        self.tell(text)
        return self.hears()

    def ends(self) -> list[dict[str, Any]]:
        """What it says until it ends, which it does well and without a word on stderr."""
        said, complained = self.popen.communicate(timeout=PATIENCE)
        assert (complained, self.popen.returncode) == ("", 0)
        return [json.loads(line) for line in said.splitlines()]


@contextmanager
def processes(count: int, script: str, home: Path, *args: object) -> Iterator[list[Process]]:
    with ExitStack() as stack:
        running = []
        for number in range(count):
            process = Process(script, home, number, *args)
            stack.enter_context(process.popen)
            stack.callback(process.popen.kill)
            running.append(process)
        yield running


def together(running: list[Process]) -> list[list[dict[str, Any]]]:
    """Let all go at once when all are ready, and wait for their end."""
    for process in running:
        assert process.hears() == {"ready": True}
    for process in running:
        process.tell("go")
    return [process.ends() for process in running]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With a store, a master key and one connector."""

    async def prepare() -> None:
        settings = Settings(home=tmp_path / "home")
        async with open_broker(settings=settings, plugins=[Fake()], system_plugins=()) as broker:
            await broker.register("mine", type="fake", auth_method="key", config={"key": "k"}, verify=False)

    anyio.run(prepare)
    return tmp_path / "home"


def calls(home: Path) -> int:
    return len((home / "calls").read_text().splitlines())


def kinds(home: Path) -> Counter[str]:
    return Counter(path.suffix for path in (home / "cache").iterdir())


# -- one call

ISSUE = """
async def main():
    async with opened() as broker:
        hear()
        issued = await broker.issue("mine", **A)
        say(token=issued.credentials.token.reveal(), cached=issued.cached)
anyio.run(main)
"""


FIFTY = """
import aiosqlite, asyncio, cryptography.hazmat.primitives.ciphers.aead, httpx  # once, before there are fifty

ready, is_ready = os.pipe()
wait, go = os.pipe()

async def main():
    async with opened() as broker:
        os.write(is_ready, b"x")
        os.read(wait, 1)
        issued = await broker.issue("mine", **A)
        say(token=issued.credentials.token.reveal(), cached=issued.cached)

children = []
for _ in range(50):
    if child := os.fork():
        children.append(child)
        continue
    os.close(go)
    anyio.run(main)
    os._exit(0)
for _ in children:
    os.read(ready, 1)
os.close(go)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 50
"""


def test_fifty_processes_on_a_cold_key_make_one_call(home: Path) -> None:
    with processes(1, FIFTY, home) as (family,):
        replies = family.ends()

    assert calls(home) == 1
    assert len({reply["token"] for reply in replies}) == 1
    assert Counter(reply["cached"] for reply in replies) == {True: 49, False: 1}
    assert kinds(home) == {".sealed": 1}


HANG = """
async def main():
    vendor = Vendor()
    vendor.hang = True
    async with opened(vendor) as broker:
        await broker.issue("mine", **A)
anyio.run(main)
"""


def test_a_process_that_is_killed_while_it_asks_keeps_nobody_waiting(home: Path) -> None:
    with processes(1, HANG, home) as (first,), processes(5, ISSUE, home) as running:
        assert first.hears() == {"asked": True}
        for process in running:
            assert process.hears() == {"ready": True}
            process.tell("go")
        assert kinds(home) == {".lock": 1}
        first.popen.send_signal(signal.SIGKILL)
        first.popen.wait(PATIENCE)
        replies = [reply for process in running for reply in process.ends()]

    assert calls(home) == 2
    assert len({reply["token"] for reply in replies}) == 1
    assert kinds(home) == {".sealed": 1}


# -- one holder

CONTEND = """
mooring.shelf.LOCK_POLL_SECONDS = 0
KEY = mooring.cache.Key(
    connector_id="c", fingerprint="f", resource_type="t", resource_id=None, access="read", ttl=timedelta(hours=1)
)
ROUNDS = int(ARGS[1])

async def main():
    shelf, clashes = mooring.shelf.SealedShelf(HOME / "cache", None, None), 0
    hear()
    for number in range(ROUNDS):
        async with shelf.lock(KEY):
            try:
                os.close(os.open(HOME / "inside", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                clashes += 1
            await anyio.sleep(0)
            try:
                os.unlink(HOME / "inside")
            except FileNotFoundError:
                clashes += 1
    say(clashes=clashes)
anyio.run(main)
"""
SWEEP = """
shelf = mooring.shelf.SealedShelf(HOME / "cache", None, None)
hear()
sweeps = 0
while not (HOME / "done").exists():
    shelf._sweep()
    sweeps += 1
say(sweeps=sweeps)
"""


def test_two_processes_never_hold_one_key_while_a_third_sweeps_all_the_time(home: Path) -> None:
    (home / "cache").mkdir(mode=0o700)
    with processes(1, SWEEP, home) as (sweeper,), processes(4, CONTEND, home, 300) as running:
        assert sweeper.hears() == {"ready": True}
        sweeper.tell("go")
        said = together(running)
        (home / "done").touch()
        ((swept,),) = [sweeper.ends()]

    assert said == [[{"clashes": 0}]] * 4
    assert swept["sweeps"] > 100
    assert kinds(home) == {}


# -- another process's change

LISTEN = """
async def main():
    clock = ManualClock()
    async with opened(clock=clock) as broker:
        while words := hear():
            if words[0] == "advance":
                clock.advance(timedelta(seconds=float(words[1])))
                say(done=True)
                continue
            try:
                issued = broker.peek("mine", **A) if words[0] == "peek" else await broker.issue("mine", **A)
                say(token=issued and issued.credentials.token.reveal().partition("-")[0])
            except MooringError as error:
                say(error=type(error).__name__)
anyio.run(main)
"""
CHANGE = """
async def main():
    async with opened() as broker:
        if ARGS[1] == "update":
            await broker.update("mine", config={"place": "there"}, verify=False)
        else:
            await broker.delete("mine")
anyio.run(main)
"""


@pytest.mark.parametrize(
    ("change", "after"), [("update", {"token": "there"}), ("delete", {"error": "UnknownConnector"})]
)
def test_another_processs_change_takes_effect_within_a_second(home: Path, change: str, after: dict[str, str]) -> None:
    """In the time of the clock that is handed in: its view of the store is never a second old."""
    with processes(1, LISTEN, home) as (one,):
        assert one.ask("issue") == {"token": "here"}
        with processes(1, CHANGE, home, change) as (other,):
            other.ends()
        one.ask("advance 0.49")
        assert one.ask("peek") == {"token": "here"}, "it is at hand, and served without a look"
        one.ask("advance 0.5")
        assert one.ask("peek") == {"token": None}
        assert one.ask("issue") == after
        assert kinds(home) == ({".sealed": 1} if change == "update" else {})


# -- no room

FULL = """
async def main():
    async with opened() as broker:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
        try:
            (HOME / "big").write_bytes(b"x" * 100)
        except OSError as error:
            say(full=error.errno == errno.EFBIG)
        try:
            await broker.issue("mine", **A)
        except StoreUnavailable as error:
            say(refused=error.message)
        say(asked=(HOME / "calls").exists())
        say(names=[one.name for one in await broker.list()])
        say(identity=(await broker.verify("mine")).subject)
anyio.run(main)
"""


def test_where_a_disk_takes_no_more_nothing_is_handed_out_unrecorded_and_all_else_goes_on(home: Path) -> None:
    with processes(1, FULL, home) as (one,):
        said = one.ends()

    assert said[0] == {"full": True}
    assert said[1]["refused"].startswith("credentials that cannot be recorded are not handed out: the store ")
    assert said[2] == {"asked": False}, "it is found out before the vendor is asked"
    assert said[3:] == [{"names": ["mine"]}, {"identity": "here"}]
    assert kinds(home) == {}


# -- everything at once

PROCESSES, ROUNDS = 10, 12
STRESS = """
async def main():
    number, rounds = int(ARGS[0]), int(ARGS[1])
    order, errors, retries = random.Random(number), [], 0
    async with open_sqlite(HOME / "mooring.db") as store, opened(store=store) as broker:
        hear()
        for turn in range(rounds):
            while True:  # read, change, write; again if somebody came between
                counter = await store.find("counter")
                labels = {"n": str(int(counter.labels["n"]) + 1)}
                try:
                    await store.replace(msgspec.structs.replace(counter, labels=labels, version=counter.version + 1))
                    break
                except StoreConflict:
                    retries += 1
            while True:
                try:
                    await broker.update("mine", labels={f"p{number}.{turn}": ""}, verify=False)
                    break
                except StoreConflict:
                    retries += 1
            name = f"c{order.randrange(4)}"
            key = f"{name}-{number}-{turn}"
            for act in (
                lambda: broker.register(name, type="fake", auth_method="key", config={"key": key}, verify=False),
                lambda: broker.issue(name, **A),
                lambda: broker.update(name, config={"key": key, "place": f"p{number}"}, verify=False),
                lambda: broker.issue(name, **A),
                lambda: broker.list(),
                lambda: broker.secrets(name),
                lambda: broker.delete(name),
            ):
                try:
                    await act()
                except (StoreConflict, NameTaken, UnknownConnector) as error:
                    if error.retryable:
                        errors.append(repr(error))
                except Exception as error:
                    errors.append(repr(error))
    say(errors=errors, retries=retries)
anyio.run(main)
"""


def test_ten_processes_register_update_issue_and_delete_at_once(home: Path) -> None:
    settings = Settings(home=home)

    async def prepare() -> None:
        async with open_broker(settings=settings, plugins=[Fake()], system_plugins=()) as broker:
            await broker.register("counter", type="fake", auth_method="key", labels={"n": "0"}, verify=False)

    async def look() -> tuple[dict[str, m.types.Connector], dict[str, str]]:
        async with (
            open_sqlite(settings.store_file) as store,
            open_broker(settings=settings, store=store, plugins=[Fake()], system_plugins=()) as broker,
        ):
            found = {one.name: one for one in await broker.list()}
            return found, {name: secrets["key"].reveal() for name in found if (secrets := await broker.secrets(name))}

    anyio.run(prepare)
    with processes(PROCESSES, STRESS, home, ROUNDS) as running:
        said = [said for (said,) in together(running)]

    assert [one["errors"] for one in said] == [[]] * PROCESSES
    assert sum(one["retries"] for one in said) > 0, "they were in each other's way"
    found, secrets = anyio.run(look)
    assert found["counter"].labels == {"n": str(PROCESSES * ROUNDS)}
    assert found["counter"].version == PROCESSES * ROUNDS + 1
    assert len(found["mine"].labels) == PROCESSES * ROUNDS
    assert secrets.pop("mine") == "k"
    for name, key in secrets.items():
        assert re.fullmatch(rf"{name}-\d+-\d+", key)
    with sqlite3.connect(settings.store_file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert kinds(home).keys() <= {".sealed"}
