"""A table that fills on the terminal, by rich: the last rows, how many there are more, and a bar."""

from __future__ import annotations

import os
import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from mooring.cli._output import GAP, Bad, console, printable
from mooring.cli._values import counted

if TYPE_CHECKING:
    from mooring.cli._reach import Reach, Row

COLUMNS = ("CONNECTOR", "RESOURCE TYPE", "RESOURCE NAME")
KEPT = 200
"""So many rows are held at most; higher terminals stay empty above."""
LEAST = 24
"""Columns that a connector's name keeps, if it is that long."""
BESIDE = 5
"""Lines that are no rows: the head, how many there are more, the bar, and two that stay free."""


class Live:
    """From when it is made until its end. rich draws it from a thread of its own, some times a second."""

    def __init__(self, reach: Reach, stream: TextIO, connectors: int, *, rows: bool) -> None:
        self._reach = reach
        self._rows: deque[Row] | None = deque(maxlen=KEPT) if rows else None
        self._console = _fitting(stream)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeElapsedColumn())
        self._bar = Progress(*columns, console=self._console, expand=True)
        self._task = self._bar.add_task("", total=connectors)
        self._connectors = connectors
        self._live = RichLive(
            console=self._console,
            get_renderable=self._view,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=sys.stderr.isatty(),
        )
        if not self._console.is_dumb_terminal:
            self._live.start()

    def add(self, row: Row) -> None:
        """Show one more; draws nothing by itself."""
        if self._rows is not None:
            self._rows.append(row)

    def end(self) -> None:
        """Leave no trace."""
        self._live.stop()

    def _view(self) -> RenderableType:
        reach = self._reach
        done = len(reach.done)
        told = [f"{done}/{counted(self._connectors, 'connector')}", counted(reach.count, "resource")]
        if reach.errors:
            told.append(counted(reach.errors, "error"))
        self._bar.update(self._task, completed=done, description=", ".join(told))
        if not self._rows:
            return self._bar
        height = self._console.size.height
        shown = tuple(self._rows.copy())[-max(1, height - BESIDE) :]
        more = reach.count + reach.errors - len(shown)
        head = [Text(f"... and {more} more above", style="dim")] if more > 0 else []
        return Group(_table(shown), *head, self._bar)


def _table(rows: tuple[Row, ...]) -> Table:
    """Rows of one line each; what does not fit is cut, for the whole table comes in the end."""
    table = Table(box=None, pad_edge=False, padding=(0, len(GAP), 0, 0), header_style="bold")
    longest = max((len(printable(row.connector)) for row in rows), default=0)
    for name, least in zip(COLUMNS, (min(longest, LEAST), None, None), strict=True):
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=least)
    for row in rows:
        texts = (Text(printable(text), style="red" if isinstance(text, Bad) else "") for text in row)
        table.add_row(*texts)
    return table


def _fitting(stream: TextIO) -> Console:
    """A console as wide as tables are, but no wider than the terminal: what that breaks could not be taken back."""
    made = console(stream)
    with suppress(OSError):
        made.width = min(made.width, os.get_terminal_size(stream.fileno()).columns or made.width)
    made.width = max(made.width - len("^C"), 1)  # a terminal writes that where the cursor is: at the end of the bar
    return made
