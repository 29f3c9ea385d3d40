"""Keys made by STS: of a role, of a web identity, of a long-lived key; each straight from the source, never chained."""

from __future__ import annotations

import re
from datetime import timedelta
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
    return Keys.answered(answer["Credentials"])


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
    import anyio

    if config.web_identity_token is not None:
        return config.web_identity_token
    try:
        path = await anyio.Path(config.web_identity_token_file or "").expanduser()
        return m.Secret((await path.read_text()).strip())
    except (OSError, UnicodeDecodeError, RuntimeError):
        pass
    raise m.InvalidConfig(
        "the file named by the field 'web_identity_token_file' cannot be read", field="web_identity_token_file"
    )
