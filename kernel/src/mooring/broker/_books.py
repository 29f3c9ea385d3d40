"""What is written down before a reply leaves: leases, audit entries, numbered events.

Callers at the same moment share one transaction (group commit). What may wait, such as the counts of repeats, is
written within a second.
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import anyio
import anyio.to_thread
import msgspec

from mooring.bus import Bus
from mooring.errors import MooringError, StoreUnavailable, VaultError
from mooring.events import Event, Lagged
from mooring.masking import Masking
from mooring.records import AuditEntry, Entries, Holder, Lease, Logged, Sealing
from mooring.store import Ledger, seal_text
from mooring.types import Clock
from mooring.vault import Vault

FLUSH_SECONDS = 1.0
SETTLE_SECONDS = 15.0
"""How long a broker that closes tries to write what is left."""
KEY_SECONDS = 10.0
"""How long the OS keyring may take for the key that signs."""
MOST_WAITING = 10_000
"""So many events wait at most while the store is away; of older ones only the number is kept."""
MOST_SECRETS = 500
"""So many secrets are looked for in what vendors say: the last ones, since a vendor quotes what it was just sent."""
VENDORS_WORDS = ("message", "subject")
"""The fields of events whose text a vendor may have written; in an id it would be in use as it is."""
PURPOSE = "audit"


class _Ticket:
    """What one caller has to write, and what became of it."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.done = False
        self.error: MooringError | None = None


class Books:
    """The one writer of a broker's ledger."""

    def __init__(self, ledger: Ledger, vault: Vault, clock: Clock, bus: Bus, by: str = "") -> None:
        """Write into a ledger what is done here, by this user at this host."""
        self.ledger = ledger
        self._by = by
        self._vault = vault
        self._clock = clock
        self._bus = bus
        self.masked = Masking(most=MOST_SECRETS)
        """Hides in the words of vendors what was opened and issued here."""
        self._pending: list[_Ticket] = []
        self._writing = anyio.Lock()
        self._later: deque[Logged | AuditEntry] = deque()
        self._dropped = 0
        self._uses: deque[tuple[str, str]] = deque()
        self._counts: Counter[tuple[str, str]] = Counter()
        """Uses that could not be written yet."""
        self.used: Callable[[tuple[str, str]], None] = self._uses.append
        """Count one more hand-out of a lease to a consumer that is a holder already. Safe to call from any thread."""
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
            StoreError: nothing of it was written. `StoreConflict`, because a lease is not any more as it must be.
            InvalidConfig: nothing was, since it holds text that is not Unicode.
        """
        events = tuple(map(self._safe, events))
        entries = Entries(
            leases=tuple(msgspec.structs.replace(one, error=self.masked(one.error)) for one in leases),
            holders=tuple(holders),
            gone=tuple(gone),
            audit=tuple(map(self._signed_by, audit)),
            events=tuple(map(logged, events)),
        )
        await self._post(entries)
        for event in events:
            self._bus.publish(event)

    def tell(self, event: Event, *audit: AuditEntry) -> None:
        """Publish an event now, and write it, and what belongs to it in the audit log, within a second."""
        event = self._safe(event)
        self._wait_for_a_second(logged(event), *audit)
        self._bus.publish(event)

    def note(self, *audit: AuditEntry) -> None:
        """Write audit entries within a second."""
        self._wait_for_a_second(*map(self._signed_by, audit))

    def _signed_by(self, entry: AuditEntry) -> AuditEntry:
        return msgspec.structs.replace(entry, by=self._by)

    def _wait_for_a_second(self, *entries: Logged | AuditEntry) -> None:
        self._later.extend(entries)
        while len(self._later) > MOST_WAITING:
            self._later.popleft()
            self._dropped += 1

    @property
    def repeats(self) -> int:
        """Hand-outs of what had been made before; those that are being written just now are left out."""
        return self.first_repeats + self._written + self._counts.total() + len(self._uses)

    async def flush(self) -> None:
        """Write what may wait.

        Raises:
            StoreError: it is kept for the next time.
        """
        self._counts.update(self._uses.popleft() for _ in range(len(self._uses)))
        counts, waiting, dropped = self._counts, list(self._later), self._dropped
        if not counts and not waiting:
            return
        self._counts, self._dropped = Counter(), 0
        self._later.clear()
        written = False
        try:
            await self._post(self._entries(counts, waiting, dropped))
            written = True
            self._written += counts.total()
        finally:
            if not written:  # also when cancelled
                self._counts.update(counts)
                self._dropped += dropped
                self._later.extendleft(reversed(waiting))
                self._wait_for_a_second()

    def _entries(
        self, counts: Mapping[tuple[str, str], int], waiting: Iterable[Logged | AuditEntry], dropped: int
    ) -> Entries:
        now = self._clock.now()
        uses = tuple(
            (lease, Holder(consumer=consumer, first_at=now, last_at=now, count=count))
            for (lease, consumer), count in counts.items()
        )
        events = [one for one in waiting if isinstance(one, Logged)]
        audit = [one for one in waiting if isinstance(one, AuditEntry)]
        if dropped:
            lagged = Logged(seq=0, at=now, event=Lagged.__name__, connector_id="", body={"missed": dropped})
            events.insert(0, lagged)
            audit.insert(0, AuditEntry(at=now, action="lose", consumer="", outcome="ok", count=dropped))
        return Entries(uses=uses, events=tuple(events), audit=tuple(audit))

    async def run(self) -> None:
        """Write what may wait, until cancelled."""
        while True:
            await anyio.sleep(FLUSH_SECONDS)
            with suppress(MooringError):  # who asks for something is told; here it is tried again
                await self.flush()

    async def settle(self) -> None:
        """Write what is left when the broker closes."""
        with suppress(MooringError), anyio.move_on_after(SETTLE_SECONDS, shield=True):
            await self.flush()

    async def _post(self, entries: Entries) -> None:
        ticket = _Ticket(entries)
        self._pending.append(ticket)
        try:
            async with self._writing:
                if not ticket.done:
                    await self._commit()
        finally:
            if not ticket.done and ticket in self._pending:  # cancelled while it waited: nobody shall write it now
                self._pending.remove(ticket)
        if ticket.error is not None:
            raise copy.copy(ticket.error).with_traceback(None)

    def _safe(self, event: Event) -> Event:
        words = {name: self.masked(getattr(event, name)) for name in VENDORS_WORDS if hasattr(event, name)}
        return msgspec.structs.replace(event, **words) if words else event

    async def _commit(self) -> None:
        """Write what is pending, for all who wait; whatever happens, each is told."""
        tickets: list[_Ticket] = []
        outcomes: Sequence[MooringError | None] = ()
        error: MooringError = StoreUnavailable("writing to the store was cut short; try again")
        try:
            with anyio.CancelScope(shield=True):  # bounded: see the store
                await self._fetch_key()
                tickets, self._pending = self._pending, []
                outcomes = await self.ledger.record([ticket.entries for ticket in tickets], self._sign, self._signed)
        except MooringError as problem:
            error = problem
        except Exception as problem:  # noqa: BLE001  a store may raise anything, which is not the callers' fault
            error = StoreUnavailable(f"the store failed with {type(problem).__name__}; run: mooring store check")
        finally:
            for number, ticket in enumerate(tickets):
                ticket.done, ticket.error = True, outcomes[number] if outcomes else error

    async def _fetch_key(self) -> None:
        """Have the key that signs at hand: the one that is active now, also after another process's rotation."""
        with suppress(VaultError), anyio.move_on_after(KEY_SECONDS):
            if self._vault.ring is not None:
                self._vault.reload()
            if self._vault.ready() and self._vault.waits():
                await anyio.to_thread.run_sync(self._vault.fetch, abandon_on_cancel=True)

    def _sign(self, message: bytes) -> tuple[str, bytes]:
        """The end of the audit chain, signed; without a signature where there is no key (`audit verify` says so)."""
        try:
            return ("", b"") if self._vault.waits() else self._vault.sign(PURPOSE, message)
        except VaultError:
            return "", b""

    def _signed(self, sealing: Sealing) -> bool:
        """Whether the end of the audit chain is one that was signed; without a key of ours, nobody can tell."""
        try:
            if self._vault.waits():
                return True
        except VaultError:
            return True
        with suppress(VaultError):
            text = seal_text(sealing.seq, sealing.digest)
            return self._vault.signed(PURPOSE, text, sealing.key_id, sealing.signature)
        return False


def logged(event: Event) -> Logged:
    """An event as it is written; its number comes later."""
    body = msgspec.to_builtins(event)
    at, name = event.at, body.pop("event")
    body.pop("at")
    return Logged(seq=0, at=at, event=name, connector_id=body.get("connector_id", ""), body=body)
