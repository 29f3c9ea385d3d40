"""The hooks, and nothing else: each is one call of the module that does it, imported when it is first needed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing, asynccontextmanager
from glob import escape
from typing import TYPE_CHECKING, Any

import mooring as m
from mooring_docker import ids
from mooring_docker.credentials import RegistryToken
from mooring_docker.render import FORMATS
from mooring_docker.settings import LIMITS, METHODS, TYPE, RegistryConfig

if TYPE_CHECKING:
    from mooring_docker.session import RegistrySession


class DockerConnector:
    """The plugin of the connector type `docker`."""

    @m.hookimpl
    def describe(self) -> m.ConnectorType:
        """Three auth methods, one resource type."""
        return m.ConnectorType(
            name="docker",
            title="Container registry",
            description="Docker Hub, and any registry that speaks the distribution protocol.",
            auth_methods=METHODS,
            resource_types=(TYPE,),
            credentials=(m.RegistryLogin, RegistryToken),
            formats=FORMATS,
            limits=LIMITS,
        )

    @m.hookimpl
    def canonical(self, resource_type: str, text: str) -> str:
        """`HOST[:PORT][/REPOSITORY]` of a registry, a repository or an image reference."""
        return ids.canonical(resource_type, text)

    @m.hookimpl
    def qualify(self, resource_type: str, resource_id: str, settings: Mapping[str, Any]) -> str:
        """The id, if it is in the connector's registry and below its prefix."""
        return ids.qualify(resource_type, resource_id, settings)

    @m.hookimpl
    def covers(self, resource_type: str, scope: str, resource_id: str) -> bool:
        """A registry covers its repositories."""
        return ids.covers(resource_type, scope, resource_id)

    @m.hookimpl
    @asynccontextmanager
    async def authenticate(self, config: RegistryConfig, context: m.Context) -> AsyncGenerator[RegistrySession, None]:
        """A session; it makes its first call when it is first used."""
        from mooring_docker.session import RegistrySession

        yield RegistrySession(config, context)

    @m.hookimpl
    async def verify(self, session: RegistrySession, request: m.VerifyRequest) -> m.Identity:
        """The handshake, with the credentials; and one call for a repository."""
        from mooring_docker import repositories

        identity = await session.whoami()
        if request.resource_id is not None:
            await repositories.verify(session, request.resource_id)
        return identity

    @m.hookimpl
    async def units(self, session: RegistrySession, resource_type: str) -> tuple[m.Unit, ...]:
        """One, of ids that begin with the registry's host."""
        return (m.Unit(ids=f"{escape(session.host)}*"),)

    @m.hookimpl
    async def discover(self, session: RegistrySession, request: m.DiscoverRequest) -> AsyncGenerator[m.Resource, None]:
        """The registry, and every page of its catalog where it has one for us."""
        from mooring_docker import repositories

        if request.resource_type != ids.REGISTRY:
            raise m.UnsupportedResource(f"docker has no resource type {request.resource_type!r}; known: {ids.REGISTRY}")
        async with aclosing(repositories.discover(session, request.resource_id)) as resources:
            async for resource in resources:
                yield resource

    @m.hookimpl
    async def issue_credentials(self, session: RegistrySession, request: m.CredentialRequest) -> m.Credentials:
        """A token for one repository, or the connector's own login."""
        from mooring_docker.issue import issue

        return await issue(session, request)

    @m.hookimpl
    def endpoint(self, config: RegistryConfig) -> str:
        """The registry's host."""
        return config.host

    @m.hookimpl
    def explain(self, config: RegistryConfig, request: m.CredentialRequest) -> m.Explanation:
        """What `issue_credentials` asks of the registry and its token server."""
        from mooring_docker.issue import explain

        return explain(config, request)

    @m.hookimpl
    async def lift(self, request: m.LiftRequest) -> m.Lifted:
        """One login of docker's or podman's configuration."""
        from mooring_docker.lift import lift

        return await lift(request)

    @m.hookimpl
    async def lift_all(self, request: m.LiftRequest) -> tuple[m.Lifted | m.Unlifted, ...]:
        """All of them, each a connector."""
        from mooring_docker.lift import lift_all

        return await lift_all(request)

    @m.hookimpl
    def render(self, request: m.RenderRequest) -> str:
        """`docker-config` and `docker-credential`."""
        from mooring_docker.render import render

        return render(request.credentials, request.format)

    @m.hookimpl
    def environment(self, credentials: m.Credentials) -> m.Environment:
        """A configuration file, for docker and for podman and its kin."""
        from mooring_docker.render import environment

        return environment(credentials)

    @m.hookimpl
    def client(self, request: m.ClientRequest) -> AbstractAsyncContextManager[Any]:
        """An aiodocker client that pulls and pushes with these credentials, renewed."""
        from mooring_docker.clients import client

        return client(request)

    @m.hookimpl
    def blocking_client(self, request: m.BlockingClientRequest) -> AbstractContextManager[Any]:
        """A client of the `docker` package, likewise."""
        from mooring_docker.clients import blocking_client

        return blocking_client(request)

    @m.hookimpl
    def login(self, request: m.LoginRequest) -> m.LoginChange:
        """An entry of `credHelpers` that calls `docker-credential-mooring`."""
        from mooring_docker.login import login

        return login(request)

    @m.hookimpl
    def logout(self, request: m.LogoutRequest) -> m.LoginChange:
        """Without that entry."""
        from mooring_docker.login import logout

        return logout(request)


connector = DockerConnector()
contract: m.Connector[Any, RegistrySession] = connector
