"""Kubeconfigs: read, merged as kubectl merges them, and a context of one as the way to its cluster.

Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import mooring as m
from mooring_kubernetes import formats, ids
from mooring_kubernetes.settings import KubeconfigConfig
from mooring_kubernetes.way import LONGEST_FILE, ExecPlugin, Way, expanded, read

T = TypeVar("T")
Document = dict[str, Any]
SECTIONS = {"clusters": "cluster", "users": "user", "contexts": "context"}
PATHS = {"clusters": ("certificate-authority",), "users": ("client-certificate", "client-key", "tokenFile")}
"""What may name a file, by section."""
VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
INSTEAD = {
    "gcp": "install gke-gcloud-auth-plugin and run: gcloud container clusters get-credentials NAME",
    "azure": "run: kubelogin convert-kubeconfig",
    "oidc": "use an exec plugin such as kubectl oidc-login",
}
"""What to do about the auth-provider blocks that there were."""


def way_of(config: KubeconfigConfig) -> Way:
    """The way that a context says. Blocks where the kubeconfig is a file, or names files."""
    try:
        return _way_of(config)
    except m.MooringError as error:
        problem = error
    raise problem.with_traceback(None)  # its frames held what the kubeconfig holds


def cluster_of(config: KubeconfigConfig) -> str:
    """The cluster's name in the context. Blocks where the kubeconfig is a file."""
    try:
        field, document = _document_of(config)
        _, context = context_of(document, config.context, field)
        if name := _text(context, "cluster", field):
            return name
        raise _broken(field, "names no cluster")
    except m.MooringError as error:
        problem = error
    raise problem.with_traceback(None)  # as above


def _way_of(config: KubeconfigConfig) -> Way:
    field, document = _document_of(config)
    return way_in(document, field, config)


def _document_of(config: KubeconfigConfig) -> tuple[str, Document]:
    """The field that says the kubeconfig, and its document."""
    if config.kubeconfig is not None:
        field, document = "kubeconfig", parsed(config.kubeconfig.reveal(), "kubeconfig")
        if _names_files(document):
            raise m.InvalidConfig(
                "field 'kubeconfig' refers to files; give it whole: kubectl config view --flatten --raw", field=field
            )
    else:
        field, document = "kubeconfig_file", loaded(Path(config.kubeconfig_file or ""), "kubeconfig_file")
    return field, document


def parsed(text: str, field: str) -> Document:
    """The document of a kubeconfig's text; never says what it holds."""
    from mooring_kubernetes.plain import Unreadable, plain

    if len(text) > LONGEST_FILE:
        raise _broken(field, "is longer than 1 MiB")
    try:
        document = plain(text)
    except Unreadable as error:
        where = f" (line {error.line})" if error.line is not None else ""
    else:
        document = {} if document is None else document
        if isinstance(document, dict) and document.get("kind", "Config") == "Config":
            for section in SECTIONS:
                _checked_section(document, section, field)
            return document
        if isinstance(document, str) and field == "kubeconfig":
            raise m.InvalidConfig(
                "field 'kubeconfig' is no kubeconfig; name a file with --kubeconfig-file FILE, "
                "or give what it holds with --kubeconfig @FILE",
                field=field,
            )
        raise _broken(field, "is no kubeconfig")
    raise _broken(field, f"is no YAML{where}")


def _checked_section(document: Document, section: str, field: str) -> None:
    entries = document.get(section)
    document[section] = entries = [] if entries is None else entries
    fine = isinstance(entries, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get(SECTIONS[section]) or {}, dict)
        for entry in entries
    )
    if not fine:
        raise _broken(field, f"has a broken list of {section}")


def _broken(field: str, what: str) -> m.InvalidConfig:
    return m.InvalidConfig(f"the kubeconfig of field {field!r} {what}; check it with: kubectl config view", field=field)


def loaded(path: Path, field: str) -> Document:
    """The document of a file, with the paths in it made absolute."""
    path = expanded(path, field)
    document = parsed(read(str(path), field), field)
    for section, names in PATHS.items():
        for entry in document[section]:
            held = entry.get(SECTIONS[section]) or {}
            for name in names:
                if isinstance(held.get(name), str) and held[name]:
                    held[name] = str(path.parent.absolute() / held[name])
            program = held.get("exec")
            command = program.get("command") if isinstance(program, dict) else None
            if isinstance(program, dict) and isinstance(command, str) and os.sep in command:
                program["command"] = os.path.normpath(path.parent.absolute() / command)
    return document


def merged(documents: Iterable[Document]) -> Document:
    """Several as one: of each name the first counts, and the first current context."""
    whole: Document = {section: [] for section in SECTIONS} | {"current-context": None}
    for document in documents:
        for section in SECTIONS:
            known = {entry["name"] for entry in whole[section]}
            for entry in document[section]:
                if entry["name"] not in known:
                    known.add(entry["name"])
                    whole[section].append(entry)
        whole["current-context"] = whole.get("current-context") or document.get("current-context")
    return whole


def _names_files(document: Document) -> bool:
    return any(
        (entry.get(SECTIONS[section]) or {}).get(name)
        for section, names in PATHS.items()
        for entry in document[section]
        for name in names
    )


def named(document: Document, section: str, name: Any, field: str) -> dict[str, Any]:
    """What a section holds under a name."""
    for entry in document[section]:
        if entry["name"] == name:
            held: dict[str, Any] = entry.get(SECTIONS[section]) or {}
            return held
    kind = SECTIONS[section]
    if not name:
        raise _broken(field, f"names no {kind}")
    known = ", ".join(sorted(entry["name"] for entry in document[section] if ids.NAME.fullmatch(entry["name"]))[:20])
    raise m.InvalidConfig(f"the kubeconfig has no such {kind}; known: {known or 'none'}", field=field)


def context_of(document: Document, wanted: str | None, field: str) -> tuple[str, dict[str, Any]]:
    """The context that is wanted, or the current one, with its name."""
    name = wanted or _text(document, "current-context", field)
    if name is None:
        raise m.InvalidConfig("the kubeconfig has no current context; name one in the field context", field="context")
    return name, named(document, "contexts", name, "context" if wanted else field)


def way_in(document: Document, field: str, config: KubeconfigConfig) -> Way:
    """The way that a document's context says, within what the configuration allows."""
    _, context = context_of(document, config.context, field)
    cluster = named(document, "clusters", context.get("cluster"), field)
    user = named(document, "users", context.get("user"), field)
    server = _text(cluster, "server", field) or ""
    insecure = cluster.get("insecure-skip-tls-verify") is True
    if insecure and not config.insecure_skip_tls_verify:
        raise m.InvalidConfig(
            "the kubeconfig says insecure-skip-tls-verify; give the cluster's CA in it, "
            "or set insecure_skip_tls_verify to trust whoever answers",
            field="insecure_skip_tls_verify",
        )
    _sound(partial(formats.check_server, server, insecure=insecure), "server", field)
    authority = None if insecure else _data(cluster, "certificate-authority", field)
    name, proxy = _text(cluster, "tls-server-name", field), _text(cluster, "proxy-url", field)
    if name is not None:
        _sound(partial(formats.match, formats.HOST, name, form="a host's name"), "tls-server-name", field)
    if proxy is not None:
        form = "http://HOST:PORT, without a user"
        _sound(partial(formats.match, formats.PROXY, proxy, form=form), "proxy-url", field)
    return Way(
        server=server.rstrip("/"),
        certificate_authority=(
            _sound(partial(formats.certificates, authority), "certificate-authority", field) if authority else None
        ),
        insecure_skip_tls_verify=insecure,
        tls_server_name=name,
        proxy_url=proxy,
        namespace=config.namespace or _text(context, "namespace", field),
        **_credential(user, field, config),
    )


def _credential(user: Mapping[str, Any], field: str, config: KubeconfigConfig) -> dict[str, Any]:
    if "auth-provider" in user:
        held = user["auth-provider"]
        what = INSTEAD.get(str(held.get("name")) if isinstance(held, dict) else "", "use an exec plugin")
        raise m.InvalidConfig(
            f"the kubeconfig has an auth-provider block, which Kubernetes dropped in 1.26; {what}", field=field
        )
    if any(user.get(name) for name in ("as", "as-uid", "as-groups", "as-user-extra")):
        raise m.InvalidConfig(
            "the kubeconfig's user acts as another (as), which mooring does not; name a context without", field=field
        )
    found: dict[str, Any] = {}
    certificate, key = _data(user, "client-certificate", field), _data(user, "client-key", field)
    if certificate and key:
        found["client_certificate"] = _sound(partial(formats.certificates, certificate), "client-certificate", field)
        found["client_key"] = _sound(partial(formats.private_key, m.Secret(key)), "client-key", field)
    if path := _text(user, "tokenFile", field):
        found["token_file"] = path
    elif token := _text(user, "token", field):
        _sound(partial(formats.check_token, found.setdefault("token", m.Secret(token))), "token", field)
    elif user.get("username"):
        found |= {"username": _text(user, "username", field)}
        found |= {"password": m.Secret(_text(user, "password", field) or "")}
    elif user.get("exec"):
        found["exec"] = _allowed(user["exec"], field, config)
    if not found:
        raise m.InvalidConfig("the kubeconfig's user has no credentials; name another context", field=field)
    return found


def _allowed(program: Any, field: str, config: KubeconfigConfig) -> ExecPlugin:
    """The program, if it may run.

    Raises:
        NotPermitted: it may not. Its name is said only if it is a plain one.
    """
    program = program if isinstance(program, dict) else {}
    command, version = program.get("command"), program.get("apiVersion")
    arguments, variables = program.get("args") or [], program.get("env") or []
    fine = (
        isinstance(command, str)
        and bool(command)
        and isinstance(arguments, list)
        and all(isinstance(one, str) for one in arguments)
        and isinstance(variables, list)
        and all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in variables)
    )
    if not fine:
        raise _broken(field, "has a broken exec block")
    if version not in VERSIONS:
        raise m.InvalidConfig(
            f"the kubeconfig's exec block has an apiVersion that is gone; write {VERSIONS[0]}", field=field
        )
    if program.get("interactiveMode") == "Always":
        raise m.InvalidConfig("the kubeconfig's program asks at a terminal, and here is none", field=field)
    if not config.allow_exec or command not in config.exec_commands:
        shown = command if command.isprintable() and len(command) <= MAX_COMMAND else "a program"
        raise m.NotPermitted(
            f"the kubeconfig wants to run {shown!r} for credentials, which is not allowed; if you trust it, set "
            f"allow_exec and list it in exec_commands"
        )
    return ExecPlugin(
        command=command,
        arguments=tuple(arguments),
        environment=tuple((one["name"], m.Secret(str(one.get("value", "")))) for one in variables),
        version=version,
        cluster_info=program.get("provideClusterInfo") is True,
    )


MAX_COMMAND = 200


def _sound(check: Callable[..., T], name: str, field: str) -> T:
    """What a check gives of the kubeconfig's field of that name; its error is about the kubeconfig."""
    try:
        return check(field=name)
    except m.InvalidConfig as error:
        problem = f"in the kubeconfig, {error.message}"
    raise m.InvalidConfig(problem, field=field)


def _text(held: Mapping[str, Any], name: str, field: str) -> str | None:
    value = held.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _broken(field, f"has a {name} that is no text")
    return value


def _data(held: Mapping[str, Any], name: str, field: str) -> str | None:
    """What is given in place, in base64, or else in a file."""
    data = _text(held, f"{name}-data", field)
    if data is not None:
        try:
            return base64.b64decode("".join(data.split()), validate=True).decode()
        except (binascii.Error, ValueError):
            pass
        raise _broken(field, f"has a {name}-data that is not in base64")
    path = _text(held, name, field)
    return _sound(partial(read, path), name, field) if path is not None else None
