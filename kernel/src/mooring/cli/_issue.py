"""`issue` and `explain`: credentials for one resource, and how they would be had."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from mooring.broker._desk import checked, guard
from mooring.cli._broker import with_broker
from mooring.cli._completion import complete_format
from mooring.cli._edge import Run
from mooring.cli._environment import environment_of, in_clear, owner, secrets_of
from mooring.cli._lazy import command
from mooring.cli._output import Table, Title, emit, encoded, output_option, put_exactly, say
from mooring.cli._shells import SHELLS, formats_of
from mooring.cli._wishes import one_wish
from mooring.credentials import Issued, kind_of, reveal
from mooring.errors import InvalidConfig
from mooring.hookspecs import Environment, Explanation, RenderRequest
from mooring.registry import Registry
from mooring.types import Access

if TYPE_CHECKING:
    from mooring.broker import Broker

PLAIN = ("json", "yaml")
"""The formats that need no plugin."""


F = TypeVar("F", bound=Callable[..., Any])


def format_option(command: F) -> F:
    """The option that says how to write credentials."""
    return click.option("-f", "-o", "--format", "--output", "format", default="json", metavar="FORMAT",
                        shell_complete=complete_format,
                        help="json, yaml, or one that describe-type lists: env, dotenv, credential-process, ...",
                        )(command)  # fmt: skip


@command(
    "issue",
    examples=(
        "mooring issue prod -r s3-bucket -i s3://team-models",
        'eval "$(mooring issue prod -i s3://team-models --format env)"',
        "mooring issue prod -i s3://team-models --access write --ttl 15m -o json",
    ),
)
@one_wish
@format_option
@click.option(
    "-q", "--quiet", is_flag=True, help="Print no notes about the credentials, as for a tool that asks often."
)
@click.pass_obj
def issue(
    run: Run, /, name: str, access: Access, ttl: timedelta | None, format: str, *, quiet: bool, **wish: Any
) -> None:
    """Issue short-lived credentials for exactly one resource. They are printed in clear, so mind where that goes."""

    async def work(broker: Broker) -> tuple[Issued, str]:
        issued = await broker.issue(name, access=access, ttl=ttl, **wish)
        return issued, rendered(run, broker.registry, issued, format)

    issued, text = with_broker(run, work, alone=True)
    hand_over(issued, text, format, quiet=quiet)
    if not quiet and _widened(wish["resource_id"], issued.resource_id):
        say(f"Note: taken as the prefix {issued.resource_id}; a single object cannot be named.")


def hand_over(issued: Issued, text: str, format: str, *, quiet: bool = False) -> None:
    """Print credentials, and say what is to be known of them."""
    put_exactly(text)
    if quiet:
        return
    if format not in PLAIN or sys.stderr.isatty():  # the data of the plain formats says it
        for sentence in issued.clamped:
            say(f"Note: {sentence}.")
    if sys.stderr.isatty() and not issued.narrowed:
        say("Note: these credentials reach more than the resource.")


def _widened(given: str | None, canonical: str | None) -> bool:
    """Whether what may have been meant as one object was taken as a prefix: a path that has got a slash at its end.

    >>> _widened("s3://b/k/a.json", "s3://b/k/a.json/"), _widened("b/k/", "s3://b/k/"), _widened("s3://b", "s3://b/")
    (True, False, False)
    """
    path = (given or "").rpartition(":")[2].lstrip("/")
    return "/" in path and f"/{canonical}".endswith(f"/{path}/")


def rendered(run: Run, registry: Registry, issued: Issued, format: str) -> str:
    """Credentials in a format, in clear; from now on the run masks them.

    Raises:
        InvalidConfig: they cannot be written so.
    """
    run.mask.learn(*secrets_of(issued.credentials))
    if format in PLAIN:
        return encoded(format, _data(issued))
    route = owner(registry, issued)
    if route is not None and route.render is not None and format in route.type.formats:
        request = RenderRequest(credentials=issued.credentials, format=format, variables=dict(os.environ))
        with guard(route, "render"):
            return checked(route, "render", route.render(request), str)
    if route is not None and route.environment is not None and format in SHELLS:
        return _exported(environment_of(registry, issued), issued, formats_of(route), format)
    kind, known = kind_of(issued.credentials), ", ".join((*PLAIN, *(formats_of(route) if route else ())))
    raise InvalidConfig(f"{kind} credentials are not written as {format!r}; use one of: {known}", field="format")


def _exported(environment: Environment, issued: Issued, formats: tuple[str, ...], format: str) -> str:
    """The variables; where there are files too, they would not do."""
    if environment.files:
        names = ", ".join(file.variable for file in environment.files)
        others = ", ".join((*PLAIN, *(one for one in formats if one not in SHELLS)))
        raise InvalidConfig(
            f"{kind_of(issued.credentials)} credentials need a file ({names}), which {format!r} has no place for; "
            f"use mooring exec, or one of: {others}",
            field="format",
        )
    return SHELLS[format](in_clear(environment))


def _data(issued: Issued) -> dict[str, Any]:
    fields = {name: getattr(issued, name) for name in issued.__struct_fields__ if name != "credentials"}
    credentials = reveal(issued.credentials)
    apart = {name: credentials.pop(name, None) for name in ("expires_at", "narrowed", "clamped")}
    return fields | {"kind": credentials.pop("type", None)} | apart | {"credentials": credentials}


@command("explain", examples=("mooring explain prod -r s3-bucket -i s3://team-models",))
@one_wish
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
