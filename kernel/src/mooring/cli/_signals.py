"""What a command does to a terminal is undone also if a signal ends it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import current_thread, main_thread

try:
    import termios
except ImportError:  # not a system with terminals of that kind
    termios = None  # type: ignore[assignment]

ENDING = ("SIGTERM", "SIGHUP", "SIGQUIT")


@contextmanager
def undoing(undo: Callable[[], object]) -> Generator[None, None, None]:
    """Call `undo` before a signal ends the process; not where something else hears that signal."""
    known = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    heard = [one for one in known if signal.getsignal(one) is signal.SIG_DFL]
    if current_thread() is not main_thread():
        heard = []

    def end(number: int, _frame: object) -> None:
        undo()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    for one in heard:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one in heard:
            signal.signal(one, signal.SIG_DFL)


@contextmanager
def typing_hidden() -> Generator[None, None, None]:
    """The terminal on stdin shows again what is typed, whatever ends the process."""
    if termios is None or not sys.stdin.isatty():
        yield
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    with undoing(lambda: termios.tcsetattr(number, termios.TCSANOW, before)):
        yield
