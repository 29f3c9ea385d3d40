"""The fields of the auth methods: checked before any call, and never quoted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mooring as m
from mooring.types import build_config, fields_of
from mooring_aws import connector

KEY = {"aws_access_key_id": "AKIAEXAMPLEEXAMPLE00", "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
TEMPORARY = KEY | {"aws_access_key_id": "ASIAEXAMPLEEXAMPLE00", "aws_session_token": "token"}
ROLE = {"role_arn": "arn:aws:iam::123456789012:role/team/deploy"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}})
HERE = {"region": "eu-west-1"}

GOOD: list[tuple[str, dict[str, Any]]] = [
    ("secret-key", KEY | HERE),
    ("secret-key", KEY | {"regions": ["eu-west-1", "us-east-1"]}),
    ("secret-key", KEY | {"region": "auto", "endpoint_url": "https://store.example.org:9000"}),
    ("sts-token", TEMPORARY | HERE),
    ("iam-role", KEY | ROLE | HERE),
    ("iam-role", TEMPORARY | ROLE | HERE | {"external_id": "x:1", "session_tags": {"team": "a b"}, "policy": POLICY}),
    ("iam-role", KEY | ROLE | HERE | {"mfa_serial": "arn:aws:iam::123456789012:mfa/ann", "mfa_code": "123456"}),
    ("iam-role", KEY | {"role_arn": "arn:aws-cn:iam::123456789012:role/d", "region": "cn-north-1"}),
    ("iam-role", KEY | {"role_arn": "arn:minio:iam:::role/any", "region": "auto", "endpoint_url": "http://store:9000"}),
    ("session-token", KEY | HERE),
    ("federation-token", KEY | HERE | {"policy_arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"]}),
    ("web-identity", ROLE | HERE | {"web_identity_token_file": "/var/run/token"}),
    ("web-identity", ROLE | HERE | {"web_identity_token": "eyJ"}),
    ("implicit", HERE),
    ("implicit", HERE | ROLE | {"profile_name": "dev", "source_identity": "ann@example.org"}),
]

BAD: list[tuple[str, str, dict[str, Any]]] = [
    ("region", "secret-key", KEY),
    ("region", "secret-key", KEY | {"region": "Europe"}),
    ("regions", "secret-key", KEY | {"regions": ["eu-west-1", "cn-north-1"]}),
    ("endpoint_url", "secret-key", KEY | HERE | {"endpoint_url": "ftp://store"}),
    ("endpoint_url", "secret-key", KEY | HERE | {"endpoint_url": "https://user:canary@store"}),
    ("endpoint_urls", "secret-key", KEY | HERE | {"endpoint_urls": {"S3!": "https://store"}}),
    ("aws_access_key_id", "secret-key", KEY | HERE | {"aws_access_key_id": "AKIA canary"}),
    ("aws_access_key_id", "secret-key", KEY | HERE | {"aws_access_key_id": "ASIAEXAMPLEEXAMPLE00"}),
    ("aws_access_key_id", "iam-role", KEY | HERE | ROLE | {"aws_access_key_id": "ASIAEXAMPLEEXAMPLE00"}),
    ("aws_access_key_id", "session-token", KEY | HERE | {"aws_access_key_id": "ASIAEXAMPLEEXAMPLE00"}),
    ("aws_secret_access_key", "secret-key", KEY | HERE | {"aws_secret_access_key": "canary canary"}),
    ("aws_secret_access_key", "secret-key", KEY | HERE | {"aws_secret_access_key": "AKIAEXAMPLEEXAMPLE00"}),
    ("aws_session_token", "sts-token", KEY | HERE | {"aws_session_token": "canary"}),
    ("aws_session_token", "sts-token", TEMPORARY | HERE | {"aws_session_token": "can ary"}),
    ("role_arn", "iam-role", KEY | HERE | {"role_arn": "arn:aws:iam::123456789012:user/canary"}),
    ("role_arn", "iam-role", KEY | ROLE | {"region": "cn-north-1"}),
    ("external_id", "iam-role", KEY | ROLE | HERE | {"external_id": "canary canary"}),
    ("source_identity", "iam-role", KEY | ROLE | HERE | {"source_identity": "canary canary"}),
    ("session_tags", "iam-role", KEY | ROLE | HERE | {"session_tags": {"k": "canary!"}}),
    ("session_tags", "iam-role", KEY | ROLE | HERE | {"session_tags": {str(n): "v" for n in range(51)}}),
    ("mfa_code", "iam-role", KEY | ROLE | HERE | {"mfa_serial": "123456789"}),
    ("mfa_code", "session-token", KEY | HERE | {"mfa_serial": "123456789", "mfa_code": "canary"}),
    ("mfa_serial", "session-token", KEY | HERE | {"mfa_code": "123456"}),
    ("policy", "iam-role", KEY | ROLE | HERE | {"policy": "{canary"}),
    ("policy", "iam-role", KEY | ROLE | HERE | {"policy": '{"Statement": ["canary"]}'}),
    ("policy", "iam-role", KEY | ROLE | HERE | {"policy": "[" * 100_000}),
    ("policy_arns", "federation-token", KEY | HERE | {"policy_arns": ["canary"]}),
    ("policy_arns", "federation-token", KEY | HERE | {"policy_arns": ["arn:aws:iam::aws:policy/A"] * 11}),
    ("web_identity_token_file", "web-identity", ROLE | HERE),
    ("external_id", "implicit", HERE | {"external_id": "canary"}),
]


@pytest.mark.parametrize(("method", "fields"), GOOD)
def test_well_formed(settle: Any, method: str, fields: dict[str, Any]) -> None:
    config = settle(method, **fields)
    assert config.home == config.places[0]


@pytest.mark.parametrize(("field", "method", "fields"), BAD)
def test_malformed_names_the_field_and_not_the_value(
    settle: Any, field: str, method: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(m.InvalidConfig) as caught:
        settle(method, **fields)
    assert caught.value.field == field
    assert "canary" not in str(caught.value)


def test_a_short_key_id_is_told_how_long_it_must_be(settle: Any) -> None:
    with pytest.raises(m.InvalidConfig, match="16 to 128 letters and digits"):
        settle("secret-key", **KEY | HERE | {"aws_access_key_id": "AKIAZZ"})


@given(st.sampled_from(connector.describe().auth_methods), st.data())
def test_any_text_in_any_field_is_taken_or_refused(method: m.AuthMethod, data: st.DataObject) -> None:
    start = next(fields for name, fields in GOOD if name == method.name)
    field = data.draw(st.sampled_from([field.name for field in fields_of(method.config) if not field.multiple]))
    text = data.draw(st.text(min_size=1))
    refused: list[str | None] = []
    try:
        build_config(method.config, start | {field: text})
    except m.InvalidConfig as error:
        refused.append(error.field)
    assert all(refused)


@pytest.mark.parametrize("region", ["eu-west-1", "us-east-1", "cn-north-1", "us-gov-west-1", "ap-southeast-7"])
def test_the_endpoint_is_the_sts_that_is_called(settle: Any, region: str) -> None:
    import botocore.session

    session = botocore.session.Session()
    session.set_config_variable("sts_regional_endpoints", "regional")
    client = session.create_client("sts", region, aws_access_key_id="x", aws_secret_access_key="x")
    assert f"https://{connector.endpoint(settle('implicit', region=region))}" == client.meta.endpoint_url


def test_the_endpoint_of_another_address(settle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"region": "eu-west-1", "endpoint_url": "http://127.0.0.1:9000/path"}
    assert connector.endpoint(settle("implicit", **place)) == "127.0.0.1:9000"
    assert connector.endpoint(settle("implicit", **place, endpoint_urls={"sts": "https://sts.example.org"})) == (
        "sts.example.org"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://ann:word@aws.example.org")
    assert connector.endpoint(settle("implicit", region="eu-west-1")) == "aws.example.org"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://ann:wo/rd@[")
    assert connector.endpoint(settle("implicit", region="eu-west-1")) == "an endpoint whose address is none"
