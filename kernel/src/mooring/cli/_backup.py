"""`mooring backup`, `mooring restore` and `mooring store check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from mooring.cli._broker import with_broker
from mooring.cli._edge import FAILED, Run
from mooring.cli._lazy import LazyGroup, command
from mooring.cli._output import Bad, Table, emit, output_option, say
from mooring.cli._process import INTERRUPTED
from mooring.cli._values import counted

if TYPE_CHECKING:
    from mooring.broker import Broker, Report

FILE = click.Path(dir_okay=False, path_type=Path)

group = LazyGroup("store", help="What is stored.", places={"check": "_backup:check"})


@command("backup", examples=("mooring backup store.backup",))
@click.argument("file", type=FILE)
@output_option
@click.pass_obj
def backup(run: Run, file: Path, output: str) -> None:
    """Write everything that is stored into a new FILE, as of one moment, sealed under the master key.

    Others may go on working meanwhile. Keep the master key apart from it (mooring vault export): without it the backup
    does not open, with it anybody can open it.
    """
    note = with_broker(run, lambda broker: broker.back_up(file))
    if output != "table":
        emit(output, msgspec.to_builtins(note))
    say(f"Backed up {counted(note.connectors, 'connector')} to {file}.")


@command("restore", examples=("mooring restore store.backup --replace",))
@click.argument("file", type=FILE)
@click.option(
    "--replace", is_flag=True, help="Even if connectors are stored: those are backed up first, then replaced."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_option
@click.pass_obj
def restore(run: Run, file: Path, replace: bool, yes: bool, output: str) -> None:
    """Put what a backup FILE holds in the place of what is stored, in one step.

    It needs the master key that the backup was made under.
    """
    question = "Replace all connectors that are stored by those of the backup?"
    if replace and not yes and sys.stdin.isatty() and not click.confirm(question, err=True):
        say("Nothing was restored.")
        raise click.exceptions.Exit(INTERRUPTED)
    done = with_broker(run, lambda broker: broker.restore(file, replace=replace))
    if output != "table":
        emit(output, msgspec.to_builtins(done))
    say(f"Restored {counted(done.note.connectors, 'connector')}, as of {done.note.created_at:%Y-%m-%d %H:%M:%SZ}.")
    if done.saved:
        say(f"What was stored before is in {done.saved}.")


@command("check", examples=("mooring store check",))
@click.argument("file", type=FILE, required=False)
@output_option
@click.pass_obj
def check(run: Run, file: Path | None, output: str) -> None:
    """Check the store: its file, every record and every seal. With a backup FILE, check that it could be restored.

    Changes nothing. Exit status: 7 if something is wrong.
    """

    async def work(broker: Broker) -> Report:
        return await broker.check(file)

    report = with_broker(run, work)
    rows = [
        ("connectors", str(report.connectors)),
        ("documents", str(report.documents)),
        ("problems", [Bad(one) for one in report.problems] or "none"),
    ]
    emit(output, msgspec.to_builtins(report), Table(("", ""), rows))
    if report.problems:
        raise click.exceptions.Exit(FAILED)
