"""The shelf: shared by the processes of one user, readable by nobody else, and never a reason to fail."""

# ruff: noqa: ASYNC240  a test may wait for a small file or a process of its own

import base64
import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import msgspec
import pytest

import mooring as m
from mooring.cache import Key
from mooring.credentials import SHARED, Credentials, Issued
from mooring.errors import NoMasterKey, UnknownConnectorType
from mooring.shelf import KEEP_SECONDS, MAX_BYTES, SWEEP_SECONDS, SealedShelf, _take
from mooring.types import Secret
from mooring.vault import KEY_BYTES, MasterKey, Vault

pytestmark = pytest.mark.anyio

CANARY = "cAnArY/77+c3=&ü"
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
POSIX = pytest.mark.skipif(os.name != "posix", reason="file modes and signals are POSIX's")


class AcmeKeys(Credentials, kw_only=True, tag="acme-keys"):
    key: Secret
    extra: Secret | None = None


def vault(number: int = 1) -> Vault:
    return Vault([MasterKey(id="k", key=Secret(base64.b64encode(bytes([number]) * KEY_BYTES).decode()), source="test")])


def shelf(folder: Path, number: int = 1, kinds: tuple[type[Credentials], ...] = (*SHARED, AcmeKeys)) -> SealedShelf:
    return SealedShelf(folder, vault(number), lambda name: kinds)


def key(**changes: Any) -> Key:
    return Key(
        **{
            "connector_id": "id-1",
            "fingerprint": "f1",
            "resource_type": "s3-bucket",
            "resource_id": "s3://b",
            "access": "read",
            "ttl": timedelta(minutes=15),
        }
        | changes
    )


def issued(credentials: Credentials | None = None, **changes: Any) -> Issued:
    return Issued(
        **{
            "connector_id": "id-1",
            "connector": "main",
            "connector_type": "acme",
            "resource_type": "s3-bucket",
            "resource_id": "s3://b",
            "access": "read",
            "consumer": "me@here",
            "issued_at": NOW,
            "credentials": credentials
            or AcmeKeys(expires_at=NOW + timedelta(hours=1), narrowed=True, key=Secret(CANARY), clamped=("less",)),
        }
        | changes
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "cache"


def sealed_file(folder: Path) -> Path:
    (file,) = folder.glob("*.sealed")
    return file


LOGIN = m.RegistryLogin(expires_at=None, narrowed=False, registry="r", username="u", password=Secret(CANARY))


@pytest.mark.parametrize("credentials", [None, LOGIN], ids=["a kind of a plugin", "a shared kind"])
async def test_what_one_process_lays_there_another_takes(folder: Path, credentials: Credentials | None) -> None:
    one = issued(credentials)
    await shelf(folder).put(key(), one)

    assert await shelf(folder).get(key()) == msgspec.structs.replace(one, cached=True)


async def test_the_later_one_replaces_the_earlier(folder: Path) -> None:
    one = shelf(folder)
    await one.put(key(), issued(connector="old"))
    await one.put(key(), issued(connector="new"))

    assert (await one.get(key())).connector == "new"
    assert len(list(folder.iterdir())) == 1


OTHER_KEYS = [
    {"connector_id": "id-2"},
    {"fingerprint": "f2"},
    {"resource_type": "docker-registry"},
    {"resource_id": "s3://c"},
    {"resource_id": None},
    {"access": "write"},
    {"ttl": timedelta(minutes=16)},
    {"ttl": None},
]


@pytest.mark.parametrize("changes", OTHER_KEYS)
async def test_every_part_of_the_key_tells_credentials_apart(folder: Path, changes: dict[str, Any]) -> None:
    await shelf(folder).put(key(), issued())

    assert await shelf(folder).get(key(**changes)) is None


async def test_an_empty_shelf_holds_nothing_and_is_not_made_by_looking(folder: Path) -> None:
    assert await shelf(folder).get(key()) is None
    assert not folder.exists()


async def test_another_vault_reads_nothing(folder: Path) -> None:
    await shelf(folder).put(key(), issued())

    assert await shelf(folder, number=2).get(key()) is None
    assert await shelf(folder).get(key()) is not None


async def test_a_file_moved_to_another_key_reads_nothing(folder: Path) -> None:
    one = shelf(folder)
    await one.put(key(access="write"), issued())
    stronger = sealed_file(folder)
    await one.put(key(access="list"), issued())
    weaker = next(file for file in folder.glob("*.sealed") if file != stronger)
    stronger.replace(weaker)

    assert await one.get(key(access="list")) is None


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda raw: b"",
    "cut at the start": lambda raw: raw[1:],
    "cut at the end": lambda raw: raw[:-1],
    "cut in the middle": lambda raw: raw[: len(raw) // 2],
    "grown": lambda raw: raw + b"\0",
    "garbage": lambda raw: os.urandom(len(raw)),
    "text": lambda raw: b"hello",
    "JSON": lambda raw: b'{"key_id": "k"}',
    "an empty table": lambda raw: b"\x80",
    "a number": lambda raw: b"\x05",
    "a flipped bit": lambda raw: raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:],
    "nested beyond any depth": lambda raw: b"\x81\xa1x" + b"\x91" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_a_damaged_file_reads_nothing_and_is_replaced_by_the_next(
    folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    one = shelf(folder)
    await one.put(key(), issued())
    file = sealed_file(folder)
    file.write_bytes(damage(file.read_bytes()))
    assert await one.get(key()) is None

    await one.put(key(), issued())
    assert await one.get(key()) is not None


FOREIGN = {
    "no JSON": "hello",
    "a list": "[]",
    "an empty table": "{}",
    "no credentials": '{"connector_type": "acme"}',
    "credentials that are a text": '{"connector_type": "acme", "credentials": "x"}',
    "a secret that is a number": '{"connector_type": "acme", "credentials": {"type": "acme-keys", "key": 5}}',
    "credentials alone": (
        '{"connector_type": "acme", "credentials": '
        '{"type": "acme-keys", "key": "x", "narrowed": true, "expires_at": null}}'
    ),
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
async def test_what_opens_but_is_not_understood_reads_nothing(folder: Path, text: str) -> None:
    """As another version of mooring or of a plugin may have written it."""
    await shelf(folder).put(key(), issued())
    file = sealed_file(folder)
    file.write_bytes(msgspec.msgpack.encode(vault().seal(file.stem, {"issued": Secret(text)})))

    assert await shelf(folder).get(key()) is None


async def test_credentials_of_a_kind_that_is_no_longer_offered_read_nothing(folder: Path) -> None:
    await shelf(folder).put(key(), issued())

    assert await shelf(folder, kinds=SHARED).get(key()) is None


async def test_credentials_of_a_plugin_that_is_no_longer_installed_read_nothing(folder: Path) -> None:
    def gone(name: str) -> tuple[type[Credentials], ...]:
        raise UnknownConnectorType("no plugin serves it")

    await shelf(folder).put(key(), issued())

    assert await SealedShelf(folder, vault(), gone).get(key()) is None


async def test_what_is_forgotten_is_that_connectors_alone(folder: Path) -> None:
    one = shelf(folder)
    for connector_id in ("id-1", "id-2"):
        for access in ("read", "write"):
            await one.put(key(connector_id=connector_id, access=access), issued())
    async with one.lock(key()):
        await shelf(folder).forget("id-1")
        left = sorted(path.suffix for path in folder.iterdir())

    assert left == [".lock", ".sealed", ".sealed"]
    assert [await one.get(key(access=access)) for access in ("read", "write")] == [None, None]
    assert await one.get(key(connector_id="id-2")) is not None


async def test_nothing_to_forget(folder: Path) -> None:
    await shelf(folder).forget("id-1")

    assert not folder.exists()


# What lies on the disk


async def test_the_files_hold_nothing_that_could_be_read(folder: Path) -> None:
    await shelf(folder).put(key(resource_id="s3://secret-plans"), issued(resource_id="s3://secret-plans"))
    raw = b"".join(file.name.encode() + file.read_bytes() for file in folder.iterdir())
    plain = CANARY.encode()
    shifted = [base64.b64encode(b"x" * by + plain)[(by * 4 + 2) // 3 + 1 : -4] for by in range(3)]
    forms = [plain, plain[:6], quote(CANARY).encode(), CANARY.encode("utf-16-le"), plain.hex().encode(), *shifted]

    for form in [*forms, b"secret-plans", b"acme", b"me@here"]:
        assert form not in raw
    assert base64.urlsafe_b64encode(plain)[:8] not in raw


@POSIX
@pytest.mark.parametrize("umask", [0, 0o777], ids=["nothing masked", "all masked"])
async def test_every_file_and_the_folder_are_their_owners_alone_whatever_the_umask(folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        async with shelf(folder).lock(key()):
            await shelf(folder).put(key(), issued())
            modes = {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
            count = len(list(folder.iterdir()))
    finally:
        os.umask(before)

    assert (modes, count) == ({0o600}, 2)
    assert {stat.S_IMODE(place.stat().st_mode) for place in (folder, folder.parent)} == {0o700}


@POSIX
async def test_a_folder_of_ours_that_others_could_enter_is_closed_to_them(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    await shelf(folder).put(key(), issued())

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_draft_never_stays_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", refuse)
    await shelf(folder).put(key(), issued())

    assert list(folder.iterdir()) == []


async def test_what_is_too_old_to_be_valid_is_swept_once_an_hour_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = shelf(folder)
    await one.put(key(), issued())
    young = {sealed_file(folder).name}
    now = time.monotonic()
    old = time.time() - KEEP_SECONDS - 60
    for name in ("old.sealed", "old.new", "old.lock", "notes.txt", "young.sealed"):
        (folder / name).write_text("x")
        if name != "young.sealed":
            os.utime(folder / name, (old, old))
    (folder / "folder.sealed").mkdir()
    os.utime(folder / "folder.sealed", (old, old))
    before = {file.name for file in folder.iterdir()}

    await one.put(key(), issued())
    assert {file.name for file in folder.iterdir()} == before, "this one has swept already"
    monkeypatch.setattr(time, "monotonic", lambda: now + SWEEP_SECONDS + 60)
    await one.put(key(), issued())
    left = {file.name for file in folder.iterdir()}
    assert left == young | {"notes.txt", "young.sealed", "folder.sealed"}


# Where no shelf can be


def a_file(folder: Path) -> None:
    folder.write_text("x")


def a_file_above(folder: Path) -> None:
    folder.parent.rmdir()
    folder.parent.write_text("x")


def a_link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o755)
    folder.symlink_to(folder.parent / "elsewhere")


def a_link_to_nowhere(folder: Path) -> None:
    folder.symlink_to(folder.parent / "nowhere")


@POSIX
@pytest.mark.parametrize("place", [a_file, a_file_above, a_link, a_link_to_nowhere])
async def test_where_no_folder_of_ours_can_be_nothing_is_kept_or_touched(
    folder: Path, place: Callable[[Path], None]
) -> None:
    folder.parent.mkdir()
    place(folder)
    before = sorted(folder.parent.parent.rglob("*"))
    one = shelf(folder)
    entered = 0

    await one.put(key(), issued())
    await one.forget("id-1")
    assert await one.get(key()) is None
    with anyio.fail_after(20):
        async with one.lock(key()), one.lock(key()):
            entered += 1
    assert entered == 1
    assert sorted(folder.parent.parent.rglob("*")) == before
    assert not folder.is_dir() or stat.S_IMODE(folder.stat().st_mode) == 0o755


@POSIX
async def test_another_users_folder_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could hold every lock for ever."""
    await shelf(folder).put(key(), issued())
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    one = shelf(folder)
    async with one.lock(key()):
        await one.put(key(access="write"), issued())

        assert await one.get(key()) is None
        assert len(list(folder.iterdir())) == 1


@POSIX
@pytest.mark.parametrize("kind", ["a pipe", "a link", "a folder"])
async def test_what_is_no_file_reads_nothing_and_nothing_waits_for_it(folder: Path, kind: str) -> None:
    one = shelf(folder)
    await one.put(key(), issued())
    file = sealed_file(folder)
    if kind == "a link":
        file.rename(folder / "other")
        file.symlink_to(folder / "other")
    else:
        file.unlink()
        (os.mkfifo if kind == "a pipe" else os.mkdir)(file)

    with anyio.fail_after(20):
        assert await one.get(key()) is None
        await one.put(key(), issued())
    assert (await one.get(key()) is None) == (kind == "a folder")


async def test_a_file_of_a_size_that_no_credentials_have_is_not_read(folder: Path) -> None:
    one = shelf(folder)
    await one.put(key(), issued())
    file = sealed_file(folder)
    os.truncate(file, 1 << 42)  # more than any memory holds; sparse, so that the disk holds it
    assert await one.get(key()) is None

    file.unlink()
    await one.put(key(), issued(connector="x" * MAX_BYTES))
    assert await one.get(key()) is None


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
async def test_a_disk_that_takes_nothing_more_is_no_reason_to_fail(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    await shelf(folder).put(key(), issued())
    really, entered = os.open, 0

    def refuse(path: object, flags: int, *args: Any, **more: Any) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(folder)):
            raise OSError(code, os.strerror(code))
        return really(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", refuse)
    one = shelf(folder)
    with anyio.fail_after(20):
        async with one.lock(key()), one.lock(key()):
            await one.put(key(access="write"), issued())
            entered += 1
    assert entered == 1
    assert await one.get(key()) is not None
    assert await one.get(key(access="write")) is None


async def test_text_that_is_not_unicode_is_no_reason_to_fail(folder: Path) -> None:
    one = shelf(folder)
    here = key(resource_id="\udcff")
    async with one.lock(here):
        await one.put(here, issued(resource_id="\udcff"))

    assert await one.get(here) is None
    assert list(folder.iterdir()) == []


async def test_a_vault_without_a_key_is_no_reason_to_fail(folder: Path) -> None:
    """A connector that keeps no secret works without a master key, and so without a shelf."""

    def fail() -> tuple[MasterKey, ...]:
        raise NoMasterKey("no")

    one = SealedShelf(folder, Vault(fail), lambda name: SHARED)
    await one.put(key(), issued())

    assert await one.get(key()) is None


# The lock


async def test_the_lock_lets_one_task_in_at_a_time(folder: Path) -> None:
    one, inside, most, entered = shelf(folder), 0, 0, 0

    async def enter() -> None:
        nonlocal inside, most, entered
        async with one.lock(key()):
            inside += 1
            entered += 1
            most = max(most, inside)
            await anyio.sleep(0.001)
            inside -= 1

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(enter)

    assert (most, entered) == (1, 5)


async def test_no_lock_file_stays_behind(folder: Path) -> None:
    one = shelf(folder)
    for number in range(20):
        async with one.lock(key(resource_id=str(number))):
            assert [path.suffix for path in folder.iterdir()] == [".lock"]

    assert list(folder.iterdir()) == []


@POSIX
async def test_a_lock_on_a_file_that_its_holder_has_removed_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap: opened while another held it, locked once he had removed it, while a third holds the new file."""
    import fcntl

    folder.mkdir(parents=True)
    first = _take(folder / "x.lock")
    really, third = fcntl.flock, []

    def late(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", really)
        first()
        third.append(_take(folder / "x.lock"))
        really(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert _take(folder / "x.lock") is None
    assert third[0] is not None
    third[0]()
    assert list(folder.iterdir()) == []


async def test_the_locks_of_two_keys_have_nothing_to_do_with_each_other(folder: Path) -> None:
    with anyio.fail_after(20):
        async with shelf(folder).lock(key()), shelf(folder).lock(key(fingerprint="f2")):
            entered = True

    assert entered


async def test_an_error_or_a_cancellation_inside_frees_the_lock(folder: Path) -> None:
    with anyio.fail_after(20):
        with pytest.raises(OSError, match="mine"):
            async with shelf(folder).lock(key()):
                raise OSError("mine")
        with anyio.move_on_after(0.01) as inside:
            async with shelf(folder).lock(key()):
                await anyio.sleep_forever()
        async with shelf(folder).lock(key()):
            with anyio.move_on_after(0.05) as waiting:
                async with shelf(folder).lock(key()):
                    pytest.fail("two are inside")
        async with shelf(folder).lock(key()):
            entered = True

    assert (inside.cancelled_caught, waiting.cancelled_caught, entered) == (True, True, True)


HOLD = """
import sys, anyio
from datetime import timedelta
from pathlib import Path
from mooring.cache import Key
from mooring.shelf import SealedShelf
from mooring.vault import Vault
key = Key(connector_id="id-1", fingerprint="f1", resource_type="s3-bucket", resource_id="s3://b", access="read",
          ttl=timedelta(minutes=15))
async def main():
    async with SealedShelf(Path(sys.argv[1]), Vault(()), lambda name: ()).lock(key):
        print("held", flush=True)
        sys.stdin.read(1)
anyio.run(main)
"""


@contextmanager
def another_process_holds(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


async def enters(folder: Path, seconds: float) -> bool:
    with anyio.move_on_after(seconds):
        async with shelf(folder).lock(key()):
            return True
    return False


@pytest.mark.parametrize("end", ["it leaves", "SIGKILL"])
async def test_the_lock_keeps_other_processes_out_and_goes_with_its_holder(folder: Path, end: str) -> None:
    with another_process_holds(folder) as holder:
        assert not await enters(folder, 0.2)
        if end == "it leaves":
            holder.stdin.write("x")
            holder.stdin.flush()
        else:
            holder.send_signal(signal.SIGKILL)

        assert await enters(folder, 10)


async def test_what_is_locked_can_still_be_read(folder: Path) -> None:
    await shelf(folder).put(key(), issued())
    with another_process_holds(folder):
        assert await shelf(folder).get(key()) is not None
