"""`plugins` and `version`: what is installed."""

from __future__ import annotations

import platform

import msgspec

from mooring.cli._lazy import command
from mooring.cli._output import Bad, Table, emit, output_option
from mooring.registry import Plugin, Registry, SystemPlugins


def installed() -> list[Plugin]:
    """Every plugin, broken ones with their error."""
    return [*Registry().plugins(), *SystemPlugins().plugins]


@command("plugins", examples=("mooring plugins",))
@output_option
def plugins(output: str) -> None:
    """List the installed plugins, and what is wrong with a broken one."""
    found = installed()
    columns = ("NAME", "KIND", "DISTRIBUTION", "VERSION", "POWERS", "STATUS")
    rows = [
        (
            one.name,
            one.group.removeprefix("mooring.").removesuffix("s"),
            one.distribution,
            one.version,
            one.powers or "",
            Bad(one.error) if one.error else "ok",
        )
        for one in found
    ]
    emit(output, msgspec.to_builtins(found), Table(columns, rows))


@command("version", examples=("mooring version",))
@output_option
def version(output: str) -> None:
    """Print the versions of mooring, Python and the plugins."""
    from mooring import __version__

    about = {"mooring": __version__, "python": platform.python_version()}
    about |= {one.distribution: one.version for one in installed() if one.version}
    emit(output, about, Table(("", ""), list(about.items())))
