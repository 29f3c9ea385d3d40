"""Ready clients that renew their own credentials."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.to_thread
import pytest
from botocore.config import Config as BotocoreConfig
from botocore.exceptions import ClientError

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

    async with connector.client(request(made(1, -MINUTE), renew)) as session, session.client("sts") as sts:
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


async def test_a_client_lives_on_with_what_it_has_while_renewing_fails(
    fake: Any, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def renew() -> m.Credentials:
        asked.append(1)
        raise m.Unreachable("no answer")

    async with connector.client(request(made(1, MINUTE), renew)) as session, session.client("sts") as sts:
        monkeypatch.setattr("mooring.held._now", lambda: datetime.now(UTC) + MINUTE * 5 / 6)
        await sts.get_caller_identity()
        assert asked
    async with connector.client(request(made(1, -MINUTE), renew)) as session, session.client("sts") as sts:
        with pytest.raises(m.Unreachable):
            await sts.get_caller_identity()


async def test_credentials_of_a_quarter_are_not_renewed_at_every_use(
    fake: Any, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As botocore renews them; here others are asked for with a third of the life left, then ever more seldom."""
    asked, began, late = [], datetime.now(UTC), timedelta(0)
    monkeypatch.setattr("mooring.held._now", lambda: began + late)
    first = made(1, 15 * MINUTE)

    async def renew() -> m.Credentials:
        asked.append(late)
        return first

    async with connector.client(request(first, renew)) as session, session.client("sts") as sts:
        for minutes in (0, 4, 9, 10.1, 10.2, 11, 12, 13.3, 13.4, 13.5, 14.4, 14.5):
            late = MINUTE * minutes
            await sts.get_caller_identity()
    assert [round(one / MINUTE, 1) for one in asked] == [10.1, 13.4, 14.5]


def refusing(fake: Any, replies: Any, code: str, *keys: str) -> None:
    """Let the fake refuse what is signed with these keys."""

    async def answer(asked: Any) -> Any:
        if asked.signer in keys:
            return replies.refusal(code, "The security token included in the request is expired", 403)
        return await fake.whoami(asked)

    fake.answer = answer


REFUSALS = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidClientTokenId")


@pytest.mark.parametrize("code", REFUSALS)
async def test_what_aws_refuses_is_renewed_once_for_fifty_callers(
    fake: Any, made: Any, replies: Any, code: str
) -> None:
    asked, first, arns = [], made(1, HOUR), set()

    async def renew(refused: m.Credentials | None = None) -> m.Credentials:
        asked.append(refused)
        return made(2, HOUR)

    refusing(fake, replies, code, first.access_key_id)

    async def use(sts: Any) -> None:
        arns.add((await sts.get_caller_identity())["Arn"][-16:])

    async with (
        connector.client(request(first, renew)) as session,
        session.client("sts") as sts,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(50):
            tasks.start_soon(use, sts)
    assert asked == [first]
    assert arns == {f"{2:016}"}
    assert len(fake.asked) <= 100


async def test_what_aws_refuses_twice_is_the_caller_s_to_see(fake: Any, made: Any, replies: Any) -> None:
    asked: list[Any] = []

    async def renew(refused: m.Credentials | None = None) -> m.Credentials:
        asked.append(refused)
        return made(1 + len(asked), HOUR)

    refusing(fake, replies, "ExpiredToken", *(f"ASIA{number:016}" for number in range(9)))
    async with connector.client(request(made(1, HOUR), renew)) as session, session.client("sts") as sts:
        with pytest.raises(ClientError, match="ExpiredToken"):
            await sts.get_caller_identity()
    assert [one.access_key_id[-1] for one in asked] == ["1"]
    assert [one.signer[-1] for one in fake.asked] == ["1", "2"]


async def test_where_there_are_no_others_the_refusal_stands(fake: Any, made: Any, replies: Any) -> None:
    first = made(1, HOUR)

    async def same(refused: m.Credentials | None = None) -> m.Credentials:
        return first

    async def none(refused: m.Credentials | None = None) -> m.Credentials:
        raise m.Unreachable("no answer")

    refusing(fake, replies, "ExpiredToken", first.access_key_id)
    async with connector.client(request(first, same)) as session, session.client("sts") as sts:
        with pytest.raises(ClientError, match="ExpiredToken"):
            await sts.get_caller_identity()
    assert len(fake.asked) == 1
    async with connector.client(request(first, none)) as session, session.client("sts") as sts:
        with pytest.raises(m.Unreachable, match="no answer"):
            await sts.get_caller_identity()


async def test_another_refusal_renews_nothing(fake: Any, made: Any, replies: Any) -> None:
    refusing(fake, replies, "AccessDenied", f"ASIA{1:016}")
    async with connector.client(request(made(1, HOUR), None)) as session, session.client("sts") as sts:
        with pytest.raises(ClientError, match="AccessDenied"):
            await sts.get_caller_identity()


async def test_a_blocking_client_renews_what_aws_refuses_once_for_fifty_threads(
    fake: Any, made: Any, replies: Any
) -> None:
    asked, first, arns = [], made(1, HOUR), []
    refusing(fake, replies, "ExpiredToken", first.access_key_id)

    def renew(refused: m.Credentials | None = None) -> m.Credentials:
        asked.append(refused)
        return made(2, HOUR)

    def use() -> None:
        wish = m.BlockingClientRequest(credentials=first, renew=renew, resource_type="aws-generic", resource_id=None)
        with connector.blocking_client(wish) as session, ThreadPoolExecutor(50) as pool:
            sts = session.client("sts", config=BotocoreConfig(max_pool_connections=50))
            arns.extend(pool.map(lambda _: sts.get_caller_identity()["Arn"][-16:], range(50)))
            refusing(fake, replies, "ExpiredToken", *(f"ASIA{number:016}" for number in range(9)))
            with pytest.raises(ClientError, match="ExpiredToken"):
                sts.get_caller_identity()
            sts.close()

    await anyio.to_thread.run_sync(use)
    assert set(arns) == {f"{2:016}"}
    assert [one.access_key_id[-1] for one in asked] == ["1", "2"]


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
                credentials=made(1, -MINUTE), renew=renew, resource_type="aws-generic", resource_id=None
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
