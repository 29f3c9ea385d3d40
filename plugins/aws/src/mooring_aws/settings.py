"""The configuration of each auth method: its fields, what they mean, and their formats, checked before any call."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

import mooring as m
from mooring_aws import formats, ids


def _says(description: str) -> Any:
    return msgspec.Meta(description=description)


Region = Annotated[str | None, _says("the region, such as eu-west-1; the first of `regions` if left out")]
Regions = Annotated[tuple[str, ...], _says("all regions to discover in, for a connector that spans several")]
EndpointUrl = Annotated[
    str | None, _says("the address of an AWS-compatible endpoint, instead of AWS's own, for every service")
]
EndpointUrls = Annotated[
    dict[str, str], _says("the same for single services, such as s3=http://127.0.0.1:8333; goes before endpoint_url")
]
KeyId = Annotated[m.Secret, _says("the access key's id; AKIA... is long-lived, ASIA... temporary")]
SecretKey = Annotated[m.Secret, _says("the secret access key")]
SessionToken = Annotated[m.Secret, _says("the session token that came with a temporary access key")]
SourceToken = Annotated[m.Secret | None, _says("the session token, where the source key is a temporary one (ASIA...)")]
RoleArn = Annotated[str, _says("the role to assume, arn:aws:iam::ACCOUNT-ID:role/NAME")]
OptionalRoleArn = Annotated[str | None, _says("a role to assume with the machine's own identity")]
ExternalId = Annotated[str | None, _says("the external id that the role's trust policy asks for")]
MfaSerial = Annotated[str | None, _says("the ARN or serial number of the MFA device that the trust policy asks for")]
MfaCode = Annotated[
    m.Secret | None, _says("the device's present code; good for one call within 30 seconds, so update it before each")
]
SessionTags = Annotated[dict[str, str], _says("tags of the session, for policies and CloudTrail; need sts:TagSession")]
SourceIdentity = Annotated[
    str | None, _says("who is behind the session, as CloudTrail shows it; cannot be changed within it")
]
PolicyArns = Annotated[tuple[str, ...], _says("managed policies beyond which no issued credentials go")]
Policy = Annotated[str | None, _says("an IAM policy (JSON) beyond which no issued credentials go")]
Profile = Annotated[str | None, _says("the profile of ~/.aws/config to take; the default chain if left out")]
TokenFile = Annotated[
    str | None, _says("a file with the OIDC token, read anew each time (as in EKS, GitHub Actions, ...)")
]
WebToken = Annotated[m.Secret | None, _says("the OIDC token itself, where there is no file")]


class AwsConfig(m.Config, kw_only=True):
    """What every auth method has: where AWS is."""

    region: Region = None
    regions: Regions = ()
    endpoint_url: EndpointUrl = None
    endpoint_urls: EndpointUrls = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.places:
            raise m.InvalidConfig(
                "field 'region' is required, unless 'regions' is given; write one like eu-west-1", field="region"
            )
        for url in filter(None, (self.endpoint_url, *self.endpoint_urls.values())):
            formats.match(formats.URL, url, "endpoint_url", "a URL like https://s3.example.org")
        for service in self.endpoint_urls:
            formats.match(formats.SERVICE, service, "endpoint_urls", "SERVICE=URL, with services like s3 or sts")
        form = formats.LOOSE_REGION if self.elsewhere else formats.REGION
        for region in self.places:
            formats.match(form, region, "region", "a region like eu-west-1")
        if len({ids.partition_of(region) for region in self.places}) > 1:
            raise m.InvalidConfig("field 'regions' mixes partitions; make one connector for each", field="regions")

    @property
    def places(self) -> tuple[str, ...]:
        """The regions, each once, `region` first."""
        return tuple(dict.fromkeys([*([self.region] if self.region else []), *self.regions]))

    @property
    def elsewhere(self) -> bool:
        """Whether it is a store or cloud that speaks AWS's APIs, with rules of its own for regions and ARNs."""
        return bool(self.endpoint_url or self.endpoint_urls)

    @property
    def home(self) -> str:
        """The region for what has none of its own: STS, S3."""
        return self.places[0]

    @property
    def partition(self) -> str:
        """aws, aws-cn or aws-us-gov."""
        return ids.partition_of(self.home)


class KeyPairConfig(AwsConfig, kw_only=True):
    """What the auth methods with an access key share."""

    aws_access_key_id: KeyId
    aws_secret_access_key: SecretKey

    def __post_init__(self) -> None:
        super().__post_init__()
        formats.check_key(self.aws_access_key_id, self.aws_secret_access_key)


class SecretKeyConfig(KeyPairConfig, kw_only=True):
    """A long-lived key, itself never handed out unless that is allowed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        formats.check_long_lived(self.aws_access_key_id, "use the auth method sts-token, with its session token")


class StsTokenConfig(KeyPairConfig, kw_only=True):
    """A temporary key that somebody else renews."""

    aws_session_token: SessionToken

    def __post_init__(self) -> None:
        super().__post_init__()
        formats.check_temporary(self.aws_access_key_id, self.aws_session_token)


class IamRoleConfig(KeyPairConfig, kw_only=True):
    """A role, assumed with a key."""

    role_arn: RoleArn
    aws_session_token: SourceToken = None
    external_id: ExternalId = None
    mfa_serial: MfaSerial = None
    mfa_code: MfaCode = None
    session_tags: SessionTags = msgspec.field(default_factory=dict)
    source_identity: SourceIdentity = None
    policy_arns: PolicyArns = ()
    policy: Policy = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.aws_session_token is None:
            formats.check_long_lived(self.aws_access_key_id, "give its session token in aws_session_token")
        else:
            formats.check_temporary(self.aws_access_key_id, self.aws_session_token)
        _check_role(self, self.role_arn)
        formats.check_mfa(self.mfa_serial, self.mfa_code)


class SessionTokenConfig(KeyPairConfig, kw_only=True):
    """A long-lived key, of which temporary ones with the same rights are made."""

    mfa_serial: MfaSerial = None
    mfa_code: MfaCode = None

    def __post_init__(self) -> None:
        super().__post_init__()
        formats.check_long_lived(self.aws_access_key_id, "a session token can be made of a long-lived key alone")
        formats.check_mfa(self.mfa_serial, self.mfa_code)


class FederationTokenConfig(KeyPairConfig, kw_only=True):
    """A long-lived key, of which temporary ones with fewer rights are made."""

    session_tags: SessionTags = msgspec.field(default_factory=dict)
    policy_arns: PolicyArns = ()
    policy: Policy = None

    def __post_init__(self) -> None:
        super().__post_init__()
        formats.check_long_lived(self.aws_access_key_id, "a federation token can be made of a long-lived key alone")
        formats.check_tags(self.session_tags)
        formats.check_policies(self.policy, self.policy_arns)


class WebIdentityConfig(AwsConfig, kw_only=True):
    """A role, assumed with a token of an OIDC issuer."""

    role_arn: RoleArn
    web_identity_token_file: TokenFile = None
    web_identity_token: WebToken = None
    policy_arns: PolicyArns = ()
    policy: Policy = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.web_identity_token is None) == (self.web_identity_token_file is None):
            raise m.InvalidConfig(
                "give one of the fields 'web_identity_token_file' and 'web_identity_token'",
                field="web_identity_token_file",
            )
        _check_role(self, self.role_arn)


class ImplicitConfig(AwsConfig, kw_only=True):
    """The identity of the machine that mooring runs on, or a role assumed with it."""

    profile_name: Profile = None
    role_arn: OptionalRoleArn = None
    external_id: ExternalId = None
    session_tags: SessionTags = msgspec.field(default_factory=dict)
    source_identity: SourceIdentity = None
    policy_arns: PolicyArns = ()
    policy: Policy = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.role_arn is not None:
            _check_role(self, self.role_arn)
        elif field := next((name for name in _WITH_A_ROLE if getattr(self, name)), None):
            raise m.InvalidConfig(f"field {field!r} needs a role; give role_arn too", field=field)


def _check_role(config: RoleConfig, role: str) -> None:
    formats.check_role(role, None if config.elsewhere else config.partition)
    if not isinstance(config, WebIdentityConfig):
        formats.check_session(config.external_id, config.source_identity)
        formats.check_tags(config.session_tags)
    formats.check_policies(config.policy, config.policy_arns)


_WITH_A_ROLE = ("external_id", "session_tags", "source_identity", "policy_arns", "policy")

RoleConfig = IamRoleConfig | WebIdentityConfig | ImplicitConfig
"""The configurations that have a role, or may have one."""


def role_of(config: AwsConfig) -> str | None:
    """The role that a configuration assumes, if it does."""
    return config.role_arn if isinstance(config, RoleConfig) else None
