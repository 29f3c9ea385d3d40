"""kubectl, and all that reads kubeconfigs, with credentials of mooring: an exec entry, and no secret on disk.

An entry is marked, in its `extensions` (which kubectl keeps), with the connector that it is for; so what is removed
later is what was written here, even if it was moved to another file.

Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import mooring as m
from mooring_kubernetes import comments
from mooring_kubernetes.edit import FIELD, check, edit
from mooring_kubernetes.ids import NAME
from mooring_kubernetes.kubeconfig import SECTIONS, Document, loaded, merged
from mooring_kubernetes.lift import paths, there
from mooring_kubernetes.render import VERSIONS, cluster_entry, context_entry
from mooring_kubernetes.style import quoted
from mooring_kubernetes.way import expanded

MARK = "mooring"
HOME = "MOORING_HOME"


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
    extensions = [{"name": MARK, "extension": {key: value for key, value in mark.items() if value}}]
    file = _file(request.file)
    beside = merged(_beside(file)) if request.file is None else merged([])
    for section, kind in SECTIONS.items():
        _of_us(beside[section], section, name, kind, request.connector)
    current, made = "", False

    def change(document: Any) -> list[str]:
        nonlocal current, made
        for section, kind in SECTIONS.items():
            entry = quoted({"name": name, kind: held[section] | {"extensions": extensions}})
            _put(_entries(document, section), section, entry, kind, request.connector)
        current = document.get("current-context") or beside["current-context"] or ""
        if not current:
            document["current-context"] = current = quoted(name)
            made = True
        return [name]

    names, backup = edit(file, change, _is_marked)
    use = f"use it with: kubectl --context {name}"
    notes = (f"{use}; it is the current context now, as there was none",) if made else (use,) if current != name else ()
    carried = tuple(_variables())
    return m.LoginChange(file=str(file), entries=tuple(names), backup=backup, notes=notes, variables=carried)


def logout(request: m.LogoutRequest) -> m.LoginChange:
    """Remove the entries of a connector, or of one of its resources, and the current context if it is one of them.

    Without a file that is named, all that kubectl reads are looked through; if one of them is broken, none is changed.
    """
    looked = [_file(request.file)] if request.file is not None else list(paths({}))
    files = [file for file in looked if there(file)]
    for file in files:
        check(file)
    changes = [change for file in files if (change := _removed(file, request)).entries]
    return m.LoginChange(
        file=", ".join(change.file for change in changes) or ", ".join(map(str, looked)),
        entries=tuple(dict.fromkeys(name for change in changes for name in change.entries)),
        backup=", ".join(change.backup for change in changes if change.backup) or None,
    )


def _removed(file: Path, request: m.LogoutRequest) -> m.LoginChange:
    """What was taken out of one file."""

    def change(document: Any) -> list[str]:
        removed: dict[str, None] = {}
        for section, kind in SECTIONS.items():
            entries = _entries(document, section)
            for place in reversed(range(len(entries))):
                if _is_of(_mark(entries[place], kind), request):
                    removed[str(entries[place].get("name"))] = None
                    comments.remove(document, section, place)
        if document.get("current-context") in list(removed):
            document["current-context"] = ""
        return sorted(removed)

    names, backup = edit(file, change, _is_marked)
    return m.LoginChange(file=str(file), entries=tuple(names), backup=backup)


def _name(request: m.LoginRequest) -> str:
    """The connector, and the resource where it reaches several."""
    parts = ["mooring", request.connector, request.resource_id or ""]
    return re.sub(r"[^A-Za-z0-9._:/@-]+", "-", "-".join(filter(None, parts)))[:253]


def _file(named: Path | None) -> Path:
    """The file that is named; else of KUBECONFIG's the first that exists, or the last; else kubectl's usual one."""
    if named is not None:
        return expanded(named, FIELD)
    candidates = paths({})
    return next((path for path in candidates if there(path)), candidates[-1])


def _beside(file: Path) -> Generator[Document, None, None]:
    """The other files that kubectl reads; one that is broken says nothing."""
    for path in paths({}):
        if path != file and there(path):
            with suppress(m.MooringError):
                yield loaded(path, FIELD)


def _exec(request: m.LoginRequest) -> dict[str, Any]:
    command, *arguments = request.command
    variables = _variables()
    return {
        "apiVersion": VERSIONS[0],
        "command": command,
        "args": [*arguments, "--format", "exec-credential"],
        "interactiveMode": "Never",
        "provideClusterInfo": False,
    } | ({"env": [{"name": name, "value": value} for name, value in variables.items()]} if variables else {})


def _variables() -> dict[str, str]:
    """Where our connectors are, if not at the usual place: kubectl may be started without that in its environment."""
    home = os.environ.get(HOME)
    return {HOME: str(expanded(Path(home), HOME).absolute())} if home else {}


def _put(entries: Any, section: str, entry: dict[str, Any], kind: str, connector: str) -> None:
    """Write an entry, over an earlier one of the same connector."""
    _of_us(entries, section, entry["name"], kind, connector)
    for place, known in enumerate(entries):
        if known.get("name") == entry["name"]:
            comments.replace(entries, place, entry)
            return
    entries.append(entry)


def _of_us(entries: Any, section: str, name: str, kind: str, connector: str) -> None:
    """Raise InvalidConfig if an entry of that name is not of that connector."""
    for known in entries:
        if known.get("name") == name and _mark(known, kind).get("connector") != connector:
            raise m.InvalidConfig(
                f"the kubeconfig has another entry {name!r} among its {section}; choose another name", field="name"
            )


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


def _is_marked(document: Any) -> bool:
    """Whether there is an entry that was written here, of whatever connector."""
    return any(_mark(entry, kind) for section, kind in SECTIONS.items() for entry in _entries(document, section))


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
