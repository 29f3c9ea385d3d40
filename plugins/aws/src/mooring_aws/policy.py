"""Session policies: what one resource and access need, and how that meets a policy that the user has set.

A session has the rights of its identity cut by its session policies; those are joined, not cut, with each other. So a
resource's statements and a user's policy may not simply be put side by side: that would widen both. Where there is a
user's policy, the resource's statements are turned inside out, into denials of everything else (`fence`): a denial
holds against every allowance, so that what remains is the intersection.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies.html#policies_session
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

import mooring as m

VERSION = "2012-10-17"
MAX_CHARACTERS = 2048
"""Of a session policy as plain text; AWS also bounds it once packed."""

EVERYTHING: dict[str, Any] = {"Version": VERSION, "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Some actions on some resources, under a condition that a key is like one of some patterns.

    The grants of one policy share no action, which makes `fence` exact.
    """

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    key: str | None = None
    like: tuple[str, ...] = ()

    def allow(self) -> dict[str, Any]:
        """The statement that allows it."""
        statement: dict[str, Any] = {"Effect": "Allow", "Action": list(self.actions), "Resource": list(self.resources)}
        if self.key is not None:
            statement["Condition"] = {"StringLike": {self.key: list(self.like)}}
        return statement

    def fence(self) -> list[dict[str, Any]]:
        """The statements that deny these actions elsewhere. (A negated condition holds where the key is absent.)"""
        statements: list[dict[str, Any]] = []
        if self.resources != ("*",):
            statements.append({"Effect": "Deny", "Action": list(self.actions), "NotResource": list(self.resources)})
        if self.key is not None:
            unlike = {"StringNotLike": {self.key: list(self.like)}}
            statements.append({"Effect": "Deny", "Action": list(self.actions), "Resource": "*", "Condition": unlike})
        return statements


def session_policy(grants: Sequence[Grant] | None, own: str | None, arns: Sequence[str]) -> dict[str, Any] | None:
    """The inline policy of a session: for the grants (None: no narrowing), within a user's own policy and ARNs."""
    mine = json.loads(own) if own else None
    if grants is None:
        return mine
    if mine is None and not arns:
        return {"Version": VERSION, "Statement": [grant.allow() for grant in grants]}
    theirs = mine["Statement"] if mine else []
    theirs = [theirs] if isinstance(theirs, dict) else theirs
    every = [action for grant in grants for action in grant.actions]
    only: dict[str, Any] = {"Effect": "Deny", "NotAction": every, "Resource": "*"}
    return {"Version": VERSION, "Statement": [*theirs, only, *(one for grant in grants for one in grant.fence())]}


def compact(policy: dict[str, Any]) -> str:
    """The policy as AWS gets it.

    Raises:
        InvalidConfig: it is longer than AWS takes.
    """
    text = json.dumps(policy, separators=(",", ":"))
    if len(text) > MAX_CHARACTERS:
        raise m.InvalidConfig(
            f"the session policy has {len(text)} characters and AWS takes {MAX_CHARACTERS}; "
            "use a shorter prefix, or a shorter field 'policy'",
            field="policy",
        )
    return text
