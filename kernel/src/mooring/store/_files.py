"""The store's file: where it may lie, who may read it, and SQLite's errors in our words."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from mooring.errors import StoreCorrupt, StoreUnavailable

MOUNTS: Final = Path("/proc/self/mountinfo")
SMALLEST: Final = 512
"""No database is smaller (sqlite.org/fileformat.html); SQLite takes a file of a few bytes for an empty one."""
FULL_BYTES: Final = 1 << 16
"""A file system with less room than this is full: SQLite reports the lack of room beside its file as a disk error."""

UNSAFE_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.glusterfs",
     "fuse.s3fs", "fuse.rclone", "fuse.juicefs", "davfs", "virtiofs", "vboxsf"}
)  # fmt: skip
"""File systems that several machines may share, where WAL's shared memory does not work (sqlite.org/wal.html)."""


def is_read_only(path: Path) -> bool:
    """Whether there is a store that may be read, but neither be written nor have files beside it."""
    return path.is_file() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def read_only_uri(path: Path) -> str:
    """Without a WAL nobody is writing, and no file beside it is needed (sqlite.org/uri.html)."""
    wal = path.with_name(f"{path.name}-wal")
    still = "" if wal.exists() and wal.stat().st_size else "&immutable=1"
    return f"file:{quote(str(path.resolve()))}?mode=ro{still}"


def prepare(path: Path, mounts: Path) -> None:
    """The folder and the file, for the owner alone, before SQLite writes a byte."""
    kind = file_system(path, mounts)
    if kind in UNSAFE_FILE_SYSTEMS:
        raise StoreUnavailable(
            f"the store {path} would lie on a {kind} file system, where SQLite cannot share it safely; "
            "set MOORING_HOME to a folder on a local disk"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Only a new file: to close one that this process has open elsewhere drops SQLite's locks on it
        # (sqlite.org/howtocorrupt.html, section 2.2).
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        size = path.stat().st_size
    except OSError as error:
        raise StoreUnavailable(
            f"the store {path} cannot be opened: {error.strerror}; set MOORING_HOME to another folder"
        ) from None
    if 0 < size < SMALLEST:
        raise not_ours(path)


def close_to_others(path: Path) -> None:
    """The file, and those that SQLite keeps beside it, for the owner alone."""
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        with suppress(OSError):
            if os.name == "posix" and file.stat().st_mode & 0o077:
                file.chmod(0o600)


def translate(error: sqlite3.Error, path: Path) -> StoreUnavailable | StoreCorrupt:
    """SQLite's errors in our words (sqlite.org/rescode.html)."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return not_ours(path)
    if code == sqlite3.SQLITE_IOERR and _is_full(path):
        code = sqlite3.SQLITE_FULL
    reasons = {
        sqlite3.SQLITE_BUSY: "another process holds it; try again",
        sqlite3.SQLITE_LOCKED: "another process holds it; try again",
        sqlite3.SQLITE_FULL: "the disk is full; free some space",
        sqlite3.SQLITE_READONLY: "it cannot be written; check the rights of the file and its folder",
        sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check the rights of the file and its folder",
        sqlite3.SQLITE_IOERR: "the disk reports an error; check the disk",
    }
    reason = reasons.get(code, f"SQLite reports {getattr(error, 'sqlite_errorname', type(error).__name__)}")
    return StoreUnavailable(f"the store {path} is not usable: {reason}")


def not_ours(path: Path) -> StoreCorrupt:
    """The error for a file that is damaged, or somebody else's."""
    return StoreCorrupt(
        f"{path} is damaged or not a mooring store; it was left as it is; move it away, then restore a backup"
    )


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < FULL_BYTES
    except OSError:
        return False


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """The type of the file system that a path lies on, or would; empty where the system does not tell (proc(5))."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    place = Path(os.path.realpath(path))
    best, kind = -1, ""
    for line in lines:
        before, after = (part.split() for part in line.partition(" - ")[::2])
        if len(before) > 4 and after:  # noqa: PLR2004  (the fifth is the mount's point)
            point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before[4]))
            if len(point.parts) >= best and place.is_relative_to(point):
                best, kind = len(point.parts), after[0]
    return kind
