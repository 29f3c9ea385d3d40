"""WWW-Authenticate: what servers send, and what nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring_docker.challenge import Challenge, challenges

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'

READ = {
    HUB: [("bearer", {"realm": "https://auth.docker.io/token", "service": "registry.docker.io"})],
    'Basic realm="a, b"': [("basic", {"realm": "a, b"})],
    "basic": [("basic", {})],
    'BASIC Realm = "x" , charset=UTF-8': [("basic", {"realm": "x", "charset": "UTF-8"})],
    r'Bearer realm="a\"b\\c"': [("bearer", {"realm": 'a"b\\c'})],
    f'{HUB}, Basic realm="b"': [
        ("bearer", {"realm": "https://auth.docker.io/token", "service": "registry.docker.io"}),
        ("basic", {"realm": "b"}),
    ],
    "Negotiate, NTLM dGVzdA==, Basic realm=x": [("negotiate", {}), ("ntlm", {}), ("basic", {"realm": "x"})],
    "Bearer realm=x, realm=y": [("bearer", {"realm": "x"})],
    "": [],
    ",": [],
    "=": [],
    '"': [],
    'Bearer realm="never closed': [("bearer", {})],
}


@pytest.mark.parametrize(("header", "want"), READ.items())
def test_what_a_header_offers(header: str, want: list[tuple[str, dict[str, str]]]) -> None:
    assert list(challenges(header)) == [Challenge(*one) for one in want]


@given(st.text() | st.lists(st.sampled_from([*READ, ",", " ", "=", '"', "\\", "a", "\n"])).map("".join))
def test_any_text_is_read(header: str) -> None:
    for one in challenges(header):
        assert one.scheme == one.scheme.lower() != ""
        assert all(name == name.lower() != "" for name in one.parameters)


TOKENS = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
CHALLENGES = st.lists(
    st.tuples(TOKENS, st.dictionaries(TOKENS.map(str.lower), VALUES, min_size=1, max_size=4)), min_size=1, max_size=3
)


def written(scheme: str, parameters: dict[str, str]) -> str:
    quoted = (f'{name}="' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for name, value in parameters.items())
    return f"{scheme} {', '.join(quoted)}"


@given(CHALLENGES)
def test_what_is_written_by_the_grammar_is_read_again(made: list[tuple[str, dict[str, str]]]) -> None:
    header = ", ".join(written(*one) for one in made)

    assert list(challenges(header)) == [Challenge(scheme.lower(), parameters) for scheme, parameters in made]
