"""`list-resources` and `verify`: what connectors reach, and whether the vendor accepts them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from mooring.cli._broker import with_broker
from mooring.cli._completion import complete_connector, complete_resource, complete_resource_type, complete_type
from mooring.cli._edge import FAILED, Run
from mooring.cli._known import check_id, check_known, connectors_routes, left_out
from mooring.cli._lazy import command
from mooring.cli._output import NO_CONNECTOR, Table, Title, emit, output_option, say
from mooring.cli._process import INTERRUPTED
from mooring.cli._reach import Reach
from mooring.cli._refresh import is_stale, refresh, start
from mooring.cli._values import age, remaining, to_patterns, to_span, wanted_labels
from mooring.cli._watching import watching
from mooring.errors import RecordDamaged, UnsupportedResource

if TYPE_CHECKING:
    from mooring.broker import Broker
    from mooring.store import Connectors
    from mooring.types import Connector, Identity

SHOWN = 10
"""So many connectors are named in a note."""


@command(
    "list-resources",
    examples=(
        "mooring connector list-resources",
        "mooring connector list-resources --match 's3://prod-*' --exclude-errors",
        "mooring connector list-resources -r s3-bucket --cached -o json",
    ),
)
@click.option("-c", "--connector-type", metavar="TYPE", shell_complete=complete_type, help="Only such connectors.")
@click.option(
    "-r", "--resource-type", metavar="TYPE", shell_complete=complete_resource_type, help="Only resources of this type."
)
@click.option(
    "-i",
    "--resource-id",
    metavar="ID",
    shell_complete=complete_resource,
    help="Only this resource, in any of its accepted forms.",
)
@click.option(
    "-n",
    "--connector",
    "names",
    metavar="NAME",
    multiple=True,
    shell_complete=complete_connector,
    help="Only this one; repeatable.",
)
@click.option(
    "-l",
    "--label",
    "labels",
    metavar="KEY[=VALUE]",
    multiple=True,
    help="Only connectors with it; the value may be a pattern, such as 'da*'.",
)
@click.option(
    "-m",
    "--match",
    metavar="PATTERN",
    multiple=True,
    callback=to_patterns,
    help="Only resources with an id like this, such as 's3://prod-*'; repeatable. What cannot match is not asked.",
)
@click.option("-e", "--exclude-errors", is_flag=True, help="Leave out the connectors that failed.")
@click.option("--fail-fast", is_flag=True, help="End at the first failure.")
@click.option("--stats", is_flag=True, help="Show what asking has cost, the slowest first.")
@click.option("--cached", is_flag=True, help="Answer from what was found before, and ask only what never was.")
@click.option("--no-refresh", is_flag=True, help="Do not ask again afterwards, with --cached, for what is old.")
@click.option(
    "--timeout", metavar="DURATION", callback=to_span, help="How long each unit may take, such as 5s; 30s unless given."
)
@click.option("--refresh-stale", is_flag=True, hidden=True)
@output_option
@click.pass_obj
def list_resources(
    run: Run,
    /,
    connector_type: str | None,
    resource_type: str | None,
    names: Sequence[str],
    labels: Sequence[str],
    refresh_stale: bool,
    **how: Any,
) -> None:
    """List what the connectors reach. All are asked at once; one that fails has its error in its row.

    With --cached the answer comes at once, with its age. What is older than 10 minutes is then asked again by another
    process, for the next time.

    Exit status: 7 if all of them failed, or one with --fail-fast. Ctrl-C shows what was found until then.
    """
    if how["fail_fast"] and how["exclude_errors"]:
        raise click.UsageError("--fail-fast shows an error, --exclude-errors leaves it out; give one of them")
    if how["no_refresh"] and not how["cached"]:
        raise click.UsageError("--no-refresh goes with --cached; without that all is asked anyway")
    choice = Choice(tuple(names), connector_type, resource_type, wanted_labels(labels))
    if refresh_stale:
        refresh(run, choice.of, resource_type)
    else:
        _list(run, choice, **how)


class Choice(NamedTuple):
    """Which connectors are asked."""

    names: tuple[str, ...]
    type: str | None
    resource_type: str | None
    labels: dict[str, str | None]

    def arguments(self) -> list[str]:
        """As they stand on the command line."""
        labels = [key if value is None else f"{key}={value}" for key, value in self.labels.items()]
        options = (("connector", self.names), ("label", labels))
        given = [f"--{name}={value}" for name, values in options for value in values]
        given += [f"--connector-type={self.type}"] * (self.type is not None)
        return given + [f"--resource-type={self.resource_type}"] * (self.resource_type is not None)

    async def of(self, broker: Broker) -> Connectors:
        """The connectors to ask, and the damaged records among them.

        One that was named and cannot be among them is told why; if none can, that is an error.
        """
        about: dict[str, Any] = {"type": self.type, "resource_type": self.resource_type}
        found = await broker.list(**about, labels=self.labels)
        named = await self._named(broker, found)
        if not found and not found.damaged:
            check_known(broker.registry, **about)
        left = {id: one for id, one in named.items() if id not in {each.id for each in found}}
        why = [left_out(one, **about, labels=self.labels) for one in left.values()]
        if why and not found and not found.damaged:
            raise UnsupportedResource("; ".join(why))
        for sentence in why:
            say(f"Note: {sentence}.")
        return found

    async def _named(self, broker: Broker, found: Connectors) -> dict[str, Connector]:
        """Leave only those that were named, if any were; what the names stand for."""
        named: dict[str, Connector] = {}
        damaged: dict[str, RecordDamaged] = {}
        for name in self.names:
            try:
                one = await broker.get(name)
            except RecordDamaged as error:
                damaged[error.id] = error
            else:
                named[one.id] = one
        if self.names:
            found[:] = [one for one in found if one.id in named]
            found.damaged = list(damaged.values())
        return named


def _list(
    run: Run,
    choice: Choice,
    *,
    resource_id: str | None,
    match: tuple[str, ...],
    exclude_errors: bool,
    fail_fast: bool,
    stats: bool,
    cached: bool,
    no_refresh: bool,
    timeout: timedelta | None,
    output: str,
) -> None:
    reach = Reach(run, cached=cached)
    chosen: dict[str, str] = {}

    async def work(broker: Broker) -> None:
        found = await choice.of(broker)
        chosen.update({one.id: one.name for one in (*found, *found.damaged)})
        if not chosen:
            say("No connector matches." if await broker.list() else NO_CONNECTOR)
            return
        if resource_id is not None and found:
            kinds = {choice.resource_type} if choice.resource_type else {one.resource_type for one in found}
            check_id(connectors_routes(broker.registry, found), kinds, resource_id)
        how: dict[str, Any] = {"resource_type": choice.resource_type, "resource_id": resource_id, "match": match}
        if cached:
            how |= {"cached": True, "refresh": False}
        connectors = [*found, *(error.id for error in found.damaged)]
        watch.begin(len(connectors))
        await reach.gather(broker, heard=watch.heard, fail_fast=fail_fast, connectors=connectors, **how)

    interrupted = False
    with watching(reach, rows=output == "table") as watch:
        try:
            with_broker(run, work, **_budgets(timeout))
        except KeyboardInterrupt:
            interrupted = True
    errors = not exclude_errors
    view: list[Table | str] = [reach.table(errors=errors)]
    if stats:
        view += [Title("Slowest first"), reach.stats(), reach.totals()]
    emit(output, reach.data(errors=errors, stats=stats), *view)
    if interrupted:
        say("Interrupted; this is what was found until then.")
        _unanswered(chosen, reach)
        raise click.exceptions.Exit(INTERRUPTED)
    _explain(reach, chosen, errors=errors, fail_fast=fail_fast, matching=bool(match))
    if is_stale(reach.oldest):
        _refresh(choice, reach, refresh=not no_refresh)
    if reach.failed and (fail_fast or not reach.answered):
        raise click.exceptions.Exit(FAILED)


def _budgets(timeout: timedelta | None) -> dict[str, Any]:
    if timeout is None:
        return {}
    from mooring.broker import Budgets

    return {"budgets": Budgets(discover=timeout)}


def _explain(reach: Reach, chosen: Mapping[str, str], *, errors: bool, fail_fast: bool, matching: bool) -> None:
    """Say why there is nothing, or not all."""
    if fail_fast and reach.failed:
        say("Ended at the first failure; this is what was found until then.")
        _unanswered(chosen, reach)
    elif chosen and not reach.answered and not reach.failed:
        say("Nothing was found: none of the connectors can reach that, so none was asked.")
        if matching:
            say("A pattern is of whole ids, such as 's3://team-*'; to see their forms: mooring connector describe-type")
    elif not reach.count and (reach.answered or (reach.failed and not errors)):
        say("Nothing was found.")


def _unanswered(chosen: Mapping[str, str], reach: Reach) -> None:
    """Say of which connectors nothing has come."""
    names = sorted(name for id, name in chosen.items() if id not in reach.done)
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        say(f"Not answered yet: {', '.join(names[:SHOWN])}{more}.")


def _refresh(choice: Choice, reach: Reach, *, refresh: bool) -> None:
    """Once the answer is out, ask again for what is old."""
    sys.stdout.flush()
    old = f"Some of this was found {age(reach.oldest, datetime.now(UTC))} ago"
    say(f"{old}; it is being refreshed." if refresh and start(choice.arguments()) else f"{old}.")


@command(
    "verify",
    examples=(
        "mooring connector verify prod",
        "mooring connector verify prod -r s3-bucket -i s3://team-models",
    ),
)
@click.argument("name", shell_complete=complete_connector)
@click.option(
    "-r", "--resource-type", metavar="TYPE", shell_complete=complete_resource_type, help="Only for this resource type."
)
@click.option("-i", "--resource-id", metavar="ID", shell_complete=complete_resource, help="Only for this resource.")
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
            about: dict[str, Any] = {"resource_type": resource_type, "resource_id": resource_id}
            watch.begin(1)
            await reach.gather(broker, heard=watch.heard, connectors=[connector.id], **about)
        return connector, identity

    with watching(reach) as watch:
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
