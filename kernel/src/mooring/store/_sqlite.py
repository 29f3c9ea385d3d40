"""The store in one SQLite file, in WAL mode, readable by its owner alone.

Several processes may use it at once. Every write is one short transaction; a busy file is waited for.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiosqlite
import anyio
import msgspec

from mooring.errors import InvalidConfig, NameTaken, StoreConflict, StoreCorrupt, StoreTooNew, StoreUnavailable
from mooring.store._memory import ID_PREFIX_LENGTH, conflict, name_taken
from mooring.types import Connector, Sealed

APPLICATION_ID: Final = 0x6D6F6F72  # "moor", in the file's header (sqlite.org/fileformat.html)
BUSY_TIMEOUT: Final = timedelta(seconds=10)
MOUNTS: Final = Path("/proc/self/mountinfo")

MIGRATIONS: Final = (
    """
    CREATE TABLE connectors (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        type TEXT NOT NULL,
        auth_method TEXT NOT NULL,
        resource_type TEXT,
        resource_id TEXT,
        settings TEXT NOT NULL,
        sealed BLOB,
        labels TEXT NOT NULL,
        description TEXT NOT NULL,
        owner TEXT NOT NULL,
        expires_at TEXT,
        expires_skew REAL NOT NULL,
        ttl REAL,
        allow_unnarrowed INTEGER NOT NULL,
        allow_long_lived INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        version INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX connectors_by_type ON connectors (type, name);
    """,
)
"""One script a schema version. A store of version n has run the first n; never edit one that was released."""

COLUMNS: Final = (
    "id", "name", "type", "auth_method", "resource_type", "resource_id", "settings", "sealed", "labels", "description",
    "owner", "expires_at", "expires_skew", "ttl", "allow_unnarrowed", "allow_long_lived", "created_at", "updated_at",
    "version",
)  # fmt: skip
SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM connectors"  # noqa: S608  our own words

UNSAFE_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.glusterfs",
     "fuse.s3fs", "fuse.rclone", "fuse.juicefs", "davfs", "virtiofs", "vboxsf"}
)  # fmt: skip
"""File systems that several machines may share, where WAL's shared memory does not work (sqlite.org/wal.html)."""


class SqliteStore:
    """A `Store` in a file; made by `open_sqlite`."""

    def __init__(self, connection: aiosqlite.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    async def add(self, connector: Connector) -> None:
        """See `Store.add`."""
        marks = ", ".join("?" * len(COLUMNS))
        statement = f"INSERT INTO connectors ({', '.join(COLUMNS)}) VALUES ({marks})"  # noqa: S608  column names of ours
        try:
            await self._write(statement, _row(connector))
        except sqlite3.IntegrityError as error:
            problem = _clash(error, connector)
        else:
            return
        raise problem

    async def find(self, name_or_id: str) -> Connector | None:
        """See `Store.find`."""
        where = f"{SELECT} WHERE id = ? OR name = ? ORDER BY id = ? DESC LIMIT 1"
        rows = await self._read(where, (name_or_id,) * 3)
        if not rows and len(name_or_id) >= ID_PREFIX_LENGTH:
            last = name_or_id + "\U0010ffff"
            rows = await self._read(f"{SELECT} WHERE id >= ? AND id < ? LIMIT 2", (name_or_id, last))
        return self._connector(rows[0]) if len(rows) == 1 else None

    async def list(
        self,
        *,
        type: str | None = None,
        auth_method: str | None = None,
        resource_type: str | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> list[Connector]:
        """See `Store.list`."""
        wheres: list[str] = []
        values: list[str] = []
        for column, value in (("type", type), ("auth_method", auth_method)):
            if value is not None:
                wheres.append(f"{column} = ?")
                values.append(value)
        if resource_type is not None:
            wheres.append("(resource_type IS NULL OR resource_type = ?)")
            values.append(resource_type)
        for label, value in (labels or {}).items():
            same = "" if value is None else " AND label.value = ?"
            wheres.append(f"EXISTS (SELECT 1 FROM json_each(labels) AS label WHERE label.key = ?{same})")  # noqa: S608  our own words
            values += [label] if value is None else [label, value]
        where = f" WHERE {' AND '.join(wheres)}" if wheres else ""
        return [self._connector(row) for row in await self._read(f"{SELECT}{where} ORDER BY name", values)]

    async def replace(self, connector: Connector) -> None:
        """See `Store.replace`."""
        sets = ", ".join(f"{column} = ?" for column in COLUMNS[1:])
        row = _row(connector)
        statement = f"UPDATE connectors SET {sets} WHERE id = ? AND version = ?"  # noqa: S608  our own words
        try:
            changed = await self._write(statement, (*row[1:], connector.id, connector.version - 1))
        except sqlite3.IntegrityError as error:
            problem: NameTaken | StoreConflict = _clash(error, connector)
        else:
            if changed:
                return
            problem = conflict(connector.name)
        raise problem

    async def delete(self, connector: Connector) -> None:
        """See `Store.delete`."""
        statement = "DELETE FROM connectors WHERE id = ? AND version = ?"
        if not await self._write(statement, (connector.id, connector.version)):
            raise conflict(connector.name)

    async def changes(self) -> int:
        """See `Store.changes` (sqlite.org/pragma.html#pragma_data_version)."""
        rows = await self._read("PRAGMA data_version", ())
        return int(rows[0][0])

    async def _read(self, statement: str, values: Iterable[Any]) -> Sequence[sqlite3.Row]:
        try:
            return tuple(await self._connection.execute_fetchall(statement, values))
        except UnicodeEncodeError:
            return ()  # no record holds what is not Unicode
        except sqlite3.Error as error:
            problem = _translate(error, self._path)
        raise problem

    async def _write(self, statement: str, values: Iterable[Any]) -> int:
        """Run one statement as a transaction of its own (the connection is in autocommit mode)."""
        try:
            cursor = await self._connection.execute(statement, values)
            changed = cursor.rowcount
            await cursor.close()
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            problem = _translate(error, self._path)
        else:
            return changed
        raise problem

    def _connector(self, row: sqlite3.Row) -> Connector:
        values = dict(zip(COLUMNS, row, strict=True))
        try:
            values["settings"] = msgspec.json.decode(values["settings"], type=dict[str, Any])
            values["labels"] = msgspec.json.decode(values["labels"], type=dict[str, str])
            for column in ("expires_at", "created_at", "updated_at"):
                values[column] = None if values[column] is None else _instant(values[column])
            for column in ("expires_skew", "ttl"):
                values[column] = None if values[column] is None else timedelta(seconds=values[column])
            for column in ("allow_unnarrowed", "allow_long_lived"):
                values[column] = bool(values[column])
            sealed = values["sealed"]
            values["sealed"] = None if sealed is None else msgspec.msgpack.decode(sealed, type=Sealed)
            return Connector(**values)
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError):
            pass
        raise StoreCorrupt(f"the record of connector {row[1]!r} in {self._path} is damaged; restore it from a backup")


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("not aware")
    return moment


def _clash(error: sqlite3.IntegrityError, connector: Connector) -> NameTaken | StoreConflict:
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
        return name_taken(connector.name)
    return conflict(connector.name)


def _row(connector: Connector) -> tuple[Any, ...]:
    values = {column: getattr(connector, column) for column in COLUMNS}
    try:
        for column in ("settings", "labels"):
            values[column] = msgspec.json.encode(values[column]).decode()
        "".join(value for value in values.values() if isinstance(value, str)).encode()
    except UnicodeEncodeError:
        message = f"connector {connector.name!r} holds text that is not valid Unicode; write it in UTF-8"
        raise InvalidConfig(message) from None
    for column in ("expires_at", "created_at", "updated_at"):
        values[column] = values[column] and values[column].isoformat()
    for column in ("expires_skew", "ttl"):
        values[column] = None if values[column] is None else values[column].total_seconds()
    values["sealed"] = None if connector.sealed is None else msgspec.msgpack.encode(connector.sealed)
    return tuple(values.values())


@asynccontextmanager
async def open_sqlite(path: Path, *, mounts: Path = MOUNTS) -> AsyncGenerator[SqliteStore, None]:
    """The store in this file, made if there is none, brought to the current schema if it is older.

    Args:
        path: the file; its folder is made too.
        mounts: where the system lists its mounts.

    Raises:
        StoreUnavailable: the file cannot be opened or written, or lies on a shared file system.
        StoreCorrupt: the file is damaged, or another program's.
        StoreTooNew: a newer mooring wrote it.
    """
    _prepare(path, mounts)
    try:
        with anyio.CancelScope(shield=True):  # it opens a file and waits for nobody; half done, its thread would stay
            connection = await aiosqlite.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT.total_seconds())
    except sqlite3.Error as error:
        raise _translate(error, path) from None
    try:
        try:
            await _configure(connection, path)
        except sqlite3.Error as error:
            raise _translate(error, path) from None
        yield SqliteStore(connection, path)
    finally:
        with anyio.CancelScope(shield=True):  # bounded by BUSY_TIMEOUT, the longest that a statement under way may take
            await connection.close()


def _prepare(path: Path, mounts: Path) -> None:
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
    except OSError as error:
        raise StoreUnavailable(
            f"the store {path} cannot be opened: {error.strerror}; set MOORING_HOME to another folder"
        ) from None


async def _configure(connection: aiosqlite.Connection, path: Path) -> None:
    """Refuse what is not ours before the first change, then switch WAL on and migrate."""
    # in one statement, and so of one moment: another process may be migrating
    rows = await connection.execute_fetchall(
        "SELECT * FROM pragma_application_id, pragma_user_version, pragma_schema_version"
    )
    application, version, changes = next(iter(rows))
    if application != APPLICATION_ID and (application or version or changes):
        raise StoreCorrupt(
            f"{path} is a database of another program; it was left as it is; set MOORING_HOME to another folder"
        )
    if version > len(MIGRATIONS):
        raise StoreTooNew(
            f"the store {path} was written by a newer mooring (schema {version}, this one knows {len(MIGRATIONS)}); "
            "upgrade mooring"
        )
    _close_to_others(path)
    mode = await connection.execute_fetchall("PRAGMA journal_mode")
    if next(iter(mode))[0] != "wal":
        mode = await connection.execute_fetchall("PRAGMA journal_mode = WAL")
    if next(iter(mode))[0] != "wal":
        raise StoreUnavailable(
            f"the store {path} cannot use SQLite's WAL mode there; set MOORING_HOME to a folder on a local disk"
        )
    await connection.execute("PRAGMA synchronous = FULL")
    if version < len(MIGRATIONS):
        await _migrate(connection)


def _close_to_others(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        with suppress(OSError):
            if os.name == "posix" and file.stat().st_mode & 0o077:
                file.chmod(0o600)


async def _migrate(connection: aiosqlite.Connection) -> None:
    """Run what is missing, all or nothing; of two processes at once the second finds it done.

    When it fails half-way the connection is closed, which rolls it back.
    """
    await connection.execute("BEGIN IMMEDIATE")
    version = await _pragma(connection, "user_version")
    for script in MIGRATIONS[version:]:
        for statement in script.split(";"):
            await connection.execute(statement)
    await connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    await connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    await connection.execute("COMMIT")


async def _pragma(connection: aiosqlite.Connection, name: str) -> int:
    rows = await connection.execute_fetchall(f"PRAGMA {name}")
    return int(next(iter(rows))[0])


def _translate(error: sqlite3.Error, path: Path) -> StoreUnavailable | StoreCorrupt:
    """SQLite's errors in our words (sqlite.org/rescode.html)."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    undecodable = type(error) is sqlite3.OperationalError and not code  # Python's own, of text that is not UTF-8
    if undecodable or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreCorrupt(
            f"{path} is damaged or not a mooring store; it was left as it is; restore a backup or move it away"
        )
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


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """The type of the file system that a path lies on, or would; empty where the system does not tell (proc(5))."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    place = Path(os.path.realpath(path))
    best, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4]))
        if len(point.parts) >= best and place.is_relative_to(point):
            best, kind = len(point.parts), after.split()[0]
    return kind
