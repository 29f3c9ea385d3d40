"""Credentials as programs take them: variables, and what a `credential_process` or a container's agent answers."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import mooring as m
from mooring_aws.credentials import AwsCredentials
from mooring_aws.endpoints import variables

FORMATS = ("credential-process",)
OTHERS = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SECURITY_TOKEN")
"""Some SDKs take the profile that the first two name before the keys of the environment, and the token of the last,
the old name of AWS_SESSION_TOKEN, before that."""
BEFORE_THE_CONTAINER = (
    *OTHERS,
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)
"""What the SDKs take before AWS_CONTAINER_CREDENTIALS_FULL_URI, or instead of its token."""


def render(credentials: AwsCredentials, form: str) -> str:
    """The credentials in one of the formats, secrets in the clear."""
    if form == "credential-process":
        return json.dumps(credential_process(credentials)) + "\n"
    raise m.InvalidConfig(f"aws has no format {form!r}; known: {', '.join(FORMATS)}", field="format")


def environment(credentials: AwsCredentials) -> m.Environment:
    """As environment variables that AWS's SDKs and tools read."""
    keys: dict[str, str | m.Secret | None] = {
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_SESSION_TOKEN": credentials.session_token,
        "AWS_CREDENTIAL_EXPIRATION": _instant(credentials.expires_at),
    }
    return m.Environment(variables=dict.fromkeys(OTHERS) | keys | _places(credentials))


def serve(request: m.ServeRequest, credentials: AwsCredentials) -> m.Served:
    """As the agent of a container answers the SDKs.

    They ask it last: the user's own files, which might have other keys for them, are put out of their sight.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
    """
    answer = {
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key.reveal(),
        "Token": credentials.session_token.reveal() if credentials.session_token else None,
        "Expiration": _instant(credentials.expires_at),
        "AccountId": credentials.account,
    }
    if lacking := [name for name in ("Token", "Expiration") if answer[name] is None]:
        raise m.InvalidConfig(
            f"long-lived AWS keys are not served: they have no {lacking[0]}, which the SDKs want; use mooring exec "
            "without --refresh"
        )
    led: dict[str, str | m.Secret | None] = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": request.url,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": request.token,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_CONFIG_FILE": os.devnull,
    }
    given = {name: value for name, value in answer.items() if value is not None}
    found = m.Environment(variables=dict.fromkeys(BEFORE_THE_CONTAINER) | led | _places(credentials))
    return m.Served(body=m.Secret(json.dumps(given)), environment=found)


def _places(credentials: AwsCredentials) -> dict[str, str | m.Secret | None]:
    regions = ("AWS_REGION", "AWS_DEFAULT_REGION") if credentials.region else ()
    return {**dict.fromkeys(regions, credentials.region), **variables(credentials.endpoint_urls)}


def credential_process(credentials: AwsCredentials) -> dict[str, str | int]:
    """As a program named by `credential_process` answers.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
    """
    values: dict[str, str | int | None] = {
        "Version": 1,
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key.reveal(),
        "SessionToken": credentials.session_token.reveal() if credentials.session_token else None,
        "Expiration": _instant(credentials.expires_at),
    }
    return {name: value for name, value in values.items() if value is not None}


def _instant(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None
