"""Leases, the audit log and the numbered event log in the store's SQLite file."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from mooring.errors import InvalidConfig, MooringError, StoreConflict
from mooring.records import Audited, AuditEntry, Entries, Holder, Lease, LeaseState, Logged, Sealing
from mooring.store._worker import Worker, transaction

T = TypeVar("T")
Sign = Callable[[bytes], tuple[str, bytes]]
Signed = Callable[[Sealing], bool]

MOST_EVENTS: Final = 100_000
EVENTS_AT_ONCE: Final = 1_000
"""So many of the oldest events are dropped together."""
FIELDS: Final = (
    "id", "connector_id", "connector", "connector_type", "resource_type", "resource_id", "access", "issued_at",
    "expires_at", "ttl", "narrowed", "revocation", "state", "undo", "attempts", "error",
)  # fmt: skip
CHANGING: Final = ("expires_at", "state", "undo", "attempts", "error")
UPSERT_LEASE: Final = (
    f"INSERT INTO leases ({', '.join(FIELDS)}) VALUES ({', '.join('?' * len(FIELDS))}) "  # noqa: S608  our own words
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in CHANGING)} "
    "WHERE state NOT IN ('revoked', 'expired')"
)
UPSERT_HOLDER: Final = (
    "INSERT INTO holders (lease, consumer, first_at, last_at, count) SELECT id, ?, ?, ?, ? FROM leases WHERE id = ?{} "
    "ON CONFLICT (lease, consumer) DO UPDATE SET first_at = iif(count, first_at, excluded.first_at), "
    "last_at = max(last_at, excluded.last_at), count = count + excluded.count"
)
"""A holder of count 0 is one no more."""
NEW_HOLDER: Final = UPSERT_HOLDER.format(" AND state = 'active'")
USED: Final = f"{UPSERT_HOLDER.format('')} WHERE count"
HOLDERS: Final = msgspec.json.Decoder(tuple[Holder, ...])
SELECT_LEASES: Final = (
    f"SELECT {', '.join(FIELDS)}, "  # noqa: S608  our own words
    "(SELECT json_group_array(json_object('consumer', consumer, 'first_at', first_at, 'last_at', last_at, "
    "'count', count)) FROM (SELECT * FROM holders WHERE lease = leases.id AND count ORDER BY first_at, consumer)) "
    "FROM leases"
)
MOST_TOLD: Final = 100
"""So many damaged records are told of."""
DAMAGE: Final = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)
"""What comes of a record that nobody of ours has written so."""
FIRST_LINK: Final = b"\0" * 32
"""What the first link of the audit chain is linked to."""
LOST_LINK: Final = b"\1" * 32
"""What the next link is linked to where nothing vouches for those before: they may have been changed or cut off."""


class SqliteLedger(Worker):
    """A `Ledger` in a file; made by `open_sqlite`."""

    holds = "leases, audit or events"

    async def record(self, batch: Sequence[Entries], sign: Sign, signed: Signed) -> Sequence[MooringError | None]:
        """See `Ledger.record`."""
        return await self._run(lambda connection: _record(connection, batch, sign, signed))

    async def damaged(self) -> Sequence[str]:
        """See `Ledger.damaged`."""
        return await self._run(lambda _: self._look())

    def _look(self) -> Sequence[str]:
        problems: list[str] = []
        with closing(self._connect()) as connection:
            connection.text_factory = _text_or_bytes
            for kind, statement, parse in RECORDS:
                for row in connection.execute(statement):
                    try:
                        parse(row)
                    except DAMAGE:
                        problems.append(f"the record of {kind} {_shown(row[0])} is damaged; restore a backup")
                    if len(problems) >= MOST_TOLD:
                        return [*problems, "and perhaps more"]
        return problems

    async def probe(self) -> None:
        """See `Ledger.probe`."""

        def probe(connection: sqlite3.Connection) -> None:
            connection.execute("PRAGMA synchronous = NORMAL")  # nothing of it has to outlive the machine
            try:
                with transaction(connection):
                    for _ in range(2):  # a page is written that says the same again
                        connection.execute("UPDATE revision SET number = ~number")
            finally:
                connection.execute("PRAGMA synchronous = FULL")

        await self._run(probe)

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
            ("id >= ?1 AND id < ?1 || char(1114111)", lease),
            ("connector_id = ?1", connector_id),
            ("resource_id >= ?1 AND resource_id < ?1 || char(1114111)", resource),
            ("id IN (SELECT lease FROM holders WHERE consumer = ?1 AND count)", consumer),
            ("expires_at <= ?1", ended and _text(ended)),
        ):
            if given is not None:
                values.append(given)
                wheres.append(condition.replace("?1", f"?{len(values)}"))
        if states is not None:
            known = tuple(states)
            wheres.append(f"state IN ({', '.join(f'?{len(values) + number}' for number in range(1, len(known) + 1))})")
            values += known
        where = f" WHERE {' AND '.join(wheres)}" if wheres else ""
        return await self._run(
            lambda one: [
                self._sound(lease_in, row)
                for row in one.execute(f"{SELECT_LEASES}{where} ORDER BY issued_at, id", values).fetchall()
            ]
        )

    async def parted(self) -> Sequence[tuple[str, str]]:
        """See `Ledger.parted`."""
        return await self._run(
            lambda one: one.execute("SELECT lease, consumer FROM holders WHERE count = 0").fetchall()
        )

    async def prune(self, ended: datetime) -> int:
        """See `Ledger.prune`."""

        def prune(connection: sqlite3.Connection) -> int:
            over = "SELECT id FROM leases WHERE state IN ('expired', 'revoked') AND expires_at <= ?"
            with transaction(connection):
                connection.execute(f"DELETE FROM holders WHERE lease IN ({over})", (_text(ended),))  # noqa: S608  our own words
                return connection.execute(f"DELETE FROM leases WHERE id IN ({over})", (_text(ended),)).rowcount  # noqa: S608  our own words

        return await self._run(prune)

    async def events(self, *, after: int, most: int = 1000) -> Sequence[Logged]:
        """See `Ledger.events`."""
        statement = "SELECT seq, at, event, connector_id, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
        rows = await self._run(lambda one: one.execute(statement, (after, most)).fetchall())
        return [self._sound(event_in, row) for row in rows]

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
        return await self._run(_sealing)

    def _sound(self, parse: Callable[[Sequence[Any]], T], row: Sequence[Any]) -> T:
        try:
            return parse(row)
        except DAMAGE:
            pass
        raise self._damaged()


def lease_in(row: Sequence[Any]) -> Lease:
    """The lease in a row of `FIELDS` and its holders in JSON; `DAMAGE` of what cannot be read, here and below."""
    values = dict(zip(FIELDS, row, strict=False))
    values["narrowed"] = bool(values["narrowed"])
    values["ttl"] = None if values["ttl"] is None else timedelta(seconds=values["ttl"])
    values["undo"], values["holders"] = msgspec.json.decode(values["undo"]), HOLDERS.decode(row[-1])
    return msgspec.convert(values, Lease)


def holder_in(row: Sequence[Any]) -> Holder:
    """The holder in a row that begins with its lease."""
    return msgspec.convert(dict(zip(Holder.__struct_fields__, row[1:], strict=True)), Holder)


def event_in(row: Sequence[Any]) -> Logged:
    """The event in a row."""
    values = dict(zip(Logged.__struct_fields__, row, strict=True))
    return msgspec.convert(values | {"body": msgspec.json.decode(values["body"])}, Logged)


def entry_in(body: bytes) -> AuditEntry:
    """The audit entry that was stored so."""
    return msgspec.json.decode(body, type=AuditEntry)


RECORDS: Final[tuple[tuple[str, str, Callable[[Sequence[Any]], object]], ...]] = (
    ("lease", f"SELECT {', '.join(FIELDS)}, '[]' FROM leases", lease_in),  # noqa: S608  our own words
    ("holder of lease", "SELECT lease, consumer, first_at, last_at, count FROM holders", holder_in),
    ("audit entry", "SELECT seq, body FROM audit", lambda row: entry_in(row[1])),
    ("event", "SELECT seq, at, event, connector_id, body FROM events", event_in),
)
"""What there is to read, each row by itself; the first column is its name."""


def _text_or_bytes(raw: bytes) -> str | bytes:
    """Text; what is none stays bytes, which no field takes."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _shown(name: str | bytes | int) -> str:
    return repr(name.decode(errors="replace") if isinstance(name, bytes) else name)


def link(before: bytes, body: bytes) -> bytes:
    """The digest of an audit entry in its chain."""
    return hashlib.sha256(before + body).digest()


def not_text() -> InvalidConfig:
    """The error for what cannot be written down."""
    return InvalidConfig("what is to be recorded holds text that is not Unicode; write it in UTF-8")


def body_of(entry: AuditEntry) -> bytes:
    """An audit entry as it is hashed and stored."""
    try:
        return msgspec.json.encode(entry, order="deterministic")
    except UnicodeEncodeError:
        return msgspec.json.encode(readable(msgspec.to_builtins(entry)), order="deterministic")


def readable(value: Any) -> Any:
    """The same, with what is no Unicode in its texts replaced: what has happened is written down whatever it says."""
    if isinstance(value, dict):
        return {readable(name): readable(one) for name, one in value.items()}
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def seal_text(seq: int, digest: bytes) -> bytes:
    """What is signed of the chain's last link."""
    return b"%d:%s" % (seq, digest.hex().encode())


def end_of(last: int, sealing: Sealing | None, signed: Signed) -> tuple[int, bytes]:
    """From where the audit chain goes on: from the end that was signed, whatever the log says now.

    So what was changed without the key stays a break in the chain, also when the next entry is signed.
    """
    if sealing is None and not last:
        return 0, FIRST_LINK
    if sealing is None or not signed(sealing):
        return max(last, sealing.seq if sealing else 0), LOST_LINK
    return max(last, sealing.seq), sealing.digest


def _sealing(connection: sqlite3.Connection) -> Sealing | None:
    row = connection.execute("SELECT seq, digest, key_id, signature FROM audit_seal").fetchone()
    return Sealing(seq=row[0], digest=row[1], key_id=row[2], signature=row[3]) if row else None


def _record(
    connection: sqlite3.Connection, batch: Sequence[Entries], sign: Sign, signed: Signed
) -> Sequence[MooringError | None]:
    """Each in a savepoint of one transaction (sqlite.org/lang_savepoint.html)."""
    with transaction(connection):
        before = end = (0, b"")
        if any(entries.audit for entries in batch):
            last = connection.execute("SELECT max(seq) FROM audit").fetchone()[0] or 0
            before = end = end_of(last, _sealing(connection), signed)
        outcomes: list[MooringError | None] = []
        for entries in batch:
            connection.execute("SAVEPOINT one")
            try:
                end = _write(connection, entries, *end)
                outcomes.append(None)
            except StoreConflict as error:
                outcomes.append(error.with_traceback(None))
            except UnicodeEncodeError:
                outcomes.append(
                    InvalidConfig("what is to be recorded holds text that is not Unicode; write it in UTF-8")
                )
            if outcomes[-1] is not None:
                connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
        if end != before:
            connection.execute(
                "INSERT OR REPLACE INTO audit_seal (one, seq, digest, key_id, signature) VALUES (1, ?, ?, ?, ?)",
                (*end, *sign(seal_text(*end))),
            )
        return outcomes


def _write(connection: sqlite3.Connection, entries: Entries, seq: int, digest: bytes) -> tuple[int, bytes]:
    """Write the entries of one caller; gives the end of the audit chain."""
    for lease in entries.leases:
        if not connection.execute(UPSERT_LEASE, _row(lease)).rowcount:
            raise StoreConflict(f"lease {lease.id} is over already")
    for statement, holders in ((NEW_HOLDER, entries.holders), (USED, entries.uses)):
        for lease_id, one in holders:
            values = (one.consumer, _text(one.first_at), _text(one.last_at), one.count, lease_id)
            if not connection.execute(statement, values).rowcount and statement is NEW_HOLDER:
                raise StoreConflict(f"lease {lease_id} was taken back")
    connection.executemany("UPDATE holders SET count = 0 WHERE lease = ? AND consumer = ?", entries.gone)
    for entry in entries.audit:
        body = body_of(entry)
        seq, digest = seq + 1, link(digest, body)
        connection.execute("INSERT INTO audit (seq, body, digest) VALUES (?, ?, ?)", (seq, body, digest))
    for event in entries.events:
        _log(connection, event)
    return seq, digest


def _log(connection: sqlite3.Connection, event: Logged) -> None:
    body = msgspec.json.encode(readable(event.body)).decode()
    values = (_text(event.at), event.event, readable(event.connector_id), body)
    cursor = connection.execute("INSERT INTO events (at, event, connector_id, body) VALUES (?, ?, ?, ?)", values)
    seq = cursor.lastrowid or 0
    if seq >= MOST_EVENTS and not seq % EVENTS_AT_ONCE:
        connection.execute("DELETE FROM events WHERE seq <= ?", (seq - MOST_EVENTS + EVENTS_AT_ONCE,))


def _row(lease: Lease) -> tuple[Any, ...]:
    values = {name: getattr(lease, name) for name in FIELDS}
    for name in ("issued_at", "expires_at"):
        values[name] = values[name] and _text(values[name])
    values["undo"] = msgspec.json.encode(lease.undo).decode()
    values["ttl"] = lease.ttl and lease.ttl.total_seconds()
    return tuple(values.values())


def _text(moment: datetime) -> str:
    """An instant that sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
