"""Finding and verifying resources: every page, every region, each once."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

import mooring as m
from mooring_aws import connector
from mooring_aws import eks as eks_module

pytestmark = pytest.mark.anyio


async def found(session: Any, kind: str, **more: Any) -> list[str]:
    request = m.DiscoverRequest(resource_type=kind, **more)
    return [resource.id async for resource in connector.discover(session, request)]


@pytest.fixture
def role(sandbox: Any, place: Any, keys: Any) -> dict[str, Any]:
    return place | keys | {"role_arn": sandbox.role.arn}


async def test_what_the_sandbox_holds(opened: Any, role: Any, sandbox: Any) -> None:
    host = f"{sandbox.account}.dkr.ecr.us-east-1.amazonaws.com"
    async with opened("iam-role", **role) as session:
        assert await found(session, "aws-generic") == [sandbox.account]
        assert set(await found(session, "s3-bucket")) >= {f"s3://{name}" for name in sandbox.buckets}
        assert set(await found(session, "kubernetes-cluster")) >= {f"us-east-1/{name}" for name in sandbox.clusters}
        assert await found(session, "docker-registry") == [host, *(f"{host}/{name}" for name in sandbox.repositories)]


async def test_units_are_the_regions_of_what_is_regional(opened: Any, fake_key: Any) -> None:
    async with opened("secret-key", **fake_key | {"regions": ["us-east-1", "eu-west-1"]}) as session:
        for kind, names in (
            ("kubernetes-cluster", ["eu-west-1", "us-east-1"]),
            ("docker-registry", ["eu-west-1", "us-east-1"]),
            ("s3-bucket", [""]),
            ("aws-generic", [""]),
        ):
            assert [unit.name for unit in await connector.units(session, kind)] == names


async def test_every_page_and_only_the_unit(
    opened: Any, role: Any, sandbox: Any, keys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eks_module, "PAGE", 2)
    eks = boto3.client("eks", region_name="eu-west-1", endpoint_url=sandbox.aws_url, **keys)
    names = [f"c{number:03}" for number in range(5)]
    for name in names:
        eks.create_cluster(name=name, roleArn="arn:aws:iam::000000000000:role/eks", resourcesVpcConfig={})
    try:
        async with opened("iam-role", **role | {"regions": ["eu-west-1"]}) as session:
            both = await found(session, "kubernetes-cluster")
            one = await found(session, "kubernetes-cluster", unit=m.Unit(name="eu-west-1"))
            single = await found(session, "kubernetes-cluster", resource_id="eu-west-1/c004")
    finally:
        for name in names:
            eks.delete_cluster(name=name)
    assert sorted(one) == [f"eu-west-1/{name}" for name in names]
    assert len(both) == len(set(both)) == len(names) + len(sandbox.clusters)
    assert single == ["eu-west-1/c004"]


async def test_a_listing_that_goes_in_a_circle_is_an_error(opened: Any, fake: Any, fake_key: Any, replies: Any) -> None:
    async def answer(asked: Any) -> Any:
        number = int(asked.parameters.get("nextToken", "0"))
        return replies.json({"clusters": [f"c{number}"], "nextToken": str((number + 1) % 3 or 1)})

    fake.answer = answer
    async with opened("secret-key", **fake_key) as session:
        with pytest.raises(m.Rejected, match="circle"):
            await found(session, "kubernetes-cluster")
    assert len(fake.asked) < 6


async def test_pages_of_buckets_with_their_regions(opened: Any, fake: Any, fake_key: Any) -> None:
    from aiohttp import web

    async def answer(asked: Any) -> Any:
        following = "" if "continuation-token" in asked.parameters else "<ContinuationToken>t</ContinuationToken>"
        name = "two" if not following else "one"
        body = (
            f"<ListAllMyBucketsResult><Buckets><Bucket><Name>{name}-data</Name><BucketRegion>eu-west-1</BucketRegion>"
            f"<CreationDate>2026-01-02T03:04:05Z</CreationDate></Bucket></Buckets>{following}</ListAllMyBucketsResult>"
        )
        return web.Response(text=body, content_type="application/xml")

    fake.answer = answer
    async with opened("secret-key", **fake_key) as session:
        request = m.DiscoverRequest(resource_type="s3-bucket")
        resources = [resource async for resource in connector.discover(session, request)]
    assert [(one.id, one.region) for one in resources] == [
        ("s3://one-data", "eu-west-1"),
        ("s3://two-data", "eu-west-1"),
    ]
    assert resources[0].attributes == {"created": "2026-01-02T03:04:05+00:00"}


async def test_verifying(opened: Any, role: Any, sandbox: Any) -> None:
    host = f"{sandbox.account}.dkr.ecr.us-east-1.amazonaws.com"
    there = {
        "aws-generic": [None, sandbox.account],
        "s3-bucket": [None, "s3://team-models", "s3://team-models/churn/"],
        "kubernetes-cluster": [None, "us-east-1/staging"],
        "docker-registry": [None, host, f"{host}/team/trainer"],
    }
    missing = {
        "aws-generic": "123456789012",
        "s3-bucket": "s3://nowhere-at-all",
        "kubernetes-cluster": "us-east-1/nowhere",
        "docker-registry": f"{host}/nowhere",
    }
    async with opened("iam-role", **role) as session:
        for kind, ids in there.items():
            for id in ids:
                identity = await connector.verify(session, m.VerifyRequest(resource_type=kind, resource_id=id))
                assert (
                    identity.subject
                    == f"arn:aws:sts::{sandbox.account}:assumed-role/pipeline/prod.ann-host".replace("ann-", "ann@")
                )
        for kind, id in missing.items():
            with pytest.raises(m.ResourceNotFound):
                await connector.verify(session, m.VerifyRequest(resource_type=kind, resource_id=id))
        with pytest.raises(m.UnsupportedResource, match="us-east-1"):
            await connector.verify(
                session, m.VerifyRequest(resource_type="kubernetes-cluster", resource_id="eu-west-1/a")
            )


async def test_an_unknown_resource_type(opened: Any, fake_key: Any) -> None:
    async with opened("secret-key", **fake_key) as session:
        with pytest.raises(m.UnsupportedResource):
            await found(session, "gcs-bucket")


async def test_a_bucket_that_is_somebody_elses(opened: Any, place: Any, sandbox: Any) -> None:
    intern = {"aws_access_key_id": sandbox.intern.key_id, "aws_secret_access_key": sandbox.intern.secret}
    async with opened("secret-key", **place, **intern) as session:
        with pytest.raises(m.AccessDenied, match="s3:HeadBucket"):
            await connector.verify(session, m.VerifyRequest(resource_type="s3-bucket", resource_id="s3://team-models"))
        await connector.verify(session, m.VerifyRequest(resource_type="s3-bucket", resource_id="s3://team-datasets"))
