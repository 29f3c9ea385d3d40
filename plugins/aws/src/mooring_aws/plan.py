"""What issuing will do, decided without a call: `issue` carries the plan out, and `explain` shows it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

import mooring as m
from mooring_aws import ecr, eks, ids, s3, settings
from mooring_aws.policy import EVERYTHING, Grant, compact, session_policy

How = Literal["as-is", "assume-role", "web-identity", "federation-token", "session-token"]

CALLS: dict[How, tuple[str, ...]] = {
    "as-is": (),
    "assume-role": ("sts:AssumeRole",),
    "web-identity": ("sts:AssumeRoleWithWebIdentity",),
    "federation-token": ("sts:GetFederationToken",),
    "session-token": ("sts:GetSessionToken",),
}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How the keys are made, and what confines them."""

    how: How
    policy: dict[str, Any] | None = None
    policy_arns: tuple[str, ...] = ()
    narrowed: bool = False
    calls: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def explanation(self) -> m.Explanation:
        """For people."""
        return m.Explanation(narrowed=self.narrowed, calls=self.calls, policy=self.policy, notes=self.notes)


def standing(config: settings.AwsConfig) -> Plan:
    """How the keys are made with which a session verifies and discovers: all the rights that the connector has."""
    match config:
        case settings.SessionTokenConfig():
            return Plan(how="session-token")
        case settings.IamRoleConfig() | settings.WebIdentityConfig() | settings.ImplicitConfig() if config.role_arn:
            how: How = "web-identity" if isinstance(config, settings.WebIdentityConfig) else "assume-role"
            return Plan(
                how=how, policy=session_policy(None, config.policy, config.policy_arns), policy_arns=config.policy_arns
            )
    return Plan(how="as-is")


def command(connector: str, options: str) -> str:
    """The command that changes what a connector allows, or knows."""
    return f"mooring connector update {connector} {options}"


def plan_of(config: settings.AwsConfig, request: m.CredentialRequest, connector: str = "NAME") -> Plan:
    """How the keys for a request are made. The connector's name is for messages alone.

    Raises:
        InvalidConfig: the policy would be longer than AWS takes, or the resource is not named.
        NotNarrowed: the auth method cannot confine them and the request does not allow wider ones.
        UnsupportedResource: the resource lies in a region, or is an account, that is not the connector's.
    """
    if request.resource_id is None and request.resource_type != ids.GENERIC:
        raise m.InvalidConfig(f"name the {request.resource_type} that the credentials are for", field="resource_id")
    if (own := account_of(config)) and request.resource_type == ids.GENERIC:
        ids.same_account(own, request.resource_id)
    made = _signing(config, request) if request.resource_type == ids.EKS else _keys(config, request, connector)
    if made.policy is not None:
        compact(made.policy)
    before = ("sts:GetCallerIdentity",) if asks_account(config, request) else ()
    calls = before + CALLS[made.how] + AFTERWARDS.get(request.resource_type, ())
    return msgspec.structs.replace(made, calls=calls)


def account_of(config: settings.AwsConfig) -> str | None:
    """The account that a configuration reaches, where it says so itself: that of its role."""
    return ids.account_of(settings.role_of(config))


def asks_account(config: settings.AwsConfig, request: m.CredentialRequest) -> bool:
    """Whether issuing has to ask which account the connector reaches, for the request names one."""
    return request.resource_type == ids.GENERIC and request.resource_id is not None and account_of(config) is None


AFTERWARDS: dict[str, tuple[str, ...]] = {
    ids.EKS: ("eks:DescribeCluster", "sts:GetCallerIdentity (signed, to be called by the cluster)"),
    ids.ECR: ("ecr:GetAuthorizationToken",),
}


def _signing(config: settings.AwsConfig, request: m.CredentialRequest) -> Plan:
    """The keys that sign a cluster's token are not handed out; the token is good for the cluster alone."""
    region, name = ids.cluster_of(request.resource_id or "")
    within(config, region)
    base = standing(config)
    role = settings.role_of(config)
    notes = (eks.NOTE,)
    if role is None:
        return msgspec.structs.replace(base, narrowed=True, notes=notes)
    account = role.split(":")[4]
    policy = _cut(config, eks.grants(config.partition, account, region, name))
    return msgspec.structs.replace(base, policy=policy, narrowed=True, notes=(*notes, *_within_own(config)))


def _keys(config: settings.AwsConfig, request: m.CredentialRequest, connector: str) -> Plan:
    grants = _grants(config, request)
    notes = () if grants or request.access == "write" else (WHOLE,)
    match config:
        case settings.SecretKeyConfig() if grants is None:
            return Plan(how="session-token", notes=notes)
        case settings.SecretKeyConfig():
            return Plan(how="federation-token", policy=_cut(config, grants), narrowed=True)
        case settings.FederationTokenConfig():
            policy = _cut(config, grants) or (None if config.policy_arns else EVERYTHING)
            return Plan(
                how="federation-token",
                policy=policy,
                policy_arns=config.policy_arns,
                narrowed=grants is not None,
                notes=(*notes, *(_within_own(config) if grants else ())),
            )
        case _ if settings.role_of(config) is not None:
            base = standing(config)
            more = _within_own(config) if grants else ()
            return msgspec.structs.replace(
                base, policy=_cut(config, grants), narrowed=grants is not None, notes=(*notes, *more)
            )
    if grants is not None and not request.allow_unnarrowed:
        raise m.NotNarrowed(
            f"{_method(config)} credentials cannot be narrowed to one {request.resource_type}; "
            "use iam-role, web-identity, secret-key or federation-token, or let wider ones out: "
            + command(connector, "--allow-unnarrowed")
        )
    return msgspec.structs.replace(standing(config), notes=notes if grants is None else (WIDE,))


WHOLE = "aws-generic gives all the rights of the connector, whatever access is asked for"
WIDE = "the credentials have all the rights of the connector, for its auth method cannot be narrowed"


def _grants(config: settings.AwsConfig, request: m.CredentialRequest) -> tuple[Grant, ...] | None:
    if request.resource_type == ids.GENERIC or request.resource_id is None:
        return None
    if request.resource_type == ids.S3:
        return s3.grants(config.partition, request.resource_id, request.access)
    _, account, region, repository = ids.repository_of(request.resource_id)
    within(config, region)
    return ecr.grants(config.partition, account, region, repository, request.access)


def within(config: settings.AwsConfig, region: str) -> None:
    """Raise unless the region is one of the connector's."""
    if region not in config.places:
        raise m.UnsupportedResource(
            f"region {region} is not one of the connector's ({', '.join(config.places)}); add it to the field 'regions'"
        )


def _cut(config: settings.AwsConfig, grants: tuple[Grant, ...] | None) -> dict[str, Any] | None:
    own, arns = _own(config)
    return session_policy(grants, own, arns)


def _own(config: settings.AwsConfig) -> tuple[str | None, tuple[str, ...]]:
    if isinstance(config, settings.RoleConfig | settings.FederationTokenConfig):
        return config.policy, config.policy_arns
    return None, ()


def _within_own(config: settings.AwsConfig) -> tuple[str, ...]:
    own, arns = _own(config)
    said = "the connector's own policy bounds the credentials too; the resource's is written as denials beside it"
    return (said,) if own or arns else ()


def _method(config: settings.AwsConfig) -> str:
    names: dict[type, str] = {settings.SessionTokenConfig: "session-token", settings.StsTokenConfig: "sts-token"}
    return names.get(type(config), "implicit")
