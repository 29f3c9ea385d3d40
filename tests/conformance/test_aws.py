"""The kit on AWS, against S3 and STS that enforce session policies (the sandbox)."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

import mooring as m
from mooring.testing import ConnectorConformance, Subject
from mooring_aws import connector
from mooring_aws.credentials import AwsCredentials
from mooring_sandbox.testing import sandbox  # noqa: F401  (a fixture)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # aiobotocore needs it


@pytest.fixture(autouse=True)
def environment(sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The sandbox's environment but for its keys."""
    for name, value in sandbox.environment().items():
        if name not in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, value)


async def lists(issued: m.Issued, resource_id: str) -> bool:
    """Whether plain boto3 may list the bucket with them."""
    keys = issued.credentials
    assert isinstance(keys, AwsCredentials)
    token = keys.session_token.reveal() if keys.session_token else None
    session = boto3.Session(keys.access_key_id, keys.secret_access_key.reveal(), token, keys.region)
    try:
        session.client("s3").list_objects_v2(Bucket=resource_id.removeprefix("s3://"))
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return False
    return True


class TestSecretKey(ConnectorConformance):
    @pytest.fixture
    def subject(self, sandbox: Any) -> Subject:  # noqa: F811
        key = {"region": sandbox.region, "aws_access_key_id": sandbox.developer.key_id}
        return Subject(
            plugin=connector,
            auth_method="secret-key",
            config={**key, "aws_secret_access_key": m.Secret(sandbox.developer.secret)},
            refused={**key, "aws_secret_access_key": m.Secret("wrongwrongwrongwrongwrongwrongwrongwrong")},
            resource_type="s3-bucket",
            resource_id="s3://team-models",
            elsewhere="s3://team-datasets",
            reaches=lists,
            sdks=("botocore", "boto3", "aioboto3", "aiobotocore", "aiohttp"),
        )
