"""Master keys: rotate them while everybody works, see what they are used for, remove those that nothing needs.

A rotation is safe at every step, also against SIGKILL: the new key is kept before anything is sealed under it; each
record is wrapped anew in a step of its own; a key is retired by the store itself, in one step with the proof that
nothing is sealed under it, and from then on the store refuses what a process with an old ring seals under it. What was
cut short is finished by the next rotation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Literal

import anyio
import msgspec

from mooring.broker._desk import Desk, bound
from mooring.errors import ConfigError, MooringError, StoreConflict, VaultError
from mooring.events import KeyRotated
from mooring.store import KeyRecord, Rewrapped, Store
from mooring.types import Struct
from mooring.vault import KeyRing, MasterKey, Place

BATCH = 100
"""How many records are wrapped anew in one step."""
TRIES = 25
"""How often a record is wrapped anew that is under an old key again: others may write back what they have read."""
LOCK_POLLS = 100
LOCK_POLL_SECONDS = 0.1


State = Literal["active", "in use", "unused", "retired", "removed", "missing"]


class KeyStatus(Struct):
    """What is known of a master key."""

    id: str
    state: State
    """The one that seals; one that something is still sealed under; neither; retired; retired and not at hand any more;
    not at hand, but something is sealed under it."""
    source: str
    connectors: int
    created_at: datetime | None
    retired_at: datetime | None


class Rotation(Struct):
    """What a rotation did."""

    key_id: str
    """The active key now."""
    resumed: bool
    """Whether this finished a rotation that was cut short, and made no new key."""
    rewrapped: int
    retired: tuple[str, ...]
    problems: tuple[str, ...]
    """Why records are still under an older key: they cannot be opened."""


async def status(desk: Desk) -> list[KeyStatus]:
    """Every master key that is at hand or that the store knows of, the active one first."""
    desk.vault.reload()
    at_hand = {key.id: key for key in desk.vault.keys} if desk.vault.ready() else {}
    known = {key.id: key for key in await desk.store.keys()}
    uses = await desk.store.key_uses()
    return [
        _status(key_id, at_hand.get(key_id), known.get(key_id), uses.get(key_id, 0), active=not number)
        for number, key_id in enumerate(dict.fromkeys((*at_hand, *known, *uses)))
    ]


def _status(key_id: str, key: MasterKey | None, known: KeyRecord | None, uses: int, *, active: bool) -> KeyStatus:
    retired = known.retired_at if known else None
    state: State = "unused"
    if key is None:
        state = "missing" if uses else "removed"
    elif retired is not None:
        state = "retired"
    elif active:
        state = "active"
    elif uses:
        state = "in use"
    source = key.source if key else known.source if known else "unknown"
    return KeyStatus(
        id=key_id,
        state=state,
        source=source,
        connectors=uses,
        created_at=known.created_at if known else None,
        retired_at=retired,
    )


async def rotate(desk: Desk, place: Place, progress: Callable[[int, int], None] | None) -> Rotation:
    """Make a new key and wrap everything under it, or finish what an earlier rotation began; see the module."""
    with desk.failing_on_record("rotate-keys"):
        return await _rotate(desk, place, progress)


async def _rotate(desk: Desk, place: Place, progress: Callable[[int, int], None] | None) -> Rotation:
    async with alone(desk) as ring:
        desk.vault.reload()
        done = None
        if await desk.store.key_uses() or desk.vault.ready():
            await desk.prepare_to_seal()
            if desk.vault.keys[0].id not in await _retired(desk):
                done = await _finish(desk, progress)
        if done is None or not done.resumed:
            await _new_key(desk, ring, place)
            await desk.prepare_to_seal()
            done = msgspec.structs.replace(await _finish(desk, progress), resumed=False)
        counts = {"rewrapped": done.rewrapped, "retired": len(done.retired)}
        rotated = KeyRotated(at=desk.clock.now(), key_id=done.key_id, **counts)
        await desk.books.write(rotated, audit=[desk.entry("rotate-keys")])
        return done


async def prune(desk: Desk) -> list[str]:
    """Remove the retired keys for good; what was sealed under them before, in backups, does not open any more."""
    with desk.failing_on_record("prune-keys"):
        return await _prune(desk)


async def _prune(desk: Desk) -> list[str]:
    async with alone(desk) as ring:
        if ring is None:
            raise ConfigError("the master keys are the host's; take the retired ones out of MOORING_MASTER_KEY")
        desk.vault.reload()
        needed = {*await desk.store.key_uses(), *(key.id for key in desk.vault.keys[:1])}
        retired = [key_id for key_id in await _retired(desk) if key_id not in needed]
        if retired:
            await desk.books.write(audit=[desk.entry("prune-keys")])  # before: the end of the log is signed anew
        return await anyio.to_thread.run_sync(ring.remove, retired)


async def _retired(desk: Desk) -> list[str]:
    return [key.id for key in await desk.store.keys() if key.retired_at is not None]


async def _new_key(desk: Desk, ring: KeyRing | None, place: Place) -> None:
    if ring is None:
        raise ConfigError(
            "the first key of MOORING_MASTER_KEY is not a new one; to rotate, put a new one before it, "
            "as in new:...,old:..., and run this again"
        )
    await anyio.to_thread.run_sync(ring.add, place)
    desk.vault.reload()


async def _finish(desk: Desk, progress: Callable[[int, int], None] | None) -> Rotation:
    """Wrap every record under the active key and retire all others, until none is left that can be: others write too.

    A record that another process seals under an old key between the two keeps that key from being retired, and is
    found by the next pass. It ends with a pass that found nothing to wrap, though a key is still needed.
    """
    active = desk.vault.keys[0].id
    await _note_others(desk)
    rewrapped, retired, refused, tried = 0, list[str](), False, Counter[str]()
    while True:
        made, problems = await rewrap(desk, desk.store, tried, rewrapped, progress)
        rewrapped += made
        old = [key.id for key in await desk.store.keys() if key.id != active and key.retired_at is None]
        gone = [key_id for key_id in old if await desk.store.retire_key(key_id, desk.clock.now())]
        retired += gone
        if len(gone) == len(old) or (refused and not made):
            return Rotation(
                key_id=active,
                resumed=bool(rewrapped or retired),
                rewrapped=rewrapped,
                retired=tuple(retired),
                problems=tuple(sorted(problems)),
            )
        refused = True


async def _note_others(desk: Desk) -> None:
    """Have the store know the other keys, to retire them; one that cannot be had opens nothing, which is told then.

    Of keys that the host gives, one that nothing is under may be the next one, and is left alone.
    """
    known = {key.id for key in await desk.store.keys()}
    uses = await desk.store.key_uses()
    for key in desk.vault.keys:
        if key.id not in known and (desk.vault.ring or key.id in uses):
            with suppress(VaultError):
                await desk.note_key(key)


async def rewrap(
    desk: Desk,
    store: Store,
    tried: Counter[str],
    before: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, set[str]]:
    """Wrap what is not under the active key, until a look finds nothing that can be; how many, and why others not."""
    made, active = 0, desk.vault.keys[0].id
    while True:
        connectors = await store.list()
        stale = [(one, one.sealed) for one in connectors if one.sealed and one.sealed.key_id != active]
        problems = {error.message for error in connectors.damaged}
        problems |= {f"{one.name}: it has lost its seal; register it again" for one in connectors if one.sealed is None}
        closed = await _closed(desk, {sealed.key_id for _, sealed in stale})
        changes: list[Rewrapped] = []
        for connector, sealed in stale:
            try:
                if error := closed.get(sealed.key_id):
                    raise error
                if tried[connector.id] == TRIES:
                    raise StoreConflict("the store does not take the new seal; set one of its secrets anew")
                wrapped = desk.vault.rewrap(bound(connector), sealed)
            except MooringError as error:
                problems.add(f"{connector.name}: {error.message}")
            else:
                tried[connector.id] += 1
                changes.append(Rewrapped(connector=connector, sealed=wrapped))
        if not changes:
            return made, problems
        for start in range(0, len(changes), BATCH):
            made += await store.rewrap(changes[start : start + BATCH])
            if progress is not None:
                progress(before + made, before + len(changes))


async def _closed(desk: Desk, key_ids: Collection[str]) -> dict[str, VaultError]:
    """Why keys cannot be had; each is asked for once, since the OS keyring may take a while."""
    closed: dict[str, VaultError] = {}
    for key_id in key_ids:
        try:
            await desk.fetch(key_id)
        except VaultError as error:
            closed[key_id] = error
    return closed


@asynccontextmanager
async def alone(desk: Desk) -> AsyncGenerator[KeyRing | None, None]:
    """The ring, held alone among all processes, if mooring keeps the keys itself."""
    ring = desk.vault.ring
    if ring is None:
        yield None
        return
    for _ in range(LOCK_POLLS):
        if ring.take():
            break
        await anyio.sleep(LOCK_POLL_SECONDS)
    else:
        raise VaultError("another process is changing the master keys; try again when it is done")
    try:
        yield ring
    finally:
        ring.let_go()
