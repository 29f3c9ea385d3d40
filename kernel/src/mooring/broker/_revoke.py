"""Revoke: take back what was handed out, as far as the vendor can."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from mooring.broker._desk import Desk, checked, doing, guard, within
from mooring.broker._leases import about, change, entry_of, failed, revoked
from mooring.broker._undo import undo
from mooring.errors import MooringError, NotPermitted, UnknownConnector
from mooring.events import CredentialsReleased
from mooring.hookspecs import RevokeRequest
from mooring.records import LIVE, Lease
from mooring.store import UndoEntry


async def revoke(desk: Desk, leases: Iterable[Lease], *, consumer: str | None, role_wide: bool) -> list[Lease]:
    """Take leases back as far as the vendor can; gives them as they are now.

    Args:
        desk: the rooms.
        leases: which.
        consumer: from this consumer alone; what others hold too stays theirs.
        role_wide: also where others who use the same role lose theirs.
    """
    done: list[Lease] = []
    real: list[Lease] = []
    wide: dict[str, list[Lease]] = {}
    for lease in leases:
        if consumer is not None and any(one.consumer != consumer for one in lease.holders):
            done.append(await _leave(desk, lease, consumer))
        elif lease.undo:
            real.append(lease)
        elif lease.revocation == "role-wide" and role_wide:
            wide.setdefault(lease.connector_id, []).append(lease)
        else:
            done.append(await _release(desk, lease))
    done += await _undo(desk, real)
    for connector_id, together in wide.items():
        done += await _revoke_all(desk, connector_id, together)
    return done


def may_be_later(lease: Lease) -> bool:
    """Whether it works still, and can be taken back as long as there is its connector."""
    return lease.state in ("revoking", "irrevocable") or (lease.state == "released" and lease.revocation == "role-wide")


async def _leave(desk: Desk, lease: Lease, consumer: str) -> Lease:
    """One holder less; the credentials are the others' still, and this one's until they end."""
    entry = msgspec.structs.replace(entry_of(desk, lease, "release", "ok", desk.clock.now()), consumer=consumer)
    await desk.books.write(gone=[(lease.id, consumer)], audit=[entry])
    holders = tuple(one for one in lease.holders if one.consumer != consumer)
    return msgspec.structs.replace(lease, holders=holders)


async def _release(desk: Desk, lease: Lease) -> Lease:
    """Hand it out no more; that is all that can be done."""
    if lease.state == "released":
        return lease
    event = CredentialsReleased(at=desk.clock.now(), expires_at=lease.expires_at, **about(lease))
    return await change(desk, lease, "released", event, outcome="ok", action="release")


async def _undo(desk: Desk, leases: Sequence[Lease]) -> list[Lease]:
    """Undo what issuing has made: written down as wanted first, so that a crash only delays it."""
    now = desk.clock.now()
    entries: list[UndoEntry] = []
    made = {one: await desk.store.undos(connector_id=one) for one in {lease.connector_id for lease in leases}}
    for lease in leases:
        for entry in made[lease.connector_id]:
            if entry.id in lease.undo:
                entries.append(msgspec.structs.replace(entry, due_at=now))
                await desk.store.put_undo(entries[-1])
    for lease in leases:
        wanted = await change(desk, lease, "revoking")
        if wanted.state == "revoking" and not any(entry.lease == lease.id for entry in entries):
            await _nothing_left(desk, wanted)
    await undo(desk, entries)
    ids = {lease.id for lease in leases}
    found = [one for id in made for one in await desk.books.ledger.leases(connector_id=id) if one.id in ids]
    return sorted(found, key=lambda one: one.issued_at)


async def _nothing_left(desk: Desk, lease: Lease) -> None:
    """There is nothing to undo: it was undone, or given up with its connector."""
    if await desk.store.find(lease.connector_id) is None:
        await failed(desk, lease, UnknownConnector("its connector is gone; remove it by hand"), "irrevocable")
    else:
        await revoked(desk, lease)


async def _revoke_all(desk: Desk, connector_id: str, leases: Sequence[Lease]) -> list[Lease]:
    now = desk.clock.now()
    try:
        connector = await desk.find(connector_id)
        with doing("revoke", connector):
            route = desk.registry.route(connector.type)
            if route.revoke_all is None:
                raise NotPermitted(f"the plugin for {connector.type!r} cannot take credentials back")
            with within(desk.budgets.issue, "the vendor's answer"):
                async with desk.session(connector, route, desk.consumer) as session:
                    with guard(route, "revoke_all"):
                        request = RevokeRequest(before=now)
                        checked(route, "revoke_all", await route.revoke_all(session, request), str)
    except MooringError as error:
        for lease in leases:
            await failed(desk, lease, error, lease.state)  # it is as it was, and nobody tries again by himself
        raise
    everything = await desk.books.ledger.leases(connector_id=connector_id, states=LIVE)
    return [
        await revoked(desk, one, detail="role-wide")
        for one in everything
        if one.revocation == "role-wide" and one.issued_at <= now
    ]
