"""Discover: what do the connectors reach? All of them at once, each reply as it lands."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

from mooring.broker._asking import Asking, Cost, Discovery, Failed, Filter, Finished, Found, Reply, failed, questions
from mooring.broker._desk import Desk
from mooring.errors import ConfigError, MooringError, PluginError, RecordDamaged, UnknownConnectorType
from mooring.events import DiscoveryFailed, DiscoveryFinished, DiscoveryStarted, UnitDiscovered
from mooring.store import Connectors
from mooring.types import Connector, Resource

__all__ = ["Cost", "Discovery", "Failed", "Filter", "Finished", "Found", "discover", "may_reach"]

MAX_CONNECTORS = 1000
"""How many connectors are asked at once; the vendors' own bounds are the limits' business."""


@asynccontextmanager
async def discover(
    desk: Desk, connectors: Connectors, wanted: Filter, *, cached: bool = False, refresh: bool = True
) -> AsyncGenerator[AsyncIterator[Discovery], None]:
    """Ask the connectors; a connector that the filter rules out is not asked.

    If cached, only what was never looked at: that is no discovery of its own, and has no events that begin and end it.
    """
    began, id = desk.clock.monotonic(), "" if cached else uuid.uuid4().hex
    if not cached:
        desk.books.tell(DiscoveryStarted(at=desk.clock.now(), connectors=len(connectors), discovery=id))

    async def ask(job: Connector | RecordDamaged, reply: Reply) -> None:
        if isinstance(job, RecordDamaged):
            await reply(failed(_unread(desk, job), None, "", job))
        else:
            later = partial(_refresh, desk, job) if refresh else _leave
            await Asking(desk, job, wanted).run(reply, stale=later if cached else None)

    async with (
        desk.bus.scatter((*connectors, *connectors.damaged), ask, limit=MAX_CONNECTORS) as replies,
        aclosing(_read(desk, replies, len(connectors), began, id)) as found,
    ):
        yield found


async def _read(desk: Desk, replies: Any, connectors: int, began: float, id: str) -> AsyncGenerator[Discovery, None]:
    resources = failures = 0
    async for reply in replies:
        found = reply.value
        if reply.error is not None:  # all are asked at once
            found = failed(reply.job, None, "", reply.error, desk.since(began))
        resources += isinstance(found, Found)
        failures += isinstance(found, Failed)
        if not isinstance(found, Found) and found.at is None:
            _publish(desk, found, id)
        yield found
    if not id:
        return
    desk.books.tell(
        DiscoveryFinished(
            at=desk.clock.now(),
            connectors=connectors,
            resources=resources,
            failures=failures,
            discovery=id,
            took=desk.since(began),
        )
    )


async def recall(
    desk: Desk, connectors: Iterable[Connector], resource_type: str | None, most: int
) -> Sequence[Resource]:
    """What was found before, by connector and resource type."""
    found: list[Resource] = []
    for connector in connectors:
        kinds = {look.resource_type for look in await desk.store.findings.looks(connector) if look.resource_type}
        for kind in sorted(kinds if resource_type is None else kinds & {resource_type}):
            found += [resource for _, resource in await desk.store.findings.found(connector, kind, most=most)]
    return found


async def may_reach(desk: Desk, connector: Connector, wanted: Filter) -> bool:
    """Whether asking the connector about this makes sense at all; where its plugin is missing, by its scope alone."""
    try:
        route = desk.registry.route(connector.type)
    except (PluginError, UnknownConnectorType):
        return wanted.resource_id is None and connector.resource_type == wanted.resource_type
    try:
        return bool(await questions(desk, connector, route, wanted))
    except ConfigError:  # what it refers to is not there: asking it says so
        return True


def _unread(desk: Desk, error: RecordDamaged) -> Connector:
    """As much of a connector as can be read of a damaged record."""
    now = desk.clock.now()
    return Connector(id=error.id, name=error.name, type=error.type, auth_method="", created_at=now, updated_at=now)


def _leave() -> None:
    """Let what was found long ago be."""


def _refresh(desk: Desk, connector: Connector) -> None:
    """Ask a connector again in the background, once for all who would like to know."""

    async def reply(found: Discovery) -> None:
        if not isinstance(found, Found):
            _publish(desk, found, "")

    async def refresh() -> None:
        try:
            await Asking(desk, connector, Filter()).refresh(reply)
        except MooringError as error:
            _publish(desk, failed(connector, None, "", error), "")
        finally:
            desk.refreshing.discard(connector.id)

    if connector.id not in desk.refreshing:
        desk.refreshing.add(connector.id)
        desk.bus.spawn("refresh of what was found", refresh)


def _publish(desk: Desk, found: Finished | Failed, id: str) -> None:
    at, connector = desk.clock.now(), found.connector
    about: dict[str, Any] = {
        "connector_id": connector.id,
        "connector": connector.name,
        "connector_type": connector.type,
    }
    cost = found.cost
    about |= {"unit": found.unit, "discovery": id, "took": found.took}
    about |= {"calls": cost.calls, "retries": cost.retries, "waited": cost.waited}
    if isinstance(found, Finished):
        kind, count = found.resource_type, found.count
        desk.bus.publish(UnitDiscovered(at=at, resource_type=kind, resources=count, **about))
    else:
        error, message = type(found.error).__name__, found.error.message
        desk.books.tell(
            DiscoveryFailed(at=at, resource_type=found.resource_type, error=error, message=message, **about)
        )
