"""Credentials that were issued and are still good, in memory and on a shelf that processes share.

Single flight is a lock per key and a second look: when the first caller is cancelled, the next one takes over.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Protocol
from weakref import WeakValueDictionary

import anyio

from mooring.credentials import Issued
from mooring.errors import MooringError
from mooring.types import Access, Clock, Struct

WINDOW = timedelta(minutes=15)
WINDOW_FRACTION = 2 / 3


class Key(Struct):
    """Under what credentials are kept. A changed connector has another version, and so other keys."""

    connector_id: str
    version: int
    resource_type: str
    resource_id: str | None
    access: Access
    ttl: timedelta | None


class Shelf(Protocol):
    """Where credentials lie between processes. What cannot be read is not there."""

    async def get(self, key: Key) -> Issued | None:
        """What lies there."""
        ...

    async def put(self, key: Key, issued: Issued) -> None:
        """Lay it there."""
        ...

    def lock(self, key: Key) -> AbstractAsyncContextManager[None]:
        """Hold the key alone among all processes; a process that dies lets go."""
        ...


class Cache:
    """Serves fresh credentials, and has them made once when there are none."""

    def __init__(self, clock: Clock, shelf: Shelf | None = None, *, max_entries: int = 10_000) -> None:
        self._clock = clock
        self._shelf = shelf
        self._max_entries = max_entries
        self._entries: dict[Key, Issued] = {}
        self._locks: WeakValueDictionary[Key, anyio.Lock] = WeakValueDictionary()

    def peek(self, key: Key) -> Issued | None:
        """What is at hand and fresh, at once: no lock, no wait. Safe to call from any thread."""
        issued = self._entries.get(key)
        return issued if issued is not None and is_fresh(issued, self._clock.now()) else None

    def valid(self, key: Key) -> Issued | None:
        """What is at hand and has not ended, even if it should be renewed."""
        issued = self._entries.get(key)
        return issued if issued is not None and is_valid(issued, self._clock.now()) else None

    async def get(self, key: Key, make: Callable[[], Awaitable[Issued]]) -> Issued:
        """What is fresh, or what `make` makes; of many callers at once only one makes it.

        When `make` fails in a way that may pass and older credentials are still valid, those are served.
        """
        if issued := self.peek(key):
            return issued
        async with self._alone(key):
            if issued := self.peek(key):
                return issued
            shelved = await self._shelf.get(key) if self._shelf else None
            if shelved and is_fresh(shelved, self._clock.now()):
                return self._keep(key, shelved)
            async with self._alone_among_processes(key):
                if self._shelf and (shelved := await self._shelf.get(key)) and is_fresh(shelved, self._clock.now()):
                    return self._keep(key, shelved)
                try:
                    issued = await make()
                except MooringError as error:
                    older = shelved or self._entries.get(key)
                    if error.retryable and older and is_valid(older, self._clock.now()):
                        return older
                    raise
                if self._shelf and issued.expires_at is not None:
                    await self._shelf.put(key, issued)
                return self._keep(key, issued)

    def forget(self, connector_id: str) -> None:
        """Drop what is in memory for a connector; on the shelf nobody asks for its old versions any more."""
        for key in [key for key in self._entries if key.connector_id == connector_id]:
            self._entries.pop(key, None)

    def _keep(self, key: Key, issued: Issued) -> Issued:
        self._entries.pop(key, None)
        if len(self._entries) >= self._max_entries:
            now = self._clock.now()
            gone = [key for key, entry in self._entries.items() if not is_valid(entry, now)]
            for stale in gone or [next(iter(self._entries))]:
                self._entries.pop(stale, None)
        self._entries[key] = issued
        return issued

    @asynccontextmanager
    async def _alone(self, key: Key) -> AsyncGenerator[None, None]:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = anyio.Lock()
        async with lock:
            yield

    @asynccontextmanager
    async def _alone_among_processes(self, key: Key) -> AsyncGenerator[None, None]:
        if self._shelf is None:
            yield
        else:
            async with self._shelf.lock(key):
                yield


def is_valid(issued: Issued, now: datetime) -> bool:
    """Whether the credentials have not ended."""
    return issued.expires_at is None or now < issued.expires_at


def is_fresh(issued: Issued, now: datetime) -> bool:
    """Whether the credentials need no renewal yet: until two thirds of their life, or 15 minutes before its end.

    The later of the two, so that short-lived credentials are not renewed at every use. Long-lived ones are looked at
    again after 15 minutes.
    """
    if issued.expires_at is None:
        return now < issued.issued_at + WINDOW
    life = issued.expires_at - issued.issued_at
    return now < max(issued.issued_at + life * WINDOW_FRACTION, issued.expires_at - WINDOW)
