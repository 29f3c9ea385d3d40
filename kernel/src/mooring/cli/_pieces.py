"""Documents that are too large to be held as text: where the data has an iterator, its elements are encoded in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

PIECE = 1 << 16
"""So many characters are written at once."""
YAML_WIDTH = 80


def joined(texts: Iterator[str]) -> Iterator[str]:
    """The same text in pieces of a size that is worth a write."""
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= PIECE:
            yield "".join(held)
            held, size = [], 0
    if held:
        yield "".join(held)


def json_pieces(data: Any, encode: Callable[[Any], str], margin: str = "") -> Iterator[str]:
    """A document of JSON, as `encode` would write it whole.

    Args:
        data: plain values; as a whole, or as values of a mapping, iterators, whose elements may hold such again.
        encode: writes what holds no iterator, with an indentation of two.
        margin: what the lines after the first begin with.
    """
    inner = margin + "  "
    if isinstance(data, Iterator):
        empty = True
        for one in data:
            yield f"[\n{inner}" if empty else f",\n{inner}"
            yield from json_pieces(one, encode, inner)
            empty = False
        yield "[]" if empty else f"\n{margin}]"
    elif _holds_iterators(data):
        for number, (key, one) in enumerate(data.items()):
            yield f"{',' if number else '{'}\n{inner}{encode(key)}: "
            yield from json_pieces(one, encode, inner)
        yield f"\n{margin}}}"
    else:
        yield encode(data).replace("\n", f"\n{margin}")


def yaml_lines(data: Any, encode: Callable[[Any, int], str], width: int = YAML_WIDTH) -> Iterator[str]:
    """The lines of a document of YAML, as `encode` would write it whole; see `json_pieces`.

    Args:
        data: as there; the elements of iterators are mappings.
        encode: writes what holds no iterator within a width.
        width: after so many characters a text goes on in the next line.
    """
    if isinstance(data, Iterator):
        empty = True
        for one in data:
            for number, line in enumerate(yaml_lines(one, encode, width - 2)):
                yield f"{'  ' if number else '- '}{line}" if line else line
            empty = False
        if empty:
            yield "[]"
    elif _holds_iterators(data):
        for key, one in data.items():
            yield from _yaml_entry(key, one, encode, width)
    else:
        yield from encode(data, width).split("\n")


def _yaml_entry(key: str, value: Any, encode: Callable[[Any, int], str], width: int) -> Iterator[str]:
    if isinstance(value, Iterator):
        first = next(value, None)
        if first is not None:
            yield f"{key}:"
            yield from yaml_lines(chain((first,), value), encode, width)
            return
        value = []
    yield from encode({key: value}, width).split("\n")


def _holds_iterators(data: Any) -> bool:
    return isinstance(data, dict) and any(isinstance(one, Iterator) for one in data.values())
