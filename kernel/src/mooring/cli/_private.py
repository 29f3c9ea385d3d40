"""A private folder for as long as a command runs. One that a killed process left is removed by the next."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from mooring.errors import InvalidConfig
from mooring.types import Secret

PREFIX = "mooring-exec-"
"""How the folders are named: nothing else is ever removed."""


@contextmanager
def private_folder(parent: Path) -> Generator[Path, None, None]:
    """A new folder (mode 0700). A child process holds its lock too, so that nobody sweeps it while the child lives."""
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(parent):
            _sweep(parent)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        reason = error.strerror
    else:
        os.set_inheritable(lock, True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
        return
    raise InvalidConfig(f"no private folder can be made in {parent}: {reason}; set MOORING_HOME to where one can")


def write_private(file: Path, content: Secret) -> None:
    """Write a new file (mode 0600), in folders of its own where its name has some (mode 0700)."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as sink:
        sink.write(content.reveal())


@contextmanager
def _locked(folder: Path) -> Generator[None, None, None]:
    """Hold a folder that is ours alone: in another's, or through a link, what is written could be had or replaced."""
    lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        if os.fstat(lock).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it is another user's")
        os.fchmod(lock, 0o700)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
