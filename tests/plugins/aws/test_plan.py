"""What issuing will do, per auth method and resource type, and `explain`, which says so without a call."""

from __future__ import annotations

import json
from typing import Any

import pytest

import mooring as m
from mooring_aws import connector

KEY = {"aws_access_key_id": "AKIAEXAMPLEEXAMPLE00", "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
TEMPORARY = KEY | {"aws_access_key_id": "ASIAEXAMPLEEXAMPLE00", "aws_session_token": "token"}
ROLE = {"role_arn": "arn:aws:iam::123456789012:role/deploy"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "secret-key": ("secret-key", KEY),
    "sts-token": ("sts-token", TEMPORARY),
    "iam-role": ("iam-role", KEY | ROLE),
    "session-token": ("session-token", KEY),
    "federation-token": ("federation-token", KEY),
    "web-identity": ("web-identity", ROLE | {"web_identity_token": "eyJ"}),
    "implicit": ("implicit", {}),
    "implicit, role": ("implicit", ROLE),
}
IDS = {
    "aws-generic": None,
    "s3-bucket": "s3://data/raw/",
    "kubernetes-cluster": "eu-west-1/prod",
    "docker-registry": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app",
}
ASSUME, WEB = "sts:AssumeRole", "sts:AssumeRoleWithWebIdentity"
FEDERATE, SESSION = "sts:GetFederationToken", "sts:GetSessionToken"
FIRST_CALL: dict[str, dict[str, str | None]] = {  # None: no call for the keys; "refused": NotNarrowed
    "secret-key": {
        "aws-generic": SESSION, "s3-bucket": FEDERATE, "kubernetes-cluster": None, "docker-registry": FEDERATE,
    },
    "sts-token": {
        "aws-generic": None, "s3-bucket": "refused", "kubernetes-cluster": None, "docker-registry": "refused",
    },
    "iam-role": dict.fromkeys(IDS, ASSUME),
    "session-token": {
        "aws-generic": SESSION, "s3-bucket": "refused", "kubernetes-cluster": SESSION, "docker-registry": "refused",
    },
    "federation-token": {
        "aws-generic": FEDERATE, "s3-bucket": FEDERATE, "kubernetes-cluster": None, "docker-registry": FEDERATE,
    },
    "web-identity": dict.fromkeys(IDS, WEB),
    "implicit": {"aws-generic": None, "s3-bucket": "refused", "kubernetes-cluster": None, "docker-registry": "refused"},
    "implicit, role": dict.fromkeys(IDS, ASSUME),
}  # fmt: skip
AFTERWARDS = {"kubernetes-cluster": "eks:DescribeCluster", "docker-registry": "ecr:GetAuthorizationToken"}


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("name", METHODS)
def test_each_auth_method_for_each_resource_type(settle: Any, ask: Any, name: str, kind: str) -> None:
    method, fields = METHODS[name]
    config, want = settle(method, region="eu-west-1", **fields), FIRST_CALL[name][kind]
    if want == "refused":
        with pytest.raises(m.NotNarrowed, match=r"iam-role.*: mooring connector update NAME --allow-unnarrowed$"):
            connector.explain(config, ask(kind, IDS[kind]))
        found = connector.explain(config, ask(kind, IDS[kind], allow_unnarrowed=True))
        assert (found.narrowed, found.policy) == (False, None)
        assert found.notes
        return
    found = connector.explain(config, ask(kind, IDS[kind]))
    assert [call for call in found.calls if call.startswith("sts:") and "(" not in call] == [want] * (want is not None)
    assert AFTERWARDS.get(kind) in (*found.calls, None)
    assert found.narrowed is (kind != "aws-generic")
    if kind in ("s3-bucket", "docker-registry"):
        assert found.policy is not None


def test_a_role_is_narrowed_to_the_cluster_it_signs_for(settle: Any, ask: Any) -> None:
    config = settle("iam-role", region="eu-west-1", **KEY, **ROLE)
    found = connector.explain(config, ask("kubernetes-cluster", "eu-west-1/prod"))
    assert found.policy is not None
    assert found.policy["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["eks:DescribeCluster"],
            "Resource": ["arn:aws:eks:eu-west-1:123456789012:cluster/prod"],
        }
    ]


def test_a_users_policy_is_kept_for_the_account_and_fenced_for_a_bucket(settle: Any, ask: Any) -> None:
    config = settle("iam-role", region="eu-west-1", policy=POLICY, **KEY, **ROLE)
    assert connector.explain(config, ask("aws-generic", None)).policy == json.loads(POLICY)
    found = connector.explain(config, ask("s3-bucket", "s3://data"))
    assert found.policy is not None
    assert found.policy["Statement"][0] == json.loads(POLICY)["Statement"][0]
    assert all(one["Effect"] == "Deny" for one in found.policy["Statement"][1:])
    assert any("denials" in note for note in found.notes)


def test_a_federation_token_for_the_account_has_rights_at_all(settle: Any, ask: Any) -> None:
    config = settle("federation-token", region="eu-west-1", **KEY)
    policy = connector.explain(config, ask("aws-generic", None)).policy
    assert policy == {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@pytest.mark.parametrize("id", ["us-east-1/prod", "123456789012.dkr.ecr.us-east-1.amazonaws.com"])
def test_a_region_that_is_not_the_connectors(settle: Any, ask: Any, id: str) -> None:
    kind = "docker-registry" if "dkr" in id else "kubernetes-cluster"
    with pytest.raises(m.UnsupportedResource, match="eu-west-1"):
        connector.explain(settle("secret-key", region="eu-west-1", **KEY), ask(kind, id))
    assert connector.explain(settle("secret-key", regions=["eu-west-1", "us-east-1"], **KEY), ask(kind, id)).narrowed


def test_a_resource_must_be_named(settle: Any, ask: Any) -> None:
    with pytest.raises(m.InvalidConfig, match="s3-bucket"):
        connector.explain(settle("secret-key", region="eu-west-1", **KEY), ask("s3-bucket", None))


def test_a_policy_that_is_too_long_is_known_before_any_call(settle: Any, ask: Any) -> None:
    with pytest.raises(m.InvalidConfig, match="2048"):
        connector.explain(
            settle("secret-key", region="eu-west-1", **KEY), ask("s3-bucket", "s3://data/" + "p" * 900 + "/", "write")
        )
