"""Inputs that are almost right: what parsers are given is mostly a slip away from what they take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

CANARY = "cAnArY-8d1f"
"""A secret; no error may say it."""

SLIPS = [
    "", " ", "\n", "\r\n", "\t", "\x00", "\x85", "\u2028", "\ud800", "\udcff", "²", "٣", "İ", "é",
    "\U0001f600", CANARY, "9" * 5000,
    "-1", "0", "1e999", "NaN", "null", "true",
    "~nobody/", "../", "%00", "\\", '"', "'", "{", "[", "[" * 3000, '{"":' * 3000,
    "}", "]",
    ",", ":", ";", "=", "@", "#", "*", "?", "${", "<", "&",
]  # fmt: skip
"""What upsets parsers: line ends of Unicode, half characters, digits that are none, depth, endless numbers."""


@st.composite
def _slipped(draw: Any, seeds: Sequence[str], pieces: Sequence[str]) -> str:
    text = draw(st.sampled_from(list(seeds)))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 9)))
        text = text[:start] + draw(st.sampled_from([*pieces, *SLIPS]) | st.text(max_size=2)) + text[end:]
    return text


def near(seeds: Sequence[str], pieces: Sequence[str] = ()) -> st.SearchStrategy[str]:
    """Texts: seeds with a few slips, pieces put together, and anything at all."""
    joined = st.lists(st.sampled_from([*seeds, *pieces, *SLIPS]), max_size=6).map("".join)
    return st.one_of(_slipped(seeds, pieces), joined, st.text())


def near_bytes(seeds: Sequence[bytes], pieces: Sequence[str] = ()) -> st.SearchStrategy[bytes]:
    """The same for bytes."""
    texts = near([seed.decode("latin-1") for seed in seeds], pieces)
    return st.one_of(texts.map(lambda text: text.encode("latin-1", "ignore")), texts.map(to_bytes), st.binary())


def to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def plain(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """What JSON can hold, and what a caller may pass instead."""
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), texts, st.just(10**400), st.binary(max_size=3)
    )
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
    )


@st.composite
def mangled(draw: Any, values: Any, texts: st.SearchStrategy[str]) -> Any:
    """A structure of dicts and lists in which something is missing, doubled, or of another kind."""
    made = json.loads(json.dumps(values))
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(list(_places(made))))
        if not path:
            return draw(plain(texts))
        *way, last = path
        inner = made
        for step in way:
            inner = inner[step]
        match draw(st.sampled_from(["slip", "slip", "other", "gone", "more"])):
            case "slip" if isinstance(inner[last], str):
                inner[last] = draw(near([inner[last]]) | texts)
            case "gone":
                del inner[last]
            case "more" if isinstance(inner, dict):
                inner[draw(texts)] = draw(plain(texts))
            case "more":
                inner.append(inner[last])
            case _:
                inner[last] = draw(plain(texts))
    return made


def _places(values: Any) -> Iterator[tuple[Any, ...]]:
    """The way to each part of a structure."""
    yield ()
    parts = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in parts:
        yield from ((key, *path) for path in _places(value))
