"""The event bus: facts out, work out. It owns the broker's one task group.

`publish` never waits. A subscriber that is too slow loses events, and is told how many by `Lagged`.
`scatter` runs many jobs with bounded concurrency and gives every reply, good or bad, as it lands.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from mooring.errors import Overdue
from mooring.events import Event, Lagged, TaskFailed
from mooring.types import Struct

J = TypeVar("J")
T = TypeVar("T")

CLOSE_SECONDS = 1.0
_scope: ContextVar[anyio.CancelScope | None] = ContextVar("mooring_job", default=None)


class Reply(Struct, Generic[J, T]):
    """One result of a job, or why there is none (more)."""

    job: J
    value: T | None = None
    error: Exception | None = None


class Subscription:
    """An async iterator over events; ends when the bus closes."""

    def __init__(self, types: tuple[type[Event], ...], buffer: int) -> None:
        self.types = types
        self.missed = 0
        self.left = anyio.Event()
        self.send: MemoryObjectSendStream[Event | Lagged]
        self.receive: MemoryObjectReceiveStream[Event | Lagged]
        self.send, self.receive = anyio.create_memory_object_stream(buffer)

    def offer(self, event: Event) -> None:
        """Take the event if there is room, else count it as missed. Never waits."""
        try:
            if self.missed:
                self.send.send_nowait(Lagged(missed=self.missed))
                self.missed = 0
            self.send.send_nowait(event)
        except anyio.WouldBlock:
            self.missed += 1
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # it is leaving, or the bus is closing

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event | Lagged:
        try:
            if self.missed and not self.receive.statistics().current_buffer_used:
                missed, self.missed = self.missed, 0
                return Lagged(missed=missed)
            return await self.receive.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            raise StopAsyncIteration from None

    def close(self) -> None:
        """End the iteration once what is buffered has been taken."""
        self.send.close()


class Bus:
    """Made by `open_bus`, which runs its task group."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._subscriptions: tuple[Subscription, ...] = ()

    def publish(self, event: Event) -> None:
        """Tell everybody who subscribed. Never waits and never fails for a subscriber's sake."""
        for subscription in self._subscriptions:
            if not subscription.types or isinstance(event, subscription.types):
                subscription.offer(event)

    @asynccontextmanager
    async def subscribe(self, *types: type[Event], buffer: int = 256) -> AsyncGenerator[Subscription, None]:
        """Events of these types (of all, if none is named) from now on, in order.

        Args:
            types: event classes; a base class stands for all its subclasses.
            buffer: how many events may wait for this subscriber before it misses some.
        """
        subscription = Subscription(types, buffer)
        self._subscriptions += (subscription,)
        try:
            yield subscription
        finally:
            self._subscriptions = tuple(one for one in self._subscriptions if one is not subscription)
            subscription.close()
            subscription.receive.close()
            subscription.left.set()

    def spawn(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run something beside the callers for as long as the bus lives; it is cancelled when the bus closes."""

        async def run() -> None:
            try:
                await work()
            except Exception as error:  # noqa: BLE001  one bystander's failure must not end the broker
                at = datetime.now(UTC)
                self.publish(TaskFailed(at=at, task=name, error=type(error).__name__))

        self._tasks.start_soon(run, name=name)

    async def aclose(self) -> None:
        """End every subscription, and give subscribers `CLOSE_SECONDS` to take what is buffered."""
        for subscription in self._subscriptions:
            subscription.close()
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            for subscription in self._subscriptions:
                await subscription.left.wait()

    @asynccontextmanager
    async def scatter(
        self,
        jobs: Iterable[J],
        work: Callable[[J, Callable[[T], Awaitable[None]]], Awaitable[None]],
        *,
        limit: int,
        budget: timedelta | None = None,
    ) -> AsyncGenerator[AsyncIterator[Reply[J, T]], None]:
        """Run `work(job, reply)` for every job, and iterate over the replies as they land.

        Jobs are taken from the iterable one by one, as workers come free: there are never more than `limit` tasks.
        Work calls `await reply(value)` as often as it likes, one at a time if it has a budget; if it raises, that is a
        reply too. Leaving the context early cancels what is under way and leaves nothing running.

        Args:
            jobs: any iterable; it may be endless. What it raises is raised on leaving, after the replies.
            work: what to do with a job.
            limit: how many jobs may be under way at once.
            budget: the time that one job may take, then it ends in `Overdue`; None for no bound.
        """
        failures: list[Exception] = []
        started = running = 0
        send, receive = anyio.create_memory_object_stream[Reply[J, T]](limit)

        def start() -> None:
            nonlocal started, running
            started += 1
            running += 1
            tasks.start_soon(worker)

        async def worker() -> None:
            nonlocal running
            for job in queue:  # shared by all workers: each takes the next
                if started < limit:
                    start()
                await _run(job, work, send.send, budget)
            running -= 1
            if not running:
                send.close()

        with send, receive, closing(_taken(jobs, failures)) as queue:
            async with _tasks() as tasks:
                start()
                yield receive
        if failures:
            raise failures[0]

    async def each(
        self,
        jobs: Sequence[J],
        work: Callable[[J, Callable[[T], Awaitable[None]]], Awaitable[None]],
        tell: Callable[[Reply[J, T]], Awaitable[None]],
        *,
        limit: int,
        budget: timedelta | None = None,
    ) -> None:
        """Run `work(job, reply)` for every job as `scatter` does, but hand each reply to `tell` where it lands.

        The caller's own task does its share, so that one job takes no other. `tell` must not raise.
        """
        queue = iter(jobs)

        async def worker() -> None:
            for job in queue:
                await _run(job, work, tell, budget)

        if len(jobs) == 1:
            await worker()
            return
        async with anyio.create_task_group() as tasks:
            for _ in range(min(limit, len(jobs)) - 1):
                tasks.start_soon(worker)
            await worker()


def _taken(jobs: Iterable[J], failures: list[Exception]) -> Generator[J, None, None]:
    """The jobs; what the iterable raises is kept, to be raised when the replies are through."""
    try:
        yield from jobs
    except Exception as error:  # noqa: BLE001  a caller's iterable may raise anything
        failures.append(error)


class unhurried:  # noqa: N801  a context manager, and no generator: each reply is given in one
    """What is waited for in here does not use up the budget of the job that waits."""

    __slots__ = ("_deadline", "_scope", "_since")

    def __enter__(self) -> None:
        self._scope, self._since = _scope.get(), anyio.current_time()
        if self._scope is not None:
            self._deadline, self._scope.deadline = self._scope.deadline, math.inf

    def __exit__(self, *_: object) -> None:
        if self._scope is not None:
            self._scope.deadline = self._deadline + anyio.current_time() - self._since


async def _run(
    job: J,
    work: Callable[[J, Callable[[T], Awaitable[None]]], Awaitable[None]],
    tell: Callable[[Reply[J, T]], Awaitable[None]],
    budget: timedelta | None,
) -> None:
    """Do one job within its budget, and tell its replies; what it fails with is the last."""

    async def reply(value: T) -> None:
        with unhurried():  # by a slow reader
            await tell(Reply(job=job, value=value))

    failure: Exception | None = None
    token = _scope.set(None)
    try:
        with anyio.move_on_after(budget.total_seconds() if budget else None) as scope:
            _scope.set(scope)
            await work(job, reply)
    except Exception as error:  # noqa: BLE001  a failure is a reply
        failure = error
    finally:
        _scope.reset(token)
    if failure is None and budget is not None and scope.cancelled_caught:
        failure = Overdue(f"no answer within {budget.total_seconds():g} s; try again later")
    if failure is not None:
        await tell(Reply(job=job, error=failure))


@asynccontextmanager
async def open_bus() -> AsyncGenerator[Bus, None]:
    """A bus, and the task group that everything spawned runs in; on leaving, all of it is cancelled."""
    async with _tasks() as tasks:
        bus = Bus(tasks)
        try:
            yield bus
        finally:
            await bus.aclose()


@asynccontextmanager
async def _tasks() -> AsyncGenerator[TaskGroup, None]:
    """A task group that is cancelled on leaving, and does not wrap what the body raises in a group."""
    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  raised again below, outside the group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
