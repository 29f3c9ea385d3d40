"""The configuration files of docker, and of podman and its kin: where they are, reading, and changing one safely."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import mooring as m
from mooring_docker.logins import OURS

T = TypeVar("T")

LONGEST_FILE = 4 * 1024 * 1024
"""Bytes of a configuration file that are read, at most."""
PRIVATE = 0o600


def docker_file() -> Path:
    """Docker's `config.json`."""
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def containers_files() -> tuple[Path, ...]:
    """The `auth.json` of podman, skopeo and buildah, in their order.

    Source: https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md
    """
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        return (Path(named),)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    config = os.environ.get("XDG_CONFIG_HOME")
    found = [Path(runtime) / "containers" / "auth.json"] if runtime else []
    return (*found, (Path(config) if config else Path.home() / ".config") / "containers" / "auth.json")


def read(path: Path) -> tuple[bytes | None, dict[str, Any]]:
    """The file's content, None if there is none, and what it holds.

    Raises:
        InvalidConfig: it cannot be read, is too long, or is not a JSON object. Never says its content.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise m.InvalidConfig(f"{path} is no regular file; move it away")
            content = file.read(LONGEST_FILE + 1)
    except FileNotFoundError:
        return None, {}
    except OSError as error:
        raise m.InvalidConfig(f"{path} cannot be read ({error.strerror}); check it and its permissions") from None
    if len(content) > LONGEST_FILE:
        raise m.InvalidConfig(f"{path} is longer than {LONGEST_FILE >> 20} MiB; take out what is no longer needed")
    if not content.strip():
        return content, {}
    values = _parsed(content)
    if values is None:
        raise m.InvalidConfig(f"{path} is broken: it is no JSON object; mend it, or move it away")
    return content, values


def _give(name: str, like: os.stat_result) -> None:
    """To the owner of another file, if we may: root may call us for somebody."""
    now = Path(name).stat()
    if (now.st_uid, now.st_gid) != (like.st_uid, like.st_gid):
        with suppress(PermissionError):
            os.chown(name, like.st_uid, like.st_gid)


def _without_waiting(path: str, flags: int) -> int:
    """A pipe in the place of a file has perhaps no writer, ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _parsed(content: bytes) -> dict[str, Any] | None:
    """A function of its own: no frame of an error holds what the file says."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def table(values: dict[str, Any], name: str) -> dict[str, Any]:
    """The object under a name, such as `auths`; empty if there is none."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def discreetly(work: Callable[[], T]) -> T:
    """What `work` gives; an error of ours leaves without its frames, which held what the files hold."""
    try:
        return work()
    except m.MooringError as error:
        problem = error
    raise problem.with_traceback(None)


@contextmanager
def alone(folder: Path) -> Generator[None, None, None]:
    """With no other login or logout of ours at work, as far as the system has locks for that.

    Raises:
        InvalidConfig: the folder cannot be had.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise m.InvalidConfig(f"{folder} cannot be used ({error.strerror}); check its permissions") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def change(path: Path, edit: Callable[[dict[str, Any]], bool], *, keep: bool = True) -> str | None:
    """Edit a JSON file in place, atomically, and `keep` beside it what it was before mooring; gives where that is.

    `edit` changes the values and says whether there was anything to do; if not, nothing is written.

    Raises:
        InvalidConfig: the file is broken, cannot be written, or was changed meanwhile. Then it is as it was.
    """
    before, values = read(path)
    path = path.resolve()  # a link stays a link
    backup = path.with_name(f"{path.name}.before-mooring") if before and keep else None
    if backup and backup.exists() and OURS in table(values, "credHelpers").values():
        backup = None  # what was before mooring is there already
    if not edit(values):
        return None
    content = (json.dumps(values, indent="\t", ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        like = path.stat() if before is not None else None
        if like is not None and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if backup and before:
            _replace(backup, before, like, mode=PRIVATE)
        _replace(path, content, like, lambda: _unchanged(path, before))
    except OSError as error:
        raise m.InvalidConfig(f"{path} cannot be written ({error.strerror}); check its permissions") from None
    return str(backup) if backup else None


def _unchanged(path: Path, before: bytes | None) -> None:
    if read(path)[0] != before:
        raise m.InvalidConfig(f"{path} was changed by another program meanwhile, and is left as it is; try again")


def _replace(
    path: Path,
    content: bytes,
    like: os.stat_result | None,
    last_look: Callable[[], None] = lambda: None,
    *,
    mode: int | None = None,
) -> None:
    """Put a file in the place of another, at once and durably; with the owner and mode of that, else private."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if like is not None and sys.platform != "win32":
            _give(name, like)
        Path(name).chmod(mode or (stat.S_IMODE(like.st_mode) if like is not None else PRIVATE))
        last_look()
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
