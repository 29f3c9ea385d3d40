"""Which entries are to be renewed now: those whose window is open, and that somebody has used."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Container, Iterable, Mapping
from itertools import count
from typing import Generic, NamedTuple, TypeVar

from mooring.cache._entry import Entry
from mooring.types import Clock

K = TypeVar("K")

JUMP = 5.0
"""By how many seconds one clock may get ahead of the other before every entry is looked at again."""
STALE = 1000
"""How many entries that were replaced the heap may hold, beside as many as there are good ones."""


class Due(NamedTuple, Generic[K]):
    """An entry whose time has come."""

    key: K
    entry: Entry


class Agenda(Generic[K]):
    """A heap by the monotonic clock; each entry is touched when it comes in and when its window opens."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, K, Entry]] = []
        self._number = count()
        self._asked: deque[Due[K]] = deque()
        self._drift = self._measure()

    def add(self, key: K, entry: Entry, *, not_before: float = 0.0) -> None:
        """Look at it when its window opens, and not before so many seconds have passed."""
        wait = max(entry.renew_after - entry.age, not_before)
        heapq.heappush(self._heap, (self._clock.monotonic() + wait, next(self._number), key, entry))

    def ask(self, key: K, entry: Entry) -> None:
        """Somebody was given a parked entry. Safe to call from any thread."""
        entry.parked = False
        self._asked.append(Due(key, entry))

    def due(self, entries: Mapping[K, Entry], held: Container[str] = ()) -> Iterable[Due[K]]:
        """Those to renew now; after a jump of a clock perhaps once more. What is not kept any more is passed over.

        Args:
            entries: all that are kept.
            held: the leases that clients hold, which count as used.
        """
        self._look_again(entries)
        while self._asked:
            due = self._asked.popleft()
            if due.entry.kept:
                yield due
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            _, _, key, entry = heapq.heappop(self._heap)
            if not entry.kept:
                continue
            if entry.used or entry.issued.lease in held:
                yield Due(key, entry)
            else:
                entry.parked = True

    def _look_again(self, entries: Mapping[K, Entry]) -> None:
        """Begin anew after a jump, and leave out what is not kept before that is most of it."""
        drift = self._measure()
        if abs(drift - self._drift) > JUMP:
            self._drift = drift
            self._heap.clear()
            for key, entry in entries.items():
                self.add(key, entry)
        elif len(self._heap) > 2 * len(entries) + STALE:
            self._heap = [item for item in self._heap if item[-1].kept]
            heapq.heapify(self._heap)

    def _measure(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()
