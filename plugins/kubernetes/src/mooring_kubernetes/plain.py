"""YAML from elsewhere as plain values, in time and memory of its length.

PyYAML alone would let a few lines swell: aliases of aliases double with each line where they are merged (`<<`) or
shown, and a number in base 60 takes the square of its length.
"""

from __future__ import annotations

from typing import Any

import yaml

MOST_NODES = 2**20
"""Of a document with its aliases written out; a mebibyte without aliases has fewer."""
LONGEST_NUMBER = 64


class Unreadable(Exception):
    """Raised when a text is no YAML, or swells. `line` is where, counted from 1, if that is known."""

    def __init__(self, line: int | None) -> None:
        super().__init__(line)
        self.line = line


def plain(text: str) -> Any:
    """The one document of a text; None for an empty one.

    Raises:
        Unreadable: there is no such.
    """
    line: int | None = None
    try:
        return _loaded(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else None
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError):
        pass  # what PyYAML lets through of tags that do not fit
    raise Unreadable(line)


def _loaded(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes there are, each alias counted as what it stands for.

    Raises:
        ValueError: too many, or without end.
    """
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MOST_NODES + 1  # if it is met again meanwhile, it holds itself
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    size = 1 + sum(_size(part, known) for part in parts)
    if size > MOST_NODES:
        raise ValueError("too many nodes")
    known[id(node)] = size
    return size


class _Loader(yaml.SafeLoader):
    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > LONGEST_NUMBER:
            raise ValueError("an endless number")
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
