"""Discover: what do the connectors reach? All of them at once, each reply as it lands."""

from __future__ import annotations

import math
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import anyio
import msgspec

from mooring.broker._desk import Desk, checked, doing, guard, within
from mooring.errors import (
    BrokenPlugin,
    InvalidConfig,
    MooringError,
    PluginError,
    RecordDamaged,
    UnknownConnectorType,
    UnsupportedResource,
)
from mooring.events import DiscoveryFailed, DiscoveryFinished, DiscoveryStarted, ResourceFound, UnitDiscovered
from mooring.hookspecs import DiscoverRequest
from mooring.registry import Route
from mooring.store import Connectors
from mooring.types import Connector, Resource, Struct, Unit

MAX_CONNECTORS = 200
"""How many connectors are asked at once; the vendors' own bounds are the limits' business."""
MAX_UNITS = 32
"""How many units of one connector are asked at once."""


class Found(Struct):
    """A connector reaches a resource."""

    connector: Connector
    resource: Resource


class Finished(Struct):
    """A connector has named everything of one resource type in one unit."""

    connector: Connector
    resource_type: str
    unit: str
    count: int
    took: timedelta = timedelta(0)


class Failed(Struct):
    """A connector could not be asked: for one resource type and unit, or at all."""

    connector: Connector
    resource_type: str | None
    unit: str
    error: MooringError
    took: timedelta = timedelta(0)


Discovery = Found | Finished | Failed
Reply = Callable[[Discovery], Awaitable[None]]


class Question(Struct):
    """One unit's job: this resource type, there, and of it all or one."""

    request: DiscoverRequest
    wanted: str | None
    """What the caller filters by, canonical; a resource that covers it matches too."""


@asynccontextmanager
async def discover(
    desk: Desk, connectors: Connectors, resource_type: str | None, resource_id: str | None
) -> AsyncGenerator[AsyncIterator[Discovery], None]:
    """Ask the connectors; a connector that the filter rules out is not asked."""
    began, id = desk.clock.monotonic(), uuid.uuid4().hex
    desk.books.tell(DiscoveryStarted(at=desk.clock.now(), connectors=len(connectors), discovery=id))

    async def ask(job: Connector | RecordDamaged, reply: Reply) -> None:
        if isinstance(job, RecordDamaged):
            await reply(_failed(_unread(desk, job), None, "", job))
        else:
            await _ask_connector(desk, job, resource_type, resource_id, reply)

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
            found = _failed(reply.job, None, "", reply.error, desk.since(began))
        resources += isinstance(found, Found)
        failures += isinstance(found, Failed)
        _publish(desk, found, id)
        yield found
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


async def _ask_connector(
    desk: Desk, connector: Connector, resource_type: str | None, resource_id: str | None, reply: Reply
) -> None:
    """One session a connector; its units are asked at once."""
    began = desk.clock.monotonic()
    with doing("discover", connector):
        route = desk.registry.route(connector.type)
        wanted = _questions(desk, connector, route, resource_type, resource_id)
        if not wanted:
            return
        with within(desk.budgets.discover, "the vendor's answer") as scope:
            async with desk.session(connector, route, desk.consumer) as session:
                questions = [one for kind in wanted for one in await _by_unit(route, session, kind)]
                scope.deadline = math.inf  # from here on each unit has a budget of its own

                async def ask(question: Question, tell: Reply) -> None:
                    await _ask_unit(desk, connector, route, session, question, tell, began)

                scattered = desk.bus.scatter(questions, ask, limit=MAX_UNITS, budget=desk.budgets.discover)
                async with scattered as replies:
                    async for one in replies:
                        about = one.job.request
                        if one.error is not None:
                            kind, unit, took = about.resource_type, about.unit.name, desk.since(began)
                            await reply(_failed(connector, kind, unit, one.error, took))
                        else:
                            await reply(cast("Discovery", one.value))
                scope.deadline = anyio.current_time() + desk.budgets.discover.total_seconds()  # to close the session


async def _by_unit(route: Route, session: Any, question: Question) -> list[Question]:
    """A question for each region or account that the plugin names."""
    request = question.request
    with guard(route, "units"):
        units = await route.units(session, request.resource_type) if route.units else (Unit(),)
        return [
            Question(
                request=msgspec.structs.replace(request, unit=checked(route, "units", unit, Unit)),
                wanted=question.wanted,
            )
            for unit in units
        ]


def may_reach(desk: Desk, connector: Connector, resource_type: str | None, resource_id: str | None) -> bool:
    """Whether asking the connector about this makes sense at all; where its plugin is missing, by its scope alone."""
    try:
        route = desk.registry.route(connector.type)
    except (PluginError, UnknownConnectorType):
        return resource_id is None and connector.resource_type == resource_type
    return bool(_questions(desk, connector, route, resource_type, resource_id))


def _questions(
    desk: Desk, connector: Connector, route: Route, resource_type: str | None, resource_id: str | None
) -> list[Question]:
    """What to ask a connector: the types within its scope and the filter. An id that is none of a type rules it out."""
    questions = []
    for kind in route.type.resource_types:
        if resource_type not in (None, kind.name) or connector.resource_type not in (None, kind.name):
            continue
        if kind.auth_methods and connector.auth_method not in kind.auth_methods:
            continue
        try:
            target = desk.target(connector, route, kind.name, resource_id)
        except (InvalidConfig, UnsupportedResource):
            continue
        wanted = target.resource_id if target else None
        request = DiscoverRequest(resource_type=kind.name, resource_id=wanted)
        questions.append(Question(request=request, wanted=wanted))
    return questions


async def _ask_unit(
    desk: Desk, connector: Connector, route: Route, session: Any, question: Question, reply: Reply, began: float
) -> None:
    request, count = question.request, 0
    with doing("discover", connector, request.resource_id), guard(route, "discover"):
        async with aclosing(route.discover(session, request)) as resources:
            async for resource in resources:
                checked(route, "discover", resource, Resource)
                if resource.type != request.resource_type:
                    raise BrokenPlugin(
                        f"the plugin {route.type.name!r} of {route.distribution} gave a {resource.type!r} "
                        f"when asked for {request.resource_type!r}; report it to its author"
                    )
                if question.wanted is None or desk.covers(route, resource.type, question.wanted, resource.id):
                    found = resource
                elif desk.covers(route, resource.type, resource.id, question.wanted):
                    found = msgspec.structs.replace(resource, id=question.wanted)
                else:
                    continue
                count += 1
                await reply(Found(connector=connector, resource=found))
    kind, unit, took = request.resource_type, request.unit.name, desk.since(began)
    await reply(Finished(connector=connector, resource_type=kind, unit=unit, count=count, took=took))


def _unread(desk: Desk, error: RecordDamaged) -> Connector:
    """As much of a connector as can be read of a damaged record."""
    now = desk.clock.now()
    return Connector(id=error.id, name=error.name, type=error.type, auth_method="", created_at=now, updated_at=now)


def _failed(
    connector: Connector, resource_type: str | None, unit: str, error: Exception | None, took: timedelta = timedelta(0)
) -> Failed:
    known = error if isinstance(error, MooringError) else BrokenPlugin(f"discovery failed: {type(error).__name__}")
    known.stamp(verb="discover", connector=connector.name, type=connector.type)
    return Failed(connector=connector, resource_type=resource_type, unit=unit, error=known, took=took)


def _publish(desk: Desk, found: Discovery, id: str) -> None:
    at, connector = desk.clock.now(), found.connector
    about = {"connector_id": connector.id, "connector": connector.name, "connector_type": connector.type}
    if isinstance(found, Found):
        kind, name = found.resource.type, found.resource.id
        desk.bus.publish(ResourceFound(at=at, resource_type=kind, resource_id=name, **about))
    elif isinstance(found, Failed):
        desk.books.tell(
            DiscoveryFailed(
                at=at,
                resource_type=found.resource_type,
                unit=found.unit,
                error=type(found.error).__name__,
                message=found.error.message,
                discovery=id,
                took=found.took,
                **about,
            )
        )
    else:
        kind, unit, count = found.resource_type, found.unit, found.count
        desk.bus.publish(
            UnitDiscovered(
                at=at, resource_type=kind, unit=unit, resources=count, discovery=id, took=found.took, **about
            )
        )
