"""A connector as it is shown: plain values, and the tables of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mooring.cli._output import Table, Title
from mooring.cli._values import remaining, written
from mooring.errors import MooringError
from mooring.types import MASK, Connector

if TYPE_CHECKING:
    from mooring.registry import Registry


def as_data(connector: Connector, registry: Registry, secrets: Mapping[str, str] = {}) -> dict[str, Any]:
    """The connector as plain values; secrets masked unless they are handed in."""
    sealed = dict.fromkeys(connector.sealed.fields, MASK) if connector.sealed else {}
    return {
        "name": connector.name,
        "id": connector.id,
        "type": connector.type,
        "auth_method": connector.auth_method,
        "resource_types": _resource_types(connector, registry),
        "resource_type": connector.resource_type,
        "resource_id": connector.resource_id,
        "description": connector.description,
        "owner": connector.owner,
        "expires_at": connector.expires_at,
        "expires_skew": connector.expires_skew,
        "ttl": connector.ttl,
        "allow_unnarrowed": connector.allow_unnarrowed,
        "allow_long_lived": connector.allow_long_lived,
        "created_at": connector.created_at,
        "updated_at": connector.updated_at,
        "version": connector.version,
        "labels": connector.labels,
        "configuration": connector.settings | sealed | dict(secrets),
    }


def _resource_types(connector: Connector, registry: Registry) -> list[str]:
    """What it reaches: its scope, or all that its type has for its auth method."""
    if connector.resource_type:
        return [connector.resource_type]
    try:
        kinds = registry.route(connector.type).type.resource_types
    except MooringError:
        return []  # its plugin is missing or broken, which is no reason not to show it
    return [kind.name for kind in kinds if not kind.auth_methods or connector.auth_method in kind.auth_methods]


def as_table(data: Mapping[str, Any]) -> list[Table | str]:
    """What `as_data` gave, for people."""
    left = remaining(data["expires_at"], data["expires_skew"])
    rows = [
        ("name", data["name"]),
        ("id", data["id"]),
        ("type", data["type"]),
        ("auth method", data["auth_method"]),
        ("resource types", data["resource_types"]),
        ("resource name", data["resource_id"] or "<multiple>"),
        ("description", data["description"]),
        ("owner", data["owner"]),
        ("session duration", written(data["ttl"]) if data["ttl"] else ""),
        ("expires in", f"{left} ({data['expires_at']:%Y-%m-%d %H:%M:%SZ})" if left else ""),
        ("expires skew", written(data["expires_skew"]) if data["expires_skew"] else ""),
        ("unnarrowed", "allowed" if data["allow_unnarrowed"] else ""),
        ("long-lived", "allowed" if data["allow_long_lived"] else ""),
        ("created", f"{data['created_at']:%Y-%m-%d %H:%M:%SZ}"),
        ("updated", f"{data['updated_at']:%Y-%m-%d %H:%M:%SZ}"),
    ]
    view: list[Table | str] = [Table(("", ""), [row for row in rows if row[1]])]
    for title in ("configuration", "labels"):
        if values := data[title]:
            pairs = [(name, _text(value)) for name, value in values.items()]
            view += [Title(title), Table(("", ""), pairs)]
    return view


def _text(value: Any) -> str | list[str]:
    if isinstance(value, dict):
        return [f"{key}={one}" for key, one in value.items()]
    return [str(one) for one in value] if isinstance(value, list | tuple) else str(value)
