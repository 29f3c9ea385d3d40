"""Circuit breakers: an endpoint that has not answered several times in a row is left alone for a while.

Open: calls fail at once. Half-open: when the pause is over, one call goes through; by its result it is closed, or open
again for twice as long (Nygard, "Release It!", Circuit Breaker).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Literal

from mooring.errors import MooringError, Overdue, Unreachable, VendorError
from mooring.types import Clock, Struct

THRESHOLD = 5
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 60.0
MOST = 10_000

State = Literal["closed", "open", "half-open"]


class Breaker(Struct):
    """How one endpoint is doing."""

    endpoint: str
    state: State
    failures: int
    """In a row."""
    until: datetime | None = None
    """When it is asked again."""
    error: str = ""
    """The last failure."""


class _Circuit:
    """The mutable side of a `Breaker`; all instants on the monotonic clock."""

    def __init__(self) -> None:
        self.failures = 0
        self.pause = FIRST_PAUSE
        self.until: float | None = None
        self.probing = False
        self.error = ""


class Breakers:
    """One for each endpoint that has failed lately."""

    def __init__(
        self,
        clock: Clock,
        *,
        opened: Callable[[Breaker], None] = lambda _: None,
        closed: Callable[[str], None] = lambda _: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Tell `opened` and `closed` of what happens."""
        self._clock = clock
        self._opened = opened
        self._closed = closed
        self._jitter = jitter
        self._circuits: dict[str, _Circuit] = {}

    def all(self) -> list[Breaker]:
        """Those that have failed since they last answered, by endpoint."""
        return [self._told(endpoint, circuit) for endpoint, circuit in sorted(self._circuits.items())]

    @contextmanager
    def calling(self, endpoint: str) -> Generator[None, None, None]:
        """Around a call: refused while the endpoint is left alone, and counted by its result.

        Raises:
            Unreachable: it is left alone; `retry_after` says for how long.
        """
        circuit = self._circuits.get(endpoint)
        probe = circuit is not None and circuit.until is not None and self._admit(endpoint, circuit)
        try:
            yield
        except (Unreachable, Overdue) as error:
            self._failed(endpoint, error, probe=probe and circuit is self._circuits.get(endpoint))
            raise
        except VendorError:
            self._answered(endpoint)  # it said no, but it is there
            raise
        except BaseException:
            if probe and circuit is not None:
                circuit.probing = False  # cancelled, or not asked at all: nothing is known; the next caller asks
            raise
        self._answered(endpoint)

    def _admit(self, endpoint: str, circuit: _Circuit) -> bool:
        """Let the one call through that finds out whether it answers again."""
        now = self._clock.monotonic()
        left = (circuit.until or now) - now
        if left > 0 or circuit.probing:
            wait = timedelta(seconds=max(left, 1.0))
            refusal = Unreachable(
                f"{endpoint} did not answer {circuit.failures} times in a row; "
                f"it is asked again in {wait.total_seconds():.0f} s",
                retry_after=wait,
            )
            refusal.asked = False
            raise refusal
        circuit.probing = True
        return True

    def _failed(self, endpoint: str, error: MooringError, *, probe: bool) -> None:
        if endpoint not in self._circuits and len(self._circuits) >= MOST:
            self._circuits.pop(next(iter(self._circuits)))
        circuit = self._circuits.setdefault(endpoint, _Circuit())
        circuit.failures += 1
        circuit.error = type(error).__name__
        if probe:
            circuit.probing = False
            circuit.pause = min(circuit.pause * 2, LONGEST_PAUSE)
        elif circuit.until is not None or circuit.failures < THRESHOLD:
            return
        circuit.until = self._clock.monotonic() + circuit.pause * (1 - self._jitter() / 10)
        self._opened(self._told(endpoint, circuit))

    def _answered(self, endpoint: str) -> None:
        circuit = self._circuits.pop(endpoint, None)
        if circuit is not None and circuit.until is not None:
            self._closed(endpoint)

    def _told(self, endpoint: str, circuit: _Circuit) -> Breaker:
        if circuit.until is None:
            return Breaker(endpoint=endpoint, state="closed", failures=circuit.failures, error=circuit.error)
        left = circuit.until - self._clock.monotonic()
        state: State = "open" if left > 0 and not circuit.probing else "half-open"
        until = self._clock.now() + timedelta(seconds=max(left, 0.0))
        return Breaker(endpoint=endpoint, state=state, failures=circuit.failures, until=until, error=circuit.error)
