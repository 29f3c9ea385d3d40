"""A command on a terminal of its own, read and answered as a person would: test equipment."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import termios
import time
from collections.abc import Iterable

PATIENCE = 60.0
"""Seconds until a terminal on which nothing happens is given up."""


class Terminal:
    """`mooring` with these arguments, on a terminal.

    Args:
        arguments: of `mooring`.
        environment: of the process, beside this one's.
    """

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.shown = ""
        self._read_to = 0
        self._insists = False
        self._child, self._fd = pty.fork()
        if self._child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored, as nohup and some CI have it
            os.environ.update(environment)
            os.execv(sys.executable, [sys.executable, "-m", "mooring", *arguments])

    def asked(self, prompt: str) -> str:
        """Wait until that is asked; all that is shown from the question before on."""
        deadline = time.monotonic() + PATIENCE
        while prompt not in (new := self.shown[self._read_to :]) or not new.endswith(": "):
            assert self._more(), f"it ended before it asked for {prompt!r}:\n{self.shown}"
            assert time.monotonic() < deadline, self.shown
        self._read_to = len(self.shown)
        return new

    def answer(self, prompt: str, text: str = "") -> str:
        """Wait until that is asked, and type a line; what was shown before."""
        new = self.asked(prompt)
        os.write(self._fd, f"{text}\n".encode())
        return new

    def answers(self, given: Iterable[tuple[str, str]]) -> None:
        """All of them, one after the other."""
        for prompt, text in given:
            self.answer(prompt, text)

    def press(self, key: bytes) -> None:
        """A key: Ctrl-C again until it ends, for Python misses one that comes just before it begins to read."""
        os.write(self._fd, key)
        self._insists = key == b"\x03"

    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self._fd)[3] & termios.ECHO)

    def kill(self, number: int) -> None:
        """Send a signal."""
        os.kill(self._child, number)

    def wait(self) -> int:
        """Wait for the process, with its terminal still there: the exit code, or less than 0 for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])

    def end(self) -> int:
        """Wait for the end: the exit code."""
        while self._more():
            pass
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])

    def _more(self) -> bool:
        deadline = time.monotonic() + PATIENCE
        while not select.select([self._fd], [], [], 2)[0]:
            assert time.monotonic() < deadline, self.shown
            if self._insists:
                os.write(self._fd, b"\x03")
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            return False
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)
