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
from mooring.errors import MooringError, StoreError
from mooring.events import RemovalFailed, RemovalFinished
from mooring.store import UndoEntry

PAUSE = timedelta(minutes=1)
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
    """Undo what is due."""
    due = await desk.store.undos(due=desk.clock.now())
    if due:
        await undo(desk, due)


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
        desk.bus.publish(RemovalFailed(at=desk.clock.now(), error=kind, message=message, attempts=attempts, **about))
        return message
    with suppress(StoreError):  # then it is undone once more, which does no harm
        await desk.store.drop_undo(entry.id)
    desk.bus.publish(RemovalFinished(at=desk.clock.now(), **about))
    return None


async def _give_up(desk: Desk, entry: UndoEntry, about: dict[str, str]) -> str:
    """Nobody can reach it any more: its connector was deleted."""
    with suppress(StoreError):
        await desk.store.drop_undo(entry.id)
    message = "its connector is gone; remove it by hand"
    failed = RemovalFailed(
        at=desk.clock.now(), error="UnknownConnector", message=message, attempts=entry.attempts, **about
    )
    desk.bus.publish(failed)
    return message


def step_of(entry: UndoEntry) -> str:
    """What there is to remove, as the plugin has written it down."""
    return msgspec.json.encode(entry.step).decode()
