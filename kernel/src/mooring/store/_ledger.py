"""Leases, the audit log and the numbered event log in the store's SQLite file.

Written over a connection of its own: each write is one transaction of several statements, made in one go by a thread,
and must not take in what the store's own connection does meanwhile.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread
import msgspec

from mooring.errors import StoreCorrupt, StoreUnavailable
from mooring.records import Audited, AuditEntry, Entries, Holder, Lease, LeaseState, Logged, Sealing
from mooring.store._files import translate

if TYPE_CHECKING:
    from collections.abc import Generator

T = TypeVar("T")
Sign = Callable[[bytes], tuple[str, bytes]]

MOST_EVENTS: Final = 100_000
BUSY_SECONDS: Final = 10.0
LONGEST_PAUSE: Final = 0.005
"""Seconds between two tries of a busy file."""
FIELDS: Final = (
    "id", "connector_id", "connector", "connector_type", "resource_type", "resource_id", "access", "issued_at",
    "expires_at", "narrowed", "revocation", "state", "undo", "attempts", "error",
)  # fmt: skip
CHANGING: Final = ("state", "undo", "attempts", "error")
UPSERT_LEASE: Final = (
    f"INSERT INTO leases ({', '.join(FIELDS)}) VALUES ({', '.join('?' * len(FIELDS))}) "  # noqa: S608  our own words
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in CHANGING)}"
)
UPSERT_HOLDER: Final = (
    "INSERT INTO holders (lease, consumer, first_at, last_at, count) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (lease, consumer) DO UPDATE SET last_at = max(last_at, excluded.last_at), "
    "count = count + excluded.count"
)
HOLDERS: Final = msgspec.json.Decoder(tuple[Holder, ...])
SELECT_LEASES: Final = (
    f"SELECT {', '.join(FIELDS)}, "  # noqa: S608  our own words
    "(SELECT json_group_array(json_object('consumer', consumer, 'first_at', first_at, 'last_at', last_at, "
    "'count', count)) FROM (SELECT * FROM holders WHERE lease = leases.id ORDER BY first_at, consumer)) "
    "FROM leases"
)
FIRST_LINK: Final = b"\0" * 32
"""What the first link of the audit chain is linked to."""


class SqliteLedger:
    """A `Ledger` in a file; made by `open_sqlite`."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: Path) -> None:
        self._connect = connect
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._alone = anyio.CapacityLimiter(1)

    async def record(self, entries: Entries, sign: Sign) -> Sequence[Logged]:
        """See `Ledger.record`."""
        return await self._run(lambda connection: _record(connection, entries, sign))

    async def leases(
        self,
        *,
        lease: str | None = None,
        connector_id: str | None = None,
        resource: str | None = None,
        consumer: str | None = None,
        states: Iterable[LeaseState] | None = None,
        ended: datetime | None = None,
    ) -> Sequence[Lease]:
        """See `Ledger.leases`."""
        wheres: list[str] = []
        values: list[Any] = []
        for condition, given in (
            ("id >= ? AND id < ?", lease and _beginning(lease)),
            ("connector_id = ?", connector_id and (connector_id,)),
            ("resource_id >= ? AND resource_id < ?", resource and _beginning(resource)),
            ("id IN (SELECT lease FROM holders WHERE consumer = ?)", consumer and (consumer,)),
            ("expires_at <= ?", ended and (_text(ended),)),
        ):
            if given:
                wheres.append(condition)
                values += given
        if states is not None:
            known = tuple(states)
            wheres.append(f"state IN ({', '.join('?' * len(known))})")
            values += known
        where = f" WHERE {' AND '.join(wheres)}" if wheres else ""
        rows = await self._run(
            lambda one: one.execute(f"{SELECT_LEASES}{where} ORDER BY issued_at, id", values).fetchall()
        )
        return [self._lease(row) for row in rows]

    async def prune(self, ended: datetime) -> int:
        """See `Ledger.prune`."""

        def prune(connection: sqlite3.Connection) -> int:
            over = "SELECT id FROM leases WHERE state IN ('expired', 'revoked') AND expires_at <= ?"
            with _transaction(connection):
                connection.execute(f"DELETE FROM holders WHERE lease IN ({over})", (_text(ended),))  # noqa: S608  our own words
                return connection.execute(f"DELETE FROM leases WHERE id IN ({over})", (_text(ended),)).rowcount  # noqa: S608  our own words

        return await self._run(prune)

    async def events(self, *, after: int, most: int = 1000) -> Sequence[Logged]:
        """See `Ledger.events`."""
        statement = "SELECT seq, at, event, connector_id, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
        rows = await self._run(lambda one: one.execute(statement, (after, most)).fetchall())
        return [
            Logged(seq=row[0], at=datetime.fromisoformat(row[1]), event=row[2], connector_id=row[3], body=_json(row[4]))
            for row in rows
        ]

    async def last_event(self) -> int:
        """See `Ledger.last_event`."""
        rows = await self._run(lambda one: one.execute("SELECT max(seq) FROM events").fetchall())
        return rows[0][0] or 0

    async def audited(self, *, after: int = 0, most: int = 1000) -> Sequence[Audited]:
        """See `Ledger.audited`."""
        statement = "SELECT seq, body, digest FROM audit WHERE seq > ? ORDER BY seq LIMIT ?"
        rows = await self._run(lambda one: one.execute(statement, (after, most)).fetchall())
        return [Audited(seq=row[0], body=row[1], digest=row[2]) for row in rows]

    async def sealing(self) -> Sealing | None:
        """See `Ledger.sealing`."""
        statement = "SELECT seq, digest, key_id, signature FROM audit_seal"
        rows = await self._run(lambda one: one.execute(statement).fetchall())
        return Sealing(seq=rows[0][0], digest=rows[0][1], key_id=rows[0][2], signature=rows[0][3]) if rows else None

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Work with the connection, in a thread; never cut off, since it is bounded by `BUSY_SECONDS`."""
        return await anyio.to_thread.run_sync(partial(self._work, work), limiter=self._alone)

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.execute("PRAGMA busy_timeout = 5")
            return work(self._connection)
        except sqlite3.Error as error:
            error.__traceback__ = None
            problem = translate(error, self._path)
        raise problem

    def _lease(self, row: Sequence[Any]) -> Lease:
        values = dict(zip(FIELDS, row, strict=False))
        try:
            undo = tuple(_json(values.pop("undo")))
            for name in ("issued_at", "expires_at"):
                values[name] = values[name] and datetime.fromisoformat(values[name])
            values["narrowed"] = bool(values["narrowed"])
            return Lease(**values, undo=undo, holders=HOLDERS.decode(row[-1]))
        except (msgspec.MsgspecError, ValueError, TypeError):
            pass
        raise StoreCorrupt(f"the record of a lease in {self._path} is damaged; restore a backup")


def link(before: bytes, body: bytes) -> bytes:
    """The digest of an audit entry in its chain."""
    return hashlib.sha256(before + body).digest()


def body_of(entry: AuditEntry) -> bytes:
    """An audit entry as it is hashed and stored."""
    return msgspec.json.encode(entry, order="deterministic")


def seal_text(seq: int, digest: bytes) -> bytes:
    """What is signed of the chain's last link."""
    return b"%d:%s" % (seq, digest.hex().encode())


def _record(connection: sqlite3.Connection, entries: Entries, sign: Sign) -> Sequence[Logged]:
    with _transaction(connection):
        connection.executemany(UPSERT_LEASE, map(_row, entries.leases))
        connection.executemany(
            UPSERT_HOLDER,
            [
                (lease, one.consumer, _text(one.first_at), _text(one.last_at), one.count)
                for lease, one in entries.holders
            ],
        )
        connection.executemany("DELETE FROM holders WHERE lease = ? AND consumer = ?", entries.gone)
        if entries.audit:
            _append(connection, entries.audit, sign)
        return [_log(connection, event) for event in entries.events]


def _append(connection: sqlite3.Connection, audit: Iterable[AuditEntry], sign: Sign) -> None:
    row = connection.execute("SELECT seq, digest FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, digest = row or (0, FIRST_LINK)
    for entry in audit:
        body = body_of(entry)
        seq, digest = seq + 1, link(digest, body)
        connection.execute("INSERT INTO audit (seq, body, digest) VALUES (?, ?, ?)", (seq, body, digest))
    key_id, signature = sign(seal_text(seq, digest))
    connection.execute(
        "INSERT OR REPLACE INTO audit_seal (one, seq, digest, key_id, signature) VALUES (1, ?, ?, ?, ?)",
        (seq, digest, key_id, signature),
    )


def _log(connection: sqlite3.Connection, event: Logged) -> Logged:
    values = (_text(event.at), event.event, event.connector_id, msgspec.json.encode(event.body).decode())
    cursor = connection.execute("INSERT INTO events (at, event, connector_id, body) VALUES (?, ?, ?, ?)", values)
    seq = cursor.lastrowid or 0
    if seq > MOST_EVENTS:
        connection.execute("DELETE FROM events WHERE seq <= ?", (seq - MOST_EVENTS,))
    return msgspec.structs.replace(event, seq=seq)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None, None, None]:
    """All or nothing. While another process writes, it is tried again, with short pauses that differ."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.OperationalError as error:
            if (error.sqlite_errorcode & 0xFF) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(random.uniform(0, LONGEST_PAUSE))  # noqa: S311  no secret
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _row(lease: Lease) -> tuple[Any, ...]:
    values = {name: getattr(lease, name) for name in FIELDS}
    values["undo"] = msgspec.json.encode(lease.undo).decode()
    for name in ("issued_at", "expires_at"):
        values[name] = values[name] and _text(values[name])
    return tuple(values.values())


def _holder_row(lease: str, holder: Holder) -> tuple[Any, ...]:
    return lease, holder.consumer, _text(holder.first_at), _text(holder.last_at), holder.count


def _beginning(text: str) -> tuple[str, str]:
    """The bounds of all texts that begin so."""
    return text, text + "\U0010ffff"


def _text(moment: datetime) -> str:
    """An instant that sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        pass
    raise StoreUnavailable("a record in the store is damaged; restore a backup")
