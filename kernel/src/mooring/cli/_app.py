"""The root of the command line: our commands by name, and those of system plugins."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import click

from mooring.cli._edge import EXIT_CODES, UNHEARD, Run, guarded
from mooring.cli._lazy import LazyGroup, debug_option
from mooring.cli._output import say, width
from mooring.cli._process import begin
from mooring.errors import InvalidConfig

OURS = {
    "service-connector": "_connectors:group",
    "connector": "_connectors:short",
    "issue": "_issue:issue",
    "explain": "_issue:explain",
    "secret": "_secret:group",
    "lease": "_leases:group",
    "exec": "_exec:exec_",
    "agent": "_agent:agent",
    "login": "_login:login",
    "logout": "_login:logout",
    "status": "_status:status",
    "events": "_events:events",
    "audit": "_audit:group",
    "vault": "_vault:group",
    "backup": "_backup:backup",
    "restore": "_backup:restore",
    "store": "_backup:group",
    "plugins": "_plugins:plugins",
    "doctor": "_doctor:doctor",
    "completion": "_completion:completion",
    "version": "_plugins:version",
}

HELP = f"""Connect code to infrastructure: short-lived, least-privilege credentials.

Data goes to stdout, everything else to stderr. MOORING_HOME is the folder of the store, the master key and the cache;
MOORING_COLUMNS the width of tables where there is no terminal, NO_COLOR switches colour off.

{EXIT_CODES}
"""


class App(LazyGroup):
    """`mooring`."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run within a process of somebody else's, and exit with the code that it ends in."""
        sys.exit(self.run(args, Run(), prog_name=prog_name, **extra))

    def run(self, args: Sequence[str] | None, run: Run, **extra: Any) -> int:
        """Run; the exit code that it ends in."""
        extra |= {"prog_name": extra.get("prog_name") or "mooring", "standalone_mode": False}
        given, stdout = sys.argv[1:] if args is None else args, sys.stdout

        def work() -> Any:
            width()  # of a MOORING_COLUMNS that is none, before anything is done
            _check_text(given)
            if "_MOORING_COMPLETE" in os.environ:
                from mooring.cli._bash import enlist

                enlist()
            code = super(App, self).main(list(given), obj=run, **extra)
            sys.stdout.flush()
            return code

        code = guarded(run, work)
        return code if sys.stdout is stdout else UNHEARD  # click puts another in its place when its reader has gone

    def invoke(self, ctx: click.Context) -> None:
        """Call the command; what it returns is no exit code."""
        try:
            super().invoke(ctx)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                raise  # click begins a new line
            raise click.Abort from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Ours, then those of plugins."""
        return [*super().list_commands(ctx), *sorted(self._others)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command; plugins are asked only for one that is not ours."""
        return super().get_command(ctx, cmd_name) or self._others.get(cmd_name)

    @cached_property
    def _others(self) -> dict[str, click.Command]:
        """The commands of system plugins; a broken plugin costs a warning and its own commands."""
        begin()  # what they do is their own
        from mooring.registry import SystemPlugins

        system = SystemPlugins()
        for plugin in system.plugins:
            if plugin.error is not None:
                say(f"Warning: the plugin {plugin.name!r} of {plugin.distribution} is broken; see: mooring plugins")
        found: dict[str, click.Command] = {}
        for hook in system.hook.commands.get_hookimpls():
            into = click.Group()
            try:
                hook.function(**dict.fromkeys(hook.argnames, into))
            except Exception as error:  # noqa: BLE001  a plugin may raise anything; its text may be anything too
                say(f"Warning: the plugin {hook.plugin_name!r} could not add its commands: {type(error).__name__}")
                continue
            for name, command in into.commands.items():
                if name in self.places or name in found:
                    say(f"Warning: the plugin {hook.plugin_name!r} adds a command {name!r}, which there is; left out")
                else:
                    found[name] = command
        return found


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse what the operating system hands over as bytes that are no text: it could not be stored or shown."""
    for number, one in enumerate(arguments, 1):
        if not one.isascii() and any("\ud800" <= character <= "\udfff" for character in one):
            encoding = sys.getfilesystemencoding()
            raise InvalidConfig(f"argument {number} is not text in the encoding of this locale ({encoding})")


def make_app() -> App:
    """The command line, fresh."""
    from mooring import __version__

    app = App("mooring", help=HELP, places=OURS, params=[debug_option(envvar="MOORING_DEBUG")])
    return click.version_option(__version__, prog_name="mooring", message="%(prog)s %(version)s")(app)
