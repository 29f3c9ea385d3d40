"""`connect -i`: the component, the connector and the resource, asked for one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import click

import mooring as m
from mooring.broker import Discovery, Failed, Found
from mooring.cli import toolkit as t
from mooring_components.components import Candidate, Component, Components

UNDONE = "nothing was connected"
Connect = Callable[[str, str | None, str | None], None]
"""Connects a component, by its name, to a connector, and a resource if one is given."""


class Choice(NamedTuple):
    """What was given, and then what was answered."""

    name: str | None
    connector: str | None
    resource_id: str | None


def connect_guided(ctx: click.Context, kind: str | None, given: Choice, connect: Connect) -> list[str]:
    """Ask for what was not given, and connect; the command that does the same. Asks again for what does not do."""
    with t.guiding(ctx.obj, UNDONE) as guide:
        component = _component(guide, kind, given.name)
        needed, wanted = t.with_broker(guide.run, lambda broker: Components(broker).need(component.id), alone=True)
        choice = given._replace(name=component.name)
        while True:
            connector = choice.connector or _connector(guide, component, choice.resource_id)
            resource_id = choice.resource_id or (None if wanted else _resource(guide, connector, needed))
            target = resource_id or wanted or "whatever the connector reaches"
            rows = [("component", f"{component.name} ({component.type}, {component.flavor})"), ("connector", connector)]
            t.show_summary([*rows, ("resource", f"{needed} {target}")])
            if not guide.confirm("Connect it?"):
                guide.give_up()
            guide.undone = f"it may have been connected; see: mooring {component.type} describe {component.name}"
            try:
                connect(component.name, connector, resource_id)
            except (m.ConfigError, m.VendorError) as error:
                if not guide.person:
                    raise
                t.say(f"Error: {guide.run.told(error)}")
                guide.undone = UNDONE
                choice = Choice(component.name, None, None if wanted is None else choice.resource_id)
            else:
                words = [*ctx.command_path.split(), component.name, f"--connector={connector}"]
                return [*words, *([f"--resource-id={resource_id}"] if resource_id else [])]


def _component(guide: t.Guide, kind: str | None, name: str | None) -> Component:
    if name is not None:
        return t.with_broker(guide.run, lambda broker: Components(broker).get(name, kind), alone=True)
    found = t.with_broker(guide.run, lambda broker: Components(broker).list(kind), alone=True)
    if not found:
        raise m.InvalidConfig(f"there is no {kind or 'component'} to connect; register one")
    chosen = guide.choose("component", [(one.name, f"{one.type}, {one.flavor}") for one in found])
    return next(one for one in found if one.name == chosen)


def _connector(guide: t.Guide, component: Component, resource_id: str | None) -> str:
    """A connector, out of those that may fit; each was asked, and what came of it is shown."""
    t.say("Asking the connectors that may reach what it needs ...")
    asked: Sequence[Candidate] = t.with_broker(
        guide.run, lambda broker: Components(broker).candidates(component.id, resource_id=resource_id)
    )
    if not asked:
        raise m.UnsupportedResource("no connector is for what it needs; register one: mooring connector register -i")
    ordered = sorted(asked, key=lambda one: one.error is not None)
    fit = [one.connector.name for one in asked if one.error is None]
    choices = [(one.connector.name, guide.run.told(one.error) if one.error else "reaches it") for one in ordered]
    return guide.choose("connector", choices, default=fit[0] if len(fit) == 1 else None)


def _resource(guide: t.Guide, connector: str, kind: str) -> str | None:
    """A resource, out of those that the connector finds; None for whatever it reaches."""
    t.say(f"Asking {connector} which resources it reaches ...")

    async def find(broker: m.Broker) -> list[Discovery]:
        async with broker.discover(connectors=[connector], resource_type=kind) as replies:
            return [reply async for reply in replies]

    replies = t.with_broker(guide.run, find)
    for reply in replies:
        if isinstance(reply, Failed):
            t.say(f"Error: {guide.run.told(reply.error)}")
    found = sorted({reply.resource.id for reply in replies if isinstance(reply, Found)})
    if len(found) > 1:
        return guide.choose("resource", [(one, "") for one in found])
    t.say(f"It finds {found[0] if found else 'none'}.")
    return found[0] if found else None
