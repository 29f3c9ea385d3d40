"""The findings of a store that lives as long as its process."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import msgspec

from mooring.records import Change, Look
from mooring.store._findings import MOST_NAMED, encoded, is_dropped
from mooring.types import Connector, Resource

Place = tuple[str, str]


class _Shelf:
    """What is known of one unit."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.found: list[tuple[str, Resource]] = []
        """By id."""
        self.run = 0
        self.staged: dict[str, Resource] = {}


class MemoryFindings:
    """`Findings` in memory."""

    def __init__(self, connectors: Mapping[str, Connector]) -> None:
        self._connectors = connectors
        self._shelves: dict[str, dict[Place, _Shelf]] = {}

    def forget(self, connector_id: str) -> None:
        """Drop what was found by a connector."""
        self._shelves.pop(connector_id, None)

    async def expect(self, connector: Connector, units: Mapping[str, Mapping[str, str]]) -> Sequence[Look]:
        """See `Findings.expect`."""
        encoded(tuple(units.values()))
        before = await self.looks(connector)
        for look in before:
            if is_dropped(look, units):
                del self._shelves[connector.id][look.resource_type, look.unit]
        for kind, named in units.items():
            for unit, ids in named.items():
                look = Look(
                    connector_id=connector.id, version=connector.version, resource_type=kind, unit=unit, ids=ids
                )
                if (shelf := self._shelf(look)) is not None:
                    shelf.look = msgspec.structs.replace(shelf.look, ids=ids)
        return before

    async def looks(self, connector: Connector) -> Sequence[Look]:
        """See `Findings.looks`."""
        return [shelf.look for _, shelf in self._of(connector)]

    async def found(
        self, connector: Connector, resource_type: str, *, after: tuple[str, str] = ("", ""), most: int = 1000
    ) -> Sequence[tuple[str, Resource]]:
        """See `Findings.found`."""
        page: list[tuple[str, Resource]] = []
        for (kind, unit), shelf in self._of(connector):
            if kind == resource_type and unit >= after[0]:
                first = bisect_right(shelf.found, after[1], key=lambda pair: pair[0]) if unit == after[0] else 0
                page += [(unit, resource) for _, resource in shelf.found[first : first + most - len(page)]]
        return page

    async def add(self, look: Look, run: int, resources: Sequence[Resource], *, begins: bool) -> bool:
        """See `Findings.add`."""
        return self._stage(look, run, resources, begins=begins) is not None

    async def finish(self, look: Look, run: int, resources: Sequence[Resource], *, begins: bool) -> Change | None:
        """See `Findings.finish`."""
        if (shelf := self._stage(look, run, resources, begins=begins)) is None:
            return None
        before = None if shelf.look.at is None else {id for id, _ in shelf.found}
        now = shelf.staged.keys()
        found, gone = ([], []) if before is None else (sorted(now - before), sorted(before - now))
        shelf.look, shelf.found, shelf.run, shelf.staged = look, sorted(shelf.staged.items()), 0, {}
        return Change(
            found=tuple(found[:MOST_NAMED]),
            gone=tuple(gone[:MOST_NAMED]),
            more_found=len(found[MOST_NAMED:]),
            more_gone=len(gone[MOST_NAMED:]),
        )

    async def fail(self, look: Look, run: int = 0) -> None:
        """See `Findings.fail`."""
        encoded(look.unit)
        if (shelf := self._shelf(look)) is not None:
            message = look.message.encode(errors="replace").decode()
            shelf.look = msgspec.structs.replace(
                shelf.look, failed_at=look.failed_at, error=look.error, message=message
            )
            if shelf.run == run:
                shelf.run, shelf.staged = 0, {}

    def _of(self, connector: Connector) -> list[tuple[Place, _Shelf]]:
        shelves = self._shelves.get(connector.id, {}).items()
        return sorted((pair for pair in shelves if pair[1].look.version == connector.version), key=lambda pair: pair[0])

    def _shelf(self, look: Look) -> _Shelf | None:
        """Where what is known of that unit lies; None if the connector is not stored as it was."""
        stored = self._connectors.get(look.connector_id)
        if stored is None or stored.version != look.version:
            return None
        new = Look(
            connector_id=look.connector_id, version=look.version, resource_type=look.resource_type, unit=look.unit
        )
        shelves = self._shelves.setdefault(look.connector_id, {})
        return shelves.setdefault((look.resource_type, look.unit), _Shelf(new))

    def _stage(self, look: Look, run: int, resources: Sequence[Resource], *, begins: bool) -> _Shelf | None:
        encoded((look, resources))
        shelf = self._shelf(look)
        if shelf is not None and begins:
            shelf.run, shelf.staged = run, {}
        if shelf is None or shelf.run != run:
            return None
        shelf.staged.update((one.id, one) for one in resources)
        return shelf
