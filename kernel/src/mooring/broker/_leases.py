"""Leases: what was handed out, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import anyio
import msgspec

from mooring.broker._desk import Desk
from mooring.errors import MooringError, RecordDamaged, StoreConflict, StoreError, UnknownConnector, UnknownLease
from mooring.events import CredentialsExpired, CredentialsRevoked, Event, RevocationFailed
from mooring.records import LIVE, AuditEntry, Lease, LeaseState

ID_PREFIX_LENGTH = 8
KEEP = timedelta(days=7)
"""How long the record of what is over is kept; the audit log keeps it for good."""
AT_ONCE = 500
"""How many leases are seen to end at once."""
MOST_ATTEMPTS = 6
"""After so many failures a lease is irrevocable: it is tried again ever more seldom, but somebody has to look."""


async def find(desk: Desk, lease: str) -> Lease:
    """The lease of that id, or of its beginning (8 characters or more).

    Raises:
        UnknownLease: there is none, or more than one.
    """
    if lease and len(lease) < ID_PREFIX_LENGTH:
        raise UnknownLease(f"{lease!r} is too short for a lease; give {ID_PREFIX_LENGTH} characters of its id or more")
    found = await desk.books.ledger.leases(lease=lease) if lease else ()
    if len(found) == 1:
        return _seen(desk, found[0])
    raise UnknownLease(f"no lease is named {lease!r}; see: mooring lease list")


async def select(
    desk: Desk,
    *,
    connector: str | None = None,
    resource: str | None = None,
    consumer: str | None = None,
    states: Iterable[LeaseState] | None = LIVE,
) -> Sequence[Lease]:
    """Leases that match all filters."""
    connector_id = None if connector is None else await _connector_id(desk, connector)
    wanted = None if states is None else set(states)
    stored = wanted if wanted is None or "expired" not in wanted else {*wanted, *LIVE}
    found = await desk.books.ledger.leases(
        connector_id=connector_id, resource=resource, consumer=consumer, states=stored
    )
    seen = (_seen(desk, one) for one in found)
    return [one for one in seen if wanted is None or one.state in wanted]


def _seen(desk: Desk, lease: Lease) -> Lease:
    """The lease as it is now: one whose end has come is expired, also if nobody has written that down yet."""
    if lease.state in LIVE and lease.expires_at is not None and lease.expires_at <= desk.clock.now():
        return msgspec.structs.replace(lease, state="expired")
    return lease


async def ended(desk: Desk, lease: str, error: MooringError | None = None) -> None:
    """What a lease stands for was undone, or could not be."""
    for one in await desk.books.ledger.leases(lease=lease, states=LIVE):
        now = desk.clock.now()
        if error is not None:
            gone = isinstance(error, UnknownConnector)
            if gone or one.state in ("revoking", "irrevocable"):
                await failed(desk, one, error, "irrevocable" if gone else "revoking")
        elif one.expires_at is not None and one.expires_at <= now:
            await _expire(desk, one)
        else:
            await revoked(desk, one)


async def expire(desk: Desk) -> None:
    """See leases end whose credentials have, and forget those that are long over."""
    now = desk.clock.now()
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def work(lease: Lease) -> None:
        async with limiter:
            await _expire(desk, lease)

    async with anyio.create_task_group() as tasks:  # those of one moment are written together
        for lease in await desk.books.ledger.leases(states=LIVE, ended=now):
            tasks.start_soon(work, lease)
    await desk.cache.expire()
    await desk.books.ledger.prune(now - KEEP)


async def _expire(desk: Desk, lease: Lease) -> None:
    now = desk.clock.now()
    uses = sum(holder.count for holder in lease.holders)
    entry = entry_of(desk, lease, "expire", "ok", now, count=uses)
    changed = msgspec.structs.replace(lease, state="expired")
    with suppress(StoreError):  # another process has seen it; or it is tried again
        await desk.books.write(CredentialsExpired(at=now, **about(lease)), leases=[changed], audit=[entry])


async def revoked(desk: Desk, lease: Lease, detail: str = "") -> Lease:
    """The vendor does not accept it any more."""
    now = desk.clock.now()
    ended = msgspec.structs.replace(lease, expires_at=lease.expires_at or now, error="")
    return await change(desk, ended, "revoked", CredentialsRevoked(at=now, **about(lease)), outcome="ok", detail=detail)


async def failed(desk: Desk, lease: Lease, error: MooringError, state: LeaseState) -> Lease:
    """It could not be taken back; `revoking` becomes `irrevocable` after so many times."""
    attempts = lease.attempts + 1
    if state == "revoking" and attempts >= MOST_ATTEMPTS:
        state = "irrevocable"
    changed = msgspec.structs.replace(lease, attempts=attempts, error=error.message)
    name = type(error).__name__
    event = RevocationFailed(at=desk.clock.now(), attempts=attempts, error=name, message=error.message, **about(lease))
    return await change(desk, changed, state, event, outcome=name)


async def change(
    desk: Desk,
    lease: Lease,
    state: LeaseState,
    *events: Event,
    outcome: str = "",
    action: str = "revoke",
    detail: str = "",
) -> Lease:
    """Write down what became of a lease, and serve it no more; gives it as it is now.

    Where it is over already, by another task or process, that stays.
    """
    changed = msgspec.structs.replace(lease, state=state)
    entry = entry_of(desk, lease, action, outcome, desk.clock.now())
    audit = [msgspec.structs.replace(entry, detail=detail)] if outcome else []
    try:
        await desk.books.write(*events, leases=[changed], audit=audit)
    except StoreConflict:
        for one in await desk.books.ledger.leases(lease=lease.id):
            changed = one
    if changed.state not in ("active", "expired"):
        await desk.cache.drop(lease.id)
    return changed


def about(lease: Lease) -> dict[str, Any]:
    return {
        "connector_id": lease.connector_id,
        "connector": lease.connector,
        "connector_type": lease.connector_type,
        "lease": lease.id,
        "resource_type": lease.resource_type,
        "resource_id": lease.resource_id,
    }


def entry_of(desk: Desk, lease: Lease, action: str, outcome: str, at: datetime, *, count: int = 1) -> AuditEntry:
    return AuditEntry(
        at=at,
        action=action,
        consumer=desk.consumer,
        outcome=outcome,
        connector_id=lease.connector_id,
        connector=lease.connector,
        resource_type=lease.resource_type,
        resource_id=lease.resource_id,
        access=lease.access,
        lease=lease.id,
        count=count,
    )


async def _connector_id(desk: Desk, connector: str) -> str:
    """Of a connector that may be gone: its leases are not."""
    with suppress(UnknownConnector):
        try:
            return (await desk.find(connector)).id
        except RecordDamaged as error:
            return error.id
    for lease in await desk.books.ledger.leases():
        if connector in (lease.connector, lease.connector_id):
            return lease.connector_id
    return (await desk.find(connector)).id
