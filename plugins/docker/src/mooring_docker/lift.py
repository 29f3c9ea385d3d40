"""Connectors from the logins of this machine: docker's `config.json` and the `auth.json` of podman and its kin."""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import mooring as m
from mooring.types import build_config
from mooring_docker import files, helpers, ids
from mooring_docker.logins import OURS
from mooring_docker.settings import METHODS

T = TypeVar("T")

IDENTITY_TOKEN_USER = "<token>"  # noqa: S105  what helpers call a user who has an identity token instead of a password


class Entry(NamedTuple):
    """One login that a file has, before its password is looked up."""

    registry: str
    """Canonical."""
    key: str
    """What the file calls it."""
    file: Path
    stored: Mapping[str, Any]
    helper: str | None = None


async def lift(request: m.LiftRequest) -> m.Lifted:
    """The login for the registry that is wanted; else Docker Hub's, else the only one.

    Raises:
        NothingToLift: there is none. The message says where was looked.
        InvalidConfig: a file is broken, or a credential helper fails.
    """
    return await _discreetly(_lift, request)


async def lift_all(request: m.LiftRequest) -> tuple[m.Lifted | m.Unlifted, ...]:
    """Every login, or the one for the registry that is wanted, named for its registry; unfit ones with the reason.

    Raises:
        NothingToLift: there is none. The message says where was looked.
        InvalidConfig: a file is broken, or a credential helper that lists fails and there is no login besides.
    """
    return await _discreetly(_lift_all, request)


async def _discreetly(work: Callable[[m.LiftRequest], Awaitable[T]], request: m.LiftRequest) -> T:
    """An error of ours leaves without its frames, which held what the files hold."""
    try:
        return await work(request)
    except m.MooringError as error:
        problem = error
    raise problem.with_traceback(None)


async def _lift(request: m.LiftRequest) -> m.Lifted:
    wanted = request.options.get("registry")
    entries = await _entries()
    if wanted is not None:
        host = ids.place_of(ids.registry_of(str(wanted))).host
    elif ids.HUB in entries or len(entries) != 1:
        host = ids.HUB
    else:
        host = next(iter(entries))
    if host not in entries:
        others = f"; logins there: {', '.join(sorted(entries))} (name one as registry)" if entries else ""
        raise m.NothingToLift(f"no login for {host} in {_looked()}{others}")
    return await _lifted(entries[host], request)


async def _lift_all(request: m.LiftRequest) -> tuple[m.Lifted | m.Unlifted, ...]:
    if request.options.get("registry") is not None:
        return (await _lift(request),)
    failed: dict[str, m.InvalidConfig] = {}
    entries = await _entries(failed)
    if not entries:
        raise next(iter(failed.values()), m.NothingToLift(f"no login in {_looked()}"))
    unlisted = [m.Unlifted(name=_plain(f"docker-credential-{store}"), error=failed[store]) for store in failed]
    return (*[await _tried(entries[host], request) for host in sorted(entries)], *unlisted)


async def _tried(entry: Entry, request: m.LiftRequest) -> m.Lifted | m.Unlifted:
    try:
        return await _lifted(entry, request)
    except m.ConfigError as error:
        return m.Unlifted(name=_plain(entry.registry), error=error.with_traceback(None))


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9.-]", "-", name)


def _looked() -> str:
    return ", ".join(map(str, (files.docker_file(), *files.containers_files())))


async def _entries(failed: dict[str, m.InvalidConfig] | None = None) -> dict[str, Entry]:
    """The logins by registry; what docker has goes before what podman has, a registry's helper before all.

    A helper that cannot list is an error, or stands in `failed` with it.
    """
    found: dict[str, Entry] = {}
    for file in (files.docker_file(), *files.containers_files()):
        _, values = files.read(file)
        for key, helper in files.table(values, "credHelpers").items():
            _add(found, key, file, {}, helper)
        store = values.get("credsStore")
        if isinstance(store, str) and store not in ("", OURS):
            for key in await _listed(store, failed):
                _add(found, key, file, {}, store)
        for key, stored in files.table(values, "auths").items():
            if isinstance(stored, dict) and stored.keys() & {"auth", "username", "identitytoken", "registrytoken"}:
                _add(found, key, file, stored, None)
    return found


async def _listed(store: str, failed: dict[str, m.InvalidConfig] | None) -> tuple[str, ...]:
    try:
        return await helpers.servers(store)
    except m.InvalidConfig as error:
        if failed is None:
            raise
        failed[store] = error.with_traceback(None)
        return ()


def _add(found: dict[str, Entry], key: str, file: Path, stored: Mapping[str, Any], helper: Any) -> None:
    if helper == OURS or (helper is not None and not isinstance(helper, str)):
        return
    try:
        registry = ids.registry_of(re.sub(r"/v[12]/?$", "", key))
    except m.InvalidConfig:
        return  # a key of another kind, such as `https://index.docker.io/v1/access-token`
    found.setdefault(registry, Entry(registry, key, file, stored, helper))


async def _lifted(entry: Entry, request: m.LiftRequest) -> m.Lifted:
    source = f"the login for {entry.registry} in {entry.file}"
    if entry.helper is not None:
        source += f" (by docker-credential-{entry.helper})"
        got = await helpers.get(entry.helper, entry.key)
        if got is None:
            raise m.NothingToLift(f"docker-credential-{entry.helper} has no login for {entry.registry}; log in first")
        method, fields = "password", {"username": got[0], "password": got[1]}
    else:
        method, fields = _stored(entry)
    if fields.get("username") == IDENTITY_TOKEN_USER:
        raise m.NothingToLift(f"{source} is an identity token, which is no password; give user and password")
    if request.auth_method not in (None, method):
        known = [one.name for one in METHODS]
        if request.auth_method not in known:
            raise m.UnknownAuthMethod(f"docker has no auth method {request.auth_method!r}; known: {', '.join(known)}")
        raise m.NothingToLift(f"{source} is for the auth method {method}, not {request.auth_method}")
    kind = next(one.config for one in METHODS if one.name == method)
    given = {name: value for name, value in request.options.items() if value is not None}
    config = build_config(kind, {"registry": entry.registry, **fields, **given})
    return m.Lifted(auth_method=method, config=config, source=source, name=_plain(entry.registry))


def _stored(entry: Entry) -> tuple[str, dict[str, Any]]:
    """What the file itself holds."""
    stored = entry.stored
    if isinstance(token := stored.get("registrytoken"), str) and token:
        return "token", {"token": token}
    username, password = _pair(stored)
    if username and password:
        return "password", {"username": username, "password": password}
    raise m.NothingToLift(
        f"the login for {entry.registry} in {entry.file} holds no user and password (an identity token is none); "
        "give them"
    )


def _pair(stored: Mapping[str, Any]) -> tuple[str, str]:
    username, password = stored.get("username"), stored.get("password")
    auth = stored.get("auth")
    if isinstance(auth, str) and auth:
        try:
            username, _, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except ValueError:
            return "", ""
        password = password.rstrip("\x00")
    if stored.get("identitytoken") or not isinstance(username, str) or not isinstance(password, str):
        return "", ""
    return username, password
