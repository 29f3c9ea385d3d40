"""`mooring service-connector`, in short `mooring connector`."""

from __future__ import annotations

from mooring.cli._lazy import LazyGroup

PLACES = {
    "list-types": "_types:list_types",
    "describe-type": "_types:describe_type",
    "register": "_register:register",
    "list": "_stored:list_",
    "describe": "_stored:describe",
    "update": "_update:update",
    "delete": "_stored:delete",
    "verify": "_resources:verify",
    "list-resources": "_resources:list_resources",
}

group = LazyGroup(
    "service-connector", help="Connectors: their types, what is registered, what it reaches.", places=PLACES
)
short = LazyGroup("connector", help="Short for service-connector.", places=PLACES)
