"""The ledger of a store that lives as long as its process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import msgspec

from mooring.records import LIVE, Audited, Entries, Holder, Lease, LeaseState, Logged, Sealing
from mooring.store._ledger import FIRST_LINK, MOST_EVENTS, body_of, link, seal_text


class MemoryLedger:
    """A `Ledger` in memory."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._holders: dict[str, dict[str, Holder]] = {}
        self._audit: list[Audited] = []
        self._sealing: Sealing | None = None
        self._events: list[Logged] = []
        self._last = 0

    async def record(self, entries: Entries, sign: Callable[[bytes], tuple[str, bytes]]) -> Sequence[Logged]:
        """See `Ledger.record`."""
        links = self._linked(entries)
        if links:
            key_id, signature = sign(seal_text(links[-1].seq, links[-1].digest))
            self._sealing = Sealing(seq=links[-1].seq, digest=links[-1].digest, key_id=key_id, signature=signature)
        self._audit += links
        for lease in entries.leases:
            self._leases[lease.id] = msgspec.structs.replace(lease, holders=())
        for lease_id, holder in entries.holders:
            holders = self._holders.setdefault(lease_id, {})
            known = holders.get(holder.consumer)
            if known is not None:
                last = max(known.last_at, holder.last_at)
                holder = msgspec.structs.replace(known, last_at=last, count=known.count + holder.count)  # noqa: PLW2901
            holders[holder.consumer] = holder
        for lease_id, consumer in entries.gone:
            self._holders.get(lease_id, {}).pop(consumer, None)
        numbered = [
            msgspec.structs.replace(event, seq=self._last + number) for number, event in enumerate(entries.events, 1)
        ]
        self._last += len(numbered)
        self._events = [*self._events, *numbered][-MOST_EVENTS:] if numbered else self._events
        return numbered

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
            msgspec.structs.replace(one, holders=tuple(self._holders.get(one.id, {}).values()))
            for one in self._leases.values()
            if (lease is None or one.id.startswith(lease))
            and connector_id in (None, one.connector_id)
            and (resource is None or (one.resource_id is not None and one.resource_id.startswith(resource)))
            and (consumer is None or consumer in self._holders.get(one.id, {}))
            and (known is None or one.state in known)
            and (ended is None or (one.expires_at is not None and one.expires_at <= ended))
        ]
        return sorted(found, key=lambda one: (one.issued_at, one.id))

    async def prune(self, ended: datetime) -> int:
        """See `Ledger.prune`."""
        gone = [one.id for one in await self.leases(ended=ended) if one.state not in LIVE]
        for lease in gone:
            self._leases.pop(lease)
            self._holders.pop(lease, None)
        return len(gone)

    async def events(self, *, after: int, most: int = 1000) -> Sequence[Logged]:
        """See `Ledger.events`."""
        return [event for event in self._events if event.seq > after][:most]

    async def last_event(self) -> int:
        """See `Ledger.last_event`."""
        return self._last

    async def audited(self, *, after: int = 0, most: int = 1000) -> Sequence[Audited]:
        """See `Ledger.audited`."""
        return self._audit[after : after + most]

    async def sealing(self) -> Sealing | None:
        """See `Ledger.sealing`."""
        return self._sealing

    def _linked(self, entries: Entries) -> list[Audited]:
        links: list[Audited] = []
        seq = len(self._audit)
        digest = self._audit[-1].digest if self._audit else FIRST_LINK
        for entry in entries.audit:
            body = body_of(entry)
            seq, digest = seq + 1, link(digest, body)
            links.append(Audited(seq=seq, body=body, digest=digest))
        return links
