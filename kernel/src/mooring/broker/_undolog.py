"""The undo log, as a plugin sees it while it issues."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from mooring.store import Store, UndoEntry
from mooring.types import Clock

GRACE = timedelta(seconds=20)
"""How long after its request's budget an entry that was not kept is due."""


class Undoing:
    """The `UndoLog` of one request."""

    def __init__(self, store: Store, clock: Clock, connector_id: str, budget: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._connector_id = connector_id
        self._budget = budget
        self.lease = str(uuid.uuid4())
        """The lease of what is issued: each entry names it, so that whoever undoes one sees the lease end."""
        self._open: dict[str, UndoEntry] = {}
        self._kept: dict[str, UndoEntry] = {}

    async def begin(self, step: Mapping[str, str]) -> str:
        """See `UndoLog.begin`."""
        due = self._clock.now() + self._budget + GRACE
        entry = UndoEntry(
            id=str(uuid.uuid4()), connector_id=self._connector_id, step=dict(step), due_at=due, lease=self.lease
        )
        self._open[entry.id] = entry
        await self._store.put_undo(entry)
        return entry.id

    async def keep(self, entry: str, until: datetime) -> None:
        """See `UndoLog.keep`."""
        self._kept[entry] = msgspec.structs.replace(self._open.pop(entry), due_at=until)

    async def done(self, entry: str) -> None:
        """See `UndoLog.done`."""
        await self._store.drop_undo(entry)
        self._open.pop(entry, None)
        self._kept.pop(entry, None)

    @property
    def kept(self) -> tuple[str, ...]:
        """The entries that are in use."""
        return tuple(self._kept)

    async def commit(self) -> None:
        """What is kept ends with the lease, which is written down already: until now it was undone before long."""
        for entry in self._kept.values():
            await self._store.put_undo(entry)

    def left(self, *, failed: bool) -> tuple[UndoEntry, ...]:
        """What nobody needs now that the request has ended: what was not kept, and if it failed, that too."""
        return (*self._open.values(), *(self._kept.values() if failed else ()))
