"""The shelf of a machine: issued credentials, sealed, one file a key, shared by the processes of one user.

Files are replaced whole; a lock is the system's own and goes with the process that holds it. What cannot be read or
opened counts as absent: the shelf saves calls, it is never the only copy of anything.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
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
LOCK_POLL_SECONDS = 0.02


class SealedShelf:
    """A `Shelf` in a folder."""

    def __init__(self, folder: Path, vault: Vault, kinds: Callable[[str], tuple[type[Credentials], ...]]) -> None:
        """Take the folder (made when first written), and which credential kinds a connector type issues."""
        self._folder = folder
        self._vault = vault
        self._kinds = kinds
        self._swept = False

    async def get(self, key: Key) -> Issued | None:
        """What lies there, if it can be read, opened and understood."""
        return await anyio.to_thread.run_sync(self._read, _name(key))

    async def put(self, key: Key, issued: Issued) -> None:
        """Replace what lies there; a full or read-only disk, or the lack of a key, is no reason to fail."""
        with suppress(OSError, VaultError):
            await anyio.to_thread.run_sync(self._write, _name(key), issued)

    @asynccontextmanager
    async def lock(self, key: Key) -> AsyncGenerator[None, None]:
        """Hold the key alone among all processes of the machine, where the folder can be written."""
        from filelock import FileLock, Timeout

        lock = FileLock(self._folder / f"{_name(key)}.lock", mode=0o600)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            while True:
                try:
                    lock.acquire(blocking=False)
                    break
                except Timeout:
                    await anyio.sleep(LOCK_POLL_SECONDS)
        except OSError:
            pass  # no lock on a read-only disk: then each process makes its own call
        try:
            yield
        finally:
            lock.release()

    def _read(self, name: str) -> Issued | None:
        try:
            sealed = msgspec.msgpack.decode((self._folder / f"{name}.sealed").read_bytes(), type=Sealed)
            text = self._vault.open(name, sealed)["issued"].reveal()
            values = msgspec.json.decode(text)
            credentials = restore(values["credentials"], self._kinds(values["connector_type"]))
            issued_at = instant(values["issued_at"])
            return Issued(**values | {"credentials": credentials, "issued_at": issued_at, "cached": True})
        except (OSError, MooringError, msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _write(self, name: str, issued: Issued) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._swept:
            self._sweep()
        values = {field: getattr(issued, field) for field in issued.__struct_fields__}
        text = msgspec.json.encode(values | {"credentials": reveal(issued.credentials)}).decode()
        draft = self._folder / f"{name}.{secrets.token_hex(6)}.new"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(msgspec.msgpack.encode(self._vault.seal(name, {"issued": Secret(text)})))
            draft.replace(self._folder / f"{name}.sealed")
        finally:
            draft.unlink(missing_ok=True)

    def _sweep(self) -> None:
        self._swept = True
        oldest = time.time() - KEEP_SECONDS
        for path in self._folder.iterdir():
            with suppress(OSError):
                if path.suffix in {".sealed", ".new"} and path.stat().st_mtime < oldest:
                    path.unlink()


def _name(key: Key) -> str:
    return hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:40]
