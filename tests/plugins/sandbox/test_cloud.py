"""The sandbox as tests and tools see it: seeded, enforcing, reachable by the environment alone."""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import sys
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from mooring_sandbox.accounts import User
from mooring_sandbox.cloud import Sandbox
from mooring_sandbox.ports import listens

MODEL = {"Bucket": "team-models", "Key": "churn/model.json"}
DATASET = {"Bucket": "team-datasets", "Key": "README.md"}
READ_MODELS = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::team-models/*"]}],
    }
)


def port_of(url):
    return int(url.rsplit(":", 1)[1])


def test_is_seeded(sandbox, client_with):
    s3 = client_with(sandbox, "s3")
    assert {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} >= set(sandbox.buckets)
    assert s3.get_object(**MODEL)["Body"].read() == b'{"auc": 0.91}\n'
    assert client_with(sandbox, "eks").list_clusters()["clusters"] == sorted(sandbox.clusters)
    repositories = client_with(sandbox, "ecr").describe_repositories()["repositories"]
    assert {one["repositoryName"] for one in repositories} == set(sandbox.repositories)


def test_all_services_speak_of_one_account(sandbox, client_with):
    identity = client_with(sandbox, "sts").get_caller_identity()
    assert (identity["Account"], identity["Arn"]) == (sandbox.account, sandbox.developer.arn)
    assert client_with(sandbox, "iam").get_user(UserName="developer")["User"]["Arn"] == sandbox.developer.arn
    repository = client_with(sandbox, "ecr").describe_repositories()["repositories"][0]
    assert repository["repositoryArn"].startswith(f"arn:aws:ecr:{sandbox.region}:{sandbox.account}:repository/")
    cluster = client_with(sandbox, "eks").describe_cluster(name="staging")["cluster"]
    assert cluster["arn"] == f"arn:aws:eks:{sandbox.region}:{sandbox.account}:cluster/staging"


def test_keys_have_the_format_of_real_ones(sandbox):
    assert re.fullmatch(r"AKIA[A-Z0-9]{16}", sandbox.developer.key_id)
    assert re.fullmatch(r"[A-Za-z0-9/+]{40}", sandbox.developer.secret)
    assert sandbox.developer.secret not in repr(sandbox.developer)
    assert sandbox.developer.key_id != Sandbox().developer.key_id


@pytest.mark.parametrize("operation", ["assume_role", "get_federation_token"])
def test_enforces_session_policies(sandbox, client_with, code_of, operation):
    sts = client_with(sandbox, "sts")
    who = {
        "assume_role": {"RoleArn": sandbox.role.arn, "RoleSessionName": "test"},
        "get_federation_token": {"Name": "test"},
    }[operation]
    answer = getattr(sts, operation)(Policy=READ_MODELS, DurationSeconds=900, **who)["Credentials"]
    assert timedelta(minutes=14) < answer["Expiration"] - datetime.now(UTC) <= timedelta(minutes=15)
    s3 = client_with(sandbox, "s3", answer)
    assert code_of(s3.get_object, **MODEL) == "ok"
    assert code_of(s3.get_object, **DATASET) == "AccessDenied"
    assert code_of(s3.put_object, **MODEL, Body=b"") == "AccessDenied"
    assert code_of(s3.list_objects_v2, Bucket="team-models") == "AccessDenied"


def test_other_services_take_credentials_of_its_sts(sandbox, client_with):
    answer = client_with(sandbox, "sts").assume_role(RoleArn=sandbox.role.arn, RoleSessionName="test")
    assert client_with(sandbox, "eks", answer["Credentials"]).list_clusters()["clusters"]


def test_enforces_trust_policies(sandbox, client_with, code_of):
    sts = client_with(sandbox, "sts")
    assert code_of(sts.assume_role, RoleArn=sandbox.role.arn, RoleSessionName="test") == "ok"
    assert code_of(sts.assume_role, RoleArn=sandbox.forbidden_role.arn, RoleSessionName="test") == "AccessDenied"


def test_confines_the_intern_to_one_bucket(sandbox, client_with, code_of):
    s3 = client_with(sandbox, "s3", user=sandbox.intern)
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["team-datasets"]
    assert code_of(s3.get_object, **DATASET) == "ok"
    assert code_of(s3.get_object, **MODEL) == "AccessDenied"
    assert code_of(s3.create_bucket, Bucket="interns-own") == "AccessDenied"


def test_refuses_a_wrong_secret(sandbox, client_with, code_of):
    s3 = client_with(sandbox, "s3", user=User(name="developer", key_id=sandbox.developer.key_id))
    assert code_of(s3.list_buckets) == "SignatureDoesNotMatch"


def test_ecr_tokens_end_in_twelve_hours(sandbox, client_with):
    data = client_with(sandbox, "ecr").get_authorization_token()["authorizationData"][0]
    assert timedelta(hours=11, minutes=59) < data["expiresAt"] - datetime.now(UTC) <= timedelta(hours=12)
    assert base64.b64decode(data["authorizationToken"]).startswith(b"AWS:")
    assert data["proxyEndpoint"] == f"https://{sandbox.account}.dkr.ecr.{sandbox.region}.amazonaws.com"


def test_eks_certificate_authority_is_pem(sandbox, client_with):
    cluster = client_with(sandbox, "eks").describe_cluster(name="staging")["cluster"]
    assert cluster["endpoint"].startswith("https://")
    pem = base64.b64decode(cluster["certificateAuthority"]["data"]).decode()
    assert len(ssl.create_default_context(cadata=pem).get_ca_certs()) == 1


def test_the_environment_is_enough_and_the_persons_own_is_not_read(sandbox, run_python, monkeypatch, tmp_path):
    config = tmp_path / "config"
    config.write_text("[default]\nregion = eu-west-9\nendpoint_url = http://127.0.0.1:1\n")
    own = {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "mine", "AWS_SESSION_TOKEN": "x", "MOORING_HOME": "/nowhere"}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    environment = sandbox.child_environment()
    assert environment["MOORING_HOME"].startswith(str(sandbox.folder))
    answer = run_python(
        "import boto3, json; s3 = boto3.client('s3'); ecr = boto3.client('ecr')\n"
        "url = s3.generate_presigned_url('get_object', Params={'Bucket': 'team-models', 'Key': 'README.md'})\n"
        "print(json.dumps([boto3.client('sts').get_caller_identity()['Arn'], s3.list_buckets()['Buckets'][0]['Name'],"
        " ecr.describe_repositories()['repositories'][0]['repositoryName'], ecr.meta.region_name, url]))",
        environment,
    )
    assert answer[:4] == [sandbox.developer.arn, "public-logs", "team/trainer", sandbox.region]
    assert answer[4].startswith(f"{sandbox.s3_url}/team-models/README.md?")  # path style, without a word about it


def test_the_environment_goes_round_a_proxy(sandbox, monkeypatch):
    assert "NO_PROXY" not in sandbox.environment() or "NO_PROXY" in os.environ
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert sandbox.environment()["no_proxy"] == "example.org,127.0.0.1"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_two_side_by_side_with_a_short_token_life(sandbox, client_with, code_of):
    async with Sandbox(token_life=timedelta(seconds=2)) as other:
        assert {other.s3_url, other.aws_url}.isdisjoint({sandbox.s3_url, sandbox.aws_url})
        strangers = client_with(other, "s3", user=sandbox.developer)
        assert code_of(strangers.list_buckets) == "InvalidAccessKeyId"
        sts = client_with(other, "sts")
        answer = sts.assume_role(RoleArn=other.role.arn, RoleSessionName="test", DurationSeconds=900)["Credentials"]
        assert answer["Expiration"] - datetime.now(UTC) <= timedelta(seconds=2)
        s3 = client_with(other, "s3", answer)
        assert code_of(s3.get_object, **MODEL) == "ok"
        await anyio.sleep(3)
        assert code_of(s3.get_object, **MODEL) == "InvalidAccessKeyId"
        ports = port_of(other.s3_url), port_of(other.aws_url)
        assert all(map(listens, ports))
        sockets = list(other._seaweed.litter())
    assert not any(map(listens, ports))
    assert not other.folder.exists()
    assert not any(path.exists() for path in sockets)
    other.stop()  # once more does no harm
    assert code_of(client_with(sandbox, "s3").get_object, **MODEL) == "ok"
    assert sys.platform != "linux" or all(path.is_socket() for path in sandbox._seaweed.litter())


@pytest.mark.anyio
async def test_leaves_nothing_when_cancelled_while_it_starts():
    cloud = Sandbox()
    with anyio.move_on_after(0.5) as scope:
        async with cloud:
            raise AssertionError("too fast to test")
    assert scope.cancelled_caught
    assert not cloud.folder.exists()
    assert not any(server.running for server in cloud._servers)
