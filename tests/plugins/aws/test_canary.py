"""A secret shows in no repr, error, traceback, log or local variable of ours."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import pytest

import mooring as m
from mooring_aws import connector

pytestmark = pytest.mark.anyio

CANARY = "CANARYcanaryCANARYcanaryCANARYcanary0000"
TOKEN = "CANARY.CANARYclaims.CANARYtoken"


@pytest.fixture
def fields(fake: Any) -> dict[str, Any]:
    fake.secrets["ASIAEXAMPLEEXAMPLE00"] = CANARY
    return {
        "region": "eu-west-1",
        "endpoint_url": fake.url,
        "aws_access_key_id": "ASIAEXAMPLEEXAMPLE00",
        "aws_secret_access_key": CANARY,
        "aws_session_token": TOKEN,
    }


def text_of(error: BaseException) -> str:
    """All that a crash reporter could take: messages, and the local variables of every frame of ours."""
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return shown + repr(error.__cause__) + repr(error.__context__) + repr(vars(error))


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "AccessDenied", "Throttling", "Unheard"])
async def test_errors(
    opened: Any, fake: Any, fields: Any, replies: Any, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(asked: Any) -> Any:
        return replies.refusal(code, f"canonical: x-amz-security-token:{TOKEN} secret {CANARY}", status=403)

    fake.answer = answer
    caplog.set_level(logging.INFO)
    async with opened("sts-token", **fields) as session:
        with pytest.raises(m.MooringError) as caught:
            await session.identity()
        assert "CANARY" not in repr(session) + repr(session.config) + repr(await session.source())
    assert "CANARY" not in str(caught.value)
    assert caught.value.__context__ is None
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))
    assert "CANARY" not in caplog.text


async def test_the_frames_of_an_error_hold_no_secret(opened: Any, fake: Any, fields: Any, replies: Any) -> None:
    async def answer(asked: Any) -> Any:
        return replies.refusal("AccessDenied", status=403)

    fake.answer = answer
    async with opened("sts-token", **fields) as session:
        try:
            await session.call("s3", "HeadBucket", Bucket="data")
        except m.AccessDenied as error:
            shown = text_of(error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None))
    assert "CANARY" not in shown


async def test_the_frames_of_a_refused_web_identity_hold_no_token(
    opened: Any, ask: Any, fake: Any, replies: Any, machine: Any
) -> None:
    async def answer(asked: Any) -> Any:
        assert asked.parameters["WebIdentityToken"] == TOKEN
        return replies.refusal("InvalidIdentityToken", TOKEN)

    fake.answer = answer
    (machine / "token").write_text(TOKEN)
    role = {"role_arn": "arn:aws:iam::123456789012:role/deploy", "region": "eu-west-1", "endpoint_url": fake.url}
    for given in ({"web_identity_token": TOKEN}, {"web_identity_token_file": str(machine / "token")}):
        async with opened("web-identity", **role, **given) as session:
            with pytest.raises(m.AuthFailed) as caught:
                await connector.issue_credentials(session, ask("s3-bucket", "s3://data"))
        assert caught.value.__traceback__ is not None
        assert "CANARY" not in text_of(caught.value.with_traceback(caught.value.__traceback__.tb_next))


async def test_what_is_issued(opened: Any, ask: Any, fake: Any, fields: Any) -> None:
    async with opened("sts-token", **fields) as session:
        issued = await connector.issue_credentials(
            session, ask("s3-bucket", "s3://data", allow_unnarrowed=True, allow_long_lived=True)
        )
    assert "CANARY" not in f"{issued!r} {issued}"
