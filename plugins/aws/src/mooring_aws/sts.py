"""Keys made by STS: of a role, of a web identity, of a long-lived key; each straight from the source, never chained."""

from __future__ import annotations

import os
import re
import stat
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mooring as m
from mooring_aws import settings
from mooring_aws.credentials import Keys
from mooring_aws.plan import Plan
from mooring_aws.policy import compact

if TYPE_CHECKING:
    from mooring_aws.session import AwsSession

ROLE_NAME, FEDERATION_NAME = 64, 32
"""The longest names that STS takes for a role's session and for a federated user."""

LONGEST_TOKEN = 32 * 1024
"""Bytes of a file with an OIDC token, at most."""

_WEB_TOKEN = re.compile(r"[A-Za-z0-9_=-]+(?:\.[A-Za-z0-9_+/~=-]+){2,4}")
"""A JSON Web Token: without its dots, a key in a file would pass for one."""
_FOREIGN = re.compile(r"[^\w+=,.@-]", re.ASCII)


def session_name(connector: str, consumer: str, longest: int = ROLE_NAME) -> str:
    """The name by which CloudTrail shows who uses a session: the connector and its consumer.

    >>> session_name("prod data", "ann@host")
    'prod-data.ann@host'
    >>> len(session_name("c" * 90, "d" * 90, 32))
    32
    """
    first, second = _FOREIGN.sub("-", connector), _FOREIGN.sub("-", consumer)
    return f"{first[: max(longest // 2 - 1, longest - 1 - len(second))]}.{second}"[:longest]


async def make(session: AwsSession, plan: Plan, life: timedelta, consumer: str) -> Keys:
    """Keys as the plan says, for so long."""
    if plan.how == "as-is":
        return await session.source()
    arguments: dict[str, Any] = {"DurationSeconds": int(life.total_seconds())}
    if plan.policy is not None:
        arguments["Policy"] = compact(plan.policy)
    if plan.policy_arns:
        arguments["PolicyArns"] = [{"arn": arn} for arn in plan.policy_arns]
    config = session.config
    if isinstance(config, settings.WebIdentityConfig):
        arguments |= {"RoleArn": config.role_arn, "RoleSessionName": session_name(session.context.connector, consumer)}
        arguments["WebIdentityToken"] = await _web_token(config)
        answer = await session.sts("AssumeRoleWithWebIdentity", None, **arguments)
    else:
        operation = {
            "assume-role": "AssumeRole",
            "federation-token": "GetFederationToken",
            "session-token": "GetSessionToken",
        }
        arguments |= _particulars(session, plan, consumer)
        answer = await session.sts(operation[plan.how], await session.source(), **arguments)
    if "Credentials" not in answer:
        raise m.Rejected("the endpoint answered STS without credentials; check that it speaks STS")
    return Keys.answered(answer)


def _particulars(session: AwsSession, plan: Plan, consumer: str) -> dict[str, Any]:
    config, connector = session.config, session.context.connector
    if plan.how == "federation-token":
        found: dict[str, Any] = {"Name": session_name(connector, consumer, FEDERATION_NAME)}
    elif plan.how == "assume-role":
        found = {"RoleArn": settings.role_of(config), "RoleSessionName": session_name(connector, consumer)}
    else:
        found = {}
    if isinstance(config, settings.IamRoleConfig | settings.ImplicitConfig):
        found |= {"ExternalId": config.external_id, "SourceIdentity": config.source_identity}
    if isinstance(config, settings.IamRoleConfig | settings.SessionTokenConfig):
        found |= {"SerialNumber": config.mfa_serial, "TokenCode": config.mfa_code}
    if (
        isinstance(config, settings.IamRoleConfig | settings.ImplicitConfig | settings.FederationTokenConfig)
        and config.session_tags
    ):
        found["Tags"] = [{"Key": key, "Value": value} for key, value in config.session_tags.items()]
    return {name: value for name, value in found.items() if value is not None}


async def _web_token(config: settings.WebIdentityConfig) -> m.Secret:
    import anyio.to_thread

    if config.web_identity_token is not None:
        return config.web_identity_token
    try:
        found = await anyio.to_thread.run_sync(_token_in, config.web_identity_token_file or "", abandon_on_cancel=True)
    except (OSError, ValueError, RuntimeError):
        problem = "cannot be read"
    else:
        if found is not None:
            return found
        problem = f"holds no OIDC token; name a plain file of at most {LONGEST_TOKEN // 1024} KiB with the token alone"
    raise m.InvalidConfig(
        f"the file named by the field 'web_identity_token_file' {problem}", field="web_identity_token_file"
    )


def _token_in(path: str) -> m.Secret | None:
    """The token in a file, if there is one and nothing else: what else a file holds is nobody's business but its own.

    A pipe is not waited for, and no device is read. Blocks.
    """
    file = os.open(Path(path).expanduser(), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        text = opened.read(LONGEST_TOKEN + 1)
    if len(text) > LONGEST_TOKEN:
        return None
    token = text.strip().decode("ascii", "replace")
    return m.Secret(token) if _WEB_TOKEN.fullmatch(token) else None
