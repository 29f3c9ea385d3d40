"""A store that lives as long as its object, for tests and for embedders who register at start."""

from __future__ import annotations

from collections.abc import Mapping

from mooring.errors import NameTaken, StoreConflict
from mooring.types import Connector

ID_PREFIX_LENGTH = 8


class MemoryStore:
    """A `Store` in a dict."""

    def __init__(self) -> None:
        self._connectors: dict[str, Connector] = {}
        self._changes = 0

    async def add(self, connector: Connector) -> None:
        """See `Store.add`."""
        self._refuse_taken(connector)
        if connector.id in self._connectors:
            raise conflict(connector.name)
        self._connectors[connector.id] = connector
        self._changes += 1

    async def find(self, name_or_id: str) -> Connector | None:
        """See `Store.find`."""
        if exact := self._connectors.get(name_or_id):
            return exact
        for connector in self._connectors.values():
            if connector.name == name_or_id:
                return connector
        begins = [one for one in self._connectors.values() if one.id.startswith(name_or_id)]
        return begins[0] if len(begins) == 1 and len(name_or_id) >= ID_PREFIX_LENGTH else None

    async def list(
        self,
        *,
        type: str | None = None,
        auth_method: str | None = None,
        resource_type: str | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> list[Connector]:
        """See `Store.list`."""

        def matches(one: Connector) -> bool:
            return (
                type in (None, one.type)
                and auth_method in (None, one.auth_method)
                and (resource_type is None or one.resource_type in (None, resource_type))
                and all(key in one.labels and value in (None, one.labels[key]) for key, value in (labels or {}).items())
            )

        return sorted(filter(matches, self._connectors.values()), key=lambda one: one.name)

    async def replace(self, connector: Connector) -> None:
        """See `Store.replace`."""
        self._refuse_stale(connector, connector.version - 1)
        self._refuse_taken(connector)
        self._connectors[connector.id] = connector
        self._changes += 1

    async def delete(self, connector: Connector) -> None:
        """See `Store.delete`."""
        self._refuse_stale(connector, connector.version)
        del self._connectors[connector.id]
        self._changes += 1

    async def changes(self) -> int:
        """See `Store.changes`."""
        return self._changes

    def _refuse_taken(self, connector: Connector) -> None:
        if any(one.name == connector.name and one.id != connector.id for one in self._connectors.values()):
            raise name_taken(connector.name)

    def _refuse_stale(self, connector: Connector, version: int) -> None:
        stored = self._connectors.get(connector.id)
        if stored is None or stored.version != version:
            raise conflict(connector.name)


def name_taken(name: str) -> NameTaken:
    """The error for a name that is another connector's."""
    return NameTaken(f"a connector named {name!r} exists already; choose another name, or update it")


def conflict(name: str) -> StoreConflict:
    """The error for a change that was based on an old version."""
    return StoreConflict(
        f"connector {name!r} was changed or deleted by somebody else meanwhile; look at it and try again"
    )
