"""Credentials that were issued and are still good, in memory and on a shelf that processes share.

Single flight is a lock per key and a second look: when the first caller is cancelled, the next one takes over.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import timedelta
from itertools import islice
from typing import Protocol
from weakref import WeakValueDictionary

import anyio

from mooring.cache._agenda import Agenda, Due
from mooring.cache._entry import Entry
from mooring.cache._failures import Failures
from mooring.credentials import Issued
from mooring.errors import MooringError
from mooring.types import Access, Clock, Struct

SLACK = timedelta(seconds=5)
"""By how much another process's clock may seem ahead."""


class Key(Struct):
    """Under what credentials are kept: all that they depend on."""

    connector_id: str
    fingerprint: str
    """Of the connector's configuration, secrets and allowances; not of its labels and texts."""
    resource_type: str
    resource_id: str | None
    access: Access
    ttl: timedelta | None
    consumer: str | None = None
    """Who alone gets them, where they can be taken back from one consumer; else they are everybody's."""


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

    async def drop(self, key: Key) -> None:
        """Take away what lies there of one key."""
        ...


class Cache:
    """Serves what is good, and has it made once where there is nothing, or not for long any more."""

    def __init__(
        self,
        clock: Clock,
        shelf: Shelf | None = None,
        *,
        max_entries: int = 50_000,
        renewing: bool = False,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Keep at most `max_entries`.

        Args:
            clock: the machine's clocks.
            shelf: what other processes see too.
            max_entries: how many sets of credentials are kept.
            renewing: whether somebody renews what `due` gives; else a caller does once the window is open.
            jitter: gives numbers from 0 to 1.
        """
        self._clock = clock
        self._now, self._monotonic = clock.now, clock.monotonic
        self._shelf = shelf
        self._max_entries = max_entries
        self.renewing = renewing
        self._jitter = jitter
        self._entries: dict[Key, Entry] = {}
        self._locks: WeakValueDictionary[Key, anyio.Lock] = WeakValueDictionary()
        self._failures: Failures[Key] = Failures(clock, jitter)
        self._agenda: Agenda[Key] = Agenda(clock)
        self._withdrawn: set[str] = set()
        self._held: Counter[str] = Counter()
        """By lease, how many clients have its credentials in their hands."""

    def at(self, key: Key) -> Entry | None:
        """What is kept, good or not. Safe to call from any thread."""
        return self._entries.get(key)

    def serve(self, key: Key, entry: Entry) -> bool:
        """Whether this may be given to somebody now, which then counts as used. Safe to call from any thread."""
        if not entry.kept or self._monotonic() >= entry.until_monotonic or self._now() >= entry.until:
            return False
        entry.used = True
        if entry.parked:
            self._agenda.ask(key, entry)
        return True

    def peek(self, key: Key) -> Issued | None:
        """What is at hand and good enough, at once: no lock, no wait. Safe to call from any thread."""
        entry = self._entries.get(key)
        return entry.issued if entry is not None and self.serve(key, entry) else None

    def valid(self, key: Key) -> Issued | None:
        """What is at hand and has not ended, even if it should be renewed."""
        entry = self._entries.get(key)
        return entry.issued if entry is not None and entry.valid else None

    async def get(
        self, key: Key, make: Callable[[], Awaitable[Issued]], *, share: bool = True, unlike: str = ""
    ) -> Issued:
        """What is good, or what `make` makes; of many callers at once only one makes it.

        When `make` fails in a way that may pass and older credentials are still valid, those are served. A failure is
        remembered for a while (see `Failures`) and given to the other callers.

        Args:
            key: what they depend on.
            make: makes them.
            share: whether another process would make the same, so that they may lie on the shelf.
            unlike: the lease of credentials that will not do: the vendor refused them. Others do, whoever made them.
        """
        asked = self._clock.monotonic()
        if issued := self._good(key, unlike):
            return issued
        try:
            return await self._renewed(key, make, share=share, unlike=unlike, asked=asked)
        except MooringError as error:
            older = self.valid(key)
            if error.retryable and older and older.lease != unlike:
                return older
            raise

    async def renew(self, due: Due[Key], make: Callable[[], Awaitable[Issued]], *, share: bool = True) -> None:
        """Have new credentials in the place of these, if they are kept still, and nobody has new ones already.

        Raises:
            MooringError: they cannot be had now; see `postpone`.
        """
        if due.entry.kept:
            lease, asked = due.entry.issued.lease, self._clock.monotonic()
            await self._renewed(due.key, make, share=share, unlike=lease, asked=asked)

    def postpone(self, due: Due[Key]) -> None:
        """Have them due again after a pause."""
        if due.entry.kept and due.entry.valid:
            self._agenda.add(due.key, due.entry, not_before=max(self._failures.pause(due.key), 1.0))

    def __len__(self) -> int:
        """How many sets of credentials are kept."""
        return len(self._entries)

    def due(self) -> Iterable[Due[Key]]:
        """What is to be renewed now, each entry once: its window is open, and somebody has used it."""
        return self._agenda.due(self._entries, self._held)

    def hold(self, lease: str = "", *, instead_of: str = "") -> None:
        """A client has the credentials of a lease in its hands, and lets go of others: to hold them is to use them."""
        if lease:
            self._held[lease] += 1
        if instead_of and self._held[instead_of] > 1:
            self._held[instead_of] -= 1
        elif instead_of:
            del self._held[instead_of]

    async def forget(self, connector_id: str) -> None:
        """Drop what is kept for a connector, here at once, then on the shelf."""
        for key in [key for key in self._entries if key.connector_id == connector_id]:
            self._let_go(key)
        if self._shelf:
            with anyio.CancelScope(shield=True):  # it removes a few files and waits for nobody
                await self._shelf.forget(connector_id)

    async def withdraw(self, leases: Iterable[str]) -> None:
        """Serve none of these leases: all that were taken back, whoever did it. The shelf's are taken no more."""
        self._withdrawn = set(leases)
        for lease in self._withdrawn & {entry.issued.lease for entry in self._entries.values()}:
            await self.drop(lease)

    async def drop(self, lease: str) -> None:
        """Drop the credentials of one lease, here at once, then on the shelf."""
        self._withdrawn.add(lease)
        await self._drop([(key, entry) for key, entry in self._entries.items() if entry.issued.lease == lease])

    async def expire(self) -> None:
        """Drop what has ended, for good: it would be served again if the wall clock were put back."""
        await self._drop([(key, entry) for key, entry in self._entries.items() if not entry.valid])

    async def _drop(self, entries: Iterable[tuple[Key, Entry]]) -> None:
        for key, entry in entries:
            if self._entries.get(key) is not entry:  # renewed while another was dropped
                continue
            self._let_go(key)
            if self._shelf:
                with anyio.CancelScope(shield=True):  # as above
                    if (found := await self._shelf.get(key)) is not None and found.lease == entry.issued.lease:
                        await self._shelf.drop(key)

    def _good(self, key: Key, unlike: str) -> Issued | None:
        issued = self.peek(key)
        return issued if issued is not None and not (unlike and issued.lease == unlike) else None

    async def _renewed(
        self, key: Key, make: Callable[[], Awaitable[Issued]], *, share: bool, unlike: str, asked: float
    ) -> Issued:
        """What somebody else has made meanwhile, here or in another process, or what `make` makes."""
        shelf = self._shelf if share else None
        async with self._alone(key):
            if issued := self._good(key, unlike):
                return issued
            if shelf and (issued := await self._take(shelf, key, unlike)):
                return issued
            if error := self._failures.recall(key, asked):
                raise error
            async with shelf.lock(key) if shelf else nullcontext():
                if shelf and (issued := await self._take(shelf, key, unlike)):
                    return issued
                try:
                    made = await make()
                except MooringError as error:
                    self._failures.note(key, error)
                    raise
                self._failures.forget(key)
                self._keep(key, self._entry(key, made))  # first: a caller that is cancelled must not cost another call
                if shelf and made.expires_at is not None:
                    await shelf.put(key, made)
                return made

    async def _take(self, shelf: Shelf, key: Key, unlike: str) -> Issued | None:
        """What lies on the shelf, if it will do; what is valid at least is kept for a time of need.

        It will not do if it was withdrawn, if it ends before what is kept here (the vendor may have refused it), or if
        it lies in the future: the clock was put back since, and nobody knows how old it is.
        """
        found = await shelf.get(key)
        if found is None or found.lease in (unlike, "") or found.lease in self._withdrawn:
            return None
        kept, entry = self._entries.get(key), self._entry(key, found)
        if found.issued_at > self._clock.now() + SLACK or (kept is not None and _ends(kept) > _ends(entry)):
            return None
        if entry.age < entry.renew_after or (entry.valid and self.valid(key) is None):
            self._keep(key, entry)
        return found if entry.age < entry.renew_after else None

    def _entry(self, key: Key, issued: Issued) -> Entry:
        return Entry(issued, self._clock, ttl=key.ttl, jitter=self._jitter(), renewing=self.renewing)

    def _keep(self, key: Key, entry: Entry) -> None:
        self._let_go(key)
        if len(self._entries) >= self._max_entries:
            gone = [key for key, entry in self._entries.items() if not entry.valid]
            for stale in gone or list(islice(self._entries, max(1, self._max_entries // 16))):
                self._let_go(stale)
        self._entries[key] = entry
        if self.renewing:
            self._agenda.add(key, entry)

    def _let_go(self, key: Key) -> None:
        if entry := self._entries.pop(key, None):
            entry.kept = False

    @asynccontextmanager
    async def _alone(self, key: Key) -> AsyncGenerator[None, None]:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = anyio.Lock()
        async with lock:
            yield


def _ends(entry: Entry) -> float:
    ends = entry.issued.expires_at
    return ends.timestamp() if ends is not None else math.inf
