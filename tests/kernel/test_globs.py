"""Patterns of ids: whether two of them can have a text in common is never denied where they have one."""

from fnmatch import fnmatchcase
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from mooring.globs import is_pattern, matches, overlap

TEXTS = ["".join(letters) for length in range(6) for letters in product("ab", repeat=length)]
PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "?", "[a]", "[!a]", "[", "]"]), max_size=4).map("".join)


@given(PATTERNS, PATTERNS)
def test_what_both_match_is_an_overlap(one: str, other: str) -> None:
    common = [text for text in TEXTS if fnmatchcase(text, one) and fnmatchcase(text, other)]
    assert overlap(one, other) == overlap(other, one)
    if common:
        assert overlap(one, other), common[0]


@given(
    st.lists(st.sampled_from("ab*?"), max_size=4).map("".join),
    st.lists(st.sampled_from("ab*?"), max_size=4).map("".join),
)
def test_without_classes_it_is_exact(one: str, other: str) -> None:
    assert overlap(one, other) == any(
        fnmatchcase(text, one) and fnmatchcase(text, other) for text in [*TEXTS, "a" * 8, "b" * 8]
    )


def test_long_patterns_take_no_time() -> None:
    assert overlap("*a" * 500, "*b*" * 300)


def test_which_texts_are_patterns() -> None:
    assert [is_pattern(text) for text in ("", "a/b", "a*", "?", "[x]", "a]")] == [False, False, True, True, True, False]
    assert (matches("s3://a", ("s4*", "s3*")), matches("A", ("a",)), matches("x", ())) == (True, False, False)
