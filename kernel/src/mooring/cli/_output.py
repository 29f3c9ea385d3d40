"""Data to stdout, as a table, JSON or YAML; messages to stderr. rich is loaded only to draw on a terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, TypeVar

import click
import msgspec

from mooring.cli._pieces import joined, json_pieces, yaml_lines
from mooring.errors import InvalidConfig

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])

SHORT_ID = 8
"""How much of a connector's id names it (see `Store.find`)."""
GAP = "  "
MISSING = "-"
NO_CONNECTOR = "There is no connector; to make one: mooring connector register"


class Bad(str):
    """A text that tells of an error."""

    __slots__ = ()


class Table(NamedTuple):
    """Rows under columns; a cell of several texts has a line for each."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Sequence[str]]]
    short: Sequence[str] = ()
    """The columns' names where width is scarce; the same ones, if empty."""


class Title(str):
    """A heading between tables."""

    __slots__ = ()


def output_option(command: F) -> F:
    """The option `-o/--output`."""
    kinds = click.Choice(("table", "json", "yaml"), case_sensitive=False)
    return click.option("-o", "--output", type=kinds, default="table", help="How to write the data.")(command)


def emit(output: str, data: Any, *view: Table | str) -> None:
    """Write the data to stdout: as it is, or as the view of it that people read. What an iterator gives is not kept."""
    if output == "table":
        _draw(view)
        return
    pieces = json_pieces(data, _json) if output == "json" else (f"{line}\n" for line in yaml_lines(data, _yaml))
    for piece in joined(pieces):
        put_part(piece)
    if output == "json":
        put()


def encoded(output: str, data: Any) -> str:
    """The data in JSON or YAML, in ASCII if stdout cannot take more. Instants are RFC 3339, spans ISO 8601."""
    return _json(data) if output == "json" else _yaml(data)


def _json(data: Any) -> str:
    lines = msgspec.json.format(msgspec.json.encode(data), indent=2).decode().split("\n")
    return "\n".join(lines if all(map(_takes, lines)) else map(_escaped, lines))


def _yaml(data: Any, width: int = 80) -> str:
    import yaml

    plain = msgspec.to_builtins(data)
    for allow_unicode in (True, False):
        text = str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=allow_unicode, width=width)).rstrip("\n")
        if all(map(_takes, text.split("\n"))):
            break
    return text


def encoded_line(data: Any) -> str:
    """The data in one line of JSON; see `encoded`."""
    line = msgspec.json.encode(data).decode()
    return line if _takes(line) else _escaped(line)


def _takes(text: str) -> bool:
    """Whether stdout can write all of a text, and a terminal would obey nothing in it."""
    return _encodes(text) and text.isprintable()


def _encodes(text: str) -> bool:
    """Whether stdout can write all of a text; otherwise it writes escapes."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _escaped(line: str) -> str:
    """A line of JSON in ASCII."""
    return "".join(one if one.isascii() and one.isprintable() else json.dumps(one)[1:-1] for one in line)


def put(text: str = "") -> None:
    """Data, to stdout: the stream itself, for click would write UTF-8 where the locale has ASCII."""
    click.echo(text, file=sys.stdout)


def put_part(text: str) -> None:
    """A part of data, to stdout, which goes on in the same line."""
    click.echo(text, file=sys.stdout, nl=False)


def put_exactly(text: str) -> None:
    """Data that a program reads and takes as it stands, to stdout.

    Raises:
        InvalidConfig: stdout cannot write all of it; then nothing is written.
    """
    if not _encodes(text):
        encoding = sys.stdout.encoding or "utf-8"
        raise InvalidConfig(
            f"a value has characters that stdout, in {encoding}, cannot write; set PYTHONIOENCODING=utf-8, or use json",
            field="format",
        )
    put(text.rstrip("\n"))


def say(text: str) -> None:
    """A message, to stderr, if anybody is there."""
    with suppress(OSError):
        click.echo(printable(text), file=sys.stderr)


def printable(text: str) -> str:
    """The text in one line without control characters, which a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else " " if one.isspace() else "\N{REPLACEMENT CHARACTER}" for one in text)


def width(stream: TextIO | None = None) -> int | None:
    """How many columns there are: as MOORING_COLUMNS says, or of the terminal; None for no bound, as in a pipe.

    COLUMNS counts on a terminal alone: a process that has loaded GNU readline leaves it, as 80, to all it starts.

    Raises:
        InvalidConfig: MOORING_COLUMNS is malformed.
    """
    if wanted := os.environ.get("MOORING_COLUMNS", ""):
        if re.fullmatch("[1-9][0-9]{0,3}", wanted):
            return int(wanted)
        raise InvalidConfig("MOORING_COLUMNS is not a number of columns; write one from 1 to 9999")
    return shutil.get_terminal_size((80, 24)).columns if (stream or sys.stdout).isatty() else None


def short(id: str) -> str:
    """An id: its beginning, which names it too, where width is scarce."""
    return id if width() is None else id[:SHORT_ID]


def console(stream: TextIO) -> Console:
    """rich's console on a stream; colour on a terminal alone, and not with NO_COLOR."""
    from rich.console import Console

    return Console(file=stream, width=width(stream), highlight=False, markup=False, emoji=False)


def _draw(view: Sequence[Table | str]) -> None:
    bound = width()
    for number, block in enumerate(view):
        if number and isinstance(block, Title):
            put()
        if isinstance(block, str):
            colour = isinstance(block, Title) and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
            put(click.style(block, bold=True) if colour else block)
        elif bound is None:
            _put_plain(block)
        else:
            from mooring.cli._bounded import draw

            draw(block, bound)


def _put_plain(table: Table) -> None:
    """Aligned columns as wide as they need to be: nothing is cut, nothing is wrapped."""
    head = [[name] for name in table.columns] if any(table.columns) else []
    rows = [one for one in (head, *([lines_of(cell) for cell in row] for row in table.rows)) if one]
    widths = [max(len(text) for cell in column for text in cell) for column in zip(*rows, strict=True)]
    lines = (line for row in rows for line in zip_longest(*row, fillvalue=""))
    texts = (
        GAP.join(text.ljust(size) for text, size in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )
    for piece in joined(texts):
        put_part(piece)


def lines_of(cell: str | Sequence[str]) -> list[str]:
    """The lines of a cell, printable."""
    texts = [cell] if isinstance(cell, str) else list(cell)
    return [type(text)(printable(text)) for text in texts] or [MISSING]
