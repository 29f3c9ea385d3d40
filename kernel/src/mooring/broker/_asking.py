"""Asking one connector what it reaches: from what was found before, or in one session, all of its units at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from copy import copy
from datetime import datetime, timedelta
from typing import Any, cast

import anyio
import msgspec

from mooring.broker._desk import Desk, checked, doing, guard, within
from mooring.broker._findings import EVER, STALE, Known, Run, recalled
from mooring.bus import Reply as Answer
from mooring.bus import unhurried
from mooring.errors import (
    BrokenPlugin,
    ConfigError,
    InvalidConfig,
    MooringError,
    PluginError,
    StoreError,
    UnsupportedResource,
    VendorError,
)
from mooring.globs import matches, overlap
from mooring.hookspecs import DiscoverRequest
from mooring.limits import Spent, asking, counting
from mooring.records import Look
from mooring.registry import Route
from mooring.types import Connector, Resource, Struct, Unit

MAX_UNITS = 32
"""How many units of one connector are asked at once."""
GRACE = timedelta(seconds=1)
"""How much longer than its budget another's run is waited for: then its reader must have stopped reading."""
PAGE = 200
"""How much of what was found before is read at once, of each connector."""


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


class Found(Struct):
    """A connector reaches a resource."""

    connector: Connector
    resource: Resource
    at: datetime | None = None
    """When it was found; None: just now."""


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

    @property
    def place(self) -> tuple[str, str]:
        """The resource type, and the unit's name."""
        return self.request.resource_type, self.request.unit.name


class Asking:
    """One connector, while it is asked."""

    def __init__(self, desk: Desk, connector: Connector, wanted: Filter) -> None:
        self._desk = desk
        self._connector = connector
        self._wanted = wanted
        self._began = desk.clock.monotonic()
        self._recorded = wanted.resource_id is None and not wanted.match
        """Whether the answers are whole looks at units."""
        self._answered: set[tuple[str, str]] = set()
        """The units, by type and name, that need not be asked."""
        self._looked: set[tuple[str, str]] = set()
        """The units of which there was a whole look before."""
        self._runs: dict[int, Run] = {}
        """What is asked here for all, by its number."""

    async def run(self, reply: Reply, *, stale: Callable[[], None] | None = None) -> None:
        """Ask, and give every answer as it lands; a connector that the filter rules out is not asked.

        Args:
            reply: is given the answers.
            stale: answer from what was found before, where there is any; called if that is of long ago.
        """
        with doing("discover", self._connector), asking(self._connector.id), counting(Spent()) as opening:
            route = self._desk.registry.route(self._connector.type)
            kinds = await questions(self._desk, self._connector, route, self._wanted)
            if stale is not None:
                kinds = await self._recall(route, kinds, reply, stale)
            if kinds:
                await self._live(route, kinds, reply, opening)

    async def refresh(self, reply: Reply) -> None:
        """Ask what nobody has asked for long; another process may have, meanwhile."""
        since = self._desk.clock.now() - STALE
        known = await self._known()
        self._answered = known.units(since)
        with doing("discover", self._connector), asking(self._connector.id), counting(Spent()) as opening:
            route = self._desk.registry.route(self._connector.type)
            kinds = await questions(self._desk, self._connector, route, self._wanted)
            due = [one for one in kinds if not known.answers(one.request.resource_type, since)]
            if due:
                await self._live(route, due, reply, opening)

    async def _live(self, route: Route, kinds: list[Question], reply: Reply, opening: Spent) -> None:
        desk = self._desk
        try:
            with within(desk.budgets.discover, "the vendor's answer") as scope:
                async with desk.session(self._connector, route, desk.consumer) as session:
                    jobs = await self._jobs(route, session, kinds)
                    scope.deadline = math.inf  # from here on each unit has a budget of its own
                    await self._ask_all(route, session, jobs, reply, opening)
                    scope.deadline = (
                        anyio.current_time() + desk.budgets.discover.total_seconds()
                    )  # to close the session
        except (VendorError, PluginError) as error:
            if self._recorded:
                await Run(desk, self._connector).fail(error)
            raise
        finally:
            for number in tuple(self._runs):
                self._end(number)

    async def _ask_all(self, route: Route, session: Any, jobs: list[Question], reply: Reply, opening: Spent) -> None:
        spent = [opening, *(Spent() for _ in jobs[1:])]

        async def ask(number: int, tell: Reply) -> None:
            with counting(spent[number]):
                count = await self._ask(route, session, number, jobs[number], tell)
            took, cost = self._desk.since(self._began), _cost(spent[number])
            await tell(self._finished(jobs[number].place, count, took, cost))

        async def told(one: Answer[int, Discovery]) -> None:
            if one.error is None:
                await reply(cast("Discovery", one.value))
                return
            unit, took, cost = jobs[one.job].place, self._desk.since(self._began), _cost(spent[one.job])
            answer = failed(self._connector, *unit, one.error, took, cost)
            if one.job in self._runs:
                await self._runs[one.job].fail(answer.error)
                self._end(one.job)
            await reply(answer)

        budget = self._desk.budgets.discover
        await self._desk.bus.each(range(len(jobs)), ask, told, limit=MAX_UNITS, budget=budget)

    async def _jobs(self, route: Route, session: Any, kinds: list[Question]) -> list[Question]:
        """A question for each unit that is to be asked; which there are is written down before."""
        jobs = [job for kind in kinds for job in await self._by_unit(route, session, kind)]
        if self._recorded:
            units: dict[str, dict[str, str]] = {kind.request.resource_type: {} for kind in kinds}
            for job in jobs:
                units[job.request.resource_type][job.request.unit.name] = job.request.unit.ids
            try:
                before = await self._desk.store.findings.expect(self._connector, units)
                self._looked = {unit for unit, look in Known(before).looks.items() if look.at is not None}
            except (StoreError, ConfigError):  # a store that cannot be written is no reason not to ask
                self._recorded = False
        return [job for job in jobs if job.place not in self._answered]

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

    async def _ask(self, route: Route, session: Any, number: int, question: Question, tell: Reply) -> int:
        """Give what is found, by asking or, where somebody else asks just that, by what he found; how many it is."""
        if not self._recorded:
            return await self._all(route, session, question, tell)
        unit = question.request.unit
        run = Run(self._desk, self._connector, question.place, ids=unit.ids, known=question.place in self._looked)
        runs, patience = self._desk.runs, (self._desk.budgets.discover + GRACE).total_seconds()
        while (other := runs.get(run.key)) is not None:
            with unhurried(), anyio.move_on_after(patience):
                await other.done.wait()
            if other.error is not None:
                raise copy(other.error).with_traceback(None)
            if other.recorded:
                return await self._all_again(question, tell)
            if other.recorded is False or runs.get(run.key) is other:
                break
        runs[run.key] = self._runs[number] = run
        count = await self._all(route, session, question, tell, run)
        await run.finish(count, self._desk.since(self._began))
        self._end(number)
        return count

    async def _all(self, route: Route, session: Any, question: Question, tell: Reply, run: Run | None = None) -> int:
        request, count = question.request, 0
        with doing("discover", self._connector, request.resource_id), guard(route, "discover"):
            async with aclosing(self._matching(route, session, question)) as resources:
                async for resource in resources:
                    count += 1
                    if run is not None:
                        await run.add(resource)
                    await tell(Found(connector=self._connector, resource=resource))
        return count

    async def _all_again(self, question: Question, tell: Reply) -> int:
        count = 0
        async with aclosing(self._stored(question.place[0], question.place[1])) as pairs:
            async for unit, resource in pairs:
                if unit != question.place[1]:
                    break
                count += 1
                await tell(Found(connector=self._connector, resource=resource))
        return count

    def _end(self, number: int) -> None:
        run = self._runs.pop(number)
        if self._desk.runs.get(run.key) is run:
            del self._desk.runs[run.key]
        run.done.set()

    async def _matching(self, route: Route, session: Any, question: Question) -> AsyncGenerator[Resource, None]:
        """What the plugin finds, of what is wanted."""
        request = question.request
        async with aclosing(route.discover(session, request)) as resources:
            async for resource in resources:
                checked(route, "discover", resource, Resource)
                if resource.type != request.resource_type:
                    raise BrokenPlugin(
                        f"the plugin {route.type.name!r} of {route.distribution} gave a {resource.type!r} "
                        f"when asked for {request.resource_type!r}; report it to its author"
                    )
                if (fitting := self._fitting(route, question, resource)) is not None:
                    yield fitting

    def _fitting(self, route: Route, question: Question, resource: Resource) -> Resource | None:
        """The resource, if it is wanted: by the name of what it contains, if only that is."""
        wanted = question.wanted
        if wanted is not None and not self._desk.covers(route, resource.type, wanted, resource.id):
            if not self._desk.covers(route, resource.type, resource.id, wanted):
                return None
            resource = msgspec.structs.replace(resource, id=wanted)  # what reaches it
        return resource if not self._wanted.match or matches(resource.id, self._wanted.match) else None

    # -- what was found before

    async def _recall(
        self, route: Route, kinds: list[Question], reply: Reply, stale: Callable[[], None]
    ) -> list[Question]:
        """Give what was found before, whatever its age; what is left to be asked, since nobody ever did."""
        if not kinds:
            return []
        known, long_ago = await self._known(), self._desk.clock.now() - STALE
        self._answered = known.units(EVER)
        if known.failure is not None:
            await reply(self._failed_before(known.failure))
        for question in kinds:
            looks = known.of(question.request.resource_type)
            if looks := [look for look in looks if self._wanted.may_match(look.ids)]:
                await self._recall_type(route, question, looks, reply)
        left = [one for one in kinds if not known.answers(one.request.resource_type, EVER)]
        if any(one not in left and not known.answers(one.request.resource_type, long_ago) for one in kinds):
            stale()
        return left

    async def _recall_type(self, route: Route, question: Question, looks: list[Look], reply: Reply) -> None:
        counts, at = Counter[str](), {look.unit: look.at for look in looks}
        async with aclosing(self._stored(question.request.resource_type)) as pairs:
            async for unit, resource in pairs:
                fitting = self._fitting(route, question, resource)
                if fitting is not None and at.get(unit):  # else it was looked at just now, and is asked here too
                    counts[unit] += 1
                    await reply(Found(connector=self._connector, resource=fitting, at=at[unit]))
        for look in looks:
            if look.at is not None:
                finished = self._finished((look.resource_type, look.unit), counts[look.unit], look.took)
                await reply(msgspec.structs.replace(finished, at=look.at))
            if look.failed_at is not None:
                await reply(self._failed_before(look))

    async def _stored(self, kind: str, unit: str = "") -> AsyncGenerator[tuple[str, Resource], None]:
        """What the last looks found, with its unit, from that unit on."""
        after: tuple[str, str] | None = (unit, "")
        while after is not None:
            page = await self._desk.store.findings.found(self._connector, kind, after=after, most=PAGE)
            for one in page:
                yield one
            after = (page[-1][0], page[-1][1].id) if len(page) == PAGE else None

    async def _known(self) -> Known:
        try:
            return Known(await self._desk.store.findings.looks(self._connector))
        except StoreError:  # then all is asked
            return Known(())

    def _failed_before(self, look: Look) -> Failed:
        return failed(self._connector, look.resource_type or None, look.unit, recalled(look), at=look.failed_at)

    def _finished(self, unit: tuple[str, str], count: int, took: timedelta, cost: Cost | None = None) -> Finished:
        kind, name = unit
        return Finished(
            connector=self._connector, resource_type=kind, unit=name, count=count, took=took, cost=cost or Cost()
        )


def _cost(spent: Spent) -> Cost:
    return Cost(calls=spent.calls, retries=spent.retries, waited=timedelta(seconds=spent.waited))


async def questions(desk: Desk, connector: Connector, route: Route, wanted: Filter) -> list[Question]:
    """What to ask a connector: the types within its scope and the filter. An id that is none of a type rules it out."""
    referred = connector if wanted.resource_id is None else await desk.referred(connector)
    questions = []
    for kind in route.type.resource_types:
        if wanted.resource_type not in (None, kind.name) or connector.resource_type not in (None, kind.name):
            continue
        if not wanted.may_match(kind.ids):
            continue
        if kind.auth_methods and connector.auth_method not in kind.auth_methods:
            continue
        try:
            target = desk.target(referred, route, kind.name, wanted.resource_id)
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
    cost: Cost | None = None,
    at: datetime | None = None,
) -> Failed:
    """What could not be asked; an error that is none of ours is the plugin's fault."""
    known = error if isinstance(error, MooringError) else BrokenPlugin(f"discovery failed: {type(error).__name__}")
    known.stamp(verb="discover", connector=connector.name, type=connector.type)
    return Failed(
        connector=connector,
        resource_type=resource_type,
        unit=unit,
        error=known,
        took=took,
        cost=cost or Cost(),
        at=at,
    )
