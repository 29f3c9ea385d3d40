"""The hooks, and nothing else: each is one call of the module that does it, imported when it is first needed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing, asynccontextmanager
from glob import escape
from typing import TYPE_CHECKING, Any

import mooring as m
from mooring_kubernetes import cluster, ids
from mooring_kubernetes.access import access_of
from mooring_kubernetes.methods import METHODS
from mooring_kubernetes.render import FORMATS
from mooring_kubernetes.settings import KubernetesConfig

if TYPE_CHECKING:
    from mooring_kubernetes.session import KubernetesSession
    from mooring_kubernetes.tls import Trust


class KubernetesConnector:
    """The plugin of the connector type `kubernetes`, and of `KubernetesAccess`, whoever issued it."""

    @m.hookimpl
    def describe(self) -> m.ConnectorType:
        """Five auth methods, one resource type."""
        return m.ConnectorType(
            name="kubernetes",
            title="Kubernetes",
            description="Any Kubernetes cluster; and clients, kubeconfigs and logins for the clusters of any vendor.",
            auth_methods=METHODS,
            resource_types=(cluster.TYPE,),
            credentials=(m.KubernetesAccess,),
            formats=FORMATS,
            limits=cluster.LIMITS,
        )

    @m.hookimpl
    def canonical(self, resource_type: str, text: str) -> str:
        """The cluster's name, or its address until `qualify`."""
        return ids.canonical(resource_type, text)

    @m.hookimpl
    def qualify(self, resource_type: str, resource_id: str, settings: Mapping[str, Any]) -> str:
        """The name of the connector's one cluster, if that is meant."""
        return ids.qualify(resource_id, settings)

    @m.hookimpl
    @asynccontextmanager
    async def lifespan(self, tools: m.Tools) -> AsyncGenerator[Trust, None]:
        """The TLS contexts that sessions share."""
        from mooring_kubernetes.tls import Trust

        yield Trust()

    @m.hookimpl
    @asynccontextmanager
    async def authenticate(
        self, config: KubernetesConfig, context: m.Context
    ) -> AsyncGenerator[KubernetesSession, None]:
        """A session; it makes its first call when it is first used."""
        from mooring_kubernetes.session import opened
        from mooring_kubernetes.tls import Trust

        async with opened(config, context, context.shared or Trust()) as session:
            yield session

    @m.hookimpl
    async def verify(self, session: KubernetesSession, request: m.VerifyRequest) -> m.Identity:
        """Reachable, trusted, whom it takes us for, and whether tokens can be issued."""
        return await cluster.verify(session, request.resource_id)

    @m.hookimpl
    async def units(self, session: KubernetesSession, resource_type: str) -> tuple[m.Unit, ...]:
        """The one cluster."""
        return (m.Unit(ids=escape(session.config.cluster_name)),)

    @m.hookimpl
    async def discover(
        self, session: KubernetesSession, request: m.DiscoverRequest
    ) -> AsyncGenerator[m.Resource, None]:
        """The one cluster."""
        async with aclosing(cluster.discover(session, request.resource_id)) as resources:
            async for resource in resources:
                yield resource

    @m.hookimpl
    async def issue_credentials(self, session: KubernetesSession, request: m.CredentialRequest) -> m.Credentials:
        """A token of the service account, or what the connector has if that is allowed."""
        from mooring_kubernetes.issue import issue

        return await issue(session, request)

    @m.hookimpl
    async def undo(self, session: KubernetesSession, step: Mapping[str, str]) -> None:
        """Delete the Secret of a token, which revokes it."""
        from mooring_kubernetes.issue import undo

        await undo(session, step)

    @m.hookimpl
    def endpoint(self, config: KubernetesConfig) -> str:
        """The API server's host and port."""
        from mooring_kubernetes.way import endpoint_of

        return endpoint_of(config)

    @m.hookimpl
    def explain(self, config: KubernetesConfig, request: m.CredentialRequest) -> m.Explanation:
        """The calls that issuing makes."""
        from mooring_kubernetes.issue import explain

        return explain(config, request)

    @m.hookimpl
    async def lift(self, request: m.LiftRequest) -> m.Lifted:
        """A context of the machine's kubeconfig, or the pod's service account."""
        from mooring_kubernetes.lift import lift

        return await lift(request)

    @m.hookimpl
    async def lift_all(self, request: m.LiftRequest) -> tuple[m.Lifted | m.Unlifted, ...]:
        """Every context of the machine's kubeconfig."""
        from mooring_kubernetes.lift import lift_all

        return await lift_all(request)

    @m.hookimpl
    def render(self, request: m.RenderRequest) -> str:
        """`exec-credential` and `kubeconfig`."""
        from mooring_kubernetes.render import render

        return render(access_of(request.credentials), request.format, request.variables)

    @m.hookimpl
    def environment(self, credentials: m.Credentials) -> m.Environment:
        """KUBECONFIG, and the file that it names."""
        from mooring_kubernetes.render import environment

        return environment(access_of(credentials))

    @m.hookimpl
    def client(self, request: m.ClientRequest) -> AbstractAsyncContextManager[Any]:
        """A kubernetes_asyncio ApiClient that renews its credentials."""
        from mooring_kubernetes.clients import client

        return client(request)

    @m.hookimpl
    def blocking_client(self, request: m.BlockingClientRequest) -> AbstractContextManager[Any]:
        """A kubernetes ApiClient that renews its credentials."""
        from mooring_kubernetes.clients import blocking_client

        return blocking_client(request)

    @m.hookimpl
    def login(self, request: m.LoginRequest) -> m.LoginChange:
        """An entry in the user's kubeconfig that calls mooring."""
        from mooring_kubernetes.login import login

        return login(request, access_of(request.credentials))

    @m.hookimpl
    def logout(self, request: m.LogoutRequest) -> m.LoginChange:
        """Remove what `login` wrote."""
        from mooring_kubernetes.login import logout

        return logout(request)


connector = KubernetesConnector()
