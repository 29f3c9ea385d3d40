"""`lease revoke`: take back what was handed out, and say what still works."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mooring.cli._broker import with_broker
from mooring.cli._completion import complete_lease
from mooring.cli._edge import FAILED, Run
from mooring.cli._lazy import command
from mooring.cli._leases import as_data, filters, shown_state, state_of, where, works_until
from mooring.cli._output import Bad, Table, emit, output_option, say, short
from mooring.cli._process import INTERRUPTED
from mooring.cli._values import counted
from mooring.records import LIVE, Lease

if TYPE_CHECKING:
    from mooring.broker import Broker

OVER = ("revoked", "expired")
WIDE = "all that was issued for the same role until now ends, also what others hold and mooring knows nothing of"


@command(
    "revoke",
    examples=(
        "mooring lease revoke 1c9f03aa",
        "mooring lease revoke --connector prod --yes",
    ),
)
@click.argument("lease", metavar="[ID]", required=False, shell_complete=complete_lease)
@filters
@click.option("--role-wide", is_flag=True, help=f"Where a vendor can do no less: {WIDE}.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_option
@click.pass_obj
def revoke(
    run: Run,
    lease: str | None,
    connector: str | None,
    resource: str | None,
    consumer: str | None,
    role_wide: bool,
    yes: bool,
    output: str,
) -> None:
    """Take credentials back: of one lease, or of all that match the options.

    What its vendor cannot take back is handed out no more, and works until it ends. With --consumer, what others hold
    too stays theirs. On a terminal it asks first if that is more than one lease, or with --role-wide.

    Exit status: 7 if some of the credentials still work.
    """
    if lease is not None and (connector or resource):
        raise click.UsageError("an ID names one lease; leave --connector and --resource out")
    if lease is None and not (connector or resource or consumer):
        raise click.UsageError("name a lease, or say whose: --connector, --resource, --consumer")

    async def select(broker: Broker) -> Sequence[Lease]:
        if lease is not None:
            return [await broker.lease(lease)]
        return await broker.leases(connector=connector, resource=resource, consumer=consumer)

    async def work(broker: Broker) -> Sequence[Lease]:
        return await broker.revoke(
            lease, connector=connector, resource=resource, consumer=consumer, role_wide=role_wide
        )

    if not yes and sys.stdin.isatty():
        _ask(with_broker(run, select, alone=True), role_wide=role_wide)
    done = with_broker(run, work)
    if not done and lease is not None:
        over = with_broker(run, lambda broker: broker.lease(lease), looking=True)
        emit(output, list[Any](), table(run, []))
        say(f"The lease {over.id} is {state_of(over)} already.")
        return
    emit(output, [as_data(one) | {"error": run.mask(one.error)} for one in done], table(run, done))
    if not done:
        say("No lease matches.")
    say_what_works(done, role_wide=role_wide)


def _ask(leases: Sequence[Lease], *, role_wide: bool) -> None:
    """See that somebody wants what hits more than one lease."""
    live = [one for one in leases if state_of(one) in LIVE]
    wide = role_wide and any(one.revocation == "role-wide" for one in live)
    if len(live) <= 1 and not wide:
        return
    names = sorted({one.connector for one in live})
    question = f"Revoke {counted(len(live), 'lease')} of {', '.join(names)}?"
    if not click.confirm(f"{question} With --role-wide {WIDE}." if wide else question, err=True):
        say("Nothing was revoked.")
        raise click.exceptions.Exit(INTERRUPTED)


def table(run: Run, leases: Sequence[Lease]) -> Table:
    """What became of leases, for people."""
    rows = [(short(one.id), shown_state(one), one.connector, where(one), _told(run, one)) for one in leases]
    return Table(("LEASE", "STATE", "CONNECTOR", "RESOURCE", "RESULT"), rows)


def _told(run: Run, lease: Lease) -> str:
    match state_of(lease):
        case "revoked" if lease.revocation == "role-wide":
            return "refused for the role; the vendor may take minutes to spread that"
        case "revoked":
            return "does not work any more"
        case "expired":
            return "has ended"
        case "released":
            return Bad(f"handed out no more; {works_until(lease)}")
        case "active":
            return Bad(f"not counted as this consumer's any more; others hold it too, and it {works_until(lease)}")
        case "revoking" | "irrevocable":
            why = f": {run.mask(lease.error)}" if lease.error else ""
            return Bad(f"not revoked yet, and tried again; {works_until(lease)}{why}")


def say_what_works(leases: Sequence[Lease], *, role_wide: bool = False) -> None:
    """Say what there is to say of leases after they were to be revoked, and end in 7 if some still work."""
    working = [one for one in leases if state_of(one) not in OVER]
    if not working:
        return
    say(f"{len(working)} of {counted(len(leases), 'lease')} could not be revoked.")
    if not role_wide and any(one.state == "released" and one.revocation == "role-wide" for one in working):
        say(f"Note: with --role-wide they can be: {WIDE}.")
    raise click.exceptions.Exit(FAILED)
