"""`events`: what has happened, in this process and in others, by number."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from mooring.cli._broker import with_broker
from mooring.cli._completion import complete_connector, complete_event
from mooring.cli._edge import Run
from mooring.cli._lazy import command
from mooring.cli._output import GAP, Bad, Table, emit, encoded, encoded_line, output_option, printable, put, say
from mooring.cli._values import counted
from mooring.errors import InvalidConfig, UnknownConnector, suggest
from mooring.events import Event

if TYPE_CHECKING:
    from mooring.broker import Broker
    from mooring.records import Logged

POLL_SECONDS = 0.5
PAGE = 1000
ABOUT = ("connector_id", "connector", "connector_type")
"""The fields that have a column of their own, or none."""


def _names(kind: type[Event]) -> list[str]:
    return sorted(name for one in kind.__subclasses__() for name in ([*_names(one)] or [one.__name__]))


NAMES = tuple(_names(Event))
"""The events that there are."""


def _checked(_ctx: click.Context, _param: click.Parameter, given: Sequence[str]) -> frozenset[str]:
    """An option's callback: names of events, in any case."""
    known = {name.lower(): name for name in NAMES}
    for one in given:
        if one.lower() not in known:
            raise InvalidConfig(f"there is no event {one!r}; {suggest(one, NAMES)}")
    return frozenset(known[one.lower()] for one in given)


@command(
    "events",
    examples=(
        "mooring events --follow",
        "mooring events --type CredentialsIssued --connector prod -o json",
    ),
)
@click.option(
    "-f", "--follow", is_flag=True, help="Go on with what happens, until Ctrl-C; without --after, from now on."
)
@click.option("--after", type=click.IntRange(min=0), metavar="NUMBER", help="Only what came after this event.")
@click.option("-t", "--type", "kinds", metavar="EVENT", multiple=True, callback=_checked, shell_complete=complete_event,
              help="Only such events, as CredentialsIssued; repeatable.")  # fmt: skip
@click.option("--connector", metavar="NAME", shell_complete=complete_connector, help="Only of this connector.")
@output_option
@click.pass_obj
def events(
    run: Run, follow: bool, after: int | None, kinds: frozenset[str], connector: str | None, output: str
) -> None:
    """List the events of all processes, the oldest first; the last hundred thousand are kept.

    Each has a number, by which a reader that was away goes on: --after. With --follow, JSON is one object a line, YAML
    a document each. When events were dropped that the reader had not got to, that is said on stderr.
    """

    async def listed(broker: Broker) -> list[Logged]:
        chosen = await _Chosen.of(broker, kinds, connector)
        found: list[Logged] = []
        async for page in _read(broker, after or 0, complete=after is not None):
            found += filter(chosen, page)
        newest = await broker.last_event()
        if after is not None and newest < after:
            say(f"Note: the newest event is {newest}; there is no {after} yet.")
        return found

    async def followed(broker: Broker) -> None:
        chosen = await _Chosen.of(broker, kinds, connector)
        async for page in _pages(broker, after):
            for one in filter(chosen, page):
                put(_line(run, one, output))

    if follow:
        with suppress(KeyboardInterrupt):  # it is how this ends
            with_broker(run, followed, looking=True)
        return
    found = with_broker(run, listed, looking=True)
    rows = [_row(run, one) for one in found]
    emit(output, [_as_data(run, one) for one in found], Table(("NUMBER", "AT", "EVENT", "CONNECTOR", "DETAILS"), rows))
    if not found:
        say("No event matches." if after or kinds or connector else "Nothing has happened yet.")


class _Chosen:
    """Whether an event is wanted."""

    def __init__(self, kinds: frozenset[str], connector: str | None) -> None:
        self._kinds = kinds
        self._connector = connector

    @classmethod
    async def of(cls, broker: Broker, kinds: frozenset[str], connector: str | None) -> _Chosen:
        """By the kinds, if there are any, and by a connector's id.

        Raises:
            UnknownConnector: it neither is there nor has ever been.
        """
        return cls(kinds, None if connector is None else await _id(broker, connector))

    def __call__(self, one: Logged) -> bool:
        return (not self._kinds or one.event in self._kinds) and self._connector in (None, one.connector_id)


async def _id(broker: Broker, connector: str) -> str:
    """Of a connector that may be gone: the events that tell of it are not."""
    try:
        return (await broker.get(connector)).id
    except UnknownConnector as error:
        problem = error
    found = ""
    async for page in _read(broker, 0):
        for one in page:
            if connector in (one.connector_id, one.body.get("connector")):
                found = one.connector_id
    if found:
        return found
    raise problem


async def _read(broker: Broker, after: int, *, complete: bool = False) -> AsyncGenerator[Sequence[Logged], None]:
    """What is logged by now, by pages; if it is to be complete, what is missing is told."""
    while page := await broker.logged(after=after, most=PAGE):
        if complete and (missing := page[0].seq - after - 1):
            say(f"Note: {counted(missing, 'event')} had been dropped before event {page[0].seq}.")
        after = page[-1].seq
        yield page


async def _pages(broker: Broker, after: int | None) -> AsyncGenerator[Sequence[Logged], None]:
    """What is logged after a number, and what comes then; without one, from now on."""
    import anyio

    newest = await broker.last_event()
    after = newest if after is None else after
    while True:
        if newest < after:
            say(f"Note: the newest event is {newest}, not {after}: the log was replaced; going on from there.")
            after = newest
        if after < newest:
            async for page in _read(broker, after, complete=True):
                after = page[-1].seq
                yield page
        await anyio.sleep(POLL_SECONDS)
        newest = await broker.last_event()


def _as_data(run: Run, one: Logged) -> dict[str, Any]:
    """The event as plain values."""
    return {"seq": one.seq, "at": one.at, "event": one.event} | _fields(run, one)


def _fields(run: Run, one: Logged) -> dict[str, Any]:
    """Its fields; a vendor's words are masked, though they should hold no secret."""
    return {name: run.mask(value) if name == "message" else value for name, value in one.body.items()}


def _row(run: Run, one: Logged) -> tuple[str, str, str, str, str]:
    fields = _fields(run, one)
    name = fields.get("connector", "")
    details = ", ".join(
        f"{name} {value}" for name, value in fields.items() if name not in ABOUT and value not in (None, "")
    )
    kind = Bad(one.event) if one.event.endswith("Failed") else one.event
    return str(one.seq), f"{one.at:%Y-%m-%d %H:%M:%SZ}", kind, name, details


def _line(run: Run, one: Logged, output: str) -> str:
    """The event by itself, as one that follows sees it."""
    if output == "table":
        return printable(GAP.join(part for part in _row(run, one) if part))
    data = _as_data(run, one)
    return encoded_line(data) if output == "json" else f"---\n{encoded(output, data)}"
