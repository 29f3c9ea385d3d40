"""Credentials as text."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mooring as m
from mooring_aws import AwsCredentials, connector

FULL = AwsCredentials(
    access_key_id="ASIAEXAMPLE",
    secret_access_key=m.Secret("it's $HOME `id`"),
    session_token=m.Secret("token=="),
    region="eu-west-1",
    endpoint_urls={"default": "http://127.0.0.1:1", "s3": "http://127.0.0.1:2"},
    expires_at=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    narrowed=True,
)
LONG = AwsCredentials(access_key_id="AKIAEXAMPLE", secret_access_key=m.Secret("s"), expires_at=None, narrowed=False)


def rendered(credentials: m.Credentials, form: str) -> str:
    return connector.render(m.RenderRequest(credentials=credentials, format=form))


def variables(credentials: m.Credentials) -> dict[str, str | None]:
    found = connector.environment(credentials)
    assert found.files == ()
    return {name: value.reveal() if isinstance(value, m.Secret) else value for name, value in found.variables.items()}


UNSET = dict.fromkeys(("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SECURITY_TOKEN"))


def test_the_variables_of_a_program() -> None:
    assert variables(FULL) == UNSET | {
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "it's $HOME `id`",
        "AWS_SESSION_TOKEN": "token==",
        "AWS_CREDENTIAL_EXPIRATION": "2026-01-02T03:04:05Z",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:2",
    }


def test_a_long_lived_key_unsets_the_token_of_another() -> None:
    assert variables(LONG) == UNSET | {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_SESSION_TOKEN": None,
        "AWS_CREDENTIAL_EXPIRATION": None,
    }


@pytest.mark.parametrize("credentials", [FULL, LONG])
def test_an_sdk_finds_these_and_nothing_stale(credentials: Any, machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore looks for AWS_SECURITY_TOKEN before AWS_SESSION_TOKEN."""
    import botocore.session

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"):
        monkeypatch.setenv(name, "stale")
    monkeypatch.setenv("AWS_PROFILE", "of-nobody")
    for name, value in variables(credentials).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        elif name != "AWS_CREDENTIAL_EXPIRATION":  # long ago
            monkeypatch.setenv(name, value)
    found = botocore.session.Session().get_credentials().get_frozen_credentials()
    token = credentials.session_token.reveal() if credentials.session_token else None
    wanted = (credentials.access_key_id, credentials.secret_access_key.reveal(), token)
    assert (found.access_key, found.secret_key, found.token) == wanted
    assert served(FULL).environment.variables["AWS_SECURITY_TOKEN"] is None


@pytest.mark.parametrize("credentials", [FULL, LONG])
def test_what_credential_process_reads(credentials: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.session

    later = AwsCredentials(**{name: getattr(credentials, name) for name in credentials.__struct_fields__} | (
        {"expires_at": datetime(2100, 1, 1, tzinfo=UTC)} if credentials.expires_at else {}
    ))  # fmt: skip
    text = rendered(later, "credential-process")
    assert json.loads(text)["Version"] == 1
    (tmp_path / "answer").write_text(text)
    (tmp_path / "config").write_text(f"[default]\ncredential_process=cat {tmp_path}/answer\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    found = botocore.session.Session().get_credentials().get_frozen_credentials()
    token = credentials.session_token.reveal() if credentials.session_token else None
    assert (found.access_key, found.secret_key, found.token) == (
        credentials.access_key_id,
        credentials.secret_access_key.reveal(),
        token,
    )


def test_another_format_or_kind() -> None:
    with pytest.raises(m.InvalidConfig, match="credential-process"):
        rendered(FULL, "yaml")
    with pytest.raises(m.UnsupportedResource):
        rendered(m.BearerToken(token=m.Secret("t"), expires_at=None, narrowed=True), "credential-process")


def served(credentials: m.Credentials) -> m.Served:
    request = m.ServeRequest(credentials=credentials, url="http://127.0.0.1:9/0", token=m.Secret("asked-with"))
    return connector.serve(request)


def test_what_the_agent_of_a_container_answers() -> None:
    found = served(FULL)
    assert json.loads(found.body.reveal()) == {
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": "it's $HOME `id`",
        "Token": "token==",
        "Expiration": "2026-01-02T03:04:05Z",
    }
    variables = found.environment.variables
    assert variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] == "http://127.0.0.1:9/0"
    assert variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"] == m.Secret("asked-with")
    assert variables["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:2"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        assert variables[name] is None
    assert "it's" not in repr(found)


def test_long_lived_keys_are_not_served() -> None:
    with pytest.raises(m.InvalidConfig, match="long-lived AWS keys are not served"):
        served(LONG)
    with pytest.raises(m.UnsupportedResource):
        served(m.BearerToken(token=m.Secret("t"), expires_at=None, narrowed=True))


@pytest.mark.parametrize("minutes", [14, 9, 2])
def test_botocore_takes_what_is_short_by_its_own_measure(minutes: int, tmp_path: Path) -> None:
    """It wants ten minutes to be left, and asks again at each use; what it is told is the real end."""
    from botocore.credentials import ProcessProvider

    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=minutes)
    short = msgspec.structs.replace(FULL, expires_at=ends)
    (tmp_path / "said").write_text(rendered(short, "credential-process"))
    told = served(short).body.reveal()
    assert m.instant(json.loads(told)["Expiration"]) == ends
    profile = {"profiles": {"p": {"credential_process": f"cat {tmp_path / 'said'}"}}}
    found = ProcessProvider("p", lambda: profile).load()
    assert found is not None
    assert found._expiry_time == ends
    for _ in range(3):
        assert found.get_frozen_credentials().access_key == "ASIAEXAMPLE"
