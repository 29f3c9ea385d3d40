"""`mooring audit`: who did what, whether the log of it is whole, and whose a secret is."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
import msgspec

from mooring.cli._broker import with_broker
from mooring.cli._completion import complete_connector
from mooring.cli._edge import FAILED, Run
from mooring.cli._lazy import LazyGroup, command
from mooring.cli._leases import state_of
from mooring.cli._output import Bad, Table, emit, output_option, say, short
from mooring.cli._secrets import Source
from mooring.errors import InvalidConfig, UnknownLease
from mooring.types import ConfigField, Secret

if TYPE_CHECKING:
    from mooring.broker import AuditLine, Broker

DIGEST = re.compile("[0-9a-f]{64}")
COLUMNS = ("NUMBER", "AT", "ACTION", "OUTCOME", "CONSUMER", "BY", "CONNECTOR", "RESOURCE", "LEASE")

group = LazyGroup(
    "audit",
    help="The audit log: every hand-out and every change, each entry linked to the one before.",
    places={"list": "_audit:list_", "verify": "_audit:verify", "trace": "_audit:trace"},
)


@command("list", examples=("mooring audit list --connector prod",))
@click.option(
    "--after", type=click.IntRange(min=0), default=0, metavar="NUMBER", help="Only what came after this entry."
)
@click.option("--action", metavar="NAME", help="Only this, such as issue, refresh, revoke or register.")
@click.option(
    "--connector",
    metavar="NAME",
    shell_complete=complete_connector,
    help="Only of this connector, by its name then or its id.",
)
@click.option("--consumer", metavar="NAME", help="Only by or for this consumer.")
@click.option("--lease", metavar="ID", help="Only of this lease; its beginning will do.")
@output_option
@click.pass_obj
def list_(run: Run, /, after: int, output: str, **wanted: str | None) -> None:
    """List the audit log, the oldest entry first."""

    async def work(broker: Broker) -> list[AuditLine]:
        return [line async for line in broker.audit(after=after) if _matches(line, **wanted)]

    found = with_broker(run, work, looking=True)
    emit(output, [_as_data(one) for one in found], Table(COLUMNS, [_row(one) for one in found]))
    if not found:
        say("No entry matches." if after or any(wanted.values()) else "The audit log is empty.")


def _matches(
    line: AuditLine, *, action: str | None, connector: str | None, consumer: str | None, lease: str | None
) -> bool:
    entry = line.entry
    return (
        action in (None, entry.action)
        and connector in (None, entry.connector, entry.connector_id)
        and consumer in (None, entry.consumer)
        and (lease is None or (bool(lease) and entry.lease.startswith(lease)))
    )


def _as_data(line: AuditLine) -> dict[str, Any]:
    """The entry as plain values, without the marks, which are for `trace`."""
    entry = line.entry
    return {"seq": line.seq} | {name: getattr(entry, name) for name in entry.__struct_fields__ if name != "marks"}


def _row(line: AuditLine) -> tuple[str, ...]:
    entry = line.entry
    return (
        str(line.seq),
        f"{entry.at:%Y-%m-%d %H:%M:%SZ}",
        f"{entry.action} {entry.detail}".rstrip(),
        entry.outcome if entry.outcome == "ok" else Bad(entry.outcome),
        entry.consumer,
        entry.by,
        entry.connector,
        entry.resource_id or entry.resource_type,
        short(entry.lease),
    )


@command("verify", examples=("mooring audit verify",))
@click.option("--expect", metavar="DIGEST", help="What an earlier verify printed: it must be in the log still.")
@output_option
@click.pass_obj
def verify(run: Run, expect: str | None, output: str) -> None:
    """Check that the audit log is as it was written: that no entry was changed, removed or put in.

    It prints the digest of the last entry. Whoever keeps that elsewhere can prove later, with --expect, that nothing
    before it was changed, even by somebody who has the master key.

    Exit status: 7 if something is wrong.
    """
    if expect is not None:
        expect = expect.strip().lower()
        if not DIGEST.fullmatch(expect):
            raise InvalidConfig("--expect is no digest; give the 64 hexadecimal digits that audit verify printed")
    report = with_broker(run, lambda broker: broker.verify_audit(expected=expect), looking=True)
    rows: list[tuple[str, str | list[str]]] = [("entries", str(report.entries)), ("digest", report.digest)]
    rows.append(("problems", [Bad(one) for one in report.problems] or "none"))
    emit(output, msgspec.to_builtins(report), Table(("", ""), rows))
    if report.problems:
        raise click.exceptions.Exit(FAILED)


@command("trace", examples=("mooring audit trace @found-in-a-log.txt",))
@click.argument("source", metavar="-|@FILE", default="-")
@output_option
@click.pass_obj
def trace(run: Run, source: str, output: str) -> None:
    """Find out whose a secret is that has turned up somewhere: by whom, when and for what it was handed out.

    It is read from standard input, or asked for on a terminal, and is neither stored nor shown. Only what mooring has
    issued is found, under a master key that is still at hand.
    """
    if source != "-" and (not source.startswith("@") or source.startswith("@@")):
        raise InvalidConfig(
            "a secret on the command line can be seen by others; give it as - (standard input) or @FILE"
        )
    if source == "-" and sys.stdin.isatty():
        say("The secret is not shown as you type or paste it.")
    field = ConfigField(name="secret", type="str", required=True, secret=True)
    secret = Source().read(field, source)
    run.mask.learn(secret)

    async def work(broker: Broker) -> tuple[Sequence[AuditLine], dict[str, str]]:
        lines = await broker.trace(Secret(secret))
        return lines, await _states(broker, {line.entry.lease for line in lines})

    found, states = with_broker(run, work, looking=True)
    data = [_as_data(one) | {"lease_state": states.get(one.entry.lease)} for one in found]
    rows = [(*_row(one), states.get(one.entry.lease, "over")) for one in found]
    emit(output, data, Table((*COLUMNS, "NOW"), rows))
    if not found:
        say("No hand-out of it is on record.")


async def _states(broker: Broker, leases: Iterable[str]) -> dict[str, str]:
    """What became of leases, by id; one that is over is forgotten after a week."""
    states: dict[str, str] = {}
    for lease in leases:
        with suppress(UnknownLease):
            states[lease] = state_of(await broker.lease(lease))
    return states
