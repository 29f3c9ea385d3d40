"""Filters that match nothing because they name nothing that there is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from mooring.errors import InvalidConfig, MooringError, UnknownAuthMethod, UnsupportedResource, suggest
from mooring.globs import labelled
from mooring.registry import Registry, Route
from mooring.types import ResourceType

if TYPE_CHECKING:
    from mooring.types import Connector


def check_known(
    registry: Registry, *, type: str | None = None, resource_type: str | None = None, auth_method: str | None = None
) -> None:
    """Refuse a filter that no installed connector type knows, naming the nearest.

    Raises:
        UnknownConnectorType, UnsupportedResource, UnknownAuthMethod.
    """
    routes = [registry.route(type)] if type else registry.routes()
    if resource_type:
        kinds = {kind.name for route in routes for kind in route.type.resource_types}
        if resource_type not in kinds:
            raise UnsupportedResource(
                f"no installed connector type reaches {resource_type!r}; {suggest(resource_type, kinds)}"
            )
    if auth_method:
        methods = {method.name for route in routes for method in route.type.auth_methods}
        if auth_method not in methods:
            raise UnknownAuthMethod(
                f"no installed connector type has the auth method {auth_method!r}; {suggest(auth_method, methods)}"
            )


def check_id(routes: Sequence[Route], resource_types: Collection[str | None], text: str) -> None:
    """Refuse the id of a resource that no resource type takes.

    Args:
        routes: whose types count.
        resource_types: the only ones that count; all, if None is among them.
        text: the id as it was written.

    Raises:
        InvalidConfig: that of the resource type; with several, one that says their forms.
    """
    refusals: dict[str, InvalidConfig] = {}
    forms: dict[str, Sequence[str]] = {}
    for route in routes:
        for kind in route.type.resource_types:
            if None in resource_types or kind.name in resource_types:
                if (refused := refusal(route, kind, text)) is None:
                    return
                refusals[kind.name], forms[kind.name] = refused, kind.formats
    if len(refusals) == 1:
        raise next(iter(refusals.values()))
    if refusals:
        raise InvalidConfig(f"no resource type has ids of this form; {_told(forms)}", field="resource_id")


def refusal(route: Route, kind: ResourceType, text: str) -> InvalidConfig | None:
    """Why a resource type does not take an id of that form."""
    try:
        route.canonical(kind.name, text)
    except InvalidConfig as error:
        return error
    except Exception:  # noqa: BLE001  a broken plugin's; the broker says so when it asks
        return None
    return None


def _told(forms: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name}: {' or '.join(some)}" for name, some in forms.items() if some) or "see describe-type"


def connectors_routes(registry: Registry, connectors: Sequence[Connector]) -> list[Route]:
    """The plugins of connectors; not those that are missing or broken."""
    routes = []
    for name in dict.fromkeys(one.type for one in connectors):
        with suppress(MooringError):
            routes.append(registry.route(name))
    return routes


def left_out(
    connector: Connector, *, type: str | None, resource_type: str | None, labels: Mapping[str, str | None]
) -> str:
    """Why the filters leave a connector out that was named."""
    if type not in (None, connector.type):
        return f"connector {connector.name!r} is of the type {connector.type!r}, not {type!r}"
    for key, value in labels.items():
        if not labelled(connector.labels, {key: value}):
            return f"connector {connector.name!r} does not have the label {key!r}" + (f" = {value!r}" if value else "")
    if connector.resource_type:
        scope = connector.resource_type
        return f"connector {connector.name!r} is scoped to {scope!r} and does not reach {resource_type!r}"
    return f"connector {connector.name!r} ({connector.type}, {connector.auth_method}) does not reach {resource_type!r}"
