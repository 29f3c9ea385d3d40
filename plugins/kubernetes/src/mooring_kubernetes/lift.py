"""Connectors out of the kubeconfigs that kubectl would read, and out of the pod that mooring runs in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread
import yaml

import mooring as m
from mooring_kubernetes import kubeconfig
from mooring_kubernetes.methods import METHODS
from mooring_kubernetes.render import encoded
from mooring_kubernetes.settings import IN_CLUSTER, KubeconfigConfig
from mooring_kubernetes.way import Way, expanded

USUAL = "~/.kube/config"
FIELD = "kubeconfig_file"
LOOKED_FOR = ("kubeconfig_file", "context", "allow_exec", "exec_commands")
"""Options that lead to what is lifted; the others are fields of it."""

BY_FIELD = {
    "tokenFile": "kubeconfig",
    "token": "token",
    "username": "password",
    "exec": "kubeconfig",
    "client-certificate-data": "client-certificate",
    "client-certificate": "client-certificate",
}
"""The auth method of a user, by the first of these fields that it has, as `kubeconfig` reads them."""


async def lift(request: m.LiftRequest) -> m.Lifted:
    """The current context, or the one that is named; without a kubeconfig, the pod's service account if allowed.

    Raises:
        InvalidConfig: a kubeconfig is broken, or the context cannot be used.
        NothingToLift: there is nothing, or nothing for the auth method that is wanted.
        NotPermitted: the service account is wanted and implicit authentication is off, or the context runs a program.
    """
    _check(request)
    if request.auth_method == "service-account":
        return _pod(request)
    found = await anyio.to_thread.run_sync(_contexts, request.options)
    if found is None and request.auth_method is None and request.allow_implicit and _is_pod():
        return _pod(request)
    if found is None:
        raise m.NothingToLift(f"no kubeconfig on this machine; looked in {_places(request.options)}")
    document, _ = found
    name, _ = kubeconfig.context_of(document, request.options.get("context"), FIELD)
    return await anyio.to_thread.run_sync(_lifted, document, name, request)


async def lift_all(request: m.LiftRequest) -> tuple[m.Lifted | m.Unlifted, ...]:
    """Every context, or the one that is named; those that cannot be used with the reason.

    Raises:
        InvalidConfig: a kubeconfig is broken.
        NothingToLift: there is no kubeconfig, or it has no such context.
    """
    _check(request)
    found = await anyio.to_thread.run_sync(_contexts, request.options)
    if found is None:
        raise m.NothingToLift(f"no kubeconfig on this machine; looked in {_places(request.options)}")
    document, names = found
    if (wanted := request.options.get("context")) is not None:
        names = [kubeconfig.context_of(document, wanted, FIELD)[0]]
    if not names:
        raise m.NothingToLift(f"no context in {_places(request.options)}")
    lifted: list[m.Lifted | m.Unlifted] = []
    for name in names:
        try:
            lifted.append(await anyio.to_thread.run_sync(_lifted, document, name, request))
        except m.ConfigError as error:
            lifted.append(
                m.Unlifted(
                    name=name,
                    error=error.with_traceback(None),
                    auth_method=_method_of(document, name),
                    source=_source(name, request.options),
                )
            )
    return tuple(lifted)


def _check(request: m.LiftRequest) -> None:
    known = {method.name for method in METHODS}
    if request.auth_method is not None and request.auth_method not in known:
        raise m.UnknownAuthMethod(
            f"kubernetes has no auth method {request.auth_method!r}; known: {', '.join(sorted(known))}"
        )
    if request.auth_method == "service-account" and not request.allow_implicit:
        raise m.NotPermitted(
            "the auth method service-account is off; allow implicit authentication in mooring's configuration first"
        )


def paths(options: Mapping[str, Any]) -> tuple[Path, ...]:
    """The files that are read: the one that is named, those of KUBECONFIG, or kubectl's usual one."""
    if named := options.get("kubeconfig_file"):
        return (expanded(Path(str(named)), FIELD),)
    listed = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return tuple(expanded(Path(part), "KUBECONFIG") for part in dict.fromkeys(listed or [USUAL]))


def there(path: Path) -> bool:
    """Whether a path leads to something; no for one that cannot be looked for."""
    return os.path.exists(path)  # noqa: PTH110  (Path.exists raises for names that are too long)


def _places(options: Mapping[str, Any]) -> str:
    return ", ".join(map(str, paths(options)))


def _contexts(options: Mapping[str, Any]) -> tuple[kubeconfig.Document, list[str]] | None:
    """All files as one, and the names of its contexts; None without a file. One that is named must be there."""
    present = [path for path in paths(options) if there(path) or options.get("kubeconfig_file")]
    if not present:
        return None
    document = kubeconfig.merged(kubeconfig.loaded(path, FIELD) for path in present)
    return document, [entry["name"] for entry in document["contexts"]]


def _lifted(document: kubeconfig.Document, name: str, request: m.LiftRequest) -> m.Lifted:
    """A context as an auth method; the program of an exec plugin stays in a kubeconfig of its own."""
    try:
        return _of_context(document, name, request)
    except m.MooringError as error:
        problem = error
    raise problem.with_traceback(None)  # its frames held what the kubeconfig holds


def _of_context(document: kubeconfig.Document, name: str, request: m.LiftRequest) -> m.Lifted:
    _, context = kubeconfig.context_of(document, name, FIELD)
    user = kubeconfig.named(document, "users", context.get("user"), FIELD)
    options = {key: value for key, value in request.options.items() if value is not None}
    given = {key: value for key, value in options.items() if key not in LOOKED_FOR}
    allowed: dict[str, Any] = {key: options[key] for key in ("allow_exec", "exec_commands") if key in options}
    insecure = {"insecure_skip_tls_verify": bool(options.get("insecure_skip_tls_verify"))}
    probe = m.build_config(
        KubeconfigConfig, {"cluster_name": "x", "kubeconfig_file": "x", "context": name, **allowed, **insecure}
    )
    way = kubeconfig.way_in(document, FIELD, probe)
    if way.exec is not None or way.token_file is not None:
        method = "kubeconfig"
        fields: dict[str, Any] = {key: True for key, value in insecure.items() if value}
        if way.exec is not None:
            fields |= {"kubeconfig": m.Secret(_alone(way, user, name)), **allowed}
        else:
            fields |= {"kubeconfig_file": str(_file_of(name, request.options)), "context": name}
    else:
        method, fields = _plain(way)
    if request.auth_method not in (None, method):
        raise m.NothingToLift(f"the context {name!r} has no {request.auth_method}; it has what {method} takes")
    common = {"cluster_name": context.get("cluster"), "namespace": way.namespace}
    config = next(one for one in METHODS if one.name == method).config
    return m.Lifted(
        auth_method=method,
        config=m.build_config(config, common | fields | given),
        source=_source(name, request.options),
        expires_at=_ends(way),
        name=name,
    )


def _source(name: str, options: Mapping[str, Any]) -> str:
    return f"the context {name!r} of {_places(options)}"


def _method_of(document: kubeconfig.Document, name: str) -> str:
    """The auth method that a context would be, as far as its user says; empty if it does not."""
    try:
        _, context = kubeconfig.context_of(document, name, FIELD)
        user = kubeconfig.named(document, "users", context.get("user"), FIELD)
    except m.ConfigError:
        return ""
    return next((method for field, method in BY_FIELD.items() if user.get(field)), "")


def _plain(way: Way) -> tuple[str, dict[str, Any]]:
    """A way without programs and files as one of the auth methods that are told where the server is."""
    fields: dict[str, Any] = {
        "server": way.server,
        "certificate_authority": way.certificate_authority,
        "insecure_skip_tls_verify": way.insecure_skip_tls_verify,
        "proxy_url": way.proxy_url,
        "tls_server_name": way.tls_server_name,
    }
    if way.token is not None:
        return "token", fields | {"token": way.token}
    if way.password is not None:
        return "password", fields | {"username": way.username, "password": way.password}
    return "client-certificate", fields | {
        "client_certificate": way.client_certificate,
        "client_key": way.client_key,
    }


def _alone(way: Way, user: Mapping[str, Any], name: str) -> str:
    """A kubeconfig with one context, whose files are in it."""
    cluster: dict[str, Any] = {
        "server": way.server,
        "certificate-authority-data": encoded(way.certificate_authority) if way.certificate_authority else None,
        "insecure-skip-tls-verify": way.insecure_skip_tls_verify or None,
        "tls-server-name": way.tls_server_name,
        "proxy-url": way.proxy_url,
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {key: value for key, value in cluster.items() if value is not None}}],
        "users": [{"name": name, "user": {"exec": user["exec"]}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    return yaml.safe_dump(document, sort_keys=False)


def _file_of(name: str, options: Mapping[str, Any]) -> Path:
    """The file that has a context."""
    for path in paths(options):
        if there(path) and any(entry["name"] == name for entry in kubeconfig.loaded(path, FIELD)["contexts"]):
            return path.absolute()
    raise m.NothingToLift(f"the context {name!r} is no longer there; try again")


def _ends(way: Way) -> Any:
    from mooring_kubernetes import claims

    if way.token is not None:
        return claims.ends_of_token(way.token)
    return claims.ends_of_certificate(way.client_certificate) if way.client_certificate is not None else None


def _is_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and Path(IN_CLUSTER, "token").exists()


def _pod(request: m.LiftRequest) -> m.Lifted:
    """The pod's own service account, kept implicit."""
    options = {key: value for key, value in request.options.items() if value is not None}
    file = Path(options.get("token_file") or f"{IN_CLUSTER}/token")
    if not file.exists() or not (options.get("server") or os.environ.get("KUBERNETES_SERVICE_HOST")):
        raise m.NothingToLift(f"this is no pod of a cluster; looked for KUBERNETES_SERVICE_HOST and {file}")
    fields = {"cluster_name": "in-cluster"} | options
    config = next(one for one in METHODS if one.name == "service-account").config
    return m.Lifted(
        auth_method="service-account",
        config=m.build_config(config, fields),
        source="the pod's service account, kept implicit",
        name=str(fields["cluster_name"]),
    )
