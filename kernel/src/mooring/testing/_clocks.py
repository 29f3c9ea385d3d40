"""Clocks for tests: one that goes by the event loop's time, and one that stands until it is told to go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio

START = datetime(2026, 1, 1, tzinfo=UTC)


class VirtualClock:
    """The event loop's time, as a `Clock`, from a round date on.

    On trio with `MockClock(autojump_threshold=0)` an hour of it passes in milliseconds, and exactly. It can be read in
    the event loop's thread alone.

    >>> import anyio, trio.testing
    >>> async def later():
    ...     clock = VirtualClock()
    ...     await anyio.sleep(3600)
    ...     return clock.now().isoformat()
    >>> anyio.run(later, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)})
    '2026-01-01T01:00:00+00:00'
    """

    def __init__(self) -> None:
        self._began = anyio.current_time()

    def now(self) -> datetime:
        """The start, and the loop's time since this clock was made."""
        return START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """The loop's time since this clock was made."""
        return anyio.current_time() - self._began


class ManualClock:
    """A `Clock` that stands still; safe to read in any thread.

    >>> clock = ManualClock()
    >>> clock.advance(timedelta(minutes=5))
    >>> clock.now().isoformat()
    '2026-01-01T00:05:00+00:00'
    """

    def __init__(self) -> None:
        self._passed = timedelta(0)

    def advance(self, span: timedelta) -> None:
        """Let time pass."""
        self._passed += span

    def now(self) -> datetime:
        """The start, and what has passed."""
        return START + self._passed

    def monotonic(self) -> float:
        """What has passed."""
        return self._passed.total_seconds()
