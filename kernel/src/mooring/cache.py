"""Credentials that were issued and are still good, in memory and on a shelf that processes share.

Single flight is a lock per key and a second look: when the first caller is cancelled, the next one takes over.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
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
    """Under what credentials are kept: all that they depend on."""

    connector_id: str
    fingerprint: str
    """Of the connector's configuration, secrets and allowances; not of its labels and texts."""
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

    async def forget(self, connector_id: str) -> None:
        """Take away what lies there of a connector."""
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

    async def get(self, key: Key, make: Callable[[], Awaitable[Issued]], *, share: bool = True) -> Issued:
        """What is fresh, or what `make` makes; of many callers at once only one makes it.

        When `make` fails in a way that may pass and older credentials are still valid, those are served.

        Args:
            key: what they depend on.
            make: makes them.
            share: whether another process would make the same, so that they may lie on the shelf.
        """
        shelf = self._shelf if share else None
        if issued := self.peek(key):
            return issued
        async with self._alone(key):
            if issued := self.peek(key):
                return issued
            shelved = await shelf.get(key) if shelf else None
            if shelved and is_fresh(shelved, self._clock.now()):
                return self._keep(key, shelved)
            async with shelf.lock(key) if shelf else nullcontext():
                if shelf and (shelved := await shelf.get(key)) and is_fresh(shelved, self._clock.now()):
                    return self._keep(key, shelved)
                try:
                    issued = await make()
                except MooringError as error:
                    older = shelved or self._entries.get(key)
                    if error.retryable and older and is_valid(older, self._clock.now()):
                        return older
                    raise
                if shelf and issued.expires_at is not None:
                    await shelf.put(key, issued)
                return self._keep(key, issued)

    async def forget(self, connector_id: str) -> None:
        """Drop what is kept for a connector, here at once, then on the shelf."""
        for key in [key for key in self._entries if key.connector_id == connector_id]:
            self._entries.pop(key, None)
        if self._shelf:
            with anyio.CancelScope(shield=True):  # it removes a few files and waits for nobody
                await self._shelf.forget(connector_id)

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
