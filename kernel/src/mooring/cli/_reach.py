"""What connectors reach, gathered as it is found, and shown grouped by connector and resource type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from mooring.cli._output import Bad, Table, short
from mooring.cli._values import age, counted
from mooring.types import Struct

if TYPE_CHECKING:
    from mooring.broker import Broker, Discovery, Failed, Finished, Found
    from mooring.cli._edge import Run
    from mooring.types import Connector

COLUMNS = ("CONNECTOR ID", "CONNECTOR NAME", "CONNECTOR TYPE", "RESOURCE TYPE", "RESOURCE NAMES")
SHORT = ("ID", "NAME", "TYPE", "RESOURCE TYPE", "RESOURCE NAMES")
STATS = ("CONNECTOR", "RESOURCE TYPE", "UNIT", "TOOK", "CALLS", "RETRIES", "WAITED", "FOUND")


class Row(NamedTuple):
    """One thing that was found, or an error, for who watches."""

    connector: str
    resource_type: str
    text: str


class Reach:
    """The replies so far. It stands outside of the event loop, so that it outlives an interruption."""

    def __init__(self, run: Run, *, cached: bool = False) -> None:
        self.answered: set[str] = set()
        self.failed: set[str] = set()
        self.done: set[str] = set()
        """The connectors of which a unit at least is through."""
        self.count = self.errors = 0
        self.oldest: datetime | None = None
        """When the oldest of it was found; None: all just now."""
        self._run = run
        self._cached = cached
        self._groups: dict[tuple[str, str], Group] = {}
        self._began = self._ended = 0.0

    async def gather(
        self,
        broker: Broker,
        *,
        heard: Callable[[Row | None], None] = lambda _: None,
        fail_fast: bool = False,
        **how: Any,
    ) -> None:
        """Ask.

        Args:
            broker: that is asked.
            heard: called after each reply.
            fail_fast: end at the first failure.
            how: what `Broker.discover` takes.
        """
        self._began = monotonic()
        try:
            async with broker.discover(**how) as replies:
                async for reply in replies:
                    heard(self._add(reply))
                    if fail_fast and self.failed:
                        return
        finally:
            self._ended = monotonic()

    def _add(self, reply: Discovery) -> Row | None:
        from mooring.broker import Failed, Found

        connector = reply.connector
        kind = reply.resource.type if isinstance(reply, Found) else reply.resource_type
        group = self._groups.setdefault((connector.id, kind or ""), Group(connector, kind))
        if reply.at is not None:
            self.oldest = min(self.oldest or reply.at, reply.at)
        if isinstance(reply, Found):
            self.answered.add(connector.id)
            self.count += 1
            group.found.append(reply)
            return Row(connector.name, kind or "", reply.resource.id)
        asked = Asked.of(reply, self._run.mask)
        group.asked.append(asked)
        self.done.add(connector.id)
        if not isinstance(reply, Failed):
            self.answered.add(connector.id)
            return None
        self.failed.add(connector.id)
        self.errors += 1
        return Row(connector.name, kind or "", asked.told())

    def groups(self, *, errors: bool = True) -> list[Group]:
        """What there is, by connector and resource type; without errors, only what was found."""
        found = sorted(self._groups.values(), key=lambda one: (one.connector.name, one.resource_type or ""))
        return [one for one in found if errors or one.found or not one.failures()]

    def data(self, *, errors: bool = True, stats: bool = False) -> Iterator[dict[str, Any]]:
        """The groups as plain values; each one's resources as an iterator."""
        for one in self.groups(errors=errors):
            yield one.data(errors=errors, stats=stats, cached=self._cached)

    def table(self, *, errors: bool = True) -> Table:
        """The groups as a table; a connector is named once."""
        now = datetime.now(UTC)
        rows: list[Sequence[str | Sequence[str]]] = []
        named = ""
        for group in self.groups(errors=errors):
            one = group.connector
            about = ("", "", "") if one.id == named else (short(one.id), one.name, one.type)
            named = one.id
            texts, instants = group.lines(errors=errors)
            ages = (_ages(instants, now),) if self._cached else ()
            rows.append((*about, group.resource_type or "", *ages, texts))
        if self._cached:
            return Table((*COLUMNS[:-1], "AGE", COLUMNS[-1]), rows, (*SHORT[:-1], "AGE", SHORT[-1]))
        return Table(COLUMNS, rows, SHORT)

    def stats(self) -> Table:
        """What asking each unit has cost, the slowest first; those that failed too."""
        units = [(group, one) for group in self.groups() for one in group.asked]
        units.sort(key=lambda pair: pair[1].took, reverse=True)
        return Table(STATS, [(group.connector.name, group.resource_type or "", *one.row()) for group, one in units])

    def totals(self) -> str:
        """What all has cost together."""
        wall = (self._ended or monotonic()) - self._began if self._began else 0.0
        asked = [one for group in self.groups() for one in group.asked]
        calls, retries = sum(one.calls for one in asked), sum(one.retries for one in asked)
        waited = sum((one.waited for one in asked), timedelta(0))
        again = "1 retry" if retries == 1 else f"{retries} retries"
        return (
            f"{counted(len(asked), 'unit')} in {_seconds(timedelta(seconds=wall))}: {counted(calls, 'call')}, {again}, "
            f"{_seconds(waited)} waited"
        )


class Asked(Struct):
    """What became of one unit, and what it has cost."""

    unit: str
    at: datetime | None
    took: timedelta
    calls: int
    retries: int
    waited: timedelta
    count: int
    error: str
    """The error's kind; empty if there is none."""
    message: str

    @classmethod
    def of(cls, reply: Finished | Failed, mask: Callable[[str], str]) -> Asked:
        """Of a reply; nothing of the error is kept but what is told of it."""
        error = getattr(reply, "error", None)
        kind, message = (type(error).__name__, mask(error.message)) if error is not None else ("", "")
        count, cost = getattr(reply, "count", 0), reply.cost
        return cls(
            unit=reply.unit, at=reply.at, took=reply.took, calls=cost.calls, retries=cost.retries, waited=cost.waited,
            count=count, error=kind, message=message,
        )  # fmt: skip

    def told(self) -> str:
        """The error, in a line."""
        place = f" in {self.unit}" if self.unit else ""
        return Bad(f"Error{place}: {self.message}")

    def row(self) -> tuple[str, ...]:
        """The columns of the statistics after the unit's connector and resource type."""
        took, waited = _seconds(self.took), _seconds(self.waited)
        found = Bad(self.error) if self.error else str(self.count)
        return (self.unit, took, str(self.calls), str(self.retries), waited, found)

    def failure(self, *, cached: bool) -> dict[str, Any]:
        """The error, as plain values."""
        at = {"at": self.at} if cached else {}
        return {"unit": self.unit, "error": self.error, "message": self.message, **at}

    def cost(self, *, cached: bool) -> dict[str, Any]:
        """The statistics, as plain values."""
        named = ("unit", "took", "calls", "retries", "waited", "count")
        at = {"at": self.at} if cached else {}
        return {name: getattr(self, name) for name in named} | {"error": self.error or None, **at}


class Group:
    """One connector's resources of one type, and what could not be asked."""

    def __init__(self, connector: Connector, resource_type: str | None) -> None:
        self.connector = connector
        self.resource_type = resource_type
        self.found: list[Found] = []
        self.asked: list[Asked] = []

    def failures(self) -> list[Asked]:
        """The units that could not be asked."""
        return [one for one in self.asked if one.error]

    def data(self, *, errors: bool, stats: bool, cached: bool) -> dict[str, Any]:
        """As plain values; the resources as an iterator, for there may be many."""
        data: dict[str, Any] = {
            "connector_id": self.connector.id,
            "connector": self.connector.name,
            "connector_type": self.connector.type,
            "resource_type": self.resource_type,
            "resources": (_resource(one, cached=cached) for one in self._ordered()),
        }
        data["errors"] = [one.failure(cached=cached) for one in self.failures() if errors]
        if stats:
            data["stats"] = [one.cost(cached=cached) for one in self.asked]
        return data

    def lines(self, *, errors: bool) -> tuple[list[str], list[datetime | None]]:
        """The ids, then the errors; and when each was found, which is the last time if it was more than once."""
        texts: list[str] = []
        instants: list[datetime | None] = []
        for one in self._ordered():
            if texts and texts[-1] == one.resource.id:
                instants[-1] = max(instants[-1], one.at) if instants[-1] and one.at else None
                continue
            texts.append(one.resource.id)
            instants.append(one.at)
        for failure in self.failures() if errors else ():
            texts.append(failure.told())
            instants.append(failure.at)
        if not texts:
            return ["(none)"], [min((one.at for one in self.asked if one.at), default=None)]
        return texts, instants

    def _ordered(self) -> list[Found]:
        return sorted(self.found, key=lambda one: one.resource.id)


def _resource(found: Found, *, cached: bool) -> Mapping[str, Any]:
    one = found.resource
    return {"id": one.id, "region": one.region, "attributes": one.attributes} | ({"at": found.at} if cached else {})


def _ages(instants: Sequence[datetime | None], now: datetime) -> str | list[str]:
    """An age for each line, or one if it is that of all."""
    shown = {at: age(at, now) for at in set(instants)}
    return [shown[at] for at in instants] if len(set(shown.values())) > 1 else shown[instants[0]]


def _seconds(length: timedelta) -> str:
    """Seconds, to the thousandth."""
    return f"{length.total_seconds():.3f}s"
