"""What a program finds credentials by: asked of the plugin that owns their kind, and checked."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mooring.broker._desk import checked, guard
from mooring.credentials import Credentials, Issued, kind_of
from mooring.errors import BrokenPlugin, InvalidConfig, UnknownConnectorType
from mooring.hookspecs import Environment
from mooring.types import Secret

if TYPE_CHECKING:
    from mooring.registry import Registry, Route

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*", re.ASCII)


def owner(registry: Registry, issued: Issued) -> Route | None:
    """The plugin that owns the credentials' kind, if any does; if it issued them too, no other is imported."""
    route = registry.route(issued.connector_type)
    if kind_of(issued.credentials) in {kind_of(kind) for kind in route.type.credentials}:
        return route
    try:
        return registry.renders(issued.credentials)
    except UnknownConnectorType:
        return None


def environment_of(registry: Registry, issued: Issued) -> Environment:
    """The variables and files of a program that shall use the credentials.

    Raises:
        InvalidConfig: no plugin says so of their kind.
        BrokenPlugin: a plugin says what cannot be.
    """
    route = owner(registry, issued)
    if route is None or route.environment is None:
        raise InvalidConfig(
            f"no installed plugin says how a program finds {kind_of(issued.credentials)} credentials; "
            "take them as they are: mooring issue --format json"
        )
    with guard(route, "environment"):
        return sound(route, checked(route, "environment", route.environment(issued.credentials), Environment))


def sound(route: Route, environment: Environment) -> Environment:
    """The environment, if a process can have it."""
    names = [*environment.variables, *(file.variable for file in environment.files)]
    possible = len(names) == len(set(names)) and all(NAME.fullmatch(name) for name in names)
    files = {file.name for file in environment.files}
    possible &= len(files) == len(environment.files) and all(FILE_NAME.fullmatch(file) is not None for file in files)
    possible &= not any(str(parent) in files for file in files for parent in PurePosixPath(file).parents)
    if possible and not any("\0" in value for value in in_clear(environment).values() if value is not None):
        return environment
    raise BrokenPlugin(
        f"the plugin {route.type.name!r} of {route.distribution} names variables or files that no process can have; "
        "report it to its author"
    )


def in_clear(environment: Environment) -> dict[str, str | None]:
    """The variables, secrets in the clear."""
    return {
        name: value.reveal() if isinstance(value, Secret) else value for name, value in environment.variables.items()
    }


def secrets_of(credentials: Credentials) -> list[Secret]:
    """The secrets of credentials."""
    values = (getattr(credentials, field) for field in credentials.__struct_fields__)
    return [one for one in values if isinstance(one, Secret)]
