"""What a registry says when it wants to know who asks: `WWW-Authenticate`, read as RFC 9110 has it, totally."""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  a grammar's word
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?=[\s,]|$)[ \t]*")
_PARAM = re.compile(rf'[ \t,]*({_TOKEN})[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*+)")(?=[ \t,]|$)', re.DOTALL)
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

LONGEST = 8192
"""Characters of a header that are read, at most; no registry says more."""


class Challenge(NamedTuple):
    """One way to authenticate that the server offers."""

    scheme: str
    """In lower case."""
    parameters: dict[str, str]
    """Names in lower case; of doubled ones the first."""


def challenges(header: str) -> tuple[Challenge, ...]:
    """The challenges of a header, in order; what is malformed ends the reading.

    >>> challenges('Bearer realm="https://auth.example.org/t",service="r", Basic realm="x"')[0].parameters["service"]
    'r'
    >>> [one.scheme for one in challenges('Bearer realm="a,b", Basic realm=x')]
    ['bearer', 'basic']

    Source: https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1 (formerly RFC 7235)
    """
    found: list[Challenge] = []
    text, at = header[:LONGEST], 0
    while scheme := _SCHEME.match(text, at):
        parameters: dict[str, str] = {}
        at = scheme.end()
        if token68 := _TOKEN68.match(text, at):
            at = token68.end()
        while param := _PARAM.match(text, at):
            name, plain, quoted = param.groups()
            parameters.setdefault(name.lower(), plain if quoted is None else _ESCAPED.sub(r"\1", quoted))
            at = param.end()
        found.append(Challenge(scheme[1].lower(), parameters))
    return tuple(found)
