"""A connection of its own to the store's SQLite file, and the thread that works with it.

Each piece of work is one transaction of several statements, made in one go by a thread: it must not take in what the
store's own connection does meanwhile.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, TypeVar

import anyio
import anyio.to_thread

from mooring.errors import InvalidConfig, MooringError, StoreCorrupt, StoreUnavailable
from mooring.store._files import translate

T = TypeVar("T")

BUSY_SECONDS: Final = 10.0
LONGEST_PAUSE: Final = 0.005
"""Seconds between two tries of a busy file."""


class Worker:
    """The base of what is kept over a connection of its own."""

    holds: ClassVar[str]
    """What is kept, in words."""
    synchronous: ClassVar[str] = "FULL"
    """Whether a write outlives the machine (sqlite.org/pragma.html#pragma_synchronous)."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: Path) -> None:
        self._connect = connect
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._alone = anyio.CapacityLimiter(1)

    def close(self) -> None:
        """Close the file, for good."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Work with the connection, in a thread; never cut off, since it is bounded by `BUSY_SECONDS`."""
        return await anyio.to_thread.run_sync(partial(self._work, work), limiter=self._alone)

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The work, tried again while another process holds the file, with short pauses that differ."""
        problem: MooringError
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return work(self._opened())
            except UnicodeEncodeError:
                problem = InvalidConfig("a filter is no text in Unicode; write it in UTF-8")
            except OverflowError:
                problem = InvalidConfig("the number is out of range; give a smaller one")
            except sqlite3.Error as error:
                error.__traceback__ = None
                code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
                problem = translate(error, self._path)
                if type(error) is sqlite3.OperationalError and not code:  # Python's own, of text that is not UTF-8
                    problem = self._damaged()
                if code == sqlite3.SQLITE_BUSY and time.monotonic() < deadline:
                    time.sleep(random.uniform(0, LONGEST_PAUSE))  # noqa: S311  no secret
                    continue
            raise problem

    def _opened(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreUnavailable(f"the store {self._path} is closed")
        if self._connection is None:
            self._connection = self._connect()
            self._connection.execute(f"PRAGMA synchronous = {self.synchronous}")
            self._connection.execute("PRAGMA busy_timeout = 5")
        return self._connection

    def _damaged(self) -> StoreCorrupt:
        return StoreCorrupt(f"a record of {self.holds} in {self._path} is damaged; restore a backup")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None, None, None]:
    """All or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
