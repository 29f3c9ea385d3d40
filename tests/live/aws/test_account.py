"""The main job against a real AWS account, with the credentials that this machine has.

    MOORING_LIVE_AWS_BUCKET=mine MOORING_LIVE_AWS_OTHER_BUCKET=other python -m pytest tests/live/aws

Reads both buckets' first page and writes nothing. The key needs sts:GetFederationToken and s3:ListBucket on both.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

import mooring
from mooring.assembly import Settings

BUCKET, OTHER = (os.environ.get(f"MOORING_LIVE_AWS_{name}") for name in ("BUCKET", "OTHER_BUCKET"))

pytestmark = [
    pytest.mark.live,
    pytest.mark.anyio,
    pytest.mark.skipif(
        not (BUCKET and OTHER),
        reason="needs a real account: set MOORING_LIVE_AWS_BUCKET and MOORING_LIVE_AWS_OTHER_BUCKET to two buckets",
    ),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client(credentials: Any) -> Any:
    session = botocore.session.Session()
    return session.create_client(
        "s3",
        region_name=credentials.region,
        endpoint_url=credentials.endpoint_urls.get("s3"),
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key.reveal(),
        aws_session_token=credentials.session_token and credentials.session_token.reveal(),
    )


async def test_credentials_for_one_bucket_do_not_open_the_other(tmp_path: Path) -> None:
    async with mooring.open_broker(settings=Settings(home=tmp_path), system_plugins=[]) as broker:
        connector = await broker.register("live", type="aws", lift=True)
        assert (await broker.verify("live")).account
        async with broker.discover(connectors=["live"], resource_type="s3-bucket") as replies:
            found = {reply.resource.id async for reply in replies if isinstance(reply, mooring.Found)}
        assert {f"s3://{BUCKET}", f"s3://{OTHER}"} <= found
        issued = await broker.issue("live", resource_type="s3-bucket", resource_id=f"s3://{BUCKET}", access="list")
    assert issued.narrowed, connector.auth_method
    assert issued.expires_at is not None
    s3 = client(issued.credentials)
    assert "Name" in s3.list_objects_v2(Bucket=BUCKET)
    with pytest.raises(ClientError) as caught:
        s3.list_objects_v2(Bucket=OTHER)
    assert caught.value.response["Error"]["Code"] == "AccessDenied"
