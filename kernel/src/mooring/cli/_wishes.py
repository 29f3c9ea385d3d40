"""What is wanted of connectors, as it is written on the command line: of one, or of several one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from mooring.cli._completion import complete_connector, complete_resource, complete_resource_type
from mooring.cli._lazy import Command
from mooring.cli._values import to_span
from mooring.types import ACCESSES

F = TypeVar("F", bound=Callable[..., Any])
FIELDS = ("resource_type", "resource_id", "access", "ttl", "consumer")


class Wish(NamedTuple):
    """A connector, and the options of `issue`."""

    connector: str
    options: dict[str, Any]


def wish_options(command: F) -> F:
    """The options that say what is wanted of a connector."""
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
            shell_complete=complete_resource,
            help="The resource, in any form that describe-type lists, such as s3://bucket/prefix/.",
        ),
        click.option(
            "-r",
            "--resource-type",
            metavar="TYPE",
            shell_complete=complete_resource_type,
            help="The resource's type, such as s3-bucket.",
        ),
    ):
        command = option(command)
    return command


def one_wish(command: F) -> F:
    """One connector, and what is wanted of it."""
    return wish_options(click.argument("name", shell_complete=complete_connector)(command))


def several_wishes(metavar: str) -> Callable[[F], F]:
    """Connectors, each with its options after it; for a command of the class `Several`."""

    def added(command: F) -> F:
        argument = click.argument(
            "connectors", nargs=-1, type=click.UNPROCESSED, metavar=metavar, shell_complete=complete_connector
        )
        return wish_options(argument(command))

    return added


class Several(Command):
    """A command of several connectors. It gets them as `wishes`, and what stands after `--` as `rest`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the line apart: options belong to the connector before them, the first ones to the first."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        end = args.index("--") if "--" in args else len(args)
        wishes: list[Wish] = []
        leading, words = self._segment(ctx, args[:end])
        while words:
            name = words[0]
            options, words = self._segment(ctx, words[1:])
            wishes.append(Wish(name, leading | options))
            leading = {}
        if not wishes:
            raise click.MissingParameter(ctx=ctx, param_type="argument", param_hint="CONNECTOR")
        ctx.params |= {"wishes": wishes, "rest": args[end + 1 :]}
        return []

    def _segment(self, ctx: click.Context, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """The options that the words begin with, as far as they are a wish's, and the words after them."""
        inner = click.Context(self, info_name=ctx.info_name, parent=ctx.parent)
        inner.allow_interspersed_args = False
        super().parse_args(inner, list(words))
        rest = list(inner.params.pop("connectors"))
        for name, value in inner.params.items():
            given = inner.get_parameter_source(name) is ParameterSource.COMMANDLINE
            if name not in FIELDS and (given or name not in ctx.params):
                ctx.params[name] = value
        return {
            name: value
            for name, value in inner.params.items()
            if name in FIELDS and inner.get_parameter_source(name) is ParameterSource.COMMANDLINE
        }, rest
