"""What the kernel needs of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from mooring.errors import MooringError, RecordDamaged
from mooring.records import Audited, Change, Entries, Lease, LeaseState, Logged, Look, Sealing
from mooring.types import Connector, Resource, Sealed, Struct


class Connectors(list[Connector]):
    """Connectors by name; beside them, in `damaged`, the error of each record that cannot be read."""

    def __init__(self, connectors: Iterable[Connector] = (), damaged: Iterable[RecordDamaged] = ()) -> None:
        super().__init__(connectors)
        self.damaged = list(damaged)


class KeyRecord(Struct):
    """What the store knows of a master key; never the key itself."""

    id: str
    check: bytes
    """Its fingerprint: another key of the same id is noticed before anything is sealed under it."""
    source: str
    """Where it came from, in words."""
    created_at: datetime
    """When it was first used here."""
    retired_at: datetime | None = None
    """Since when nothing may be sealed under it."""


class Rewrapped(Struct):
    """A connector as it was read, and its seal under another master key."""

    connector: Connector
    sealed: Sealed


class UndoEntry(Struct):
    """Something that was, or was about to be, made at a vendor and has to be removed there."""

    id: str
    connector_id: str
    step: dict[str, str]
    """What the plugin needs to find it; nothing secret."""
    due_at: datetime
    """When it is to be removed."""
    attempts: int = 0
    lease: str = ""
    """The lease that ends with it."""


class Ledger(Protocol):
    """Leases, the audit log and the numbered event log. Every method may raise as `Store`'s do."""

    async def record(
        self,
        batch: Sequence[Entries],
        sign: Callable[[bytes], tuple[str, bytes]],
        signed: Callable[[Sealing], bool],
    ) -> Sequence[MooringError | None]:
        """Write entries durably, in one transaction; gives for each why it alone was not written, if so.

        It is a `StoreConflict` where a lease is not any more as it must be, and `InvalidConfig` where text is no
        Unicode.

        Args:
            batch: what to write; each is written whole or not at all.
            sign: gives a key's id and a signature of the end of the audit chain.
            signed: whether the end that is stored was signed so. The chain goes on from there, and from `LOST_LINK`
                where it was not: a change that was made without the key must not be signed with the next entry.
        """
        ...

    async def damaged(self) -> Sequence[str]:
        """What records cannot be read, in sentences that name each; nothing if all can."""
        ...

    async def probe(self) -> None:
        """Write what changes nothing, to find out whether a record could be written now; need not be durable."""
        ...

    async def leases(
        self,
        *,
        lease: str | None = None,
        connector_id: str | None = None,
        resource: str | None = None,
        consumer: str | None = None,
        states: Iterable[LeaseState] | None = None,
        ended: datetime | None = None,
    ) -> Sequence[Lease]:
        """Leases that match all filters, with their holders, by when they were issued.

        Args:
            lease: whose id begins so.
            connector_id: of this connector.
            resource: whose resource id begins so.
            consumer: that this consumer holds.
            states: in one of these states.
            ended: whose credentials had ended by then.
        """
        ...

    async def parted(self) -> Sequence[tuple[str, str]]:
        """Leases, and consumers that are holders of them no more."""
        ...

    async def prune(self, ended: datetime) -> int:
        """Remove leases that are over and had ended by then; how many."""
        ...

    async def events(self, *, after: int, most: int = 1000) -> Sequence[Logged]:
        """Events with greater numbers, in order; the oldest are dropped as new ones come."""
        ...

    async def last_event(self) -> int:
        """The number of the newest event; 0 if there is none."""
        ...

    async def audited(self, *, after: int = 0, most: int = 1000) -> Sequence[Audited]:
        """Audit entries with greater numbers, in order."""
        ...

    async def sealing(self) -> Sealing | None:
        """The signed end of the audit chain."""
        ...


class Findings(Protocol):
    """What connectors were found to reach. Every method may raise as `Store`'s do.

    It is a cache: what is lost is asked again, so nothing has to be durable. Nothing is kept for a connector that is
    not stored in exactly this version, and with a change or removal of the connector goes what was found by it.

    A run streams what a unit names. It is seen by nobody before it is finished, and then takes the place of the look
    before, in one step. Of runs of the same unit only the one that began last is finished.
    """

    async def expect(self, connector: Connector, units: Mapping[str, Mapping[str, str]]) -> Sequence[Look]:
        """Note which units there are, of these resource types; gives the connector's looks, as they were before.

        A unit's value is a pattern of the ids that there may be. Dropped are the looks of other units of these types,
        and the failure of the connector itself.
        """
        ...

    async def looks(self, connector: Connector) -> Sequence[Look]:
        """What is known of the connector's units; one that was never looked at through has no instant."""
        ...

    async def found(
        self, connector: Connector, resource_type: str, *, after: tuple[str, str] = ("", ""), most: int = 1000
    ) -> Sequence[tuple[str, Resource]]:
        """What the last whole looks found, by unit and id.

        Args:
            connector: whose.
            resource_type: of this type.
            after: the unit and id of the last that was read; a look that was finished since is gone on in.
            most: how many at once.
        """
        ...

    async def add(self, look: Look, run: int, resources: Sequence[Resource], *, begins: bool) -> bool:
        """Add to a run; False if it is of no use any more.

        Args:
            look: of which unit.
            run: a random number, not 0.
            resources: what was found since the last call.
            begins: whether this is the first call.

        Raises:
            InvalidConfig: a resource is named by what is no Unicode.
        """
        ...

    async def finish(self, look: Look, run: int, resources: Sequence[Resource], *, begins: bool) -> Change | None:
        """Finish a run with these resources too; gives what has changed, or None as `add` gives False.

        A unit's first look is no change. Raises as `add` does.
        """
        ...

    async def fail(self, look: Look, run: int = 0) -> None:
        """Note that asking failed, beside what the look before found; what the run has added is dropped."""
        ...


class Store(Protocol):
    """Connectors at rest. Every method may raise `StoreUnavailable` or `StoreCorrupt`."""

    @property
    def ledger(self) -> Ledger:
        """What is written down of what happened."""
        ...

    @property
    def findings(self) -> Findings:
        """What connectors were found to reach."""
        ...

    async def add(self, connector: Connector) -> None:
        """Store a new connector.

        Raises:
            NameTaken: a connector of that name exists.
            StoreConflict: one of that id does.
            KeyRetired: it is sealed under a key that is retired.
        """
        ...

    async def find(self, name_or_id: str) -> Connector | None:
        """The connector of that id, else name, else unique beginning of an id (8 characters or more).

        Raises:
            RecordDamaged: there is one, and it cannot be read.
        """
        ...

    async def list(
        self,
        *,
        type: str | None = None,
        auth_method: str | None = None,
        resource_type: str | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> Connectors:
        """Connectors by name, those that match all filters, and the records that cannot be read.

        Args:
            type: of this connector type.
            auth_method: of this auth method.
            resource_type: scoped to this resource type, or to none.
            labels: with these labels; None as a value stands for any value.
        """
        ...

    async def replace(self, connector: Connector) -> None:
        """Store a changed connector; its `version` must be one more than what is stored.

        Raises:
            StoreConflict: somebody else changed or deleted it since.
            NameTaken: its new name is another connector's.
            KeyRetired: it is sealed under a key that is retired.
        """
        ...

    async def delete(self, connector: Connector) -> None:
        """Remove a connector of exactly this version.

        Raises:
            StoreConflict: somebody else changed or deleted it since.
        """
        ...

    async def discard(self, name_or_id: str) -> bool:
        """Remove a record that cannot be read, by its exact name or id; whether there was one."""
        ...

    async def changes(self) -> int:
        """A number that differs from the last one if since then anybody has changed a connector, or taken back a lease.

        Also if it was taken from one of several holders.
        """
        ...

    async def keys(self) -> Sequence[KeyRecord]:
        """The master keys that were ever noted, by when they were."""
        ...

    async def note_key(self, key: KeyRecord) -> KeyRecord:
        """Remember a master key, if none of that id is known; gives what is known of it."""
        ...

    async def key_uses(self) -> Mapping[str, int]:
        """How many records are sealed under each master key; damaged ones too, as far as they tell."""
        ...

    async def rewrap(self, changes: Sequence[Rewrapped]) -> int:
        """Replace seals, all in one step; how many were.

        Left out is each that is not any more as it was read, or whose new key is retired.
        """
        ...

    async def retire_key(self, key_id: str, at: datetime) -> bool:
        """See that nothing is sealed under a key from now on; refused (False) while anything is."""
        ...

    async def put_undo(self, entry: UndoEntry) -> None:
        """Store an entry of the undo log, or replace the one of that id."""
        ...

    async def drop_undo(self, entry_id: str) -> None:
        """Remove an entry of the undo log, if it is there."""
        ...

    async def undos(self, *, due: datetime | None = None, connector_id: str | None = None) -> Sequence[UndoEntry]:
        """Entries of the undo log by when they are due.

        Args:
            due: only those that are due then.
            connector_id: only of this connector.
        """
        ...


@runtime_checkable
class Portable(Protocol):
    """A store that is a file, and can be copied and restored as one."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    async def snapshot(self, path: Path) -> None:
        """Write all of it, as of one moment, into a new file.

        Raises:
            StoreUnavailable: it cannot be written.
        """
        ...

    async def restore(self, path: Path) -> None:
        """Become what that file holds, in one step: other processes see either the one or the other.

        Raises:
            StoreCorrupt: the file is damaged, or not what `snapshot` wrote.
            StoreTooNew: a newer mooring wrote it.
        """
        ...

    def reading(self, path: Path) -> AbstractAsyncContextManager[Store]:
        """Another store of this kind, in a file that `snapshot` wrote.

        Raises:
            StoreCorrupt, StoreTooNew: as `restore`.
        """
        ...

    async def check(self) -> Sequence[str]:
        """What is wrong with the file itself, in sentences; nothing if it is sound."""
        ...
