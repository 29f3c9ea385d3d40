"""Backup, restore and check of everything at rest."""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread

from mooring.broker._desk import DOCUMENT, Desk
from mooring.broker._keys import alone, rewrap
from mooring.errors import (
    ConfigError,
    KeyRetired,
    MooringError,
    NameTaken,
    StoreCorrupt,
    StoreTooNew,
    StoreUnavailable,
)
from mooring.store import Portable, Store
from mooring.types import Struct
from mooring.vault import BackupNote, read_backup, write_backup

SCRATCH = re.compile(r"\.mooring-[0-9a-f]{16}(-wal|-shm|-journal)?")
STALE_SECONDS = 3600
"""A scratch file that nobody has written for so long was left by a process that was killed."""


class Report(Struct):
    """What a check found."""

    connectors: int
    """Those that can be read."""
    problems: tuple[str, ...]
    """What is wrong, in sentences; nothing if all is well."""
    closed: tuple[str, ...] = ()
    """Those of them that are about a seal which does not open."""
    documents: int = 0
    """Named secrets, and what system plugins keep, that can be read."""


class Restored(Struct):
    """What was restored."""

    note: BackupNote
    saved: str | None
    """Where what was stored before was backed up to."""


async def back_up(desk: Desk, path: Path, version: str) -> BackupNote:
    """Write a sealed backup into a new file: all of the store, as of one moment."""
    with desk.failing_on_record("back-up"):
        store = _portable(desk)
        async with alone(desk):
            note = await _back_up(desk, store, path, version)
            await desk.books.write(audit=[desk.entry("back-up")])
            return note


async def _back_up(desk: Desk, store: Portable, path: Path, version: str) -> BackupNote:
    """Everything in it is under the active key, and so is the backup: one key opens it."""
    if await anyio.to_thread.run_sync(os.path.lexists, path):
        raise NameTaken(f"{path} exists already; a backup is written into a new file")
    await desk.prepare_to_seal()
    active = desk.vault.keys[0].id
    if any(key.id == active and key.retired_at for key in await desk.store.keys()):
        raise KeyRetired(f"master key {active!r} was retired by a rotation; put the one that replaced it first")
    async with _scratch(store.path) as image, _scratch(path) as draft:  # what is not sealed stays beside the store
        now = desk.clock.now()
        await store.snapshot(image)
        async with store.reading(image) as copy:
            await rewrap(desk, copy, Counter())
            found = await copy.list()
        note = BackupNote(created_at=now, connectors=len(found) + len(found.damaged), version=version)
        await anyio.to_thread.run_sync(_seal, desk, note, image, draft, path)
    return note


async def restore(desk: Desk, path: Path, version: str, *, replace: bool) -> Restored:
    """Put what a backup holds in the place of what is stored, in one step.

    No key can be made or removed meanwhile. What is restored is wrapped under the active key, and a key that was
    retired here stays retired.
    """
    with desk.failing_on_record("restore"):
        restored = await _restore(desk, path, version, replace=replace)
        await desk.books.write(audit=[desk.entry("restore")])
        return restored


async def _restore(desk: Desk, path: Path, version: str, *, replace: bool) -> Restored:
    store = _portable(desk)
    async with alone(desk):
        stored = await desk.store.list()
        count = len(stored) + len(stored.damaged)
        if count and not replace:
            raise NameTaken(f"the store holds {count} connectors; to have the backup's in their place, say --replace")
        async with _opened(desk, path, store.path) as (note, image):
            saved = None
            if count:
                saved = store.path.with_name(f"before-restore-{desk.clock.now():%Y%m%dT%H%M%S.%f}.backup")
                await _back_up(desk, store, saved, version)
            async with store.reading(image) as copy:
                await rewrap(desk, copy, Counter())
                for key in await desk.store.keys():
                    await copy.note_key(key)
                    if key.retired_at is not None:
                        await copy.retire_key(key.id, key.retired_at)
            await store.restore(image)
        desk.forget_keys()
    return Restored(note=note, saved=str(saved) if saved else None)


async def check(desk: Desk, backup: Path | None) -> Report:
    """Look at the file, every record and every seal, of the store or of a backup."""
    if backup is None:
        return await _look(desk, desk.store)
    store = _portable(desk)
    async with _opened(desk, backup, store.path) as (_, image), store.reading(image) as other:
        return await _look(desk, other)


async def _look(desk: Desk, store: Store) -> Report:
    problems = list(await store.check()) if isinstance(store, Portable) else []
    try:
        found = await store.list()
    except StoreCorrupt as error:
        return Report(connectors=0, problems=tuple(dict.fromkeys((*problems, error.message))))
    problems += [error.message for error in found.damaged]
    try:
        problems += await store.ledger.damaged()
        await store.undos()
    except StoreCorrupt as error:
        problems.append(error.message)
    closed: list[str] = []
    for connector in found:
        try:
            await desk.open(connector)
        except MooringError as error:
            closed.append(f"connector {connector.name!r}: {error.message}")
    documents = sum(one.type.startswith(DOCUMENT) for one in found)
    return Report(
        connectors=len(found) - documents, documents=documents, problems=(*problems, *closed), closed=tuple(closed)
    )


def _portable(desk: Desk) -> Portable:
    if isinstance(desk.store, Portable):
        return desk.store
    raise ConfigError("this store is not a file of mooring's; back it up, restore and check it by its own means")


@asynccontextmanager
async def _opened(desk: Desk, path: Path, scratch: Path) -> AsyncGenerator[tuple[BackupNote, Path], None]:
    """A backup, and the file that it holds."""
    async with _scratch(scratch) as image:
        note = await anyio.to_thread.run_sync(_unseal, desk, path, image)
        try:
            yield note, image
        except (StoreCorrupt, StoreTooNew) as error:
            told = error.message.replace(f"the store {image}", str(image)).replace(str(image), f"the backup {path}")
            problem = type(error)(told)
        else:
            return
        raise problem


@asynccontextmanager
async def _scratch(path: Path) -> AsyncGenerator[Path, None]:
    """The name of a file beside that one, which is gone afterwards; what killed processes left goes first."""
    await anyio.to_thread.run_sync(_sweep, path.parent)
    file = path.with_name(f".mooring-{secrets.token_hex(8)}")
    try:
        yield file
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with suppress(OSError):
                file.with_name(file.name + suffix).unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    with suppress(OSError):
        for file in folder.iterdir():
            if SCRATCH.fullmatch(file.name) and time.time() - file.stat().st_mtime > STALE_SECONDS:
                file.unlink(missing_ok=True)


def _seal(desk: Desk, note: BackupNote, image: Path, draft: Path, path: Path) -> None:
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as sink, image.open("rb") as source:
            write_backup(desk.vault, note, source, sink)
            sink.flush()
            os.fsync(sink.fileno())
        _put(draft, path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    else:
        return
    raise StoreUnavailable(f"the backup {path} cannot be written: {reason}; choose another place, or free some space")


def _put(draft: Path, path: Path) -> None:
    """Give the draft its name, and take it from nobody."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise
        draft.rename(path)


def _unseal(desk: Desk, path: Path, image: Path) -> BackupNote:
    failed = f"the backup {path} cannot be read"
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is not a regular file")  # a pipe would be waited for
        with path.open("rb") as source:
            note, chunks = read_backup(desk.vault, source, str(path))
            failed = f"the backup {path} cannot be unpacked in {image.parent}"
            fd = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as sink:
                sink.writelines(chunks)
    except OSError as error:
        problem = StoreUnavailable(f"{failed}: {error.strerror or type(error).__name__}")
    else:
        return note
    raise problem
