"""The auth methods, for `describe`: each with its configuration and the lives that AWS documents."""

from __future__ import annotations

from datetime import timedelta

import mooring as m
from mooring_aws import ids, settings

HOUR = timedelta(hours=1)

ASSUMED = m.Lifetime(minimum=timedelta(minutes=15), default=HOUR, maximum=12 * HOUR)
"""Source: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html"""

TOKEN = m.Lifetime(minimum=timedelta(minutes=15), default=12 * HOUR, maximum=36 * HOUR)
"""Source: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetFederationToken.html, API_GetSessionToken.html"""

SHORT_TOKEN = m.Lifetime(minimum=TOKEN.minimum, default=HOUR, maximum=TOKEN.maximum)
"""The bounds of a federation token, with a shorter default of our own."""

ROLE_WIDE = (ids.GENERIC, ids.S3)
"""What is a session of a role, and ends when the role refuses it. The token of a cluster, and the login of a registry,
are something else that a session was exchanged for: nothing takes them back.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html; of GetCallerIdentity, by
which a cluster knows us, https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html says that no
policy can deny it.
"""

METHODS = (
    m.AuthMethod(
        name="implicit",
        title="The machine's own identity",
        config=settings.ImplicitConfig,
        description=(
            "Whatever the machine has: environment, profile, SSO, container or instance role; off unless mooring's "
            "configuration allows it. With role_arn, issued credentials are sessions of that role, narrowed to the "
            "resource; without, they are the machine's own and cannot be narrowed."
        ),
        temporary=True,
        lifetime=ASSUMED,
        implicit=True,
        role_wide=(),
    ),
    m.AuthMethod(
        name="secret-key",
        title="Access key",
        config=settings.SecretKeyConfig,
        description=(
            "A long-lived access key of an IAM user. What is issued is temporary: a federation token, narrowed to the "
            "resource (GetFederationToken), or a session token for the whole account (GetSessionToken). The key itself "
            "is handed out only where the endpoint makes no temporary ones, and the connector allows long-lived ones."
        ),
        temporary=True,
        lifetime=SHORT_TOKEN,
        role_wide=(),
    ),
    m.AuthMethod(
        name="sts-token",
        title="Temporary access key",
        config=settings.StsTokenConfig,
        description=(
            "A temporary access key with its session token, which somebody else renews. AWS cannot narrow it, so it is "
            "issued for one resource only if the connector allows that. Set the connector's expiry to the token's."
        ),
        temporary=True,
        role_wide=(),
    ),
    m.AuthMethod(
        name="iam-role",
        title="IAM role",
        config=settings.IamRoleConfig,
        description=(
            "A role, assumed with an access key when credentials are issued, with a session policy that confines them "
            "to the resource. The maximum is also bounded by the role's MaxSessionDuration, and by one hour where the "
            "source key is itself a session of a role. policy and policy_arns bound everything that is issued: "
            "credentials for a resource get the intersection of those with the resource's own policy. What is issued "
            "can be taken back for the role as a whole (iam:GetRolePolicy and iam:PutRolePolicy on it)."
        ),
        temporary=True,
        lifetime=ASSUMED,
        role_wide=ROLE_WIDE,
    ),
    m.AuthMethod(
        name="session-token",
        title="Session token",
        config=settings.SessionTokenConfig,
        description=(
            "Temporary keys with the same rights as a long-lived one (GetSessionToken), also where MFA is asked for. "
            "AWS cannot narrow them, so they are issued for one resource only if the connector allows that."
        ),
        temporary=True,
        lifetime=TOKEN,
        role_wide=(),
    ),
    m.AuthMethod(
        name="federation-token",
        title="Federation token",
        config=settings.FederationTokenConfig,
        description=(
            "Temporary keys with fewer rights than the long-lived one (GetFederationToken), narrowed to the resource; "
            "they cannot call IAM, nor STS but for GetCallerIdentity. Verifying, discovering and the tokens of EKS, "
            "which take no federated user, use the long-lived key itself."
        ),
        temporary=True,
        lifetime=TOKEN,
        role_wide=(),
    ),
    m.AuthMethod(
        name="web-identity",
        title="Web identity (OIDC)",
        config=settings.WebIdentityConfig,
        description=(
            "A role, assumed with the token of an OIDC issuer that the account trusts (a Kubernetes service account, a "
            "CI job, ...), with a session policy that confines the credentials to the resource. No AWS key is stored. "
            "What is issued can be taken back for the role as a whole, if it may call iam:GetRolePolicy and "
            "iam:PutRolePolicy on itself."
        ),
        temporary=True,
        lifetime=ASSUMED,
        role_wide=ROLE_WIDE,
    ),
)
