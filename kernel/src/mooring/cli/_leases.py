"""`mooring lease`: what was handed out, to whom, and until when it works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from mooring.cli._broker import with_broker
from mooring.cli._completion import complete_connector, complete_lease
from mooring.cli._edge import Run
from mooring.cli._issue import format_option, hand_over, rendered
from mooring.cli._lazy import LazyGroup, command
from mooring.cli._output import Bad, Table, Title, emit, output_option, say, short
from mooring.cli._values import remaining, written
from mooring.records import LIVE, Lease, LeaseState

if TYPE_CHECKING:
    from mooring.broker import Broker
    from mooring.credentials import Issued

F = TypeVar("F", bound=Callable[..., Any])

BAD = ("revoking", "irrevocable")
"""The states in which something went wrong."""

group = LazyGroup(
    "lease",
    help="Leases: the record of credentials that were handed out, by which they are renewed and revoked.",
    places={
        "list": "_leases:list_",
        "show": "_leases:show",
        "renew": "_leases:renew",
        "revoke": "_revoke:revoke",
    },
)


def _given(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | None:
    """An option's callback: some text. An unset variable of a script must not stand for everything."""
    if text == "":
        raise click.BadParameter("it is empty")
    return text


def filters(command: F) -> F:
    """The options that say which leases."""
    for option in (
        click.option("--consumer", metavar="NAME", callback=_given, help="Held by this consumer."),
        click.option(
            "--resource", metavar="PREFIX", callback=_given, help="Of resources whose id begins so, as list shows it."
        ),
        click.option(
            "--connector",
            metavar="NAME",
            callback=_given,
            shell_complete=complete_connector,
            help="Of this connector, which may be deleted.",
        ),
    ):
        command = option(command)
    return command


@command(
    "list",
    examples=(
        "mooring lease list",
        "mooring lease list --connector prod --resource s3://team-models",
    ),
)
@filters
@click.option(
    "--state",
    "states",
    type=click.Choice(get_args(LeaseState)),
    multiple=True,
    help="In this state; repeatable. Else those that may still work.",
)
@click.option("--all", "everything", is_flag=True, help="In any state; what is over is kept for a week.")
@output_option
@click.pass_obj
def list_(
    run: Run,
    connector: str | None,
    resource: str | None,
    consumer: str | None,
    states: Sequence[LeaseState],
    everything: bool,
    output: str,
) -> None:
    """List the leases whose credentials may still work, the oldest first.

    A lease is active; released (handed out no more, but it works until it ends); revoking (to be revoked, and tried
    again until it is); revoked; irrevocable (that has failed often, and it works until it ends); or expired.
    """
    if states and everything:
        raise click.UsageError("--all is every --state; give one of them")

    async def work(broker: Broker) -> Sequence[Lease]:
        wanted = None if everything else states or LIVE
        return await broker.leases(connector=connector, resource=resource, consumer=consumer, states=wanted)

    found = with_broker(run, work, alone=True)
    columns = ("LEASE", "STATE", "CONNECTOR", "RESOURCE", "ACCESS", "ENDS IN", "REVOCABLE", "HOLDERS")
    emit(output, [as_data(one) for one in found], Table(columns, [_row(one) for one in found]))
    if not found:
        filtered = connector or resource or consumer or states or everything
        say("No lease matches." if filtered else "There is no lease whose credentials may still work.")


def _row(lease: Lease) -> tuple[str | Sequence[str], ...]:
    return (
        short(lease.id),
        shown_state(lease),
        lease.connector,
        where(lease),
        lease.access,
        remaining(lease.expires_at) or "never",
        _revocable(lease),
        [holder.consumer for holder in lease.holders],
    )


def _revocable(lease: Lease) -> str:
    return {"real": "yes", "none": "no"}.get(lease.revocation, lease.revocation)


def state_of(lease: Lease) -> LeaseState:
    """Its state; expired, too, where nobody has written that down yet."""
    ended = lease.expires_at is not None and lease.expires_at <= datetime.now(UTC)
    return "expired" if ended and lease.state in LIVE else lease.state


def shown_state(lease: Lease) -> str:
    """Its state, as a table shows it."""
    state = state_of(lease)
    return Bad(state) if state in BAD else state


def where(lease: Lease) -> str:
    """What its credentials are for."""
    return lease.resource_id or lease.resource_type


def works_until(lease: Lease) -> str:
    """Until when its credentials work if nobody takes them back."""
    if lease.expires_at is None:
        return "works without end"
    return f"works until {lease.expires_at:%Y-%m-%d %H:%M:%SZ}, in {remaining(lease.expires_at)}"


def as_data(lease: Lease) -> dict[str, Any]:
    """The lease as plain values."""
    data = {name: getattr(lease, name) for name in lease.__struct_fields__ if name != "undo"}
    return data | {"state": state_of(lease)}


@command("show", examples=("mooring lease show 1c9f03aa",))
@click.argument("lease", metavar="ID", shell_complete=complete_lease)
@output_option
@click.pass_obj
def show(run: Run, lease: str, output: str) -> None:
    """Show a lease: what it is for, what became of it, and who holds it. ID may be its first 8 characters."""
    found = with_broker(run, lambda broker: broker.lease(lease), alone=True)
    rows = [
        ("lease", found.id),
        ("state", shown_state(found)),
        ("connector", f"{found.connector} ({found.connector_type})"),
        ("connector id", found.connector_id),
        ("resource type", found.resource_type),
        ("resource", found.resource_id or ""),
        ("access", found.access),
        ("narrowed", "yes" if found.narrowed else "no"),
        ("issued", _moment(found.issued_at)),
        ("ends", f"{_moment(found.expires_at)} ({remaining(found.expires_at)})" if found.expires_at else "never"),
        ("ttl", "" if found.ttl is None else written(found.ttl)),
        ("revocable", _revocable(found)),
        ("failures", Bad(f"{found.attempts}: {run.mask(found.error)}") if found.attempts else ""),
    ]
    view: list[Table | str] = [Table(("", ""), [row for row in rows if row[1]])]
    if found.holders:
        columns = ("HOLDER", "FIRST", "LAST", "TIMES")
        holders = [(one.consumer, _moment(one.first_at), _moment(one.last_at), str(one.count)) for one in found.holders]
        view += [Title("holders"), Table(columns, holders)]
    emit(output, as_data(found) | {"error": run.mask(found.error)}, *view)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%SZ}"


@command("renew", examples=("mooring lease renew 1c9f03aa",))
@click.argument("lease", metavar="ID", shell_complete=complete_lease)
@format_option
@click.pass_obj
def renew(run: Run, lease: str, format: str) -> None:
    """Issue credentials like those of a lease, new ones. They are printed in clear, as `mooring issue` does.

    The old ones work until they end; to end them sooner: mooring lease revoke.
    """

    async def work(broker: Broker) -> tuple[Lease, Issued, str]:
        old = await broker.lease(lease)
        issued = await broker.renew(old.id)
        return old, issued, rendered(run, broker.registry, issued, format)

    old, issued, text = with_broker(run, work, alone=True)
    hand_over(issued, text, format)
    left = f"which {works_until(old)}" if state_of(old) in LIVE else f"which is {state_of(old)}"
    say(f"{'Made before' if issued.cached else 'Made'}: lease {issued.lease} in the place of {old.id}, {left}.")
