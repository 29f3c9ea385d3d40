"""What connectors were found to reach, in the store's SQLite file."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import anyio
import msgspec

from mooring.errors import InvalidConfig, MooringError
from mooring.records import Change, Look
from mooring.store._worker import Worker, transaction
from mooring.types import Connector, Resource

T = TypeVar("T")

MOST_NAMED: Final = 1_000
"""So many ids of what is new, and of what is gone, are named."""
FIELDS: Final = Look.__struct_fields__
NONE: Final = "[]"
KEY: Final = "connector_id = ? AND version = ? AND resource_type = ? AND unit = ?"
SELECT: Final = f"SELECT {', '.join(FIELDS)} FROM looks WHERE connector_id = ? AND version = ?"  # noqa: S608  our own words
INSERT: Final = (
    "INSERT INTO looks (connector_id, version, resource_type, unit, begun) SELECT ?1, ?2, ?3, ?4, ?5 "
    "WHERE EXISTS (SELECT 1 FROM connectors WHERE id = ?1 AND version = ?2) ON CONFLICT DO "
)
BEGIN: Final = f"{INSERT} UPDATE SET begun = excluded.begun RETURNING run"
GO_ON: Final = f"SELECT run FROM looks WHERE {KEY} AND begun = ?"  # noqa: S608  our own words
ADD: Final = "INSERT OR REPLACE INTO findings (run, id, resource) SELECT ?, value ->> 'id', value FROM json_each(?)"
FAIL: Final = (
    "UPDATE looks SET failed_at = ?, error = ?, message = ?, "  # noqa: S608  our own words
    f"begun = CASE begun WHEN ? THEN run ELSE begun END WHERE {KEY}"
)
FINISH: Final = (
    "UPDATE looks SET run = begun, at = ?, count = ?, took = ?, failed_at = NULL, error = '', message = '' "  # noqa: S608  our own words
    f"WHERE {KEY}"
)
FOUND: Final = (
    "SELECT unit, resource FROM looks JOIN findings USING (run) "
    "WHERE connector_id = ? AND version = ? AND resource_type = ? AND "
)
ONLY_IN: Final = (
    "SELECT id FROM findings AS one WHERE run = ? "
    "AND NOT EXISTS (SELECT 1 FROM findings WHERE run = ? AND id = one.id) ORDER BY id"
)


class _Ticket:
    """What one caller has to write, and what became of it."""

    def __init__(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        self.work = work
        self.done = False
        self.result: Any = None
        self.error: MooringError | None = None


class SqliteFindings(Worker):
    """`Findings` in a file; made by `open_sqlite`. Callers at the same moment share one transaction."""

    holds = "findings"
    synchronous = "NORMAL"

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: Path) -> None:
        super().__init__(connect, path)
        self._waiting: list[_Ticket] = []
        self._writing = anyio.Lock()

    async def expect(self, connector: Connector, units: Mapping[str, Mapping[str, str]]) -> Sequence[Look]:
        """See `Findings.expect`."""
        encoded(tuple(units.values()))

        def expect(connection: sqlite3.Connection) -> Sequence[Look]:
            before = self._looks(connection, connector)
            known = {(look.resource_type, look.unit): look.ids for look in before}
            for look in before:
                if is_dropped(look, units):
                    connection.execute(f"DELETE FROM looks WHERE {KEY}", _key(look))  # noqa: S608  our own words
            for kind, named in units.items():
                for unit, ids in named.items():
                    key = (connector.id, connector.version, kind, unit)
                    if (kind, unit) not in known:
                        connection.execute(f"{INSERT} NOTHING", (*key, 0))
                    if known.get((kind, unit)) != ids:
                        connection.execute(f"UPDATE looks SET ids = ? WHERE {KEY}", (ids, *key))  # noqa: S608  our own words
            return before

        return await self._write(expect)

    async def looks(self, connector: Connector) -> Sequence[Look]:
        """See `Findings.looks`."""
        return await self._run(lambda connection: self._looks(connection, connector))

    async def found(
        self, connector: Connector, resource_type: str, *, after: tuple[str, str] = ("", ""), most: int = 1000
    ) -> Sequence[tuple[str, Resource]]:
        """See `Findings.found`."""
        about = (connector.id, connector.version, resource_type)

        def read(connection: sqlite3.Connection) -> Sequence[tuple[str, str]]:
            here, beyond = (
                f"{FOUND} unit = ? AND id > ? ORDER BY id LIMIT ?",
                f"{FOUND} unit > ? ORDER BY unit, id LIMIT ?",
            )
            rows = connection.execute(here, (*about, *after, most)).fetchall()
            return rows + connection.execute(beyond, (*about, after[0], most - len(rows))).fetchall()

        rows = await self._run(read)
        try:
            return [(unit, Resource(**msgspec.json.decode(resource))) for unit, resource in rows]
        except (msgspec.MsgspecError, TypeError):
            pass
        raise self._damaged()

    async def add(self, look: Look, run: int, resources: Sequence[Resource], *, begins: bool) -> bool:
        """See `Findings.add`."""
        encoded(look)
        found = encoded(resources)
        before = await self._write(lambda connection: _stage(connection, look, run, found, begins=begins))
        return before is not None

    async def finish(self, look: Look, run: int, resources: Sequence[Resource], *, begins: bool) -> Change | None:
        """See `Findings.finish`."""
        encoded(look)
        named = encoded(resources)

        def finish(connection: sqlite3.Connection) -> Change | None:
            before = _stage(connection, look, run, named, begins=begins)
            if before is None:
                return None
            found, more_found = _only_in(connection, run, before) if before else ((), 0)
            gone, more_gone = _only_in(connection, before, run) if before else ((), 0)
            connection.execute(FINISH, (_text(look.at), look.count, look.took.total_seconds(), *_key(look)))
            return Change(found=found, gone=gone, more_found=more_found, more_gone=more_gone)

        return await self._write(finish)

    async def fail(self, look: Look, run: int = 0) -> None:
        """See `Findings.fail`."""
        values = (_text(look.failed_at), look.error, look.message.encode(errors="replace").decode(), run)

        def fail(connection: sqlite3.Connection) -> None:
            connection.execute(f"{INSERT} NOTHING", (*_key(look), 0))
            connection.execute(FAIL, (*values, *_key(look)))

        encoded(look.unit)
        await self._write(fail)

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        ticket = _Ticket(work)
        self._waiting.append(ticket)
        try:
            async with self._writing:
                if not ticket.done:
                    await self._commit()
        finally:
            if not ticket.done:  # cancelled while it waited: nobody shall write it now
                self._waiting.remove(ticket)
        if ticket.error is not None:
            raise copy.copy(ticket.error).with_traceback(None)
        return cast("T", ticket.result)

    async def _commit(self) -> None:
        """Write what is waiting, for all who wait."""
        tickets, self._waiting = self._waiting, []

        def commit(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                for one in tickets:
                    one.result = one.work(connection)

        try:
            with anyio.CancelScope(shield=True):  # bounded by BUSY_SECONDS
                await self._run(commit)
        except MooringError as error:
            for one in tickets:
                one.error = error
        finally:
            for one in tickets:
                one.done = True

    def _looks(self, connection: sqlite3.Connection, connector: Connector) -> Sequence[Look]:
        rows = connection.execute(SELECT, (connector.id, connector.version)).fetchall()
        try:
            looks = [dict(zip(FIELDS, row, strict=True)) for row in rows]
            return [msgspec.convert({**look, "took": timedelta(seconds=look["took"])}, Look) for look in looks]
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError):
            pass
        raise self._damaged()


def is_dropped(look: Look, units: Mapping[str, Collection[str]]) -> bool:
    """Whether a look is of a unit that is not there any more; what became of the connector itself is over anyway."""
    return look.unit not in units.get(look.resource_type, (look.unit,)) if look.resource_type else True


def encoded(value: Any) -> str:
    """JSON.

    Raises:
        InvalidConfig: there is none of it.
    """
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, TypeError):
        pass
    raise InvalidConfig("what was found is no text in Unicode, and is not recorded")


def _stage(connection: sqlite3.Connection, look: Look, run: int, resources: str, *, begins: bool) -> int | None:
    """Write what a run has found, if it is still the one that began last; gives the run of the look before."""
    row = connection.execute(BEGIN if begins else GO_ON, (*_key(look), run)).fetchone()
    if row is not None and resources != NONE:
        connection.execute(ADD, (run, resources))  # in one statement, since between two the event loop has its turn
    return None if row is None else int(row[0])


def _only_in(connection: sqlite3.Connection, one: int, other: int) -> tuple[tuple[str, ...], int]:
    """The ids that one run found and the other did not: the first of them, and how many more."""
    rows = connection.execute(ONLY_IN, (one, other))
    return tuple(row[0] for row in rows.fetchmany(MOST_NAMED)), sum(1 for _ in rows)


def _key(look: Look) -> tuple[str, int, str, str]:
    return look.connector_id, look.version, look.resource_type, look.unit


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds")
