"""Ready clients that renew their own credentials."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

import mooring as m
from mooring_aws import AwsCredentials, connector

pytestmark = pytest.mark.anyio


@pytest.fixture
def made(fake: Any) -> Any:
    """Credentials number 1, 2, ... for the fake, each with a life."""

    def make(number: int, life: timedelta | None) -> AwsCredentials:
        key = f"ASIA{number:016}"
        fake.secrets[key] = f"secret-{number}"
        return AwsCredentials(
            access_key_id=key, secret_access_key=m.Secret(f"secret-{number}"), session_token=m.Secret(f"t{number}"),
            region="eu-west-1", endpoint_urls={"default": "http://127.0.0.1:1", "sts": fake.url}, narrowed=True,
            expires_at=datetime.now(UTC) + life if life is not None else None,
        )  # fmt: skip

    return make


def request(first: m.Credentials, renew: Any, kind: str = "aws-generic") -> Any:
    return m.ClientRequest(credentials=first, renew=renew, resource_type=kind, resource_id=None)


HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


async def test_a_client_renews_before_its_credentials_end_once_for_many(fake: Any, made: Any) -> None:
    asked = []

    async def renew() -> m.Credentials:
        asked.append(1)
        await anyio.sleep(0.01)
        return made(2, HOUR)

    async with connector.client(request(made(1, MINUTE), renew)) as session, session.client("sts") as sts:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(sts.get_caller_identity)
        answer = await sts.get_caller_identity()
    assert len(asked) == 1
    assert answer["Arn"].endswith(f"{2:016}")
    assert {one.signer for one in fake.asked} == {f"ASIA{2:016}"}


async def test_a_client_with_fresh_or_endless_credentials_renews_nothing(fake: Any, made: Any) -> None:
    async def renew() -> m.Credentials:
        raise AssertionError

    for life in (HOUR, None):
        async with connector.client(request(made(1, life), renew)) as session, session.client("sts") as sts:
            await sts.get_caller_identity()


async def test_a_client_lives_on_with_what_it_has_while_renewing_fails(fake: Any, made: Any) -> None:
    async def renew() -> m.Credentials:
        raise m.Unreachable("no answer")

    async with connector.client(request(made(1, MINUTE), renew)) as session, session.client("sts") as sts:
        await sts.get_caller_identity()
    async with connector.client(request(made(1, -MINUTE), renew)) as session, session.client("sts") as sts:
        with pytest.raises(m.Unreachable):
            await sts.get_caller_identity()


async def test_another_kind_of_credentials() -> None:
    token = m.BearerToken(token=m.Secret("t"), expires_at=None, narrowed=True)
    with pytest.raises(m.UnsupportedResource):
        async with connector.client(request(token, None)):
            pass


async def test_the_clients_of_the_machine_play_no_part(fake: Any, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")

    async def renew() -> m.Credentials:
        raise AssertionError

    async with connector.client(request(made(1, HOUR), renew)) as session, session.client("sts") as sts:
        await sts.get_caller_identity()
    assert fake.asked[0].signer == f"ASIA{1:016}"


async def test_a_blocking_client_renews_once_for_many_threads(fake: Any, made: Any) -> None:
    asked, signers = [], set()

    def renew() -> m.Credentials:
        asked.append(1)
        return made(2, HOUR)

    def use() -> None:
        with connector.blocking_client(
            m.BlockingClientRequest(
                credentials=made(1, MINUTE), renew=renew, resource_type="aws-generic", resource_id=None
            )
        ) as session:
            sts = session.client("sts")
            threads = [
                threading.Thread(target=lambda: signers.add(sts.get_caller_identity()["Arn"][-16:])) for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            sts.close()

    await anyio.to_thread.run_sync(use)
    assert (len(asked), signers) == (1, {f"{2:016}"})


async def test_clients_of_a_bucket(opened: Any, ask: Any, place: Any, keys: Any, sandbox: Any) -> None:
    async with opened("iam-role", role_arn=sandbox.role.arn, **place, **keys) as session:
        credentials = await connector.issue_credentials(session, ask("s3-bucket", "s3://team-models"))

    async def renew() -> m.Credentials:
        raise AssertionError

    async with connector.client(request(credentials, renew, "s3-bucket")) as s3:
        answer = await s3.get_object(Bucket="team-models", Key="README.md")
        assert await answer["Body"].read() == b"The team's models.\n"

    def use() -> bytes:
        with connector.blocking_client(
            m.BlockingClientRequest(
                credentials=credentials, renew=lambda: credentials, resource_type="s3-bucket", resource_id=None
            )
        ) as s3:
            body = s3.get_object(Bucket="team-models", Key="README.md")["Body"]
            with body:
                return bytes(body.read())

    assert await anyio.to_thread.run_sync(use) == b"The team's models.\n"
