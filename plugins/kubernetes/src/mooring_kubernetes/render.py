"""The way into a cluster as text: what kubectl's exec plugins answer, and kubeconfigs."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import mooring as m

FORMATS = ("exec-credential", "kubeconfig")
VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
INFO = "KUBERNETES_EXEC_INFO"
EARLY = timedelta(minutes=1)
"""How long before their end exec credentials are said to end: kubectl uses them to the last second, which may pass
while a request is on its way."""


def render(credentials: m.KubernetesAccess, form: str, variables: Mapping[str, str]) -> str:
    """The credentials in one of the formats, secrets in the clear."""
    if form == "exec-credential":
        return json.dumps(exec_credential(credentials, variables)) + "\n"
    if form == "kubeconfig":
        return kubeconfig(credentials)
    raise m.InvalidConfig(f"kubernetes has no format {form!r}; known: {', '.join(FORMATS)}", field="format")


def environment(credentials: m.KubernetesAccess) -> m.Environment:
    """As kubectl, helm and the SDKs find them."""
    file = m.EnvironmentFile(variable="KUBECONFIG", name="kubeconfig", content=m.Secret(kubeconfig(credentials)))
    return m.Environment(variables={}, files=(file,))


def exec_credential(credentials: m.KubernetesAccess, variables: Mapping[str, str]) -> dict[str, Any]:
    """As an exec plugin answers, in the version that is asked for.

    Source: https://kubernetes.io/docs/reference/config-api/client-authentication.v1/
    """
    status: dict[str, str] = {}
    if credentials.token is not None:
        status["token"] = credentials.token.reveal()
    if credentials.client_certificate is not None and credentials.client_key is not None:
        status["clientCertificateData"] = credentials.client_certificate
        status["clientKeyData"] = credentials.client_key.reveal()
    if credentials.expires_at is not None:
        status["expirationTimestamp"] = _instant(credentials.expires_at - EARLY)
    return {"apiVersion": _version(variables), "kind": "ExecCredential", "status": status}


def _version(variables: Mapping[str, str]) -> str:
    text = variables.get(INFO)
    if not text:
        return VERSIONS[0]
    try:
        asked = json.loads(text)
        version = asked.get("apiVersion") if isinstance(asked, dict) else None
    except (ValueError, RecursionError):
        version = None
    if version not in VERSIONS:
        raise m.InvalidConfig(f"{INFO} asks for no version that there is; write apiVersion: {VERSIONS[0]}")
    return str(version)


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def kubeconfig(credentials: m.KubernetesAccess) -> str:
    """A kubeconfig with this cluster alone."""
    import yaml

    user: dict[str, str] = {}
    if credentials.token is not None:
        user["token"] = credentials.token.reveal()
    if credentials.client_certificate is not None and credentials.client_key is not None:
        user["client-certificate-data"] = encoded(credentials.client_certificate)
        user["client-key-data"] = encoded(credentials.client_key.reveal())
    name = credentials.cluster
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster_entry(credentials)}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": context_entry(credentials, name)}],
        "current-context": name,
    }
    head = f"# ends at {_instant(credentials.expires_at)}\n" if credentials.expires_at is not None else ""
    return head + yaml.safe_dump(document, sort_keys=False, width=10_000)


def cluster_entry(credentials: m.KubernetesAccess) -> dict[str, Any]:
    """The cluster's entry of a kubeconfig, in which nothing is secret."""
    entry: dict[str, Any] = {"server": credentials.server}
    if credentials.insecure_skip_tls_verify:
        entry["insecure-skip-tls-verify"] = True
    elif credentials.certificate_authority is not None:
        entry["certificate-authority-data"] = encoded(credentials.certificate_authority)
    if credentials.tls_server_name is not None:
        entry["tls-server-name"] = credentials.tls_server_name
    if credentials.proxy_url is not None:
        entry["proxy-url"] = credentials.proxy_url
    return entry


def context_entry(credentials: m.KubernetesAccess, name: str) -> dict[str, Any]:
    """A context of the cluster and the user of that name."""
    entry = {"cluster": name, "user": name}
    return entry | ({"namespace": credentials.namespace} if credentials.namespace is not None else {})


def encoded(text: str) -> str:
    """As kubeconfigs hold data."""
    return base64.b64encode(text.encode()).decode()
