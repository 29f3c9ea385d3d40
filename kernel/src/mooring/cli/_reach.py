"""What connectors reach, gathered as it is found, and shown grouped by connector and resource type."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mooring.cli._output import Bad, Table, console, short

if TYPE_CHECKING:
    from mooring.broker import Broker, Discovery, Failed
    from mooring.cli._edge import Run
    from mooring.types import Connector, Resource

COLUMNS = ("CONNECTOR ID", "CONNECTOR NAME", "CONNECTOR TYPE", "RESOURCE TYPE", "RESOURCE NAMES")
SHORT = ("ID", "NAME", "TYPE", "RESOURCE TYPE", "RESOURCE NAMES")


class Reach:
    """The replies so far. It stands outside of the event loop, so that it outlives an interruption."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._groups: dict[tuple[str, str], Group] = {}
        self._connectors: dict[str, Connector] = {}
        self.answered: set[str] = set()
        self.failed: set[str] = set()
        self.count = 0

    async def gather(self, broker: Broker, *, heard: Callable[[], None] = lambda: None, **filters: Any) -> None:
        """Ask, and call `heard` after each reply."""
        async with broker.discover(**filters) as replies:
            async for reply in replies:
                self._add(reply)
                heard()

    def _add(self, reply: Discovery) -> None:
        from mooring.broker import Failed, Found

        connector = reply.connector
        kind = reply.resource.type if isinstance(reply, Found) else reply.resource_type
        group = self._groups.setdefault((connector.id, kind or ""), Group(connector, kind))
        if isinstance(reply, Found):
            group.resources.append(reply.resource)
            self.count += 1
        if isinstance(reply, Failed):
            self.failed.add(connector.id)
            group.errors.append(self._error(reply))
        else:
            self.answered.add(connector.id)

    def _error(self, reply: Failed) -> dict[str, str]:
        message = self._run.mask(reply.error.message)
        return {"unit": reply.unit, "error": type(reply.error).__name__, "message": message}

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


@contextmanager
def progress(reach: Reach, connectors: int) -> Generator[Callable[[], None], None, None]:
    """A bar on stderr; it counts the connectors that have answered or failed."""
    with bar("asking connectors", connectors) as show:
        yield lambda: show(len(reach.answered | reach.failed), f"{reach.count} resources")


@contextmanager
def bar(description: str, total: int) -> Generator[Callable[[int, str], None], None, None]:
    """A bar on stderr, on a terminal only, to be told how many are done, and a new description."""
    if not sys.stderr.isatty():
        yield lambda _done, _description: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(sys.stderr), transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done, description: progress.update(task, completed=done, description=description)
