"""`exec`: a command that finds credentials, and leaves none behind."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from mooring.assembly import settings_from
from mooring.cli._broker import with_broker
from mooring.cli._edge import Run
from mooring.cli._environment import environment_of, in_clear, secrets_of
from mooring.cli._output import say
from mooring.cli._wishes import Several, Wish, several_wishes
from mooring.errors import InvalidConfig
from mooring.hookspecs import Environment, EnvironmentFile
from mooring.types import Secret

if TYPE_CHECKING:
    from mooring.broker import Broker
    from mooring.cli._concealing import Known

MASTER_KEY = "MOORING_MASTER_KEY"
"""What a command is never given: it opens every connector, not only those that were named."""
UNWRITTEN = 1
"""The exit code where the command ended well, but not all that it wrote could be passed on."""
FOLDERS = "run"
"""Where in the home the private folders are."""


@click.command(
    "exec",
    cls=Several,
    examples=(
        "mooring exec prod -r s3-bucket -i s3://team-models -- aws s3 ls s3://team-models",
        "mooring exec --refresh prod -i s3://team-models registry -- python train.py",
    ),
)
@several_wishes("CONNECTOR... -- COMMAND...")
@click.option("--refresh", is_flag=True, help="Renew the credentials for as long as the command runs (see agent).")
@click.option("--no-mask", is_flag=True, help="Let the command's output be, secrets and all.")
@click.pass_obj
def exec_(run: Run, /, wishes: Sequence[Wish], rest: Sequence[str], refresh: bool, no_mask: bool) -> None:
    """Run a command with credentials in its environment, and in private files that are gone afterwards.

    Several connectors may be named; options belong to the connector before them. Signals go to the command, and its
    exit code is this one's: 128 and the signal's number where one ended it, 127 where there is no such command. What
    it writes to anything but a terminal is searched for the credentials' secrets of eight characters or more.
    """
    if not rest:
        raise InvalidConfig("write the command after --, as in: mooring exec CONNECTOR -- COMMAND")
    if os.name != "posix":
        raise InvalidConfig("exec works on POSIX systems alone; use: mooring issue --format powershell")
    from mooring.cli._concealing import Known

    known = Known()
    with _served(run, wishes, known) if refresh else _issued(run, wishes, known) as environments:
        code = _run(rest, merged(environments), None if no_mask else known)
    raise click.exceptions.Exit(code)


@contextmanager
def _issued(run: Run, wishes: Iterable[Wish], known: Known) -> Generator[list[Environment], None, None]:
    """What was issued now; the broker is closed before the command runs."""

    async def work(broker: Broker) -> list[Environment]:
        environments = []
        for wish in wishes:
            issued = await broker.issue(wish.connector, **wish.options)
            learn(run, known, *secrets_of(issued.credentials))
            environments.append(environment_of(broker.registry, issued))
        return environments

    yield with_broker(run, work, alone=True)


@contextmanager
def _served(run: Run, wishes: Sequence[Wish], known: Known) -> Generator[list[Environment], None, None]:
    """Where it is issued again whenever it is asked for; a broker lives as long as the command."""
    from anyio.from_thread import start_blocking_portal

    from mooring.cli._agent import open_agent
    from mooring.cli._process import begin

    begin()
    agent = open_agent(run, wishes, lambda *secrets: learn(run, known, *secrets))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(agent) as environments:
        for environment in environments:
            learn(run, known, *(one for one in environment.variables.values() if isinstance(one, Secret)))
        yield environments


def learn(run: Run, known: Known, *secrets: Secret) -> None:
    """Show these neither in our own words nor in the command's."""
    run.mask.learn(*secrets)
    known.learn(*secrets)


def merged(environments: Iterable[Environment]) -> Environment:
    """One environment of several.

    Raises:
        InvalidConfig: two of them want the same variable for different things.
    """
    variables: dict[str, str | Secret | None] = {}
    files: list[EnvironmentFile] = []
    for one in environments:
        taken = {name for name, value in variables.items() if value is not None} | {file.variable for file in files}
        wanted = {name for name, value in one.variables.items() if value is not None}
        both = sorted(taken & (wanted | {file.variable for file in one.files}))
        clash = [name for name in both if variables.get(name) is None or variables[name] != one.variables.get(name)]
        if clash:
            raise InvalidConfig(
                f"two of the connectors set {', '.join(clash)}; a program can have one of them at a time"
            )
        variables |= {name: value for name, value in one.variables.items() if value is not None or name not in taken}
        files += one.files
    if len({file.name for file in files}) < len(files):
        raise InvalidConfig("two of the connectors have files of the same name; name one connector at a time")
    return Environment(variables=variables, files=tuple(files))


def _run(command: Sequence[str], environment: Environment, known: Known | None) -> int:
    from mooring.cli._child import Outputs, forwarded, run_child
    from mooring.cli._private import private_folder, write_private

    given = {name: value for name, value in os.environ.items() if name != MASTER_KEY}
    for name, value in in_clear(environment).items():
        given.pop(name, None)
        if value is not None:
            given[name] = value
    outputs = Outputs(known)
    try:
        with forwarded() as signals, ExitStack() as stack:
            if environment.files:
                folder = stack.enter_context(private_folder(settings_from().home / FOLDERS))
                for file in environment.files:
                    path = folder / file.name
                    write_private(path, file.content)
                    given[file.variable] = str(path.parent if file.folder else path)
            code = run_child(command, given, outputs, signals)
    finally:
        outputs.close_ours()
        unwritten = outputs.wait()
    if unwritten is not None:
        say(f"Error: the command's output cannot be written: {unwritten.strerror}")
    return code or (UNWRITTEN if unwritten else 0)
