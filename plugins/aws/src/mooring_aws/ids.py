"""Resource ids: every accepted form to the canonical one, and back to its parts. Pure; lets no IAM pattern through.

An ARN says more than an id does: a partition, an account. It is kept until `qualify` has held that against the
connector's settings, so that another account's cluster is never taken for the connector's own of that name.
"""

from __future__ import annotations

import base64
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
ACCOUNTS = "[0-9]" * 12
"""All accounts, as a pattern of ids."""
ROLE_ARN = re.compile(rf"arn:({PARTITION}):iam::({ACCOUNT}):role/[\w+=,.@/-]{{1,512}}", re.ASCII)

_SESSION = re.compile(rf"arn:(?:{PARTITION}):sts::({ACCOUNT}):(?:assumed-role|federated-user)/[\w+=,.@/-]+", re.ASCII)
_ACCOUNT = re.compile(rf"{ACCOUNT}|arn:(?:{PARTITION}):iam::{ACCOUNT}:root", re.ASCII)
_BUCKET_ARN = re.compile(rf"(arn:(?:{PARTITION}):s3:::)(.+)", re.ASCII | re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]", re.ASCII)
_CLUSTER = r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}"
_EKS_ARN = re.compile(rf"arn:({PARTITION}):eks:({REGION}):{ACCOUNT}:cluster/{_CLUSTER}", re.ASCII)
_EKS_PAIR = re.compile(rf"(?:{REGION}/)?{_CLUSTER}", re.ASCII)
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
    """The canonical form of any accepted one; bare cluster names and ARNs stay what they are for `qualify`.

    >>> canonical("s3-bucket", "s3://data/raw"), canonical("s3-bucket", "data")
    ('s3://data/raw/', 's3://data')
    >>> canonical("s3-bucket", "arn:aws:s3:::data/raw")
    'arn:aws:s3:::data/raw/'
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


def is_canonical(resource_type: str, text: str) -> bool:
    """Whether a text, such as a vendor's answer, is an id in its canonical form."""
    try:
        return canonical(resource_type, text) == text
    except m.InvalidConfig:
        return False


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
    """The id of what an ARN names, if it is the connector's; a bare cluster name with its region, if it has but one.

    >>> qualify("s3-bucket", "arn:aws:s3:::data", {"region": "eu-west-1"})
    's3://data'
    """
    regions = dict.fromkeys([settings["region"]] if settings.get("region") else [])
    regions |= dict.fromkeys(settings.get("regions") or ())
    if resource_id.startswith("arn:"):
        return _of_arn(resource_type, resource_id, next(iter(regions), None), account_of(settings.get("role_arn")))
    if resource_type != EKS or "/" in resource_id:
        return resource_id
    if len(regions) != 1:
        raise m.InvalidConfig(
            f"a bare cluster name does not say its region; write {FORMATS[EKS][0]} or {FORMATS[EKS][1]}",
            field="resource_id",
        )
    return f"{next(iter(regions))}/{resource_id}"


def account_of(role_arn: str | None) -> str | None:
    """The account of a role, where its ARN has one."""
    return role_arn.split(":")[4] or None if role_arn else None


def account_of_session(arn: str) -> str | None:
    """The account of a session of STS, by its ARN; None if it is none.

    >>> account_of_session("arn:aws:sts::123456789012:assumed-role/pipeline/ann")
    '123456789012'
    """
    found = _SESSION.fullmatch(arn)
    return found[1] if found else None


def same_account(own: str | None, wanted: str | None) -> None:
    """Raise UnsupportedResource if an account is wanted that is not the connector's own."""
    if wanted is not None and wanted != own:
        reached = f"account {own}" if own else "a store without accounts"
        raise m.UnsupportedResource(f"the connector reaches {reached}, not {wanted}; use a connector of that account")


def _of_arn(resource_type: str, arn: str, home: str | None, own: str | None) -> str:
    """The id of what an ARN names, in the connector's own partition and, where the id does not say it, account."""
    _, partition, _, region, account, rest = arn.split(":", 5)
    if home is None or (resource_type == EKS and own is None):
        lacking = "region" if home is None else "account"
        raise m.InvalidConfig(
            f"the connector's settings do not say its {lacking}, so an ARN may be of another; "
            f"write {FORMATS[resource_type][0]}, which is the connector's own",
            field="resource_id",
        )
    if partition != partition_of(home):
        raise m.UnsupportedResource(
            f"the connector reaches the partition {partition_of(home)}, not {partition}; use a connector of that one"
        )
    if resource_type == GENERIC:
        return account
    if resource_type == S3:
        return f"s3://{rest}"
    same_account(own, account)
    return f"{region}/{rest.removeprefix('cluster/')}"


def _account(text: str) -> str | None:
    return text if _ACCOUNT.fullmatch(text) else None


def _s3(text: str) -> str | None:
    arn = _BUCKET_ARN.fullmatch(text)
    start, rest = (arn[1], arn[2]) if arn else ("s3://", text.removeprefix("s3://"))
    bucket, slash, path = rest.partition("/")
    if slash and rest == text:  # a path needs one of the forms that show where the bucket begins
        return None
    if not _BUCKET.fullmatch(bucket) or ".." in bucket or bucket.endswith("--x-s3"):
        return None
    prefix = path if not path or path.endswith("/") else path + "/"
    if not prefix:
        return start + bucket
    if not prefix.isprintable() or any(sign in prefix for sign in ("*", "?", "${")) or prefix.startswith("/"):
        return None  # signs that widen a policy; a leading slash is a slip far more often than a key
    if not {".", ".."}.isdisjoint(prefix.split("/")):
        return None  # some clients and stores resolve these on the way, and so end elsewhere
    return f"{start}{bucket}/{prefix}" if len(prefix.encode()) <= MAX_KEY else None


def _eks(text: str) -> str | None:
    if arn := _EKS_ARN.fullmatch(text):
        return text if arn[1] == partition_of(arn[2]) else None
    return text if _EKS_PAIR.fullmatch(text) else None


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


def account_of_key(key_id: str) -> str | None:
    """The account that an access key id names; good for grouping, not for proof. None if it is none of AWS's.

    The 40 bits after the first of what follows the prefix, in base32. Keys from before 2019 name something else.

    >>> account_of_key("ASIAY34FZKBOKMUTVV7A")
    '609629065308'

    Source: https://medium.com/@TalBeerySec/a-short-note-on-aws-key-id-f88cc4317489
    """
    try:
        decoded = base64.b32decode(key_id[4:])
    except ValueError:
        return None
    return f"{(int.from_bytes(decoded[:6], 'big') & 0x7FFFFFFFFF80) >> 7:012}"
