"""Resource ids: every accepted form to the canonical one, and back to its parts. Pure; lets no IAM pattern through."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import mooring as m

GENERIC, S3, EKS, ECR = "aws-generic", "s3-bucket", "kubernetes-cluster", "docker-registry"

FORMATS: dict[str, tuple[str, ...]] = {
    GENERIC: ("ACCOUNT-ID", "arn:aws:iam::ACCOUNT-ID:root"),
    S3: ("s3://BUCKET", "s3://BUCKET/PREFIX/", "arn:aws:s3:::BUCKET[/PREFIX]", "BUCKET"),
    EKS: ("REGION/NAME", "arn:aws:eks:REGION:ACCOUNT-ID:cluster/NAME", "NAME"),
    ECR: (
        "ACCOUNT-ID.dkr.ecr.REGION.amazonaws.com",
        "ACCOUNT-ID.dkr.ecr.REGION.amazonaws.com/REPOSITORY",
        "https://ACCOUNT-ID.dkr.ecr.REGION.amazonaws.com",
        "arn:aws:ecr:REGION:ACCOUNT-ID:repository[/REPOSITORY]",
    ),
}
"""The accepted forms, the canonical ones first; `aws` may be `aws-cn` or `aws-us-gov`."""

PARTITION = r"aws|aws-cn|aws-us-gov"
REGION = r"[a-z]{2,}(?:-[a-z0-9]+)*-\d{1,2}"
ACCOUNT = r"\d{12}"
ROLE_ARN = re.compile(rf"arn:({PARTITION}):iam::({ACCOUNT}):role/[\w+=,.@/-]{{1,512}}", re.ASCII)

_ACCOUNT = re.compile(rf"(?:arn:(?:{PARTITION}):iam::)?({ACCOUNT})(?::root)?", re.ASCII)
_BUCKET_ARN = re.compile(rf"arn:(?:{PARTITION}):s3:::(.+)", re.ASCII | re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]", re.ASCII)
_CLUSTER = r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}"
_EKS_ARN = re.compile(rf"arn:({PARTITION}):eks:({REGION}):{ACCOUNT}:cluster/({_CLUSTER})", re.ASCII)
_EKS_PAIR = re.compile(rf"(?:({REGION})/)?({_CLUSTER})", re.ASCII)
_REPOSITORY = r"[a-z0-9]+(?:[._/-][a-z0-9]+)*"
_HOST = rf"({ACCOUNT})\.dkr\.ecr\.({REGION})\.amazonaws\.com(\.cn)?"
_ECR = re.compile(
    rf"(?:https://)?{_HOST}(?:/({_REPOSITORY})?)?(?::[\w][\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?", re.ASCII
)
_ECR_ARN = re.compile(rf"arn:({PARTITION}):ecr:({REGION}):({ACCOUNT}):repository(?:/({_REPOSITORY})?)?", re.ASCII)

MAX_KEY = 1024
"""Bytes of an object's key, so of a prefix."""


def partition_of(region: str) -> str:
    """The partition that a region belongs to.

    >>> partition_of("cn-north-1"), partition_of("us-gov-west-1"), partition_of("eu-west-1")
    ('aws-cn', 'aws-us-gov', 'aws')
    """
    return "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"


def domain_of(region: str) -> str:
    """The domain under which a region's services live."""
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"


def registry_host(account: str, region: str) -> str:
    """The host of an account's container registry in a region."""
    return f"{account}.dkr.ecr.{region}.{domain_of(region)}"


def canonical(resource_type: str, text: str) -> str:
    """The canonical form of any accepted one; of a bare cluster name itself, which `qualify` completes.

    >>> canonical("s3-bucket", "arn:aws:s3:::data/raw"), canonical("s3-bucket", "data")
    ('s3://data/raw/', 's3://data')
    >>> canonical("kubernetes-cluster", "arn:aws:eks:eu-west-1:123456789012:cluster/c")
    'eu-west-1/c'
    """
    known = {GENERIC: _account, S3: _s3, EKS: _eks, ECR: _ecr}
    if resource_type not in known:
        raise m.UnsupportedResource(f"aws has no resource type {resource_type!r}; known: {', '.join(known)}")
    found = known[resource_type](text.strip())
    if found is None:
        raise m.InvalidConfig(
            f"not an id of {resource_type}; write {' or '.join(FORMATS[resource_type])}", field="resource_id"
        )
    return found


def bucket_of(resource_id: str) -> tuple[str, str]:
    """The bucket and the prefix ("" for all of it) of a canonical id."""
    bucket, _, prefix = resource_id.removeprefix("s3://").partition("/")
    return bucket, prefix


def cluster_of(resource_id: str) -> tuple[str, str]:
    """The region and the name of a canonical id."""
    region, _, name = resource_id.partition("/")
    return region, name


def repository_of(resource_id: str) -> tuple[str, str, str, str | None]:
    """The host, account, region and repository (None for all) of a canonical id."""
    host, _, repository = resource_id.partition("/")
    account, _, _, region = host.split(".")[:4]
    return host, account, region, repository or None


def covers(resource_type: str, scope: str, resource_id: str) -> bool:
    """Whether one canonical id contains another: a bucket or prefix its prefixes, a registry its repositories."""
    if resource_type == S3:
        return resource_id.startswith(scope if scope.endswith("/") else scope + "/")
    return resource_type == ECR and "/" not in scope and resource_id.startswith(scope + "/")


def qualify(resource_type: str, resource_id: str, settings: Mapping[str, Any]) -> str:
    """A bare cluster name completed with the connector's region, if it has but one."""
    if resource_type != EKS or "/" in resource_id:
        return resource_id
    regions = dict.fromkeys([settings["region"]] if settings.get("region") else [])
    regions |= dict.fromkeys(settings.get("regions") or ())
    if len(regions) != 1:
        raise m.InvalidConfig(
            f"a bare cluster name does not say its region; write {FORMATS[EKS][0]} or {FORMATS[EKS][1]}",
            field="resource_id",
        )
    return f"{next(iter(regions))}/{resource_id}"


def _account(text: str) -> str | None:
    found = _ACCOUNT.fullmatch(text)
    return found[1] if found and text.startswith("arn:") == text.endswith(":root") else None


def _s3(text: str) -> str | None:
    arn = _BUCKET_ARN.fullmatch(text)
    rest = arn[1] if arn else text.removeprefix("s3://")
    bucket, slash, path = rest.partition("/")
    if slash and rest == text:  # a path needs one of the forms that show where the bucket begins
        return None
    if not _BUCKET.fullmatch(bucket) or ".." in bucket or bucket.endswith("--x-s3"):
        return None
    prefix = path if not path or path.endswith("/") else path + "/"
    if not prefix:
        return f"s3://{bucket}"
    if not prefix.isprintable() or any(sign in prefix for sign in ("*", "?", "${")) or prefix.startswith("/"):
        return None  # signs that widen a policy; a leading slash is a slip far more often than a key
    if not {".", ".."}.isdisjoint(prefix.split("/")):
        return None  # some clients and stores resolve these on the way, and so end elsewhere
    return f"s3://{bucket}/{prefix}" if len(prefix.encode()) <= MAX_KEY else None


def _eks(text: str) -> str | None:
    if arn := _EKS_ARN.fullmatch(text):
        return f"{arn[2]}/{arn[3]}" if arn[1] == partition_of(arn[2]) else None
    found = _EKS_PAIR.fullmatch(text)
    if not found:
        return None
    return f"{found[1]}/{found[2]}" if found[1] else found[2]


def _ecr(text: str) -> str | None:
    if arn := _ECR_ARN.fullmatch(text):
        partition, region, account, repository = arn.groups()
        if partition != partition_of(region):
            return None
    elif host := _ECR.fullmatch(text):
        account, region, china, repository = host.groups()
        if bool(china) != region.startswith("cn-"):
            return None
    else:
        return None
    return registry_host(account, region) + (f"/{repository}" if repository else "")
