"""Session policies: the least rights, and the intersection with a user's own, judged by an evaluator of our own."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mooring as m
from mooring_aws import ecr, eks, s3
from mooring_aws.policy import MAX_CHARACTERS, compact, session_policy


def many(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def matches(patterns: Any, text: str) -> bool:
    return any(fnmatchcase(text, pattern.replace("[", "[[]")) for pattern in many(patterns))


def applies(statement: dict[str, Any], action: str, resource: str, keys: dict[str, str]) -> bool:
    if "Action" in statement and not matches(statement["Action"], action):
        return False
    if "NotAction" in statement and matches(statement["NotAction"], action):
        return False
    if "Resource" in statement and not matches(statement["Resource"], resource):
        return False
    if "NotResource" in statement and matches(statement["NotResource"], resource):
        return False
    for operator, tests in statement.get("Condition", {}).items():
        for key, patterns in tests.items():
            like = key in keys and matches(patterns, keys[key])
            if like != (operator == "StringLike"):
                return False
    return True


def allows(policy: dict[str, Any], action: str, resource: str, keys: dict[str, str], *, arns: bool = False) -> bool:
    """As IAM evaluates: a denial wins, otherwise an allowance is needed; `arns` stands for managed ones that allow all.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
    """
    effects = {one["Effect"] for one in policy["Statement"] if applies(one, action, resource, keys)}
    return "Deny" not in effects and ("Allow" in effects or arns)


SCOPES = ["s3://data", "s3://data/raw/", "s3://other/raw/"]
ACTIONS = sorted(
    {*s3.READING, *s3.WRITING, *s3.LISTING["read"], *s3.ABOUT_BUCKET["read"], "s3:DeleteBucket", "kms:Decrypt"}
)
RESOURCES = ["arn:aws:s3:::data", "arn:aws:s3:::data/raw/x", "arn:aws:s3:::data/rawer", "arn:aws:s3:::other/raw/x", "k"]
KEYS = [
    {},
    {"s3:prefix": "raw/"},
    {"s3:prefix": ""},
    {"s3:prefix": "rawer"},
    {"kms:EncryptionContext:aws:s3:arn": "arn:aws:s3:::data"},
]
DATA_KEY = {"kms:EncryptionContext:aws:s3:arn": "arn:aws:s3:::data/x"}
ACCESSES: tuple[m.Access, ...] = ("list", "read", "write")

statement = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Allow", "Deny"]),
        "Action": st.one_of(st.just("s3:*"), st.just("*"), st.lists(st.sampled_from(ACTIONS), min_size=1)),
        "Resource": st.one_of(st.just("*"), st.lists(st.sampled_from([*RESOURCES, "arn:aws:s3:::data/*"]), min_size=1)),
    }
)


@settings(max_examples=300)
@given(
    st.sampled_from(SCOPES),
    st.sampled_from(ACCESSES),
    st.lists(statement, min_size=1, max_size=3),
    st.sampled_from(ACTIONS),
    st.sampled_from(RESOURCES),
    st.sampled_from(KEYS),
    st.booleans(),
)
def test_with_a_users_policy_the_session_gets_the_intersection(
    scope: str,
    access: m.Access,
    own: list[dict[str, Any]],
    action: str,
    resource: str,
    keys: dict[str, str],
    arns: bool,
) -> None:
    grants = s3.grants("aws", scope, access)
    mine = {"Version": "2012-10-17", "Statement": own}
    narrow = session_policy(grants, None, ())
    both = session_policy(grants, json.dumps(mine), ["arn:aws:iam::aws:policy/X"] if arns else ())
    assert narrow is not None
    assert both is not None
    want = allows(narrow, action, resource, keys) and allows(mine, action, resource, keys, arns=arns)
    assert allows(both, action, resource, keys, arns=arns) == want


def test_managed_policies_alone_are_fenced_without_an_allowance() -> None:
    policy = session_policy(s3.grants("aws", "s3://data", "read"), None, ["arn:aws:iam::aws:policy/X"])
    assert policy is not None
    assert {one["Effect"] for one in policy["Statement"]} == {"Deny"}
    assert allows(policy, "s3:GetObject", "arn:aws:s3:::data/x", {}, arns=True)
    assert not allows(policy, "s3:GetObject", "arn:aws:s3:::other/x", {}, arns=True)
    assert not allows(policy, "s3:PutObject", "arn:aws:s3:::data/x", {}, arns=True)


def test_without_narrowing_a_users_policy_stands_as_it_is() -> None:
    assert session_policy(None, None, ()) is None
    assert session_policy(None, '{"Statement": []}', ()) == {"Statement": []}


@pytest.mark.parametrize(
    ("scope", "access", "action", "resource", "keys", "want"),
    [
        ("s3://data", "list", "s3:ListBucket", "arn:aws:s3:::data", {}, True),
        ("s3://data", "list", "s3:GetObject", "arn:aws:s3:::data/x", {}, False),
        ("s3://data", "read", "s3:GetObject", "arn:aws:s3:::data/x", {}, True),
        ("s3://data", "read", "s3:PutObject", "arn:aws:s3:::data/x", {}, False),
        ("s3://data", "write", "s3:PutObject", "arn:aws:s3:::data/x", {}, True),
        ("s3://data", "write", "s3:GetObject", "arn:aws:s3:::data/x", {}, True),
        ("s3://data", "write", "s3:DeleteBucket", "arn:aws:s3:::data", {}, False),
        ("s3://data", "write", "s3:PutObject", "arn:aws:s3:::database/x", {}, False),
        ("s3://data/raw/", "read", "s3:GetObject", "arn:aws:s3:::data/raw/x", {}, True),
        ("s3://data/raw/", "read", "s3:GetObject", "arn:aws:s3:::data/rawer", {}, False),
        ("s3://data/raw/", "read", "s3:ListBucket", "arn:aws:s3:::data", {"s3:prefix": "raw/x"}, True),
        ("s3://data/raw/", "read", "s3:ListBucket", "arn:aws:s3:::data", {"s3:prefix": "rawer"}, False),
        ("s3://data/raw/", "read", "s3:ListBucket", "arn:aws:s3:::data", {}, False),
        ("s3://data", "read", "kms:Decrypt", "k", DATA_KEY, True),
        ("s3://data", "read", "kms:Decrypt", "k", {"kms:EncryptionContext:aws:s3:arn": "arn:aws:s3:::other/x"}, False),
        ("s3://data", "read", "kms:Decrypt", "k", {}, False),
        ("s3://data", "read", "kms:GenerateDataKey", "k", DATA_KEY, False),
    ],
)  # fmt: skip
def test_the_least_rights_for_s3(
    scope: str, access: m.Access, action: str, resource: str, keys: dict[str, str], want: bool
) -> None:
    policy = session_policy(s3.grants("aws", scope, access), None, ())
    assert policy is not None
    assert allows(policy, action, resource, keys) is want


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_partitions(partition: str) -> None:
    text = json.dumps(
        [
            [grant.resources for grant in s3.grants(partition, "s3://data", "write")],
            [grant.resources for grant in eks.grants(partition, "123456789012", "r", "c")],
            [grant.resources for grant in ecr.grants(partition, "123456789012", "r", None, "read")],
        ]
    )
    assert text.count(f"arn:{partition}:") == text.count("arn:") > 3


def test_pulling_and_pushing() -> None:
    repository = "arn:aws:ecr:eu-west-1:123456789012:repository/team/app"
    for access, want in (("read", (True, False)), ("write", (True, True)), ("list", (False, False))):
        policy = session_policy(ecr.grants("aws", "123456789012", "eu-west-1", "team/app", access), None, ())  # type: ignore[arg-type]
        assert policy is not None
        assert (
            allows(policy, "ecr:BatchGetImage", repository, {}),
            allows(policy, "ecr:PutImage", repository, {}),
        ) == want
        assert allows(policy, "ecr:GetAuthorizationToken", "*", {})
        assert not allows(policy, "ecr:BatchGetImage", repository + "-two", {})


def test_every_policy_fits_and_a_longer_one_says_so() -> None:
    name, prefix = "b" * 63, "p" * 200 + "/"
    for access in ACCESSES:
        policy = session_policy(s3.grants("aws-us-gov", f"s3://{name}/{prefix}", access), None, ())
        assert policy is not None
        assert len(compact(policy)) < MAX_CHARACTERS
    policy = session_policy(s3.grants("aws", f"s3://{name}/{'p' * 1000}/", "write"), None, ())
    assert policy is not None
    with pytest.raises(m.InvalidConfig, match="2048"):
        compact(policy)
