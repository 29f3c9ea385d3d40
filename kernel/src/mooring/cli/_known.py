"""Filters that match nothing because they name nothing that there is."""

from __future__ import annotations

from mooring.errors import UnknownAuthMethod, UnsupportedResource, suggest
from mooring.registry import Registry


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
