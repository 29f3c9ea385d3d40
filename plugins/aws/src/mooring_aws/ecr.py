"""ECR registries and repositories: what they need, finding and verifying them, and the login."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import mooring as m
from mooring_aws import ids
from mooring_aws.endpoints import endpoint_of
from mooring_aws.errors import given
from mooring_aws.policy import Grant

if TYPE_CHECKING:
    from mooring_aws.credentials import Keys
    from mooring_aws.session import AwsSession

PAGE = 1000

LOGIN = ("ecr:GetAuthorizationToken",)
LISTING = ("ecr:DescribeRepositories", "ecr:DescribeImages", "ecr:ListImages")
PULLING = ("ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage")
PUSHING = ("ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage")
ACTIONS: dict[m.Access, tuple[str, ...]] = {
    "list": LISTING,
    "read": (*LISTING, *PULLING),
    "write": (*LISTING, *PULLING, *PUSHING),
}

TYPE = m.ResourceType(
    name=ids.ECR,
    title="ECR registry",
    description="The container registry of an account in a region, or one repository in it.",
    permissions=(*LOGIN, *ACTIONS["write"]),
    formats=ids.FORMATS[ids.ECR],
    ids=f"{ids.ACCOUNTS}.dkr.ecr.*",
)


def grants(partition: str, account: str, region: str, repository: str | None, access: m.Access) -> tuple[Grant, ...]:
    """The least rights for an access to a repository, or to all of the registry.

    Source: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerregistry.html
    """
    arn = f"arn:{partition}:ecr:{region}:{account}:repository/{repository or '*'}"
    return (Grant(actions=LOGIN, resources=("*",)), Grant(actions=ACTIONS[access], resources=(arn,)))


async def verify(session: AwsSession, resource_id: str | None) -> None:
    """The registry of each region answers; or the one registry; or the repository is there."""
    if resource_id is None:
        for region in session.config.places:
            await session.call("ecr", "DescribeRepositories", region=region, maxResults=1)
        return
    _, account, region, repository = ids.repository_of(resource_id)
    session.reaches(region)
    if repository:
        await session.call(
            "ecr", "DescribeRepositories", region=region, registryId=account, repositoryNames=[repository]
        )
    else:
        await session.call("ecr", "DescribeRepositories", region=region, registryId=account, maxResults=1)


async def discover(session: AwsSession, region: str, resource_id: str | None) -> AsyncGenerator[m.Resource, None]:
    """The registry of a region, then its repositories; those of names that nobody can ask for are left out."""
    if resource_id is not None:
        if ids.repository_of(resource_id)[2] == region:
            await verify(session, resource_id)
            yield _resource(region, resource_id)
        return
    host = None
    async for page in session.pages("ecr", "DescribeRepositories", "nextToken", region=region, maxResults=PAGE):
        repositories = page.get("repositories", ())
        if host is None:
            host = ids.registry_host(await _account(session, region, repositories), region)
            yield _resource(region, host)
        for repository in repositories:
            id = f"{host}/{given(repository, 'repositoryName', 'ecr:DescribeRepositories')}"
            if ids.is_canonical(ids.ECR, id):
                yield _resource(region, id)


async def _account(session: AwsSession, region: str, repositories: Sequence[Mapping[str, Any]]) -> str:
    """Whose registry it is, with as few calls as that takes: each repository says so, else the identity does."""
    if repositories and (account := repositories[0].get("registryId")):
        return str(account)
    if endpoint_of(session.config, "ecr") == endpoint_of(session.config, "sts"):  # of one cloud
        with suppress(m.VendorError):
            if account := (await session.identity()).account:
                return account
    return given(await session.call("ecr", "DescribeRegistry", region=region), "registryId", "ecr:DescribeRegistry")


def _resource(region: str, id: str) -> m.Resource:
    return m.Resource(
        type=ids.ECR, id=id, region=region, attributes={"kind": "repository" if "/" in id else "registry"}
    )


async def login(
    session: AwsSession, request: m.CredentialRequest, keys: Keys, *, narrowed: bool, notes: tuple[str, ...]
) -> m.RegistryLogin:
    """A user and password with the rights of the keys.

    It has an end of its own, 12 hours after it was made, which AWS documents without regard to the keys' end.

    Source: https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_AuthorizationData.html
    """
    host, _, region, repository = ids.repository_of(request.resource_id or "")
    answer = await session.call("ecr", "GetAuthorizationToken", region=region, keys=keys)
    data = given(answer, "authorizationData", LOGIN[0], list)[0]
    ends = m.instant(given(data, "expiresAt", LOGIN[0], datetime))
    username, password = _login(m.Secret(given(data, "authorizationToken", LOGIN[0])))
    now = session.context.clock.now()
    said: tuple[str, ...] = ()
    if ends <= now:
        said = ("the registry says that the login has ended already",)
    elif session.wished(request.ttl) and request.ttl < ends - now:  # type: ignore[operator]
        said = (f"asked for {request.ttl}; the registry takes the login until {ends:%Y-%m-%dT%H:%MZ}",)
    return m.RegistryLogin(
        registry=host,
        username=username,
        password=password,
        repository=repository if narrowed else None,
        expires_at=ends,
        narrowed=narrowed,
        clamped=(*notes, *said),
    )


def _login(token: m.Secret) -> tuple[str, m.Secret]:
    """The user and the password that a token holds."""
    try:
        username, _, password = base64.b64decode(token.reveal(), validate=True).decode().partition(":")
    except ValueError:
        username = password = ""
    if not username or not password:
        raise m.Rejected(f"the answer of {LOGIN[0]} holds no user and password; check that the endpoint speaks ECR")
    return username, m.Secret(password)
