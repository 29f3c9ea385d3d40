"""Asking one connector what it reaches: one session, and all of its units at once."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, cast

import anyio
import msgspec

from mooring.broker._desk import Desk, checked, doing, guard, within
from mooring.errors import BrokenPlugin, InvalidConfig, MooringError, UnsupportedResource
from mooring.globs import matches, overlap
from mooring.hookspecs import DiscoverRequest
from mooring.limits import Spent, asking, counting
from mooring.registry import Route
from mooring.types import Connector, Resource, Struct, Unit

MAX_UNITS = 32
"""How many units of one connector are asked at once."""


class Filter(Struct):
    """What a caller wants to know of; what it rules out is not asked."""

    resource_type: str | None = None
    resource_id: str | None = None
    match: tuple[str, ...] = ()
    """Patterns of ids, of which one must match; all ids, if there are none."""

    def may_match(self, ids: str) -> bool:
        """Whether there may be what is looked for among ids of that pattern."""
        return not self.match or any(overlap(pattern, ids) for pattern in self.match)


class Cost(Struct):
    """What asking has cost; that of opening a session is its first unit's."""

    calls: int = 0
    retries: int = 0
    """How many of the calls were made again."""
    waited: timedelta = timedelta(0)
    """For the limits, all calls together."""


FREE = Cost()


class Found(Struct):
    """A connector reaches a resource."""

    connector: Connector
    resource: Resource
    at: datetime | None = None
    """When that was; None: just now."""


class Finished(Struct):
    """A connector has named everything of one resource type in one unit."""

    connector: Connector
    resource_type: str
    unit: str
    count: int
    took: timedelta = timedelta(0)
    """Since the connector was asked: with opening its session."""
    cost: Cost = Cost()
    at: datetime | None = None
    """When that was; None: just now."""


class Failed(Struct):
    """A connector could not be asked: for one resource type and unit, or at all."""

    connector: Connector
    resource_type: str | None
    unit: str
    error: MooringError
    took: timedelta = timedelta(0)
    cost: Cost = Cost()
    at: datetime | None = None
    """When that was; None: just now."""


Discovery = Found | Finished | Failed
Reply = Callable[[Discovery], Awaitable[None]]


class Question(Struct):
    """One unit's job: this resource type, there, and of it all or one."""

    request: DiscoverRequest
    wanted: str | None
    """What the caller filters by, canonical; a resource that covers it matches too."""


class Asking:
    """One connector, while it is asked."""

    def __init__(self, desk: Desk, connector: Connector, wanted: Filter) -> None:
        self._desk = desk
        self._connector = connector
        self._wanted = wanted
        self._began = desk.clock.monotonic()

    async def run(self, reply: Reply) -> None:
        """Ask, and give every answer as it lands; a connector that the filter rules out is not asked."""
        desk, connector = self._desk, self._connector
        with doing("discover", connector), asking(connector.id), counting(Spent()) as opening:
            route = desk.registry.route(connector.type)
            if not (kinds := questions(desk, connector, route, self._wanted)):
                return
            with within(desk.budgets.discover, "the vendor's answer") as scope:
                async with desk.session(connector, route, desk.consumer) as session:
                    jobs = [job for kind in kinds for job in await self._by_unit(route, session, kind)]
                    scope.deadline = math.inf  # from here on each unit has a budget of its own
                    spent = [opening, *(Spent() for _ in jobs[1:])]

                    async def ask(number: int, tell: Reply) -> None:
                        with counting(spent[number]):
                            count = await self._ask(route, session, jobs[number], tell)
                        await tell(self._finished(jobs[number], count, spent[number]))

                    numbers = range(len(jobs))
                    async with desk.bus.scatter(numbers, ask, limit=MAX_UNITS, budget=desk.budgets.discover) as replies:
                        async for one in replies:
                            if one.error is None:
                                await reply(cast("Discovery", one.value))
                            else:
                                await reply(self._failed(jobs[one.job], one.error, spent[one.job]))
                    scope.deadline = (
                        anyio.current_time() + desk.budgets.discover.total_seconds()
                    )  # to close the session

    async def _by_unit(self, route: Route, session: Any, question: Question) -> list[Question]:
        """A question for each region or account that the plugin names, where there may be what is looked for."""
        request = question.request
        with guard(route, "units"):
            units = await route.units(session, request.resource_type) if route.units else (Unit(),)
            checked_units = [checked(route, "units", unit, Unit) for unit in units]
        return [
            Question(request=msgspec.structs.replace(request, unit=unit), wanted=question.wanted)
            for unit in checked_units
            if self._wanted.may_match(unit.ids)
        ]

    async def _ask(self, route: Route, session: Any, question: Question, tell: Reply) -> int:
        """Give what is found; how many that is."""
        request, count = question.request, 0
        with doing("discover", self._connector, request.resource_id), guard(route, "discover"):
            async with aclosing(self._matching(route, session, question)) as resources:
                async for resource in resources:
                    count += 1
                    await tell(Found(connector=self._connector, resource=resource))
        return count

    async def _matching(self, route: Route, session: Any, question: Question) -> AsyncGenerator[Resource, None]:
        """What the plugin finds, of what is wanted."""
        request, wanted = question.request, question.wanted
        async with aclosing(route.discover(session, request)) as resources:
            async for resource in resources:
                checked(route, "discover", resource, Resource)
                if resource.type != request.resource_type:
                    raise BrokenPlugin(
                        f"the plugin {route.type.name!r} of {route.distribution} gave a {resource.type!r} "
                        f"when asked for {request.resource_type!r}; report it to its author"
                    )
                if wanted is not None and not self._desk.covers(route, resource.type, wanted, resource.id):
                    if not self._desk.covers(route, resource.type, resource.id, wanted):
                        continue
                    resource = msgspec.structs.replace(resource, id=wanted)  # noqa: PLW2901  (what reaches it)
                if not self._wanted.match or matches(resource.id, self._wanted.match):
                    yield resource

    def _finished(self, question: Question, count: int, spent: Spent) -> Finished:
        about = question.request
        kind, unit, took = about.resource_type, about.unit.name, self._desk.since(self._began)
        return Finished(
            connector=self._connector, resource_type=kind, unit=unit, count=count, took=took, cost=_cost(spent)
        )

    def _failed(self, question: Question, error: Exception, spent: Spent) -> Failed:
        about, took = question.request, self._desk.since(self._began)
        return failed(self._connector, about.resource_type, about.unit.name, error, took, _cost(spent))


def _cost(spent: Spent) -> Cost:
    return Cost(calls=spent.calls, retries=spent.retries, waited=timedelta(seconds=spent.waited))


def questions(desk: Desk, connector: Connector, route: Route, wanted: Filter) -> list[Question]:
    """What to ask a connector: the types within its scope and the filter. An id that is none of a type rules it out."""
    questions = []
    for kind in route.type.resource_types:
        if wanted.resource_type not in (None, kind.name) or connector.resource_type not in (None, kind.name):
            continue
        if not wanted.may_match(kind.ids):
            continue
        if kind.auth_methods and connector.auth_method not in kind.auth_methods:
            continue
        try:
            target = desk.target(connector, route, kind.name, wanted.resource_id)
        except (InvalidConfig, UnsupportedResource):
            continue
        one = target.resource_id if target else None
        if one is not None and route.covers is None and wanted.match and not matches(one, wanted.match):
            continue
        request = DiscoverRequest(resource_type=kind.name, resource_id=one)
        questions.append(Question(request=request, wanted=one))
    return questions


def failed(
    connector: Connector,
    resource_type: str | None,
    unit: str,
    error: Exception | None,
    took: timedelta = timedelta(0),
    cost: Cost = FREE,
) -> Failed:
    """What could not be asked; an error that is none of ours is the plugin's fault."""
    known = error if isinstance(error, MooringError) else BrokenPlugin(f"discovery failed: {type(error).__name__}")
    known.stamp(verb="discover", connector=connector.name, type=connector.type)
    return Failed(connector=connector, resource_type=resource_type, unit=unit, error=known, took=took, cost=cost)
