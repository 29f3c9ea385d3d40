"""The process of the command line: its streams, Ctrl-C before there is anything to interrupt, and the way out.

It is loaded before everything else, so it needs little.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from contextlib import suppress
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

INTERRUPTED = 130
PATIENCE = 0.2
"""How many seconds threads have to end, all together, when everything is done."""


ALLOCATIONS = 50_000
"""So many objects more, and the collector of cycles looks (CPython's own: 700)."""


def collect_rarely() -> None:
    """Have the collector look less often: what a command makes stays until it ends, and is gone through each time.

    With a thousand connectors, it is a quarter of the CPU.
    """
    gc.set_threshold(ALLOCATIONS, 20, 100)


def enter() -> None:
    """Make the process fit to work in, before anything is opened that could take the place of a closed stream."""
    collect_rarely()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as nohup has it
        signal.signal(signal.SIGINT, _stop)
    _reopen()
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _stop(_number: int, _frame: Any) -> None:
    """Leave at once: nothing has begun, and an exception might be lost in the middle of an import."""
    with suppress(OSError):
        os.write(2, b"\nInterrupted.\n" if os.isatty(2) else b"Interrupted.\n")
    os._exit(INTERRUPTED)


def _reopen() -> None:
    """Let no file that is opened later be a standard stream: the closed ones are held, stdout so that a write fails."""
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest number that is free: this one


def hush() -> None:
    """What fails where nobody can catch it may quote anything: it is not shown; `_broker` shows it with --debug."""
    import threading

    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None


def begin() -> None:
    """From now on there is something to clean up: Ctrl-C is an exception."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def leave(code: int) -> NoReturn:
    """End the process with this code. A thread that hangs is left behind, its child processes are ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):  # said already, or nobody is there to be told; not once more at the very end
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    if _hanging():
        _end_children()
        os._exit(code)
    if code == INTERRUPTED:
        os._exit(code)  # CPython ends by the signal itself if it was in an exec() when it was interrupted
    sys.exit(code)


def _hanging() -> bool:
    """Whether a thread would keep the process from ending."""
    threading = sys.modules.get("threading")
    if threading is None:
        return False
    end = monotonic() + PATIENCE
    others = [one for one in threading.enumerate() if one is not threading.current_thread() and not one.daemon]
    for one in others:
        with suppress(RuntimeError):  # not started yet
            one.join(max(0.0, end - monotonic()))
    return any(one.is_alive() for one in others)


def _end_children() -> None:
    """End the child processes that are being waited for; nobody but the garbage collector knows them."""
    if subprocess := sys.modules.get("subprocess"):
        for one in gc.get_objects():
            if isinstance(one, subprocess.Popen) and one.returncode is None:
                with suppress(OSError):
                    one.terminate()
