"""`mooring vault`: the master keys."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click
import msgspec

from mooring.cli._broker import with_broker
from mooring.cli._edge import FAILED, Run
from mooring.cli._lazy import LazyGroup, command
from mooring.cli._output import Bad, Table, emit, output_option, say
from mooring.cli._process import INTERRUPTED
from mooring.cli._values import counted
from mooring.errors import NoMasterKey

if TYPE_CHECKING:
    from mooring.broker import Broker, KeyStatus, Rotation
    from mooring.vault import Place

group = LazyGroup(
    "vault",
    help="The master keys, under which connectors are sealed.",
    places={
        "status": "_vault:status",
        "rotate": "_vault:rotate",
        "prune": "_vault:prune",
        "export": "_vault:export",
    },
)


@command("status", examples=("mooring vault status",))
@output_option
@click.pass_obj
def status(run: Run, output: str) -> None:
    """List the master keys: where they lie, and what is sealed under them.

    Exit status: 7 if a key is missing that something is sealed under.
    """
    keys = with_broker(run, lambda broker: broker.keys(), alone=True)
    columns = ("KEY", "STATE", "SOURCE", "CONNECTORS", "CREATED", "RETIRED")
    rows = [
        (
            one.id,
            Bad(one.state) if one.state == "missing" else one.state,
            one.source,
            str(one.connectors),
            _day(one.created_at),
            _day(one.retired_at),
        )
        for one in keys
    ]
    emit(output, msgspec.to_builtins(keys), Table(columns, rows))
    if not keys:
        say("There is no master key yet; it is made with the first connector.")
    if any(one.state == "missing" for one in keys):
        raise click.exceptions.Exit(FAILED)


def _day(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%SZ}"


@command("rotate", examples=("mooring vault rotate",))
@click.option(
    "--into",
    type=click.Choice(("file", "keyring")),
    default="file",
    show_default=True,
    help="Where the new key shall lie: in the key file, or in the keyring of the operating system.",
)
@output_option
@click.pass_obj
def rotate(run: Run, into: Place, output: str) -> None:
    """Make a new master key and wrap everything under it; other processes go on meanwhile.

    Older keys are retired: nothing is sealed under them any more, and they are kept for backups until `mooring vault
    prune`. A rotation that was cut short is finished first; to have a new key then, run it again. Where
    MOORING_MASTER_KEY holds the keys, put a new one before the others, and everything is wrapped under it.

    Exit status: 7 if something could not be wrapped anew.
    """

    async def work(broker: Broker) -> Rotation:
        return await broker.rotate_keys(into=into, progress=progress)

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            say(f"{done} of {counted(total, 'connector')} wrapped under the new key")

    done = with_broker(run, work)
    rows = [
        ("active key", done.key_id),
        ("wrapped anew", counted(done.rewrapped, "connector")),
        ("retired", list(done.retired) or ""),
        ("problems", [Bad(one) for one in done.problems] or ""),
    ]
    emit(output, msgspec.to_builtins(done), Table(("", ""), [row for row in rows if row[1]]))
    if done.resumed:
        say("This finished an earlier rotation and made no new key; for one, run it again.")
    if done.problems:
        raise click.exceptions.Exit(FAILED)


@command("prune", examples=("mooring vault prune",))
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def prune(run: Run, yes: bool) -> None:
    """Remove the retired master keys for good. Backups that were made under them do not open any more."""
    keys: list[KeyStatus] = list(with_broker(run, lambda broker: broker.keys(), alone=True))
    retired = [one.id for one in keys if one.state == "retired"]
    if not retired:
        say("There is no retired master key.")
        return
    question = f"Remove {', '.join(retired)} for good? Backups made under them will not open any more."
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("without a terminal to ask on, say --yes")
    if not yes and not click.confirm(question, err=True):
        say("Nothing was removed.")
        raise click.exceptions.Exit(INTERRUPTED)
    gone = with_broker(run, lambda broker: broker.prune_keys())
    say(f"Removed {', '.join(gone)}." if gone else "There was no retired master key to remove.")


@command("export", examples=("mooring vault export",))
@click.argument("key_id", required=False)
def export(key_id: str | None) -> None:
    """Print a master key in clear, as MOORING_MASTER_KEY takes it: to restore a backup on another machine.

    The active key, unless another is named. Whoever has it, and a backup, has every secret in it.
    """
    from mooring.assembly import open_vault, settings_from
    from mooring.registry import SystemPlugins

    vault = open_vault(settings_from(), SystemPlugins())
    found = [key for key in vault.keys if key_id in (None, key.id)]
    if not found:
        known = ", ".join(key.id for key in vault.keys)
        raise NoMasterKey(f"there is no master key {key_id!r} at hand; there are: {known}")
    click.echo(found[0].exported())
