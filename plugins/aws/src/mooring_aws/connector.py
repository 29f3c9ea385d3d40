"""The hooks, and nothing else: each is one call of the module that does it, imported when it is first needed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import mooring as m
from mooring_aws import account, ecr, eks, ids, s3
from mooring_aws.credentials import AwsCredentials
from mooring_aws.limits import LIMITS
from mooring_aws.methods import METHODS
from mooring_aws.render import FORMATS
from mooring_aws.settings import AwsConfig

if TYPE_CHECKING:
    from mooring_aws.cloud import Cloud
    from mooring_aws.session import AwsSession

REGIONAL = {ids.EKS: "{}/*", ids.ECR: ids.ACCOUNTS + ".dkr.ecr.{}.*"}
"""The resource types that are listed region by region, with the pattern of a region's ids."""


class AwsConnector:
    """The plugin of the connector type `aws`."""

    @m.hookimpl
    def describe(self) -> m.ConnectorType:
        """Seven auth methods, four resource types."""
        return m.ConnectorType(
            name="aws",
            title="Amazon Web Services",
            description="S3 buckets, EKS clusters, ECR registries and whole accounts; in aws, aws-cn and aws-us-gov.",
            auth_methods=METHODS,
            resource_types=(account.TYPE, s3.TYPE, eks.TYPE, ecr.TYPE),
            credentials=(AwsCredentials,),
            formats=FORMATS,
            limits=LIMITS,
        )

    @m.hookimpl
    def canonical(self, resource_type: str, text: str) -> str:
        """The one form of an id; a bare cluster name and an ARN stay what they are for `qualify`."""
        return ids.canonical(resource_type, text)

    @m.hookimpl
    def qualify(self, resource_type: str, resource_id: str, settings: Mapping[str, Any]) -> str:
        """An ARN is held against the connector's settings; a bare cluster name gets its only region."""
        return ids.qualify(resource_type, resource_id, settings)

    @m.hookimpl
    def covers(self, resource_type: str, scope: str, resource_id: str) -> bool:
        """A bucket covers its prefixes, a registry its repositories."""
        return ids.covers(resource_type, scope, resource_id)

    @m.hookimpl
    @asynccontextmanager
    async def lifespan(self, tools: m.Tools) -> AsyncGenerator[Cloud, None]:
        """The clients that all sessions share."""
        from mooring_aws.cloud import open_cloud

        async with open_cloud(tools) as cloud:
            yield cloud

    @m.hookimpl
    @asynccontextmanager
    async def authenticate(self, config: AwsConfig, context: m.Context) -> AsyncGenerator[AwsSession, None]:
        """A session; it makes its first call when it is first used."""
        from mooring_aws.session import AwsSession

        if context.shared is None:
            raise m.BrokenPlugin(
                "a session of AWS needs what the plugin's lifespan yields; enter it, and pass it as Context.shared"
            )
        yield AwsSession(config, context, context.shared)

    @m.hookimpl
    async def verify(self, session: AwsSession, request: m.VerifyRequest) -> m.Identity:
        """The identity, asked once a session; and one call for the resource."""
        identity = await session.identity()
        match request.resource_type:
            case ids.GENERIC:
                await account.verify(session, request.resource_id)
            case ids.S3:
                await s3.verify(session, request.resource_id)
            case ids.EKS:
                await eks.verify(session, request.resource_id)
            case ids.ECR:
                await ecr.verify(session, request.resource_id)
        return identity

    @m.hookimpl
    async def units(self, session: AwsSession, resource_type: str) -> tuple[m.Unit, ...]:
        """Each region for what is listed by region; one for accounts and buckets."""
        if (ids_in := REGIONAL.get(resource_type)) is None:
            return (m.Unit(),)
        return tuple(m.Unit(name=region, ids=ids_in.format(region)) for region in session.config.places)

    @m.hookimpl
    async def discover(self, session: AwsSession, request: m.DiscoverRequest) -> AsyncGenerator[m.Resource, None]:
        """Every page of every region that the unit stands for."""
        wanted = request.resource_id
        regions = (request.unit.name,) if request.unit.name else session.config.places
        match request.resource_type:
            case ids.GENERIC:
                found = [account.discover(session, wanted)]
            case ids.S3:
                found = [s3.discover(session, wanted)]
            case ids.EKS:
                found = [eks.discover(session, region, wanted) for region in regions]
            case ids.ECR:
                found = [ecr.discover(session, region, wanted) for region in regions]
            case other:
                raise m.UnsupportedResource(f"aws has no resource type {other!r}; see describe-type aws")
        for part in found:
            async with aclosing(part) as resources:
                async for resource in resources:
                    yield resource

    @m.hookimpl
    async def issue_credentials(self, session: AwsSession, request: m.CredentialRequest) -> m.Credentials:
        """Credentials, as `explain` says beforehand."""
        from mooring_aws.issue import issue

        return await issue(session, request)

    @m.hookimpl
    async def revoke_all(self, session: AwsSession, request: m.RevokeRequest) -> str:
        """A denial in the policies of the role."""
        from mooring_aws.revoke import revoke_all

        return await revoke_all(session, request.before)

    @m.hookimpl
    def endpoint(self, config: AwsConfig) -> str:
        """The host of STS."""
        from mooring_aws.endpoints import host_of

        return host_of(config)

    @m.hookimpl
    def explain(self, config: AwsConfig, request: m.CredentialRequest) -> m.Explanation:
        """The plan that `issue_credentials` carries out."""
        from mooring_aws.plan import plan_of

        return plan_of(config, request).explanation()

    @m.hookimpl
    async def lift(self, request: m.LiftRequest) -> m.Lifted:
        """What the machine has, by botocore's own chain."""
        from mooring_aws.lift import lift

        return await lift(request)

    @m.hookimpl
    def render(self, request: m.RenderRequest) -> str:
        """`credential-process`."""
        from mooring_aws.render import render

        if not isinstance(request.credentials, AwsCredentials):
            raise m.UnsupportedResource("mooring-aws renders AWS credentials alone")
        return render(request.credentials, request.format)

    @m.hookimpl
    def environment(self, credentials: m.Credentials) -> m.Environment:
        """The variables that SDKs and tools read."""
        from mooring_aws.render import environment

        if not isinstance(credentials, AwsCredentials):
            raise m.UnsupportedResource("mooring-aws renders AWS credentials alone")
        return environment(credentials)

    @m.hookimpl
    def serve(self, request: m.ServeRequest) -> m.Served:
        """As a container's agent answers."""
        from mooring_aws.render import serve

        if not isinstance(request.credentials, AwsCredentials):
            raise m.UnsupportedResource("mooring-aws renders AWS credentials alone")
        return serve(request, request.credentials)

    @m.hookimpl
    def login(self, request: m.LoginRequest) -> m.LoginChange:
        """A profile of the aws CLI."""
        from mooring_aws.login import login

        if not isinstance(request.credentials, AwsCredentials):
            raise m.UnsupportedResource("mooring-aws configures the aws CLI for AWS credentials alone")
        return login(request, request.credentials)

    @m.hookimpl
    def logout(self, request: m.LogoutRequest) -> m.LoginChange:
        """Without it again."""
        from mooring_aws.login import logout

        return logout(request)

    @m.hookimpl
    def client(self, request: m.ClientRequest) -> AbstractAsyncContextManager[Any]:
        """An aioboto3 client or session that renews its credentials."""
        from mooring_aws.clients import client

        return client(request)

    @m.hookimpl
    def blocking_client(self, request: m.BlockingClientRequest) -> AbstractContextManager[Any]:
        """A boto3 client or session that renews its credentials."""
        from mooring_aws.clients import blocking_client

        return blocking_client(request)


connector = AwsConnector()
