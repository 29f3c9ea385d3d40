"""Sessions over shared clients: nothing asked twice, nobody's keys mixed up, nothing of the machine's read."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import anyio
import msgspec
import pytest

import mooring as m
from mooring_aws import connector
from mooring_aws.cloud import _client_config

pytestmark = pytest.mark.anyio


async def test_a_session_needs_what_lifespan_yields(settle: Any, context: m.Context, fake_key: Any) -> None:
    with pytest.raises(m.BrokenPlugin, match="lifespan"):
        async with connector.authenticate(
            settle("secret-key", **fake_key), msgspec.structs.replace(context, shared=None)
        ):
            pass


async def test_opening_a_session_asks_nothing(opened: Any, fake: Any, fake_key: Any) -> None:
    async with opened("secret-key", **fake_key), opened("session-token", **fake_key):
        assert fake.asked == []


async def test_the_identity_is_asked_once_by_many(opened: Any, fake: Any, fake_key: Any) -> None:
    async with opened("secret-key", **fake_key) as session, anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(connector.verify, session, m.VerifyRequest())
    assert len(fake.asked) == 1


async def test_a_role_is_assumed_once_by_many(opened: Any, fake: Any, fake_key: Any, replies: Any) -> None:
    fake.secrets["ASIAEXAMPLEEXAMPLE00"] = "made"

    async def answer(asked: Any) -> Any:
        if asked.parameters["Action"] == "AssumeRole":
            assert asked.parameters["DurationSeconds"] == "900"
            return replies.credentials("AssumeRole")
        return await fake.whoami(asked)

    fake.answer = answer
    role = {"role_arn": "arn:aws:iam::123456789012:role/deploy"}
    async with opened("iam-role", **fake_key, **role) as session:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(connector.verify, session, m.VerifyRequest())
        assert [asked.parameters["Action"] for asked in fake.asked] == ["AssumeRole", "GetCallerIdentity"]
        assert (await session.identity()).subject.endswith("ASIAEXAMPLEEXAMPLE00")


async def test_keys_that_are_about_to_end_are_made_anew(opened: Any, fake: Any, fake_key: Any, replies: Any) -> None:
    async def answer(asked: Any) -> Any:
        return replies.credentials("GetSessionToken", life=timedelta(seconds=90))

    fake.answer = answer
    async with opened("session-token", **fake_key) as session:
        await session.keys()
        await session.keys()
    assert len(fake.asked) == 2


async def test_credentials_are_issued_from_the_source_and_never_chained(
    opened: Any, ask: Any, fake: Any, fake_key: Any, replies: Any
) -> None:
    fake.secrets["ASIAEXAMPLEEXAMPLE00"] = "made"

    async def answer(asked: Any) -> Any:
        if asked.parameters["Action"] == "GetCallerIdentity":
            return await fake.whoami(asked)
        return replies.credentials(asked.parameters["Action"])

    fake.answer = answer
    async with opened("iam-role", role_arn="arn:aws:iam::123456789012:role/deploy", **fake_key) as session:
        await connector.verify(session, m.VerifyRequest())
        await connector.issue_credentials(session, ask("s3-bucket", "s3://data"))
    assert {one.signer for one in fake.asked if one.parameters["Action"] == "AssumeRole"} == {
        fake_key["aws_access_key_id"]
    }


async def test_a_thousand_calls_at_once_are_each_signed_with_their_own_keys(
    settle: Any, context: m.Context, cloud: Any, fake: Any
) -> None:
    chance = random.Random(7)

    async def answer(asked: Any) -> Any:
        await anyio.sleep(chance.random() / 20)
        return await fake.whoami(asked)  # the fake has recomputed the signature with that key's secret

    fake.answer = answer
    wrong: list[str] = []

    async def one(number: int) -> None:
        key, secret = f"AKIA{number:016}", f"secret-{chance.random()}"
        fake.secrets[key] = secret
        token = (
            {"aws_session_token": f"t{number}", "aws_access_key_id": (key := f"ASIA{number:016}")} if number % 2 else {}
        )
        fake.secrets[key] = secret
        fields = {"aws_access_key_id": key, "aws_secret_access_key": secret} | token
        config = settle("sts-token" if token else "secret-key", region="eu-west-1", endpoint_url=fake.url, **fields)
        async with connector.authenticate(config, context) as session:
            identity = await connector.verify(session, m.VerifyRequest())
            if not identity.subject.endswith(key):
                wrong.append(identity.subject)

    async with anyio.create_task_group() as tasks:
        for number in range(1000):
            tasks.start_soon(one, number)
    assert wrong == []
    assert len(fake.asked) == 1000
    assert all(
        (asked.headers.get("X-Amz-Security-Token") is not None) == asked.signer.startswith("ASIA")
        for asked in fake.asked
    )
    assert len(cloud._clients) == 1


async def test_a_call_without_keys_is_not_signed_with_somebodys(cloud: Any, fake: Any) -> None:
    with pytest.raises(m.BrokenPlugin, match="nobody"):
        await cloud.call("sts", "GetCallerIdentity", {}, region="eu-west-1", endpoint=fake.url, keys=None, bucket="x")
    assert fake.asked == []


async def test_a_store_without_identities_is_asked_whether_it_knows_the_key(
    opened: Any, fake: Any, fake_key: Any, replies: Any
) -> None:
    async def answer(asked: Any) -> Any:
        if asked.parameters.get("Action"):
            return replies.refusal("NotImplemented", status=501)
        return replies.refusal(known, status=403)

    fake.answer = answer
    for known in ("AccessDenied", "InvalidAccessKeyId"):
        async with opened("secret-key", **fake_key) as session:
            if known == "AccessDenied":
                identity = await connector.verify(session, m.VerifyRequest())
                assert (identity.subject, identity.account) == (f"a key of {fake.url.removeprefix('http://')}", None)
                request = m.DiscoverRequest(resource_type="aws-generic")
                assert [one async for one in connector.discover(session, request)] == []
            else:
                with pytest.raises(m.AuthFailed):
                    await connector.verify(session, m.VerifyRequest())


async def test_the_machines_own_keys_are_looked_for_once_in_a_while(
    opened: Any, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFIRST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "first")
    async with opened("implicit", region="eu-west-1") as session:
        assert (await session.source()).access_key_id == "AKIAFIRST"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASECOND")
    async with opened("implicit", region="eu-west-1") as session:
        assert (await session.source()).access_key_id == "AKIAFIRST"
        monkeypatch.setattr("mooring_aws.cloud.LOOK_AGAIN", timedelta(0))
        session._cloud._found[None] = (0.0, session._cloud._found[None][1])
        assert (await session.source()).access_key_id == "AKIASECOND"


async def test_the_machines_own_configuration_is_not_read(
    opened: Any, fake: Any, fake_key: Any, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine / ".aws").mkdir()
    (machine / ".aws" / "config").write_text("this is no configuration file")
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "legacy")
    async with opened("secret-key", **fake_key) as session:
        assert (await session.identity()).subject.endswith(fake_key["aws_access_key_id"])


async def test_endpoints_of_the_environment(
    opened: Any, fake: Any, fake_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {name: value for name, value in fake_key.items() if name != "endpoint_url"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", fake.url)
    async with opened("secret-key", **fields) as session:
        await session.identity()
    assert len(fake.asked) == 1


async def test_aws_own_endpoints_are_regional(cloud: Any) -> None:
    for region, host in (
        ("us-east-1", "https://sts.us-east-1.amazonaws.com"),
        ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com"),
    ):
        client = await cloud._client("sts", region, None)
        assert client.meta.endpoint_url == host


async def test_botocore_does_not_retry_and_the_tls_context_is_one() -> None:
    config = _client_config()
    assert config.retries == {"total_max_attempts": 1, "mode": "standard"}
    kind = config.http_session_cls
    first, second = (kind()._create_connector(None) for _ in range(2))
    try:
        assert first._ssl is second._ssl
        assert first._ssl.check_hostname
    finally:
        await first.close()
        await second.close()


async def test_a_call_is_tried_again_where_that_may_help(opened: Any, fake: Any, fake_key: Any, replies: Any) -> None:
    refusals = [replies.refusal("Throttling"), replies.refusal("InternalFailure", status=500)]

    async def answer(asked: Any) -> Any:
        return refusals.pop() if refusals else await fake.whoami(asked)

    fake.answer = answer
    async with opened("secret-key", **fake_key) as session:
        await session.identity()
    assert len(fake.asked) == 3


async def test_a_call_is_not_tried_again_for_ever_nor_where_it_cannot_help(
    opened: Any, fake: Any, fake_key: Any, replies: Any
) -> None:
    for refusal, error, times in (
        (lambda: replies.refusal("Throttling"), m.Throttled, 3),
        (lambda: replies.refusal("Throttling", **{"Retry-After": "60"}), m.Throttled, 1),
        (lambda: replies.refusal("SignatureDoesNotMatch", status=403), m.AuthFailed, 1),
    ):
        fake.asked.clear()

        async def answer(asked: Any, refusal: Any = refusal) -> Any:
            return refusal()

        fake.answer = answer
        async with opened("secret-key", **fake_key) as session:
            with pytest.raises(error) as caught:
                await session.identity()
        assert len(fake.asked) == times
        if times == 1 and error is m.Throttled:
            assert caught.value.retry_after == timedelta(seconds=60)


async def test_calls_are_labelled_by_vendor_account_region_service_and_operation(
    settle: Any, context: m.Context, fake: Any, fake_key: Any
) -> None:
    labelled = []

    class Limits:
        async def call(self, work: Any, *labels: str) -> Any:
            labelled.append(labels)
            return await work()

    tools = msgspec.structs.replace(context.tools, limits=Limits())
    async with connector.lifespan(tools) as shared:
        config = settle("secret-key", **fake_key)
        async with connector.authenticate(
            config, msgspec.structs.replace(context, tools=tools, shared=shared)
        ) as session:
            await session.identity()
    place = fake.url.removeprefix("http://")
    assert labelled == [("aws", "0", place, "sts", "GetCallerIdentity")]
