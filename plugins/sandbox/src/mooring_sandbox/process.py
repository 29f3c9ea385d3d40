"""A server as a child process that cannot outlive this one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from mooring.errors import MooringError

KEEPER = Path(__file__).with_name("keeper.py")
LOG_LINES = 3
POLL_SECONDS = 0.05
STOP_SECONDS = 10
INHERITED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG")


class ServerFailed(MooringError):
    """Raised when a server of the sandbox does not start, or ends by itself. The message ends with its last words."""


class Server(ABC):
    """A program under a keeper (see keeper.py), with a folder and a log of its own.

    The keeper kills it and removes `sandbox_folder` when `stop` is called or this process ends, in whatever way.
    """

    title: ClassVar[str]

    def __init__(self, sandbox_folder: Path, name: str) -> None:
        self.sandbox_folder = sandbox_folder
        self.folder = sandbox_folder / name
        self.folder.mkdir()
        self.log = self.folder / "log"
        self._keeper: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments, which are visible to every user: no secrets."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether the very program that we started answers."""

    def environment(self) -> dict[str, str]:
        """The variables that the program sees: none of the person's own settings."""
        kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return kept | {"HOME": str(self.folder), "TMPDIR": str(self.folder)}

    def litter(self) -> Iterable[Path]:
        """What the program leaves outside its folder."""
        return ()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._keeper is not None and self._keeper.poll() is None

    def start(self) -> None:
        """Start the program, without waiting for it."""
        litter = [str(path) for path in (self.sandbox_folder, *self.litter())]
        command = [sys.executable, "-I", "-S", str(KEEPER), *litter, "--", *self.command()]
        with self.log.open("wb") as log:
            self._keeper = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,  # Ctrl-C is ours to handle
            )

    def wait_until_ready(self, within: timedelta, pause: Callable[[float], None] = time.sleep) -> None:
        """Return when the server answers; `pause` is how to wait between two looks.

        Raises:
            ServerFailed: it ended, or the time is over.
        """
        deadline = time.monotonic() + within.total_seconds()
        while not self.ready():
            self.check()
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"{self.title} did not answer within {within.total_seconds():g} s; {self._last_words()}"
                )
            pause(POLL_SECONDS)

    def check(self) -> None:
        """Make sure that the server has not ended by itself.

        Raises:
            ServerFailed: it has.
        """
        if self._keeper is not None and (status := self._keeper.poll()) is not None:
            raise ServerFailed(f"{self.title} ended by itself (status {status}); {self._last_words()}")

    def stop(self) -> None:
        """Kill the server and wait for its end. May be called at any time, and again."""
        if self._keeper is None or self._keeper.stdin is None:
            return
        self._keeper.stdin.close()
        try:
            self._keeper.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()

    def _last_words(self) -> str:
        try:
            with self.log.open(errors="replace") as lines:
                last = deque((line.strip() for line in lines if line.strip()), maxlen=LOG_LINES)
        except OSError:
            last = deque()
        return "its log ends: " + " | ".join(last) if last else "its log is empty"
