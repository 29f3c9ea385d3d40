"""Every accepted form of an id, and none that would widen a policy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mooring as m
from mooring_aws import connector, ids

GOOD = {
    ids.GENERIC: {
        "123456789012": "123456789012",
        "arn:aws-cn:iam::123456789012:root": "arn:aws-cn:iam::123456789012:root",
    },
    ids.S3: {
        "data": "s3://data",
        " s3://data/ ": "s3://data",
        "s3://data": "s3://data",
        "s3://my.data-1/raw": "s3://my.data-1/raw/",
        "s3://data/raw/2026/": "s3://data/raw/2026/",
        "arn:aws:s3:::data": "arn:aws:s3:::data",
        "arn:aws-us-gov:s3:::data/raw/x y": "arn:aws-us-gov:s3:::data/raw/x y/",
        "Old_Name": "s3://Old_Name",
    },
    ids.EKS: {
        "prod": "prod",
        "eu-west-1/prod": "eu-west-1/prod",
        "us-gov-west-1/p_1": "us-gov-west-1/p_1",
        "arn:aws-cn:eks:cn-north-1:123456789012:cluster/prod": "arn:aws-cn:eks:cn-north-1:123456789012:cluster/prod",
    },
    ids.ECR: {
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com": "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
        "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/": "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/a:v1": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/a",
        "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a@sha256:" + "0" * 64: (
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a"
        ),
        "arn:aws:ecr:eu-west-1:123456789012:repository": "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
        "arn:aws-cn:ecr:cn-north-1:123456789012:repository/team/app": (
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/team/app"
        ),
    },
}

BAD = {
    ids.GENERIC: ["", "12345", "arn:aws:iam::123456789012:user/a", "123456789012:root", "arn:aws:iam::123456789012"],
    ids.S3: [
        "", "s3://", "ab", "a..b", "s3://data/*", "s3://data/a?", "s3://data/${aws:username}", "s3://data//x", "*",
        "s3://*/a", "data/raw", "s3://data/\x00", "s3://data/a\nb", "s3://data/" + "a" * 1024, "https://data",
        "arn:aws:s3:eu-west-1:123456789012:accesspoint/a", "arn:other:s3:::data", "fast--use1-az4--x-s3", "s3://d a/t",
        "s3://data/\ud800",
    ],
    ids.EKS: ["", "-prod", "a/b/c", "*", "nowhere/prod", "arn:aws:eks:eu-west-1:123456789012:node/prod", "a" * 101],
    ids.ECR: [
        "", "docker.io/library/busybox", "123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn", "http://x", "team/app",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com/*", "arn:aws:ecr:cn-north-1:123456789012:repository/a",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.org/a",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "want"), [(k, t, w) for k, forms in GOOD.items() for t, w in forms.items()])
def test_accepted_forms(kind: str, text: str, want: str) -> None:
    assert connector.canonical(kind, text) == want


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in BAD.items() for text in texts])
def test_refused_forms(kind: str, text: str) -> None:
    with pytest.raises(m.InvalidConfig, match=ids.FORMATS[kind][0].split("[")[0].split("(")[0]) as caught:
        connector.canonical(kind, text)
    assert caught.value.field == "resource_id"


PIECES = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(
            ["s3://", "arn:aws:s3:::", "arn:aws:eks:", "eu-west-1", "/", ":", "123456789012", ".dkr.ecr.", "a", "B",
             "arn:aws:ecr:", "repository", "cluster/",
             ".amazonaws.com", ".cn", "https://", "*", "?", "${", "\n", "..", " "]
        )
    ).map("".join),
)  # fmt: skip


@given(st.sampled_from(sorted(GOOD)), PIECES)
@example(ids.S3, "s3://aaa/ ")
@example(ids.S3, "s3://aaa/b /c")
def test_any_text_is_canonical_or_refused(kind: str, text: str) -> None:
    try:
        found = connector.canonical(kind, text)
    except m.InvalidConfig:
        return
    assert connector.canonical(kind, found) == found
    assert not set("*?\n") & set(found)
    assert "${" not in found


def test_what_covers_what() -> None:
    registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
    assert connector.covers(ids.S3, "s3://data", "s3://data/raw/")
    assert connector.covers(ids.S3, "s3://data/raw/", "s3://data/raw/2026/")
    assert connector.covers(ids.ECR, registry, f"{registry}/team/app")
    for kind, scope, other in (
        (ids.S3, "s3://data", "s3://data-two"),
        (ids.S3, "s3://data", "s3://database/raw/"),
        (ids.S3, "s3://data/raw/", "s3://data/rawer/"),
        (ids.S3, "s3://data/raw/", "s3://data"),
        (ids.ECR, f"{registry}/team", f"{registry}/team/app"),
        (ids.EKS, "eu-west-1/a", "eu-west-1/a/b"),
        (ids.GENERIC, "123456789012", "123456789012/x"),
    ):
        assert not connector.covers(kind, scope, other)


def test_a_bare_cluster_gets_the_only_region() -> None:
    assert connector.qualify(ids.EKS, "prod", {"region": "eu-west-1"}) == "eu-west-1/prod"
    assert connector.qualify(ids.EKS, "prod", {"region": None, "regions": ["eu-west-1"]}) == "eu-west-1/prod"
    assert connector.qualify(ids.EKS, "us-east-1/prod", {"region": "eu-west-1"}) == "us-east-1/prod"
    assert connector.qualify(ids.S3, "s3://data", {}) == "s3://data"
    with pytest.raises(m.InvalidConfig, match="REGION/NAME"):
        connector.qualify(ids.EKS, "prod", {"region": "eu-west-1", "regions": ["us-east-1"]})


HERE = {"region": "eu-west-1", "role_arn": "arn:aws:iam::123456789012:role/deploy"}
"""Settings that say both the partition and the account."""

ARNS = {
    (ids.GENERIC, "arn:aws:iam::123456789012:root"): "123456789012",
    (ids.S3, "arn:aws:s3:::data"): "s3://data",
    (ids.S3, "arn:aws:s3:::data/a:b/c"): "s3://data/a:b/c/",
    (ids.EKS, "arn:aws:eks:eu-west-1:123456789012:cluster/prod"): "eu-west-1/prod",
    (ids.EKS, "arn:aws:eks:us-east-1:123456789012:cluster/prod"): "us-east-1/prod",
}


@pytest.mark.parametrize(("kind", "arn"), ARNS)
def test_an_arn_of_the_connectors_own_is_its_id(kind: str, arn: str) -> None:
    assert connector.qualify(kind, connector.canonical(kind, arn), HERE) == ARNS[kind, arn]


@pytest.mark.parametrize(
    ("kind", "arn", "said"),
    [
        (ids.GENERIC, "arn:aws-cn:iam::123456789012:root", "partition aws, not aws-cn"),
        (ids.S3, "arn:aws-us-gov:s3:::data", "partition aws, not aws-us-gov"),
        (ids.S3, "arn:aws-cn:s3:::data/raw", "partition aws, not aws-cn"),
        (ids.EKS, "arn:aws-cn:eks:cn-north-1:123456789012:cluster/prod", "partition aws, not aws-cn"),
        (ids.EKS, "arn:aws:eks:eu-west-1:210987654321:cluster/prod", "account 123456789012, not 210987654321"),
    ],
)
def test_an_arn_of_another_partition_or_account_is_refused(kind: str, arn: str, said: str) -> None:
    with pytest.raises(m.UnsupportedResource, match=said):
        connector.qualify(kind, connector.canonical(kind, arn), HERE)


@pytest.mark.parametrize("settings", [{"region": "eu-west-1"}, HERE | {"role_arn": None}, HERE | {"region": None}])
def test_an_arn_that_the_settings_cannot_be_held_against_is_refused(settings: dict[str, Any]) -> None:
    arn = connector.canonical(ids.EKS, "arn:aws:eks:eu-west-1:210987654321:cluster/prod")
    with pytest.raises(m.InvalidConfig, match="write REGION/NAME, which is the connector's own") as caught:
        connector.qualify(ids.EKS, arn, settings)
    assert caught.value.field == "resource_id"


def test_an_unknown_resource_type() -> None:
    with pytest.raises(m.UnsupportedResource, match="s3-bucket"):
        connector.canonical("gcs-bucket", "x")
