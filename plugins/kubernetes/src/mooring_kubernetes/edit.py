"""A kubeconfig changed in place: under kubectl's own lock, atomically, with a backup, and all else as it was."""

from __future__ import annotations

import io
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mooring as m
from mooring_kubernetes.way import LONGEST_FILE

FIELD = "file"
BACKUP = ".mooring-backup"
LOCK = ".lock"
LOCK_SECONDS = 3.0
POLL_SECONDS = 0.05
INDENTED = re.compile(r"^(?:clusters|users|contexts):[ \t]*\n(?:[ \t]*#.*\n)*( +)- ", re.MULTILINE)


def edit(path: Path, change: Callable[[Any], list[str]]) -> tuple[list[str], str | None]:
    """Let `change` alter the document; gives what it gives, and where the former content is.

    Where nothing changes, nothing is written. A link stays one: what it leads to is changed. Blocks.

    Raises:
        InvalidConfig: the file is broken, cannot be read or written, or somebody else changes it.
    """
    path = Path(os.path.realpath(path))
    try:
        with _locked(path):
            before = _read(path)
            document = _parsed(before, path)
            names = change(document)
            if not names:
                return [], None
            after = _text(document, before)
            if after == before:
                return names, None
            mode = stat.S_IMODE(path.stat().st_mode) if before is not None else 0o600
            if before is not None and not mode & 0o222:
                raise m.InvalidConfig(f"{path} is read-only; let it be written, or name another file", field=FIELD)
            backup = None
            if before is not None:
                backup = Path(f"{path}{BACKUP}")
                _replace(backup, before, mode & 0o700)
            if _read(path) != before:
                raise m.InvalidConfig(f"{path} was changed by another process meanwhile; try again", field=FIELD)
            _replace(path, after, mode)
            return names, str(backup) if backup is not None else None
    except OSError as error:
        reason = error.strerror or "an error of the system"
    raise m.InvalidConfig(f"{path} cannot be changed ({reason}); check its rights and those of its folder", field=FIELD)


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
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_FILE + 1)
    except FileNotFoundError:
        return None
    if len(content) > LONGEST_FILE:
        raise m.InvalidConfig(f"{path} is longer than 1 MiB; name the right file", field=FIELD)
    return content


def _parsed(content: bytes | None, path: Path) -> Any:
    """The document, with its comments and its style."""
    from ruamel.yaml.error import YAMLError

    where = ""
    try:
        document = _yaml(content).load((content or b"").decode())
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
    except (ValueError, RecursionError):
        pass
    else:
        document = _yaml(None).load("apiVersion: v1\nkind: Config\n") if document is None else document
        if isinstance(document, dict) and document.get("kind", "Config") == "Config":
            return document
    raise m.InvalidConfig(
        f"{path} is no kubeconfig{where}; nothing was changed; check it with: kubectl config view", field=FIELD
    )


def _yaml(content: bytes | None) -> Any:
    """A parser and writer in the style of a text."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = LONGEST_FILE
    indented = INDENTED.search((content or b"").decode(errors="replace"))
    if indented:
        yaml.indent(mapping=2, sequence=len(indented[1]) + 2, offset=len(indented[1]))
    return yaml


def _text(document: Any, before: bytes | None) -> bytes:
    buffer = io.StringIO()
    _yaml(before).dump(document, buffer)
    return buffer.getvalue().encode()


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
