"""Backup, restore and check: whole or not at all, whatever is in the way."""

# ruff: noqa: ASYNC220, ASYNC221, ASYNC240  a test may wait for a small file or a process of its own

import errno
import io
import os
import random
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import msgspec
import pytest

import mooring as m
from mooring.assembly import Settings, open_broker
from mooring.broker import Broker
from mooring.broker import _backup as room
from mooring.errors import (
    ConfigError,
    MooringError,
    NameTaken,
    NoMasterKey,
    StoreCorrupt,
    StoreTooNew,
    StoreUnavailable,
    WrongKey,
)
from mooring.store import _sqlite
from mooring.store._schema import APPLICATION_ID, MIGRATIONS
from mooring.testing import Fake, memory_broker
from mooring.types import Connector
from mooring.vault import BackupNote, Vault, parse_keys, read_backup, write_backup
from mooring.vault._backup import CHUNK_BYTES, MAGIC

pytestmark = pytest.mark.anyio

CANARY = "cAnArY-4e1f"
NOTE = BackupNote(created_at=datetime(2026, 1, 2, tzinfo=UTC), connectors=3, version="1")
VAULT = Vault(parse_keys("k1:" + "A" * 43 + "=", "the test"))
POSIX = pytest.mark.skipif(os.name != "posix", reason="modes, pipes and signals are POSIX's")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # aiosqlite needs it


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere" / "the.backup"


@pytest.fixture(autouse=True)
def no_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MOORING_")]:
        monkeypatch.delenv(name)


def opened(home: Path, **options: Any) -> AbstractAsyncContextManager[Broker]:
    key = options.pop("key", None)
    settings = Settings(home=home, master_key=key)
    return open_broker(settings=settings, plugins=[Fake()], system_plugins=(), share_cache=False, **options)


async def register(broker: Broker, name: str, **more: Any) -> Connector:
    config = {"key": f"{CANARY}-secret", "place": f"{CANARY}-place"}
    return await broker.register(name, type="fake", auth_method="key", config=config, verify=False, **more)


PASSING = re.compile(r'INTO "?(audit|audit_seal|events|sqlite_sequence)"')


def files(folder: Path) -> dict[str, bytes]:
    """All that lies there, but what locks are kept in."""
    passing = ("-shm", "-wal", ".lock")
    return {one.name: content(one) for one in sorted(folder.iterdir()) if not one.name.endswith(passing)}


def content(file: Path) -> bytes:
    """Of a store: all but what is written down of each attempt."""
    if file.name != "mooring.db":
        return file.read_bytes()
    try:
        with closing(sqlite3.connect(file)) as connection:
            lines = [line for line in connection.iterdump() if not PASSING.search(line)]
    except sqlite3.Error:
        return file.read_bytes()
    return "\n".join(lines).encode()


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir() if one.suffix != ".lock")


def raw(path: Path, *statements: str) -> list[Any]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rows: list[Any] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


def one_line(error: MooringError) -> str:
    assert "\n" not in error.message
    assert CANARY not in error.message
    return error.message


# The format


def sealed(content: bytes) -> bytes:
    sink = io.BytesIO()
    write_backup(VAULT, NOTE, io.BytesIO(content), sink)
    return sink.getvalue()


def unsealed(backup: bytes) -> bytes:
    note, chunks = read_backup(VAULT, io.BytesIO(backup), "it")
    assert note == NOTE
    return b"".join(chunks)


def parts(backup: bytes) -> list[bytes]:
    """The header and the chunks, each with its length."""
    found, at = [], len(MAGIC)
    while at < len(backup):
        end = at + 4 + int.from_bytes(backup[at : at + 4], "big")
        found.append(backup[at:end])
        at = end
    return found


SMALL = 1000


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a thousand bytes: the same code, with many boundaries."""
    monkeypatch.setattr("mooring.vault._backup.CHUNK_BYTES", SMALL)


@pytest.mark.parametrize("chunks", [0, 1, 2])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_what_is_sealed_opens_at_every_boundary(chunks: int, more: int) -> None:
    size = max(0, chunks * CHUNK_BYTES + more)
    content = random.Random(size).randbytes(size)
    backup = sealed(content)

    assert len(parts(backup)) == 1 + max(1, -(-size // CHUNK_BYTES))
    assert unsealed(backup) == content
    assert len(content) < 16 or content[:100] not in backup


class Zeros(io.RawIOBase):
    """As many zeros as one likes, of which none is kept."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        given = min(size, self.left)
        self.left -= given
        return bytes(given)


def test_the_size_of_a_store_does_not_matter(tmp_path: Path) -> None:
    size = 24 * CHUNK_BYTES + 5
    tracemalloc.start()
    try:
        with (tmp_path / "it").open("wb") as sink:
            write_backup(VAULT, NOTE, Zeros(size), sink)
        with (tmp_path / "it").open("rb") as source:
            assert sum(map(len, read_backup(VAULT, source, "it")[1])) == size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * CHUNK_BYTES


def refuse(backup: bytes, error: type[MooringError] | tuple[type[MooringError], ...] = StoreCorrupt) -> None:
    with pytest.raises(error) as caught:
        unsealed(backup)
    assert re.search(r"\bit\b|master key", one_line(caught.value))


CONTENT = random.Random(1).randbytes(3 * SMALL + 17)


@pytest.mark.usefixtures("small")
def test_a_backup_that_was_cut_anywhere_does_not_open() -> None:
    backup = sealed(CONTENT)
    edges = [len(MAGIC)]
    for part in parts(backup):
        edges += [edges[-1] + 4, edges[-1] + len(part)]
    points = {edge + near for edge in edges for near in range(-5, 6)} | set(range(0, len(backup), 37)) | {0, 1}
    for point in sorted(points):
        if 0 <= point < len(backup):
            refuse(backup[:point])
    assert unsealed(backup) == CONTENT


@pytest.mark.usefixtures("small")
def test_a_backup_of_which_a_bit_was_changed_does_not_open() -> None:
    backup = sealed(CONTENT)
    chance = random.Random(2)
    header = len(MAGIC) + len(parts(backup)[0])
    places = [*range(header + 8), *(chance.randrange(len(backup)) for _ in range(300)), len(backup) - 1]
    for place in places:
        changed = bytearray(backup)
        changed[place] ^= 1 << chance.randrange(8)
        # in the header's key id, nobody can tell it from another's backup
        refuse(bytes(changed), (StoreCorrupt, WrongKey) if place < header else StoreCorrupt)


@pytest.mark.usefixtures("small")
def test_a_backup_that_was_rearranged_or_extended_does_not_open() -> None:
    header, *chunks = parts(sealed(CONTENT))
    other = parts(sealed(CONTENT[::-1]))
    assert len(chunks) == 4
    first, second, third, last = chunks
    for arrangement in (
        [],
        [first, second, third],
        [last],
        [second, first, third, last],
        [first, first, second, third, last],
        [first, third, last],
        [second, third, last],
        [first, second, third, last, last],
        [first, second, last, third],
        [first, second, third, other[4]],
        [other[1], second, third, last],
        [first, second, third, last, b"x"],
        [first, second, third, last, b"\0\0\0\0"],
        [first, second, third, last, bytes(5000)],
    ):
        refuse(MAGIC + header + b"".join(arrangement))
    refuse(MAGIC + other[0] + b"".join(chunks))
    assert unsealed(MAGIC + header + b"".join(chunks)) == CONTENT


def edited(backup: bytes, **changes: Any) -> bytes:
    header, *chunks = parts(backup)
    values = msgspec.msgpack.decode(header[4:])
    values["note"] |= changes
    body = msgspec.msgpack.encode(values)
    return MAGIC + len(body).to_bytes(4, "big") + body + b"".join(chunks)


def test_what_a_backup_says_of_itself_is_sealed_too() -> None:
    backup = sealed(b"x")
    assert unsealed(edited(backup)) == b"x"
    for changes in ({"connectors": 4}, {"version": "2"}, {"created_at": datetime(2030, 1, 1, tzinfo=UTC)}):
        refuse(edited(backup, **changes))
    for changes in ({"connectors": "three"}, {"created_at": 5}, {"version": None}):
        refuse(edited(backup, **changes))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"m",
        MAGIC,
        MAGIC[:-1],
        b"mooring backup 2\n" + sealed(b"x")[len(MAGIC) :],
        b"SQLite format 3\0" + bytes(5000),
        b"\x1f\x8b\x08\x00" + bytes(range(256)) * 40,
        MAGIC + b"\xff\xff\xff\xff" + bytes(5000),
        MAGIC + b"\x00\x01\x00\x00" + bytes(1 << 16),
        MAGIC + b"\x00\x00\x00\x00" + bytes(5000),
        MAGIC + parts(sealed(b"x"))[0] + b"\xff\xff\xff\xff" + bytes(5000),
        MAGIC + parts(sealed(b"x"))[0] + b"\x00\x10\x00\x1d" + bytes(0x10001D),
    ],
    ids=range(12),
)
def test_what_is_no_backup_is_refused(content: bytes) -> None:
    refuse(content)


def test_a_backup_of_another_master_key_names_the_key() -> None:
    backup = sealed(b"x")
    for vault, error, says in (
        (Vault(()), NoMasterKey, "sealed under 'k1'.*MOORING_MASTER_KEY"),
        (Vault(parse_keys("k2:" + "B" * 42 + "A=", "the test")), WrongKey, "'k1', but only 'k2'.*MOORING_MASTER_KEY"),
        (Vault(parse_keys("k1:" + "B" * 42 + "A=", "the test")), WrongKey, "'k1' from the test is not the key"),
    ):
        with pytest.raises(error, match=says) as caught:
            read_backup(vault, io.BytesIO(backup), "it")
        one_line(caught.value)


# Backing up


async def filled(home: Path) -> list[Connector]:
    async with opened(home) as broker:
        await register(broker, "plain")
        await register(
            broker,
            "full",
            resource_type="bucket",
            resource_id="a",
            labels={"team": f"{CANARY}-label", "ünïcode": "🐙'\"\\"},
            description='It\'s "the" one;\n-- really é🐙',
            owner="mé",
            expires_at=datetime(2031, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
            expires_skew=timedelta(seconds=90, microseconds=7),
            ttl=timedelta(minutes=15),
            allow_unnarrowed=True,
            allow_long_lived=True,
        )
        await broker.update("plain", description="changed")
        return list(await broker.list())


async def test_everything_comes_back_as_it_was(home: Path, file: Path, tmp_path: Path) -> None:
    before = await filled(home)
    async with opened(home) as broker:
        await broker.rotate_keys()
        keys = [msgspec.structs.replace(key, source="") for key in await broker.keys()]
        before = list(await broker.list())
        note = await broker.back_up(file)
        secrets = [await broker.secrets(one.id) for one in before]
    assert (note.connectors, note.version) == (2, m.__version__)
    assert [key.state for key in keys] == ["active", "retired"]

    other = tmp_path / "other"
    other.mkdir()
    (other / "master.key").write_bytes((home / "master.key").read_bytes())
    (other / "master.key").chmod(0o600)
    async with opened(other) as broker:
        restored = await broker.restore(file)
        assert (restored.note, restored.saved) == (note, None)
        assert await broker.list() == before
        assert [await broker.secrets(one.id) for one in before] == secrets
        assert [msgspec.structs.replace(key, source="") for key in await broker.keys()] == keys
        assert (await broker.issue("plain", resource_type="bucket", resource_id="b")).credentials
    assert names(other) == ["master.key", "mooring.db"]
    assert raw(other / "mooring.db", "PRAGMA integrity_check") == [("ok",)]
    assert raw(other / "mooring.db", "PRAGMA journal_mode") == [("wal",)]


@POSIX
@pytest.mark.parametrize("mask", [0, 0o077, 0o277])
async def test_a_backup_is_its_owners_alone_and_shows_nothing(home: Path, file: Path, mask: int) -> None:
    connectors = await filled(home)
    async with opened(home) as broker:
        before = os.umask(mask)
        try:
            await broker.back_up(file)
        finally:
            os.umask(before)
    content = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 & ~mask
    assert names(file.parent) == [file.name]
    assert names(home) == ["master.key", "mooring.db"]
    for text in (CANARY, "plain", "full", "fake", "bucket", "team", "changed", *(one.id for one in connectors)):
        assert text.encode() not in content, text


async def test_a_scratch_file_of_a_backup_is_its_owners_alone(
    home: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy that is not sealed yet lies beside the store, never beside the backup."""
    await filled(home)
    seen: list[tuple[str, int]] = []

    def looking(*args: Any) -> None:
        for folder in (home, file.parent):
            seen.extend(
                (f"{folder.name}/{one.name}", stat.S_IMODE(one.stat().st_mode))
                for one in folder.iterdir()
                if one.name.startswith(".mooring-")
            )
        write_backup(*args)

    monkeypatch.setattr(room, "write_backup", looking)
    async with opened(home) as broker:
        before = os.umask(0)
        try:
            await broker.back_up(file)
        finally:
            os.umask(before)
    assert sorted(name.partition("/")[0] for name, _ in seen) == ["elsewhere", "home"]
    assert os.name != "posix" or {mode for _, mode in seen} == {0o600}


WRITER = """
import sys, anyio
from pathlib import Path
from mooring.store import open_sqlite
from mooring.types import Connector
from datetime import datetime, UTC
import sqlite3
async def main(path, name, count):
    print("ready", flush=True)
    sys.stdin.read(1)
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    for number in range(int(count)):
        connection.execute("BEGIN IMMEDIATE")
        for half in "ab":
            connection.execute(
                "UPDATE connectors SET description = ? WHERE name = ?", (str(number), f"{name}-{half}")
            )
        connection.execute("COMMIT")
    connection.close()
anyio.run(main, *sys.argv[1:])
"""


async def test_a_backup_is_of_one_moment_while_four_processes_write(home: Path, file: Path, tmp_path: Path) -> None:
    """Each of their transactions changes two connectors alike; in every backup they are alike."""
    async with opened(home) as broker:
        for writer in range(4):
            for half in "ab":
                await register(broker, f"w{writer}-{half}", description="-1")
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, home / "mooring.db", f"w{writer}", "60"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for writer in range(4)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("x")
            process.stdin.flush()
        for number in range(6):
            await broker.back_up(file.with_name(f"{number}.backup"))
        said = [await anyio.to_thread.run_sync(process.communicate) for process in processes]
        assert [one[1] for one in said] == [""] * 4
        await broker.back_up(file.with_name("6.backup"))
    key = (home / "master.key").read_text().splitlines()[-1]
    states = []
    for number in range(7):
        async with opened(tmp_path / f"r{number}", key=key) as broker:
            await broker.restore(file.with_name(f"{number}.backup"))
            found = {one.name: one.description for one in await broker.list()}
        assert len(found) == 8
        assert all(found[f"w{writer}-a"] == found[f"w{writer}-b"] for writer in range(4))
        states.append([int(found[f"w{writer}-a"]) for writer in range(4)])
    assert states == sorted(states), "later ones are no older"
    assert states[-1] == [59] * 4


async def nothing_left(home: Path, file: Path, error: type[MooringError], says: str) -> None:
    """A backup fails, in one line, and leaves nothing."""
    before, beside = files(home), names(file.parent) if file.parent.is_dir() else None
    async with opened(home) as broker:
        with pytest.raises(error, match=says) as caught:
            await broker.back_up(file)
        assert str(file) in one_line(caught.value)
    assert files(home) == before
    assert (names(file.parent) if file.parent.is_dir() else None) == beside


async def test_a_file_that_is_there_is_kept(home: Path, file: Path) -> None:
    await filled(home)
    file.write_text("precious")
    await nothing_left(home, file, NameTaken, "exists already; a backup is written into a new file")
    assert file.read_text() == "precious"
    file.unlink()
    file.mkdir()
    await nothing_left(home, file, NameTaken, "exists already")
    file.rmdir()
    file.symlink_to(file.parent / "gone")
    await nothing_left(home, file, NameTaken, "exists already")
    assert file.is_symlink()


async def test_a_file_that_appears_meanwhile_is_kept(home: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(home)

    def late(*args: Any) -> None:
        write_backup(*args)
        file.write_text("precious")

    monkeypatch.setattr(room, "write_backup", late)
    async with opened(home) as broker:
        with pytest.raises(StoreUnavailable, match="File exists"):
            await broker.back_up(file)
    assert file.read_text() == "precious"
    assert names(file.parent) == [file.name]


async def test_a_missing_folder_is_not_made(home: Path, file: Path) -> None:
    await filled(home)
    await nothing_left(home, file.parent / "gone" / "it", StoreUnavailable, "cannot be written: No such file")
    await nothing_left(home, home / "mooring.db" / "it", StoreUnavailable, "cannot be written: Not a directory")


def failing(name: str, number: int, *, after: int = 0):
    """`os`, of which one call fails."""
    original, calls = getattr(os, name), 0

    def call(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(number, os.strerror(number))
        return original(*args, **options)

    return SimpleNamespace(**{key: getattr(os, key) for key in dir(os)} | {name: call})


class FullDisk(io.BytesIO):
    """A file whose disk is full after some bytes."""

    def write(self, part: Any) -> int:
        if self.tell() + len(part) > 5000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(part)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)


@pytest.mark.parametrize("step", ["write", "fsync"])
async def test_a_full_disk_leaves_nothing(home: Path, file: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    await filled(home)
    if step == "write":
        full = FullDisk()
        monkeypatch.setattr(
            room, "write_backup", lambda vault, note, source, sink: write_backup(vault, note, source, full)
        )
    else:
        monkeypatch.setattr(room, "os", failing("fsync", errno.ENOSPC))
    await nothing_left(home, file, StoreUnavailable, "cannot be written: No space left on device; .*free some space")


@POSIX
async def test_a_store_that_cannot_be_copied_for_lack_of_room_leaves_nothing(home: Path, file: Path) -> None:
    """A real limit on the size of a file: the disk reports an error to SQLite."""
    await filled(home)
    script = """
import resource, sys, anyio
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import test_backup as t
async def main(home, file):
    async with t.opened(home) as broker:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        try:
            await broker.back_up(file)
        except t.StoreUnavailable as error:
            print(t.names(file.parent), [one for one in t.names(home) if "-" not in one], error.message)
anyio.run(main, Path(sys.argv[2]), Path(sys.argv[3]))
"""
    command = [sys.executable, "-c", script, Path(__file__).parent, home, file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout == (
        f"[] ['master.key', 'mooring.db'] a copy of the store cannot be written in {home}: "
        "the disk is full, or reports an error; free some space, or check its rights\n"
    )


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
async def test_a_file_system_without_links_will_do(
    home: Path, file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    await filled(home)
    monkeypatch.setattr(room, "os", failing("link", number))
    async with opened(home) as broker:
        await broker.back_up(file)
        assert (await broker.check(file)).problems == ()
        with pytest.raises(NameTaken):
            await broker.back_up(file)
    assert names(file.parent) == [file.name]


async def test_a_cancelled_backup_leaves_nothing(home: Path, file: Path) -> None:
    await filled(home)
    async with opened(home) as broker:
        for steps in range(12):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(broker.back_up, file)
                for _ in range(steps * 3):
                    await anyio.sleep(0.0005)
                tasks.cancel_scope.cancel()
            file.unlink(missing_ok=True)  # it was done before
            assert names(file.parent) == []
            assert [name for name in names(home) if name.startswith(".")] == []


async def test_what_a_killed_process_left_is_swept(home: Path, file: Path) -> None:
    await filled(home)
    old = [home / f".mooring-{'0' * 16}", home / f".mooring-{'a' * 16}-wal", file.parent / f".mooring-{'b' * 16}"]
    kept = [home / f".mooring-{'1' * 16}", home / ".mooring-x", file.parent / ".theirs-0123456789abcdef"]
    for one in (*old, *kept):
        one.touch()
        if one != kept[0]:
            os.utime(one, (1, 1))
    async with opened(home) as broker:
        await broker.back_up(file)
    assert [one.exists() for one in old] == [False] * 3
    assert [one.exists() for one in kept] == [True] * 3


async def test_a_store_that_is_not_a_file_is_backed_up_by_its_own_means(file: Path) -> None:
    async with memory_broker(Fake()) as broker:
        for act in (broker.back_up(file), broker.restore(file), broker.check(file)):
            with pytest.raises(ConfigError, match="by its own means"):
                await act
        await broker.register("mine", type="fake", auth_method="key")
        assert (await broker.check()) == m.broker.Report(connectors=1, problems=())


# What is no backup, given to the broker


FOREIGN: dict[str, Callable[[Path, bytes], Any]] = {
    "cut": lambda file, whole: file.write_bytes(whole[:-1]),
    "changed": lambda file, whole: file.write_bytes(whole[:-50] + bytes([whole[-50] ^ 1]) + whole[-49:]),
    "longer": lambda file, whole: file.write_bytes(whole + b"x"),
    "empty": lambda file, whole: file.touch(),
    "text": lambda file, whole: file.write_text("hello"),
    "another database": lambda file, whole: raw(file, "CREATE TABLE t (x)"),
    "a folder": lambda file, whole: file.mkdir(),
    "a pipe": lambda file, whole: os.mkfifo(file),
    "a device": lambda file, whole: file.symlink_to("/dev/zero"),
    "a broken link": lambda file, whole: file.symlink_to(file.parent / "gone"),
    "nothing": lambda file, whole: None,
}


@POSIX
@pytest.mark.parametrize("kind", FOREIGN)
async def test_what_is_no_backup_changes_nothing(home: Path, file: Path, kind: str) -> None:
    await filled(home)
    good = file.with_name("good.backup")
    async with opened(home) as broker:
        await broker.back_up(good)
    FOREIGN[kind](file, good.read_bytes())
    before = files(home)
    content = file.read_bytes() if file.is_file() else None
    async with opened(home) as broker:
        for act in (lambda: broker.restore(file, replace=True), lambda: broker.check(file)):
            with anyio.fail_after(30), pytest.raises((StoreCorrupt, StoreUnavailable)) as caught:
                await act()
            assert str(file) in one_line(caught.value)
        assert len(await broker.list()) == 2
    assert files(home) == before
    assert (file.read_bytes() if file.is_file() else None) == content


async def test_a_backup_of_another_master_key_changes_nothing(home: Path, file: Path, tmp_path: Path) -> None:
    await filled(home)
    async with opened(home) as broker:
        await broker.back_up(file)
        key = (await broker.keys())[0].id
    other = tmp_path / "other"
    async with opened(other) as broker:
        with pytest.raises(NoMasterKey, match=f"sealed under '{key}'.*MOORING_MASTER_KEY"):
            await broker.restore(file)
        await register(broker, "mine")
    before = files(other)
    async with opened(other) as broker:
        for act in (lambda: broker.restore(file, replace=True), lambda: broker.check(file)):
            with pytest.raises(WrongKey, match=f"'{key}', but only"):
                await act()
    assert files(other) == before


async def write_database(home: Path, file: Path, *statements: str) -> None:
    """A backup, sealed as it should be, of something else."""
    image = file.with_name("image")
    raw(image, *statements)
    async with opened(home) as broker:
        await register(broker, "mine")
        with image.open("rb") as source, file.open("wb") as sink:
            write_backup(broker._desk.vault, NOTE, source, sink)


@pytest.mark.parametrize(
    ("statements", "error", "says"),
    [
        (["CREATE TABLE t (x)"], StoreCorrupt, "the backup .* is a database of another program"),
        (
            [f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 99", "CREATE TABLE t (x)"],
            StoreTooNew,
            "the backup .* was written by a newer mooring.*upgrade mooring",
        ),
    ],
)
async def test_a_backup_of_something_else_changes_nothing(
    home: Path, file: Path, statements: list[str], error: type[MooringError], says: str
) -> None:
    await write_database(home, file, *statements)
    before = files(home)
    async with opened(home) as broker:
        for act in (lambda: broker.restore(file, replace=True), lambda: broker.check(file)):
            with pytest.raises(error, match=says) as caught:
                await act()
            assert ".mooring-" not in one_line(caught.value)
            assert str(file) in caught.value.message
    after = files(home)
    saved = [name for name in after if name.startswith("before-restore-")]
    assert {name: content for name, content in after.items() if name not in saved} == before


# Restoring


async def test_connectors_that_are_stored_are_kept_unless_they_shall_be_replaced(home: Path, file: Path) -> None:
    await filled(home)
    async with opened(home) as broker:
        await broker.back_up(file)
        await broker.delete("plain")
        await register(broker, "newer")
        kept = list(await broker.list())
        with pytest.raises(NameTaken, match=r"the store holds 2 connectors; .*--replace"):
            await broker.restore(file)
        assert await broker.list() == kept

        done = await broker.restore(file, replace=True)
        assert [one.name for one in await broker.list()] == ["full", "plain"]
        assert done.saved is not None
        saved = Path(done.saved)
        assert saved.parent == home
        assert os.name != "posix" or stat.S_IMODE(saved.stat().st_mode) == 0o600

        await broker.restore(saved, replace=True)
        assert await broker.list() == kept


async def test_a_key_of_the_environment_opens_it_elsewhere(home: Path, file: Path, tmp_path: Path) -> None:
    await filled(home)
    async with opened(home) as broker:
        await broker.back_up(file)
        exported = broker._desk.vault.keys[0].exported()
    async with opened(tmp_path / "other", key=exported) as broker:
        await broker.restore(file)
        assert (await broker.secrets("plain"))["key"].reveal() == f"{CANARY}-secret"
        assert (await broker.check()).problems == ()


OTHER = """
import sys, anyio
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import test_backup as t
async def main(home):
    async with t.opened(home) as broker:
        await t.register(broker, "theirs")
        await broker.issue("theirs", resource_type="bucket", resource_id="a")
        print("ready", flush=True)
        sys.stdin.readline()
        with anyio.fail_after(20):
            while [one.name for one in await broker.list()] != ["full", "plain"]:
                await anyio.sleep(0.05)
            while True:
                try:
                    await broker.issue("theirs", resource_type="bucket", resource_id="a")
                except t.m.UnknownConnector:
                    break
                await anyio.sleep(0.05)
        await t.register(broker, "theirs-again")
        print("written", flush=True)
        sys.stdin.readline()
        print([one.name for one in await broker.list()], (await broker.check()).problems)
anyio.run(main, Path(sys.argv[2]))
"""


async def test_another_process_goes_on_with_what_was_restored(home: Path, file: Path) -> None:
    await filled(home)
    async with opened(home) as broker:
        await broker.back_up(file)
        process = subprocess.Popen(
            [sys.executable, "-c", OTHER, Path(__file__).parent, home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        inode = (home / "mooring.db").stat().st_ino
        await broker.restore(file, replace=True)
        process.stdin.write("\n")
        process.stdin.flush()
        said = await anyio.to_thread.run_sync(process.stdout.readline)
        assert said == "written\n", process.communicate()[1]
        await register(broker, "ours")
        names = [one.name for one in await broker.list()]
        output, errors = await anyio.to_thread.run_sync(process.communicate, "\n")
    assert errors == ""
    assert names == ["full", "ours", "plain", "theirs-again"]
    assert output == f"{names} ()\n"
    assert (home / "mooring.db").stat().st_ino == inode


async def test_a_backup_of_an_older_schema_is_brought_up_to_date(home: Path, file: Path, tmp_path: Path) -> None:
    connectors = await filled(home)
    image = tmp_path / "image"
    columns = ", ".join(_sqlite.COLUMNS)
    raw(
        image,
        *MIGRATIONS[0].split(";")[:-1],
        f"ATTACH '{home / 'mooring.db'}' AS old",
        f"INSERT INTO main.connectors ({columns}) SELECT {columns} FROM old.connectors",
        f"PRAGMA application_id = {APPLICATION_ID}",
        "PRAGMA user_version = 1",
    )
    async with opened(home) as broker:
        with image.open("rb") as source, file.open("wb") as sink:
            write_backup(broker._desk.vault, NOTE, source, sink)
        assert (await broker.check(file)) == m.broker.Report(connectors=2, problems=())
        await broker.restore(file, replace=True)
        assert await broker.list() == connectors
        assert {key.state: key.connectors for key in await broker.keys()} == {"active": 2}
        assert (await broker.check()).problems == ()
    assert raw(home / "mooring.db", "PRAGMA user_version") == [(len(MIGRATIONS),)]


async def test_a_store_that_another_process_is_writing_is_not_waited_for_for_ever(
    home: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(home)
    monkeypatch.setattr(_sqlite, "BUSY_TIMEOUT", timedelta(seconds=0.2))
    async with opened(home) as broker:
        await broker.back_up(file)
        await register(broker, "newer")
        with closing(sqlite3.connect(home / "mooring.db", isolation_level=None)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            with anyio.fail_after(30), pytest.raises(StoreUnavailable, match="another process holds it; try again"):
                await broker.restore(file, replace=True)
            blocker.execute("ROLLBACK")
        assert [one.name for one in await broker.list()] == ["full", "newer", "plain"]
        assert [name for name in names(home) if name.startswith(".")] == []
        await broker.restore(file, replace=True)
        assert [one.name for one in await broker.list()] == ["full", "plain"]


@pytest.mark.parametrize("step", ["write", "copy"])
async def test_a_full_disk_keeps_what_was_stored(
    home: Path, file: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await filled(home)
    async with opened(home) as broker:
        await broker.back_up(file)
        await broker.delete("plain")
        kept = list(await broker.list())
        if step == "write":
            monkeypatch.setattr(room.os, "fdopen", lambda *args: (os.close(args[0]), FullDisk())[1])
            says = f"the backup {file} cannot be unpacked in {home}: No space left on device"
            with pytest.raises(StoreUnavailable, match=re.escape(says)):
                await broker.restore(file, replace=True)
        else:
            connect = _sqlite._connect

            def small(path: Path) -> sqlite3.Connection:
                connection = connect(path)
                connection.execute("PRAGMA max_page_count = 3")
                return connection

            for number in range(30):
                await register(broker, f"n{number}", description="x" * 400)
            big = file.with_name("big.backup")
            await broker.back_up(big)
            for number in range(30):
                await broker.delete(f"n{number}")
            raw(home / "mooring.db", "VACUUM")
            monkeypatch.setattr(_sqlite, "_connect", small)
            with pytest.raises(StoreUnavailable, match="the disk is full; free some space"):
                await broker.restore(big, replace=True)
        monkeypatch.undo()
        assert await broker.list() == kept
        assert (await broker.check()).problems == ()
        assert [name for name in names(home) if name.startswith(".")] == []


KILLED = """
import os, signal, sys, threading
sys.path.insert(0, sys.argv[1])
import sqlite3
from pathlib import Path
import anyio
import test_backup as t
home, file, limit = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
steps, counting, lock = 0, False, threading.Lock()

def step():
    global steps
    with lock:
        steps += counting
        if counting and steps == limit:
            os.kill(os.getpid(), signal.SIGKILL)

WATCHED = {"open", "os.link", "os.rename", "os.remove", "sqlite3.connect", "os.listdir", "os.scandir"}

def heard(event, args):
    if event in WATCHED:
        step()

class Watched(sqlite3.Connection):
    def execute(self, *args):
        step()
        done = super().execute(*args)
        step()
        return done

    def backup(self, target, **options):
        step()
        super().backup(target, pages=-1, **options)
        step()

    def close(self):
        step()
        super().close()
        step()

connect = sqlite3.connect
sqlite3.connect = lambda *args, **options: connect(*args, **options, factory=Watched)
sys.addaudithook(heard)

async def main():
    global counting
    async with t.opened(home) as broker:
        counting = True
        await broker.restore(file, replace=True)
        counting = False
anyio.run(main)
print(steps)
"""


@POSIX
async def test_killed_at_any_step_the_store_holds_the_old_or_the_new(home: Path, file: Path, tmp_path: Path) -> None:
    """By SIGKILL, before or after a statement, a file that is opened, moved or removed; some of them each time."""
    await filled(home)
    async with opened(home) as broker:
        await broker.back_up(file)
        await broker.delete("plain")
        await register(broker, "newer")
    before = {one.name: one.read_bytes() for one in home.iterdir() if one.suffix != ".lock"}

    def run(number: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, Path(__file__).parent, home, file, str(number)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def reset() -> None:
        for one in home.iterdir():
            one.unlink()
        for name, content in before.items():
            (home / name).write_bytes(content)
            (home / name).chmod(0o600)

    done = run(0)
    assert done.stderr == ""
    last = int(done.stdout)
    assert last > 30
    seen = []
    for number in sorted({1, 2, *range(3, last, max(1, last // 12)), *range(last - 5, last + 1)}):
        reset()
        done = run(number)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        async with opened(home) as broker:
            assert (await broker.check()).problems == ()
            found = [one.name for one in await broker.list()]
            seen.append(found)
            for one in home.iterdir():
                if one.name.startswith(".mooring-"):
                    os.utime(one, (1, 1))
            await broker.back_up(tmp_path / f"after-{number}.backup")
            for saved in home.glob("before-restore-*"):
                assert (await broker.check(saved)).problems == ()
        assert [name for name in names(home) if name.startswith(".")] == []
    old, new = ["full", "newer"], ["full", "plain"]
    assert seen[0] == old
    assert seen[-1] == new
    assert seen == [old] * seen.count(old) + [new] * seen.count(new)


# Checking


async def test_a_sound_store_and_a_sound_backup_are_only_looked_at(home: Path, file: Path) -> None:
    await filled(home)
    async with opened(home) as broker:
        await broker.back_up(file)
    before, backup = files(home), file.read_bytes()
    async with opened(home) as broker:
        assert await broker.check() == m.broker.Report(connectors=2, problems=())
        assert await broker.check(file) == m.broker.Report(connectors=2, problems=())
    assert files(home) == before
    assert file.read_bytes() == backup


def damage_pages(path: Path, share: float) -> None:
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[16:18], "big")
    start = max(size, int(len(content) * share) // size * size)
    content[start : start + size] = b"\xa5" * size
    path.write_bytes(content)


async def test_damaged_pages_are_told(home: Path, file: Path) -> None:
    async with opened(home) as broker:
        for number in range(40):
            await register(broker, f"n{number}", description="x" * 400)
    whole = (home / "mooring.db").read_bytes()
    told = []
    for share in (0.0, 0.2, 0.5, 0.6, 0.8, 0.99):
        (home / "mooring.db").write_bytes(whole)
        damage_pages(home / "mooring.db", share)
        before = names(home)
        try:
            async with opened(home) as broker:
                report = await broker.check()
                told.append(report)
                for act in (lambda: broker.back_up(file), lambda: broker.restore(file, replace=True)):
                    with pytest.raises((StoreCorrupt, StoreUnavailable)):
                        await act()
        except StoreCorrupt as error:
            told.append(one_line(error))
        assert names(home) == before
        assert not file.exists()
    assert all(one.problems if isinstance(one, m.broker.Report) else "move it away" in one for one in told)
    assert any(isinstance(one, m.broker.Report) and one.problems for one in told)


async def test_seals_that_do_not_open_and_keys_that_are_missing_are_told(home: Path, file: Path) -> None:
    connectors = await filled(home)
    async with opened(home) as broker:
        raw(home / "mooring.db", "UPDATE connectors SET settings = '{\"place\":\"evil\"}' WHERE name = 'full'")
        report = await broker.check()
        assert report.connectors == 2
        assert [one.partition(":")[0] for one in report.problems] == ["connector 'full'"]
        assert "altered or moved" in report.problems[0]
        await broker.back_up(file)
        assert (await broker.check(file)).problems == report.problems
    (home / "master.key").unlink()
    async with opened(home) as broker:
        report = await broker.check()
        key = connectors[0].sealed.key_id
        assert [f"there is no master key, but this is sealed under '{key}'" in one for one in report.problems] == [
            True
        ] * 2
        with pytest.raises(NoMasterKey, match=key):
            await broker.check(file)
        with pytest.raises(NoMasterKey):
            await broker.back_up(file.with_name("another"))
    assert names(file.parent) == [file.name]


DAMAGE = {
    "settings": "settings = '{\"a\": cAnArY-4e1f'",
    "labels": "labels = '5'",
    "sealed": "sealed = substr(sealed, 1, length(sealed) - 3)",
    "instant": "created_at = ''",
    "text": "description = CAST(x'ff' AS TEXT)",
}


async def test_damaged_records_of_what_was_handed_out_are_told_and_backed_up_as_they_are(
    home: Path, file: Path
) -> None:
    await filled(home)
    raw(home / "mooring.db", "UPDATE audit SET body = x'00' WHERE seq = 1")
    raw(home / "mooring.db", "INSERT INTO undo_log VALUES ('u', 'c', 'no json', '', 0, '')")
    async with opened(home) as broker:
        report = await broker.check()
        assert [one.partition(" is damaged")[0].split(" in ")[0] for one in report.problems] == [
            "the record of audit entry 1",
            "a record of the undo log",
        ]
        await broker.back_up(file)
        assert len((await broker.check(file)).problems) == 2
        await broker.restore(file, replace=True)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_damaged_records_are_told_and_backed_up_as_they_are(home: Path, file: Path, damage: str) -> None:
    await filled(home)
    raw(home / "mooring.db", f"UPDATE connectors SET {damage} WHERE name = 'full'")
    before = files(home)
    async with opened(home) as broker:
        report = await broker.check()
        assert report.connectors == 1
        (problem,) = report.problems
        assert "the record of connector 'full'" in problem
        assert "mooring connector delete --damaged full" in problem
        assert CANARY not in problem
    assert files(home) == before
    async with opened(home) as broker:
        assert (await broker.back_up(file)).connectors == 2
        found = await broker.check(file)
        assert (found.connectors, len(found.problems)) == (1, 1)
        with pytest.raises(NameTaken, match="2 connectors"):
            await broker.restore(file)
