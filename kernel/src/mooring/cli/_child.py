"""A child process as if it stood in our place: its signals, its exit code, its terminal."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from mooring.cli._concealing import Concealing, Known
from mooring.cli._output import say

FORWARDED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2")
FROM_THE_TERMINAL = ("SIGINT", "SIGQUIT")
"""What a terminal sends to all of its foreground processes, the child too."""
NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""Exit codes of a command that cannot be run, as shells have them."""
SIGNALLED = 128
CHUNK = 1 << 16


class Outputs:
    """The child's stdout and stderr: ours, or where secrets are to be masked and nobody looks on, pipes to ours."""

    def __init__(self, known: Known | None) -> None:
        self._known = known
        self._threads: list[Thread] = []
        self._failures: list[OSError] = []
        self._ours: list[int] = []
        self.stdout = self._through(1)
        same = os.path.sameopenfile(1, 2) and self.stdout != 1
        self.stderr = self.stdout if same else self._through(2)  # the order of the two is kept

    def _through(self, number: int) -> int:
        if self._known is None or os.isatty(number):
            return number
        source, sink = os.pipe()
        self._ours.append(sink)
        thread = Thread(target=_pump, args=(source, number, Concealing(self._known), self._failures), daemon=True)
        thread.start()
        self._threads.append(thread)
        return sink

    def close_ours(self) -> None:
        """Only the child shall hold the pipes."""
        while self._ours:
            os.close(self._ours.pop())

    def wait(self) -> OSError | None:
        """Until all is written that the child and its own children had to say; why it could not be, else."""
        for thread in self._threads:
            thread.join()
        return next(iter(self._failures), None)


def _pump(source: int, target: int, concealing: Concealing, failures: list[OSError]) -> None:
    with os.fdopen(source, "rb", buffering=0) as pipe:
        try:
            while data := pipe.read(CHUNK):
                _write(target, concealing.feed(data))
            _write(target, concealing.end())
        except OSError as error:
            if error.errno != errno.EPIPE:  # whoever read us has gone: so have we
                failures.append(error)


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(target, view) :]
        except BlockingIOError:  # whoever shares our stdout may have made it so
            select.select((), (target,), ())


def run_child(command: Sequence[str], environment: Mapping[str, str], outputs: Outputs, forwarding: Forwarding) -> int:
    """Run a command to its end; its exit code, 128 and the signal's number if one ended it."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        process = subprocess.Popen(  # noqa: S603  it is what the user wants to run
            command, env=environment, stdout=outputs.stdout, stderr=outputs.stderr, close_fds=False
        )
    except OSError as error:
        say(f"Error: the command cannot be run: {error.strerror}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    finally:
        outputs.close_ours()
    forwarding.started(process)
    code = process.wait()
    return code if code >= 0 else SIGNALLED - code


class Forwarding:
    """Where signals go to; those that come before there is a child wait for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def __call__(self, number: int, _frame: Any) -> None:
        if self._process is None:
            self._early.append(number)
        elif signal.Signals(number).name not in FROM_THE_TERMINAL or not _in_foreground():
            self._process.send_signal(number)

    def started(self, process: subprocess.Popen[bytes]) -> None:
        """From now on, to this one."""
        self._process = process
        for number in self._early:
            process.send_signal(number)


@contextmanager
def forwarded() -> Generator[Forwarding, None, None]:
    """Take signals, but for those that are ignored, as nohup has it."""
    forwarding = Forwarding()
    numbers = [signal.Signals[name] for name in FORWARDED]
    before = {one: old for one in numbers if (old := signal.getsignal(one)) is not signal.SIG_IGN}
    try:
        for one in before:
            signal.signal(one, forwarding)
        yield forwarding
    finally:
        for one, old in before.items():
            signal.signal(one, old)


def _in_foreground() -> bool:
    """Whether our terminal's Ctrl-C comes to us, and so to the child."""
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return False
