"""What is written down before a reply leaves: leases, audit entries, numbered events.

Callers at the same moment share one transaction (group commit). What may wait, such as the counts of repeats, is
written within a second.
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import anyio
import msgspec

from mooring.bus import Bus
from mooring.errors import MooringError, StoreError, VaultError
from mooring.events import Event
from mooring.records import AuditEntry, Entries, Holder, Lease, Logged
from mooring.store import Ledger
from mooring.types import Clock
from mooring.vault import Vault

FLUSH_SECONDS = 1.0
PURPOSE = "audit"


class _Ticket:
    """What one caller has to write, and what became of it."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.done = False
        self.error: MooringError | None = None


class Books:
    """The one writer of a broker's ledger."""

    def __init__(self, ledger: Ledger, vault: Vault, clock: Clock, bus: Bus) -> None:
        self.ledger = ledger
        self._vault = vault
        self._clock = clock
        self._bus = bus
        self._pending: list[_Ticket] = []
        self._writing = anyio.Lock()
        self._later: list[Logged] = []
        self._uses: deque[tuple[str, str]] = deque()
        self._written = 0
        self.first_repeats = 0
        """Hand-outs of what had been made before to who did not have it yet."""

    async def write(
        self,
        *events: Event,
        leases: Iterable[Lease] = (),
        holders: Iterable[tuple[str, Holder]] = (),
        gone: Iterable[tuple[str, str]] = (),
        audit: Iterable[AuditEntry] = (),
    ) -> None:
        """Write all of it durably, then publish the events.

        Raises:
            StoreError: nothing of it was written.
        """
        entries = Entries(
            leases=tuple(leases),
            holders=tuple(holders),
            gone=tuple(gone),
            audit=tuple(audit),
            events=tuple(map(logged, events)),
        )
        ticket = _Ticket(entries)
        self._pending.append(ticket)
        async with self._writing:
            if not ticket.done:
                await self._commit()
        if ticket.error is not None:
            raise copy.copy(ticket.error).with_traceback(None)
        for event in events:
            self._bus.publish(event)

    def tell(self, event: Event) -> None:
        """Publish an event now, and write it within a second."""
        self._later.append(logged(event))
        self._bus.publish(event)

    def used(self, lease: str, consumer: str) -> None:
        """Count one more hand-out to a consumer that is a holder already. Safe to call from any thread."""
        self._uses.append((lease, consumer))

    @property
    def repeats(self) -> int:
        """Hand-outs of what had been made before; those that are being written just now are left out."""
        return self.first_repeats + self._written + len(self._uses)

    async def flush(self) -> None:
        """Write what may wait.

        Raises:
            StoreError: it is kept for the next time.
        """
        counts = Counter(self._uses.popleft() for _ in range(len(self._uses)))
        events, self._later = self._later, []
        if not counts and not events:
            return
        now = self._clock.now()
        holders = tuple(
            (lease, Holder(consumer=consumer, first_at=now, last_at=now, count=count))
            for (lease, consumer), count in counts.items()
        )
        ticket = _Ticket(Entries(holders=holders, events=tuple(events)))
        self._pending.append(ticket)
        async with self._writing:
            if not ticket.done:
                await self._commit()
        if ticket.error is not None:
            self._later = events + self._later
            self._uses.extend(use for use, count in counts.items() for _ in range(count))
            raise ticket.error
        self._written += counts.total()

    async def run(self) -> None:
        """Write what may wait, until cancelled."""
        while True:
            await anyio.sleep(FLUSH_SECONDS)
            with suppress(StoreError):  # who asks for something is told; here it is tried again
                await self.flush()

    async def settle(self) -> None:
        """Write what is left when the broker closes."""
        with suppress(StoreError):
            await self.flush()

    async def _commit(self) -> None:
        tickets, self._pending = self._pending, []
        error: MooringError | None = None
        with anyio.CancelScope(shield=True):  # bounded: see the store
            try:
                await self.ledger.record(_merged(tickets), self._sign)
            except MooringError as problem:
                error = problem
        for ticket in tickets:
            ticket.done, ticket.error = True, error

    def _sign(self, message: bytes) -> tuple[str, bytes]:
        """The end of the audit chain, signed; without a signature where there is no key (`audit verify` says so)."""
        try:
            return self._vault.sign(PURPOSE, message)
        except VaultError:
            return "", b""


def _merged(tickets: Iterable[_Ticket]) -> Entries:
    fields: dict[str, list[Any]] = {name: [] for name in Entries.__struct_fields__}
    for ticket in tickets:
        for name, values in fields.items():
            values.extend(getattr(ticket.entries, name))
    return Entries(**{name: tuple(values) for name, values in fields.items()})


def logged(event: Event) -> Logged:
    """An event as it is written; its number comes later."""
    body = msgspec.to_builtins(event)
    at, name = event.at, body.pop("event")
    body.pop("at")
    return Logged(seq=0, at=at, event=name, connector_id=body.get("connector_id", ""), body=body)
