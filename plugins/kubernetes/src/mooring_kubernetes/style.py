"""A kubeconfig's text as a document that keeps its comments and its style, and the text of that."""

from __future__ import annotations

import io
import json
import re
from typing import Any

from mooring_kubernetes.plain import Unreadable, plain
from mooring_kubernetes.way import LONGEST_FILE

MARK = "\ufeff"
"""What editors of Windows put before a text."""
INDENTED = re.compile(r"^(?:clusters|users|contexts):[ \t]*\n(?:[ \t]*#.*\n)*( +)- ", re.MULTILINE)
IN_JSON = re.compile(r"\s*\{[ \t]*\n( *)")
NEVER_PLAIN = {"y", "Y", "n", "N"}
"""What kubectl takes for a truth value, and PyYAML does not."""


def styled(text: str) -> Any:
    """The document of a text; None for an empty one.

    Raises:
        Unreadable: it is no YAML.
    """
    from ruamel.yaml.error import YAMLError

    line: int | None = None
    try:
        return _yaml(text).load(_lines(text))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        pass  # what ruamel lets through of tags that do not fit
    raise Unreadable(line)


def written(document: Any, before: str) -> str:
    """A document as text, in the style of the text that it was; JSON stays JSON, indented as it was."""
    if _is_json(before):
        text = _in_json(document, _lines(before))
    else:
        buffer = io.StringIO()
        _yaml(before).dump(document, buffer)
        text = buffer.getvalue()
    if "\r\n" in before:
        text = text.replace("\n", "\r\n")
    return MARK + text if before.startswith(MARK) else text


def quoted(value: Any) -> Any:
    """A value with its texts in quotes where they would be read as something else without."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, dict):
        return CommentedMap({name: quoted(part) for name, part in value.items()})
    if isinstance(value, list):
        return CommentedSeq([quoted(part) for part in value])
    if isinstance(value, str) and (value in NEVER_PLAIN or not _reads_as_text(value)):
        return DoubleQuotedScalarString(value)
    return value


def _reads_as_text(value: str) -> bool:
    try:
        return isinstance(plain(value), str)
    except Unreadable:
        return False


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(_lines(text)), dict)
    except (ValueError, RecursionError):
        return False


def _in_json(document: Any, before: str) -> str:
    found = IN_JSON.match(before)
    indent = len(found[1]) if found else None
    text = json.dumps(document, indent=indent, ensure_ascii=before.isascii())
    return text + "\n" if before.endswith("\n") else text


def _lines(text: str) -> str:
    return text.removeprefix(MARK).replace("\r\n", "\n")


def _yaml(text: str) -> Any:
    """A parser and writer in the style of a text."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = LONGEST_FILE
    if indented := INDENTED.search(_lines(text)):
        yaml.indent(mapping=2, sequence=len(indented[1]) + 2, offset=len(indented[1]))
    return yaml
