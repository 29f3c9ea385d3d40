"""EKS clusters: what they need, finding and verifying them, and the token that lets one in.

The token is a presigned call of sts:GetCallerIdentity that names the cluster in a signed header; the cluster's
authenticator makes the call and takes the answer for the caller. It takes it for 15 minutes from the signing time.

Source: https://github.com/kubernetes-sigs/aws-iam-authenticator#api-authorization-from-outside-a-cluster
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import mooring as m
from mooring_aws import ids
from mooring_aws.errors import given
from mooring_aws.policy import Grant
from mooring_aws.quiet import quiet

if TYPE_CHECKING:
    from mooring_aws.credentials import Keys
    from mooring_aws.session import AwsSession

LIFE = timedelta(minutes=14)
"""Of a token: the authenticator's 15 minutes, less one for the clocks and the way (as the aws CLI has it)."""
SIGNING_LIFE = timedelta(minutes=30)
"""Of the keys that sign it, for a token ends with its keys; never handed out."""
PRESIGNED_SECONDS = 60
PREFIX = "k8s-aws-v1."
HEADER = "x-k8s-aws-id"
PAGE = 100
NOTE = (
    "a token of EKS lives 15 minutes, whatever was asked for, and is good for this cluster alone; "
    "what it may do there, the cluster decides"
)

TYPE = m.ResourceType(
    name=ids.EKS,
    title="EKS cluster",
    description="A Kubernetes cluster. What the identity may do inside, the cluster says (access entries, aws-auth).",
    permissions=("eks:ListClusters", "eks:DescribeCluster"),
    formats=ids.FORMATS[ids.EKS],
    ids="*/*",
)


def grants(partition: str, account: str, region: str, name: str) -> tuple[Grant, ...]:
    """The right to see the one cluster."""
    return (
        Grant(actions=("eks:DescribeCluster",), resources=(f"arn:{partition}:eks:{region}:{account}:cluster/{name}",)),
    )


async def verify(session: AwsSession, resource_id: str | None) -> None:
    """The clusters of each region can be listed; or the one can be described."""
    if resource_id is not None:
        await describe(session, resource_id)
        return
    for region in session.config.places:
        await session.call("eks", "ListClusters", region=region, maxResults=1)


async def describe(session: AwsSession, resource_id: str, keys: Keys | None = None) -> dict[str, Any]:
    """What EKS says of a cluster."""
    region, name = ids.cluster_of(resource_id)
    session.reaches(region)
    answer = await session.call("eks", "DescribeCluster", region=region, keys=keys, name=name)
    return given(answer, "cluster", "eks:DescribeCluster", dict)


async def discover(session: AwsSession, region: str, resource_id: str | None) -> AsyncGenerator[m.Resource, None]:
    """The clusters of a region; those of names that nobody can ask for are left out."""
    if resource_id is not None:
        if ids.cluster_of(resource_id)[0] == region:
            await describe(session, resource_id)
            yield _resource(region, ids.cluster_of(resource_id)[1])
        return
    async for page in session.pages("eks", "ListClusters", "nextToken", region=region, maxResults=PAGE):
        for name in page.get("clusters", ()):
            if ids.is_canonical(ids.EKS, f"{region}/{name}"):
                yield _resource(region, name)


def _resource(region: str, name: str) -> m.Resource:
    return m.Resource(type=ids.EKS, id=f"{region}/{name}", region=region, attributes={"name": name})


async def access(session: AwsSession, request: m.CredentialRequest, keys: Keys) -> m.KubernetesAccess:
    """The way into a cluster: its address, its CA, and a token that the keys sign."""
    region, name = ids.cluster_of(request.resource_id or "")
    cluster = await describe(session, request.resource_id or "", keys)
    if not cluster.get("endpoint"):
        raise m.ResourceNotFound(f"cluster {name} in {region} has no endpoint yet; try again once its status is ACTIVE")
    now = session.context.clock.now()
    ends = min(now + LIFE, keys.expires_at or now + LIFE)
    return m.KubernetesAccess(
        server=cluster["endpoint"],
        cluster=cluster.get("arn") or name,
        certificate_authority=_pem(cluster.get("certificateAuthority", {}).get("data")),
        token=m.Secret(token(keys, region, name)),
        expires_at=ends,
        narrowed=True,
        clamped=_clamped(session, request, ends - now),
    )


def token(keys: Keys, region: str, name: str) -> str:
    """A token for a cluster: always of AWS's regional STS, for a cluster asks no other."""
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import ReadOnlyCredentials

    secrets = keys.secret_access_key.reveal(), keys.session_token.reveal() if keys.session_token else None
    url = f"https://sts.{region}.{ids.domain_of(region)}/?Action=GetCallerIdentity&Version=2011-06-15"
    request = AWSRequest(method="GET", url=url, headers={HEADER: name})
    signer = SigV4QueryAuth(ReadOnlyCredentials(keys.access_key_id, *secrets), "sts", region, PRESIGNED_SECONDS)
    with quiet():
        signer.add_auth(request)
    return PREFIX + base64.urlsafe_b64encode(request.url.encode()).decode().rstrip("=")


def _pem(data: str | None) -> str | None:
    if not data:
        return None
    try:
        return base64.b64decode(data, validate=True).decode()
    except ValueError:
        pass
    raise m.Rejected(
        "eks:DescribeCluster answered a certificate authority that cannot be read; look at the cluster in the console"
    )


def _clamped(session: AwsSession, request: m.CredentialRequest, life: timedelta) -> tuple[str, ...]:
    if session.wished(request.ttl) and request.ttl > life:  # type: ignore[operator]
        return (f"asked for {request.ttl}; a token of EKS lives 15 minutes",)
    return ()
