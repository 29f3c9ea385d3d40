"""A kubeconfig's program for credentials, run as kubectl runs it: by its own protocol, without a shell.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import datetime
from typing import Any

import anyio

import mooring as m
from mooring.types import Struct
from mooring_kubernetes import formats
from mooring_kubernetes.way import ExecPlugin, Way

LONGEST_ANSWER = 1024 * 1024


class Printed(Struct):
    """The credentials that a program has printed."""

    token: m.Secret | None = None
    client_certificate: str | None = None
    client_key: m.Secret | None = None
    expires_at: datetime | None = None


async def run(program: ExecPlugin, way: Way) -> Printed:
    """What the program prints. It has nobody to ask, and its standard error stays unread, as it may hold secrets.

    Cancellation: the program is killed.

    Raises:
        InvalidConfig: there is no such program.
        AuthFailed: it failed, or printed something else.
    """
    found = shutil.which(program.command)
    if found is None:
        raise m.InvalidConfig(f"the program {program.command!r} of the kubeconfig is not on this machine; install it")
    environment = dict(os.environ) | {name: value.reveal() for name, value in program.environment}
    environment["KUBERNETES_EXEC_INFO"] = json.dumps(_info(program, way))
    code: int | None = None
    output = b""
    try:
        with anyio.CancelScope(shield=True):  # asyncio loses track of a process that is cancelled while it starts
            process = await anyio.open_process(
                [found, *program.arguments],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        async with process:
            output = b"".join([part async for part in process.stdout]) if process.stdout is not None else b""
            code = await process.wait()
    except OSError:
        pass
    del environment
    if code is None:
        raise m.InvalidConfig(f"the program {program.command!r} of the kubeconfig does not start; try it in a shell")
    if code != 0:
        raise m.AuthFailed(
            f"the program {program.command!r} of the kubeconfig failed with exit code {code}; try it in a shell"
        )
    printed = _printed(output, program.version)
    if printed is None:
        raise m.AuthFailed(
            f"the program {program.command!r} of the kubeconfig printed no ExecCredential of {program.version}; "
            "try it in a shell"
        )
    return printed


def _info(program: ExecPlugin, way: Way) -> dict[str, Any]:
    import base64

    spec: dict[str, Any] = {"interactive": False}
    if program.cluster_info:
        authority = way.certificate_authority
        cluster = {
            "server": way.server,
            "certificate-authority-data": base64.b64encode(authority.encode()).decode() if authority else None,
            "insecure-skip-tls-verify": way.insecure_skip_tls_verify or None,
            "tls-server-name": way.tls_server_name,
            "proxy-url": way.proxy_url,
        }
        spec["cluster"] = {name: value for name, value in cluster.items() if value is not None}
    return {"apiVersion": program.version, "kind": "ExecCredential", "spec": spec}


def _printed(output: bytes, version: str) -> Printed | None:
    if len(output) > LONGEST_ANSWER:
        return None
    try:
        document = json.loads(output)
        status = document["status"]
        if document["kind"] != "ExecCredential" or document["apiVersion"] != version:
            return None
        token, certificate = status.get("token"), status.get("clientCertificateData")
        ends = status.get("expirationTimestamp")
        made = Printed(
            token=m.Secret(token) if token else None,
            client_certificate=formats.certificates(certificate, "clientCertificateData") if certificate else None,
            client_key=formats.private_key(m.Secret(status["clientKeyData"])) if certificate else None,
            expires_at=m.instant(ends) if ends else None,
        )
        if made.token is not None:
            formats.check_token(made.token)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, m.InvalidConfig):
        return None
    return made if made.token is not None or made.client_key is not None else None
