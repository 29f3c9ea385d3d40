"""The store in one SQLite file, in WAL mode, readable by its owner alone.

Several processes may use it at once. Every write is one short transaction; a busy file is waited for.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite
import anyio
import anyio.to_thread
import msgspec

from mooring.errors import (
    InvalidConfig,
    KeyRetired,
    NameTaken,
    RecordDamaged,
    StoreConflict,
    StoreCorrupt,
    StoreUnavailable,
)
from mooring.store._files import MOUNTS, is_read_only, prepare, read_only_uri, translate
from mooring.store._findings import SqliteFindings
from mooring.store._ledger import SqliteLedger
from mooring.store._memory import ID_PREFIX_LENGTH, conflict, name_taken, retired
from mooring.store._port import Connectors, KeyRecord, Rewrapped, UndoEntry
from mooring.store._schema import SEALED, configure, schema, sealed_under
from mooring.types import Connector

T = TypeVar("T")

BUSY_TIMEOUT: Final = timedelta(seconds=10)
LONGEST_PAUSE: Final = 0.005
"""Seconds between two tries."""

COLUMNS: Final = (
    "id", "name", "type", "auth_method", "resource_type", "resource_id", "settings", "sealed", "labels", "description",
    "owner", "expires_at", "expires_skew", "ttl", "allow_unnarrowed", "allow_long_lived", "created_at", "updated_at",
    "version",
)  # fmt: skip
WRITTEN: Final = (*COLUMNS, "key_id")
"""What is written: `key_id` says in a column of its own under which master key the record is sealed."""
SELECT_KEYS: Final = "SELECT id, fingerprint, source, created_at, retired_at FROM master_keys"
UNDO: Final = "id, connector_id, step, due_at, attempts, lease"
SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM connectors"  # noqa: S608  our own words
FIND: Final = f"{SELECT} WHERE id = ? UNION ALL {SELECT} WHERE name = ? LIMIT 1"
"""By id, else by name: without an OR, which would have to be sorted."""
EITHER: Final = "WHERE id = ? OR name = ? ORDER BY id = ? DESC LIMIT 1"
"""The same row, where it may cost more."""
NOT_RETIRED: Final = "NOT EXISTS (SELECT 1 FROM master_keys WHERE id = ? AND retired_at IS NOT NULL)"
SETTINGS: Final = msgspec.json.Decoder(dict[str, Any])
LABELS: Final = msgspec.json.Decoder(dict[str, str])
BAD_TEXT: Final = "\N{REPLACEMENT CHARACTER}"
CANNOT_COPY: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
PROBLEMS: Final = 20
"""How many problems of a file are told at most."""


class NotTextError(Exception):
    """A record holds bytes where text should be."""


class SqliteStore:
    """A `Store` in a file; made by `open_sqlite`."""

    def __init__(
        self, connection: aiosqlite.Connection, path: Path, ledger: SqliteLedger, findings: SqliteFindings
    ) -> None:
        self._connection = connection
        self._path = path
        self._ledger = ledger
        self._findings = findings

    @property
    def ledger(self) -> SqliteLedger:
        """See `Store.ledger`."""
        return self._ledger

    @property
    def findings(self) -> SqliteFindings:
        """See `Store.findings`."""
        return self._findings

    @property
    def path(self) -> Path:
        """See `Portable.path`."""
        return self._path

    async def add(self, connector: Connector) -> None:
        """See `Store.add`."""
        marks = ", ".join("?" * len(WRITTEN))
        statement = f"INSERT INTO connectors ({', '.join(WRITTEN)}) SELECT {marks} WHERE {NOT_RETIRED}"
        row = _row(connector)
        try:
            if await self._write(statement, (*row, row[-1])):
                return
            problem: NameTaken | StoreConflict | KeyRetired = retired(row[-1])
        except sqlite3.IntegrityError as error:
            problem = _clash(error, connector)
        raise problem

    async def find(self, name_or_id: str) -> Connector | None:
        """See `Store.find`."""
        where: str = EITHER
        values: tuple[str, ...] = (name_or_id,) * 3
        try:
            rows = await self._read(FIND, values[:2])
            if not rows and len(name_or_id) >= ID_PREFIX_LENGTH:
                where, values = "WHERE id >= ? AND id < ? LIMIT 2", (name_or_id, name_or_id + "\U0010ffff")
                rows = await self._read(f"{SELECT} {where}", values)
        except NotTextError:
            error = await self._damaged(where, values)
        else:
            return self._connector(rows[0]) if len(rows) == 1 else None
        raise error

    async def list(
        self,
        *,
        type: str | None = None,
        auth_method: str | None = None,
        resource_type: str | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> Connectors:
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
            has = f"EXISTS (SELECT 1 FROM json_each(labels) AS label WHERE label.key = ?{same})"  # noqa: S608  our own words
            wheres.append(f"CASE WHEN json_valid(labels) THEN {has} ELSE 1 END")  # what is damaged is told of
            values += [label] if value is None else [label, value]
        where = f"WHERE {' AND '.join(wheres)}" if wheres else ""
        try:
            rows = await self._read(f"{SELECT} {where} ORDER BY name", values)
        except NotTextError:
            return await self._one_by_one(where, values)
        found = Connectors()
        for row in rows:
            try:
                found.append(self._connector(row))
            except RecordDamaged as error:
                found.damaged.append(error)
        return found

    async def replace(self, connector: Connector) -> None:
        """See `Store.replace`."""
        sets = ", ".join(f"{column} = ?" for column in WRITTEN[1:])
        row = _row(connector)
        statement = f"UPDATE connectors SET {sets} WHERE id = ? AND version = ? AND {NOT_RETIRED}"  # noqa: S608  our own words
        try:
            if await self._write(statement, (*row[1:], connector.id, connector.version - 1, row[-1])):
                return
            gone = [key for key in await self.keys() if key.id == row[-1] and key.retired_at]
            problem: NameTaken | StoreConflict | KeyRetired = retired(row[-1]) if gone else conflict(connector.name)
        except sqlite3.IntegrityError as error:
            problem = _clash(error, connector)
        raise problem

    async def delete(self, connector: Connector) -> None:
        """See `Store.delete`."""
        statement = "DELETE FROM connectors WHERE id = ? AND version = ?"
        if not await self._write(statement, (connector.id, connector.version)):
            raise conflict(connector.name)

    async def discard(self, name_or_id: str) -> bool:
        """See `Store.discard`."""
        try:
            await self.find(name_or_id)
        except RecordDamaged:
            statement = f"DELETE FROM connectors WHERE rowid = (SELECT rowid FROM connectors {EITHER})"  # noqa: S608  our own words
            return bool(await self._write(statement, (name_or_id,) * 3))
        return False

    async def keys(self) -> Sequence[KeyRecord]:
        """See `Store.keys`."""
        rows = await self._read(f"{SELECT_KEYS} ORDER BY created_at", ())
        return [self._key(row) for row in rows]

    async def note_key(self, key: KeyRecord) -> KeyRecord:
        """See `Store.note_key`."""
        values = (key.id, key.check, key.source, key.created_at.isoformat())
        statement = "INSERT INTO master_keys (id, fingerprint, source, created_at) VALUES (?, ?, ?, ?)"
        await self._write(f"{statement} ON CONFLICT DO NOTHING", values)
        return self._key((await self._read(f"{SELECT_KEYS} WHERE id = ?", (key.id,)))[0])

    async def key_uses(self) -> Mapping[str, int]:
        """See `Store.key_uses`."""
        rows = await self._read("SELECT sealed, key_id FROM connectors", ())
        return Counter(key_id for row in rows if (key_id := sealed_under(row[0]) or row[1]))

    async def rewrap(self, changes: Sequence[Rewrapped]) -> int:
        """See `Store.rewrap`; one statement, so that it is one transaction."""
        marks = ", ".join(["(?, ?, ?, ?)"] * len(changes))
        statement = (
            "UPDATE connectors SET sealed = change.column3, key_id = change.column4 "  # noqa: S608  our own words
            f"FROM (VALUES {marks}) AS change "
            "WHERE connectors.id = change.column1 AND connectors.sealed = change.column2 "
            "AND change.column4 NOT IN (SELECT id FROM master_keys WHERE retired_at IS NOT NULL)"
        )
        values: list[Any] = []
        for one in changes:
            seals = (msgspec.msgpack.encode(sealed) for sealed in (one.connector.sealed, one.sealed))
            values += (one.connector.id, *seals, one.sealed.key_id)
        return await self._write(statement, values) if changes else 0

    async def retire_key(self, key_id: str, at: datetime) -> bool:
        """See `Store.retire_key`."""
        statement = (
            "UPDATE master_keys SET retired_at = coalesce(retired_at, ?) "
            "WHERE id = ? AND NOT EXISTS (SELECT 1 FROM connectors WHERE key_id = master_keys.id)"
        )
        return bool(await self._write(statement, (at.isoformat(), key_id)))

    async def put_undo(self, entry: UndoEntry) -> None:
        """See `Store.put_undo`. Instants are written in UTC, so that they sort as text."""
        step = msgspec.json.encode(entry.step).decode()
        values = (entry.id, entry.connector_id, step, _in_utc(entry.due_at), entry.attempts, entry.lease)
        statement = f"INSERT OR REPLACE INTO undo_log ({UNDO}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608  our own words
        await self._write(statement, values)

    async def drop_undo(self, entry_id: str) -> None:
        """See `Store.drop_undo`."""
        await self._write("DELETE FROM undo_log WHERE id = ?", (entry_id,))

    async def undos(self, *, due: datetime | None = None, connector_id: str | None = None) -> Sequence[UndoEntry]:
        """See `Store.undos`."""
        wheres, values = ["1"], []
        if due is not None:
            wheres.append("due_at <= ?")
            values.append(_in_utc(due))
        if connector_id is not None:
            wheres.append("connector_id = ?")
            values.append(connector_id)
        statement = f"SELECT {UNDO} FROM undo_log WHERE {' AND '.join(wheres)} ORDER BY due_at"  # noqa: S608  our own words
        try:
            return [
                UndoEntry(
                    id=row[0],
                    connector_id=row[1],
                    step=LABELS.decode(row[2]),
                    due_at=_instant(row[3]),
                    attempts=row[4],
                    lease=row[5],
                )
                for row in await self._read(statement, values)
            ]
        except (msgspec.MsgspecError, ValueError, NotTextError):
            pass
        raise StoreCorrupt(f"a record of the undo log in {self._path} is damaged; restore a backup")

    async def snapshot(self, path: Path) -> None:
        """See `Portable.snapshot` (sqlite.org/lang_vacuum.html#vacuuminto)."""
        reason = "the disk is full, or reports an error"
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            with anyio.CancelScope(shield=True):  # cut off, it would make the file again when that is gone
                await self._connection.execute("VACUUM INTO ?", (str(path),))
        except OSError as error:
            reason = error.strerror or reason
        except sqlite3.Error as error:
            if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF not in CANNOT_COPY:
                raise translate(error, self._path) from None
        else:
            return
        raise StoreUnavailable(
            f"a copy of the store cannot be written in {path.parent}: {reason}; free some space, or check its rights"
        )

    async def restore(self, path: Path) -> None:
        """See `Portable.restore` (sqlite.org/backup.html)."""
        async with open_sqlite(path) as source:
            if problems := await source.check():
                raise StoreCorrupt(f"{path} is damaged: {problems[0]}")
        with anyio.CancelScope(shield=True):  # one transaction, and bounded by BUSY_TIMEOUT
            await anyio.to_thread.run_sync(_copy, path, self._path)

    def reading(self, path: Path) -> AbstractAsyncContextManager[SqliteStore]:
        """See `Portable.reading`."""
        return open_sqlite(path)

    async def check(self) -> Sequence[str]:
        """See `Portable.check` (sqlite.org/pragma.html#pragma_integrity_check)."""
        try:
            rows = await self._read(f"PRAGMA integrity_check({PROBLEMS})", ())
        except StoreCorrupt as error:
            return [error.message]
        told = (str(row[0]).removeprefix("*** in database main ***").split() for row in rows if row[0] != "ok")
        problems = [f"the file is damaged: {' '.join(words)}" for words in told]
        try:
            made = await self._read("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'", ())
            if set(made) != schema():
                return [*problems, f"the tables of {self._path} are not those that mooring makes; restore a backup"]
            await self.keys()
            seals = await self._read("SELECT CAST(name AS BLOB), sealed, key_id FROM connectors", ())
        except (StoreCorrupt, StoreUnavailable) as error:
            return [*problems, error.message]
        except NotTextError:
            return [*problems, f"{self._path} holds what is not text; restore a backup"]
        return problems + [
            f"the record of connector {row[0].decode(errors='replace')!r} does not name the master key that seals it"
            for row in seals
            if row[1] is not None and sealed_under(row[1]) not in (None, row[2])
        ]

    async def changes(self) -> int:
        """See `Store.changes`: a random number that triggers draw anew, so that a restored file has another too."""
        rows = await self._read("SELECT number FROM revision", ())
        return int(rows[0][0])

    async def _read(self, statement: str, values: Iterable[Any]) -> Sequence[sqlite3.Row]:
        try:
            return tuple(await self._patiently(lambda: self._connection.execute_fetchall(statement, values)))
        except UnicodeEncodeError:
            return ()  # no record holds what is not Unicode
        except sqlite3.Error as error:
            error.__traceback__ = None  # it holds the cursor, and that the file, also when the store is closed
            if type(error) is sqlite3.OperationalError and not getattr(error, "sqlite_errorcode", None):
                raise NotTextError from None  # Python's own error, of text that is not UTF-8
            problem = translate(error, self._path)
        raise problem

    async def _patiently(self, run: Callable[[], Awaitable[T]]) -> T:
        """Try again while another process holds the file, up to BUSY_TIMEOUT, with short pauses that differ.

        SQLite's own waiting grows to pauses of a tenth of a second: ten writers then get less done than one.
        """
        deadline = anyio.current_time() + BUSY_TIMEOUT.total_seconds()
        while True:
            try:
                return await run()
            except sqlite3.OperationalError as error:
                code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
                if code != sqlite3.SQLITE_BUSY or anyio.current_time() >= deadline:
                    raise
                error.__traceback__ = None
            await anyio.sleep(random.uniform(0, LONGEST_PAUSE))  # noqa: S311  no secret

    async def _one_by_one(self, where: str, values: Sequence[Any]) -> Connectors:
        """A list of which some record cannot be read even as text."""
        found = Connectors()
        rows = await self._read(f"SELECT rowid FROM connectors {where} ORDER BY name", values)  # noqa: S608  our own words
        for row in rows:
            try:
                found.append(self._connector((await self._read(f"{SELECT} WHERE rowid = ?", row))[0]))
            except NotTextError:
                found.damaged.append(await self._damaged("WHERE rowid = ?", row))
            except RecordDamaged as error:
                found.damaged.append(error)
        return found

    async def _damaged(self, where: str, values: Sequence[Any]) -> RecordDamaged:
        """The error for a record that cannot be read as text."""
        names = ", ".join(f"CAST({name} AS BLOB)" for name in ("id", "name", "type"))
        rows = await self._read(f"SELECT {names} FROM connectors {where}", values)  # noqa: S608  our own words
        return self._error(*(bytes(value).decode(errors="replace") for value in rows[0]))

    def _error(self, id: str, name: str, type: str) -> RecordDamaged:
        message = (
            f"the record of connector {name!r} in {self._path} is damaged; restore a backup, or remove it: "
            f"mooring connector delete --damaged {id if BAD_TEXT in name else name}"
        )
        return RecordDamaged(message, id=id, name=name, type=type)

    async def _write(self, statement: str, values: Iterable[Any]) -> int:
        """Run one statement as a transaction of its own (the connection is in autocommit mode)."""

        async def write() -> int:
            cursor = await self._connection.execute(statement, values)
            changed = cursor.rowcount
            await cursor.close()
            return changed

        try:
            changed = await self._patiently(write)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            problem = translate(error, self._path)
        except OverflowError:
            problem = StoreCorrupt(f"a record in {self._path} has a number that is out of range; restore a backup")
        else:
            return changed
        raise problem

    def _connector(self, row: sqlite3.Row) -> Connector:
        try:
            return Connector(
                id=row[0],
                name=row[1],
                type=row[2],
                auth_method=row[3],
                resource_type=row[4],
                resource_id=row[5],
                settings=SETTINGS.decode(row[6]),
                sealed=None if row[7] is None else SEALED.decode(row[7]),
                labels=LABELS.decode(row[8]),
                description=row[9],
                owner=row[10],
                expires_at=None if row[11] is None else _instant(row[11]),
                expires_skew=timedelta(seconds=row[12]),
                ttl=None if row[13] is None else timedelta(seconds=row[13]),
                allow_unnarrowed=bool(row[14]),
                allow_long_lived=bool(row[15]),
                created_at=_instant(row[16]),
                updated_at=_instant(row[17]),
                version=row[18],
            )
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError):
            pass
        raise self._error(row[0], row[1], row[2])

    def _key(self, row: sqlite3.Row) -> KeyRecord:
        try:
            return KeyRecord(
                id=row[0],
                check=row[1],
                source=row[2],
                created_at=_instant(row[3]),
                retired_at=None if row[4] is None else _instant(row[4]),
            )
        except (ValueError, TypeError):
            pass
        raise StoreCorrupt(f"the record of a master key in {self._path} is damaged; restore a backup")


def _in_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


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
    return (*values.values(), connector.sealed and connector.sealed.key_id)


def _copy(source: Path, target: Path) -> None:
    """Put one database in the place of another, in one transaction of the target."""

    def stop_if_busy(status: int, _remaining: int, _total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreUnavailable(f"the store {target} is not usable: another process holds it; try again")

    try:
        with closing(sqlite3.connect(source)) as one, closing(_connect(target)) as other:
            one.backup(other, progress=stop_if_busy)
    except sqlite3.Error as error:
        problem = translate(error, target)
    else:
        return
    raise problem


def _connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    where, timeout = read_only_uri(path) if read_only else path, BUSY_TIMEOUT.total_seconds()
    return sqlite3.connect(where, uri=read_only, isolation_level=None, timeout=timeout, check_same_thread=False)


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
    if anyio.get_cancelled_exc_class().__module__.partition(".")[0] == "trio":
        raise StoreUnavailable("the SQLite store needs asyncio; run mooring in an asyncio event loop, not in trio's")
    process, read_only = os.getpid(), is_read_only(path)
    if not read_only:
        prepare(path, mounts)
    try:
        with anyio.CancelScope(shield=True):  # it opens a file and waits for nobody; half done, its thread would stay
            timeout = BUSY_TIMEOUT.total_seconds()
            connection = await aiosqlite.connect(
                read_only_uri(path) if read_only else path, uri=read_only, isolation_level=None, timeout=timeout
            )
    except sqlite3.Error as error:
        raise translate(error, path) from None
    try:
        try:
            await configure(connection, path, read_only=read_only)
        except sqlite3.Error as error:
            raise translate(error, path) from None
        connect = partial(_connect, path, read_only=read_only)
        ledger, findings = SqliteLedger(connect, path), SqliteFindings(connect, path)
        try:
            yield SqliteStore(connection, path, ledger, findings)
        finally:
            if os.getpid() == process:
                ledger.close()
                findings.close()
    finally:
        if os.getpid() == process:  # a process that was forked from it has no thread to close it
            with anyio.CancelScope(shield=True):  # bounded by BUSY_TIMEOUT, the longest that a statement may take
                await connection.close()
