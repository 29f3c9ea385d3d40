"""`issue` and `explain`: credentials for one resource, and how they would be had."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from mooring.cli._broker import with_broker
from mooring.cli._completion import complete_connector, complete_format, complete_resource_type
from mooring.cli._edge import Run
from mooring.cli._lazy import command
from mooring.cli._output import Table, Title, emit, encoded, output_option, put, say
from mooring.cli._values import to_span
from mooring.credentials import Issued, kind_of, reveal
from mooring.errors import InvalidConfig, UnknownConnectorType
from mooring.hookspecs import Explanation, RenderRequest
from mooring.registry import Registry, Route
from mooring.types import ACCESSES, Access, Secret

if TYPE_CHECKING:
    from mooring.broker import Broker

F = TypeVar("F", bound=Callable[..., Any])

PLAIN = ("json", "yaml")
"""The formats that need no plugin."""


def _wish(command: F) -> F:
    """The arguments that say what is wanted."""
    for option in (
        click.option(
            "--consumer",
            metavar="NAME",
            help="Who gets the credentials, for the record; you and this machine, unless given.",
        ),
        click.option(
            "--access",
            type=click.Choice(ACCESSES),
            default="read",
            show_default=True,
            help="What may be done; each includes the one before.",
        ),
        click.option(
            "--ttl",
            metavar="DURATION",
            callback=to_span,
            help="How long they shall live: 15m, 1h30m, or seconds; the connector's default, unless given.",
        ),
        click.option(
            "-i",
            "--resource-id",
            metavar="ID",
            help="The resource, in any form that describe-type lists, such as s3://bucket/prefix/.",
        ),
        click.option(
            "-r",
            "--resource-type",
            metavar="TYPE",
            shell_complete=complete_resource_type,
            help="The resource's type, such as s3-bucket.",
        ),
        click.argument("name", shell_complete=complete_connector),
    ):
        command = option(command)
    return command


@command("issue")
@_wish
@click.option("-f", "-o", "--format", "--output", "format", default="json", metavar="FORMAT",
              shell_complete=complete_format,
              help="json, yaml, or one that describe-type lists: env, credential-process, ...")  # fmt: skip
@click.pass_obj
def issue(run: Run, /, name: str, access: Access, ttl: timedelta | None, format: str, **wish: Any) -> None:
    """Issue short-lived credentials for exactly one resource. They are printed in clear, so mind where that goes."""

    async def work(broker: Broker) -> tuple[Issued, str]:
        issued = await broker.issue(name, access=access, ttl=ttl, **wish)
        values = [getattr(issued.credentials, field) for field in issued.credentials.__struct_fields__]
        run.mask.learn(*(one for one in values if isinstance(one, Secret)))
        return issued, _written(broker.registry, issued, format)

    issued, text = with_broker(run, work, alone=True)
    put(text.rstrip("\n"))
    if format not in PLAIN or sys.stderr.isatty():  # the data of the plain formats says it
        for sentence in issued.clamped:
            say(f"Note: {sentence}.")
    if sys.stderr.isatty() and not issued.narrowed:
        say("Note: these credentials reach more than the resource.")
    if _widened(wish["resource_id"], issued.resource_id):
        say(f"Note: taken as the prefix {issued.resource_id}; a single object cannot be named.")


def _widened(given: str | None, canonical: str | None) -> bool:
    """Whether what may have been meant as one object was taken as a prefix: a path that has got a slash at its end.

    >>> _widened("s3://b/k/a.json", "s3://b/k/a.json/"), _widened("b/k/", "s3://b/k/"), _widened("s3://b", "s3://b/")
    (True, False, False)
    """
    path = (given or "").rpartition(":")[2].lstrip("/")
    return "/" in path and f"/{canonical}".endswith(f"/{path}/")


def _written(registry: Registry, issued: Issued, format: str) -> str:
    if format in PLAIN:
        return encoded(format, _data(issued))
    route = _renders(registry, issued)
    formats = route.type.formats if route and route.render else ()
    if route is None or route.render is None or format not in formats:
        kind, known = kind_of(issued.credentials), ", ".join((*PLAIN, *formats))
        raise InvalidConfig(f"{kind} credentials are not written as {format!r}; use one of: {known}", field="format")
    return route.render(RenderRequest(credentials=issued.credentials, format=format))


def _renders(registry: Registry, issued: Issued) -> Route | None:
    """The plugin that renders them, if any does; if it is the one that issued them, no other is imported."""
    route = registry.route(issued.connector_type)
    kinds = {kind_of(kind) for kind in route.type.credentials}
    if kind_of(issued.credentials) in kinds:
        return route
    try:
        return registry.renders(issued.credentials)
    except UnknownConnectorType:
        return None


def _data(issued: Issued) -> dict[str, Any]:
    fields = {name: getattr(issued, name) for name in issued.__struct_fields__ if name != "credentials"}
    credentials = reveal(issued.credentials)
    apart = {name: credentials.pop(name, None) for name in ("expires_at", "narrowed", "clamped")}
    return fields | {"kind": credentials.pop("type", None)} | apart | {"credentials": credentials}


@command("explain")
@_wish
@output_option
@click.pass_obj
def explain(run: Run, /, name: str, access: Access, ttl: timedelta | None, output: str, **wish: Any) -> None:
    """Say what exactly issue would ask of the vendor, with which policy, without asking."""

    async def work(broker: Broker) -> Explanation:
        return await broker.explain(name, access=access, ttl=ttl, **wish)

    found = with_broker(run, work)
    rows = [("narrowed", "yes" if found.narrowed else "no"), ("calls", found.calls)]
    if found.notes:
        rows.append(("notes", found.notes))
    view: list[Table | str] = [Table(("", ""), rows)]
    if found.policy is not None:
        view += [Title("policy"), encoded("json", found.policy)]
    emit(output, msgspec.to_builtins(found), *view)
