"""Documents in pieces are those that would be written whole."""

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mooring.cli._output import Table, emit, encoded
from mooring.cli._pieces import PIECE, joined

TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["a word " * 20, "null", "1", "- x", "a: b", "é\n\nb ", "\x85"])
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
THINGS = st.lists(
    st.fixed_dictionaries({"id": TEXTS, "attributes": st.dictionaries(TEXTS, PLAIN, max_size=3)}), max_size=3
)
GROUPS = st.lists(st.fixed_dictionaries({"name": TEXTS, "things": THINGS, "errors": THINGS, "more": PLAIN}), max_size=3)


def lazily(groups: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (group | {"things": iter(group["things"]), "errors": iter(group["errors"])} for group in groups)


def written(output: str, data: Any) -> str:
    with redirect_stdout(StringIO()) as stdout:
        emit(output, data)
    return stdout.getvalue()


@given(groups=GROUPS)
@pytest.mark.parametrize("output", ["json", "yaml"])
def test_a_document_in_pieces_is_the_same(output: str, groups: list[dict[str, Any]]) -> None:
    read = json.loads if output == "json" else yaml.safe_load
    for whole, pieces in (
        (groups, lazily(groups)),
        ({"a": 1, "b": groups, "c": []}, {"a": 1, "b": lazily(groups), "c": iter(())}),
    ):
        text = written(output, pieces)
        assert read(text) == whole
        if text.isascii() or not encoded(output, whole).isascii():
            assert text == encoded(output, whole) + "\n"  # else what cannot be shown is escaped in its piece alone


def test_spans_and_no_elements() -> None:
    for output in ("json", "yaml"):
        text = written(output, iter([{"took": timedelta(seconds=1), "inner": iter(())}]))
        assert text == encoded(output, [{"took": timedelta(seconds=1), "inner": []}]) + "\n"
        assert written(output, iter(())) == "[]\n"


def test_pieces_are_worth_a_write() -> None:
    pieces = list(joined("x" * 1000 for _ in range(200)))
    assert "".join(pieces) == "x" * 200_000
    assert [len(one) >= PIECE for one in pieces] == [True] * (len(pieces) - 1) + [False]


@pytest.mark.parametrize("output", ["json", "yaml", "table"])
def test_nothing_of_a_large_document_is_held(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written as it comes takes a few pieces' room, however much that is in the end."""

    class Nowhere:
        encoding = "utf-8"
        size = 0

        def write(self, text: str) -> None:
            self.size += len(text)

        def flush(self) -> None: ...

        def isatty(self) -> bool:
            return False

    nowhere = Nowhere()
    monkeypatch.setattr("sys.stdout", nowhere)
    names = [f"a-bucket-with-a-rather-long-name-of-this-many-characters-{number}" for number in range(5_000)]
    emit(output, [{"a": 1}], Table(("NAME",), [("x",)]))  # what is loaded once
    tracemalloc.start()
    try:
        emit(output, ({"id": name, "things": iter(())} for name in names), Table(("NAME", "LONG"), [(names, "x")]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert nowhere.size > 300_000
    assert peak < 2.5 * nowhere.size if output == "table" else peak < 6 * PIECE
