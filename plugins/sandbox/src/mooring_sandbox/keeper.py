"""Runs one program for as long as its own standard input stays open: `keeper.py PATH... -- COMMAND...`.

The other end of that pipe is held by the process that wants the program. When it closes the pipe, or dies in whatever
way, the program is killed and the PATHs are removed. Should the keeper itself be killed, Linux kills the program.
(PR_SET_PDEATHSIG from the wanting process would not do: it fires when the *thread* that started the program ends.)

A file on its own: it is run by path, without the package, and imports little, so that it starts fast.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the command of `sys.argv`; its exit code becomes ours."""
    separator = sys.argv.index("--")
    litter, command = sys.argv[1:separator], sys.argv[separator + 1 :]
    program = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=_die_with_keeper() if sys.platform == "linux" else None,  # noqa: PLW1509  (no thread yet)
    )
    unwanted = threading.Event()

    def watch() -> None:
        while os.read(0, 4096):
            pass
        unwanted.set()
        program.kill()

    threading.Thread(target=watch, daemon=True).start()
    status = program.wait()
    if unwanted.is_set():
        for path in litter:
            _remove(path)
    return status & 0xFF


def _die_with_keeper() -> Callable[[], None]:
    import ctypes

    libc, keeper = ctypes.CDLL(None), os.getpid()

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:  # it died before we asked
            os._exit(1)

    return ask


def _remove(path: str) -> None:
    with suppress(OSError):
        if Path(path).is_dir():
            shutil.rmtree(path, ignore_errors=True)  # another keeper may be removing it too
        else:
            Path(path).unlink()


if __name__ == "__main__":
    sys.exit(main())
