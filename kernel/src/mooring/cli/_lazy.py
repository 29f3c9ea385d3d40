"""Groups whose commands are imported when they are called, and what all our commands have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from mooring.cli._values import counted
from mooring.errors import InvalidConfig, suggest

Places = Mapping[str, str]
"""Command name to `module:object` in this package."""

CONTEXT: dict[str, Any] = {
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
}


def _debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and (run := ctx.find_root().obj) is not None:  # None while the shell completes
        run.debug = True


def debug_option(**options: Any) -> click.Option:
    """`--debug`, good before and after the command's name."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_debug,
        help="Show the traceback of an error, secrets masked.",
        **options,
    )


class Command(click.Command):
    """A command of ours: with dashes or underscores, `--debug`, and examples in its help."""

    def __init__(
        self,
        name: str | None,
        context_settings: dict[str, Any] | None = None,
        examples: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(name, context_settings=CONTEXT | (context_settings or {}), **kwargs)
        self.examples = tuple(examples)
        self.params.append(debug_option(hidden=True))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, each as it is written."""
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {example}\n" for example in self.examples))
        super().format_epilog(ctx, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse what is too much, which is not repeated as click would: it may be a secret."""
        if ctx.resilient_parsing and args and args[-1].startswith("-"):
            args = args[:-1]  # the shell completes its value; with it, click would give up on those before too
        allowed, ctx.allow_extra_args = ctx.allow_extra_args, True
        rest = super().parse_args(ctx, args)
        if rest and not allowed and not ctx.resilient_parsing:
            raise click.UsageError(f"{counted(len(rest), 'argument')} too many", ctx)
        return rest


class CommandWithFields(Command):
    """A command that takes options which click does not know: an auth method's fields."""

    def __init__(self, name: str | None, **kwargs: Any) -> None:
        super().__init__(name, context_settings={"ignore_unknown_options": True}, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse `-tacme`: a field's value may look like that, and click would take its letters for options."""
        if any(len(one) > len("-t") and one[0] == "-" and one[1] != "-" for one in args):
            raise InvalidConfig(
                "a short option stands alone, as in -t TYPE; a value that begins with - is written --option=-..."
            )
        return super().parse_args(ctx, args)


class LazyGroup(click.Group):
    """A group that knows where its commands are."""

    def __init__(self, name: str, *, places: Places, **kwargs: Any) -> None:
        super().__init__(name, context_settings=CONTEXT, **kwargs)
        self.places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Ours, in the order that we gave them."""
        return list(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if place := self.places.get(cmd_name):
            module, _, name = place.partition(":")
            found: click.Command = getattr(import_module(f"mooring.cli.{module}"), name)
            return found
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments begin with; an unknown one is told the nearest."""
        name = args[0].replace("_", "-")
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            raise click.UsageError(f"no command {args[0]!r}; {suggest(name, self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)


def command(
    name: str, *, fields: bool = False, examples: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of ours; with `fields`, one that takes options that click does not know."""
    return click.command(name, cls=CommandWithFields if fields else Command, examples=examples)
