"""Hand-outs, on record before they are made: who gets which credentials."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from mooring.broker._desk import Desk
from mooring.broker._undolog import Undoing
from mooring.cache import Key
from mooring.credentials import Credentials, Issued
from mooring.errors import InvalidConfig, MooringError, StoreConflict, StoreError, StoreUnavailable, VaultError
from mooring.events import CredentialsIssued, CredentialsRefreshed, Event, IssueFailed, RefreshFailed
from mooring.records import AuditEntry, Holder, Lease, Revocation
from mooring.types import Connector, Secret

MAX_HOLDERS = 100_000


class Handouts:
    """Knows which hand-outs are on record, so that a repeat is only counted."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._holders: dict[tuple[str, str], datetime | None] = {}
        """Who holds which lease, on record, and when it ends."""

    def known(self, issued: Issued, consumer: str) -> bool:
        """Whether it is on record that a consumer has these. Safe to call from any thread."""
        return (issued.lease, consumer) in self._holders

    def forget(self, leases: Iterable[str], consumer: str) -> None:
        """A consumer has them no more."""
        for lease in leases:
            self._holders.pop((lease, consumer), None)

    async def ready(self) -> None:
        """Find out whether a hand-out can be recorded before a vendor is asked for it.

        Raises:
            StoreError: it cannot.
        """
        with _recorded():
            await self._desk.books.ledger.probe()

    async def made(
        self,
        issued: Issued,
        undoing: Undoing,
        before: Issued | None,
        *,
        wide: bool,
        ttl: timedelta | None,
        took: timedelta,
    ) -> None:
        """New credentials: their lease, who gets them, and when what was made for them is undone.

        Args:
            issued: the credentials. In the place of others they go to nobody yet.
            undoing: what issuing has made at the vendor.
            before: those in whose place they are.
            wide: whether the plugin can take them back together with all others of their role.
            ttl: how long they were to live.
            took: how long making them took.

        Raises:
            StoreError: it could not be written; they must not leave.
        """
        now, secrets = self._desk.clock.now(), _secrets(issued.credentials)
        self._desk.books.masked.learn(*secrets.values())
        revocation: Revocation = "real" if undoing.kept else "role-wide" if wide else "none"
        about = _about(issued)
        lease = Lease(
            id=issued.lease,
            access=issued.access,
            issued_at=issued.issued_at,
            expires_at=issued.expires_at,
            ttl=ttl,
            narrowed=issued.narrowed,
            revocation=revocation,
            undo=undoing.kept,
            **about,
        )
        made: Event
        holders: Iterable[tuple[str, Holder]] = ()
        ends = issued.expires_at
        if before is None:
            holders = [(lease.id, Holder(consumer=issued.consumer, first_at=now, last_at=now))]
            made = CredentialsIssued(
                at=now,
                access=issued.access,
                consumer=issued.consumer,
                expires_at=ends,
                narrowed=issued.narrowed,
                lease=lease.id,
                took=took,
                **about,
            )
        else:
            made = CredentialsRefreshed(
                at=now, lease=lease.id, before=before.lease, expires_at=ends, took=took, **about
            )
        action = "issue" if before is None else "refresh"
        entry = entry_for(action, issued, issued.consumer, now, marks=self._marks(_traced(issued.credentials)))
        with _recorded():
            await self._desk.books.write(made, leases=[lease], holders=holders, audit=[entry])
            await undoing.commit()
        if before is None:
            self._hold(issued, issued.consumer)

    async def repeated(self, issued: Issued, consumer: str) -> bool:
        """Credentials that were made before, perhaps for another; only counted, if the hand-out is on record.

        Gives whether they may leave: not if another process has taken them back.

        Raises:
            StoreError: it could not be written; they must not leave.
        """
        books = self._desk.books
        if self.known(issued, consumer):
            books.used((issued.lease, consumer))
            return True
        now = self._desk.clock.now()
        holder = Holder(consumer=consumer, first_at=now, last_at=now)
        try:
            with _recorded():
                await books.write(holders=[(issued.lease, holder)], audit=[entry_for("issue", issued, consumer, now)])
        except StoreConflict:
            await self._desk.cache.drop(issued.lease)
            return False
        books.first_repeats += 1
        self._hold(issued, consumer)
        return True

    async def failed(
        self, connector: Connector, key: Key, consumer: str, error: MooringError, before: Issued | None, took: timedelta
    ) -> None:
        """There are no (new) credentials."""
        now, name = self._desk.clock.now(), type(error).__name__
        what: dict[str, Any] = {"resource_type": key.resource_type, "resource_id": key.resource_id}
        what |= {"connector_id": connector.id, "connector": connector.name}
        about = what | {"at": now, "error": name, "message": error.message, "connector_type": connector.type}
        about["took"] = took
        event = (
            IssueFailed(consumer=consumer, **about)
            if before is None
            else RefreshFailed(lease=before.lease, expires_at=before.expires_at, **about)
        )
        action = "issue" if before is None else "refresh"
        entry = AuditEntry(at=now, action=action, consumer=consumer, outcome=name, access=key.access, **what)
        with suppress(StoreError, InvalidConfig):  # the first error is the one that helps
            await self._desk.books.write(event, audit=[entry])

    def _hold(self, issued: Issued, consumer: str) -> None:
        if len(self._holders) >= MAX_HOLDERS:
            now = self._desk.clock.now()
            ended = [holder for holder, ends in self._holders.items() if ends is None or ends <= now]
            for holder in ended or list(self._holders):
                self._holders.pop(holder, None)
        self._holders[issued.lease, consumer] = issued.expires_at

    def _marks(self, secrets: Mapping[str, Secret]) -> dict[str, str]:
        """By which a secret that turns up somewhere can be led back to its lease."""
        with suppress(VaultError):  # without a master key there are none
            return {name: self._desk.vault.mark(None, value) for name, value in secrets.items()}
        return {}


def _secrets(credentials: Credentials) -> dict[str, Secret]:
    values = {name: getattr(credentials, name) for name in credentials.__struct_fields__}
    return {name: value for name, value in values.items() if isinstance(value, Secret)}


def _traced(credentials: Credentials) -> dict[str, Secret]:
    """What leads back to a hand-out: its secrets, and by what else the vendor names it."""
    return _secrets(credentials) | {name: Secret(str(getattr(credentials, name))) for name in credentials.traced}


@contextmanager
def _recorded() -> Generator[None, None, None]:
    """Say what it means where a hand-out cannot be recorded."""
    try:
        yield
    except StoreUnavailable as error:
        reason = error.message
    else:
        return
    raise StoreUnavailable(f"credentials that cannot be recorded are not handed out: {reason}")


def _about(issued: Issued) -> dict[str, Any]:
    return {
        "connector_id": issued.connector_id,
        "connector": issued.connector,
        "connector_type": issued.connector_type,
        "resource_type": issued.resource_type,
        "resource_id": issued.resource_id,
    }


def entry_for(
    action: str,
    issued: Issued,
    consumer: str,
    at: datetime,
    *,
    outcome: str = "ok",
    marks: dict[str, str] | None = None,
) -> AuditEntry:
    """A line for the audit log about credentials and who has them."""
    return AuditEntry(
        at=at,
        action=action,
        consumer=consumer,
        outcome=outcome,
        connector_id=issued.connector_id,
        connector=issued.connector,
        resource_type=issued.resource_type,
        resource_id=issued.resource_id,
        access=issued.access,
        lease=issued.lease,
        marks=marks or {},
    )
