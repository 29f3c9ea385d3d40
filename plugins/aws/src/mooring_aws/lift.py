"""A connector's configuration from what the machine has, by botocore's own chain.

Reads the environment, and of the shared files the one profile that applies with the profile that it names as its
source. SSO, container and instance metadata are asked only where the chain gets that far. A profile's role is not
assumed: the role and the source keys become the configuration, so that what is issued later comes straight from them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import anyio.to_thread
import msgspec

import mooring as m
from mooring.types import build_config, fields_of
from mooring_aws import machine
from mooring_aws.credentials import Keys
from mooring_aws.errors import translated
from mooring_aws.methods import METHODS
from mooring_aws.quiet import quiet

LONG_KEYS = ("secret-key", "session-token", "federation-token")
SERVICES = ("s3", "sts", "eks", "ecr")
LOOKED = "the environment, the profile in ~/.aws/config and ~/.aws/credentials, SSO, container and instance metadata"
SOURCES = {
    "env": "the environment (AWS_ACCESS_KEY_ID)",
    "explicit": "the environment",
    "shared-credentials-file": "{profile} in the shared credentials file",
    "config-file": "{profile} in the shared config file",
    "custom-process": "the credential_process of {profile}",
    "sso": "the SSO session of {profile}",
    "container-role": "the container's role",
    "iam-role": "the instance's role",
}
"""Botocore's names of its providers, for people."""
METADATA = ("container-role", "iam-role")
"""Providers of the machine, which botocore asks when a profile has no keys."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine has, in the words of our fields."""

    method: str
    fields: dict[str, Any]
    source: str
    expires_at: datetime | None = None


async def lift(request: m.LiftRequest) -> m.Lifted:
    """The configuration, as its auth method.

    Raises:
        InvalidConfig: a field is missing or malformed, such as a region that nobody named.
        NothingToLift: there is nothing, or nothing for the auth method that is wanted.
        NotPermitted: the implicit method is wanted and not allowed.
    """
    if request.auth_method == "implicit" and not request.allow_implicit:
        raise m.NotPermitted(
            "the auth method implicit is off; allow implicit authentication in mooring's configuration first"
        )
    if request.auth_method is not None and request.auth_method not in {method.name for method in METHODS}:
        raise m.UnknownAuthMethod(
            f"aws has no auth method {request.auth_method!r}; known: {', '.join(one.name for one in METHODS)}"
        )

    async def work() -> Found:
        with quiet():
            try:
                return await anyio.to_thread.run_sync(_find, request, abandon_on_cancel=True)
            except m.MooringError as error:
                problem = error
        raise problem.with_traceback(None)  # its frames held what the profile holds

    found = await translated("looking for AWS credentials on this machine", work)
    method = next(method for method in METHODS if method.name == found.method)
    known = {field.name for field in fields_of(method.config)}
    named = {"profile_name", "role_arn"} - known  # they have led to what was found
    given = {name: value for name, value in request.options.items() if name not in named and value is not None}
    config = build_config(method.config, found.fields | given)
    return m.Lifted(auth_method=found.method, config=config, source=found.source, expires_at=found.expires_at)


def _find(request: m.LiftRequest) -> Found:
    options, wanted = request.options, request.auth_method
    named = options.get("profile_name")
    session = machine.open_session(named)
    scoped = session.get_scoped_config()
    profile = f"profile {named or os.environ.get('AWS_PROFILE') or 'default'!r}"
    places = _places(session, scoped, options)
    if wanted == "implicit":
        return Found(
            method="implicit",
            fields={**places, "profile_name": named},
            source="the machine's own identity, kept implicit",
        )
    if web := _web_identity(scoped, options, use_environment=named is None):
        if wanted in (None, "web-identity"):
            return Found(method="web-identity", fields=places | web[0], source=web[1].format(profile=profile))
    elif wanted == "web-identity":
        raise m.NothingToLift(
            "no web identity found; looked for role_arn and web_identity_token_file in the environment and the profile"
        )
    by_environment = named is None and "AWS_ACCESS_KEY_ID" in os.environ
    by_profile = scoped.get("role_arn") and not web and not by_environment and not options.get("role_arn")
    if by_profile and wanted in (None, "iam-role"):
        return _profile_role(session, scoped, places, profile)
    keys, provider = _chain(session, profile if named else None)
    source = SOURCES.get(provider, f"botocore's provider {provider!r}").format(profile=profile)
    return _of_keys(keys, source, places, wanted, role=bool(options.get("role_arn")))


def _of_keys(keys: Keys, source: str, places: dict[str, Any], wanted: str | None, *, role: bool) -> Found:
    if wanted is None:
        wanted = "iam-role" if role else "sts-token" if keys.temporary else "secret-key"
    if wanted == "iam-role" and not role:
        raise m.NothingToLift(f"no role was found to go with the keys from {source}; give role_arn")
    if wanted in LONG_KEYS and keys.temporary:
        raise m.NothingToLift(f"{wanted} wants a long-lived key, and {source} has a temporary one; use sts-token")
    if wanted == "sts-token" and not keys.temporary:
        raise m.NothingToLift(f"sts-token wants a temporary key, and {source} has a long-lived one; use secret-key")
    return Found(method=wanted, fields=places | _key_fields(keys), source=source, expires_at=keys.expires_at)


def _key_fields(keys: Keys) -> dict[str, Any]:
    token = {"aws_session_token": keys.session_token} if keys.session_token else {}
    return {"aws_access_key_id": keys.access_key_id, "aws_secret_access_key": keys.secret_access_key, **token}


def _chain(session: Any, profile: str | None) -> tuple[Keys, str]:
    """The keys of botocore's chain, and where it found them: in the profile alone, if one was named."""
    from botocore.exceptions import NoCredentialsError

    try:
        keys, provider = machine.found_by(session)
        if profile is None or provider not in METADATA:
            return keys, provider
    except NoCredentialsError:
        pass
    if profile is not None:
        raise m.NothingToLift(
            f"{profile} has no AWS credentials; set aws_access_key_id and aws_secret_access_key in it, or name another"
        )
    disabled = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
    said = " (instance metadata is disabled by AWS_EC2_METADATA_DISABLED)" if disabled else ""
    raise m.NothingToLift(f"no AWS credentials on this machine; looked in {LOOKED}{said}")


def _profile_role(session: Any, scoped: Mapping[str, Any], places: dict[str, Any], profile: str) -> Found:
    """A profile with a role: the role, and the keys of its source profile."""
    source = scoped.get("source_profile")
    if source:
        static = session.full_config.get("profiles", {}).get(source, {})
        itself = static is scoped or static.get("role_arn") == scoped["role_arn"]
        keys = (
            _static(static)
            if itself or static.get("aws_access_key_id")
            else machine.found_by(machine.open_session(source))[0]
        )
    elif scoped.get("credential_source") == "Environment":
        keys = _static({name.lower(): os.environ.get(name) for name in KEY_NAMES})
    else:  # the container's or the instance's role: botocore knows how to ask them
        keys, provider = _chain(session, None)
        return _of_keys(keys, f"the role of {profile} (by {provider})", places, None, role=False)
    taken = {field: scoped[name] for field, name in ROLE_FIELDS.items() if scoped.get(name)}
    said = f"the role of {profile} with the keys of " + (f"profile {source!r}" if source else "the environment")
    return Found(method="iam-role", fields=places | _key_fields(keys) | taken, source=said, expires_at=keys.expires_at)


KEY_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
ROLE_FIELDS = {"role_arn": "role_arn", "external_id": "external_id", "mfa_serial": "mfa_serial"}


def _static(values: Mapping[str, Any]) -> Keys:
    key, secret, token = (values.get(name.lower()) for name in KEY_NAMES)
    if not key or not secret:
        key = secret = token = None
        values = {}
        raise m.NothingToLift(
            "the profile's role has no source keys; set aws_access_key_id and aws_secret_access_key at its source"
        )
    return Keys(access_key_id=key, secret_access_key=m.Secret(secret), session_token=m.Secret(token) if token else None)


def _web_identity(
    scoped: Mapping[str, Any], options: Mapping[str, Any], *, use_environment: bool
) -> tuple[dict[str, str], str] | None:
    environment = {
        "role_arn": os.environ.get("AWS_ROLE_ARN"),
        "web_identity_token_file": os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"),
    }
    candidates = [(scoped, "the web identity of {profile}")]
    if use_environment:
        if "AWS_ACCESS_KEY_ID" in os.environ:
            return None  # goes before, as in botocore's chain
        candidates.insert(0, (environment, "the environment (AWS_WEB_IDENTITY_TOKEN_FILE)"))
    for values, source in candidates:
        role, file = options.get("role_arn") or values.get("role_arn"), values.get("web_identity_token_file")
        if role and file:
            return {"role_arn": role, "web_identity_token_file": file}, source
    return None


def _places(session: Any, scoped: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The region, and the endpoints that are not AWS's own, as the environment and the profile have them."""
    from botocore.configprovider import ConfiguredEndpointProvider

    region = options.get("region") or (None if options.get("regions") else _region(session))
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return {"region": region}
    general = os.environ.get("AWS_ENDPOINT_URL") or scoped.get("endpoint_url")
    found = {
        service: ConfiguredEndpointProvider(
            full_config=session.full_config, scoped_config=scoped, client_name=service
        ).provide()
        for service in SERVICES
    }
    single = {service: url for service, url in found.items() if url and url != general}
    return {"region": region, "endpoint_url": general, "endpoint_urls": single}


def _region(session: Any) -> str | None:
    """The region of the machine: AWS_REGION as all SDKs but botocore read it, then botocore's own chain."""
    region: str | None = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    return region
