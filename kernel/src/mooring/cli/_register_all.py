"""`register --auto-configure --all`: a connector for each thing that is found on this machine, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from mooring.cli._broker import with_broker
from mooring.cli._edge import FAILED, Run
from mooring.cli._output import Bad, Table, emit, say, short
from mooring.cli._process import INTERRUPTED
from mooring.cli._register import foretold
from mooring.cli._shown import as_data
from mooring.cli._values import counted
from mooring.cli._watching import bar
from mooring.errors import MooringError
from mooring.types import split_config

if TYPE_CHECKING:
    from mooring.broker import Broker
    from mooring.hookspecs import Lifted, Unlifted
    from mooring.registry import Registry
    from mooring.types import Connector

COLUMNS = ("NAME", "ID", "TYPE", "AUTH METHOD", "SOURCE", "RESULT")
MAX_REGISTRATIONS = 32
"""How many are verified and stored at once."""


class Outcome:
    """One thing that was found, and what became of it: a connector, an error, or neither if it was interrupted."""

    def __init__(self, found: Lifted | Unlifted) -> None:
        self.found = found
        self.connector: Connector | None = None
        self.note: MooringError | None = None
        self.error: MooringError | None = getattr(found, "error", None)

    @property
    def source(self) -> str:
        """Where it was found, as far as the plugin says so."""
        return self.found.source

    @property
    def done(self) -> bool:
        """Whether nothing more will become of it."""
        return self.connector is not None or self.error is not None

    def data(self, run: Run, registry: Registry) -> dict[str, Any]:
        """As plain values."""
        error = self.error and {"error": type(self.error).__name__, "message": run.told(self.error)}
        connector = self.connector and as_data(self.connector, registry)
        return {"name": self.found.name, "source": self.source, "connector": connector, "error": error}

    def row(self, run: Run) -> tuple[str, ...]:
        """As a row of the table."""
        if (one := self.connector) is not None:
            return (one.name, short(one.id), one.type, one.auth_method, self.source, "registered")
        result = f"Error: {run.told(self.error)}" if self.error else "interrupted; not registered"
        return (self.found.name, "", "", self.found.auth_method, self.source, Bad(result))


def register_all(
    run: Run,
    registry: Registry,
    output: str,
    *,
    prefix: str,
    auth_method: str | None,
    options: Mapping[str, Any],
    rest: Mapping[str, Any],
) -> None:
    """Register everything that is found, and show what became of each: what is stored stays, whatever the others do."""
    outcomes: list[Outcome] = []  # outside of the event loop, so that it outlives an interruption

    async def work(broker: Broker) -> None:
        found = await broker.lift_all(rest["type"], prefix=prefix, auth_method=auth_method, options=options)
        outcomes.extend(map(Outcome, found))
        await _register(run, broker, outcomes, rest)

    interrupted = False
    try:
        with_broker(run, work)
    except KeyboardInterrupt:
        if not outcomes:
            raise
        interrupted = True
    stored = sum(one.connector is not None for one in outcomes)
    emit(output, [one.data(run, registry) for one in outcomes], Table(COLUMNS, [one.row(run) for one in outcomes]))
    for one in outcomes:
        if one.note:
            say(f"Note: as {one.found.name} is, issuing would be refused: {run.told(one.note)}.")
    if interrupted:
        say(f"Interrupted; {counted(stored, 'connector')} of {len(outcomes)} registered, and stored.")
        raise click.exceptions.Exit(INTERRUPTED)
    say(f"Registered {counted(stored, 'connector')} of {len(outcomes)} found.")
    if not stored:
        raise click.exceptions.Exit(FAILED)


async def _register(run: Run, broker: Broker, outcomes: Sequence[Outcome], rest: Mapping[str, Any]) -> None:
    import anyio

    from mooring.hookspecs import Lifted

    slots = anyio.CapacityLimiter(MAX_REGISTRATIONS)

    async def register(outcome: Outcome, lifted: Lifted) -> None:
        ends: datetime | None = rest["expires_at"] or lifted.expires_at
        given = {**rest, "auth_method": lifted.auth_method, "config": lifted.config, "expires_at": ends}
        async with slots:
            try:
                outcome.connector = await broker.register(lifted.name, **given)
                outcome.note = await foretold(broker, outcome.connector)
            except MooringError as error:
                outcome.error = error
        show(sum(one.done for one in outcomes), "registering")

    for one in outcomes:
        if isinstance(one.found, Lifted):
            run.mask.learn(*split_config(one.found.config)[1].values())
    with bar("registering", len(outcomes)) as show:
        async with anyio.create_task_group() as tasks:
            for one in outcomes:
                if isinstance(one.found, Lifted):
                    tasks.start_soon(register, one, one.found)
