"""Docker and podman that ask mooring: an entry of `credHelpers`, which names `docker-credential-mooring`."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import mooring as m
from mooring_docker import files, ids, logins
from mooring_docker.logins import OURS
from mooring_docker.render import HELPER, keys_of, needs_login

PROGRAM = f"docker-credential-{OURS}"


def login(request: m.LoginRequest) -> m.LoginChange:
    """The registry's entry, in docker's `config.json` unless another file is named.

    Raises:
        UnsupportedResource: the credentials are no user and password.
        InvalidConfig: the file is broken or cannot be written, or somebody else's helper serves the registry.
    """
    with files.alone(request.folder):
        return _login(request)


def _login(request: m.LoginRequest) -> m.LoginChange:
    if request.name is not None:
        raise m.InvalidConfig("docker and podman know a registry by its host alone; leave out --name", field="name")
    credentials = needs_login(request.credentials)
    host = credentials.registry
    file = (request.file or files.docker_file()).absolute()
    remembered = request.folder / logins.NAME
    present = _served(remembered, host)
    other = (present or {}).get("connector")
    if isinstance(other, str) and other != request.connector:
        raise m.InvalidConfig(f"logins to {host} come from the connector {other!r}; log that one out first")
    earlier = _files_of(present)
    entry = {
        "connector": request.connector,
        "resource_id": request.resource_id,
        "username": credentials.username,
        "command": [*request.command, "--format", HELPER],
        "files": sorted({*earlier, str(file)}),
    }
    notes: list[str] = []
    added: list[str] = []

    def add(values: dict[str, Any]) -> bool:
        own = values["credHelpers"] = {} if values.get("credHelpers") is None else values["credHelpers"]
        if not isinstance(own, dict):
            raise m.InvalidConfig(f"{file} is broken: its credHelpers are no JSON object; mend it")
        for key in keys_of(host):
            if own.get(key, OURS) != OURS:
                raise m.InvalidConfig(
                    f"{file} has another credential helper for {key}; remove that entry of credHelpers first"
                )
            if key not in own:
                own[key] = OURS
                added.append(key)
            if files.table(files.table(values, "auths"), key).get("auth"):
                notes.append(f"{file} still holds an older login for {key}, with its password; it is no longer used")
        return bool(added)

    _put(remembered, host, entry)  # first, so that what is in docker's file can always be found again
    try:
        backup = files.discreetly(lambda: files.change(file, add))
    except BaseException:
        _put(remembered, host, present)
        raise
    return m.LoginChange(file=str(file), entries=tuple(added), backup=backup, notes=(*notes, *_unfindable()))


def _unfindable() -> tuple[str, ...]:
    """A note, where docker and podman would not find our helper."""
    if shutil.which(PROGRAM) is not None:
        return ()
    return (f"{PROGRAM} is not on the PATH, where docker and podman look for it; add its folder, or a link to it",)


def logout(request: m.LogoutRequest) -> m.LoginChange:
    """Without the entries of the connector; all else stays."""
    with files.alone(request.folder):
        return _logout(request)


def _logout(request: m.LogoutRequest) -> m.LoginChange:
    remembered = request.folder / logins.NAME
    _, values = files.read(remembered)
    served = {host: entry for host, entry in values.items() if _is_of(entry, request)}
    removed: list[str] = []
    backup: str | None = None
    changed: Path | None = None
    for host, entry in served.items():
        named = [Path(name) for name in _files_of(entry)]
        for file in [request.file.absolute()] if request.file else named:
            keys = keys_of(host)

            def remove(values: dict[str, Any], keys: tuple[str, ...] = keys) -> bool:
                own = files.table(values, "credHelpers")
                ours = [key for key in keys if own.get(key) == OURS]
                for key in ours:
                    del own[key]
                if not own:
                    values.pop("credHelpers", None)
                removed.extend(ours)
                return bool(ours)

            kept = files.discreetly(partial(files.change, file, remove))
            backup, changed = kept or backup, file
        left = [str(file) for file in named if request.file and file != request.file.absolute()]
        _put(remembered, host, {**entry, "files": left} if left else None)
    shown = changed or request.file or files.docker_file()
    return m.LoginChange(file=str(shown), entries=tuple(dict.fromkeys(removed)), backup=backup)


def _files_of(entry: dict[str, Any] | None) -> list[str]:
    """The files that an entry names, as far as it is whole."""
    files = (entry or {}).get("files")
    return [name for name in files if isinstance(name, str) and _is_path(name)] if isinstance(files, list) else []


def _is_path(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeError:
        return False


def _is_of(entry: Any, request: m.LogoutRequest) -> bool:
    return (
        isinstance(entry, dict)
        and entry.get("connector") == request.connector
        and request.resource_type in (None, ids.REGISTRY)
        and request.resource_id in (None, entry.get("resource_id"))
    )


def _served(remembered: Path, host: str) -> dict[str, Any] | None:
    found = files.read(remembered)[1].get(host)
    return found if isinstance(found, dict) else None


def _put(remembered: Path, host: str, entry: dict[str, Any] | None) -> None:
    def put(values: dict[str, Any]) -> bool:
        if entry == values.get(host):
            return False
        if entry is None:
            values.pop(host, None)
        else:
            values[host] = entry
        return True

    files.change(remembered, put, keep=False)
