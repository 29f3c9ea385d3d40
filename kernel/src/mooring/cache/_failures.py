"""What failed, and when it may be tried again: so that a vendor in trouble is not asked once more by every caller."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, NamedTuple, TypeVar

from mooring.errors import ConnectorExpired, MooringError, StoreError, Unreachable, VaultError
from mooring.types import Clock

K = TypeVar("K")

FIRST = 1.0
LONGEST = 60.0
LONGEST_REFUSAL = 5.0
"""After a refusal that will not pass by itself: whoever has mended it shall not have to wait."""
LONG_AGO = 600.0
"""A failure that has been over for longer says nothing of the next one."""
MOST = 10_000


class Failure(NamedTuple):
    """What became of the last try."""

    error: MooringError
    times: int
    at: float
    until: float
    """On the monotonic clock, as `at`."""


class Failures(Generic[K]):
    """Exponential backoff with full jitter, by key (AWS Architecture Blog, "Exponential Backoff And Jitter")."""

    def __init__(self, clock: Clock, random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._failures: dict[K, Failure] = {}

    def note(self, key: K, error: MooringError) -> None:
        """Remember that a vendor could not be asked, or said no.

        What is wrong on our side is shared by who waits, and makes nobody pause. What nobody was asked for, since a
        breaker is open, is not one failure more.
        """
        now, last = self._clock.monotonic(), self._failures.pop(key, None)
        count = last.times if last is not None and now < last.until + LONG_AGO else 0
        said = error.retry_after.total_seconds() if error.retry_after is not None else 0.0
        if isinstance(error, (StoreError, VaultError, ConnectorExpired)):
            pause = 0.0
        elif isinstance(error, Unreachable) and not error.asked:
            pause = said
        else:
            count += 1
            longest = min(FIRST * 2 ** min(count, 16), LONGEST if error.retryable else LONGEST_REFUSAL)
            pause = max(self._random() * longest, said)
        if len(self._failures) >= MOST:
            self._failures.pop(next(iter(self._failures)))
        self._failures[key] = Failure(_bare(error), count, now, now + min(pause, LONGEST))

    def recall(self, key: K, asked: float) -> MooringError | None:
        """The error to give instead of another try: to who asked before it came, and until its pause is over."""
        failure = self._failures.get(key)
        now = self._clock.monotonic()
        if failure is None or (now >= failure.until and asked > failure.at):
            return None
        error = _bare(failure.error)
        if error.retryable:
            error.retry_after = timedelta(seconds=max(failure.until - now, 0.0))
        return error

    def pause(self, key: K) -> float:
        """Seconds until it may be tried again."""
        failure = self._failures.get(key)
        return max(failure.until - self._clock.monotonic(), 0.0) if failure else 0.0

    def forget(self, key: K) -> None:
        """It has worked."""
        self._failures.pop(key, None)


def _bare(error: MooringError) -> MooringError:
    """The same error, without where it was raised."""
    twin = copy.copy(error).with_traceback(None)
    twin.where = dict(error.where)
    twin.__cause__ = twin.__context__ = None
    return twin
