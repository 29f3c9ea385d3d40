"""The shelf of a machine: issued credentials, sealed, one file a key, shared by the processes of one user.

Files are replaced whole; a lock is the system's own and goes with the process that holds it. What cannot be read or
opened counts as absent: the shelf saves calls, it is never the only copy of anything. A folder that is a link, or
another user's, is not used at all.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from mooring.cache import Key
from mooring.credentials import Credentials, Issued, restore, reveal
from mooring.errors import MooringError, VaultError
from mooring.types import Sealed, Secret, instant
from mooring.vault import Vault

KEEP_SECONDS = 36 * 3600
"""Longer than any vendor's temporary credentials live; older files are swept."""
SWEEP_SECONDS = 3600
"""How long a process that goes on writing lets the folder be before it sweeps again."""
LOCK_POLL_SECONDS = 0.02
MAX_BYTES = 1 << 20
"""More than any credentials need; a larger file is not ours."""


class SealedShelf:
    """A `Shelf` in a folder."""

    def __init__(self, folder: Path, vault: Vault, kinds: Callable[[str], tuple[type[Credentials], ...]]) -> None:
        """Take the folder (made when first written), and which credential kinds a connector type issues."""
        self._folder = folder
        self._vault = vault
        self._kinds = kinds
        self._swept = float("-inf")

    async def get(self, key: Key) -> Issued | None:
        """What lies there, if it can be read, opened and understood."""
        return await anyio.to_thread.run_sync(self._read, _name(key))

    async def put(self, key: Key, issued: Issued) -> None:
        """Replace what lies there; a full or read-only disk, or the lack of a key, is no reason to fail."""
        with suppress(OSError, VaultError, UnicodeError):
            await anyio.to_thread.run_sync(self._write, _name(key), issued)

    async def forget(self, connector_id: str) -> None:
        """Remove what lies there of a connector, drafts of other processes too."""
        with suppress(OSError):
            await anyio.to_thread.run_sync(self._remove, _owner(connector_id))

    async def drop(self, key: Key) -> None:
        """Remove what lies there of one key."""
        with suppress(OSError):
            await anyio.to_thread.run_sync(self._unlink, _name(key))

    @asynccontextmanager
    async def lock(self, key: Key) -> AsyncGenerator[None, None]:
        """Hold the key alone among all processes of the machine, where the folder can be written."""
        release: Callable[[], None] | None = None
        with suppress(OSError):  # no lock on a read-only disk: then each process makes its own call
            self._prepare()
            while (release := _take(self._folder / f"{_name(key)}.lock")) is None:  # noqa: ASYNC110  no other process tells
                await anyio.sleep(LOCK_POLL_SECONDS)
        try:
            yield
        finally:
            if release is not None:
                release()

    def _read(self, name: str) -> Issued | None:
        try:
            self._refuse_foreign()
            sealed = msgspec.msgpack.decode(_bytes(self._folder / f"{name}.sealed"), type=Sealed)
            text = self._vault.open(name, sealed)["issued"].reveal()
            values = msgspec.json.decode(text)
            credentials = restore(values["credentials"], self._kinds(values["connector_type"]))
            issued_at = instant(values["issued_at"])
            return Issued(**values | {"credentials": credentials, "issued_at": issued_at, "cached": True})
        except (OSError, MooringError, msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _write(self, name: str, issued: Issued) -> None:
        self._prepare()
        if time.monotonic() - self._swept >= SWEEP_SECONDS:
            self._swept = time.monotonic()
            self._sweep()
        values = {field: getattr(issued, field) for field in issued.__struct_fields__}
        text = msgspec.json.encode(values | {"credentials": reveal(issued.credentials)}).decode()
        draft = self._folder / f"{name}.{secrets.token_hex(6)}.new"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                draft.chmod(0o600)  # whatever the umask took away
                file.write(msgspec.msgpack.encode(self._vault.seal(name, {"issued": Secret(text)})))
            draft.replace(self._folder / f"{name}.sealed")
        finally:
            draft.unlink(missing_ok=True)

    def _prepare(self) -> None:
        """The folder, for its owner alone."""
        for folder in (self._folder.parent, self._folder):
            with suppress(FileExistsError):
                folder.mkdir(parents=True, mode=0o700)
                folder.chmod(0o700)  # whatever the umask took away
        if self._refuse_foreign() & 0o077:
            self._folder.chmod(0o700)

    def _refuse_foreign(self) -> int:
        """The folder's mode, if it is a folder of ours: in another's, locks could be held against us for ever."""
        found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or (os.name == "posix" and found.st_uid != os.geteuid()):
            raise PermissionError
        return stat.S_IMODE(found.st_mode) if os.name == "posix" else 0

    def _unlink(self, name: str) -> None:
        self._refuse_foreign()
        (self._folder / f"{name}.sealed").unlink(missing_ok=True)

    def _remove(self, owner: str) -> None:
        self._refuse_foreign()
        for path in self._folder.glob(f"{owner}-*"):
            if path.suffix in {".sealed", ".new"}:
                with suppress(OSError):
                    path.unlink()

    def _sweep(self) -> None:
        """Remove what is too old to be valid, and the locks of processes that died."""
        oldest = time.time() - KEEP_SECONDS
        for path in self._folder.iterdir():
            with suppress(OSError):
                if path.suffix == ".lock" and (release := _take(path)):
                    release()
                elif path.suffix in {".sealed", ".new"} and path.stat().st_mtime < oldest:
                    path.unlink()


def _name(key: Key) -> str:
    return f"{_owner(key.connector_id)}-{_digest(repr(key).encode())[:40]}"


def _owner(connector_id: str) -> str:
    return _digest(connector_id.encode())[:16]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _bytes(path: Path) -> bytes:
    """A regular file's content, cut where it is too large to open; no link is followed and no pipe waited for."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise PermissionError
        return file.read(MAX_BYTES)


def _take(path: Path) -> Callable[[], None] | None:
    """Lock the file, made if there is none: what lets go of it and removes it, or None while another holds it.

    Whoever holds the lock may remove the file, nobody else. One that was opened, but removed before it was locked,
    guards nothing any more: so the name has to lead to it still.
    """
    if os.name != "posix":
        from filelock import FileLock, Timeout

        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return lock.release  # which removes the file itself, where nobody else has it open
    import fcntl

    with ExitStack() as undo:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        undo.callback(os.close, fd)
        os.fchmod(fd, 0o600)
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), path.lstat()):
                undo.pop_all()
                return partial(_let_go, path, fd)
    return None


def _let_go(path: Path, fd: int) -> None:
    with suppress(OSError):
        path.unlink()
    os.close(fd)
