"""A kubeconfig changed in place: under kubectl's own lock, atomically, with a backup, and all else as it was."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mooring as m
from mooring_kubernetes.plain import Unreadable, plain
from mooring_kubernetes.style import styled, written
from mooring_kubernetes.way import LONGEST_FILE

FIELD = "file"
BACKUP = ".before-mooring"
LOCK = ".lock"
LOCK_SECONDS = 3.0
POLL_SECONDS = 0.05
NEW = "apiVersion: v1\nkind: Config\n"


def edit(
    path: Path, change: Callable[[Any], list[str]], ours: Callable[[Any], bool] = lambda _: False
) -> tuple[list[str], str | None]:
    """Let `change` alter the document; gives what it gives, and where the former content was put.

    Where nothing changes, nothing is written. A link stays one: what it leads to is changed. `change` is called twice:
    on the document with its comments, and on its plain values, by which what is written is checked. A document that is
    `ours` already is put nowhere if there is a backup: that is of what was there before mooring. Blocks.

    Raises:
        InvalidConfig: the file is broken, cannot be read or written, or somebody else changes it.
    """
    reason = "its name cannot be one"
    try:
        path = Path(os.path.realpath(path))
        with _locked(path):
            before = _read(path)
            marked = False

            def altered(document: Any) -> list[str]:
                nonlocal marked
                marked = marked or ours(document)
                return change(document)

            names, after = _changed(before, path, altered)
            if not names or after == before:
                return names, None
            backup = Path(f"{path}{BACKUP}")
            kept = before is not None and not (marked and backup.exists())
            if before is not None and kept:
                _replace(backup, before, _mode(path) & 0o700)
            if _read(path) != before:
                raise m.InvalidConfig(f"{path} was changed by another process meanwhile; try again", field=FIELD)
            _replace(path, after, _mode(path))
            return names, str(backup) if kept else None
    except OSError as error:
        reason = error.strerror or "an error of the system"
    except ValueError:
        pass  # a path with what no path can have
    raise m.InvalidConfig(f"{path} cannot be changed ({reason}); check its rights and those of its folder", field=FIELD)


def check(path: Path) -> None:
    """Raise InvalidConfig unless the file could be edited as far as its content goes. Blocks."""
    edit(path, lambda _: [])


@contextmanager
def _locked(path: Path) -> Generator[None, None, None]:
    """The lock that kubectl takes too: a file beside it, made by whoever is first."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock, ends = Path(f"{path}{LOCK}"), time.monotonic() + LOCK_SECONDS
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            break
        except FileExistsError:
            pass
        if time.monotonic() > ends:
            raise m.InvalidConfig(
                f"another process holds {lock}; wait for it, or remove that file if none is left", field=FIELD
            )
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    """What the file holds; None if there is none.

    Raises:
        InvalidConfig: it is a device, a pipe or a folder, or too long.
    """
    if path.exists() and not path.is_file():
        raise m.InvalidConfig(f"{path} cannot be changed, as it is no plain file; name another", field=FIELD)
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_FILE + 1)
    except FileNotFoundError:
        return None
    if len(content) > LONGEST_FILE:
        raise m.InvalidConfig(f"{path} is longer than 1 MiB; name the right file", field=FIELD)
    return content


def _changed(before: bytes | None, path: Path, change: Callable[[Any], list[str]]) -> tuple[list[str], bytes]:
    """What `change` gives, and the content that it makes of the former one."""
    where = ""
    try:
        text = (before or b"").decode()
        values = plain(text)
        document = styled(text if values is not None else f"{text}\n{NEW}" if text.strip() else NEW)
        values = plain(NEW) if values is None else values
        if isinstance(values, dict) and isinstance(document, dict) and values.get("kind", "Config") == "Config":
            names = change(document)
            if not names:
                return [], b""
            change(values)
            after = written(document, text)
            if plain(after) != values:
                raise m.InvalidConfig(
                    f"{path} cannot be changed without changing more of it; nothing was changed; name another file",
                    field=FIELD,
                )
            return names, after.encode()
    except Unreadable as error:
        where = f" (line {error.line})" if error.line is not None else ""
    except UnicodeError:
        pass
    raise m.InvalidConfig(
        f"{path} is no kubeconfig{where}; nothing was changed; check it with: kubectl config view", field=FIELD
    )


def _mode(path: Path) -> int:
    """The mode of the file, or what a new one gets.

    Raises:
        InvalidConfig: it may not be written. Its folder might let us, but whoever made it read-only meant it.
    """
    if not path.exists():
        return 0o600
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o222 or not os.access(path, os.W_OK):
        raise m.InvalidConfig(f"{path} is read-only; let it be written, or name another file", field=FIELD)
    return mode


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write a file as a whole, or not at all."""
    number, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        if path.exists() and hasattr(os, "chown"):
            owner = path.stat()
            with suppress(PermissionError):  # only root can give a file away
                os.chown(temporary, owner.st_uid, owner.st_gid)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
