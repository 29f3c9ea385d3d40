"""The key ring: a file of master keys, the active one first, which mooring itself makes and rotates."""

from __future__ import annotations

import base64
import glob
import os
import secrets
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mooring.errors import NoMasterKey
from mooring.types import Secret
from mooring.vault import _keyring
from mooring.vault._keys import KEY_BYTES, MasterKey, parse_keys

LARGEST_BYTES = 1 << 20
"""No key file is larger."""

if TYPE_CHECKING:
    from filelock import FileLock

Place = Literal["file", "keyring"]
"""Where a key of the ring lies: in the ring's file itself, or in the OS keyring."""


class KeyRing:
    """The master keys of a file. It is replaced whole, and only by who has taken it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: FileLock | None = None

    def load(self) -> tuple[MasterKey, ...]:
        """The keys; see `key_file`."""
        return key_file(self._path)

    def take(self) -> bool:
        """Hold the ring alone among all processes until `let_go`, if nobody else does; a process that dies lets go.

        Raises:
            NoMasterKey: its folder cannot be written.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self._path.with_name(f"{self._path.name}.lock"), mode=0o600)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock.acquire(blocking=False)
        except Timeout:
            return False
        except OSError as error:
            reason = error.strerror
        else:
            self._lock = lock
            self._sweep()
            return True
        raise NoMasterKey(f"the master key file {self._path} cannot be changed: {reason}; check its folder")

    def let_go(self) -> None:
        """Let others change the ring."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def make(self) -> tuple[MasterKey, ...]:
        """The keys of the ring, which is made with one new key if there is none.

        Raises:
            NoMasterKey: it cannot be made.
        """
        try:
            if not self._path.exists():
                with suppress(FileExistsError, FileNotFoundError):  # somebody was faster, and swept our draft
                    self._write([_new("file", self._path)], first=True)
            if keys := self.load():
                return keys
            reason = "it is a link that leads nowhere; remove it"
        except OSError as error:
            reason = f"{error.strerror}; check its rights and its folder"
        raise NoMasterKey(f"the master key file {self._path} cannot be used: {reason}")

    def add(self, place: Place) -> MasterKey:
        """Make a new key and put it first; it is on the disk, or in the OS keyring, before anything uses it.

        Raises:
            NoMasterKey: it cannot be kept there.
        """
        before = self.load()
        key = _new(place, self._path)
        try:
            self._write([key, *before], first=not before)
        except OSError as error:
            reason = error.strerror
        else:
            return key
        if key.key is None:
            _keyring.erase(key.id)
        if not before and self.load():  # another process has made the first one meanwhile
            return self.add(place)
        raise NoMasterKey(f"the master key file {self._path} cannot be written: {reason}; check its rights")

    def remove(self, ids: Collection[str]) -> list[str]:
        """Forget keys for good, wherever they lie; gives the ids of those that were there.

        Raises:
            NoMasterKey: the ring or the OS keyring cannot be written.
        """
        keys = self.load()
        gone = [key for key in keys if key.id in ids]
        for key in gone:  # before the file is written: one that is cut short in between can be done again
            if key.key is None:
                _keyring.erase(key.id)
        try:
            if gone:
                self._write([key for key in keys if key.id not in ids], first=False)
        except OSError as error:
            reason = error.strerror
        else:
            return [key.id for key in gone]
        raise NoMasterKey(f"the master key file {self._path} cannot be written: {reason}; check its rights")

    def _sweep(self) -> None:
        """Remove drafts of processes that were killed; only who makes the first key writes one without the lock."""
        path = self._path.resolve()
        if path.exists():
            for draft in path.parent.glob(f".{glob.escape(path.name)}.*"):
                with suppress(OSError):
                    draft.unlink()

    def _write(self, keys: Collection[MasterKey], *, first: bool) -> None:
        """Written aside, then put in place; the first one only if nobody else was faster (`FileExistsError`)."""
        path = self._path if first else self._path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.writelines(f"{key.line()}\n" for key in keys)
                file.flush()
                os.fsync(file.fileno())
            if first:
                os.link(draft, path)
            else:
                draft.replace(path)
            _sync_folder(path.parent)
        finally:
            draft.unlink(missing_ok=True)


def key_file(path: Path) -> tuple[MasterKey, ...]:
    """The master keys in a file that only its owner may read; none if there is no file.

    Raises:
        NoMasterKey: the file cannot be read, is malformed, or others may read it.
    """
    try:
        if not path.exists():
            return ()
        found = path.stat()
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_BYTES:
            reason = "it is not a file of keys; move it away, and restore the key file from where you keep its copy"
        elif os.name == "posix" and mode & 0o077:
            reason = f"others can read it (mode {mode:04o}); run: chmod 600 {path}"
        else:
            return parse_keys(Secret(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        reason = f"{error.strerror}; check its rights and its folder"
    except UnicodeDecodeError:
        reason = "it is not text; restore it from a backup"
    raise NoMasterKey(f"the master key file {path} cannot be used: {reason}")  # outside: the error may quote the file


def _new(place: Place, path: Path) -> MasterKey:
    """A new key; one for the OS keyring lies there already."""
    name, key = f"local-{secrets.token_hex(4)}", base64.b64encode(os.urandom(KEY_BYTES)).decode()
    if place == "keyring":
        _keyring.write(name, key)
        return MasterKey(id=name, key=None, source="the OS keyring")
    return MasterKey(id=name, key=Secret(key), source=str(path))


def _sync_folder(folder: Path) -> None:
    """See that a changed folder is on the disk, where the system can (POSIX; Windows has no handle for it)."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
