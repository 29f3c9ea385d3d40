"""Master keys: rotate them while everybody works, see what they are used for, remove those that nothing needs.

A rotation is safe at every step, also against SIGKILL: the new key is kept before anything is sealed under it; each
record is wrapped anew in a step of its own; a key is retired by the store itself, in one step with the proof that
nothing is sealed under it, and from then on the store refuses what a process with an old ring seals under it. What was
cut short is finished by the next rotation.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal

import anyio

from mooring.broker._desk import Desk, bound
from mooring.errors import ConfigError, MooringError, VaultError
from mooring.events import KeyRotated
from mooring.store import KeyRecord, Rewrapped
from mooring.types import Struct
from mooring.vault import KeyRing, MasterKey, Place

BATCH = 100
"""How many records are wrapped anew in one step."""
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
    async with _alone(desk) as ring:
        desk.vault.reload()
        uses = await desk.store.key_uses()
        if uses or desk.vault.ready():
            await desk.prepare_to_seal()
        resumed = any(key_id != desk.vault.keys[0].id for key_id in uses)
        if not resumed:
            await _new_key(desk, ring, place)
        for key in desk.vault.keys:
            await desk.note_key(key)
        active = desk.vault.keys[0].id
        rewrapped, problems = await _rewrap(desk, active, progress)
        at = desk.clock.now()
        old = [key.id for key in await desk.store.keys() if key.id != active and key.retired_at is None]
        retired = tuple([key_id for key_id in old if await desk.store.retire_key(key_id, at)])
        desk.bus.publish(KeyRotated(at=at, key_id=active, rewrapped=rewrapped, retired=len(retired)))
        return Rotation(
            key_id=active, resumed=resumed, rewrapped=rewrapped, retired=retired, problems=tuple(sorted(problems))
        )


async def prune(desk: Desk) -> list[str]:
    """Remove the retired keys for good; what was sealed under them before, in backups, does not open any more."""
    async with _alone(desk) as ring:
        if ring is None:
            raise ConfigError("the master keys are the host's; take the retired ones out of MOORING_MASTER_KEY")
        uses = await desk.store.key_uses()
        retired = [key.id for key in await desk.store.keys() if key.retired_at is not None and not uses.get(key.id)]
        return await anyio.to_thread.run_sync(ring.remove, retired)


async def _new_key(desk: Desk, ring: KeyRing | None, place: Place) -> None:
    if ring is None:
        raise ConfigError(
            "everything is sealed under the first key of MOORING_MASTER_KEY; to rotate, put a new one before it, "
            "as in new:...,old:..., and run this again"
        )
    await anyio.to_thread.run_sync(ring.add, place)
    desk.vault.reload()


async def _rewrap(desk: Desk, active: str, progress: Callable[[int, int], None] | None) -> tuple[int, set[str]]:
    """Wrap every record under the active key, again and again until none is left that can be: others write too."""
    done, problems = 0, set[str]()
    while True:
        stale = [one for one in await desk.store.list() if one.sealed and one.sealed.key_id != active]
        changes: list[Rewrapped] = []
        problems.clear()
        for connector in stale:
            assert connector.sealed is not None  # noqa: S101  for the type checker
            try:
                await desk.fetch(connector.sealed.key_id)
                sealed = desk.vault.rewrap(bound(connector), connector.sealed)
            except MooringError as error:
                problems.add(f"{connector.name}: {error.message}")
                continue
            changes.append(Rewrapped(connector=connector, sealed=sealed))
        if not changes:
            return done, problems
        for start in range(0, len(changes), BATCH):
            done += await desk.store.rewrap(changes[start : start + BATCH])
            if progress is not None:
                progress(done, len(changes))


@asynccontextmanager
async def _alone(desk: Desk) -> AsyncGenerator[KeyRing | None, None]:
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
