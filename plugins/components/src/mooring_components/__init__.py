"""Stack components: artifact stores, orchestrators, registries and others, connected to what they need.

    import mooring, mooring_components

    async with mooring.open_broker() as broker, mooring_components.open(broker, "s3-zenfiles") as store:
        ...

`plugin` adds a group of commands for each component type, and `component`, `stack` and `flavor`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mooring.hookspecs import hookimpl

if TYPE_CHECKING:
    import click

    from mooring.broker import Broker
    from mooring_components.components import Candidate, Component, Components
    from mooring_components.flavors import Flavor, Flavors, Opening, flavorimpl
    from mooring_components.opening import open, open_stack  # noqa: A004  (read as mooring_components.open)

__all__ = [
    "Candidate",
    "Component",
    "Components",
    "Flavor",
    "Flavors",
    "Opening",
    "flavorimpl",
    "open",
    "open_stack",
    "plugin",
]

_PLACES = {"Candidate": "components", "Component": "components", "Components": "components", "Flavor": "flavors",
           "Flavors": "flavors", "Opening": "flavors", "flavorimpl": "flavors", "open": "opening",
           "open_stack": "opening"}  # fmt: skip


def __getattr__(name: str) -> Any:
    """What is used, imported when it is: commands that need nothing of it shall not load it."""
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"mooring_components.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class ComponentsPlugin:
    """The system plugin."""

    @hookimpl
    def commands(self, cli: click.Group) -> None:
        """Add the groups of commands."""
        from mooring_components.commands import as_code, groups

        for command in (*groups(), *as_code()):
            cli.add_command(command)

    @hookimpl
    @asynccontextmanager
    async def lifespan(self, broker: Broker) -> AsyncGenerator[None, None]:
        """Keep connectors and secrets that components use from being deleted."""
        from mooring_components.components import Components

        broker.before_delete(Components(broker).users)
        yield


plugin = ComponentsPlugin()
