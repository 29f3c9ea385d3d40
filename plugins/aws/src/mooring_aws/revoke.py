"""Taking back: a role refuses every session from before an instant (what IAM's console calls revoking sessions).

AWS cannot end one session. What it can do is a denial in the role's own policies, under a condition on when a session
began: for all who use the role. It does not reach what a session was exchanged for (see `AuthMethod.role_wide`).

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

import mooring as m
from mooring_aws import settings
from mooring_aws.policy import VERSION

if TYPE_CHECKING:
    from mooring_aws.credentials import Keys
    from mooring_aws.session import AwsSession

POLICY = "AWSRevokeOlderSessions"
"""As IAM's console names it, so that each finds what the other did."""
KEY = "aws:TokenIssueTime"
MOST_SKEW = timedelta(minutes=15)
"""AWS takes no signature of a clock that is further off.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
"""
SECOND = timedelta(seconds=1)
"""AWS says when a session began, and what time it is (RFC 9110, `Date`), in whole seconds."""


async def revoke_all(session: AwsSession, before: datetime) -> str:
    """Have the connector's role refuse all sessions from before; a later instant that it has already is kept.

    Raises:
        NotPermitted: there is no role.
        AccessDenied: the connector may not call iam:GetRolePolicy or iam:PutRolePolicy on it.
        Rejected: a policy of that name says something else.
    """
    config = session.config
    if not isinstance(config, settings.IamRoleConfig | settings.WebIdentityConfig):
        raise _irrevocable(session)
    name = config.role_arn.rpartition("/")[2]
    sent = session.context.clock.now()
    keys, theirs = await _caller(session, config)
    date = _whole((theirs or sent) + SECOND - max(sent - before, timedelta(0)))
    kept = await _date_of(session, keys, name)
    if kept is not None and kept >= date:
        return f"the role {name} refuses all sessions from before {_text(kept)} already"
    document = msgspec.json.encode(denial(date)).decode()
    await session.call("iam", "PutRolePolicy", keys=keys, RoleName=name, PolicyName=POLICY, PolicyDocument=document)
    await anyio.sleep(min(max(date - (theirs or sent), timedelta(0)), SECOND).total_seconds())
    return (
        f"the role {name} refuses all sessions from before {_text(date)}, whoever has them; AWS may take minutes for it"
    )


def denial(date: datetime) -> dict[str, Any]:
    """The policy."""
    condition = {"DateLessThan": {KEY: _text(date)}}
    return {
        "Version": VERSION,
        "Statement": [{"Effect": "Deny", "Action": ["*"], "Resource": ["*"], "Condition": condition}],
    }


async def _caller(
    session: AwsSession, config: settings.IamRoleConfig | settings.WebIdentityConfig
) -> tuple[Keys, datetime | None]:
    """Whose keys call IAM, and what time it is there.

    IAM takes a role's name, not its ARN, and looks in the caller's account: a key of another account would deny a role
    of the same name there. So the role itself has to do it then, as where there is no key.
    """
    account = config.role_arn.split(":")[4]
    keys = await session.source() if isinstance(config, settings.IamRoleConfig) else await session.keys()
    answer = await session.sts("GetCallerIdentity", keys)
    if answer.get("Account") != account:
        keys = await session.keys()
        answer = await session.sts("GetCallerIdentity", keys)
    if answer.get("Account") != account:
        raise m.Rejected(f"the connector's role is of account {account}, its session is not; check that it speaks STS")
    return keys, _time_of(answer, session.context.clock.now())


def _time_of(answer: Mapping[str, Any], ours: datetime) -> datetime | None:
    """What time it was there, if that can be."""
    try:
        theirs = m.instant(parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]))
    except (LookupError, TypeError, ValueError, ArithmeticError, m.InvalidConfig):
        return None
    return theirs if abs(theirs - ours) <= MOST_SKEW else None


async def _date_of(session: AwsSession, keys: Keys, role: str) -> datetime | None:
    """The instant of the policy that the role has."""
    try:
        answer = await session.call("iam", "GetRolePolicy", keys=keys, RoleName=role, PolicyName=POLICY)
    except m.ResourceNotFound:
        return None
    document = answer.get("PolicyDocument")
    try:
        (statement,) = _many(document["Statement"])  # type: ignore[index]
        (date,) = _many(statement["Condition"]["DateLessThan"][KEY])
        found = m.instant(date)
    except (KeyError, TypeError, ValueError, m.InvalidConfig):
        found = None
    if found is None or (statement.get("Effect"), len(statement["Condition"])) != ("Deny", 1):
        raise m.Rejected(f"the policy {POLICY} of the role {role} is not one that revokes sessions; rename it in IAM")
    return found


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _whole(instant: datetime) -> datetime:
    """The next whole second."""
    return instant.replace(microsecond=0) + (SECOND if instant.microsecond else timedelta(0))


def _text(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ" if not instant.microsecond else "%Y-%m-%dT%H:%M:%S.%fZ")


def _irrevocable(session: AwsSession) -> m.NotPermitted:
    name, lifetime = session.method.name, session.method.lifetime
    longest = f", {lifetime.maximum / timedelta(hours=1):g} h after it was issued at most" if lifetime else ""
    how = (
        "to cut it short, deny it to its IAM user"
        if isinstance(session.config, settings.KeyPairConfig)
        and not isinstance(session.config, settings.StsTokenConfig)
        else "to cut it short, deny it to whoever it was made for, in IAM"
    )
    return m.NotPermitted(f"what {name} issues cannot be taken back: it lives until its end{longest}; {how}")
