"""kubectl, and all that reads kubeconfigs, with credentials of mooring: an exec entry, and no secret on disk.

An entry is marked, in its `extensions` (which kubectl keeps), with the connector that it is for; so what is removed
later is what was written here, even if it was moved to another file.

Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mooring as m
from mooring_kubernetes.edit import FIELD, edit
from mooring_kubernetes.ids import NAME
from mooring_kubernetes.kubeconfig import SECTIONS
from mooring_kubernetes.lift import paths
from mooring_kubernetes.render import VERSIONS, cluster_entry, context_entry

MARK = "mooring"


def login(request: m.LoginRequest, credentials: m.KubernetesAccess) -> m.LoginChange:
    """Add, or write anew, the entries of a connector's cluster. The current context stays, unless there is none."""
    name = request.name or _name(request)
    if not NAME.fullmatch(name):
        raise m.InvalidConfig("the entry's name is malformed; write letters, digits and ._:/@-", field="name")
    mark = {
        "connector": request.connector,
        "resource-type": request.resource_type,
        "resource-id": request.resource_id,
        "access": request.access,
    }
    held = {
        "clusters": cluster_entry(credentials),
        "users": {"exec": _exec(request)},
        "contexts": context_entry(credentials, name),
    }
    file = _file(request.file)
    current = ""

    def change(document: Any) -> list[str]:
        nonlocal current
        for section, kind in SECTIONS.items():
            extensions = [{"name": MARK, "extension": {key: value for key, value in mark.items() if value}}]
            _put(document, section, name, kind, held[section] | {"extensions": extensions}, request.connector)
        current = document.get("current-context") or ""
        if not current:
            document["current-context"] = current = name
        return [name]

    names, backup = edit(file, change)
    notes = () if current == name else (f"use it with: kubectl --context {name}",)
    return m.LoginChange(file=str(file), entries=tuple(names), backup=backup, notes=notes)


def logout(request: m.LogoutRequest) -> m.LoginChange:
    """Remove the entries of a connector, or of one of its resources, and the current context if it is one of them."""
    file = _file(request.file)
    if not file.exists():
        return m.LoginChange(file=str(file), entries=())

    def change(document: Any) -> list[str]:
        removed: dict[str, None] = {}
        for section, kind in SECTIONS.items():
            entries = _entries(document, section)
            for place in reversed(range(len(entries))):
                if _is_of(_mark(entries[place], kind), request):
                    removed[str(entries[place].get("name"))] = None
                    del entries[place]
        if document.get("current-context") in removed:
            document["current-context"] = ""
        return sorted(removed)

    names, backup = edit(file, change)
    return m.LoginChange(file=str(file), entries=tuple(names), backup=backup)


def _name(request: m.LoginRequest) -> str:
    """The connector, and the resource where it reaches several."""
    parts = ["mooring", request.connector, request.resource_id or ""]
    return re.sub(r"[^A-Za-z0-9._:/@-]+", "-", "-".join(filter(None, parts)))[:253]


def _file(named: Path | None) -> Path:
    """The file that is named; else of KUBECONFIG's the first that exists, or the last; else kubectl's usual one."""
    if named is not None:
        return named.expanduser()
    candidates = paths({})
    return next((path for path in candidates if path.exists()), candidates[-1])


def _exec(request: m.LoginRequest) -> dict[str, Any]:
    command, *arguments = request.command
    return {
        "apiVersion": VERSIONS[0],
        "command": command,
        "args": [*arguments, "--format", "exec-credential"],
        "interactiveMode": "Never",
        "provideClusterInfo": False,
    }


def _put(document: Any, section: str, name: str, kind: str, held: dict[str, Any], connector: str) -> None:
    """Write an entry, over an earlier one of the same connector."""
    entries = _entries(document, section)
    entry = {"name": name, kind: held}
    for place, known in enumerate(entries):
        if known.get("name") == name:
            if _mark(known, kind).get("connector") != connector:
                raise m.InvalidConfig(
                    f"the kubeconfig has another entry {name!r} among its {section}; choose another name", field="name"
                )
            entries[place] = entry
            return
    entries.append(entry)


def _entries(document: Any, section: str) -> Any:
    if document.get(section) is None:
        document[section] = []
    entries = document[section]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise m.InvalidConfig(
            f"the kubeconfig has a broken list of {section}; nothing was changed; check it with: kubectl config view",
            field=FIELD,
        )
    return entries


def _mark(entry: Any, kind: str) -> dict[str, Any]:
    """The mark of an entry that was written here; empty for another."""
    held = entry.get(kind)
    extensions = held.get("extensions") if isinstance(held, dict) else None
    for one in extensions if isinstance(extensions, list) else ():
        if isinstance(one, dict) and one.get("name") == MARK and isinstance(one.get("extension"), dict):
            return dict(one["extension"])
    return {}


def _is_of(mark: dict[str, Any], request: m.LogoutRequest) -> bool:
    wanted = {
        "connector": request.connector,
        "resource-type": request.resource_type,
        "resource-id": request.resource_id,
    }
    return all(mark.get(key) == value for key, value in wanted.items() if value is not None)
