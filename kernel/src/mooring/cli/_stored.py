"""`list`, `describe`, `delete`: connectors at rest."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from mooring.broker._revoke import may_be_later
from mooring.broker._undo import step_of
from mooring.cli._broker import with_broker
from mooring.cli._completion import (
    complete_auth_method,
    complete_connector,
    complete_resource,
    complete_resource_type,
    complete_type,
)
from mooring.cli._edge import Run, fail
from mooring.cli._known import check_id, check_known, connectors_routes
from mooring.cli._lazy import command
from mooring.cli._output import NO_CONNECTOR, Bad, Table, emit, output_option, say, short
from mooring.cli._process import INTERRUPTED
from mooring.cli._shown import as_data, as_table
from mooring.cli._values import counted, remaining, wanted_labels
from mooring.errors import InvalidConfig, UnknownConnector

if TYPE_CHECKING:
    from mooring.broker import Broker
    from mooring.records import Lease
    from mooring.registry import Registry
    from mooring.store import Connectors
    from mooring.types import Connector, Secret

MULTIPLE = "<multiple>"
PAGE = 50
"""Connectors."""
COLUMNS = ("NAME", "ID", "TYPE", "AUTH METHOD", "RESOURCE TYPES", "RESOURCE NAME", "OWNER", "EXPIRES IN", "LABELS")


@command(
    "list",
    examples=(
        "mooring connector list",
        "mooring connector list -r s3-bucket -l 'team=da*'",
        "mooring connector list --page 2",
    ),
)
@click.option("-t", "--type", "type_", metavar="TYPE", shell_complete=complete_type, help="Of this connector type.")
@click.option(
    "-a", "--auth-method", metavar="METHOD", shell_complete=complete_auth_method, help="With this auth method."
)
@click.option(
    "-r",
    "--resource-type",
    metavar="TYPE",
    shell_complete=complete_resource_type,
    help="That reach this resource type.",
)
@click.option(
    "-i",
    "--resource-id",
    metavar="ID",
    shell_complete=complete_resource,
    help="Scoped to a resource that is or contains this one, or to none.",
)
@click.option(
    "-l",
    "--label",
    "labels",
    metavar="KEY[=VALUE]",
    multiple=True,
    help="With this label, whose value may be a pattern, such as 'da*'; repeatable.",
)
@click.option("-n", "--name", metavar="PATTERN", help="With a name like this, such as 'prod-*'.")
@click.option("--page", type=click.IntRange(min=1), metavar="N", help=f"Only the Nth page, of {PAGE} connectors.")
@output_option
@click.pass_obj
def list_(
    run: Run,
    type_: str | None,
    auth_method: str | None,
    resource_type: str | None,
    resource_id: str | None,
    labels: Sequence[str],
    name: str | None,
    page: int | None,
    output: str,
) -> None:
    """List the registered connectors.

    A record that cannot be read is told of beside the others; the exit status is 5 then.
    """

    async def work(broker: Broker) -> tuple[Connectors, Registry]:
        found = await broker.list(
            type=type_,
            auth_method=auth_method,
            resource_type=resource_type,
            resource_id=resource_id,
            labels=wanted_labels(labels),
        )
        if not found and not found.damaged:
            check_known(broker.registry, type=type_, resource_type=resource_type, auth_method=auth_method)
            if resource_id is not None:
                registry = broker.registry
                routes = [registry.route(type_)] if type_ else connectors_routes(registry, await broker.list())
                check_id(routes, {resource_type}, resource_id)
        if name is not None:
            found[:] = [one for one in found if fnmatchcase(one.name, name)]
            found.damaged = [one for one in found.damaged if fnmatchcase(one.name, name)]
        return found, broker.registry

    found, registry = with_broker(run, work, looking=True)
    if page is not None:
        of, pages = counted(len(found), "connector"), max(1, -(-len(found) // PAGE))
        if page > pages:
            raise InvalidConfig(f"there is no page {page} of {of}; the last one is {pages}", field="page")
        found[:] = found[(page - 1) * PAGE : page * PAGE]
        say(f"Page {page} of {pages}, of {of}.")
    rows = (_row(one, registry) for one in found)
    emit(
        output, (as_data(one, registry) for one in found), *([Table(COLUMNS, list(rows))] if output == "table" else [])
    )
    fail(run, found.damaged)
    if not found:
        filtered = type_ or auth_method or resource_type or resource_id or labels or name
        say("No connector matches." if filtered else NO_CONNECTOR)


def _row(one: Connector, registry: Registry) -> tuple[str | Sequence[str], ...]:
    left = remaining(one.expires_at, one.expires_skew)
    return (
        one.name,
        short(one.id),
        one.type,
        one.auth_method,
        as_data(one, registry)["resource_types"],
        one.resource_id or MULTIPLE,
        one.owner,
        Bad(left) if left == "expired" else left,
        [f"{key}={value}" for key, value in sorted(one.labels.items())] or "",
    )


@command(
    "describe",
    examples=(
        "mooring connector describe prod",
        "mooring connector describe prod --show-secrets -o yaml",
    ),
)
@click.argument("name", shell_complete=complete_connector)
@click.option("-x", "--show-secrets", is_flag=True, help="Show the connector's own secrets in clear.")
@output_option
@click.pass_obj
def describe(run: Run, name: str, show_secrets: bool, output: str) -> None:
    """Show one connector: what it is, how it authenticates, its configuration."""

    async def work(broker: Broker) -> tuple[Connector, dict[str, Secret], Registry]:
        connector = await broker.get(name)
        return connector, await broker.secrets(connector.id) if show_secrets else {}, broker.registry

    connector, secrets, registry = with_broker(run, work)
    data: dict[str, Any] = as_data(connector, registry, {name: one.reveal() for name, one in secrets.items()})
    emit(output, data, *as_table(data))


@command(
    "delete",
    examples=(
        "mooring connector delete prod",
        "mooring connector delete prod --revoke --yes",
    ),
)
@click.argument("name", shell_complete=complete_connector)
@click.option("--damaged", is_flag=True, help="Remove a record that cannot be read, by its exact name or id.")
@click.option("--revoke", is_flag=True, help="Take back what it has issued first; what cannot be is told.")
@click.option("--role-wide", is_flag=True, help="With --revoke: also from all others who use the same role.")
@click.option("--force", is_flag=True, help="Delete it also if things it made at its vendor cannot be removed.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(run: Run, name: str, damaged: bool, revoke: bool, role_wide: bool, force: bool, yes: bool) -> None:
    """Delete a connector, after what it has made at its vendor. What else it has issued lives until it ends.

    Where some of that cannot be removed, the connector stays, and so does the way to remove it: mend what the error
    says and delete it again. With --force it goes all the same, and what is left is listed, to be removed by hand.

    Asks first on a terminal, unless --yes is given.

    Exit status: 7 if --revoke was given, and something still works. Where taking it back may succeed later, the
    connector is kept, since nobody could without it.
    """
    ask = not yes and sys.stdin.isatty()
    if role_wide and not revoke:
        raise click.UsageError("--role-wide says how to revoke; give --revoke too")
    if damaged:
        _discard(run, name, revoke=revoke, ask=ask)
        return

    async def find(broker: Broker) -> Connector:
        return await broker.get(name)

    async def remove(broker: Broker) -> tuple[Connector, Sequence[Lease], list[str] | None]:
        connector = await broker.get(found.id if found else name)
        leases = await broker.revoke(connector=connector.id, role_wide=role_wide) if revoke else ()
        if not force and any(map(may_be_later, leases)):
            return connector, leases, None
        connector = await broker.delete(connector, force=force)
        left = [step_of(one) for one in await broker.unremoved() if one.connector_id == connector.id] if force else []
        return connector, leases, left

    found: Connector | None = None
    if ask:
        found = with_broker(run, find)  # asked outside of the event loop, where Ctrl-C is heard at once
        more = " and revoke what it has issued" if revoke else ""
        more += ", from all who use the same role" if role_wide else ""
        _confirm(f"Delete the connector {found.name!r} ({found.type}){more}?")
    connector, leases, left = with_broker(run, remove)
    if left is None:
        say(f"Kept the connector {connector.name!r}: what it has issued could not all be revoked, and nobody could "
            "without it; run this again later, or with --force.")  # fmt: skip
    else:
        say(f"Deleted the connector {connector.name!r}.")
    for step in left or ():
        say(f"Left at its vendor, remove it by hand: {step}")
    if leases:
        from mooring.cli._revoke import say_what_works, table

        emit("table", None, table(run, leases))
        say_what_works(leases, role_wide=role_wide)


def _discard(run: Run, name: str, *, revoke: bool, ask: bool) -> None:
    """Remove a damaged record."""
    if revoke:
        raise click.UsageError("a damaged record can revoke nothing; leave --revoke out")
    if ask:
        _confirm(f"Remove the record {name!r} for good, if it is damaged?")
    if not with_broker(run, lambda broker: broker.discard(name)):
        raise UnknownConnector(f"no damaged record is named {name!r}; what can be read goes without --damaged")
    say(f"Removed the damaged record {name!r}.")


def _confirm(question: str) -> None:
    if not click.confirm(question, err=True):
        say("Nothing was deleted.")
        raise click.exceptions.Exit(INTERRUPTED)
