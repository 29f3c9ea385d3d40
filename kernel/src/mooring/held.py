"""What a client that lives long holds, for plugins that make clients: credentials that change while it lives.

A client asks for them before each request. Others are asked for when a window opens, in proportion to the life that is
left and not at each use; one asks, and the rest go on with what is there as long as it is valid. What the vendor has
refused is replaced at once, once for all who say so.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import anyio

from mooring.credentials import Credentials
from mooring.errors import MooringError

C = TypeVar("C", bound=Credentials)

WINDOW = timedelta(minutes=15)
WINDOW_FRACTION = 1 / 3
"""Others are asked for with a third of the life left that there was when last asked, or 15 minutes if that is less."""
PAUSE = timedelta(seconds=1)
"""The least time between two questions, while what is held is valid."""


def _now() -> datetime:
    return datetime.now(UTC)


class _Holding(Generic[C]):
    """What is held, and when to ask for others."""

    def __init__(self, first: C) -> None:
        self.current = first
        self._keep(first)

    def _keep(self, credentials: C) -> None:
        if credentials != self.current:
            self.current = credentials
        ends, now = credentials.expires_at, _now()
        self._ask_at = None if ends is None else max(ends - min(WINDOW, (ends - now) * WINDOW_FRACTION), now + PAUSE)

    @property
    def _ended(self) -> bool:
        ends = self.current.expires_at
        return ends is not None and ends <= _now()

    @property
    def _due(self) -> bool:
        return self._ask_at is not None and (self._ask_at <= _now() or self._ended)


class Held(_Holding[C]):
    """For asynchronous clients; good for use from many tasks."""

    def __init__(
        self, first: C, renew: Callable[..., Awaitable[Credentials]], check: Callable[[Credentials], C]
    ) -> None:
        """Hold the first; `renew` is the request's, `check` gives what it gave as the kind that is wanted."""
        super().__init__(first)
        self._renew = renew
        self._check = check
        self._lock = anyio.Lock()

    async def fresh(self) -> C:
        """What is good for a request.

        Raises:
            MooringError: it has ended, and there are no others.
        """
        if self._due and (self._ended or not self._lock.locked()):
            async with self._lock:
                if self._due:
                    try:
                        self._keep(self._check(await self._renew()))
                    except MooringError:
                        if self._ended:
                            raise
                        self._keep(self.current)
        return self.current

    async def instead_of(self, refused: C) -> C:
        """Others than those that the vendor has refused, or the same if there are no others.

        Raises:
            MooringError: they cannot be had now.
        """
        async with self._lock:
            if self.current is refused:
                self._keep(self._check(await self._renew(refused=refused)))
        return self.current


class BlockingHeld(_Holding[C]):
    """The same for synchronous clients; good for use from many threads."""

    def __init__(self, first: C, renew: Callable[..., Credentials], check: Callable[[Credentials], C]) -> None:
        """See `Held`."""
        super().__init__(first)
        self._renew = renew
        self._check = check
        self._lock = threading.Lock()

    def fresh(self) -> C:
        """See `Held.fresh`."""
        if self._due and self._lock.acquire(blocking=self._ended):
            try:
                if self._due:
                    try:
                        self._keep(self._check(self._renew()))
                    except MooringError:
                        if self._ended:
                            raise
                        self._keep(self.current)
            finally:
                self._lock.release()
        return self.current

    def instead_of(self, refused: C) -> C:
        """See `Held.instead_of`."""
        with self._lock:
            if self.current is refused:
                self._keep(self._check(self._renew(refused=refused)))
        return self.current
