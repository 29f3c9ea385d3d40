"""The ledger of a store that lives as long as its process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice

import msgspec

from mooring.errors import MooringError, StoreConflict
from mooring.records import LIVE, Audited, Entries, Holder, Lease, LeaseState, Logged, Sealing
from mooring.store._ledger import FIRST_LINK, MOST_EVENTS, body_of, link, not_text, readable, seal_text


class MemoryLedger:
    """A `Ledger` in memory."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._holders: dict[str, dict[str, Holder]] = {}
        self._audit: list[Audited] = []
        self._sealing: Sealing | None = None
        self._events: deque[Logged] = deque(maxlen=MOST_EVENTS)
        self._last = 0
        self.withdrawn = 0
        """How often a lease was taken back, or from a holder."""
        self._parted: set[tuple[str, str]] = set()

    async def record(
        self,
        batch: Sequence[Entries],
        sign: Callable[[bytes], tuple[str, bytes]],
        signed: Callable[[Sealing], bool],
    ) -> Sequence[MooringError | None]:
        """See `Ledger.record`."""
        count = len(self._audit)
        outcomes = [self._write(entries) for entries in batch]
        if len(self._audit) > count:
            end = self._audit[-1]
            key_id, signature = sign(seal_text(end.seq, end.digest))
            self._sealing = Sealing(seq=end.seq, digest=end.digest, key_id=key_id, signature=signature)
        return outcomes

    def _write(self, entries: Entries) -> MooringError | None:
        if problem := self._problem(entries):
            return problem
        for lease in entries.leases:
            known = self._leases.get(lease.id)
            if known is not None and known.state != lease.state and lease.state not in ("active", "expired"):
                self.withdrawn += 1
        self._leases.update((lease.id, msgspec.structs.replace(lease, holders=())) for lease in entries.leases)
        self._share(entries)
        for entry in entries.audit:
            before = self._audit[-1].digest if self._audit else FIRST_LINK
            body = body_of(entry)
            self._audit.append(Audited(seq=len(self._audit) + 1, body=body, digest=link(before, body)))
        for event in entries.events:
            self._last += 1
            self._events.append(msgspec.structs.replace(event, seq=self._last, body=readable(event.body)))
        return None

    def _share(self, entries: Entries) -> None:
        """Who holds what from now on, and who does not any more."""
        for lease_id, holder in entries.holders:
            self._parted.discard((lease_id, holder.consumer))
        for lease_id, holder in (*entries.holders, *entries.uses):
            if lease_id in self._leases and (lease_id, holder.consumer) not in self._parted:
                self._hold(lease_id, holder)
        for lease_id, consumer in entries.gone:
            if self._holders.get(lease_id, {}).pop(consumer, None):
                self._parted.add((lease_id, consumer))
                self.withdrawn += 1

    def _problem(self, entries: Entries) -> MooringError | None:
        leases = {lease.id: lease for lease in entries.leases}
        for lease_id in leases:
            known = self._leases.get(lease_id)
            if known is not None and known.state in ("revoked", "expired"):
                return StoreConflict(f"lease {lease_id} is over already")
        for lease_id, _ in entries.holders:
            lease = leases.get(lease_id) or self._leases.get(lease_id)
            if lease is None or lease.state != "active":
                return StoreConflict(f"lease {lease_id} was taken back")
        try:
            msgspec.json.encode((entries.leases, entries.holders, entries.uses))
        except UnicodeEncodeError:
            return not_text()
        return None

    def _held(self, lease_id: str) -> list[Holder]:
        return sorted(self._holders.get(lease_id, {}).values(), key=lambda one: (one.first_at, one.consumer))

    def _hold(self, lease_id: str, holder: Holder) -> None:
        holders = self._holders.setdefault(lease_id, {})
        known = holders.get(holder.consumer)
        if known is not None:
            last = max(known.last_at, holder.last_at)
            holder = msgspec.structs.replace(known, last_at=last, count=known.count + holder.count)
        holders[holder.consumer] = holder

    async def damaged(self) -> Sequence[str]:
        """See `Ledger.damaged`."""
        return ()

    async def probe(self) -> None:
        """See `Ledger.probe`."""

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
        """See `Ledger.leases`."""
        known = None if states is None else set(states)
        found = [
            msgspec.structs.replace(one, holders=tuple(self._held(one.id)))
            for one in self._leases.values()
            if (lease is None or one.id.startswith(lease))
            and connector_id in (None, one.connector_id)
            and (resource is None or (one.resource_id is not None and one.resource_id.startswith(resource)))
            and (consumer is None or consumer in self._holders.get(one.id, {}))
            and (known is None or one.state in known)
            and (ended is None or (one.expires_at is not None and one.expires_at <= ended))
        ]
        return sorted(found, key=lambda one: (one.issued_at, one.id))

    async def parted(self) -> Sequence[tuple[str, str]]:
        """See `Ledger.parted`."""
        return sorted(self._parted)

    async def prune(self, ended: datetime) -> int:
        """See `Ledger.prune`."""
        gone = [one.id for one in await self.leases(ended=ended) if one.state not in LIVE]
        for lease in gone:
            self._leases.pop(lease)
            self._holders.pop(lease, None)
        self._parted = {one for one in self._parted if one[0] not in gone}
        return len(gone)

    async def events(self, *, after: int, most: int = 1000) -> Sequence[Logged]:
        """See `Ledger.events`."""
        oldest = self._last - len(self._events)  # the number before the first that is kept
        return list(islice(self._events, max(after - oldest, 0), max(after - oldest, 0) + most))

    async def last_event(self) -> int:
        """See `Ledger.last_event`."""
        return self._last

    async def audited(self, *, after: int = 0, most: int = 1000) -> Sequence[Audited]:
        """See `Ledger.audited`."""
        return self._audit[after : after + most]

    async def sealing(self) -> Sealing | None:
        """See `Ledger.sealing`."""
        return self._sealing
