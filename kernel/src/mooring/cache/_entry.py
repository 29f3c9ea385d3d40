"""One set of credentials and its windows.

Its life is counted from when it was asked for, by whichever of the machine's two clocks has gone further: the
monotonic one sees through a wall clock that is put back, and the wall clock goes on while a laptop sleeps. It is never
longer than what was asked for: a machine whose clock is behind the vendor's would take an hour for longer.

    0 ------------- renew_after ------------- wait_after ------- ends_after
      served         served, and renewed       a caller waits       never served
                     in the background         for new ones
"""

from __future__ import annotations

import math
from datetime import timedelta

from mooring.credentials import Issued
from mooring.types import Clock

WINDOW = timedelta(minutes=15).total_seconds()
WINDOW_FRACTION = 2 / 3
JITTER = 0.1
"""By how much of the life the window may open sooner, so that what was issued together is not renewed together."""
LAST = timedelta(minutes=5).total_seconds()
LAST_FRACTION = 1 / 12
"""What is left for the caller's own work when new ones are waited for: 5 minutes, or a twelfth of a short life."""


class Entry:
    """Issued credentials as a cache keeps them. All spans are seconds since they were asked for."""

    __slots__ = (
        "_began",
        "_clock",
        "_started",
        "ends_after",
        "issued",
        "kept",
        "parked",
        "renew_after",
        "until",
        "until_monotonic",
        "used",
        "wait_after",
    )

    def __init__(
        self,
        issued: Issued,
        clock: Clock,
        *,
        ttl: timedelta | None = None,
        jitter: float = 0.0,
        renewing: bool = True,
    ) -> None:
        """Keep credentials that have arrived now.

        Args:
            issued: the credentials; `issued_at` is when they were asked for.
            clock: the machine's clocks.
            ttl: what was asked for.
            jitter: how much of `JITTER` is taken, from 0 to 1.
            renewing: whether somebody renews them in the background.
        """
        self.issued = issued
        self.kept = True
        """Whether it is in the cache still."""
        self.used = False
        """Whether anybody was given them since they were made."""
        self.parked = False
        """Whether the window is open and nobody has asked since: they are renewed when somebody does."""
        self._clock = clock
        self._began = issued.issued_at
        self._started = clock.monotonic() - max((clock.now() - issued.issued_at).total_seconds(), 0.0)
        if issued.expires_at is None:  # looked at again now and then
            self.ends_after = math.inf
            self.wait_after, opens, length = 2 * WINDOW, WINDOW, WINDOW
        else:
            length = (issued.expires_at - issued.issued_at).total_seconds()
            length = self.ends_after = min(length, ttl.total_seconds()) if ttl is not None else length
            self.wait_after = length - min(LAST, length * LAST_FRACTION)
            opens = max(length * WINDOW_FRACTION, length - WINDOW)
        self.renew_after = opens - jitter * JITTER * length
        good = self.wait_after if renewing else self.renew_after
        self.until, self.until_monotonic = self._began + timedelta(seconds=good), self._started + good
        """By each of the clocks: until when they are served without waiting. Kept, as it is looked at in every read."""

    @property
    def age(self) -> float:
        """Seconds since they were asked for. Safe to read in any thread."""
        clock = self._clock
        return max((clock.now() - self._began).total_seconds(), clock.monotonic() - self._started)

    @property
    def valid(self) -> bool:
        """Whether they have not ended."""
        return self.age < self.ends_after
