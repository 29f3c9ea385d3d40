"""The undo log: what plugins make at a vendor is removed there, whatever happens to us.

An entry is written before the thing is made. Until the plugin keeps it, it is due when the request can no longer be
under way; then, when what was issued has ended. So there is one rule: what is due is undone, by whoever lives. A
failure is tried again later, ever more seldom, and never dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta

import anyio
import msgspec

from mooring.broker._desk import Desk, doing, guard, within
from mooring.broker._leases import ended, expire
from mooring.errors import MooringError, StoreError, UnknownConnector
from mooring.events import RemovalFailed, RemovalFinished
from mooring.store import UndoEntry

PAUSE = timedelta(seconds=10)
SETTLE = timedelta(seconds=5)
FIRST_RETRY = timedelta(minutes=1)
LAST_RETRY = timedelta(hours=6)
AT_ONCE = 16
"""How many entries are undone at once."""


class Sweeper:
    """Undoes what is due, at once and then every `PAUSE`, for as long as the broker lives."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._idle = anyio.Event()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            with suppress(StoreError):  # whoever calls the broker is told of it; here it is tried again
                await sweep(self._desk)
            self._idle.set()
            await anyio.sleep(PAUSE.total_seconds())

    async def settle(self) -> None:
        """Wait for the first sweep, a while: a command is short, and may be the only one who sweeps."""
        with anyio.move_on_after(SETTLE.total_seconds()):
            await self._idle.wait()


async def sweep(desk: Desk) -> None:
    """Undo what is due, and see leases end."""
    due = await desk.store.undos(due=desk.clock.now())
    if due:
        await undo(desk, due)
    await expire(desk)


async def undo(desk: Desk, entries: Iterable[UndoEntry]) -> list[tuple[UndoEntry, str]]:
    """Undo entries, all at once; gives those that could not be, each with why."""
    failed: list[tuple[UndoEntry, str]] = []
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def work(entry: UndoEntry) -> None:
        async with limiter:
            if problem := await _undo(desk, entry):
                failed.append((entry, problem))

    async with anyio.create_task_group() as tasks:
        for entry in entries:
            tasks.start_soon(work, entry)
    return failed


async def _undo(desk: Desk, entry: UndoEntry) -> str | None:
    about = {"connector_id": entry.connector_id, "step": step_of(entry)}
    try:
        connector = await desk.store.find(entry.connector_id)
        if connector is None or connector.id != entry.connector_id:
            return await _give_up(desk, entry, about)
        with doing("undo", connector):
            route = desk.registry.route(connector.type)
            if route.undo is not None:
                with within(desk.budgets.issue, "the vendor's answer"):
                    async with desk.session(connector, route, desk.consumer) as session:
                        with guard(route, "undo"):
                            await route.undo(session, entry.step)
    except MooringError as error:
        attempts = entry.attempts + 1
        later = min(FIRST_RETRY * 2 ** min(entry.attempts, 16), LAST_RETRY)
        due = desk.clock.now() + later
        with suppress(StoreError):  # then it is due as it was
            await desk.store.put_undo(msgspec.structs.replace(entry, due_at=due, attempts=attempts))
        kind, message = type(error).__name__, error.message
        desk.books.tell(RemovalFailed(at=desk.clock.now(), error=kind, message=message, attempts=attempts, **about))
        await _tell(desk, entry, error)
        return message
    with suppress(StoreError):  # then it is undone once more, which does no harm
        if not await _others(desk, entry):
            await _tell(desk, entry)  # before: a crash in between would leave a lease that nobody revokes any more
            await desk.store.drop_undo(entry.id)
        else:
            await desk.store.drop_undo(entry.id)
            if not await _others(desk, entry):  # they were undone meanwhile
                await _tell(desk, entry)
    desk.books.tell(RemovalFinished(at=desk.clock.now(), **about))
    return None


async def _give_up(desk: Desk, entry: UndoEntry, about: dict[str, str]) -> str:
    """Nobody can reach it any more: its connector was deleted."""
    message = "its connector is gone; remove it by hand"
    await _tell(desk, entry, UnknownConnector(message))
    with suppress(StoreError):
        await desk.store.drop_undo(entry.id)
    failed = RemovalFailed(
        at=desk.clock.now(), error="UnknownConnector", message=message, attempts=entry.attempts, **about
    )
    desk.books.tell(failed)
    return message


async def _others(desk: Desk, entry: UndoEntry) -> bool:
    """Whether there is more to undo before its lease is revoked."""
    if not entry.lease:
        return False
    found = await desk.store.undos(connector_id=entry.connector_id)
    return any(one.lease == entry.lease and one.id != entry.id for one in found)


async def _tell(desk: Desk, entry: UndoEntry, error: MooringError | None = None) -> None:
    """Put on record what that means for the lease."""
    if entry.lease:
        with suppress(StoreError):  # it ends in its own time
            await ended(desk, entry.lease, error)


def step_of(entry: UndoEntry) -> str:
    """What there is to remove, as the plugin has written it down."""
    return msgspec.json.encode(entry.step).decode()
