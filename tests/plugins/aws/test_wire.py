"""An endpoint that means ill: redirects, endless answers, absurd pauses; and a host that logs everything."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

import mooring as m
from mooring_aws import AwsCredentials, connector, eks, errors
from mooring_aws.credentials import Keys
from mooring_aws.errors import translate
from mooring_aws.formats import check_key

pytestmark = pytest.mark.anyio

SECRET = "CANARYcanaryCANARYcanaryCANARYcanary0000"
TOKEN = "CANARY.CANARYclaims.CANARYtoken"
ROLE = "arn:aws:iam::123456789012:role/deploy"


@pytest.fixture
async def elsewhere() -> AsyncGenerator[Any, None]:
    """A second host: its URL, and the requests that it got."""
    got: list[dict[str, str]] = []

    async def handle(request: web.Request) -> web.Response:
        got.append(dict(request.headers))
        return web.Response(text="")

    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/", got
    await runner.cleanup()


@pytest.fixture
def temporary(fake: Any) -> dict[str, Any]:
    fake.secrets["ASIAEXAMPLEEXAMPLE00"] = SECRET
    key = {"aws_access_key_id": "ASIAEXAMPLEEXAMPLE00", "aws_secret_access_key": SECRET, "aws_session_token": TOKEN}
    return {"region": "eu-west-1", "endpoint_url": fake.url, **key}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(
    opened: Any, ask: Any, fake: Any, temporary: Any, elsewhere: Any, status: int
) -> None:
    url, got = elsewhere

    async def answer(asked: Any) -> Any:
        return web.Response(status=status, headers={"Location": url})

    fake.answer = answer
    async with opened("sts-token", **temporary) as session:
        with pytest.raises(m.Rejected, match="redirect, which is never followed"):
            await session.sts("GetCallerIdentity", await session.keys())
        kind = m.ResourceNotFound if status in (301, 307) else m.Rejected
        with pytest.raises(kind, match="another region" if kind is m.ResourceNotFound else "redirect"):
            await session.call("s3", "ListBuckets", MaxBuckets=1)
    place = {"region": "eu-west-1", "endpoint_url": fake.url, "role_arn": ROLE}
    async with opened("web-identity", web_identity_token=TOKEN, **place) as session:
        with pytest.raises(m.Rejected, match="redirect"):
            await connector.issue_credentials(session, ask("s3-bucket", "s3://data"))
    assert got == []


@pytest.mark.parametrize(("status", "code"), [(301, "PermanentRedirect"), (307, "TemporaryRedirect"), (302, "Found")])
async def test_a_bucket_of_another_region(
    opened: Any, fake: Any, temporary: Any, elsewhere: Any, status: int, code: str
) -> None:
    url, got = elsewhere

    async def answer(asked: Any) -> Any:
        body = f"<Error><Code>{code}</Code><Endpoint>{url}</Endpoint><Message>no</Message></Error>"
        return web.Response(status=status, headers={"Location": url}, text=body, content_type="text/xml")

    fake.answer = answer
    kind, said = (m.Rejected, "redirect") if status == 302 else (m.ResourceNotFound, "another region")
    async with opened("sts-token", **temporary) as session:
        with pytest.raises(kind, match=said):
            await session.call("s3", "ListObjectsV2", Bucket="data", MaxKeys=1)
    assert got == []


async def test_a_native_client_follows_no_redirect_whatever_its_config(fake: Any, elsewhere: Any) -> None:
    from aiobotocore.config import AioConfig
    from botocore.config import Config

    url, got = elsewhere
    fake.secrets["ASIAEXAMPLEEXAMPLE00"] = SECRET

    async def answer(asked: Any) -> Any:
        return web.Response(status=307, headers={"Location": url})

    async def renew() -> m.Credentials:
        raise AssertionError

    fake.answer = answer
    first = AwsCredentials(
        access_key_id="ASIAEXAMPLEEXAMPLE00", secret_access_key=m.Secret(SECRET), session_token=m.Secret(TOKEN),
        region="eu-west-1", endpoint_urls={"default": fake.url}, narrowed=True, expires_at=None,
    )  # fmt: skip
    request = m.ClientRequest(credentials=first, renew=renew, resource_type="aws-generic", resource_id=None)
    async with connector.client(request) as session:
        for config in (None, Config(read_timeout=9), AioConfig(read_timeout=9)):
            async with session.client("sts", config=config) as sts:
                assert config is None or sts.meta.config.read_timeout == 9
                with pytest.raises((ClientError, ResponseParserError)):
                    await sts.get_caller_identity()
    assert fake.asked
    assert got == []


@pytest.mark.parametrize("sized", [True, False])
async def test_an_endless_answer_is_given_up(
    opened: Any, fake: Any, fake_key: Any, sized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mooring_aws.wire.LONGEST_ANSWER", 1000)

    async def answer(asked: Any) -> Any:
        return web.Response(text="x" * 1001) if sized else web.Response(body=parts())

    async def parts() -> AsyncGenerator[bytes, None]:
        for _ in range(11):
            yield b"x" * 100

    fake.answer = answer
    async with opened("secret-key", **fake_key) as session:
        with pytest.raises(m.Rejected, match="longer than 16 MiB"):
            await session.sts("GetCallerIdentity", await session.keys())
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("7", 7), ("9" * 20, 86400), ("9" * 5000, 86400), ("soon", None), ("-1", None), ("٣", None)],
)
async def test_an_absurd_pause(said: str, seconds: int | None) -> None:
    response: Any = {"Error": {"Code": "Throttling"}, "ResponseMetadata": {"HTTPHeaders": {"retry-after": said}}}
    problem = translate(ClientError(response, "X"), "sts:X")
    assert problem.retry_after == (None if seconds is None else timedelta(seconds=seconds))


DENIAL = "User: {} is not authorized to perform: {} on resource: arn:aws:iam::123456789012:role/x"


@pytest.mark.parametrize(
    ("code", "remark"),
    [
        ("AccessDenied", DENIAL.format(f"arn:aws:iam::123456789012:user/{SECRET}", "sts:AssumeRole")),
        ("AccessDenied", DENIAL.format(f"arn:aws:iam::123456789012:user/{TOKEN[7:30]}", "sts:AssumeRole")),
        ("AccessDenied", DENIAL.format("arn:aws:iam::123456789012:user/CANARY=+", "sts:AssumeRole")),
        ("AccessDenied", DENIAL.format("arn:aws:iam::123456789012:user/" + "CANARY" * 40, "sts:AssumeRole")),
        ("AccessDenied", DENIAL.format("arn:aws:iam::123456789012:user/ann", "sts:CANARY0")),
        (SECRET, ""),
        ("CANARYcanaryCANARYcanary", ""),
        ("CANARY7", ""),
    ],
)
async def test_nothing_that_could_be_a_secret_is_quoted(code: str, remark: str) -> None:
    response: Any = {"Error": {"Code": code, "Message": remark}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    said = str(translate(ClientError(response, "X"), "sts:X", unsaid=(m.Secret(SECRET), m.Secret(TOKEN))))
    assert "CANARY" not in said
    assert "denies" in said or "400" in said


async def test_an_answer_with_what_was_sent(opened: Any, fake: Any, temporary: Any, replies: Any) -> None:
    async def answer(asked: Any) -> Any:
        token = asked.headers["X-Amz-Security-Token"]
        return replies.refusal("AccessDenied", DENIAL.format(f"arn:aws:iam::123456789012:user/{token}", "sts:X"), 403)

    fake.answer = answer
    async with opened("sts-token", **temporary) as session:
        with pytest.raises(m.AccessDenied) as caught:
            await session.call("s3", "ListBuckets", MaxBuckets=1)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"local-1234abcd:" + b"A" * 43 + b"=\n", b"A" * 43 + b"=", b"PATH=/bin\0X=a.b.c\0", b"a.b." + b"c" * 32768, b""],
)
async def test_a_file_that_holds_no_token_is_not_sent(
    opened: Any, ask: Any, fake: Any, machine: Path, content: bytes
) -> None:
    (machine / "file").write_bytes(content)
    await refused_file(opened, ask, fake, str(machine / "file"))


@pytest.mark.parametrize("path", ["/dev/zero", "/proc/self/environ", "fifo", "~", "no-such-file", "nul\0"])
async def test_a_file_that_is_none_does_not_hang(opened: Any, ask: Any, fake: Any, machine: Path, path: str) -> None:
    if path == "fifo":
        path = str(machine / "fifo")
        os.mkfifo(path)
    with anyio.fail_after(5):
        await refused_file(opened, ask, fake, path)


async def refused_file(opened: Any, ask: Any, fake: Any, path: str) -> None:
    place = {"region": "eu-west-1", "endpoint_url": fake.url, "role_arn": ROLE}
    async with opened("web-identity", web_identity_token_file=path, **place) as session:
        with pytest.raises(m.InvalidConfig, match="web_identity_token_file") as caught:
            await connector.issue_credentials(session, ask("s3-bucket", "s3://data"))
    assert caught.value.field == "web_identity_token_file"
    assert "AAAA" not in str(caught.value)
    assert fake.asked == []


async def test_a_host_that_logs_everything(
    opened: Any, ask: Any, fake: Any, temporary: Any, replies: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(asked: Any) -> Any:
        if asked.parameters.get("Action") == "AssumeRoleWithWebIdentity":
            return replies.credentials("AssumeRoleWithWebIdentity", key="CANARYKEYCANARYKEY00")
        return await fake.whoami(asked)

    fake.answer = answer
    caplog.set_level(logging.DEBUG)
    async with opened("sts-token", **temporary) as session:
        await session.identity()
    place = {"region": "eu-west-1", "endpoint_url": fake.url, "role_arn": ROLE}
    async with opened("web-identity", web_identity_token=TOKEN, **place) as session:
        await connector.issue_credentials(session, ask("s3-bucket", "s3://data"))
    keys = Keys(access_key_id="ASIAEXAMPLEEXAMPLE00", secret_access_key=m.Secret(SECRET), session_token=m.Secret(TOKEN))
    eks.token(keys, "eu-west-1", "prod")
    assert "CANARY" not in caplog.text
    logging.getLogger("botocore.auth").debug("the host's own")
    assert "the host's own" in caplog.text


@pytest.mark.parametrize(("given", "wanted"), [(None, True), ("123456789012", True), ("999999999999", False)])
@pytest.mark.parametrize("method", ["sts-token", "iam-role"])
async def test_an_account_that_is_not_the_connectors(
    opened: Any, ask: Any, fake: Any, temporary: Any, replies: Any, method: str, given: str | None, wanted: bool
) -> None:
    async def answer(asked: Any) -> Any:
        action = asked.parameters["Action"]
        return await fake.whoami(asked) if action == "GetCallerIdentity" else replies.credentials(action)

    fake.answer = answer
    request = ask("aws-generic", given, allow_long_lived=True)
    async with opened(method, **temporary, **({"role_arn": ROLE} if method == "iam-role" else {})) as session:
        if wanted:
            assert (await connector.issue_credentials(session, request)).account == given
            planned = [call.partition(":")[2] for call in connector.explain(session.config, request).calls]
            assert [asked.parameters["Action"] for asked in fake.asked] == planned
            return
        with pytest.raises(m.UnsupportedResource, match="reaches account 123456789012, not 999999999999"):
            await connector.issue_credentials(session, request)


async def test_no_frame_holds_a_malformed_secret() -> None:
    key, word, spoilt = m.Secret("AKIAEXAMPLEEXAMPLE00"), m.Secret("word"), m.Secret(SECRET + " ")
    for hidden in ((key, spoilt), (spoilt, word), (m.Secret("AKIA" + SECRET + "/"), word)):
        with pytest.raises(m.InvalidConfig) as caught:
            check_key(*hidden)
        trace = caught.value.__traceback__
        assert trace is not None
        shown = traceback.TracebackException.from_exception(
            caught.value.with_traceback(trace.tb_next), capture_locals=True
        )
        assert "CANARY" not in "".join(shown.format())


async def test_answers_that_lack_something(opened: Any, ask: Any, fake: Any, fake_key: Any, replies: Any) -> None:
    async def answer(asked: Any) -> Any:
        if "X-Amz-Target" in asked.headers:
            return replies.json({"authorizationData": [{}]})
        if asked.path.startswith("/clusters"):
            return replies.json({})
        return web.Response(
            text="<R><GetFederationTokenResult><Credentials><AccessKeyId>ASIAEXAMPLEEXAMPLE00</AccessKeyId></Credentials>"
            "</GetFederationTokenResult></R>",
            content_type="text/xml",
        )

    fake.answer = answer
    async with opened("secret-key", **fake_key) as session:
        with pytest.raises(m.Rejected, match="lacks cluster"):
            await eks.describe(session, "eu-west-1/prod")
    async with opened("federation-token", **fake_key) as session:
        with pytest.raises(m.Rejected, match="lacks SecretAccessKey"):
            await connector.issue_credentials(session, ask("s3-bucket", "s3://data"))


@pytest.mark.parametrize("answer", [{}, None, {"name": ""}, {"name": []}, "text"])
async def test_given(answer: Any) -> None:
    with pytest.raises(m.Rejected, match="lacks name"):
        errors.given(answer, "name", "eks:X")


@pytest.mark.parametrize("token", ["not base64!", "bm8tY29sb24=", "/////w==", "OnBhc3N3b3Jk"])
async def test_a_login_without_user_and_password(token: str) -> None:
    from mooring_aws.ecr import _login

    with pytest.raises(m.Rejected, match="no user and password"):
        _login(m.Secret(token))


@pytest.mark.parametrize("id", ["s3://data/../other/", "s3://data/a/./b", "s3://data/a/..", "arn:aws:s3:::data/./"])
async def test_a_prefix_that_leads_elsewhere(id: str) -> None:
    with pytest.raises(m.InvalidConfig):
        connector.canonical("s3-bucket", id)
    assert connector.canonical("s3-bucket", "s3://data/a..b/.c/") == "s3://data/a..b/.c/"


async def test_a_clusters_arn_of_another_partition() -> None:
    with pytest.raises(m.InvalidConfig):
        connector.canonical("kubernetes-cluster", "arn:aws-cn:eks:eu-west-1:123456789012:cluster/c")
