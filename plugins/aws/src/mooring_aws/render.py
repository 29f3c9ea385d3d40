"""Credentials as text: shell exports, and what the aws CLI's `credential_process` reads."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime

import mooring as m
from mooring_aws.credentials import AwsCredentials
from mooring_aws.endpoints import variables

FORMATS = ("env", "credential-process")


def render(credentials: AwsCredentials, form: str) -> str:
    """The credentials in one of the formats, secrets in the clear."""
    if form == "env":
        stale = (
            "" if credentials.session_token else "unset AWS_SESSION_TOKEN\n"
        )  # one left from before would spoil the key
        return stale + "".join(
            f"export {name}={shlex.quote(value)}\n" for name, value in environment(credentials).items()
        )
    if form == "credential-process":
        return json.dumps(credential_process(credentials)) + "\n"
    raise m.InvalidConfig(f"aws has no format {form!r}; known: {', '.join(FORMATS)}", field="format")


def environment(credentials: AwsCredentials) -> dict[str, str]:
    """As environment variables that AWS's SDKs and tools read."""
    values = {
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key.reveal(),
        "AWS_SESSION_TOKEN": credentials.session_token.reveal() if credentials.session_token else None,
        "AWS_CREDENTIAL_EXPIRATION": _instant(credentials.expires_at),
        "AWS_REGION": credentials.region,
        "AWS_DEFAULT_REGION": credentials.region,
        **variables(credentials.endpoint_urls),
    }
    return {name: value for name, value in values.items() if value is not None}


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
