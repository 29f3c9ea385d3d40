"""Patterns of ids, as in a shell: `*`, `?` and `[...]`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from mooring.errors import InvalidConfig

LONGEST = 1000
"""Characters of a pattern."""
_PLAIN = re.compile(r"[^*?\[]*")
_PART = re.compile(r"\[!?\]?[^\]]*\]|.", re.DOTALL)


def is_pattern(text: str) -> bool:
    """Whether a text stands for others too."""
    return not _PLAIN.fullmatch(text)


def checked(text: str) -> str:
    """A pattern that can match something.

    Raises:
        InvalidConfig: nothing can match it, or not what was meant.
    """
    if not isinstance(text, str) or not text:
        raise InvalidConfig("an empty pattern matches nothing; write one such as 's3://prod-*'")
    if len(text) > LONGEST:
        raise InvalidConfig(f"the pattern has more than {LONGEST} characters; no id is that long")
    if "[" in re.sub(r"\[!?+\]?+[^\]]*\]", "", text):
        raise InvalidConfig("a [ in the pattern has no ]; write [[] for the character itself")
    if any(first > last for first, last in re.findall(r"\[!?(.)-([^\]])\]", text)):
        raise InvalidConfig("a range in the pattern runs backwards; write it like [a-z]")
    return text


def matches(text: str, patterns: Iterable[str]) -> bool:
    """Whether a text matches one of the patterns."""
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def labelled(labels: Mapping[str, str], wanted: Mapping[str, str | None]) -> bool:
    """Whether labels are as wanted; a value that is written out is itself, whatever it would be as a pattern.

    >>> labelled({"team": "data"}, {"team": "da*"}), labelled({"team": "a[1]"}, {"team": "a[1]"})
    (True, True)
    """
    return all(
        key in labels and (value in (None, labels[key]) or fnmatchcase(labels[key], value or ""))
        for key, value in wanted.items()
    )


def overlap(one: str, other: str) -> bool:
    """Whether there may be a text that matches both patterns; two `[...]` are taken to have a character in common.

    >>> overlap("s3://prod-*", "s3://*"), overlap("s3://*", "[0-9]*.dkr.ecr.*"), overlap("a?c*", "*bcd")
    (True, False, True)
    """
    first, second = _PART.findall(one), _PART.findall(other)
    # row[j]: whether the rest of the first pattern can match what the second has from j on
    row = [all(part == "*" for part in second[start:]) for start in range(len(second) + 1)]
    for part in reversed(first):
        below, row = row, [False] * len(second) + [part == "*" and row[-1]]
        for place in range(len(second) - 1, -1, -1):
            there = second[place]
            if "*" in (part, there):
                row[place] = below[place] or row[place + 1]
            else:
                row[place] = below[place + 1] and _meet(part, there)
    return row[0]


def _meet(one: str, other: str) -> bool:
    """Whether a character may be both: each is a character, or stands for some."""
    if len(one) > 1 and len(other) > 1:
        return True
    return "?" in (one, other) or fnmatchcase(one, other) or fnmatchcase(other, one)
