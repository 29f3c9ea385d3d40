"""Revoke: take back what was handed out, as far as the vendor can."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from mooring.broker._desk import Desk, checked, doing, guard, within
from mooring.broker._leases import about, change, entry_of, failed
from mooring.broker._undo import undo
from mooring.errors import MooringError, NotPermitted
from mooring.events import CredentialsReleased, CredentialsRevoked
from mooring.hookspecs import RevokeRequest
from mooring.records import LIVE, Lease


async def revoke(desk: Desk, leases: Iterable[Lease], *, consumer: str | None, role_wide: bool) -> list[Lease]:
    """Take leases back as far as the vendor can; gives them as they are now.

    Args:
        desk: the rooms.
        leases: which.
        consumer: from this consumer alone; what others hold too stays theirs.
        role_wide: also where others who use the same role lose theirs.
    """
    done: list[Lease] = []
    wide: dict[str, list[Lease]] = {}
    for lease in leases:
        if consumer is not None and any(one.consumer != consumer for one in lease.holders):
            done.append(await _leave(desk, lease, consumer))
        elif lease.undo:
            done.append(await _undo(desk, lease))
        elif lease.revocation == "role-wide" and role_wide:
            wide.setdefault(lease.connector_id, []).append(lease)
        else:
            done.append(await _release(desk, lease))
    for connector_id, together in wide.items():
        done += await _revoke_all(desk, connector_id, together)
    return done


async def _leave(desk: Desk, lease: Lease, consumer: str) -> Lease:
    """One holder less; the credentials are the others' still, and this one's until they end."""
    entry = msgspec.structs.replace(entry_of(desk, lease, "release", "ok", desk.clock.now()), consumer=consumer)
    await desk.books.write(gone=[(lease.id, consumer)], audit=[entry])
    holders = tuple(one for one in lease.holders if one.consumer != consumer)
    return msgspec.structs.replace(lease, holders=holders)


async def _release(desk: Desk, lease: Lease) -> Lease:
    """Hand it out no more; that is all that can be done."""
    event = CredentialsReleased(at=desk.clock.now(), expires_at=lease.expires_at, **about(lease))
    return await change(desk, lease, "released", event, outcome="ok", action="release")


async def _undo(desk: Desk, lease: Lease) -> Lease:
    """Undo what issuing has made: written down as wanted first, so that a crash only delays it."""
    now = desk.clock.now()
    entries = [one for one in await desk.store.undos(connector_id=lease.connector_id) if one.id in lease.undo]
    for entry in entries:  # from here on the sweep of any broker does it
        await desk.store.put_undo(msgspec.structs.replace(entry, due_at=now))
    lease = await change(desk, lease, "revoking")
    await undo(desk, entries)
    for one in await desk.books.ledger.leases(lease=lease.id):
        return one
    return lease


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
            await failed(desk, lease, error)
        raise
    everything = await desk.books.ledger.leases(connector_id=connector_id, states=LIVE)
    gone = [one for one in everything if one.revocation == "role-wide" and one.issued_at <= now]
    return [await change(desk, one, "revoked", CredentialsRevoked(at=now, **about(one)), outcome="ok") for one in gone]
