"""A store that lives as long as its object, for tests and for embedders who register at start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from mooring.errors import KeyRetired, NameTaken, StoreConflict
from mooring.store._memory_findings import MemoryFindings
from mooring.store._memory_ledger import MemoryLedger
from mooring.store._port import Connectors, KeyRecord, Rewrapped, UndoEntry
from mooring.types import Connector

ID_PREFIX_LENGTH = 8


class MemoryStore:
    """A `Store` in a dict."""

    def __init__(self) -> None:
        self._connectors: dict[str, Connector] = {}
        self._keys: dict[str, KeyRecord] = {}
        self._undos: dict[str, UndoEntry] = {}
        self._changes = 0
        self._ledger = MemoryLedger()
        self._findings = MemoryFindings(self._connectors)

    @property
    def ledger(self) -> MemoryLedger:
        """See `Store.ledger`."""
        return self._ledger

    @property
    def findings(self) -> MemoryFindings:
        """See `Store.findings`."""
        return self._findings

    async def add(self, connector: Connector) -> None:
        """See `Store.add`."""
        self._refuse_taken(connector)
        if connector.id in self._connectors:
            raise conflict(connector.name)
        self._refuse_retired(connector)
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
    ) -> Connectors:
        """See `Store.list`."""

        def matches(one: Connector) -> bool:
            return (
                type in (None, one.type)
                and auth_method in (None, one.auth_method)
                and (resource_type is None or one.resource_type in (None, resource_type))
                and all(key in one.labels and value in (None, one.labels[key]) for key, value in (labels or {}).items())
            )

        return Connectors(sorted(filter(matches, self._connectors.values()), key=lambda one: one.name))

    async def replace(self, connector: Connector) -> None:
        """See `Store.replace`."""
        self._refuse_stale(connector, connector.version - 1)
        self._refuse_taken(connector)
        self._refuse_retired(connector)
        self._connectors[connector.id] = connector
        self._findings.forget(connector.id)
        self._changes += 1

    async def delete(self, connector: Connector) -> None:
        """See `Store.delete`."""
        self._refuse_stale(connector, connector.version)
        del self._connectors[connector.id]
        self._findings.forget(connector.id)
        self._changes += 1

    async def discard(self, name_or_id: str) -> bool:
        """See `Store.discard`; nothing is damaged here."""
        return False

    async def changes(self) -> int:
        """See `Store.changes`."""
        return self._changes + self._ledger.withdrawn

    async def keys(self) -> Sequence[KeyRecord]:
        """See `Store.keys`."""
        return sorted(self._keys.values(), key=lambda key: key.created_at)

    async def note_key(self, key: KeyRecord) -> KeyRecord:
        """See `Store.note_key`."""
        return self._keys.setdefault(key.id, key)

    async def key_uses(self) -> Mapping[str, int]:
        """See `Store.key_uses`."""
        return Counter(one.sealed.key_id for one in self._connectors.values() if one.sealed)

    async def rewrap(self, changes: Sequence[Rewrapped]) -> int:
        """See `Store.rewrap`."""
        made = 0
        for connector, sealed in ((one.connector, one.sealed) for one in changes):
            stored = self._connectors.get(connector.id)
            target = self._keys.get(sealed.key_id)
            if stored is not None and stored.sealed == connector.sealed and not (target and target.retired_at):
                self._connectors[stored.id] = msgspec.structs.replace(stored, sealed=sealed)
                made += 1
        self._changes += 1
        return made

    async def retire_key(self, key_id: str, at: datetime) -> bool:
        """See `Store.retire_key`."""
        key = self._keys.get(key_id)
        if key is None or (await self.key_uses()).get(key_id):
            return False
        self._keys[key_id] = key if key.retired_at else msgspec.structs.replace(key, retired_at=at)
        return True

    async def put_undo(self, entry: UndoEntry) -> None:
        """See `Store.put_undo`."""
        self._undos[entry.id] = entry

    async def drop_undo(self, entry_id: str) -> None:
        """See `Store.drop_undo`."""
        self._undos.pop(entry_id, None)

    async def undos(self, *, due: datetime | None = None, connector_id: str | None = None) -> Sequence[UndoEntry]:
        """See `Store.undos`."""
        found = (
            one
            for one in self._undos.values()
            if (due is None or one.due_at <= due) and connector_id in (None, one.connector_id)
        )
        return sorted(found, key=lambda one: one.due_at)

    def _refuse_taken(self, connector: Connector) -> None:
        if any(one.name == connector.name and one.id != connector.id for one in self._connectors.values()):
            raise name_taken(connector.name)

    def _refuse_retired(self, connector: Connector) -> None:
        key = connector.sealed and self._keys.get(connector.sealed.key_id)
        if key and key.retired_at:
            raise retired(key.id)

    def _refuse_stale(self, connector: Connector, version: int) -> None:
        stored = self._connectors.get(connector.id)
        if stored is None or stored.version != version:
            raise conflict(connector.name)


def retired(key_id: str) -> KeyRetired:
    """The error for something sealed under a key that is retired."""
    return KeyRetired(
        f"master key {key_id!r} was retired by a rotation; put the one that replaced it first in MOORING_MASTER_KEY"
    )


def name_taken(name: str) -> NameTaken:
    """The error for a name that is another connector's."""
    return NameTaken(f"a connector named {name!r} exists already; choose another name, or update it")


def conflict(name: str) -> StoreConflict:
    """The error for a change that was based on an old version."""
    return StoreConflict(
        f"connector {name!r} was changed or deleted by somebody else meanwhile; look at it and try again"
    )
