"""Buckets, and prefixes in them: what they need, finding and verifying them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import mooring as m
from mooring_aws import ids
from mooring_aws.errors import given
from mooring_aws.policy import Grant

if TYPE_CHECKING:
    from mooring_aws.session import AwsSession

PAGE = 1000

TYPE = m.ResourceType(
    name=ids.S3,
    title="S3 bucket",
    description=(
        "A bucket, or the objects under a prefix in it, in S3 or a store that speaks its API. An id with a path is a "
        "prefix: a single object cannot be named."
    ),
    permissions=(
        "s3:ListAllMyBuckets",
        "s3:ListBucket",
        "s3:ListBucketVersions",
        "s3:GetBucketLocation",
        "s3:GetBucketVersioning",
        "s3:GetObject",
        "s3:GetObjectVersion",
        "s3:GetObjectTagging",
        "s3:PutObject",
        "s3:PutObjectTagging",
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
        "s3:ListBucketMultipartUploads",
        "kms:Decrypt, kms:GenerateDataKey (buckets encrypted with KMS)",
    ),
    formats=ids.FORMATS[ids.S3],
    ids="s3://*",
)

ABOUT_BUCKET: dict[m.Access, tuple[str, ...]] = {
    "list": ("s3:GetBucketLocation",),
    "read": ("s3:GetBucketLocation", "s3:GetBucketVersioning"),
    "write": ("s3:GetBucketLocation", "s3:GetBucketVersioning"),
}
LISTING: dict[m.Access, tuple[str, ...]] = {
    "list": ("s3:ListBucket",),
    "read": ("s3:ListBucket", "s3:ListBucketVersions"),
    "write": ("s3:ListBucket", "s3:ListBucketVersions"),
}
READING = ("s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTagging")
WRITING = (
    "s3:PutObject",
    "s3:PutObjectTagging",
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)


def grants(partition: str, resource_id: str, access: m.Access) -> tuple[Grant, ...]:
    """The least rights for an access to a bucket or prefix; for encrypted buckets, only keys that S3 uses for that one.

    Source: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
    """
    name, prefix = ids.bucket_of(resource_id)
    bucket = f"arn:{partition}:s3:::{name}"
    objects = f"{bucket}/{prefix}*"
    about, listing = ABOUT_BUCKET[access], LISTING[access]
    if prefix:
        given = [
            Grant(actions=about, resources=(bucket,)),
            Grant(actions=listing, resources=(bucket,), key="s3:prefix", like=(f"{prefix}*",)),
        ]
    else:
        more = ("s3:ListBucketMultipartUploads",) if access == "write" else ()
        given = [Grant(actions=(*about, *listing, *more), resources=(bucket,))]
    if access != "list":
        keys = ("kms:Decrypt",) if access == "read" else ("kms:Decrypt", "kms:GenerateDataKey")
        given.append(Grant(actions=READING if access == "read" else (*READING, *WRITING), resources=(objects,)))
        given.append(
            Grant(actions=keys, resources=("*",), key="kms:EncryptionContext:aws:s3:arn", like=(bucket, objects))
        )
    return tuple(given)


async def verify(session: AwsSession, resource_id: str | None) -> None:
    """One call: the buckets, the bucket, or what is under the prefix."""
    if resource_id is None:
        await session.call("s3", "ListBuckets", MaxBuckets=1)
        return
    bucket, prefix = ids.bucket_of(resource_id)
    if prefix:
        await session.call("s3", "ListObjectsV2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
    else:
        await session.call("s3", "HeadBucket", Bucket=bucket)


async def discover(session: AwsSession, resource_id: str | None) -> AsyncGenerator[m.Resource, None]:
    """The buckets; or just the one, which may be visible though the list of all is not.

    A store may list names that S3 does not give, which nobody can ask for: they are left out.
    """
    if resource_id is not None:
        await verify(session, resource_id)
        yield m.Resource(type=ids.S3, id=resource_id)
        return
    async for page in session.pages("s3", "ListBuckets", "ContinuationToken", MaxBuckets=PAGE):
        if "Buckets" not in page:  # an empty listing has one that is empty; what has none is no listing
            raise m.Rejected("the answer lacks Buckets (s3:ListBuckets); check that the endpoint speaks this API")
        for bucket in page["Buckets"]:
            attributes = {"created": bucket["CreationDate"].isoformat()} if bucket.get("CreationDate") else {}
            id = f"s3://{given(bucket, 'Name', 's3:ListBuckets')}"
            if ids.is_canonical(ids.S3, id):
                yield m.Resource(type=ids.S3, id=id, region=bucket.get("BucketRegion"), attributes=attributes)
