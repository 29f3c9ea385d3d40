"""`register`: a new connector, from fields or from what this machine has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from mooring.cli._broker import with_broker
from mooring.cli._completion import complete_auth_method, complete_resource, complete_resource_type, complete_type
from mooring.cli._edge import Run
from mooring.cli._fields import check_required, fields_for, split, values
from mooring.cli._lazy import command
from mooring.cli._output import emit, output_option, say
from mooring.cli._process import INTERRUPTED
from mooring.cli._reach import Reach
from mooring.cli._secrets import Source, missing_secrets
from mooring.cli._shown import as_data, as_table
from mooring.cli._values import counted, to_instant, to_skew, to_span
from mooring.cli._values import labels as read_labels
from mooring.cli._watching import watching
from mooring.errors import InvalidConfig, LongLived, MooringError, NotNarrowed, UnknownAuthMethod
from mooring.registry import Registry, Route
from mooring.types import AuthMethod, Connector, split_config

if TYPE_CHECKING:
    from mooring.broker import Broker


@command(
    "register",
    fields=True,
    examples=(
        "mooring connector register -i",
        "mooring connector register dev --type aws --auto-configure",
        "mooring connector register prod -t aws -a iam-role --region eu-west-1 --role-arn ARN",
    ),
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[NAME] [--FIELD VALUE]...")
@click.option("-t", "--type", "type_", metavar="TYPE", shell_complete=complete_type, help="The connector type.")
@click.option(
    "-a",
    "--auth-method",
    metavar="METHOD",
    shell_complete=complete_auth_method,
    help="How to authenticate; see describe-type.",
)
@click.option(
    "-r",
    "--resource-type",
    metavar="TYPE",
    shell_complete=complete_resource_type,
    help="Reach only this resource type.",
)
@click.option(
    "--resource-id",
    metavar="ID",
    shell_complete=complete_resource,
    help="Reach only this resource, in any of its accepted forms.",
)
@click.option("-i", "--interactive", is_flag=True, help="Ask for everything that is not given, and help with it.")
@click.option("--auto-configure", is_flag=True, help="Take the configuration from this machine; fields say what.")
@click.option("--all", "all_", is_flag=True, help="With --auto-configure: a connector for each thing that is found.")
@click.option("--no-verify", is_flag=True, help="Do not ask the vendor whether it accepts the connector.")
@click.option("-l", "--label", "labels", metavar="KEY=VALUE", multiple=True, help="Repeatable.")
@click.option("--description", default="", help="For people.")
@click.option("--owner", help="Who is responsible; you, unless given.")
@click.option("--expires-at", metavar="INSTANT", callback=to_instant, help="When the connector's own credentials end.")
@click.option("--expires-skew", metavar="DURATION", callback=to_skew, help="How long before that it counts as expired.")
@click.option("--ttl", metavar="DURATION", callback=to_span, help="Life of what it issues, where nobody says: 15m, 1h.")
@click.option("--allow-unnarrowed", is_flag=True, help="Issue what cannot be confined to one resource.")
@click.option("--allow-long-lived", is_flag=True, help="Issue what does not end by itself.")
@output_option
@click.pass_context
def register(
    ctx: click.Context,
    /,
    arguments: Sequence[str],
    type_: str | None,
    auth_method: str | None,
    interactive: bool,
    auto_configure: bool,
    all_: bool,
    no_verify: bool,
    labels: Sequence[str],
    expires_at: datetime | None,
    expires_skew: timedelta | None,
    output: str,
    **rest: Any,
) -> None:
    """Register a connector: check it, seal its secrets, and list what it reaches.

    The auth method's fields are options too, as `mooring connector describe-type` lists them. A value - is read from
    standard input, @path from a file (@@ for a value that begins with @); lists and maps (key=value) are repeated.
    A required secret that is left out is asked for on a terminal. --field.NAME is for a field named like an option.

    With --auto-configure --all, each thing on this machine that the type knows a way to becomes a connector, called as
    it is there, after NAME and a dash if NAME is given. One that fails, also because its name is taken, has its error
    in its row; the exit status is 7 if all of them failed.

    With -i, it asks for what is not given, with the help and the default of each field, verifies, asks again for what
    was wrong, and prints the command that does the same. Ctrl-C leaves nothing behind. It also reads its answers from
    a pipe, a line each; there a wrong answer ends it.
    """
    run: Run = ctx.obj
    if all_ and not auto_configure:
        raise InvalidConfig("--all is for what --auto-configure finds; give both, or neither")
    registry = Registry()
    rest |= {"labels": read_labels(labels), "expires_skew": expires_skew or timedelta(0), "verify": not no_verify}
    if interactive:
        from mooring.cli._register_guide import register_guided

        if all_:
            raise InvalidConfig("-i is about one connector, --all about many; give one of them")
        rest |= {"expires_at": expires_at}
        named = {"type_": type_, "auth_method": auth_method}
        register_guided(ctx, registry, arguments, named, auto_configure=auto_configure, output=output, rest=rest)
        return
    if type_ is None:
        raise InvalidConfig(f"name the connector type with --type; installed: {', '.join(registry.names()) or 'none'}")
    route = registry.route(type_)
    methods = _methods(route, auth_method, auto_configure)
    fields = fields_for(route, methods)
    positional, given = split(arguments, fields, [option for param in ctx.command.params for option in param.opts])
    name = one_name(positional) if positional or not all_ else ""
    if not auto_configure:
        check_required(fields, given)
    source = Source()
    config = values(given, source, run.mask)
    source.warn()
    if not auto_configure:
        config |= missing_secrets(fields.by_name.values(), config)
    if all_:
        from mooring.cli._register_all import register_all

        rest |= {"type": type_, "expires_at": expires_at}
        register_all(run, registry, output, prefix=name, auth_method=auth_method, options=config, rest=rest)
        return

    async def store(broker: Broker) -> Connector:
        if not auto_configure:
            method = methods[0].name
            return await broker.register(
                name, type=type_, auth_method=method, config=config, expires_at=expires_at, **rest
            )
        lifted = await broker.lift(type_, auth_method=auth_method, options=config)
        run.mask.learn(*split_config(lifted.config)[1].values())
        say(f"Auto-configured with the auth method {lifted.auth_method!r} from {lifted.source}.")
        method, ends = lifted.auth_method, expires_at or lifted.expires_at
        return await broker.register(
            name, type=type_, auth_method=method, config=lifted.config, expires_at=ends, **rest
        )

    done = f"Registered the connector {name!r}"
    store_and_show(run, store, registry, output, done=done, listed=not no_verify)


def _methods(route: Route, name: str | None, auto_configure: bool) -> list[AuthMethod]:
    """The auth method; with auto-configuration all of them, for fields of any may say what to look for."""
    methods = list(route.type.auth_methods)
    if name is not None:
        method = route.auth_method(name)
        return methods if auto_configure else [method]
    if len(methods) == 1 or auto_configure:
        return methods
    known = ", ".join(method.name for method in methods)
    lift = ", or --auto-configure" if route.lift else ""
    raise UnknownAuthMethod(f"name an auth method of {route.type.name!r} with --auth-method{lift}; one of: {known}")


def one_name(positional: Sequence[str]) -> str:
    """The connector's name. What else was written is not repeated: it may be a secret."""
    if not positional:
        raise InvalidConfig("the connector's NAME is missing")
    if len(positional) > 1:
        raise InvalidConfig(f"{counted(len(positional) - 1, 'argument')} too many; a field is written --field value")
    return positional[0]


async def foretold(broker: Broker, connector: Connector) -> MooringError | None:
    """Why what a login is for would not be issued as the connector is, where its plugin knows before any call."""
    from mooring.cli._login import usual

    try:
        await broker.explain(connector.name, resource_id=await usual(broker, connector.name, None))
    except (NotNarrowed, LongLived) as error:
        return error
    except MooringError:
        pass  # it reaches several things, or its plugin explains nothing
    return None


def store_and_show(
    run: Run,
    store: Callable[[Broker], Awaitable[Connector]],
    registry: Registry,
    output: str,
    *,
    done: str,
    listed: bool,
) -> None:
    """Store a connector, say so, and show what it reaches: failures of that, and an interruption, do not undo it."""
    reach = Reach(run)
    stored: list[Connector] = []

    async def work(broker: Broker) -> None:
        stored.append(await store(broker))
        if problem := await foretold(broker, stored[0]):
            say(f"Note: as it is, issuing would be refused: {run.told(problem)}.")
        say(f"{done}; it reaches:" if listed else f"{done}.")
        if listed:
            watch.begin(1)
            await reach.gather(broker, heard=watch.heard, connectors=[stored[0].id])

    interrupted = False
    try:
        with watching(reach) as watch:
            with_broker(run, work)
    except KeyboardInterrupt:
        if not stored:
            raise
        interrupted = True
    data = as_data(stored[0], registry)
    if listed:
        emit(output, data | {"resources": reach.data()}, reach.table())
    else:
        emit(output, data, *as_table(data))
    if interrupted:
        say("Interrupted; the connector is stored, and this is what was found until then.")
        raise click.exceptions.Exit(INTERRUPTED)
