"""A unit's run: what a connector names there is written into the store while it does, for all who ask meanwhile."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from mooring import errors
from mooring.bus import unhurried
from mooring.errors import ConfigError, MooringError, StoreError, VendorError
from mooring.events import MoreChanged, ResourceFound, ResourceGone
from mooring.records import Change, Look
from mooring.types import Connector, Resource

if TYPE_CHECKING:
    from mooring.broker._desk import Desk

NEVER = datetime(1, 1, 1, tzinfo=UTC)
EVER = datetime(2, 1, 1, tzinfo=UTC)
"""Before anything was found."""
STALE = timedelta(minutes=10)
"""What was found longer ago is asked again in the background, when somebody asks for it."""
BATCH = 500
"""So many resources are written at once; no more of a unit wait in memory."""
MOST_TOLD = 1_000
"""So many changes of a unit have an event of their own."""


class Run:
    """One unit, while it is asked. What the store does not take is not recorded, and disturbs nobody."""

    def __init__(
        self, desk: Desk, connector: Connector, unit: tuple[str, str] = ("", ""), *, ids: str = "*", known: bool = False
    ) -> None:
        """Of a resource type and unit; if one that is known from a look before, only what has changed is news."""
        self.key = (connector.id, connector.version, *unit)
        self.done = anyio.Event()
        self.recorded: bool | None = None
        """Whether what it found can be read from the store; None: it is not finished, or was cut short."""
        self.error: MooringError | None = None
        self._desk = desk
        kind, name = unit
        self._look = Look(connector_id=connector.id, version=connector.version, resource_type=kind, unit=name, ids=ids)
        self._about = {"connector_id": connector.id, "connector": connector.name, "connector_type": connector.type}
        self._known = known
        self._number = secrets.randbits(62) + 1
        self._batch: list[Resource] = []
        self._begins = self._goes_on = True

    async def add(self, resource: Resource) -> None:
        """Take what was found."""
        if not self._known:
            kind, id = resource.type, resource.id
            self._desk.bus.publish(
                ResourceFound(at=self._desk.clock.now(), resource_type=kind, resource_id=id, **self._about)
            )
        self._batch.append(resource)
        if len(self._batch) >= BATCH:
            await self._write(self._desk.store.findings.add, self._look)

    async def finish(self, count: int, took: timedelta) -> None:
        """All is found: record the look, and tell what has changed."""
        look = msgspec.structs.replace(self._look, at=self._desk.clock.now(), count=count, took=took)
        with anyio.CancelScope(shield=True):  # bounded by the store; what it has compared is not compared again
            change = await self._write(self._desk.store.findings.finish, look)
        self.recorded = self._goes_on
        if change and self._known:
            self._tell(change)

    async def fail(self, error: MooringError) -> None:
        """Record the failure."""
        self.error = error
        name, message = type(error).__name__, self._desk.books.masked(error.message)
        look = msgspec.structs.replace(self._look, failed_at=self._desk.clock.now(), error=name, message=message)
        with suppress(StoreError, ConfigError):
            await self._desk.store.findings.fail(look, self._number)

    async def _write(self, write: Callable[..., Awaitable[Any]], look: Look) -> Any:
        """Give the store the batch; whether it goes on with the run, or what has changed."""
        batch, begins = self._batch, self._begins
        self._batch, self._begins = [], False
        taken = None
        if self._goes_on:
            with unhurried(), suppress(StoreError, ConfigError):
                taken = await write(look, self._number, batch, begins=begins)
        self._goes_on = bool(taken)
        return taken

    def _tell(self, change: Change) -> None:
        about: dict[str, Any] = {"at": self._desk.clock.now(), "resource_type": self._look.resource_type, **self._about}
        found, gone = change.found[:MOST_TOLD], change.gone[: MOST_TOLD - len(change.found)]
        for kind, ids in ((ResourceFound, found), (ResourceGone, gone)):
            for id in ids:
                self._desk.books.tell(kind(resource_id=id, **about))
        more_found = change.more_found + len(change.found) - len(found)
        more_gone = change.more_gone + len(change.gone) - len(gone)
        if more_found or more_gone:
            self._desk.books.tell(MoreChanged(unit=self._look.unit, found=more_found, gone=more_gone, **about))


class Known:
    """What is known of a connector from the looks before."""

    def __init__(self, looks: Iterable[Look]) -> None:
        self.looks = {(look.resource_type, look.unit): look for look in looks}
        self.failure = self.looks.pop(("", ""), None)
        """Why the connector could not be asked at all, the last time."""

    def of(self, kind: str) -> list[Look]:
        """The looks at its units of that type."""
        return [look for look in self.looks.values() if look.resource_type == kind]

    def units(self, since: datetime) -> set[tuple[str, str]]:
        """The units that were asked since then."""
        return {unit for unit, look in self.looks.items() if self._tried(look) >= since}

    def answers(self, kind: str, since: datetime) -> bool:
        """Whether all units of that type were asked since then."""
        tried = [self._tried(look) for look in self.of(kind)] or [self._tried(self.failure)]
        return min(tried) >= since

    def _tried(self, look: Look | None) -> datetime:
        return max((one.tried_at for one in (look, self.failure) if one is not None and one.tried_at), default=NEVER)


def recalled(look: Look) -> MooringError:
    """The error that a look ended with."""
    kind = getattr(errors, look.error, VendorError)
    known = isinstance(kind, type) and issubclass(kind, MooringError)
    return kind(look.message) if known else VendorError(look.message)
