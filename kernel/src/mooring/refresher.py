"""Renews credentials before they end, for as long as the broker lives.

Each second it asks the cache what is due and starts some of it. How many: what waits is spread evenly over two thirds of
the time that is left for the most urgent, so that ten thousand that were issued together are not renewed together.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import count

import anyio

from mooring.cache import Due, Entry, Key
from mooring.errors import MooringError

TICK = 1.0
"""Seconds."""
PACE = 1.5


class Refresher:
    """Runs beside the callers; see `run`."""

    def __init__(
        self,
        due: Callable[[], Iterable[Due[Key]]],
        renew: Callable[[Due[Key]], Awaitable[None]],
        spawn: Callable[[str, Callable[[], Awaitable[None]]], None],
    ) -> None:
        """Take what gives the entries that are due, what renews one (it may raise `MooringError`), and `Bus.spawn`."""
        self._due = due
        self._renew = renew
        self._spawn = spawn
        self._waiting: list[tuple[float, int, Due[Key]]] = []
        """A heap, the most urgent first."""
        self._taken: set[Entry] = set()
        """What waits or is under way."""
        self._number = count()

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            self._take()
            for due in self._next():
                self._spawn("renewal of credentials", partial(self._try, due))
            await anyio.sleep(TICK)

    def _take(self) -> None:
        for due in self._due():
            if due.entry not in self._taken:
                self._taken.add(due.entry)
                left = due.entry.wait_after - due.entry.age
                heapq.heappush(self._waiting, (anyio.current_time() + left, next(self._number), due))

    def _next(self) -> Iterable[Due[Key]]:
        """Those to start now."""
        if not self._waiting:
            return
        urgent = self._waiting[0][-1].entry
        left = max(urgent.wait_after - urgent.age, TICK)
        for _ in range(min(math.ceil(len(self._waiting) * TICK * PACE / left), len(self._waiting))):
            yield heapq.heappop(self._waiting)[-1]

    async def _try(self, due: Due[Key]) -> None:
        try:
            with suppress(MooringError):  # the broker has told of it; the cache gives it again after a pause
                await self._renew(due)
        finally:
            self._taken.discard(due.entry)
