"""How many calls may be under way, and how many may begin in a second: by vendor, account, region, service, operation.

Plugins declare limits as data (`ConnectorType.limits`), a configuration changes them by name, and what vendors answer
narrows them for a while. A call asks for a slot by its labels, and waits until every limit that applies has room for
it; until then it takes nothing, so that who waits for a slow service keeps nobody from a fast one. Those who wait are
served in turn: one call of each connector, then the next of each.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from fnmatch import fnmatchcase
from itertools import chain
from typing import TypeVar

import anyio
import msgspec

from mooring.errors import BrokenPlugin, InvalidConfig, MooringError, Throttled
from mooring.types import Limit

T = TypeVar("T")

LABELS = ("vendor", "account", "region", "service", "operation")
"""What a call is labelled by, from the widest; those at the end may be left out."""
DEFAULTS = (
    Limit(name="vendor", per=("vendor",), at_once=500),
    Limit(name="service", per=("vendor", "account", "region", "service"), at_once=100),
)
"""Of every vendor. A vendor's complaint narrows the narrowest limit that applies, so there is one for each service."""
LEAST_SHARE = 1 / 64
"""Of a limit, however often the vendor complains."""
RECOVERY = 1 / 16
"""Of a limit, that each call which the vendor takes gives back."""
FIRST_PAUSE = 0.5
"""Seconds, after a complaint that names no time."""
LONGEST_PAUSE = 300.0
"""Seconds that are waited at once because a vendor asked for it; then it is asked again."""
DELAYS = (0.2, 0.6)
"""The longest waits before a second and a third attempt, in seconds; a random part of each is waited (full jitter).

Source: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""
LONGEST_DELAY = 5.0
"""Seconds; a vendor that asks for more before the next attempt is given up, with what it asked for as `retry_after`."""
MOST_KEPT = 4096
"""How many groups of calls are remembered, before those that nobody uses are forgotten."""
SLACK = 1e-9
"""Of a call, that rounding may have cost."""
RETRIES, RETRY_COST = 500, 5
"""The budget for retries of one vendor's account, and what each costs; a call that succeeds gives one back.

Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html (standard mode)
"""


class Spent:
    """What some work has cost so far: its calls, those among them that were retries, and how long they waited."""

    __slots__ = ("calls", "retries", "waited")

    def __init__(self) -> None:
        self.calls = 0
        self.retries = 0
        self.waited = 0.0
        """Seconds, of all calls together."""


_asker: ContextVar[str] = ContextVar("mooring_asker", default="")
_spent: ContextVar[Spent | None] = ContextVar("mooring_spent", default=None)


@contextmanager
def asking(asker: str) -> Generator[None, None, None]:
    """Calls of this task, and of tasks that it starts, are made for this connector, which has its turn among others."""
    token = _asker.set(asker)
    try:
        yield
    finally:
        _asker.reset(token)


@contextmanager
def counting(spent: Spent) -> Generator[Spent, None, None]:
    """Count the calls of this task, and of tasks that it starts."""
    token = _spent.set(spent)
    try:
        yield spent
    finally:
        _spent.reset(token)


class Slot:
    """The right to make one call."""

    def __init__(self, gates: tuple[_Gate, ...]) -> None:
        self._gates = gates
        self._began = anyio.current_time()

    def throttled(self, retry_after: timedelta | None = None) -> None:
        """The vendor asks for fewer calls: from then on there are, the more often it says so.

        Only needs to be said where no `Throttled` leaves the slot.
        """
        if self._gates:
            self._gates[0].narrow(self._began, retry_after.total_seconds() if retry_after is not None else None)

    def remaining(self, calls: int, resets_in: timedelta) -> None:
        """The vendor says how many more calls it takes until when (as by `RateLimit-Remaining`)."""
        if self._gates:
            self._gates[0].bound_by(calls, resets_in.total_seconds())

    def taken(self) -> None:
        """The vendor has taken the call."""
        for gate in self._gates:
            gate.widen(self._began)


class Limits:
    """The limits, and who waits for them."""

    def __init__(
        self, rules: Iterable[Limit] = DEFAULTS, changes: Mapping[str, Mapping[str, float | None]] = {}
    ) -> None:
        """Take the limits of every vendor, and what a configuration changes, by name (see `parse_limits`)."""
        self._changes = changes
        self._rules: dict[str, Limit] = {}
        self._known: dict[tuple[str, ...], tuple[_Gate, ...]] = {}
        self._gates: dict[tuple[str, ...], _Gate] = {}
        self._holders: set[int] = set()
        """The tasks that hold, or wait for, a slot."""
        self._retries: dict[tuple[str, ...], int] = {}
        self.learn(rules)

    def learn(self, rules: Iterable[Limit]) -> None:
        """Take a plugin's limits too; one of a known name takes its place."""
        for rule in rules:
            if unknown := sorted({*rule.per, *rule.where}.difference(LABELS)):
                raise BrokenPlugin(f"the limit {rule.name!r} names {unknown[0]!r}, not one of: {', '.join(LABELS)}")
            changed = msgspec.structs.replace(rule, **self._changes.get(rule.name, {}))
            if self._rules.get(rule.name) != changed:
                self._rules[rule.name] = changed
                self._known.clear()

    @asynccontextmanager
    async def slot(self, *labels: str) -> AsyncGenerator[Slot, None]:
        """Wait until a call with these labels (see `LABELS`) may go; hold its slot while inside.

        A `Throttled` that is raised inside narrows the limit, as `Slot.throttled` does.

        Raises:
            BrokenPlugin: this task holds a slot already. A call within a call would be two for one slot if it went on,
                and could wait for itself, or in a ring with others, if it took another.
        """
        task = anyio.get_current_task().id
        if task in self._holders:
            raise BrokenPlugin(
                f"a slot of {'/'.join(labels) or 'all calls'} was asked for inside another one by the same task; "
                "take one slot around each call, none around another; report it to the plugin's author"
            )
        self._holders.add(task)
        try:
            gates = await self._enter(labels)
            slot = Slot(gates)
            try:
                yield slot
            except Throttled as error:
                slot.throttled(error.retry_after)
                raise
            else:
                slot.taken()
            finally:
                self._leave(gates)
        finally:
            self._holders.discard(task)

    async def call(self, work: Callable[[], Awaitable[T]], *labels: str) -> T:
        """What `work` gives, in a slot; made again, a little later, where that may help.

        Only an error that says so is tried again (`MooringError.retryable`): three attempts at most, within the time
        that the caller has, and within the vendor's budget for retries, so that an outage is not met by three times the
        calls. `work` must be safe to repeat.
        """
        for ceiling in (*DELAYS, None):
            try:
                async with self.slot(*labels):
                    given = await work()
            except MooringError as error:
                pause = _pause(error, ceiling)
                if pause is None or not self._may_retry(labels):
                    raise
            else:
                self._succeeded(labels)
                return given
            if spent := _spent.get():
                spent.retries += 1
            await anyio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def remaining(self, calls: int, resets_in: timedelta, *labels: str) -> None:
        """What `Slot.remaining` says, of calls with these labels, where it is known after one was made."""
        Slot(self._gates_of(labels)).remaining(calls, resets_in)

    def _may_retry(self, labels: tuple[str, ...]) -> bool:
        left = self._retries.get(labels[:2], RETRIES)
        if left < RETRY_COST:
            return False
        self._retries[labels[:2]] = left - RETRY_COST
        return True

    def _succeeded(self, labels: tuple[str, ...]) -> None:
        if (left := self._retries.pop(labels[:2], RETRIES) + 1) < RETRIES:
            self._retries[labels[:2]] = left

    async def _enter(self, labels: tuple[str, ...]) -> tuple[_Gate, ...]:
        """Wait for room in all gates, and take it in all at once."""
        gates = self._gates_of(labels)
        began = anyio.current_time()
        if any(gate.waiting for gate in gates) or not _take(gates, began):
            await self._wait(_Waiter(gates, _asker.get()))
        if spent := _spent.get():
            spent.calls += 1
            spent.waited += anyio.current_time() - began
        return gates

    async def _wait(self, waiter: _Waiter) -> None:
        try:
            self._queue(waiter)
            while not waiter.granted:
                # the first in a queue wakes up when there may be room by then; the others are woken
                gate = waiter.gate
                delay = gate.opens_in(anyio.current_time()) if gate.first is waiter else math.inf
                if -math.inf < _left() < delay < math.inf:  # who is cancelled is told so below
                    raise _too_late(gate.limit, delay)
                waiter.woken = anyio.Event()
                with anyio.move_on_after(min(delay, LONGEST_PAUSE)):
                    await waiter.woken.wait()
                if not waiter.granted and waiter.gate.first is waiter:
                    self._serve(waiter.gate)
        except BaseException:
            if waiter.granted:
                for gate in waiter.gates:
                    gate.give_back()
                self._leave(waiter.gates)
            else:
                gate = waiter.gate
                gate.remove(waiter)
                self._serve(gate)
            raise

    def _queue(self, waiter: _Waiter, *, again: bool = False) -> None:
        """Have it wait at the first gate that has no room; at one with room, if all have."""
        now = anyio.current_time()
        closed = (gate for gate in waiter.gates if gate.opens_in(now) or (gate.waiting and not again))
        waiter.gate = next(closed, waiter.gates[-1])
        waiter.gate.add(waiter, first=again)

    def _serve(self, gate: _Gate) -> None:
        """Let go who waits at a gate, in turn, while there is room; who lacks room elsewhere goes on to wait there."""
        now = anyio.current_time()
        moving: list[_Waiter] = []
        while gate.waiting and not gate.opens_in(now):
            waiter = gate.first
            gate.remove(waiter, served=True)
            if _take(waiter.gates, now):
                waiter.granted = True
            else:
                moving.append(waiter)
            waiter.woken.set()
        for waiter in reversed(moving):  # so that they keep their order
            self._queue(waiter, again=True)
        if gate.waiting:
            gate.first.woken.set()

    def _leave(self, gates: tuple[_Gate, ...]) -> None:
        for gate in gates:
            gate.in_use -= 1
        for gate in gates:
            self._serve(gate)

    def _gates_of(self, labels: tuple[str, ...]) -> tuple[_Gate, ...]:
        """The gates of a call, the narrowest first."""
        if labels not in self._known:
            if len(self._known) >= MOST_KEPT:
                self._forget()
            named = dict(zip(LABELS, labels, strict=False))
            rules = sorted(self._rules.values(), key=lambda rule: (-len(rule.per), rule.name))
            self._known[labels] = tuple(self._gate(rule, named) for rule in rules if _applies(rule, named))
        return self._known[labels]

    def _gate(self, rule: Limit, named: Mapping[str, str]) -> _Gate:
        group = (rule.name, *(named[label] for label in rule.per))
        gate = self._gates.get(group)
        if gate is None or gate.limit is not rule:
            gate = self._gates[group] = _Gate(rule)
        return gate

    def _forget(self) -> None:
        """Keep the gates alone that are in use, narrowed, or waited for."""
        now = anyio.current_time()
        wanted = {gate for one in self._gates.values() for waiter in one.waiters for gate in waiter.gates}
        self._gates = {group: gate for group, gate in self._gates.items() if gate in wanted or not gate.idle(now)}
        self._known.clear()


class _Waiter:
    """A call that waits for room."""

    __slots__ = ("asker", "gate", "gates", "granted", "woken")

    def __init__(self, gates: tuple[_Gate, ...], asker: str) -> None:
        self.gates = gates
        self.asker = asker
        self.gate = gates[0]
        """Where it waits."""
        self.granted = False
        self.woken = anyio.Event()


class _Gate:
    """One limit, for one group of calls. Times are the event loop's, in seconds."""

    __slots__ = (
        "_filled_at",
        "_narrowed_at",
        "_paused_until",
        "_quota",
        "_quota_until",
        "_share",
        "_tokens",
        "_turns",
        "in_use",
        "limit",
    )

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.in_use = 0
        self._turns: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        """Who waits, by asker; the first asker's first is the next."""
        self._share = 1.0
        """How much of the limit there is, since the vendor last complained."""
        self._narrowed_at = self._paused_until = self._quota_until = -math.inf
        self._quota = math.inf
        self._tokens = float(limit.burst)
        self._filled_at = -math.inf

    @property
    def waiting(self) -> bool:
        return bool(self._turns)

    @property
    def waiters(self) -> Iterator[_Waiter]:
        return chain.from_iterable(self._turns.values())

    @property
    def first(self) -> _Waiter:
        return next(iter(self._turns.values()))[0]

    def add(self, waiter: _Waiter, *, first: bool) -> None:
        """To the end of its asker's turn; one that has waited elsewhere comes first."""
        mine = self._turns.setdefault(waiter.asker, deque())
        if first:
            mine.appendleft(waiter)
            self._turns.move_to_end(waiter.asker, last=False)
        else:
            mine.append(waiter)

    def remove(self, waiter: _Waiter, *, served: bool = False) -> None:
        """Out of the queue; if it was served, its asker's turn is over."""
        mine = self._turns[waiter.asker]
        mine.remove(waiter)
        if not mine:
            del self._turns[waiter.asker]
        elif served:
            self._turns.move_to_end(waiter.asker)

    def opens_in(self, now: float) -> float:
        """Seconds until there may be room; 0 if there is some, infinite if a call has to end first."""
        limit = self.limit
        if now < self._paused_until:
            return self._paused_until - now
        if self._quota <= 0 and now < self._quota_until:
            return self._quota_until - now
        if limit.at_once is not None and self.in_use >= max(1, int(limit.at_once * self._share)):
            return math.inf
        if limit.rate is None:
            return 0.0
        lacking = 1 - self._filled(now)
        return lacking / (limit.rate * self._share) if lacking > SLACK else 0.0

    def _filled(self, now: float) -> float:
        rate = self.limit.rate or 0.0
        gained = rate * self._share * (now - self._filled_at) if self._filled_at > -math.inf else 0.0
        return min(float(self.limit.burst), self._tokens + gained)

    def take(self, now: float) -> None:
        """Room for one call."""
        self.in_use += 1
        self._tokens, self._filled_at = self._filled(now) - 1, now
        if self._quota < math.inf:
            self._quota = self._quota - 1 if now < self._quota_until else math.inf

    def give_back(self) -> None:
        """The room that a call has taken which was not made; it is in use until it is left."""
        self._tokens, self._quota = self._tokens + 1, self._quota + 1

    def narrow(self, began: float, seconds: float | None) -> None:
        """The vendor has complained of a call that began then. Those that were under way together complain once."""
        now = anyio.current_time()
        if began > self._narrowed_at:
            self._tokens, self._filled_at, self._narrowed_at = self._filled(now), now, now
            self._share = max(self._share / 2, LEAST_SHARE)
        pause = seconds if seconds is not None else random.uniform(FIRST_PAUSE / 2, FIRST_PAUSE)  # noqa: S311
        self._paused_until = max(self._paused_until, now + pause)

    def widen(self, began: float) -> None:
        """The vendor has taken a call that began then; one from before its last complaint says nothing."""
        if self._share < 1 and began > self._narrowed_at:
            now = anyio.current_time()
            self._tokens, self._filled_at = self._filled(now), now
            self._share = min(1.0, self._share + RECOVERY)

    def bound_by(self, calls: int, seconds: float) -> None:
        """So many calls until then, and no more."""
        self._quota, self._quota_until = calls, anyio.current_time() + seconds

    def idle(self, now: float) -> bool:
        """Whether one that is made anew would be the same."""
        unbound = self._quota == math.inf or now >= self._quota_until
        full = self.limit.rate is None or self._filled(now) >= self.limit.burst
        return (
            not self.in_use and not self._turns and self._share == 1 and now >= self._paused_until and unbound and full
        )


def _take(gates: tuple[_Gate, ...], now: float) -> bool:
    """Take room in all gates, or in none."""
    if any(gate.opens_in(now) for gate in gates):
        return False
    for gate in gates:
        gate.take(now)
    return True


def _applies(rule: Limit, named: Mapping[str, str]) -> bool:
    patterns = rule.where.items()
    return all(label in named for label in rule.per) and all(
        label in named and fnmatchcase(named[label], pattern) for label, pattern in patterns
    )


def _pause(error: MooringError, ceiling: float | None) -> float | None:
    """Seconds until the next attempt; None if there is none."""
    if ceiling is None or not error.retryable:
        return None
    asked = error.retry_after.total_seconds() if error.retry_after else 0.0
    if asked > LONGEST_DELAY or asked > _left():
        return None
    return max(asked, random.uniform(0, ceiling))  # noqa: S311  (jitter, not a secret)


def _too_late(limit: Limit, delay: float) -> Throttled:
    """Said at once, where waiting would only use up the caller's time."""
    seconds = math.ceil(delay)
    return Throttled(
        f"the limit {limit.name} leaves no room in the time there is; try again in {seconds} s",
        retry_after=timedelta(seconds=seconds),
    )


def _left() -> float:
    """Seconds until the caller's budget runs out."""
    return anyio.current_effective_deadline() - anyio.current_time()


_FIELDS = {"at_once": int, "burst": int, "rate": float}


def parse_limits(text: str) -> dict[str, dict[str, float | None]]:
    """What a configuration changes about limits: `name.field=value`, several separated by commas.

    A field is `at_once`, `rate` (calls a second) or `burst`; `none` for no bound.

    >>> parse_limits("aws-ecr.rate=5, vendor.at_once=none")
    {'aws-ecr': {'rate': 5.0}, 'vendor': {'at_once': None}}

    Raises:
        InvalidConfig: it is malformed.
    """
    changes: dict[str, dict[str, float | None]] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        place, _, value = part.partition("=")
        name, _, field = place.strip().rpartition(".")
        value = value.strip()
        try:
            number = None if value == "none" and field != "burst" else _FIELDS[field](value)
            if not name or (number is not None and not 0 < number < math.inf):
                raise ValueError
        except (KeyError, ValueError):
            raise InvalidConfig(
                f"MOORING_LIMITS: {part!r} is malformed; write name.rate=5 (calls a second), name.at_once=10 or "
                "name.burst=3, more than 0, several separated by commas",
                field="MOORING_LIMITS",
            ) from None
        changes.setdefault(name, {})[field] = number
    return changes
