"""Renews credentials before they end, for as long as the broker lives.

Each second it asks the cache what is due and starts some of it. How many: what waits is spread evenly over a third of
the time that is left for the most urgent, so that ten thousand that were issued together are not renewed together.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import anyio

from mooring.cache import Due, Key
from mooring.errors import MooringError
from mooring.types import Clock

TICK = 1.0
"""Seconds."""
PACE = 3


class Refresher:
    """Runs beside the callers; see `run`."""

    def __init__(
        self, clock: Clock, due: Callable[[], Iterable[Due[Key]]], renew: Callable[[Due[Key]], Awaitable[None]]
    ) -> None:
        """Take what gives the entries that are due, and what renews one (it may raise `MooringError`)."""
        self._clock = clock
        self._due = due
        self._renew = renew
        self._waiting: dict[Key, Due[Key]] = {}

    async def run(self) -> None:
        """Renew until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                for due in self._due():
                    self._waiting[due.key] = due
                for due in self._next():
                    tasks.start_soon(self._try, due)
                await anyio.sleep(TICK)

    def _next(self) -> list[Due[Key]]:
        """Those to start now, the oldest first."""
        if not self._waiting:
            return []
        left = min(due.entry.wait_after - due.entry.age for due in self._waiting.values())
        number = math.ceil(len(self._waiting) * TICK * PACE / max(left, TICK))
        return [self._waiting.pop(key) for key in list(self._waiting)[:number]]

    async def _try(self, due: Due[Key]) -> None:
        with suppress(MooringError):  # the broker has told of it; the cache gives it again after a pause
            await self._renew(due)
