"""The way to a cluster: everything that a configuration, or a context of a kubeconfig, says of it."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

import mooring as m
from mooring.types import Struct
from mooring_kubernetes import formats, settings

LONGEST_FILE = 1024 * 1024
"""Bytes of a file that are read, at most; etcd takes no larger Secret."""


class ExecPlugin(Struct):
    """A program that prints credentials."""

    command: str
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, m.Secret], ...] = ()
    version: str = "client.authentication.k8s.io/v1"
    cluster_info: bool = False


class Way(Struct):
    """Where the API server is, how it is told from others, and by what it knows us. Certificates and keys are PEM."""

    server: str
    certificate_authority: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None
    namespace: str | None = None
    token: m.Secret | None = None
    token_file: str | None = None
    username: str | None = None
    password: m.Secret | None = None
    client_certificate: str | None = None
    client_key: m.Secret | None = None
    exec: ExecPlugin | None = None


def way_of(config: settings.KubernetesConfig) -> Way:
    """The way that a configuration says. Blocks: it reads the files that it names.

    Raises:
        InvalidConfig: a file cannot be read, or does not hold what it should.
        NotPermitted: a kubeconfig wants to run a program that is not allowed.
    """
    if isinstance(config, settings.KubeconfigConfig):
        from mooring_kubernetes import kubeconfig

        return kubeconfig.way_of(config)
    if isinstance(config, settings.ServiceAccountConfig):
        return _in_cluster(config)
    if not isinstance(config, settings.ServerConfig):
        raise m.BrokenPlugin("mooring-kubernetes was given a configuration that is not its own; report this")
    authority = config.certificate_authority
    common = Way(
        server=config.server.rstrip("/"),
        certificate_authority=formats.certificates(authority, "certificate_authority") if authority else None,
        insecure_skip_tls_verify=config.insecure_skip_tls_verify,
        tls_server_name=config.tls_server_name,
        proxy_url=config.proxy_url,
        namespace=config.namespace,
    )
    return msgspec.structs.replace(common, **_credential(config))


def endpoint_of(config: settings.KubernetesConfig) -> str:
    """The API server's host and port. A kubeconfig's file is not read for it: it goes by its own name."""
    if isinstance(config, settings.KubeconfigConfig) and config.kubeconfig_file is not None:
        return f"the cluster of {config.kubeconfig_file} ({config.context or 'its current context'})"
    if isinstance(config, settings.ServiceAccountConfig):
        server = config.server or _server_of_environment()
    else:
        server = way_of(config).server
    parts = urlsplit(server)
    return parts.netloc if parts.port else f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}"


def _credential(config: settings.ServerConfig) -> dict[str, str | m.Secret]:
    if isinstance(config, settings.TokenConfig):
        return {"token": config.token}
    if isinstance(config, settings.PasswordConfig):
        return {"username": config.username, "password": config.password}
    if isinstance(config, settings.ClientCertificateConfig):
        return {
            "client_certificate": formats.certificates(config.client_certificate, "client_certificate"),
            "client_key": formats.private_key(config.client_key),
        }
    raise m.BrokenPlugin("mooring-kubernetes was given a configuration that is not its own; report this")


def _in_cluster(config: settings.ServiceAccountConfig) -> Way:
    server = config.server or _server_of_environment()
    authority = read(config.certificate_authority_file, "certificate_authority_file")
    return Way(
        server=server.rstrip("/"),
        certificate_authority=formats.certificates(authority, "certificate_authority_file"),
        namespace=config.namespace,
        token_file=config.token_file,
    )


def _server_of_environment() -> str:
    """The address that Kubernetes gives every container."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise m.InvalidConfig(
            "KUBERNETES_SERVICE_HOST is not set, so this is no pod of a cluster; give the field server", field="server"
        )
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    formats.check_server(server, insecure=False)
    return server


def expanded(path: Path, field: str) -> Path:
    """A path with the home of ~ or ~USER in it.

    Raises:
        InvalidConfig: there is no such home.
    """
    try:
        return path.expanduser()
    except (RuntimeError, ValueError):
        pass
    raise m.InvalidConfig(f"the path in {field!r} begins with the home (~) of nobody; write it in full", field=field)


def read(path: str, field: str) -> str:
    """The text of a small file.

    Raises:
        InvalidConfig: it cannot be read, is too long, or is no text.
    """
    reason = "cannot be read; check that it is there and may be read"
    try:
        with expanded(Path(path), field).open("rb") as file:
            content = file.read(LONGEST_FILE + 1)
        if len(content) <= LONGEST_FILE:
            return content.decode()
        reason = "is longer than 1 MiB; name the right one"
    except ValueError:
        reason = "is no text; name the right one"
    except OSError:
        pass
    raise m.InvalidConfig(f"the file of {field!r} {reason}", field=field)
