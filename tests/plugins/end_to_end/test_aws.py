"""Register, verify, discover, issue, client: the main job, and what it must refuse."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

import mooring
import mooring.blocking
from mooring.broker import Failed, Found

pytestmark = pytest.mark.anyio

MODELS, DATASETS = "s3://team-models", "s3://team-datasets"


@pytest.fixture
def s3_with(sandbox: Any) -> Callable[[mooring.Credentials], Any]:
    """Plain botocore with issued credentials and nothing else."""

    def made(credentials: Any) -> Any:
        session = botocore.session.Session()
        return session.create_client(
            "s3",
            region_name=credentials.region,
            endpoint_url=sandbox.s3_url,
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key.reveal(),
            aws_session_token=credentials.session_token.reveal(),
            config=Config(retries={"total_max_attempts": 1}),
        )

    return made


def denied(call: Callable[..., Any], **arguments: Any) -> bool:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return bool(caught.value.response["Error"]["Code"] in ("AccessDenied", "403"))


def keys_in(answer: dict[str, Any]) -> list[str]:
    return [one["Key"] for one in answer["Contents"]]


async def register(broker: mooring.Broker, method: str, fields: dict[str, Any], sandbox: Any, **more: Any) -> None:
    role = {"role_arn": sandbox.role.arn} if method == "iam-role" else {}
    await broker.register("aws", type="aws", auth_method=method, config=fields | role, **more)


@pytest.mark.parametrize("method", ["secret-key", "iam-role", "federation-token"])
async def test_credentials_for_one_bucket_open_that_bucket_and_no_other(
    broker: mooring.Broker, keys: dict[str, str], sandbox: Any, s3_with: Any, method: str
) -> None:
    await register(broker, method, keys, sandbox)
    issued = await broker.issue("aws", resource_type="s3-bucket", resource_id="arn:aws:s3:::team-models")
    assert (issued.resource_id, issued.narrowed, issued.consumer) == (MODELS, True, "ann@laptop")
    assert issued.expires_at is not None
    assert timedelta(minutes=50) < issued.expires_at - datetime.now(UTC) < timedelta(hours=12, minutes=1)
    s3 = s3_with(issued.credentials)
    assert s3.get_object(Bucket="team-models", Key="churn/model.json")["Body"].read()
    assert keys_in(s3.list_objects_v2(Bucket="team-models")) == ["README.md", "churn/model.json"]
    assert denied(s3.get_object, Bucket="team-datasets", Key="README.md")
    assert denied(s3.list_objects_v2, Bucket="team-datasets")
    assert denied(s3.put_object, Bucket="team-models", Key="new", Body=b"x")
    assert denied(s3.delete_object, Bucket="team-models", Key="README.md")


async def test_access_says_what_may_be_done(
    broker: mooring.Broker, keys: dict[str, str], sandbox: Any, s3_with: Any
) -> None:
    await register(broker, "iam-role", keys, sandbox)
    wish: dict[str, Any] = {"resource_type": "s3-bucket", "resource_id": MODELS}
    lister = s3_with((await broker.issue("aws", **wish, access="list")).credentials)
    assert keys_in(lister.list_objects_v2(Bucket="team-models")) == ["README.md", "churn/model.json"]
    assert denied(lister.get_object, Bucket="team-models", Key="README.md")
    writer = s3_with((await broker.issue("aws", **wish, access="write")).credentials)
    writer.put_object(Bucket="team-models", Key="scratch", Body=b"x")
    assert writer.get_object(Bucket="team-models", Key="scratch")["Body"].read() == b"x"
    writer.delete_object(Bucket="team-models", Key="scratch")
    assert denied(writer.put_object, Bucket="team-datasets", Key="new", Body=b"x")


async def test_a_prefix_is_confined_to_itself(
    broker: mooring.Broker, keys: dict[str, str], sandbox: Any, s3_with: Any
) -> None:
    await register(broker, "iam-role", keys, sandbox)
    issued = await broker.issue("aws", resource_type="s3-bucket", resource_id=f"{MODELS}/churn")
    assert issued.resource_id == f"{MODELS}/churn/"
    s3 = s3_with(issued.credentials)
    assert s3.get_object(Bucket="team-models", Key="churn/model.json")["Body"].read()
    assert denied(s3.get_object, Bucket="team-models", Key="README.md")
    assert [one["Key"] for one in s3.list_objects_v2(Bucket="team-models", Prefix="churn/")["Contents"]] == [
        "churn/model.json"
    ]
    assert denied(s3.list_objects_v2, Bucket="team-models")


async def test_a_scoped_connector_reaches_its_scope_alone(
    broker: mooring.Broker, keys: dict[str, str], sandbox: Any
) -> None:
    await register(broker, "secret-key", keys, sandbox, resource_type="s3-bucket", resource_id="s3://team-models/churn")
    assert (await broker.get("aws")).resource_id == f"{MODELS}/churn/"
    async with broker.discover() as replies:
        found = [reply.resource.id async for reply in replies if isinstance(reply, Found)]
    assert found == [f"{MODELS}/churn/"]
    issued = await broker.issue("aws", resource_id=f"{MODELS}/churn/v1/")
    assert issued.resource_id == f"{MODELS}/churn/v1/"
    for outside in (MODELS, DATASETS, f"{MODELS}/churning/"):
        with pytest.raises(mooring.UnsupportedResource):
            await broker.issue("aws", resource_id=outside)
    with pytest.raises(mooring.UnsupportedResource):
        await broker.issue("aws", resource_type="docker-registry", resource_id="x")


async def test_everything_is_found_and_a_failure_stands_beside_it(
    broker: mooring.Broker, keys: dict[str, str], sandbox: Any
) -> None:
    await register(broker, "secret-key", keys, sandbox)
    wrong = keys | {"aws_secret_access_key": "x" * 40}
    await broker.register("wrong", type="aws", auth_method="secret-key", config=wrong, verify=False)
    async with broker.discover() as replies:
        all_of_them = [reply async for reply in replies]
    found = {(one.resource.type, one.resource.id) for one in all_of_them if isinstance(one, Found)}
    registry = f"{sandbox.account}.dkr.ecr.{sandbox.region}.amazonaws.com"
    assert found >= {("s3-bucket", f"s3://{bucket}") for bucket in sandbox.buckets}
    assert found >= {("kubernetes-cluster", f"{sandbox.region}/{name}") for name in sandbox.clusters}
    assert found >= {("docker-registry", registry), ("aws-generic", sandbox.account)}
    failed = {one.connector.name for one in all_of_them if isinstance(one, Failed)}
    assert failed == {"wrong"}


async def test_what_cannot_be_narrowed_is_refused_until_it_is_allowed(
    broker: mooring.Broker, keys: dict[str, str], sandbox: Any
) -> None:
    await register(broker, "iam-role", keys, sandbox)
    role = await broker.issue("aws", resource_type="aws-generic")
    assert role.narrowed is False
    assert role.expires_at is not None
    token: Any = role.credentials
    fields = {
        "region": sandbox.region,
        "aws_access_key_id": token.access_key_id,
        "aws_secret_access_key": token.secret_access_key,
        "aws_session_token": token.session_token,
    }
    await broker.register("token", type="aws", auth_method="sts-token", config=fields, expires_at=role.expires_at)
    wish: dict[str, Any] = {"resource_type": "s3-bucket", "resource_id": MODELS}
    with pytest.raises(mooring.NotNarrowed, match="unnarrowed"):
        await broker.issue("token", **wish)
    await broker.update("token", allow_unnarrowed=True)
    issued = await broker.issue("token", **wish)
    assert issued.narrowed is False
    assert issued.expires_at == role.expires_at
    assert issued.clamped


async def test_nothing_is_stored_when_aws_does_not_accept_the_keys(
    broker: mooring.Broker, keys: dict[str, str], sandbox: Any
) -> None:
    with pytest.raises(mooring.AuthFailed) as caught:
        await register(broker, "secret-key", keys | {"aws_secret_access_key": "canary" + "x" * 34}, sandbox)
    assert "canary" not in str(caught.value)
    with pytest.raises(mooring.AccessDenied):
        await broker.register(
            "aws", type="aws", auth_method="iam-role", config=keys | {"role_arn": sandbox.forbidden_role.arn}
        )
    assert await broker.list() == []


async def test_a_cluster_and_a_registry(broker: mooring.Broker, keys: dict[str, str], sandbox: Any) -> None:
    await register(broker, "iam-role", keys, sandbox)
    access: Any = (await broker.issue("aws", resource_type="kubernetes-cluster", resource_id="staging")).credentials
    assert isinstance(access, mooring.KubernetesAccess)
    assert access.narrowed
    assert access.token is not None
    assert access.token.reveal().startswith("k8s-aws-v1.")
    assert access.expires_at is not None
    assert timedelta(minutes=10) < access.expires_at - datetime.now(UTC) <= timedelta(minutes=15)
    registry = f"{sandbox.account}.dkr.ecr.{sandbox.region}.amazonaws.com"
    login: Any = (await broker.issue("aws", resource_type="docker-registry", resource_id=registry)).credentials
    assert isinstance(login, mooring.RegistryLogin)
    assert (login.registry, login.username) == (registry, "AWS")
    assert login.expires_at > datetime.now(UTC) + timedelta(hours=1)


async def test_ready_clients(broker: mooring.Broker, keys: dict[str, str], sandbox: Any) -> None:
    await register(broker, "iam-role", keys, sandbox)
    async with broker.client("aws", resource_type="s3-bucket", resource_id=MODELS) as s3:
        answer = await s3.get_object(Bucket="team-models", Key="churn/model.json")
        assert await answer["Body"].read()
        with pytest.raises(ClientError, match="AccessDenied"):
            await s3.get_object(Bucket="team-datasets", Key="README.md")
    async with (
        broker.client("aws", resource_type="aws-generic") as session,
        session.client("sts", endpoint_url=sandbox.s3_url) as sts,
    ):
        assert "pipeline" in (await sts.get_caller_identity())["Arn"]


async def test_one_call_for_many_callers_and_other_processes(
    broker: mooring.Broker, keys: dict[str, str], sandbox: Any, settings: Any
) -> None:
    await register(broker, "iam-role", keys, sandbox)
    wish: dict[str, Any] = {"resource_type": "s3-bucket", "resource_id": MODELS}
    got: list[mooring.Issued] = []

    async def ask() -> None:
        got.append(await broker.issue("aws", **wish))

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(ask)
    assert len({one.credentials.access_key_id for one in got}) == 1  # type: ignore[attr-defined]
    assert sum(not one.cached for one in got) == 1
    async with mooring.open_broker(settings=settings, consumer="bob@laptop") as other:
        shared = await other.issue("aws", **wish)
    assert shared.cached
    assert shared.consumer == "bob@laptop"
    assert shared.credentials.access_key_id == got[0].credentials.access_key_id  # type: ignore[attr-defined]


def test_synchronous_hosts(settings: Any, keys: dict[str, str], sandbox: Any) -> None:
    with mooring.blocking.open_broker(settings=settings) as broker:
        config = keys | {"role_arn": sandbox.role.arn}
        broker.register("aws", type="aws", auth_method="iam-role", config=config)
        with broker.client("aws", resource_type="s3-bucket", resource_id=MODELS) as s3:
            assert s3.get_object(Bucket="team-models", Key="README.md")["Body"].read()
            with pytest.raises(ClientError, match="AccessDenied"):
                s3.get_object(Bucket="team-datasets", Key="README.md")
        with broker.discover(resource_type="s3-bucket", resource_id=MODELS) as replies:
            assert [one.resource.id for one in replies if isinstance(one, Found)] == [MODELS]


async def test_the_policy_that_explain_shows_is_the_one_that_confines(
    broker: mooring.Broker, keys: dict[str, str], sandbox: Any
) -> None:
    await register(broker, "iam-role", keys, sandbox)
    explained = await broker.explain("aws", resource_type="s3-bucket", resource_id=MODELS, access="read")
    assert explained.narrowed
    assert explained.calls == ("sts:AssumeRole",)
    assert explained.policy is not None
    allowed = {action for one in explained.policy["Statement"] for action in one["Action"]}
    assert "s3:GetObject" in allowed
    assert "s3:PutObject" not in allowed
    assert "team-datasets" not in str(explained.policy)


async def test_lifted_from_the_environment(
    broker: mooring.Broker, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, environment[name])
    connector = await broker.register("aws", type="aws", lift=True)
    assert connector.auth_method == "secret-key"
    assert connector.sealed is not None
    assert (await broker.secrets("aws"))["aws_secret_access_key"].reveal() == environment["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert (await broker.verify("aws")).account == "000000000000"
