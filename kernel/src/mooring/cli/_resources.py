"""`list-resources` and `verify`: what connectors reach, and whether the vendor accepts them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
import msgspec

from mooring.cli._broker import with_broker
from mooring.cli._completion import complete_connector, complete_resource_type, complete_type
from mooring.cli._edge import FAILED, Run
from mooring.cli._known import check_id, check_known, connectors_routes, left_out
from mooring.cli._lazy import command
from mooring.cli._output import NO_CONNECTOR, Table, Title, emit, output_option, say
from mooring.cli._process import INTERRUPTED
from mooring.cli._reach import Reach, progress
from mooring.cli._values import remaining, wanted_labels
from mooring.errors import RecordDamaged, UnsupportedResource

if TYPE_CHECKING:
    from mooring.broker import Broker
    from mooring.store import Connectors
    from mooring.types import Connector, Identity


@command("list-resources")
@click.option("-c", "--connector-type", metavar="TYPE", shell_complete=complete_type, help="Only such connectors.")
@click.option(
    "-r", "--resource-type", metavar="TYPE", shell_complete=complete_resource_type, help="Only resources of this type."
)
@click.option("-i", "--resource-id", metavar="ID", help="Only this resource, in any of its accepted forms.")
@click.option(
    "-n",
    "--connector",
    "names",
    metavar="NAME",
    multiple=True,
    shell_complete=complete_connector,
    help="Only this one; repeatable.",
)
@click.option("-l", "--label", "labels", metavar="KEY[=VALUE]", multiple=True, help="Only connectors with it.")
@click.option(
    "-m", "--match", metavar="PATTERN", multiple=True, help="Only ids like this, such as 's3://prod-*'; repeatable."
)
@click.option("-e", "--exclude-errors", is_flag=True, help="Leave out the connectors that failed.")
@click.option("--fail-fast", is_flag=True, help="End at the first failure.")
@click.option("--stats", is_flag=True, help="Show what asking has cost: time, calls, retries, waiting.")
@output_option
@click.pass_obj
def list_resources(
    run: Run,
    connector_type: str | None,
    resource_type: str | None,
    resource_id: str | None,
    names: Sequence[str],
    labels: Sequence[str],
    match: Sequence[str],
    exclude_errors: bool,
    fail_fast: bool,
    stats: bool,
    output: str,
) -> None:
    """List what the connectors reach. All are asked at once; one that fails has its error in its row.

    Patterns, in --match and in the values of --label, have *, ? and [...]. What a filter rules out is not asked.

    Exit status: 7 if all of them failed, or with --fail-fast one. Ctrl-C shows what was found until then.
    """
    if exclude_errors and fail_fast:
        raise click.UsageError("--exclude-errors and --fail-fast contradict each other; give one of them")
    if any(not pattern for pattern in match):
        raise click.BadParameter("it is empty", param_hint="'--match'")
    reach, began = Reach(run), time.monotonic()

    async def work(broker: Broker) -> None:
        chosen = await _chosen(broker, names, connector_type, resource_type, wanted_labels(labels))
        if not chosen and not chosen.damaged:
            say("No connector matches." if await broker.list() else NO_CONNECTOR)
            return
        if resource_id is not None and chosen:
            kinds = {resource_type} if resource_type else {one.resource_type for one in chosen}
            check_id(connectors_routes(broker.registry, chosen), kinds, resource_id)
        filters: dict[str, Any] = {"resource_type": resource_type, "resource_id": resource_id, "match": match}
        if names:
            filters["connectors"] = [*chosen, *(error.id for error in chosen.damaged)]
        else:
            filters |= {"type": connector_type, "labels": wanted_labels(labels)}
        with progress(reach, len(chosen) + len(chosen.damaged), live=output == "table") as heard:
            await reach.gather(broker, heard=heard, fail_fast=fail_fast, **filters)

    interrupted = False
    try:
        with_broker(run, work)
    except KeyboardInterrupt:
        interrupted = True
    took = timedelta(seconds=time.monotonic() - began)
    _show(reach, output, errors=not exclude_errors, took=took if stats else None)
    _end(reach, interrupted=interrupted, exclude_errors=exclude_errors, fail_fast=fail_fast)


def _end(reach: Reach, *, interrupted: bool, exclude_errors: bool, fail_fast: bool) -> None:
    """Say what the table does not, and exit with the code for it."""
    if not reach.count and (reach.answered or (reach.failed and exclude_errors)):
        say("Nothing was found.")
    if interrupted:
        say("Interrupted; this is what was found until then.")
        raise click.exceptions.Exit(INTERRUPTED)
    if reach.failed and (fail_fast or not reach.answered):
        raise click.exceptions.Exit(FAILED)


def _show(reach: Reach, output: str, *, errors: bool, took: timedelta | None) -> None:
    """What was found; and what that has cost, if it is given how long it took."""
    if took is None:
        emit(output, reach.data(errors=errors), reach.table(errors=errors))
        return
    costs, total = reach.stats_table(took)
    data = {"resources": reach.data(errors=errors), "took": took, "stats": reach.stats()}
    emit(output, data, reach.table(errors=errors), Title("What asking has cost"), costs)
    say(total)


async def _chosen(
    broker: Broker, names: Sequence[str], type: str | None, resource_type: str | None, labels: dict[str, str | None]
) -> Connectors:
    """The connectors to ask, and the damaged records among them.

    One that was named and cannot be among them is told why; if none can, that is an error.
    """
    found = await broker.list(type=type, resource_type=resource_type, labels=labels)
    if names:
        named: dict[str, Connector] = {}
        damaged: dict[str, RecordDamaged] = {}
        for name in names:
            try:
                one = await broker.get(name)
            except RecordDamaged as error:
                damaged[error.id] = error
            else:
                named[one.id] = one
        found[:] = [one for one in found if one.id in named]
        found.damaged = list(damaged.values())
    if not found and not found.damaged:
        check_known(broker.registry, type=type, resource_type=resource_type)
    if names and len(found) < len(named):
        for one in found:
            del named[one.id]
        why = [left_out(one, type=type, resource_type=resource_type, labels=labels) for one in named.values()]
        if not found and not found.damaged:
            raise UnsupportedResource("; ".join(why))
        for sentence in why:
            say(f"Note: {sentence}.")
    return found


@command("verify")
@click.argument("name", shell_complete=complete_connector)
@click.option(
    "-r", "--resource-type", metavar="TYPE", shell_complete=complete_resource_type, help="Only for this resource type."
)
@click.option("-i", "--resource-id", metavar="ID", help="Only for this resource.")
@click.option("-v", "--verify-only", is_flag=True, help="Do not list what it reaches.")
@output_option
@click.pass_obj
def verify(
    run: Run, name: str, resource_type: str | None, resource_id: str | None, verify_only: bool, output: str
) -> None:
    """Ask the vendor whether it accepts a connector, as whom, and what it reaches."""
    reach = Reach(run)

    async def work(broker: Broker) -> tuple[Connector, Identity]:
        connector = await broker.get(name)
        identity = await broker.verify(connector.id, resource_type=resource_type, resource_id=resource_id)
        if not verify_only:
            with progress(reach, 1) as heard:
                await reach.gather(
                    broker,
                    heard=heard,
                    connectors=[connector.id],
                    resource_type=resource_type,
                    resource_id=resource_id,
                )
        return connector, identity

    connector, identity = with_broker(run, work)
    data: dict[str, Any] = {"connector_id": connector.id, "connector": connector.name}
    data["identity"] = msgspec.to_builtins(identity, builtin_types=())
    about = [("connector", connector.name), ("accepted as", identity.subject)]
    if identity.account:
        about.append(("account", identity.account))
    if identity.expires_at:
        about.append(("expires in", remaining(identity.expires_at)))
    if verify_only:
        emit(output, data, Table(("", ""), about))
    else:
        emit(output, data | {"resources": reach.data()}, Table(("", ""), about), reach.table())
