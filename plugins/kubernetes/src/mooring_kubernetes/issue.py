"""Issuing: a token of a service account, bound to a Secret of its own; or, where allowed, what the connector has.

The Secret holds nothing. The API server refuses a token whose Secret is gone, so deleting it revokes the token.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import mooring as m
from mooring_kubernetes import cluster, formats, settings
from mooring_kubernetes.methods import LIFETIME

if TYPE_CHECKING:
    from mooring_kubernetes.session import KubernetesSession

SLACK = timedelta(minutes=1)
"""By how much a life may differ from what was asked for without a word."""
SECRETS = "/api/v1/namespaces/{namespace}/secrets"
TOKENS = "/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
NOTE = "what it may do, the RBAC rules of the service account say, for every access alike"
OWN = "the connector's own credentials, which may do all that the connector may"
NO_ACCOUNT = "the connector has no service_account to issue for"
NOT_FOUND = 404


def explain(config: settings.KubernetesConfig, request: m.CredentialRequest) -> m.Explanation:
    """The calls that issuing makes."""
    if config.account is None:
        _check_own(config, request, NO_ACCOUNT)
        return m.Explanation(narrowed=False, calls=(), notes=(OWN,))
    namespace, name = config.account
    calls = (f"create secrets ({namespace})", f"create serviceaccounts/token ({namespace}/{name})")
    return m.Explanation(narrowed=True, calls=calls, notes=(NOTE, "deleting the Secret revokes the token"))


async def issue(session: KubernetesSession, request: m.CredentialRequest) -> m.KubernetesAccess:
    """Credentials for a request, as `explain` says."""
    cluster.mine(session, request.resource_id)
    account = session.config.account
    if account is None:
        _check_own(session.config, request, NO_ACCOUNT, session.context.expires_at)
        return await _own(session, request, OWN)
    made = await _token(session, request, *account)
    if made is None:
        why = "the cluster issues no tokens of service accounts (TokenRequest)"
        _check_own(session.config, request, why, session.context.expires_at)
        return await _own(session, request, f"{why}; {OWN}")
    return made


PREFIX = "mooring-"
OURS = re.compile(PREFIX + "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What the Secrets are named that tokens are bound to."""


async def undo(session: KubernetesSession, step: Mapping[str, str]) -> None:
    """Delete the Secret of a token, which revokes it; only what is named as such: the log is not sealed.

    Raises:
        InvalidConfig: the step names anything else.
    """
    if step.keys() != {"namespace", "secret"} or not OURS.fullmatch(step["secret"]) or not step["namespace"]:
        raise m.InvalidConfig("a step of the undo log names no Secret of mooring's; it was left alone")
    with suppress(m.ResourceNotFound):
        await session.call(f"delete secrets in namespace {step['namespace']}", "DELETE", SECRETS + "/{secret}", **step)


def _check_own(
    config: settings.KubernetesConfig,
    request: m.CredentialRequest,
    why: str,
    ends: datetime | None = None,
) -> None:
    """Raise unless the connector's own credentials can and may be handed out."""
    from mooring_kubernetes import claims

    update = f"mooring connector update {request.connector}"
    if isinstance(config, settings.PasswordConfig):
        raise m.NotNarrowed(f"{why}, and a password is never handed out; {update} --service-account NAMESPACE/NAME")
    if not request.allow_unnarrowed:
        endless = isinstance(config, settings.TokenConfig) and not (ends or claims.ends_of_token(config.token))
        both = " --allow-long-lived" if endless and not request.allow_long_lived else ""
        raise m.NotNarrowed(
            f"{why}; issue for a service account: {update} --service-account NAMESPACE/NAME; "
            f"or let its own credentials out: {update} --allow-unnarrowed{both}"
        )


async def _token(
    session: KubernetesSession, request: m.CredentialRequest, namespace: str, name: str
) -> m.KubernetesAccess | None:
    """A token of the service account; None if the cluster makes none."""
    from mooring_kubernetes import errors

    life = request.ttl or LIFETIME.default
    secret = f"{PREFIX}{uuid.uuid4()}"
    entry = await session.context.undo.begin({"namespace": namespace, "secret": secret})
    uid = await _make_secret(session, request, namespace, secret)
    spec = {
        "audiences": list(session.config.audiences),
        "expirationSeconds": int(life.total_seconds()),
        "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": secret, "uid": uid},
    }
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    call, server = f"create serviceaccounts/token in namespace {namespace}", await session.server()
    answer = await session.ask(call, "POST", TOKENS, body, namespace=namespace, name=name)
    if answer.status == NOT_FOUND:
        if _of(answer.document, "serviceaccounts"):
            raise m.ResourceNotFound(
                f"there is no service account {namespace}/{name} in the cluster; make it, or change service_account"
            )
        return None
    if not 200 <= answer.status < 300:  # noqa: PLR2004  (2xx)
        raise errors.refusal(answer.status, answer.headers, call, server)
    ends = _instant(errors.given(answer.document, call, server, "status", "expirationTimestamp"))
    token = _token_of(errors.given(answer.document, call, server, "status", "token"))
    answer.document = None
    if ends is None or token is None:
        raise errors.foreign(call, server)
    await session.context.undo.keep(entry, ends)
    got = ends - session.context.clock.now()
    differs = request.ttl is not None and abs(got - request.ttl) > SLACK
    note = (f"asked for {request.ttl}; the cluster gave {timedelta(seconds=round(got.total_seconds()))}",)
    way = await session.way()
    return m.KubernetesAccess(
        server=way.server,
        cluster=session.config.cluster_name,
        certificate_authority=way.certificate_authority,
        token=token,
        namespace=way.namespace or namespace,
        tls_server_name=way.tls_server_name,
        insecure_skip_tls_verify=way.insecure_skip_tls_verify,
        proxy_url=way.proxy_url,
        expires_at=ends,
        narrowed=True,
        clamped=note if differs else (),
    )


async def _make_secret(session: KubernetesSession, request: m.CredentialRequest, namespace: str, secret: str) -> str:
    """Make the Secret; gives its uid."""
    from mooring_kubernetes import errors

    about = {"mooring/connector": session.context.connector, "mooring/consumer": request.consumer}
    metadata = {"name": secret, "labels": {"app.kubernetes.io/managed-by": "mooring"}, "annotations": about}
    body = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata}
    call, server = f"create secrets in namespace {namespace}", await session.server()
    answer = await session.ask(call, "POST", SECRETS, body, namespace=namespace)
    if answer.status == NOT_FOUND and _of(answer.document, "namespaces"):
        raise m.ResourceNotFound(
            f"there is no namespace {namespace} in the cluster; make it, or change service_account"
        )
    if not 200 <= answer.status < 300:  # noqa: PLR2004  (2xx)
        raise errors.refusal(answer.status, answer.headers, call, server)
    return errors.given(answer.document, call, server, "metadata", "uid")


def _instant(text: str) -> datetime | None:
    try:
        return m.instant(text)
    except m.InvalidConfig:
        return None


def _token_of(text: str) -> m.Secret | None:
    """The token, if a header can carry it."""
    return m.Secret(text) if formats.TOKEN.fullmatch(text) else None


def _of(document: object, kind: str) -> bool:
    """Whether an answer of 404 is about one thing of a kind, and not about the API as a whole."""
    details = document.get("details") if isinstance(document, Mapping) else None
    return isinstance(details, Mapping) and details.get("kind") == kind and bool(details.get("name"))


async def _own(session: KubernetesSession, request: m.CredentialRequest, note: str) -> m.KubernetesAccess:
    """What the connector itself has, with the end that it says of itself."""
    from mooring_kubernetes import claims

    way, update = await session.way(), f"mooring connector update {request.connector}"
    ends = session.ends or session.context.expires_at
    if way.token is not None:
        ends = ends or claims.ends_of_token(way.token)
    elif way.client_certificate is not None:
        ends = ends or claims.ends_of_certificate(way.client_certificate)
    else:
        raise m.NotNarrowed(
            f"a password is never handed out; issue for a service account: {update} --service-account NAMESPACE/NAME"
        )
    if ends is None and not request.allow_long_lived:
        raise m.LongLived(
            "the connector's own credentials have no end; issue for a service account: "
            f"{update} --service-account NAMESPACE/NAME; or let them out: {update} --allow-long-lived"
        )
    with_certificate = way.token is None
    return m.KubernetesAccess(
        server=way.server,
        cluster=session.config.cluster_name,
        certificate_authority=way.certificate_authority,
        token=way.token,
        client_certificate=way.client_certificate if with_certificate else None,
        client_key=way.client_key if with_certificate else None,
        namespace=way.namespace,
        tls_server_name=way.tls_server_name,
        insecure_skip_tls_verify=way.insecure_skip_tls_verify,
        proxy_url=way.proxy_url,
        expires_at=ends,
        narrowed=False,
        clamped=(note,),
    )
