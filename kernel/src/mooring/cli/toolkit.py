"""For the commands of system plugins: what ours are made of, so that theirs look and fail alike."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mooring.cli._broker import with_broker
from mooring.cli._completion import complete, complete_connector, complete_resource, complete_secret
from mooring.cli._edge import FAILED, Run, fail
from mooring.cli._fields import Fields, check_required, split, values
from mooring.cli._guided import Guide, guiding, show_command, show_summary
from mooring.cli._lazy import CONTEXT, command
from mooring.cli._output import Table, Title, emit, output_option, printable, put, say, short
from mooring.cli._process import INTERRUPTED
from mooring.cli._register import one_name
from mooring.cli._secrets import Source
from mooring.cli._values import labels, span, written
from mooring.types import fields_of

if TYPE_CHECKING:
    from mooring.types import Config

__all__ = [
    "FAILED",
    "Group",
    "Guide",
    "Run",
    "Table",
    "Title",
    "command",
    "complete",
    "complete_connector",
    "complete_resource",
    "complete_secret",
    "confirm",
    "emit",
    "fail",
    "fields",
    "guiding",
    "labels",
    "output_option",
    "printable",
    "put",
    "say",
    "short",
    "show_command",
    "show_summary",
    "span",
    "with_broker",
    "written",
]


class Group(click.Group):
    """A group of commands, which takes dashes and underscores as ours do."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, context_settings=CONTEXT, **kwargs)


def fields(
    run: Run, arguments: Sequence[str], config: type[Config], options: Sequence[str], *, about: str, whole: bool = True
) -> tuple[str, dict[str, Any]]:
    """A name and the fields of a configuration, from what click did not know.

    Args:
        run: its mask learns the secrets.
        arguments: what click did not know.
        config: what the fields are of.
        options: click's own, for suggestions.
        about: the command that shows the fields, for errors.
        whole: whether all that are required must be there.

    Raises:
        InvalidConfig: a field is unknown, malformed or missing. Never says a value.
    """
    known = Fields(by_name={one.name: one for one in fields_of(config)}, elsewhere={}, about=about)
    positional, given = split(arguments, known, options)
    name = one_name(positional)
    if whole:
        check_required(known, given)
    source = Source()
    found = values(given, source, run.mask)
    source.warn()
    return name, found


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal, unless told not to; ends the command where the answer is no."""
    if not yes and sys.stdin.isatty() and not click.confirm(question, err=True):
        say("Nothing was changed.")
        raise click.exceptions.Exit(INTERRUPTED)
