"""`status`: how things are, at a glance. It calls no vendor, loads no plugin and changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

import click

from mooring.cli._broker import with_broker
from mooring.cli._edge import Run
from mooring.cli._lazy import command
from mooring.cli._leases import BAD, as_data, state_of
from mooring.cli._output import Bad, Table, Title, emit, output_option, short
from mooring.cli._values import counted, remaining
from mooring.errors import InvalidConfig, MooringError
from mooring.records import LeaseState
from mooring.types import instant

if TYPE_CHECKING:
    from mooring.assembly import Settings
    from mooring.broker import Broker
    from mooring.records import Lease, Logged
    from mooring.types import Connector

SOON = timedelta(days=7)
"""A connector that ends within this ends soon."""
NEXT = 5
"""How many leases that end next, and how many failures, are shown."""
RECENT = 1000
"""How many events are looked through."""
FAILURES = timedelta(days=1)
"""Older failures are not shown."""
FORGOTTEN = timedelta(minutes=5)
"""How long after its time an endpoint counts as left alone, if nobody has said that it answers again."""


@command(
    "status",
    examples=(
        "mooring status",
        "mooring status -o json",
    ),
)
@output_option
@click.pass_obj
def status(run: Run, output: str) -> None:
    """Show how things are: connectors and leases, what ends soon, what failed lately, the master key, the plugins.

    It calls no vendor and changes nothing; see also: mooring doctor. Circuit breakers are each process's own: what is
    shown is what the event log says of those of all processes.
    """
    from mooring.assembly import settings_from

    settings = settings_from()
    data: dict[str, Any] = {"home": str(settings.home), "store": _store(settings)}
    if settings.store is None and not settings.store_file.exists():  # which looking would make
        data |= _nothing()
    else:
        data |= with_broker(run, lambda broker: _stored(run, broker), looking=True)
    data["plugins"] = _versions()
    emit(output, data, *_view(data))


def _store(settings: Settings) -> str:
    return "a plugin's store" if settings.store else str(settings.store_file)


def _nothing() -> dict[str, Any]:
    return _of((), (), ()) | {"damaged": 0, "master_key": None}


async def _stored(run: Run, broker: Broker) -> dict[str, Any]:
    connectors = await broker.list()
    leases = await broker.leases(states=None)
    newest = await broker.last_event()
    events = await broker.logged(after=max(0, newest - RECENT), most=RECENT)
    data = _of(connectors, leases, events) | {"damaged": len(connectors.damaged), "master_key": await _key(run, broker)}
    for one in data["failures"]:
        one["message"] = run.mask(one["message"])
    return data


def _of(connectors: Sequence[Connector], leases: Sequence[Lease], events: Sequence[Logged]) -> dict[str, Any]:
    now = datetime.now(UTC)
    states = Counter(state_of(one) for one in leases)
    ends = [one for one in leases if state_of(one) == "active" and one.expires_at is not None]
    ends.sort(key=lambda one: one.expires_at or now)
    return {
        "connectors": len(connectors),
        "ending": [
            {"connector": one.name, "expires_at": one.expires_at, "left": remaining(one.expires_at, one.expires_skew)}
            for one in sorted(connectors, key=lambda one: one.expires_at or now)
            if one.expires_at is not None and one.expires_at - one.expires_skew - now < SOON
        ],
        "leases": {state: states[state] for state in get_args(LeaseState) if states[state]},
        "next_to_end": [as_data(one) for one in ends[:NEXT]],
        "unrevoked": [as_data(one) for one in leases if state_of(one) in BAD],
        "endpoints": _endpoints(events, now),
        "failures": [_failure(one) for one in events if one.event.endswith("Failed") and now - one.at < FAILURES][
            -NEXT:
        ],
        "last_event": events[-1].seq if events else 0,
    }


def _endpoints(events: Iterable[Logged], now: datetime) -> list[dict[str, Any]]:
    """The endpoints that some process leaves alone, by what was last said of each."""
    last: dict[str, dict[str, Any]] = {}
    for one in events:
        with suppress(KeyError, TypeError, InvalidConfig):  # a damaged one
            if one.event == "BreakerOpened":
                until = instant(one.body["until"])
                said = {"endpoint": str(one.body["endpoint"]), "failures": one.body["failures"], "until": until}
                last[said["endpoint"]] = said
            elif one.event == "BreakerClosed":
                last.pop(str(one.body["endpoint"]), None)
    return [said for _, said in sorted(last.items()) if said["until"] > now - FORGOTTEN]


def _failure(one: Logged) -> dict[str, Any]:
    return {
        "seq": one.seq,
        "at": one.at,
        "event": one.event,
        "connector": one.body.get("connector", ""),
        "message": one.body.get("message") or one.body.get("error", ""),
    }


async def _key(run: Run, broker: Broker) -> dict[str, Any] | None:
    """The active master key, as far as it can be told."""
    try:
        keys = await broker.keys()
    except MooringError as error:
        return {"id": "", "source": "", "created_at": None, "error": run.told(error)}
    missing = [one.id for one in keys if one.state == "missing"]
    lost = f"missing: {', '.join(missing)}; see: mooring vault status" if missing else ""
    for one in keys:
        if one.state == "active":
            return {"id": one.id, "source": one.source, "created_at": one.created_at, "error": lost}
    return {"id": "", "source": "", "created_at": None, "error": lost} if lost else None


def _versions() -> dict[str, str]:
    """The distributions of mooring and of the installed plugins, which are not loaded."""
    from importlib.metadata import entry_points

    from mooring import __version__

    found = [
        one.dist for group in ("mooring.connectors", "mooring.system") for one in entry_points(group=group) if one.dist
    ]
    return {"mooring": __version__} | {one.name: one.version for one in sorted(found, key=lambda one: one.name)}


def _view(data: Mapping[str, Any]) -> list[Table | str]:
    """What `status` gives, for people."""
    leases = ", ".join(f"{count} {state}" for state, count in data["leases"].items())
    rows: list[tuple[str, str | list[str]]] = [
        ("store", data["store"]),
        ("connectors", str(data["connectors"])),
        ("damaged", Bad(str(data["damaged"])) if data["damaged"] else ""),
        ("leases", leases or "none"),
        ("master key", _key_text(data["master_key"])),
        ("endpoints", [Bad(_endpoint(one)) for one in data["endpoints"]] or "all are asked"),
        ("versions", [f"{name} {version}" for name, version in data["plugins"].items()]),
    ]
    view: list[Table | str] = [Table(("", ""), [row for row in rows if row[1]])]
    ends = [
        (f"connector {one['connector']}", "", Bad(one["left"]) if one["left"] == "expired" else one["left"])
        for one in data["ending"]
    ]
    ends += [
        (
            f"lease {one['id'][:8]}",
            f"{one['connector']}: {one['resource_id'] or one['resource_type']}",
            remaining(one["expires_at"]),
        )
        for one in data["next_to_end"]
    ]
    if ends:
        view += [Title("next to end"), Table(("WHAT", "OF", "IN"), ends)]
    if data["unrevoked"]:
        lines = [(short(one["id"]), one["connector"], one["state"]) for one in data["unrevoked"]]
        view += [Title("not revoked yet"), Table(("LEASE", "CONNECTOR", "STATE"), lines)]
    if data["failures"]:
        failures = [
            (f"{one['at']:%Y-%m-%d %H:%M:%SZ}", one["event"], one["connector"], one["message"])
            for one in data["failures"]
        ]
        view += [Title("last failures"), Table(("AT", "EVENT", "CONNECTOR", "WHY"), failures)]
    return view


def _key_text(key: Mapping[str, Any] | None) -> str | list[str]:
    if key is None:
        return "none yet"
    age = ""
    if key["created_at"] is not None:
        days = (datetime.now(UTC) - key["created_at"]).days
        age = f", {counted(days, 'day')} old" if days else ", new today"
    lines = [f"{key['id']} from {key['source']}{age}"] if key["id"] else []
    return [*lines, *([Bad(key["error"])] if key["error"] else [])]


def _endpoint(one: Mapping[str, Any]) -> str:
    return f"{one['endpoint']}: {counted(one['failures'], 'failure')} in a row; asked again at {one['until']:%H:%M:%SZ}"
