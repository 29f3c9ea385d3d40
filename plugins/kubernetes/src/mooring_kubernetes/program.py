"""A kubeconfig's program for credentials, run as kubectl runs it: by its own protocol, without a shell.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from datetime import datetime
from typing import Any

import anyio
from anyio.abc import Process

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


async def run(program: ExecPlugin, way: Way, now: datetime) -> Printed:
    """What the program prints. It has nobody to ask, and its standard error stays unread, as it may hold secrets.

    Cancellation: the program is killed, with all that it has started.

    Raises:
        InvalidConfig: there is no such program, or it does not start.
        AuthFailed: it failed, or printed something else, or credentials that have ended.
    """
    found = shutil.which(program.command)
    if found is None:
        raise m.InvalidConfig(f"the program {program.command!r} of the kubeconfig is not on this machine; install it")
    environment = dict(os.environ) | {name: value.reveal() for name, value in program.environment}
    environment["KUBERNETES_EXEC_INFO"] = json.dumps(_info(program, way))
    process: Process | None = None
    try:
        with anyio.CancelScope(shield=True):  # asyncio loses track of a process that is cancelled while it starts
            process = await anyio.open_process(
                [found, *program.arguments],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
    except (OSError, ValueError):  # ValueError: an argument or a variable that no program can be given
        pass
    del environment
    if process is None:
        raise m.InvalidConfig(f"the program {program.command!r} of the kubeconfig does not start; try it in a shell")
    code, output = await _heard(process)
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
    if printed.expires_at is not None and printed.expires_at <= now:
        raise m.AuthFailed(
            f"the program {program.command!r} of the kubeconfig printed credentials that have ended; sign in anew with "
            "it, and check this machine's clock"
        )
    return printed


async def _heard(process: Process) -> tuple[int, bytes]:
    """The exit code, and what was printed; of an endless answer its beginning, and then the program is killed."""
    output = bytearray()
    try:
        if process.stdout is not None:
            with suppress(anyio.EndOfStream):
                while len(output) <= LONGEST_ANSWER:
                    output += await process.stdout.receive()
        return (await process.wait() if len(output) <= LONGEST_ANSWER else 0), bytes(output)
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
            await process.aclose()


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
