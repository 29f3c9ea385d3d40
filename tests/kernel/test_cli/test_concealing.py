"""Secrets in a stream: found however it is cut, and nothing else is changed or held back for long."""

import base64
import urllib.parse
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mooring.cli._concealing import Concealing, Known
from mooring.types import MASK, Secret

M = MASK.encode()
LONG = st.text(st.sampled_from("ab+/=' é"), min_size=8, max_size=12)


def shown(known: Known, *pieces: bytes) -> bytes:
    stream = Concealing(known)
    return b"".join([*map(stream.feed, pieces), stream.end()])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


@given(st.lists(LONG, min_size=1, max_size=3), st.binary(max_size=20), st.binary(max_size=20), st.lists(st.integers(0)))
@example(["aaaaaaaaa"], b"aaaa", b"aaa", [1, 2, 3, 4, 5, 6, 7])
@example(["ababababa", "babababab"], b"ba", b"ab", [3, 5, 9])
def test_no_secret_passes_however_the_stream_is_cut(secrets, before, after, places) -> None:
    known = Known(*map(Secret, secrets))
    data = before + b"|".join(one.encode() for one in secrets) + after
    found = shown(known, *cut(data, places))
    for one in secrets:
        assert one.encode() not in found.replace(M, b"\0")
    assert found == shown(known, data)


@given(st.binary(max_size=200), st.lists(st.integers(0)))
def test_what_is_no_secret_passes_as_it_is(data, places) -> None:
    known = Known(Secret("Z" * 40), Secret("short"))
    if b"Z" * 40 not in data:
        assert shown(known, *cut(data, places)) == data


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_never_more_is_held_back_than_may_begin_a_secret(pieces) -> None:
    known = Known(Secret("abababababab"))
    stream, given, passed = Concealing(known), b"", b""
    for piece in pieces:
        given, passed = given + piece, passed + stream.feed(piece)
        held = given[len(passed) :] if M not in passed else b""
        assert len(held) < max(map(len, known._forms))
        assert not held or any(form.startswith(held) for form in known._forms)


@pytest.mark.parametrize(
    "form",
    [
        lambda secret: secret,
        lambda secret: base64.b64encode(secret.encode()).decode(),
        lambda secret: base64.b64encode(b"user:" + secret.encode()).decode(),
        lambda secret: urllib.parse.quote(secret, safe=""),
        lambda secret: secret.encode().hex(),
    ],
)
def test_its_other_forms_are_secret_too(form) -> None:
    secret = "s3cr3t+with/some=more"
    found = shown(Known(Secret(secret)), f"<{form(secret)}>".encode())
    assert M in found
    assert len(found) < len(f"<{form(secret)}>") + len(M)


def test_the_longest_is_taken_where_one_begins_another() -> None:
    known = Known(Secret("12345678"), Secret("12345678abcdef"))
    assert shown(known, b"<123456", b"78abc", b"def>") == b"<" + M + b">"
    assert shown(known, b"<123456", b"78abc", b"x>") == b"<" + M + b"abcx>"


def test_what_is_learned_later_counts_from_then_on() -> None:
    known = Known()
    stream = Concealing(known)
    assert stream.feed(b"a-secret-1 ") == b"a-secret-1 "
    known.learn(Secret("a-secret-1"))
    assert stream.feed(b"a-secret-1 a-secret-") == M + b" "
    known.learn(Secret("a-secret-2"))
    assert stream.feed(b"2") + stream.end() == M


def test_short_secrets_are_not_looked_for() -> None:
    assert shown(Known(Secret("1234567")), b"1234567") == b"1234567"
    assert shown(Known(Secret("12345678")), b"12345678") == M
