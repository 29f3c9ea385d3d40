"""What is under way, shown on a terminal while it is, and gone from it afterwards. Elsewhere nothing is shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from mooring.cli._output import console
from mooring.cli._signals import undoing

if TYPE_CHECKING:
    from mooring.cli._live import Live
    from mooring.cli._reach import Reach, Row


class Watch:
    """The replies, as they land. It begins where it is known how many connectors are asked, and ends outside of that:
    what hangs there draws no more.
    """

    def __init__(self, reach: Reach, *, rows: bool) -> None:
        self._reach = reach
        self._rows = rows
        self._live: Live | None = None
        self._ended = False

    def begin(self, connectors: int) -> None:
        """Show a bar on stderr; with rows, the last of them above it on stdout, where the table will be."""
        rows = self._rows and sys.stdout.isatty()
        stream = sys.stdout if rows else sys.stderr
        if stream.isatty() and not self._ended:
            from mooring.cli._live import Live

            self._live = Live(self._reach, stream, connectors, rows=rows)

    def heard(self, row: Row | None) -> None:
        """Take note of a reply."""
        if self._live is not None and row is not None:
            self._live.add(row)

    def end(self) -> None:
        """Take it off the terminal."""
        self._ended = True
        if self._live is not None:
            self._live.end()


@contextmanager
def watching(reach: Reach, *, rows: bool = False) -> Generator[Watch, None, None]:
    """Show what is found, while it is, once the watch has begun."""
    watch = Watch(reach, rows=rows)
    with _cursor_comes_back():
        try:
            yield watch
        finally:
            watch.end()


@contextmanager
def _cursor_comes_back() -> Generator[None, None, None]:
    """It is hidden while something is drawn, and would stay so if the process were terminated."""
    streams = [stream.fileno() for stream in (sys.stdout, sys.stderr) if stream.isatty()]

    def show() -> None:
        for stream in streams[:1]:
            with suppress(OSError):
                os.write(stream, b"\x1b[?25h\n")

    with undoing(show):
        yield


@contextmanager
def bar(description: str, total: int) -> Generator[Callable[[int, str], None], None, None]:
    """A bar on stderr, on a terminal only, to be told how many are done, and a new description."""
    if not sys.stderr.isatty():
        yield lambda _done, _description: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(sys.stderr), transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done, description: progress.update(task, completed=done, description=description)
