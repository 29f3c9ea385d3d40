"""Tokens of registries: how long they live, and what they themselves say that they are good for.

A token need not be readable by anybody but the registry. One that is not, or that says nothing of `access`, counts as
not narrowed: some token servers answer every scope with the user's own access token in another coat.

Source: https://distribution.github.io/distribution/spec/auth/token/ and ../jwt/
"""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import mooring as m

LIFE = timedelta(seconds=60)
"""Of a token whose server does not say."""
LONGEST_LIFE = 10 * 365 * 86400
"""Seconds that we believe a token server, at most."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class Claims(NamedTuple):
    """What a token says of itself."""

    subject: str | None = None
    expires_at: datetime | None = None
    access: tuple[tuple[str, str, frozenset[str]], ...] | None = None
    """Type, name and actions of each entry; None if it does not say."""

    def allows(self, kind: str, name: str, action: str) -> bool | None:
        """Whether it is good for something; None if it does not say."""
        if self.access is None:
            return None
        return any(entry[:2] == (kind, name) and action in entry[2] for entry in self.access)

    def confined_to(self, name: str, actions: tuple[str, ...]) -> bool:
        """Whether it says that it is good for nothing but these actions on one repository."""
        return self.access is not None and all(
            not held or ((kind, named) == ("repository", name) and held <= set(actions))
            for kind, named, held in self.access
        )


class Granted(NamedTuple):
    """A token, fresh from its server."""

    token: m.Secret
    expires_at: datetime
    claims: Claims


def granted(answer: Any, host: str, now: datetime) -> Granted:
    """What a token server's answer holds.

    Raises:
        Rejected: it is no such answer.
    """
    values = answer if isinstance(answer, dict) else {}
    token = values.get("token") or values.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        del token, answer, values
        raise m.Rejected(f"{host} answered without a token; check that it is the registry's token server")
    life = _life(values.get("expires_in"))
    claims = claims_of(m.Secret(token))
    ends = [now + life, *([claims.expires_at] if claims.expires_at else [])]
    if (issued := _instant(values.get("issued_at"))) is not None:
        ends.append(issued + life)
    return Granted(m.Secret(token), min(ends), claims)


def claims_of(token: m.Secret) -> Claims:
    """What a token says of itself, if it is a JWT; whether it is genuine is for the registry to know."""
    try:
        _, payload, _ = token.reveal().split(".")
        values = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return Claims()
    if not isinstance(values, dict):
        return Claims()
    subject = values.get("sub")
    named = isinstance(subject, str) and subject.isprintable() and 0 < len(subject) <= 255  # noqa: PLR2004
    return Claims(subject if named else None, _instant(values.get("exp")), _access(values.get("access")))


def _access(entries: Any) -> tuple[tuple[str, str, frozenset[str]], ...] | None:
    if not isinstance(entries, list):
        return None
    found = []
    for entry in entries:
        if not isinstance(entry, dict):
            return None
        kind, name, actions = entry.get("type"), entry.get("name"), entry.get("actions")
        if not isinstance(kind, str) or not isinstance(name, str) or not isinstance(actions, list):
            return None
        if not all(isinstance(action, str) for action in actions):
            return None
        found.append((kind, name, frozenset(actions)))
    return tuple(found)


def _life(seconds: Any) -> timedelta:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_LIFE:
        return LIFE
    return timedelta(seconds=seconds)


def _instant(value: Any) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        found = m.instant(value)
    except m.InvalidConfig:
        return None
    return found if 1970 < found.year < 9000 else None  # noqa: PLR2004  (room for a life to be added)
