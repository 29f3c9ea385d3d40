"""The findings of a store that lives as long as its process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice

import msgspec

from mooring.records import Change, Look
from mooring.store._findings import MOST_NAMED, encoded, is_dropped
from mooring.types import Connector, Resource

Key = tuple[str, str, str]


class MemoryFindings:
    """`Findings` in dicts, of resources by id."""

    def __init__(self, connectors: Mapping[str, Connector]) -> None:
        self._connectors = connectors
        self._looks: dict[Key, Look] = {}
        self._found: dict[Key, dict[str, Resource]] = {}
        self._runs: dict[Key, tuple[int, dict[str, Resource]]] = {}

    def forget(self, connector_id: str) -> None:
        """Drop what was found by a connector."""
        for key in [key for key in self._looks if key[0] == connector_id]:
            self._drop(key)

    async def expect(self, connector: Connector, units: Mapping[str, Collection[str]]) -> Sequence[Look]:
        """See `Findings.expect`."""
        encoded(tuple(units.values()))
        before = await self.looks(connector)
        for look in before:
            if is_dropped(look, units):
                self._drop(_key(look))
        for kind, names in units.items():
            for unit in names:
                self._known(Look(connector_id=connector.id, version=connector.version, resource_type=kind, unit=unit))
        return before

    async def looks(self, connector: Connector) -> Sequence[Look]:
        """See `Findings.looks`."""
        about = (connector.id, connector.version)
        return [look for _, look in sorted(self._looks.items()) if (look.connector_id, look.version) == about]

    async def found(
        self, connector: Connector, resource_type: str, *, after: tuple[str, str] = ("", ""), most: int = 1000
    ) -> Sequence[tuple[str, Resource]]:
        """See `Findings.found`."""
        pairs = (
            (look.unit, resource)
            for look in await self.looks(connector)
            if look.resource_type == resource_type
            for id, resource in sorted(self._found.get(_key(look), {}).items())
            if (look.unit, id) > after
        )
        return list(islice(pairs, most))

    async def add(self, look: Look, run: int, resources: Sequence[Resource], *, begins: bool) -> bool:
        """See `Findings.add`."""
        return self._stage(look, run, resources, begins=begins)

    async def finish(self, look: Look, run: int, resources: Sequence[Resource], *, begins: bool) -> Change | None:
        """See `Findings.finish`."""
        if not self._stage(look, run, resources, begins=begins):
            return None
        key = _key(look)
        first, before = self._looks[key].at is None, self._found.get(key, {})
        self._looks[key], self._found[key] = look, self._runs.pop(key)[1]
        found, gone = (
            ([] if first else sorted(self._found[key].keys() - before)),
            sorted(before.keys() - self._found[key]),
        )
        return Change(
            found=tuple(found[:MOST_NAMED]),
            gone=tuple(gone[:MOST_NAMED]),
            more_found=len(found[MOST_NAMED:]),
            more_gone=len(gone[MOST_NAMED:]),
        )

    async def fail(self, look: Look, run: int = 0) -> None:
        """See `Findings.fail`."""
        encoded(look.unit)
        if known := self._known(look):
            message = look.message.encode(errors="replace").decode()
            failure = msgspec.structs.replace(known, failed_at=look.failed_at, error=look.error, message=message)
            self._looks[_key(look)] = failure
            if self._runs.get(_key(look), (0,))[0] == run:
                self._runs.pop(_key(look), None)

    def _known(self, look: Look) -> Look | None:
        """What is known of that unit; None if the connector is not stored as it was."""
        stored = self._connectors.get(look.connector_id)
        if stored is None or stored.version != look.version:
            return None
        return self._looks.setdefault(
            _key(look), msgspec.structs.replace(look, at=None, count=0, failed_at=None, error="", message="")
        )

    def _stage(self, look: Look, run: int, resources: Sequence[Resource], *, begins: bool) -> bool:
        encoded((look, resources))
        key = _key(look)
        if begins and self._known(look):
            self._runs[key] = (run, {})
        begun, staged = self._runs.get(key, (0, {}))
        if begun != run:
            return False
        staged.update((one.id, one) for one in resources)
        return True

    def _drop(self, key: Key) -> None:
        for kept in (self._looks, self._found, self._runs):
            kept.pop(key, None)


def _key(look: Look) -> Key:
    return look.connector_id, look.resource_type, look.unit
