"""The auth methods, for `describe`: each with its configuration and the lives that Kubernetes allows."""

from __future__ import annotations

from datetime import timedelta

import mooring as m
from mooring_kubernetes import settings

LIFETIME = m.Lifetime(minimum=timedelta(minutes=10), default=timedelta(hours=1), maximum=timedelta(hours=24))
"""Of a token by TokenRequest; the maximum is ours, a cluster may set a lower one of its own.

Source: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
"""

WITH_ACCOUNT = (
    "With service_account, what is issued is a token of that account (TokenRequest), bound to a Secret made for it, "
    "so that deleting the Secret revokes the token; what it may do, the account's RBAC rules say. "
)

METHODS = (
    m.AuthMethod(
        name="token",
        title="Bearer token",
        config=settings.TokenConfig,
        description=WITH_ACCOUNT + "Without, the connector's own token is handed out, and only if it allows that.",
        temporary=True,
        lifetime=LIFETIME,
        revocable=True,
    ),
    m.AuthMethod(
        name="password",
        title="User and password",
        config=settings.PasswordConfig,
        description=(
            "Basic authentication. Kubernetes itself dropped it in 1.19: this is for proxies in front of a cluster, "
            "and for older servers. " + WITH_ACCOUNT + "The password itself is never handed out."
        ),
        temporary=True,
        lifetime=LIFETIME,
        revocable=True,
    ),
    m.AuthMethod(
        name="client-certificate",
        title="Client certificate",
        config=settings.ClientCertificateConfig,
        description=(
            WITH_ACCOUNT + "Without, the certificate and its key are handed out, and only if the connector allows that."
        ),
        temporary=True,
        lifetime=LIFETIME,
        revocable=True,
    ),
    m.AuthMethod(
        name="service-account",
        title="The pod's own service account",
        config=settings.ServiceAccountConfig,
        description=(
            "The projected token of the pod that mooring runs in, read anew when it rotates; off unless mooring's "
            "configuration allows it. " + WITH_ACCOUNT
        ),
        temporary=True,
        lifetime=LIFETIME,
        revocable=True,
        implicit=True,
    ),
    m.AuthMethod(
        name="kubeconfig",
        title="Kubeconfig",
        config=settings.KubeconfigConfig,
        description=(
            "A context of a kubeconfig. A program that it names for credentials (exec) runs only with allow_exec, and "
            "only if exec_commands lists it; auth-provider blocks, which Kubernetes dropped in 1.26, are refused. "
            + WITH_ACCOUNT
        ),
        temporary=True,
        lifetime=LIFETIME,
        revocable=True,
    ),
)
