"""describe: light, whole, and with every secret marked."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import mooring as m
from mooring.types import fields_of
from mooring_aws import connector

SECRETS = {"aws_access_key_id", "aws_secret_access_key", "aws_session_token", "mfa_code", "web_identity_token"}


def test_describing_and_routing_ids_loads_no_sdk() -> None:
    code = (
        "import json, sys, mooring_aws as a; a.connector.describe(); a.connector.canonical('s3-bucket', 'data');"
        "print(json.dumps(sorted(sys.modules)))"
    )
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    heavy = {"botocore", "boto3", "aioboto3", "aiobotocore", "aiohttp", "httpx", "ssl", "anyio", "structlog"}
    assert not heavy & set(loaded)


def test_the_auth_methods() -> None:
    methods = {method.name: method for method in connector.describe().auth_methods}
    assert set(methods) == {
        "implicit", "secret-key", "sts-token", "iam-role", "session-token", "federation-token", "web-identity",
    }  # fmt: skip
    assert [name for name, method in methods.items() if method.implicit] == ["implicit"]
    assert all(method.temporary and method.title and method.description for method in methods.values())
    assert {name: method.lifetime and method.lifetime.maximum.total_seconds() for name, method in methods.items()} == {
        "implicit": 43200,
        "secret-key": 129600,
        "sts-token": None,
        "iam-role": 43200,
        "session-token": 129600,
        "federation-token": 129600,
        "web-identity": 43200,
    }


@pytest.mark.parametrize("method", connector.describe().auth_methods, ids=lambda method: method.name)
def test_every_field_is_described_and_every_secret_marked(method: m.AuthMethod) -> None:
    fields = fields_of(method.config)
    assert all(field.description for field in fields)
    assert {field.name for field in fields if field.secret} == {field.name for field in fields} & SECRETS
    assert {"region", "regions", "endpoint_url", "endpoint_urls"} <= {field.name for field in fields}


def test_every_resource_type_says_its_permissions_and_forms() -> None:
    kinds = connector.describe().resource_types
    assert [kind.name for kind in kinds] == ["aws-generic", "s3-bucket", "kubernetes-cluster", "docker-registry"]
    assert all(kind.permissions and kind.formats and kind.description for kind in kinds)
    assert [kind.name for kind in kinds if not kind.narrowable] == ["aws-generic"]
    assert [kind.name for kind in kinds if not kind.instances] == ["aws-generic"]
