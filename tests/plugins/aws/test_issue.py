"""Issued credentials, tried against servers that enforce what AWS would."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

import mooring as m
from mooring_aws import AwsCredentials, connector

pytestmark = pytest.mark.anyio

METHODS = ("secret-key", "federation-token", "iam-role")
DOORS = {  # what may be done with the seeded objects, by name
    "get inside": ("get_object", {"Bucket": "team-models", "Key": "churn/model.json"}),
    "get beside": ("get_object", {"Bucket": "team-models", "Key": "README.md"}),
    "get elsewhere": ("get_object", {"Bucket": "public-logs", "Key": "2026/01/01.log"}),
    "list inside": ("list_objects_v2", {"Bucket": "team-models", "Prefix": "churn/"}),
    "list all": ("list_objects_v2", {"Bucket": "team-models"}),
    "list elsewhere": ("list_objects_v2", {"Bucket": "public-logs"}),
    "put inside": ("put_object", {"Bucket": "team-models", "Key": "churn/made-by-a-test", "Body": b"x"}),
    "put beside": ("put_object", {"Bucket": "team-models", "Key": "made-by-a-test", "Body": b"x"}),
    "delete inside": ("delete_object", {"Bucket": "team-models", "Key": "churn/made-by-a-test"}),
    "delete beside": ("delete_object", {"Bucket": "team-models", "Key": "made-by-a-test"}),
    "put elsewhere": ("put_object", {"Bucket": "public-logs", "Key": "made-by-a-test", "Body": b"x"}),
    "delete elsewhere": ("delete_object", {"Bucket": "public-logs", "Key": "made-by-a-test"}),
}
INSIDE = {"get inside", "list inside"}
OPEN = {
    ("s3://team-models", "list"): {"list inside", "list all"},
    ("s3://team-models", "read"): INSIDE | {"get beside", "list all"},
    ("s3://team-models", "write"): INSIDE
    | {"get beside", "list all", "put inside", "put beside", "delete inside", "delete beside"},
    ("s3://team-models/churn/", "list"): {"list inside"},
    ("s3://team-models/churn/", "read"): INSIDE,
    ("s3://team-models/churn/", "write"): INSIDE | {"put inside", "delete inside"},
}


async def opened_doors(credentials: m.Credentials) -> set[str]:
    request = m.ClientRequest(
        credentials=credentials, renew=never, resource_type="s3-bucket", resource_id="s3://team-models"
    )
    found, codes = set(), set()
    async with connector.client(request) as s3:
        for name, (operation, parameters) in DOORS.items():
            try:
                await getattr(s3, operation)(**parameters)
            except ClientError as error:
                codes.add(error.response["Error"]["Code"])
            else:
                found.add(name)
    assert codes <= {"AccessDenied"}
    return found


async def never() -> m.Credentials:
    raise AssertionError("fresh enough")


@pytest.fixture
def particulars(sandbox: Any, keys: dict[str, str], place: dict[str, Any]) -> dict[str, dict[str, Any]]:
    own = keys | place
    return {"secret-key": own, "federation-token": own, "iam-role": own | {"role_arn": sandbox.role.arn}}


@pytest.mark.parametrize(("scope", "access"), OPEN)
@pytest.mark.parametrize("method", METHODS)
async def test_narrowed_credentials_open_these_doors_and_no_other(
    opened: Any, ask: Any, particulars: Any, method: str, scope: str, access: m.Access
) -> None:
    async with opened(method, **particulars[method]) as session:
        issued = await connector.issue_credentials(session, ask("s3-bucket", scope, access))
    assert issued.narrowed
    assert await opened_doors(issued) == OPEN[scope, access]


@pytest.mark.parametrize("method", METHODS)
async def test_credentials_say_when_and_where(
    opened: Any, ask: Any, particulars: Any, sandbox: Any, method: str
) -> None:
    async with opened(method, **particulars[method]) as session:
        issued = await connector.issue_credentials(
            session, ask("s3-bucket", "s3://team-models", ttl=timedelta(minutes=20))
        )
    assert isinstance(issued, AwsCredentials)
    assert issued.expires_at is not None
    assert abs(issued.expires_at - datetime.now(UTC) - timedelta(minutes=20)) < timedelta(minutes=1)
    assert issued.session_token is not None
    assert issued.region == sandbox.region
    assert issued.endpoint_urls == {"default": sandbox.aws_url, "s3": sandbox.s3_url, "sts": sandbox.s3_url}
    assert issued.clamped == ()


async def test_the_whole_account(opened: Any, ask: Any, particulars: Any) -> None:
    async with opened("iam-role", **particulars["iam-role"]) as session:
        issued = await connector.issue_credentials(session, ask("aws-generic", None, "write"))
    assert not issued.narrowed
    assert issued.clamped == ()
    assert await opened_doors(issued) == set(DOORS)


async def test_a_role_that_does_not_trust_us(opened: Any, ask: Any, particulars: Any, sandbox: Any) -> None:
    fields = particulars["iam-role"] | {"role_arn": sandbox.forbidden_role.arn}
    async with opened("iam-role", **fields) as session:
        with pytest.raises(m.AccessDenied, match="sts:AssumeRole"):
            await connector.issue_credentials(session, ask("s3-bucket", "s3://team-models"))


async def test_a_token_that_cannot_be_narrowed(
    opened: Any, ask: Any, particulars: Any, place: dict[str, Any], context: m.Context
) -> None:
    async with opened("iam-role", **particulars["iam-role"]) as session:
        role = await connector.issue_credentials(session, ask("aws-generic", None))
    assert isinstance(role, AwsCredentials)
    fields = place | {
        "aws_access_key_id": role.access_key_id,
        "aws_secret_access_key": role.secret_access_key,
        "aws_session_token": role.session_token,
    }
    async with opened("sts-token", **fields) as session:
        with pytest.raises(m.NotNarrowed, match=r"sts-token .* connector update prod --allow-unnarrowed$"):
            await connector.issue_credentials(session, ask("s3-bucket", "s3://team-models"))
        wide = {"ttl": None, "allow_unnarrowed": True}
        with pytest.raises(m.LongLived, match=r"update prod --expires-at INSTANT.*update prod --allow-long-lived$"):
            await connector.issue_credentials(session, ask("s3-bucket", "s3://team-models", **wide))
        request = ask("s3-bucket", "s3://team-models", allow_long_lived=True, **wide)
        issued = await connector.issue_credentials(session, request)
    assert not issued.narrowed
    assert any("cannot be narrowed" in note for note in issued.clamped)
    assert any("nobody knows" in note for note in issued.clamped)
    assert await opened_doors(issued) == set(DOORS)


async def test_a_long_lived_key_where_there_is_no_temporary_one(
    opened: Any, ask: Any, fake: Any, fake_key: Any, replies: Any
) -> None:
    async def refuse(asked: Any) -> Any:
        return replies.refusal("AccessDenied", status=403)

    fake.answer = refuse
    async with opened("secret-key", **fake_key) as session:
        for allowed, error, option in (
            ({}, m.NotNarrowed, "--allow-unnarrowed"),
            ({"allow_long_lived": True}, m.NotNarrowed, "--allow-unnarrowed"),
            ({"allow_unnarrowed": True}, m.LongLived, "--allow-long-lived"),
        ):
            with pytest.raises(error, match=f"mooring connector update prod {option}$"):
                await connector.issue_credentials(session, ask("s3-bucket", "s3://data", **allowed))
        with pytest.raises(m.LongLived):
            await connector.issue_credentials(session, ask("aws-generic", None))
        request = ask("s3-bucket", "s3://data", allow_unnarrowed=True, allow_long_lived=True)
        issued = await connector.issue_credentials(session, request)
    assert isinstance(issued, AwsCredentials)
    assert (issued.expires_at, issued.narrowed, issued.session_token) == (None, False, None)
    assert issued.access_key_id == fake_key["aws_access_key_id"]
    assert any("long-lived" in note for note in issued.clamped)


async def test_a_key_that_may_not_federate_gives_a_session_token_if_allowed(
    opened: Any, ask: Any, fake: Any, fake_key: Any, replies: Any
) -> None:
    async def answer(asked: Any) -> Any:
        operation = asked.parameters["Action"]
        return (
            replies.refusal("AccessDenied", status=403) if "Federation" in operation else replies.credentials(operation)
        )

    fake.answer = answer
    async with opened("secret-key", **fake_key) as session:
        issued = await connector.issue_credentials(session, ask("s3-bucket", "s3://data", allow_unnarrowed=True))
    assert isinstance(issued, AwsCredentials)
    assert issued.session_token is not None
    assert not issued.narrowed


async def test_a_shorter_life_than_asked_for_is_said(
    opened: Any, ask: Any, fake: Any, fake_key: Any, replies: Any
) -> None:
    async def answer(asked: Any) -> Any:
        return replies.credentials(asked.parameters["Action"], life=timedelta(minutes=30))

    fake.answer = answer
    async with opened("secret-key", **fake_key) as session:
        issued = await connector.issue_credentials(session, ask("s3-bucket", "s3://data"))
    assert [note for note in issued.clamped if "asked for 1:00:00; AWS gave 0:" in note]


async def test_what_a_role_is_asked_with(opened: Any, ask: Any, fake: Any, fake_key: Any, replies: Any) -> None:
    async def answer(asked: Any) -> Any:
        return replies.credentials(asked.parameters["Action"])

    fake.answer = answer
    fields = fake_key | {
        "role_arn": "arn:aws:iam::123456789012:role/deploy",
        "external_id": "ext-1",
        "mfa_serial": "arn:aws:iam::123456789012:mfa/ann",
        "mfa_code": "123456",
        "session_tags": {"team": "data"},
        "source_identity": "ann",
        "policy_arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"],
    }
    async with opened("iam-role", **fields) as session:
        await connector.issue_credentials(session, ask("aws-generic", None, consumer="pipeline 7/ü@host"))
    (asked,) = fake.asked
    assert asked.signer == fake_key["aws_access_key_id"]
    assert asked.parameters == {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": fields["role_arn"],
        "RoleSessionName": "prod.pipeline-7--@host",
        "DurationSeconds": "3600",
        "ExternalId": "ext-1",
        "SerialNumber": fields["mfa_serial"],
        "TokenCode": "123456",
        "SourceIdentity": "ann",
        "Tags.member.1.Key": "team",
        "Tags.member.1.Value": "data",
        "PolicyArns.member.1.arn": "arn:aws:iam::aws:policy/ReadOnlyAccess",
    }


async def test_a_web_identity_is_not_signed_and_its_file_read_anew(
    opened: Any, ask: Any, fake: Any, replies: Any, machine: Any
) -> None:
    async def answer(asked: Any) -> Any:
        return replies.credentials(asked.parameters["Action"])

    fake.answer = answer
    file = machine / "token"
    role = {"role_arn": "arn:aws:iam::123456789012:role/deploy", "region": "eu-west-1", "endpoint_url": fake.url}
    async with opened("web-identity", web_identity_token_file=str(file), **role) as session:
        with pytest.raises(m.InvalidConfig, match="web_identity_token_file"):
            await connector.issue_credentials(session, ask("s3-bucket", "s3://data"))
        for text in ("a.first.c", "a.second.c"):
            file.write_text(text + "\n")
            issued = await connector.issue_credentials(session, ask("s3-bucket", "s3://data"))
            assert issued.narrowed
    assert [(one.signer, one.parameters["WebIdentityToken"]) for one in fake.asked] == [
        (None, "a.first.c"),
        (None, "a.second.c"),
    ]
    assert {one.parameters["Action"] for one in fake.asked} == {"AssumeRoleWithWebIdentity"}
    assert "Policy" in fake.asked[0].parameters


async def test_the_policy_that_is_sent_is_the_one_that_explain_shows(
    opened: Any, settle: Any, ask: Any, fake: Any, fake_key: Any, replies: Any
) -> None:
    import json

    async def answer(asked: Any) -> Any:
        return replies.credentials(asked.parameters["Action"])

    fake.answer = answer
    request = ask("s3-bucket", "s3://data/raw/", "write")
    async with opened("federation-token", **fake_key) as session:
        await connector.issue_credentials(session, request)
    shown = connector.explain(settle("federation-token", **fake_key), request)
    assert json.loads(fake.asked[0].parameters["Policy"]) == shown.policy
    assert shown.calls == ("sts:GetFederationToken",)
    assert " " not in fake.asked[0].parameters["Policy"]
