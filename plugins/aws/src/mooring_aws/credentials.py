"""What is handed out, `AwsCredentials`, and what requests are signed with, `Keys`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

import msgspec

import mooring as m

GENERAL = "default"
"""The key in `endpoint_urls` of the address for every service that has none of its own."""


ANSWERED = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
"""What an answer of STS has of a key."""


class AwsCredentials(m.Credentials, kw_only=True, tag="aws"):
    """An access key, temporary where it has a session token, and where it is to be used."""

    traced: ClassVar[tuple[str, ...]] = ("access_key_id",)
    access_key_id: str
    secret_access_key: m.Secret
    session_token: m.Secret | None = None
    region: str | None = None
    account: str | None = None
    endpoint_urls: dict[str, str] = msgspec.field(default_factory=dict)
    """Service to URL, where they are not AWS's own; `default` for all other services."""


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that sign requests."""

    access_key_id: str
    secret_access_key: m.Secret
    session_token: m.Secret | None = None
    expires_at: datetime | None = None
    """None where they do not end, or where nobody knows when."""
    identity: str | None = None
    """Whom AWS takes their user for, an ARN, where the answer that they came with says so."""

    @classmethod
    def answered(cls, answer: Mapping[str, Any]) -> Keys:
        """The keys in an answer of STS.

        Source: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html#API_AssumeRole_ResponseElements
        """
        credentials, user = answer["Credentials"], answer.get("AssumedRoleUser") or answer.get("FederatedUser") or {}
        if lacking := next((name for name in ANSWERED if not credentials.get(name)), None):
            raise m.Rejected(f"the answer of STS lacks {lacking}; check that the endpoint speaks STS")
        return cls(
            access_key_id=credentials["AccessKeyId"],
            secret_access_key=m.Secret(credentials["SecretAccessKey"]),
            session_token=m.Secret(credentials["SessionToken"]),
            expires_at=m.instant(credentials["Expiration"]),
            identity=user.get("Arn"),
        )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Without the key's id, which a connector holds as a secret."""
        return [("temporary", self.temporary), ("expires_at", self.expires_at), ("identity", self.identity)]

    def __repr__(self) -> str:
        return f"Keys({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    @property
    def temporary(self) -> bool:
        """Whether they end by themselves."""
        return self.session_token is not None
