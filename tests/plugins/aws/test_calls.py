"""How many calls it takes to discover everything: four for a connector of one region, and which."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import mooring as m
from mooring.assembly import Settings
from mooring.testing import memory_broker
from mooring_aws import connector

pytestmark = pytest.mark.anyio

ACCOUNT, ROLE = "123456789012", "arn:aws:iam::123456789012:role/team/pipeline"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/pipeline/work.ann"
HOST = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com"
LISTINGS = ("DescribeRepositories", "ListBuckets", "ListClusters")
MADE = ("AssumeRole", "AssumeRoleWithWebIdentity", "GetSessionToken")
JSON = "application/x-amz-json-1.1"


class Cloud:
    """What the fake answers, and by which names it was called."""

    def __init__(self, fake: Any, replies: Any) -> None:
        self.called: list[str] = []
        self.repositories: list[dict[str, str]] = []
        self.user: str | None = SESSION
        """Whose session STS says that it has made."""
        self.refused: set[str] = set()
        self._replies = replies
        fake.secrets["ASIAEXAMPLEEXAMPLE00"] = "made"
        fake.answer = self.answer

    async def answer(self, asked: Any) -> Any:
        name = _name(asked)
        self.called.append(name)
        if name in self.refused:
            return self._replies.refusal("AccessDenied", status=403)
        if name in MADE:
            made = self._replies.credentials(name)
            user = f"<AssumedRoleUser><Arn>{self.user}</Arn><AssumedRoleId>A:w</AssumedRoleId></AssumedRoleUser>"
            made.text = made.text.replace("</Credentials>", f"</Credentials>{user if self.user else ''}")
            return made
        known = {
            "GetCallerIdentity": lambda: self._replies.identity(f"arn:aws:iam::{ACCOUNT}:user/ann"),
            "ListBuckets": lambda: self._replies.xml("<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>"),
            "ListClusters": lambda: self._replies.json({"clusters": ["one"]}),
            "DescribeRepositories": lambda: self._replies.json({"repositories": self.repositories}, content_type=JSON),
            "DescribeRegistry": lambda: self._replies.json({"registryId": ACCOUNT}, content_type=JSON),
        }
        return known[name]()


def _name(asked: Any) -> str:
    """The operation."""
    if target := asked.headers.get("X-Amz-Target"):
        return str(target).rpartition(".")[2]
    return asked.parameters.get("Action") or {"/": "ListBuckets", "/clusters": "ListClusters"}[asked.path]


@pytest.fixture
def cloud_of(fake: Any, replies: Any) -> Cloud:
    return Cloud(fake, replies)


Discovered = Callable[..., Awaitable[tuple[set[str], int]]]


@pytest.fixture
def discovered(fake: Any, fake_key: Any, monkeypatch: pytest.MonkeyPatch) -> Discovered:
    """Discover with a connector of an auth method: the ids, and how many calls the broker has counted."""

    async def run(method: str, /, **config: Any) -> tuple[set[str], int]:
        key = {name: value for name, value in fake_key.items() if name.startswith("aws_")}
        place = {name: value for name, value in fake_key.items() if name not in key}
        if method == "implicit":
            for name, value in key.items():
                monkeypatch.setenv(name.upper(), value)
        elif method != "web-identity":
            place |= {name: m.Secret(value) for name, value in key.items()}
        wanted = {name: config.pop(name) for name in ("resource_type",) if name in config}
        settings = Settings(home=Path("/nonexistent"), allow_implicit=True)
        async with memory_broker(connector, settings=settings) as broker:
            await broker.register("work", type="aws", auth_method=method, config=place | config, verify=False)
            found, calls = set(), 0
            async with broker.discover(**wanted) as replies:
                async for reply in replies:
                    if isinstance(reply, m.Failed):
                        raise reply.error
                    if isinstance(reply, m.Found):
                        found.add(reply.resource.id)
                    else:
                        calls += reply.cost.calls
        return found, calls

    return run


METHODS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "secret-key": ("secret-key", {}, ("GetCallerIdentity",)),
    "sts-token": ("sts-token", {"aws_session_token": m.Secret("t" * 20)}, ("GetCallerIdentity",)),
    "iam-role": ("iam-role", {"role_arn": ROLE}, ("AssumeRole",)),
    "federation-token": ("federation-token", {}, ("GetCallerIdentity",)),
    "web-identity": (
        "web-identity",
        {"role_arn": ROLE, "web_identity_token": m.Secret("e30.e30.sig")},
        ("AssumeRoleWithWebIdentity",),
    ),
    "implicit": ("implicit", {}, ("GetCallerIdentity",)),
    "implicit, with a role": ("implicit", {"role_arn": ROLE}, ("AssumeRole",)),
    # what GetSessionToken answers names nobody
    "session-token": ("session-token", {}, ("GetCallerIdentity", "GetSessionToken")),
}


@pytest.mark.parametrize("repositories", [[], [{"repositoryName": "app", "registryId": ACCOUNT}]], ids=["none", "one"])
@pytest.mark.parametrize("case", METHODS)
async def test_all_types_of_one_region(
    cloud_of: Cloud, discovered: Discovered, fake: Any, case: str, repositories: list[dict[str, str]]
) -> None:
    method, config, before = METHODS[case]
    if method == "sts-token":
        key = "ASIAEXAMPLEEXAMPLE01"
        fake.secrets[key] = next(iter(fake.secrets.values()))
        config = config | {"aws_access_key_id": m.Secret(key)}
    cloud_of.repositories = repositories

    found, calls = await discovered(method, **config)

    assert sorted(cloud_of.called) == sorted((*before, *LISTINGS))
    assert calls == len(cloud_of.called)
    assert found == {ACCOUNT, "eu-west-1/one", HOST, *(f"{HOST}/app" for _ in repositories)}


async def test_each_region_more_costs_two(cloud_of: Cloud, discovered: Discovered) -> None:
    await discovered("iam-role", role_arn=ROLE, regions=["eu-west-1", "us-east-1", "eu-north-1"])
    assert sorted(cloud_of.called) == sorted(["AssumeRole", "ListBuckets", *(["ListClusters", LISTINGS[0]] * 3)])


async def test_registries_alone_need_nobodys_name_where_there_are_repositories(
    cloud_of: Cloud, discovered: Discovered
) -> None:
    cloud_of.repositories = [{"repositoryName": "app", "registryId": ACCOUNT}]
    found, _ = await discovered("secret-key", resource_type="docker-registry")
    assert (cloud_of.called, found) == (["DescribeRepositories"], {HOST, f"{HOST}/app"})


@pytest.mark.parametrize(
    "user", [None, "", "arn:aws:sts:::assumed-role/pipeline/work", "somebody", "arn:aws:iam::123456789012:user/ann"]
)
async def test_a_store_that_does_not_say_whose_keys_it_makes_is_asked(
    cloud_of: Cloud, opened: Any, fake_key: Any, user: str | None
) -> None:
    cloud_of.user = user
    async with opened("iam-role", role_arn=ROLE, **fake_key) as session:
        identity = await session.identity()
        assert await session.identity() is identity
    assert (identity.subject, identity.account) == (f"arn:aws:iam::{ACCOUNT}:user/ann", ACCOUNT)
    assert cloud_of.called == ["AssumeRole", "GetCallerIdentity"]


async def test_who_has_assumed_a_role_is_known(cloud_of: Cloud, opened: Any, fake_key: Any) -> None:
    async with opened("iam-role", role_arn=ROLE, **fake_key) as session:
        identity = await session.identity()
    assert (identity.subject, identity.account) == (SESSION, ACCOUNT)
    assert cloud_of.called == ["AssumeRole"]


@pytest.mark.parametrize("elsewhere", [True, False], ids=["a registry elsewhere", "an identity that is not told"])
async def test_an_empty_registry_is_asked_where_the_identity_does_not_tell(
    cloud_of: Cloud, discovered: Discovered, fake: Any, elsewhere: bool
) -> None:
    cloud_of.refused = set() if elsewhere else {"GetCallerIdentity"}
    urls = {"ecr": fake.url + "/"} if elsewhere else {}
    found, _ = await discovered("secret-key", resource_type="docker-registry", endpoint_urls=urls)
    assert found == {HOST}
    before = [] if elsewhere else ["GetCallerIdentity"]
    assert cloud_of.called == ["DescribeRepositories", *before, "DescribeRegistry"]


async def test_in_china_the_registry_has_its_own_domain(cloud_of: Cloud, discovered: Discovered) -> None:
    cloud_of.user = f"arn:aws-cn:sts::{ACCOUNT}:assumed-role/pipeline/work"
    role = ROLE.replace("arn:aws:", "arn:aws-cn:")
    found, _ = await discovered("iam-role", role_arn=role, region="cn-north-1")
    assert f"{ACCOUNT}.dkr.ecr.cn-north-1.amazonaws.com.cn" in found


@pytest.mark.parametrize(
    ("pattern", "asked"),
    [
        ("s3://prod-*", ["ListBuckets"]),
        ("eu-west-1/*", ["ListClusters"]),
        ("us-west-2/*", []),
        (f"{HOST}/*", ["DescribeRepositories"]),
        (f"{ACCOUNT}.dkr.ecr.us-west-2.*", []),
        (ACCOUNT, ["GetCallerIdentity"]),
    ],
)
async def test_what_a_pattern_rules_out_is_not_asked(
    cloud_of: Cloud, fake: Any, fake_key: Any, pattern: str, asked: list[str]
) -> None:
    cloud_of.repositories = [{"repositoryName": "app", "registryId": ACCOUNT}]
    config = {name: m.Secret(value) if name.startswith("aws_") else value for name, value in fake_key.items()}
    async with memory_broker(connector) as broker:
        await broker.register("work", type="aws", auth_method="secret-key", config=config, verify=False)
        async with broker.discover(match=[pattern]) as replies:
            async for reply in replies:
                assert not isinstance(reply, m.Failed), reply.error
    assert cloud_of.called == asked
