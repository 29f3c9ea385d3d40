"""The table of errors: every row, and nothing secret in what we say or carry."""

from __future__ import annotations

import builtins
import re
import socket
import ssl
import traceback
from typing import Any

import aiohttp
import botocore.exceptions
import botocore.parsers
import pytest
from botocore.exceptions import ClientError

import mooring as m
from mooring_aws.errors import plain, translate, translated
from mooring_aws.table import ANSWERS, CERTIFICATES, DENIALS, EXCEPTIONS, REMARKS

CODES = [(code, kind) for codes, kind, _ in ANSWERS for code in codes.split()]
NAMES = [(name, kind) for names, kind, _ in EXCEPTIONS for name in names.split()]


def answered(code: str, message: str = "", status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, "X"
    )


@pytest.mark.parametrize(("code", "kind"), CODES)
def test_every_code(code: str, kind: type[m.MooringError]) -> None:
    problem = translate(answered(code, "canary"), "sts:AssumeRole")
    assert type(problem) is kind
    assert "(sts:AssumeRole)" in str(problem) or "sts:AssumeRole;" in str(problem)
    assert "canary" not in str(problem)


def test_no_code_is_there_twice() -> None:
    for rows in (CODES, NAMES):
        names = [name for name, _ in rows]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(("name", "kind"), NAMES)
def test_every_exception(name: str, kind: type[m.MooringError]) -> None:
    (found,) = {
        getattr(module, name)
        for module in (botocore.exceptions, botocore.parsers, aiohttp, socket, ssl, builtins)
        if hasattr(module, name) and (name != "SSLError" or module is botocore.exceptions)
    }
    problem = translate(found.__new__(found), "s3:HeadBucket")
    assert type(problem) is kind
    assert "s3:HeadBucket" in str(problem)


@pytest.mark.parametrize(("code", "remark", "kind"), [row[:3] for row in REMARKS])
def test_codes_with_several_meanings(code: str, remark: str, kind: type[m.MooringError]) -> None:
    assert type(translate(answered(code, f"... {remark} ..."), "sts:AssumeRole")) is kind


def test_every_sentence_says_the_call_and_what_to_do() -> None:
    for text in [
        *DENIALS.values(),
        *CERTIFICATES.values(),
        *(row[-1] for rows in (ANSWERS, REMARKS, EXCEPTIONS) for row in rows),
    ]:
        assert "{call}" in text
        assert ";" in text
        assert not re.search(r"[.!]$", text)


def test_who_is_denied_what() -> None:
    said = (
        "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: sts:AssumeRole on resource: "
        "arn:aws:iam::123456789012:role/deploy with an explicit deny"
    )
    assert str(translate(answered("AccessDenied", said), "sts:AssumeRole")) == (
        "AWS denies sts:AssumeRole to arn:aws:iam::123456789012:user/ann on arn:aws:iam::123456789012:role/deploy; "
        "allow it in the policies of the identity and of the resource"
    )


@pytest.mark.parametrize(
    ("call", "trust"),
    [("sts:AssumeRole", True), ("sts:AssumeRoleWithWebIdentity", True), ("sts:GetSessionToken", False)],
)
def test_a_trust_policy_is_named_where_there_is_one(call: str, trust: bool) -> None:
    assert ("trust policy of the role" in str(translate(answered("AccessDenied"), call))) is trust


def test_an_error_that_is_not_wrapped() -> None:
    """As SeaweedFS's STS answers keys that it does not know, or no longer: botocore leaves the code at the top."""
    for code, sentence in (("InvalidAccessKeyId", "does not know the access key"), ("SignatureDoesNotMatch", "secret")):
        response: Any = {"Code": code, "Message": "canary", "ResponseMetadata": {"HTTPStatusCode": 403}}
        problem = translate(ClientError(response, "X"), "sts:AssumeRole", "http://127.0.0.1:8333")
        assert type(problem) is m.AuthFailed
        assert sentence in str(problem)


def test_what_is_not_aws_is_not_called_so() -> None:
    texts = [
        str(translate(problem, "s3:ListBuckets", "http://ann:canary@127.0.0.1:8333/?token=canary"))
        for problem in (answered("InternalError", status=500), answered("AccessDenied"), answered("SomethingNew"))
    ]
    assert texts[0] == "the endpoint failed (s3:ListBuckets); try again later"
    assert not any("AWS" in text.partition(";")[0] for text in texts)


@pytest.mark.parametrize(
    ("endpoint", "named"),
    [
        ("http://ann:canary@127.0.0.1:8333/?token=canary#canary", "the endpoint http://127.0.0.1:8333 cannot"),
        ("http://ann:can/ary@127.0.0.1", "the endpoint cannot"),
        ("http://[canary", "the endpoint cannot"),
        (None, "the endpoint cannot"),
    ],
)
def test_which_endpoint_cannot_be_reached(endpoint: str | None, named: str) -> None:
    error = botocore.exceptions.EndpointConnectionError(endpoint_url=endpoint, error=OSError())
    said = str(translate(error, "sts:X", endpoint))
    assert said.startswith(named)
    assert "can/" not in said
    assert "canary" not in said


def test_a_url_may_have_a_path() -> None:
    assert plain("https://store.example.org/aws/") == "https://store.example.org/aws"


def test_unknown_codes_and_exceptions() -> None:
    assert type(translate(answered("SomethingNew"), "s3:X")) is m.Rejected
    assert type(translate(answered("SomethingNew", status=503), "s3:X")) is m.Unreachable
    assert "SomethingNew" in str(translate(answered("SomethingNew"), "s3:X"))
    assert "can ary" not in str(translate(answered("can ary"), "s3:X"))
    assert "KeyError" in str(translate(KeyError("canary"), "s3:X"))
    assert "canary" not in str(translate(KeyError("canary"), "s3:X"))


@pytest.mark.anyio
async def test_nothing_of_the_original_is_carried() -> None:
    async def work() -> None:
        secret = "canary"
        try:
            raise ValueError(secret)
        except ValueError as error:
            raise answered("SignatureDoesNotMatch", f"The canonical string was {secret}") from error

    with pytest.raises(m.AuthFailed) as caught:
        await translated("sts:X", work)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("endpoint", "sentence"),
    [
        ("http://127.0.0.1:1", r"the endpoint http://127\.0\.0\.1:1 cannot be reached"),
        ("http://no-such-host.invalid", "cannot be resolved"),
        ("https", "there is no TLS with"),
        ("garbage", "not one of AWS's"),
    ],
)
async def test_endpoints_that_do_not_answer(
    opened: Any, fake: Any, fake_key: Any, replies: Any, endpoint: str, sentence: str
) -> None:
    async def answer(asked: Any) -> Any:
        return aiohttp.web.Response(text="<html>", content_type="text/html")

    fake.answer = answer
    url = {"https": fake.url.replace("http:", "https:"), "garbage": fake.url}.get(endpoint, endpoint)
    async with opened("secret-key", **fake_key | {"endpoint_url": url}) as session:
        with pytest.raises(m.Unreachable, match=sentence) as caught:
            await session.identity()
    assert caught.value.retryable


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("key", "secret", "sentence"),
    [("AKIAUNKNOWNUNKNOWN00", None, "does not know the access key"), (None, "a-wrong-secret", "does not fit")],
)
async def test_wrong_keys_against_a_real_server(
    opened: Any, place: Any, keys: Any, key: str | None, secret: str | None, sentence: str
) -> None:
    fields = keys | ({"aws_access_key_id": key} if key else {}) | ({"aws_secret_access_key": secret} if secret else {})
    async with opened("secret-key", **place, **fields) as session:
        with pytest.raises(m.AuthFailed, match=sentence) as caught:
            await session.identity()
    assert caught.value.__context__ is None
