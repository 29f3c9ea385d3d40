"""Who is who in the sandbox's account: users with fresh long-lived keys, and roles."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass, field

ACCOUNT = "000000000000"
"""SeaweedFS builds its users' ARNs with this account and no other; moto is told to use the same."""

KEY_ID_ALPHABET = string.ascii_uppercase + "234567"
SECRET_ALPHABET = string.ascii_letters + string.digits + "+/"


def _fresh(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


@dataclass(frozen=True, kw_only=True)
class User:
    """A user with a long-lived key in AWS's format, made anew for each sandbox."""

    name: str
    buckets: tuple[str, ...] = ("*",)
    """The buckets that the user may do anything with."""
    key_id: str = field(default_factory=lambda: "AKIA" + _fresh(KEY_ID_ALPHABET, 16))
    secret: str = field(default_factory=lambda: _fresh(SECRET_ALPHABET, 40), repr=False)

    @property
    def arn(self) -> str:
        """As GetCallerIdentity says it."""
        return f"arn:aws:iam::{ACCOUNT}:user/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Role:
    """A role with all rights on every bucket."""

    name: str
    trusted: str
    """The ARN of the one user who may assume it."""

    @property
    def arn(self) -> str:
        """As AssumeRole wants it."""
        return f"arn:aws:iam::{ACCOUNT}:role/{self.name}"

    @property
    def trust_policy(self) -> dict[str, object]:
        """Who may assume it, as a policy."""
        statement = {"Effect": "Allow", "Principal": {"AWS": self.trusted}, "Action": ["sts:AssumeRole"]}
        return {"Version": "2012-10-17", "Statement": [statement]}
