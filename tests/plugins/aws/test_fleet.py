"""Connectors that are ill in part, through the broker: what they reach all the same, with each error beside it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from aiohttp import web

import mooring
from mooring.assembly import Settings
from mooring.broker import Failed, Finished, Found

pytestmark = pytest.mark.anyio


class Account:
    """An account at the fake: what each service answers, by its name; the region is that of the signature."""

    def __init__(self, replies: Any) -> None:
        self.replies = replies
        self.services: dict[str, Any] = {
            "sts": lambda _region, _asked: replies.identity("arn:aws:iam::123456789012:user/ann"),
            "eks": lambda region, _asked: replies.json({"clusters": [f"{region}-cluster"]}),
            "ecr": lambda region, _asked: replies.json({"repositories": []}),
            "s3": lambda _region, _asked: buckets("data"),
        }

    async def answer(self, asked: Any) -> web.Response:
        region, service = asked.headers["Authorization"].split(",")[0].split("/")[2:4]
        answered: web.Response = self.services[service](region, asked)
        return answered


def buckets(*names: str, following: str = "") -> web.Response:
    listed = "".join(f"<Bucket><Name>{name}</Name><BucketRegion>eu-west-1</BucketRegion></Bucket>" for name in names)
    token = f"<ContinuationToken>{following}</ContinuationToken>" if following else ""
    body = f"<ListAllMyBucketsResult><Buckets>{listed}</Buckets>{token}</ListAllMyBucketsResult>"
    return web.Response(text=body, content_type="application/xml")


def denial(_region: str, _asked: Any) -> web.Response:
    said = "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: eks:ListClusters on resource: *"
    return web.json_response({"message": said}, status=403, headers={"x-amzn-ErrorType": "AccessDeniedException"})


@pytest.fixture
def account(fake: Any, replies: Any) -> Account:
    made = Account(replies)
    fake.answer = made.answer
    return made


@pytest.fixture
async def broker(tmp_path: Any, account: Account, fake_key: Any) -> AsyncGenerator[mooring.Broker, None]:
    async with mooring.open_broker(settings=Settings(home=tmp_path / "home")) as opened:
        config = fake_key | {"regions": ["eu-west-1", "eu-central-1"]}
        await opened.register("prod", type="aws", auth_method="secret-key", config=config, verify=False)
        yield opened


async def seen(broker: mooring.Broker, **how: Any) -> dict[str, Any]:
    """What each unit came to: the ids, and the error if there was one."""
    ids: dict[str, set[str]] = {}
    errors: dict[str, Any] = {}
    finished = set()
    async with broker.discover(**how) as replies:
        async for one in replies:
            if isinstance(one, Found):
                ids.setdefault(one.resource.type, set()).add(one.resource.id)
            elif isinstance(one, Failed):
                errors[f"{one.resource_type} {one.unit}".strip()] = one.error
            elif isinstance(one, Finished):
                finished.add(f"{one.resource_type} {one.unit}".strip())
    return {"ids": ids, "errors": errors, "finished": finished}


async def test_who_may_not_list_one_type_lists_the_others(broker: mooring.Broker, account: Account) -> None:
    account.services["eks"] = denial
    found = await seen(broker)
    assert set(found["errors"]) == {"kubernetes-cluster eu-west-1", "kubernetes-cluster eu-central-1"}
    for error in found["errors"].values():
        assert type(error) is mooring.AccessDenied
        assert "eks:ListClusters" in str(error)
    assert found["ids"]["s3-bucket"] == {"s3://data"}
    assert len(found["ids"]["docker-registry"]) == 2
    assert "kubernetes-cluster" not in found["ids"]


async def test_a_region_that_is_none_is_told_beside_those_that_are(broker: mooring.Broker, account: Account) -> None:
    listed = account.services["eks"]

    def answer(region: str, asked: Any) -> web.Response:
        if region != "eu-central-1":
            return listed(region, asked)
        body = {"message": f"Credential should be scoped to a valid region, not '{region}'."}
        return web.json_response(body, status=403, headers={"x-amzn-ErrorType": "InvalidSignatureException"})

    account.services["eks"] = answer
    found = await seen(broker, resource_type="kubernetes-cluster")
    assert found["ids"] == {"kubernetes-cluster": {"eu-west-1/eu-west-1-cluster"}}
    assert list(found["errors"]) == ["kubernetes-cluster eu-central-1"]
    (error,) = found["errors"].values()
    assert type(error) is mooring.InvalidConfig
    assert "does not know the region" in str(error)


async def test_a_listing_in_a_circle_ends_with_what_was_found(broker: mooring.Broker, account: Account) -> None:
    pages = itertools.count()
    account.services["s3"] = lambda _region, _asked: buckets(f"data-{next(pages)}", following="again")
    found = await seen(broker, resource_type="s3-bucket")
    assert "circle" in str(found["errors"]["s3-bucket"])
    assert len(found["ids"]["s3-bucket"]) == next(pages) == 2


async def test_a_hundred_thousand_buckets_in_one_answer(broker: mooring.Broker, account: Account) -> None:
    names = [f"bucket-{number:06}" for number in range(100_000)]
    account.services["s3"] = lambda _region, _asked: buckets(*names)
    found = await seen(broker, resource_type="s3-bucket")
    assert found["errors"] == {}
    assert len(found["ids"]["s3-bucket"]) == len(names)
    account.services.clear()  # what was found before is given without a call
    again = await seen(broker, resource_type="s3-bucket", cached=True)
    assert again["ids"] == found["ids"]
    one = await seen(broker, resource_type="s3-bucket", match=["s3://bucket-00001?"], cached=True)
    assert len(one["ids"]["s3-bucket"]) == 10


async def test_a_connector_that_is_deleted_meanwhile_answers_to_its_end(
    broker: mooring.Broker, account: Account
) -> None:
    """What was asked is answered; nothing of it is kept."""
    deleted = False
    async with broker.discover(resource_type="s3-bucket") as replies:
        async for one in replies:
            if isinstance(one, Found) and not deleted:
                await broker.delete("prod")
                deleted = True
            assert not isinstance(one, Failed)
    assert deleted
    assert await seen(broker, cached=True) == {"ids": {}, "errors": {}, "finished": set()}
