"""Opening components: each as a ready client that renews its own credentials."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import mooring as m
from mooring_components.components import Component, Components
from mooring_components.flavors import Flavors, Opening


@asynccontextmanager
async def open(
    broker: m.Broker,
    name: str,
    *,
    access: m.Access = "write",
    consumer: str | None = None,
    flavors: Flavors | None = None,
) -> AsyncGenerator[Any, None]:
    """A component, ready to be used: an fsspec file system for an artifact store that has one, else the native client.

    Args:
        broker: an open one.
        name: the component's name, id or the beginning of its id.
        access: `list`, `read` or `write`.
        consumer: who uses it; component/NAME unless given.
        flavors: the installed ones unless given.

    Raises:
        UnknownDocument: there is no such component.
        InvalidConfig: it is neither connected nor has a secret.
    """
    components = Components(broker, flavors)
    async with _opened(components, broker, await components.get(name), access, consumer) as client:
        yield client


@asynccontextmanager
async def open_stack(
    broker: m.Broker, name: str, *, access: m.Access = "write", flavors: Flavors | None = None
) -> AsyncGenerator[Mapping[str, Any], None]:
    """All components of a stack, by component type, but for those that need nothing, such as `local`.

    Raises:
        UnknownDocument: there is no such stack.
        MooringError: one cannot be opened, and is named; then none is.
    """
    components = Components(broker, flavors)
    _, found = await components.stack(name)
    async with AsyncExitStack() as stack:
        opened = {}
        for one in found:
            if components.flavors.find(one.type, one.flavor).resource_type is not None:
                with _about(one):
                    opened[one.type] = await stack.enter_async_context(_opened(components, broker, one, access, None))
        yield opened


@contextmanager
def _about(component: Component) -> Generator[None, None, None]:
    """Have errors of ours begin with the component that they are about."""
    try:
        yield
    except m.MooringError as error:
        error.message = f"{component.type} {component.name!r}: {error.message}"
        error.args = (error.message,)
        raise


@asynccontextmanager
async def _opened(
    components: Components, broker: m.Broker, component: Component, access: m.Access, consumer: str | None
) -> AsyncGenerator[Any, None]:
    flavor, config = await components.built(component)
    if flavor.resource_type is None:
        raise m.InvalidConfig(f"component {component.name!r} is of the flavor {flavor.name}, which opens nothing")
    if component.connector_id is None and component.secret is None:
        raise m.InvalidConfig(
            f"component {component.name!r} is not connected; run: mooring {component.type} connect {component.name}"
        )
    if access not in m.types.ACCESSES:
        raise m.InvalidConfig(f"access is one of: {', '.join(m.types.ACCESSES)}", field="access")
    if component.secret:
        await components.secret_for(flavor, component.secret)
    held = await broker.named_secrets.open(component.secret) if component.secret else {}
    opening = Opening(
        broker=broker,
        connector=(await components.connector(component)).id if component.connector_id else "",
        resource_type=flavor.resource_type,
        resource_id=component.resource_id or flavor.resource_id(config),
        config=config,
        secret=await broker.resolve(held),
        access=access,
        consumer=consumer or f"component/{component.name}",
    )
    async with (flavor.open or _native)(opening) as ready:
        yield ready


def _native(opening: Opening) -> AbstractAsyncContextManager[Any]:
    """The connector's own client."""
    return opening.broker.client(
        opening.connector,
        resource_type=opening.resource_type,
        resource_id=opening.resource_id,
        access=opening.access,
        consumer=opening.consumer,
    )
