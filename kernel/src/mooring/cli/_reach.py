"""What connectors reach, gathered as it is found, and shown grouped by connector and resource type."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mooring.cli._output import Bad, Table, console, printable, short
from mooring.cli._values import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mooring.broker import Broker, Discovery, Failed, Finished
    from mooring.cli._edge import Run
    from mooring.types import Connector, Resource

COLUMNS = ("CONNECTOR ID", "CONNECTOR NAME", "CONNECTOR TYPE", "RESOURCE TYPE", "RESOURCE NAMES")
SHORT = ("ID", "NAME", "TYPE", "RESOURCE TYPE", "RESOURCE NAMES")
STATS = ("CONNECTOR", "RESOURCE TYPE", "UNIT", "TOOK", "CALLS", "RETRIES", "WAITED", "FOUND")
LATEST = 200
"""How many of the latest replies are kept for the live view."""


class Reach:
    """The replies so far. It stands outside of the event loop, so that it outlives an interruption."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._groups: dict[tuple[str, str], Group] = {}
        self._connectors: dict[str, Connector] = {}
        self.answered: set[str] = set()
        self.failed: set[str] = set()
        self.count = 0
        self.latest: deque[tuple[str, str, str]] = deque(maxlen=LATEST)
        """Connector, resource type, and what was found or went wrong."""
        self._units: list[tuple[Finished | Failed, int | str]] = []

    async def gather(
        self,
        broker: Broker,
        *,
        heard: Callable[[], None] = lambda: None,
        fail_fast: bool = False,
        **filters: Any,
    ) -> None:
        """Ask, and call `heard` after each reply; with `fail_fast`, until something fails."""
        async with broker.discover(**filters) as replies:
            async for reply in replies:
                self._add(reply)
                heard()
                if fail_fast and self.failed:
                    return

    def _add(self, reply: Discovery) -> None:
        from mooring.broker import Failed, Found

        connector = reply.connector
        kind = reply.resource.type if isinstance(reply, Found) else reply.resource_type
        group = self._groups.setdefault((connector.id, kind or ""), Group(connector, kind))
        if isinstance(reply, Found):
            group.resources.append(reply.resource)
            self.count += 1
            self.latest.append((connector.name, kind or "", reply.resource.id))
        elif isinstance(reply, Failed):
            self.failed.add(connector.id)
            error = self._error(reply)
            group.errors.append(error)
            self.latest.append((connector.name, kind or "", Bad(f"Error: {error['message']}")))
            self._units.append((reply, error["error"]))
        else:
            self._units.append((reply, reply.count))
        if not isinstance(reply, Failed):
            self.answered.add(connector.id)

    def _error(self, reply: Failed) -> dict[str, str]:
        message = self._run.mask(reply.error.message)
        return {"unit": reply.unit, "error": type(reply.error).__name__, "message": message}

    def stats(self) -> list[dict[str, Any]]:
        """What asking has cost, unit by unit, the slowest first."""
        return [
            {
                "connector": one.connector.name,
                "resource_type": one.resource_type,
                "unit": one.unit,
                "took": one.took,
                "calls": one.cost.calls,
                "retries": one.cost.retries,
                "waited": one.cost.waited,
                **({"found": came} if isinstance(came, int) else {"error": came}),
            }
            for one, came in sorted(self._units, key=lambda unit: unit[0].took, reverse=True)
        ]

    def stats_table(self, took: timedelta) -> tuple[Table, str]:
        """The same for people, and what it comes to."""
        units = self.stats()
        rows = [
            (
                one["connector"],
                one["resource_type"] or "",
                one["unit"],
                _seconds(one["took"]),
                str(one["calls"]),
                str(one["retries"]),
                _seconds(one["waited"]),
                str(one["found"]) if "found" in one else Bad(one["error"]),
            )
            for one in units
        ]
        calls, retries = (sum(one[name] for one in units) for name in ("calls", "retries"))
        waited = sum((one["waited"] for one in units), timedelta(0))
        total = (
            f"{counted(len(self.answered | self.failed), 'connector')}, {counted(len(units), 'unit')}, "
            f"{counted(self.count, 'resource')} in {_seconds(took)}: {counted(calls, 'call')}, "
            f"{retries} of them again, waiting {_seconds(waited)} for limits."
        )
        return Table(STATS, rows), total

    def groups(self, *, errors: bool = True) -> list[Group]:
        """What there is, by connector and resource type; without errors, only what was found."""
        found = sorted(self._groups.values(), key=lambda one: (one.connector.name, one.resource_type or ""))
        return [one for one in found if errors or one.resources or not one.errors]

    def data(self, *, errors: bool = True) -> list[dict[str, Any]]:
        """The groups as plain values."""
        return [one.data(errors=errors) for one in self.groups(errors=errors)]

    def table(self, *, errors: bool = True) -> Table:
        """The groups as a table; a connector is named once."""
        rows: list[Sequence[str | Sequence[str]]] = []
        named = ""
        for group in self.groups(errors=errors):
            one = group.connector
            about = ("", "", "") if one.id == named else (short(one.id), one.name, one.type)
            named = one.id
            rows.append((*about, group.resource_type or "", group.lines(errors=errors)))
        return Table(COLUMNS, rows, SHORT)


class Group:
    """One connector's resources of one type, and what could not be asked."""

    def __init__(self, connector: Connector, resource_type: str | None) -> None:
        self.connector = connector
        self.resource_type = resource_type
        self.resources: list[Resource] = []
        self.errors: list[Mapping[str, str]] = []

    def data(self, *, errors: bool) -> dict[str, Any]:
        """As plain values."""
        ordered = sorted(self.resources, key=lambda one: one.id)
        return {
            "connector_id": self.connector.id,
            "connector": self.connector.name,
            "connector_type": self.connector.type,
            "resource_type": self.resource_type,
            "resources": [{"id": one.id, "region": one.region, "attributes": one.attributes} for one in ordered],
        } | ({"errors": self.errors} if errors else {})

    def lines(self, *, errors: bool) -> list[str]:
        """The ids, then the errors."""
        lines = sorted({one.id for one in self.resources})
        for one in self.errors if errors else ():
            place = f" in {one['unit']}" if one["unit"] else ""
            lines.append(Bad(f"Error{place}: {one['message']}"))
        return lines or ["(none)"]


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.2f}s"


@contextmanager
def progress(reach: Reach, connectors: int, *, live: bool = False) -> Generator[Callable[[], None], None, None]:
    """A bar on stderr; it counts the connectors that have answered or failed.

    Args:
        reach: what there is so far.
        connectors: how many are asked.
        live: whether the latest findings are shown above the bar.
    """
    above = (lambda: _latest(reach)) if live and sys.stdout.isatty() else None
    with bar("asking connectors", connectors, above) as show:
        yield lambda: show(len(reach.answered | reach.failed), f"{reach.count} resources")


def _latest(reach: Reach) -> RenderableType:
    """What was found last, as much of it as the terminal has room for, in one line each."""
    from rich.table import Table as Grid
    from rich.text import Text

    room = max(console(sys.stderr).size.height - 4, 1)
    rows = list(reach.latest)[-room:]
    grid = Grid.grid(padding=(0, 2))
    for _ in range(3):
        grid.add_column(no_wrap=True, overflow="ellipsis")
    if hidden := reach.count - sum(not isinstance(row[-1], Bad) for row in rows):
        grid.add_row(Text(f"... {hidden} more", style="dim"))
    for name, kind, what in rows:
        grid.add_row(
            Text(printable(name)), Text(kind), Text(printable(what), style="red" if isinstance(what, Bad) else "")
        )
    return grid


@contextmanager
def bar(
    description: str, total: int, above: Callable[[], RenderableType] | None = None
) -> Generator[Callable[[int, str], None], None, None]:
    """A bar on stderr, on a terminal only, to be told how many are done and a new description; and what is above it."""
    if not sys.stderr.isatty():
        yield lambda _done, _description: None
        return
    from rich.console import Group as Stacked
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = console(sys.stderr)
    progress = Progress(*columns, console=shown, auto_refresh=False)
    task = progress.add_task(description, total=total)

    def view() -> RenderableType:
        return Stacked(above(), progress) if above and not shown.is_dumb_terminal else progress

    with Live(console=shown, transient=True, refresh_per_second=8, get_renderable=view):
        yield lambda done, description: progress.update(task, completed=done, description=description)
