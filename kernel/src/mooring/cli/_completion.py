"""Shell completion: the script, and the names that it completes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from mooring.cli._lazy import command
from mooring.cli._output import put
from mooring.cli._shells import formats_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from click.shell_completion import CompletionItem

    from mooring.broker import Broker
    from mooring.registry import Route


PLAIN = re.compile(r"[\w@%+=:,./][\w@%+=:,./-]*", re.ASCII)
"""What every shell takes as one word, and as no option."""


@command("completion", examples=('eval "$(mooring completion bash)"',))
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    Put into its start-up file: eval "$(mooring completion bash)"
    """
    from click.shell_completion import get_completion_class

    from mooring.cli._bash import enlist

    enlist()
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"this version of click has no completion for {shell}", ctx)
    put(kind(ctx.find_root().command, {}, "mooring", "_MOORING_COMPLETE").source())


def complete_type(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Connector types. Imports no plugin."""
    from mooring.registry import Registry

    return [name for name in Registry().names() if name.startswith(incomplete)]


def _routes(ctx: click.Context) -> list[Route]:
    """The connector type that stands on the line, or all."""
    from mooring.errors import MooringError
    from mooring.registry import Registry

    named = ctx.params.get("type_") or ctx.params.get("connector_type")
    try:
        return [Registry().route(named)] if named else Registry().routes()
    except MooringError:
        return []


def complete_resource_type(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Resource types, of the connector type on the line if there is one."""
    names = {kind.name for route in _routes(ctx) for kind in route.type.resource_types}
    return sorted(name for name in names if name.startswith(incomplete))


def complete_auth_method(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Auth methods, of the connector type on the line if there is one."""
    names = {method.name for route in _routes(ctx) for method in route.type.auth_methods}
    return sorted(name for name in names if name.startswith(incomplete))


def complete_format(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Formats of `issue`, of any plugin."""
    names = {"json", "yaml"}.union(*(formats_of(route) for route in _routes(ctx)))
    return sorted(name for name in names if name.startswith(incomplete))


def complete_connector(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of connectors."""

    async def names(broker: Broker) -> list[str]:
        return [one.name for one in await broker.list()]

    return complete(names, incomplete)


def complete_secret(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of secrets."""

    async def names(broker: Broker) -> list[str]:
        return [one.name for one in await broker.named_secrets.list()]

    return complete(names, incomplete)


def complete_resource(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of what was found before: of the connector and resource type that stand on the line, if they do.

    Vendors name things, and shells take what is completed as it stands: what no shell takes as a word is left out.
    """
    named = ctx.params.get("connector") or ctx.params.get("name") or ctx.params.get("names")
    connectors = [named] if isinstance(named, str) else list(named or ())

    async def ids(broker: Broker) -> list[str]:
        about: dict[str, Any] = {"resource_type": ctx.params.get("resource_type")}
        found = [await broker.recall(one, **about) for one in connectors] or [await broker.recall(**about)]
        return sorted({one.id for resources in found for one in resources if PLAIN.fullmatch(one.id)})

    return complete(ids, incomplete)


def complete_lease(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids of leases that may still work, the last one first, and what each is for."""
    from click.shell_completion import CompletionItem

    async def ids(broker: Broker) -> list[str]:
        leases = reversed(await broker.leases())
        about.update({one.id: f"{one.connector} {one.resource_id or one.resource_type}" for one in leases})
        return list(about)

    about: dict[str, str] = {}
    return [CompletionItem(id, help=about[id]) for id in complete(ids, incomplete)]


def complete_event(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of events."""
    from mooring.cli._events import NAMES

    return [name for name in NAMES if name.lower().startswith(incomplete.lower())]


def complete(read: Callable[[Broker], Awaitable[list[str]]], incomplete: str) -> list[str]:
    """Of what the store holds, what begins so; nothing where it cannot be read, and no store is made for it."""
    from mooring.cli._broker import with_broker
    from mooring.cli._edge import Run
    from mooring.cli._guided import stored
    from mooring.errors import MooringError

    try:
        if not stored():
            return []
        return [one for one in with_broker(Run(), read, looking=True) if one.startswith(incomplete)]
    except MooringError:
        return []
