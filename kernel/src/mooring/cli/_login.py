"""`login` and `logout`: a vendor's own tool on this machine gets credentials from mooring whenever it needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import click

from mooring.assembly import settings_from
from mooring.broker._desk import checked, guard
from mooring.cli._broker import with_broker
from mooring.cli._completion import complete_connector, complete_resource, complete_resource_type
from mooring.cli._edge import Run
from mooring.cli._environment import owner, secrets_of
from mooring.cli._lazy import command
from mooring.cli._output import say
from mooring.cli._values import written
from mooring.cli._wishes import one_wish
from mooring.credentials import Issued, kind_of
from mooring.errors import InvalidConfig, MooringError
from mooring.hookspecs import LoginChange, LoginRequest, LogoutRequest
from mooring.registry import Registry

if TYPE_CHECKING:
    from mooring.broker import Broker

FOLDERS = "logins"
"""Where in the home plugins keep what they must remember of logins, each in a folder of its own."""
FILE = click.Path(dir_okay=False, path_type=Path)


@command(
    "login",
    examples=(
        "mooring login cluster",
        "mooring login prod -r s3-bucket -i s3://team-models --name models",
    ),
)
@one_wish
@click.option(
    "--name", "entry", metavar="NAME", help="What to call it there; made of the connector's name, unless given."
)
@click.option("--file", type=FILE, help="The tool's configuration file; its usual one, unless given.")
@click.pass_obj
def login(run: Run, /, name: str, entry: str | None, file: Path | None, **wish: Any) -> None:
    """Let a tool (kubectl, docker, the aws CLI) get credentials from mooring whenever it needs them.

    An entry that calls mooring is added to the tool's configuration. No secret is written anywhere.
    """
    clamped: list[str] = []

    async def work(broker: Broker) -> LoginChange:
        if wish["resource_id"] is None:
            wish["resource_id"] = await usual(broker, name, wish["resource_type"])
        issued = await broker.issue(name, **wish)
        clamped.extend(issued.clamped)
        run.mask.learn(*secrets_of(issued.credentials))
        route = owner(broker.registry, issued)
        if route is None or route.login is None:
            kind = kind_of(issued.credentials)
            raise InvalidConfig(f"no tool can be configured for {kind} credentials; use: mooring exec")
        request = LoginRequest(
            credentials=issued.credentials,
            connector=issued.connector,
            resource_type=issued.resource_type,
            resource_id=issued.resource_id,
            access=issued.access,
            command=(*_ourselves(), *_arguments(issued, wish)),
            folder=_folder(route.type.name),
            name=entry,
            file=file,
        )
        try:
            with guard(route, "login"):
                change = checked(route, "login", await anyio.to_thread.run_sync(route.login, request), LoginChange)
        except MooringError as error:
            with suppress(MooringError):  # the first error is the one that helps
                await broker.note("login", issued, error)
            raise
        await broker.note("login", issued)
        return change

    change = with_broker(run, work)
    if change.entries:
        say(f"Wrote {', '.join(change.entries)} to {change.file}.{_kept(change)}")
    else:
        say(f"{change.file} has the entry already.")
    for note in (*clamped, *change.notes):
        say(f"Note: {note}.")
    if "MOORING_HOME" in os.environ and "MOORING_HOME" not in change.variables:
        say("Note: the tool needs MOORING_HOME in its environment, as it is here.")


async def usual(broker: Broker, name: str, resource_type: str | None) -> str | None:
    """What a login is for where no resource is named, if that is clear and the connector has no scope of its own."""
    connector = await broker.get(name)
    wanted = resource_type or connector.resource_type
    kinds = [kind for kind in broker.registry.route(connector.type).type.resource_types if wanted in (None, kind.name)]
    return kinds[0].login_id if len(kinds) == 1 and connector.resource_id is None else None


def _ourselves() -> Sequence[str]:
    """The command line that starts this mooring, whatever the folder and the search path of who does."""
    script = Path(sys.executable).parent / "mooring"
    return (str(script),) if script.exists() else (sys.executable, "-m", "mooring")


def _arguments(issued: Issued, wish: dict[str, Any]) -> Sequence[str]:
    words = ["issue", issued.connector, "--resource-type", issued.resource_type, "--access", issued.access, "--quiet"]
    for option, value in (("--resource-id", issued.resource_id), ("--consumer", wish["consumer"])):
        words += [option, value] if value is not None else []
    return (*words, "--ttl", written(wish["ttl"])) if wish["ttl"] else words


def _folder(connector_type: str) -> Path:
    folder = settings_from().home / FOLDERS / connector_type
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _kept(change: LoginChange) -> str:
    return f" What it was before is in {change.backup}." if change.backup else ""


@command("logout", examples=("mooring logout cluster",))
@click.argument("name", shell_complete=complete_connector)
@click.option(
    "-r", "--resource-type", metavar="TYPE", shell_complete=complete_resource_type, help="Only of this resource type."
)
@click.option(
    "-i",
    "--resource-id",
    metavar="ID",
    shell_complete=complete_resource,
    help="Only of this resource, in its canonical form.",
)
@click.option("--file", type=FILE, help="The tool's configuration file, if login was given one.")
def logout(name: str, resource_type: str | None, resource_id: str | None, file: Path | None) -> None:
    """Take back what login wrote for a connector, and nothing else. The connector itself stays, or may be gone."""
    registry, folders = Registry(), settings_from().home / FOLDERS
    changes = []
    for connector_type in registry.names() if folders.exists() else ():
        if not (folder := folders / connector_type).exists():
            continue
        route = registry.route(connector_type)
        request = LogoutRequest(
            connector=name, resource_type=resource_type, resource_id=resource_id, folder=folder, file=file
        )
        if route.logout is not None:
            with guard(route, "logout"):
                changes.append(checked(route, "logout", route.logout(request), LoginChange))
    done = [one for one in changes if one.entries]
    for change in done:
        say(f"Removed {', '.join(change.entries)} from {change.file}.{_kept(change)}")
    if not done:
        looked = ", ".join(dict.fromkeys(change.file for change in changes))
        other = "" if file else "; if login was given another file, name it with --file"
        say(f"There was nothing to remove in {looked}{other}." if looked else "There was nothing to remove.")
