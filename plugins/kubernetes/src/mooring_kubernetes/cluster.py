"""The cluster: is it there, whom does it take us for, and may the connector do what it must?"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, NamedTuple

import mooring as m
from mooring_kubernetes import ids

if TYPE_CHECKING:
    from mooring_kubernetes.session import KubernetesSession

TYPE = m.ResourceType(
    name=ids.CLUSTER,
    title="Kubernetes cluster",
    description="The connector's one cluster. What credentials may do inside, its RBAC rules say.",
    instances=False,
    permissions=("create serviceaccounts/token", "create secrets", "delete secrets"),
    formats=ids.FORMATS,
)

LIMITS = (m.Limit(name="kubernetes-server", per=("vendor", "account"), where={"vendor": "kubernetes"}, at_once=20),)
"""An API server takes 400 reads and 200 writes at once, by default, of all its clients, and shares them out fairly by
client: the bound is a modest part of that, and ours.

Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
"""

ANONYMOUS = "system:anonymous"
REVIEWS = ("v1", "v1beta1", "v1alpha1")
"""Of SelfSubjectReview: since 1.28, 1.27 and 1.26."""
NOBODY = "/mooring/whoami"
"""A path that no server has. An older server's denial says whom it has denied."""
ACCOUNT = "/api/v1/namespaces/{namespace}/serviceaccounts/{name}"
FORBIDDEN, NOT_FOUND = 403, 404


class Right(NamedTuple):
    """A permission, in the words of RBAC."""

    verb: str
    resource: str
    subresource: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f"/{self.subresource}" if self.subresource else "")


RIGHTS = (Right("create", "serviceaccounts", "token"), Right("create", "secrets"), Right("delete", "secrets"))
"""What issuing for a service account needs in its namespace: `TYPE.permissions`."""


def mine(session: KubernetesSession, resource_id: str | None) -> None:
    """Raise ResourceNotFound unless the id is that of the connector's cluster."""
    name = session.config.cluster_name
    if resource_id not in (None, name):
        raise m.ResourceNotFound(f"the connector reaches the cluster {name!r} alone; use a connector of that other one")


async def verify(session: KubernetesSession, resource_id: str | None) -> m.Identity:
    """Whom the cluster takes us for; with a service account, only if tokens can be issued for it.

    Raises:
        AuthFailed: it takes us for nobody.
        AccessDenied: the connector lacks one of `RIGHTS`.
        ResourceNotFound: there is no such service account, as far as the connector may look.
    """
    mine(session, resource_id)
    await version(session)
    subject = await whoami(session)
    if session.config.account is not None:
        await _check_rights(session, *session.config.account)
        await _check_account(session, *session.config.account)
    return m.Identity(subject=subject, account=session.config.cluster_name, expires_at=session.context.expires_at)


async def discover(session: KubernetesSession, resource_id: str | None) -> AsyncGenerator[m.Resource, None]:
    """The one cluster, if it is there."""
    mine(session, resource_id)
    attributes = {"server": await session.server()}
    if found := await version(session):
        attributes["version"] = found
    yield m.Resource(type=ids.CLUSTER, id=session.config.cluster_name, attributes=attributes)


async def version(session: KubernetesSession) -> str | None:
    """The server's version; None if it does not tell us."""
    from mooring_kubernetes import errors

    call, server = "GET /version", await session.server()
    answer = await session.ask(call, "GET", "/version")
    if answer.status == FORBIDDEN and answer.document is not None:
        return None
    if not 200 <= answer.status < 300:  # noqa: PLR2004  (2xx)
        raise errors.refusal(answer.status, answer.headers, call, server)
    found = (answer.document or {}).get("gitVersion")
    if not isinstance(found, str) or not ids.NAME.fullmatch(found.replace("+", "-")):
        raise errors.foreign(call, server)
    return found


async def whoami(session: KubernetesSession) -> str:
    """The user that the cluster takes us for: by SelfSubjectReview, or as older servers let it be seen."""
    subject = await _reviewed(session) or await _seen(session)
    if subject == ANONYMOUS:
        raise m.AuthFailed(
            f"{await session.server()} takes the connector for nobody ({ANONYMOUS}); check the credentials, and "
            "whether a proxy on the way takes them off"
        )
    return subject


async def _reviewed(session: KubernetesSession) -> str | None:
    from mooring_kubernetes import claims, errors

    for edition in REVIEWS:
        group = f"authentication.k8s.io/{edition}"
        call = "create selfsubjectreviews"
        body = {"apiVersion": group, "kind": "SelfSubjectReview"}
        answer = await session.ask(call, "POST", f"/apis/{group}/selfsubjectreviews", body)
        if answer.status in (FORBIDDEN, NOT_FOUND):
            continue
        server = await session.server()
        if not 200 <= answer.status < 300:  # noqa: PLR2004  (2xx)
            raise errors.refusal(answer.status, answer.headers, call, server)
        found = errors.given(answer.document, call, server, "status", "userInfo", "username")
        if not claims.NAME.fullmatch(found):
            raise errors.foreign(call, server)
        return found
    return None


async def _seen(session: KubernetesSession) -> str:
    """Of a server without SelfSubjectReview: what a denial says, or else what the credentials say of themselves."""
    from mooring_kubernetes import claims, errors

    answer = await session.ask("GET " + NOBODY, "GET", NOBODY)
    if answer.status not in (FORBIDDEN, NOT_FOUND):
        server = await session.server()
        if 200 <= answer.status < 300:  # noqa: PLR2004  (2xx)
            raise errors.foreign("GET " + NOBODY, server)
        raise errors.refusal(answer.status, answer.headers, "GET " + NOBODY, server)
    if found := errors.denied_user(answer.document):
        return found
    way = await session.way()
    said: str | None = way.username
    if way.token is not None:
        said = claims.subject_of_token(way.token)
    elif way.client_certificate is not None:
        said = claims.subject_of_certificate(way.client_certificate)
    return said or "somebody whom the cluster knows"


async def _check_rights(session: KubernetesSession, namespace: str, account: str) -> None:
    lacking = [str(right) for right in RIGHTS if not await _may(session, right, namespace, account)]
    if lacking:
        raise m.AccessDenied(
            f"the connector may not {', '.join(lacking)} in namespace {namespace}; grant it (RBAC), or: "
            f"mooring connector update {session.context.connector} --remove service_account"
        )


async def _check_account(session: KubernetesSession, namespace: str, name: str) -> None:
    """Raise if the cluster says that there is no such service account; who may not look is not told."""
    answer = await session.ask(f"get serviceaccounts in namespace {namespace}", "GET", ACCOUNT, None,
                               namespace=namespace, name=name)  # fmt: skip
    details = (answer.document or {}).get("details")
    if answer.status == NOT_FOUND and isinstance(details, dict) and details.get("kind") == "serviceaccounts":
        raise m.ResourceNotFound(
            f"there is no service account {namespace}/{name} in the cluster; make it: "
            f"kubectl create serviceaccount {name} --namespace {namespace}; or change service_account"
        )


async def _may(session: KubernetesSession, right: Right, namespace: str, account: str) -> bool:
    """Whether the cluster lets us; so too if it does not let us ask. Of accounts it is enough to have this one."""
    from mooring_kubernetes import errors

    group, call = "authorization.k8s.io/v1", "create selfsubjectaccessreviews"
    wanted: dict[str, Any] = {"namespace": namespace, "verb": right.verb, "resource": right.resource}
    if right.subresource:
        wanted |= {"subresource": right.subresource, "name": account}
    body = {"apiVersion": group, "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": wanted}}
    answer = await session.ask(call, "POST", f"/apis/{group}/selfsubjectaccessreviews", body)
    server = await session.server()
    if answer.status in (FORBIDDEN, NOT_FOUND):
        return True
    if not 200 <= answer.status < 300:  # noqa: PLR2004  (2xx)
        raise errors.refusal(answer.status, answer.headers, call, server)
    status = (answer.document or {}).get("status")
    allowed = status.get("allowed") if isinstance(status, dict) else None
    if not isinstance(allowed, bool):
        raise errors.foreign(call, server)
    return allowed
