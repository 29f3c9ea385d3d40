"""The account as a whole: `aws-generic`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import mooring as m
from mooring_aws import ids

if TYPE_CHECKING:
    from mooring_aws.session import AwsSession

TYPE = m.ResourceType(
    name=ids.GENERIC,
    title="AWS account",
    description="Any service of the account, with all the rights of the connector.",
    instances=False,
    permissions=("sts:GetCallerIdentity",),
    formats=ids.FORMATS[ids.GENERIC],
    ids=ids.ACCOUNTS,
    narrowable=False,
)


async def verify(session: AwsSession, resource_id: str | None) -> None:
    """The identity is of that account."""
    identity = await session.identity()
    if resource_id is not None and identity.account != resource_id:
        raise m.ResourceNotFound(
            f"the connector reaches account {identity.account}, not {resource_id}; use a connector of that account"
        )


async def discover(session: AwsSession, resource_id: str | None) -> AsyncGenerator[m.Resource, None]:
    """The one account."""
    await verify(session, resource_id)
    identity = await session.identity()
    if identity.account is not None:  # a store without STS has none
        yield m.Resource(type=ids.GENERIC, id=identity.account, attributes={"identity": identity.subject})
