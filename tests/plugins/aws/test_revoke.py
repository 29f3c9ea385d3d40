"""Taking back for a role as a whole, against moto's IAM and the strict fake; the policy is judged by its own rules.

The sandbox's S3 knows no policy that is put on a role while it runs, so what IAM would do with it is computed here.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import anyio.to_thread
import boto3
import pytest

import mooring as m
from mooring.broker._handouts import _traced
from mooring.testing import memory_broker
from mooring_aws import connector, revoke
from mooring_aws.credentials import AwsCredentials

pytestmark = pytest.mark.anyio
ROLE = "arn:aws:iam::123456789012:role/teams/data"
BEFORE = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


def denies(document: Any, issued: datetime | None) -> bool:
    """As IAM evaluates: `DateLessThan` holds where the key is there and earlier; a long-lived key has none.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
    """
    (statement,) = document["Statement"]
    assert (document["Version"], statement["Effect"]) == ("2012-10-17", "Deny")
    assert (statement["Action"], statement["Resource"]) == (["*"], ["*"])
    assert list(statement) == ["Effect", "Action", "Resource", "Condition"]
    date = datetime.fromisoformat(statement["Condition"]["DateLessThan"]["aws:TokenIssueTime"])
    return issued is not None and issued.replace(microsecond=0) < date


@pytest.fixture
def iam(sandbox: Any) -> Any:
    """moto's IAM, with a role of the test's own."""
    user = sandbox.developer
    iam = boto3.client(
        "iam",
        region_name=sandbox.region,
        endpoint_url=sandbox.aws_url,
        aws_access_key_id=user.key_id,
        aws_secret_access_key=user.secret,
    )
    yield iam
    for name in iam.list_role_policies(RoleName=sandbox.role.name)["PolicyNames"]:
        iam.delete_role_policy(RoleName=sandbox.role.name, PolicyName=name)
    iam.close()


async def policy_of(iam: Any, role: str) -> Any:
    def get() -> Any:
        return iam.get_role_policy(RoleName=role, PolicyName="AWSRevokeOlderSessions")["PolicyDocument"]

    return await anyio.to_thread.run_sync(get)


async def test_a_role_refuses_what_was_issued_before_and_takes_what_is_issued_now(
    place: Any, keys: Any, sandbox: Any, iam: Any
) -> None:
    async with memory_broker(connector) as broker:
        config = {**place, **keys, "role_arn": sandbox.role.arn}
        await broker.register("prod", type="aws", auth_method="iam-role", config=config)
        issued = await broker.issue("prod", resource_type="s3-bucket", resource_id="s3://team-models")
        lease = await broker.lease(issued.lease)
        assert lease.revocation == "role-wide"
        (gone,) = await broker.revoke(issued.lease, role_wide=True)
        assert gone.state == "revoked"
        again = await broker.issue("prod", resource_type="s3-bucket", resource_id="s3://team-models")
        assert again.lease != issued.lease
    document = await policy_of(iam, sandbox.role.name)
    assert denies(document, issued.issued_at)
    assert not denies(document, again.issued_at)
    assert not denies(document, None)


async def test_without_the_flag_nothing_is_asked_of_iam(place: Any, keys: Any, sandbox: Any, iam: Any) -> None:
    async with memory_broker(connector) as broker:
        config = {**place, **keys, "role_arn": sandbox.role.arn}
        await broker.register("prod", type="aws", auth_method="iam-role", config=config)
        issued = await broker.issue("prod", resource_type="s3-bucket", resource_id="s3://team-models")
        (left,) = await broker.revoke(issued.lease)
        assert left.state == "released"
    assert iam.list_role_policies(RoleName=sandbox.role.name)["PolicyNames"] == []


@pytest.mark.parametrize("method", ["secret-key", "session-token", "federation-token"])
async def test_what_nothing_takes_back_is_on_record_as_such(place: Any, keys: Any, method: str) -> None:
    config = {**place, **keys, "endpoint_urls": {}}  # STS is moto's too: the S3 engine's has no GetSessionToken
    async with memory_broker(connector) as broker:
        await broker.register("prod", type="aws", auth_method=method, config=config)
        issued = await broker.issue("prod", resource_type="aws-generic")
        assert (await broker.lease(issued.lease)).revocation == "none"
        (left,) = await broker.revoke(issued.lease, role_wide=True)
        assert (left.state, left.expires_at) == ("released", issued.expires_at)


class Iam:
    """STS and IAM at the strict fake, as one account has them; each call with who signed it."""

    def __init__(self, fake: Any, replies: Any) -> None:
        self.fake = fake
        self.replies = replies
        self.policy: Any = None
        self.denied = ""
        self.account = "123456789012"
        self.date = ""
        self.calls: list[tuple[str, str | None]] = []
        fake.answer = self.answer
        fake.secrets["ASIAEXAMPLEEXAMPLE00"] = "made"

    async def answer(self, asked: Any) -> Any:
        action = asked.parameters["Action"]
        self.calls.append((action, asked.signer))
        if action == self.denied:
            return self.replies.refusal(
                "AccessDenied",
                f"User: arn:aws:iam::123456789012:user/ann is not authorized to perform: iam:{action}"
                f" on resource: role data",
                403,
            )
        reply = getattr(self, action)(asked)
        if self.date:
            reply.headers["Date"] = self.date
        return reply

    def GetCallerIdentity(self, asked: Any) -> Any:  # noqa: N802
        reply = self.replies.identity("arn:aws:iam::123456789012:user/ann")
        if asked.signer.startswith("AKIA"):
            reply.text = reply.text.replace("<Account>123456789012", f"<Account>{self.account}")
        return reply

    def AssumeRole(self, asked: Any) -> Any:  # noqa: N802
        return self.replies.credentials("AssumeRole")

    def AssumeRoleWithWebIdentity(self, asked: Any) -> Any:  # noqa: N802
        return self.replies.credentials("AssumeRoleWithWebIdentity")

    def GetRolePolicy(self, asked: Any) -> Any:  # noqa: N802
        assert (asked.parameters["RoleName"], asked.parameters["PolicyName"]) == ("data", "AWSRevokeOlderSessions")
        if self.policy is None:
            return self.replies.refusal("NoSuchEntity", "no such policy", 404)
        text = quote(self.policy if isinstance(self.policy, str) else json.dumps(self.policy))
        return self.replies.xml(
            "<GetRolePolicyResponse><GetRolePolicyResult><RoleName>data</RoleName><PolicyName>x</PolicyName>"
            f"<PolicyDocument>{text}</PolicyDocument></GetRolePolicyResult></GetRolePolicyResponse>"
        )

    def PutRolePolicy(self, asked: Any) -> Any:  # noqa: N802
        assert (asked.parameters["RoleName"], asked.parameters["PolicyName"]) == ("data", "AWSRevokeOlderSessions")
        self.policy = json.loads(asked.parameters["PolicyDocument"])
        return self.replies.xml("<PutRolePolicyResponse></PutRolePolicyResponse>")


@pytest.fixture
def account(fake: Any, replies: Any) -> Iam:
    return Iam(fake, replies)


async def test_the_connector_s_key_does_it_in_its_own_account(account: Iam, opened: Any, fake_key: Any) -> None:
    async with opened("iam-role", role_arn=ROLE, **fake_key) as session:
        said = await connector.revoke_all(session, m.RevokeRequest(before=session.context.clock.now()))
    assert "role data refuses all sessions from before" in said
    assert account.calls == [
        (call, fake_key["aws_access_key_id"]) for call in ("GetCallerIdentity", "GetRolePolicy", "PutRolePolicy")
    ]


async def test_a_key_of_another_account_would_deny_a_stranger_so_the_role_does_it(
    account: Iam, opened: Any, fake_key: Any
) -> None:
    account.account = "999999999999"
    async with opened("iam-role", role_arn=ROLE, **fake_key) as session:
        await connector.revoke_all(session, m.RevokeRequest(before=session.context.clock.now()))
    assert {signer for call, signer in account.calls if "RolePolicy" in call} == {"ASIAEXAMPLEEXAMPLE00"}


async def test_with_a_web_identity_the_role_does_it(account: Iam, opened: Any, fake: Any) -> None:
    place = {"region": "eu-west-1", "endpoint_url": fake.url, "web_identity_token": "eyJhbGci.eyJzdWIi.c2lnbmVk"}
    async with opened("web-identity", role_arn=ROLE, **place) as session:
        await connector.revoke_all(session, m.RevokeRequest(before=session.context.clock.now()))
    assert [(call, signer) for call, signer in account.calls if "RolePolicy" in call] == [
        ("GetRolePolicy", "ASIAEXAMPLEEXAMPLE00"),
        ("PutRolePolicy", "ASIAEXAMPLEEXAMPLE00"),
    ]


@pytest.mark.parametrize("skew", [timedelta(0), timedelta(minutes=10), timedelta(minutes=-10)])
async def test_the_instant_is_by_the_clock_of_aws(account: Iam, opened: Any, fake_key: Any, skew: timedelta) -> None:
    async with opened("iam-role", role_arn=ROLE, **fake_key) as session:
        before = session.context.clock.now()
        account.date = (before + skew).strftime("%a, %d %b %Y %H:%M:%S GMT")
        await connector.revoke_all(session, m.RevokeRequest(before=before))
    assert denies(account.policy, before + skew)
    assert not denies(account.policy, before + skew + timedelta(seconds=2))


@pytest.mark.parametrize(
    "date",
    ["", "soon", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 99 Foo 2026 99:99:99 GMT"],
)
async def test_a_date_that_cannot_be_is_not_believed(account: Iam, opened: Any, fake_key: Any, date: str) -> None:
    account.date = date or " "
    async with opened("iam-role", role_arn=ROLE, **fake_key) as session:
        before = session.context.clock.now()
        await connector.revoke_all(session, m.RevokeRequest(before=before))
    assert denies(account.policy, before)
    assert not denies(account.policy, before + timedelta(seconds=3))


def dated(date: Any, **more: Any) -> Any:
    condition = {"DateLessThan": {"aws:TokenIssueTime": date}} | more.pop("condition", {})
    statement = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition} | more
    return {"Version": "2012-10-17", "Statement": statement}


async def test_a_later_instant_is_kept_and_an_earlier_one_replaced(account: Iam, opened: Any, fake_key: Any) -> None:
    for date, kept in (("2999-01-01T00:00:00.500Z", True), (["2020-01-01T00:00:00Z"], False)):
        account.policy, account.calls = before = dated(date), []
        async with opened("iam-role", role_arn=ROLE, **fake_key) as session:
            said = await connector.revoke_all(session, m.RevokeRequest(before=session.context.clock.now()))
        assert ("already" in said) == kept
        assert (account.policy == before[0]) == kept
        assert (("PutRolePolicy", fake_key["aws_access_key_id"]) in account.calls) != kept


@pytest.mark.parametrize(
    "policy",
    [
        "no json",
        {},
        {"Statement": []},
        dated("whenever"),
        dated("2020-01-01T00:00:00Z", Effect="Allow"),
        dated("2020-01-01T00:00:00Z", condition={"StringLike": {"aws:userid": "x"}}),
    ],
)
async def test_a_policy_of_that_name_that_says_something_else_is_left_alone(
    account: Iam, opened: Any, fake_key: Any, policy: Any
) -> None:
    account.policy = policy
    async with opened("iam-role", role_arn=ROLE, **fake_key) as session:
        with pytest.raises(m.Rejected, match="AWSRevokeOlderSessions"):
            await connector.revoke_all(session, m.RevokeRequest(before=BEFORE))
    assert account.policy == policy


@pytest.mark.parametrize("action", ["GetRolePolicy", "PutRolePolicy"])
async def test_a_denial_names_the_action(account: Iam, opened: Any, fake_key: Any, action: str) -> None:
    account.denied = action
    async with opened("iam-role", role_arn=ROLE, **fake_key) as session:
        with pytest.raises(m.AccessDenied, match=f"iam:{action}"):
            await connector.revoke_all(session, m.RevokeRequest(before=BEFORE))
    assert account.policy is None


@pytest.mark.parametrize(
    ("method", "more", "says"),
    [
        ("secret-key", {}, "36 h after it was issued at most; .* IAM user"),
        ("session-token", {}, "36 h after"),
        ("federation-token", {}, "36 h after"),
        ("sts-token", {"aws_access_key_id": "ASIAEXAMPLEEXAMPLE00", "aws_session_token": "t" * 20}, "until its end;"),
    ],
)
async def test_what_is_no_session_of_a_role_is_refused(
    account: Iam, opened: Any, fake_key: Any, method: str, more: Any, says: str
) -> None:
    async with opened(method, **fake_key | more) as session:
        with pytest.raises(m.NotPermitted, match=f"what {method} issues cannot be taken back: .*{says}"):
            await connector.revoke_all(session, m.RevokeRequest(before=BEFORE))
    async with opened("implicit", region="eu-west-1") as session:
        with pytest.raises(m.NotPermitted, match="implicit"):
            await connector.revoke_all(session, m.RevokeRequest(before=BEFORE))
    assert account.calls == []


def test_the_methods_say_what_can_be_taken_back() -> None:
    wide = {method.name: method.role_wide for method in connector.describe().auth_methods}
    sessions = ("aws-generic", "s3-bucket")
    assert {name: types for name, types in wide.items() if types} == {"iam-role": sessions, "web-identity": sessions}
    assert None not in wide.values()


def test_the_document() -> None:
    assert revoke.denial(BEFORE.replace(microsecond=0)) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Action": ["*"],
                "Resource": ["*"],
                "Condition": {"DateLessThan": {"aws:TokenIssueTime": "2026-01-02T03:04:05Z"}},
            }
        ],
    }


def test_the_key_id_leads_back_to_the_hand_out() -> None:
    """CloudTrail and scanners for leaks know no more than that."""
    secret = m.Secret("s")
    made = AwsCredentials(access_key_id="ASIAX", secret_access_key=secret, expires_at=None, narrowed=True)
    found = {name: value.reveal() for name, value in _traced(made).items()}
    assert found == {"access_key_id": "ASIAX", "secret_access_key": "s"}
