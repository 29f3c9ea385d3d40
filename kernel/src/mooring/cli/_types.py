"""`list-types` and `describe-type`: what the installed plugins offer. No broker, no store, no vendor SDK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from mooring.cli._completion import complete_auth_method, complete_resource_type, complete_type
from mooring.cli._known import check_known
from mooring.cli._lazy import command
from mooring.cli._output import Table, Title, emit, output_option, say
from mooring.cli._shells import formats_of
from mooring.cli._values import written
from mooring.registry import Registry, Route
from mooring.types import AuthMethod, ConfigField, ConnectorType, Lifetime, Limit, ResourceType, fields_of

NAMES = {"str": "text", "vartuple": "list", "dict": "map", "bool": "flag", "int": "number", "float": "number"}
"""What we call a field's type, where msgspec has another word."""

LINED = ("powers", "formats", "auth_methods")
"""Lists of short names, which people read in one line."""


@command(
    "list-types",
    examples=(
        "mooring connector list-types",
        "mooring connector list-types --resource-type kubernetes-cluster",
    ),
)
@click.option("-t", "--type", "type_", metavar="TYPE", shell_complete=complete_type, help="Only this type.")
@click.option(
    "-r",
    "--resource-type",
    metavar="TYPE",
    shell_complete=complete_resource_type,
    help="Only types that reach this resource type.",
)
@click.option(
    "-a",
    "--auth-method",
    metavar="METHOD",
    shell_complete=complete_auth_method,
    help="Only types with this auth method.",
)
@output_option
def list_types(type_: str | None, resource_type: str | None, auth_method: str | None, output: str) -> None:
    """List the connector types that are installed."""
    registry = Registry()
    routes = [registry.route(type_)] if type_ else registry.routes()
    if type_ is None:
        for plugin in registry.plugins():
            if plugin.error is not None:
                say(f"Warning: {plugin.error}")
    types = [route.type for route in routes]
    check_known(registry, type=type_, resource_type=resource_type, auth_method=auth_method)
    types = [one for one in types if not resource_type or one.resource_type(resource_type)]
    types = [one for one in types if not auth_method or one.auth_method(auth_method)]
    emit(output, [_summary(one) for one in types], _listed(types))
    if not registry.names():
        say("No connector type is installed; install a plugin, such as mooring-aws, from where mooring came from.")
    elif not types:
        say("Nothing was found.")


def _summary(one: ConnectorType) -> dict[str, Any]:
    return {
        "name": one.title or one.name,
        "type": one.name,
        "resource_types": [kind.name for kind in one.resource_types],
        "auth_methods": [method.name for method in one.auth_methods],
        "local": True,
        "remote": False,
    }


def _listed(types: Sequence[ConnectorType]) -> Table:
    columns = ("NAME", "TYPE", "RESOURCE TYPES", "AUTH METHODS", "LOCAL", "REMOTE")
    rows = []
    for one in types:
        kinds = [kind.name for kind in one.resource_types]
        rows.append((one.title or one.name, one.name, kinds, [method.name for method in one.auth_methods], "yes", "no"))
    return Table(columns, rows)


@command(
    "describe-type",
    examples=(
        "mooring connector describe-type aws",
        "mooring connector describe-type aws --auth-method iam-role",
    ),
)
@click.argument("type_", metavar="TYPE", shell_complete=complete_type)
@click.option(
    "-r", "--resource-type", metavar="TYPE", shell_complete=complete_resource_type, help="Only this resource type."
)
@click.option(
    "-a", "--auth-method", metavar="METHOD", shell_complete=complete_auth_method, help="Only this auth method."
)
@output_option
def describe_type(type_: str, resource_type: str | None, auth_method: str | None, output: str) -> None:
    """Say what a connector type reaches, with which permissions, and how it authenticates."""
    route = Registry().route(type_)
    kinds = [route.resource_type(resource_type)] if resource_type else list(route.type.resource_types)
    methods = [route.auth_method(auth_method)] if auth_method else list(route.type.auth_methods)
    if resource_type and not auth_method:
        methods = [one for one in methods if not kinds[0].auth_methods or one.name in kinds[0].auth_methods]
    if auth_method and not resource_type:
        kinds = [one for one in kinds if not one.auth_methods or auth_method in one.auth_methods]
    data: dict[str, Any] = {
        "type": route.type.name,
        "name": route.type.title or route.type.name,
        "description": route.type.description,
        "distribution": route.distribution,
        "powers": list(route.powers),
        "formats": ["json", "yaml", *formats_of(route)],
        "resource_types": [_kind(one, route) for one in kinds],
        "auth_methods": [_method(one) for one in methods],
        "limits": [_limit(one) for one in route.type.limits],
    }
    view: list[Table | str] = [_properties(data, "type", "name", "description", "distribution", "powers", "formats")]
    for kind in data["resource_types"]:
        view += [Title(f"resource type {kind['name']}"), _properties(kind, *[key for key in kind if key != "name"])]
    for method in data["auth_methods"]:
        shown = [key for key in method if key not in ("name", "fields")]
        view += [Title(f"auth method {method['name']}"), _properties(method, *shown), _fields(method["fields"])]
    if data["limits"]:
        view += [Title("limits"), _limits(data["limits"])]
    emit(output, data, *view)


def _limit(limit: Limit) -> dict[str, Any]:
    return {
        "name": limit.name,
        "per": list(limit.per),
        "where": dict(limit.where),
        "at_once": limit.at_once,
        "rate": limit.rate,
        "burst": limit.burst,
    }


def _limits(limits: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for one in limits:
        per, where = ", ".join(one["per"]), [f"{label}={pattern}" for label, pattern in one["where"].items()]
        rate = "" if one["rate"] is None else f"{one['rate']:g} a second, {one['burst']} at a time"
        rows.append((one["name"], per, ", ".join(where), "" if one["at_once"] is None else str(one["at_once"]), rate))
    return Table(("LIMIT", "PER", "OF CALLS WITH", "AT ONCE", "RATE"), rows)


def _kind(kind: ResourceType, route: Route) -> dict[str, Any]:
    return {
        "name": kind.name,
        "title": kind.title,
        "description": kind.description,
        "auth_methods": list(kind.auth_methods) or [method.name for method in route.type.auth_methods],
        "permissions": list(kind.permissions),
        "id_formats": list(kind.formats),
        "many_instances": kind.instances,
        "narrowable": kind.narrowable,
    }


def _method(method: AuthMethod) -> dict[str, Any]:
    return {
        "name": method.name,
        "title": method.title,
        "description": method.description,
        "temporary": method.temporary,
        "implicit": method.implicit,
        "lifetime": _lifetime(method.lifetime),
        "fields": [_field(field) for field in fields_of(method.config)],
    }


def _lifetime(lifetime: Lifetime | None) -> dict[str, str] | None:
    if lifetime is None:
        return None
    return {name: written(getattr(lifetime, name)) for name in ("minimum", "default", "maximum")}


def _field(field: ConfigField) -> dict[str, Any]:
    return {
        "name": field.name,
        "type": NAMES.get(field.type, field.type),
        "required": field.required,
        "secret": field.secret,
        "default": field.default,
        "description": field.description,
    }


def _properties(data: dict[str, Any], *names: str) -> Table:
    rows = []
    for name in names:
        if (value := data[name]) not in ("", None, []):
            text = ", ".join(value) if name in LINED else _text(value)
            rows.append((name.replace("_", " "), text))
    return Table(("", ""), rows)


def _text(value: Any) -> str | list[str]:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return [str(one) for one in value] if isinstance(value, list | tuple) else str(value)


def _fields(fields: Sequence[dict[str, Any]]) -> Table:
    """What is required first."""
    rows = []
    for field in sorted(fields, key=lambda one: not one["required"]):
        default = "" if field["default"] in (None, "", (), [], {}) else _text(field["default"])
        rows.append((field["name"], field["type"], "yes" if field["required"] else "no", default, field["description"]))
    if not any(row[3] for row in rows):
        return Table(("FIELD", "TYPE", "REQUIRED", "MEANING"), [(*row[:3], row[4]) for row in rows])
    return Table(("FIELD", "TYPE", "REQUIRED", "DEFAULT", "MEANING"), rows)
