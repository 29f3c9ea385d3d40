"""Tables within a width, drawn by rich. No name is broken as long as anything else helps."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from mooring.cli._output import GAP, Bad, Table, console, lines_of

NARROWEST = 6
"""A column is never made narrower than this, however narrow the terminal is."""
INDENT = 2
MOST_LINES = 200
"""So many lines of a row are drawn at once."""


def draw(table: Table, bound: int) -> None:
    """Write a table to stdout.

    Where it is wider than the bound, in this order: columns get their short names, those that are empty in every row
    are left out, lines are wrapped at spaces, the last columns are written under their row, and only then words broken.
    """
    if _total(_widths(table)) > bound:
        table = _shortened(table)
    headed = any(table.columns)
    beside = len(table.columns)
    while headed and beside > 1 and _total(_widths(table, words=True)[:beside]) > bound:
        beside -= 1
    sizes = _fitted(table._replace(columns=table.columns[:beside], rows=[row[:beside] for row in table.rows]), bound)
    out = console(sys.stdout)
    if headed:
        out.print(_grid(table.columns[:beside], (), sizes))
    for row in table.rows:
        for lines in _parts(row[:beside]):
            out.print(_grid(("",) * beside, [lines], sizes))
        for name, cell in zip(table.columns[beside:], row[beside:], strict=True):
            for part in _under(name, cell, bound):
                out.print(part)


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str | Sequence[str]]], sizes: Sequence[int]) -> RichTable:
    grid = RichTable(box=None, show_header=any(columns), pad_edge=False, padding=(0, len(GAP), 0, 0))
    for column, size in zip(columns, sizes, strict=True):
        grid.add_column(column, overflow="fold", header_style="bold", width=size)
    for row in rows:
        grid.add_row(*(_text(cell) for cell in row))
    return grid


def _parts(row: Sequence[str | Sequence[str]]) -> Iterator[Sequence[str | Sequence[str]]]:
    """A row in parts of some lines each: what rich holds of a text is many times as large."""
    lines = [lines_of(cell) for cell in row]
    for start in range(0, max(map(len, lines)), MOST_LINES):
        yield [cell[start : start + MOST_LINES] or "" for cell in lines]


def _text(cell: str | Sequence[str]) -> Text:
    return Text("\n").join(Text(one, style="red" if isinstance(one, Bad) else "") for one in lines_of(cell))


def _under(name: str, cell: str | Sequence[str], bound: int) -> list[Padding]:
    """A cell below its row: beside its column's name where there is room, else below that too."""
    texts = lines_of(cell)
    if not any(texts):
        return []
    label = Text(f"{name}: ", style="bold")
    if len(texts) == 1 and INDENT + len(label) + len(texts[0]) <= bound:
        return [Padding(label + _text(cell), (0, 0, 0, INDENT), expand=False)]
    return [Padding(label, (0, 0, 0, INDENT), expand=False), Padding(_text(cell), (0, 0, 0, 2 * INDENT), expand=False)]


def _shortened(table: Table) -> Table:
    """With short names, and without the columns that are empty in every row."""
    names = table.short or table.columns
    kept = [number for number in range(len(names)) if any(any(lines_of(row[number])) for row in table.rows)]
    if not kept:
        return table._replace(columns=names)
    return Table([names[number] for number in kept], [[row[number] for number in kept] for row in table.rows])


def _widths(table: Table, *, words: bool = False) -> list[int]:
    """The width of each column's longest line, or word."""
    columns = [
        [name, *(line for row in rows for line in lines_of(row))]
        for name, *rows in zip(table.columns, *table.rows, strict=True)
    ]
    if words:
        return [max(len(word) for line in column for word in line.split(" ")) for column in columns]
    return [max(map(len, column)) for column in columns]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _fitted(table: Table, bound: int) -> list[int]:
    """Column widths within the bound: the widest give first, at spaces; words are broken only if nothing else helps."""
    widths = _widths(table)
    for least in (_widths(table, words=True), [NARROWEST] * len(widths)):
        while (excess := _total(widths) - bound) > 0:
            able = [number for number, size in enumerate(widths) if size > least[number]]
            if not able:
                break
            widest = max(able, key=lambda number: widths[number])
            widths[widest] -= min(excess, max(1, (widths[widest] - least[widest]) // 4))
    return widths
