"""`update`: change a connector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from mooring.cli._broker import with_broker
from mooring.cli._completion import complete_auth_method, complete_connector, complete_resource, complete_resource_type
from mooring.cli._edge import Run
from mooring.cli._fields import check_required, fields_for, split, values
from mooring.cli._lazy import command
from mooring.cli._output import output_option
from mooring.cli._register import one_name, store_and_show
from mooring.cli._secrets import Source, missing_secrets
from mooring.cli._values import labels as read_labels
from mooring.cli._values import or_none, to_instant, to_skew, to_span
from mooring.errors import InvalidConfig, suggest
from mooring.registry import Registry, Route
from mooring.types import Connector

VERIFIED = ("config", "auth_method", "resource_type", "resource_id")
"""Changes that the vendor is asked about; a new label is no reason to call anybody."""
CLEARED = ("resource_type", "resource_id", "expires_at", "ttl")
"""What an empty text takes away."""


@command(
    "update",
    fields=True,
    examples=(
        "mooring connector update prod --region eu-central-1",
        "mooring connector update prod --ttl 15m --label team=data",
    ),
)
@click.argument(
    "arguments", nargs=-1, type=click.UNPROCESSED, metavar="NAME [--FIELD VALUE]...", shell_complete=complete_connector
)
@click.option("--name", help="A new name.")
@click.option(
    "-a",
    "--auth-method",
    metavar="METHOD",
    shell_complete=complete_auth_method,
    help="Another auth method, with all of its fields.",
)
@click.option(
    "-r",
    "--resource-type",
    metavar="TYPE",
    shell_complete=complete_resource_type,
    help="Reach only this resource type; '' for all.",
)
@click.option(
    "-i", "--resource-id", metavar="ID", shell_complete=complete_resource, help="Reach only this resource; '' for all."
)
@click.option("--remove", metavar="FIELD", multiple=True, help="Remove an optional field; repeatable.")
@click.option(
    "-l", "--label", "labels", metavar="KEY=VALUE", multiple=True, help="Set it; KEY= removes it. Repeatable."
)
@click.option("--remove-label", "gone", metavar="KEY", multiple=True, help="Repeatable.")
@click.option("--description", help="For people; '' for none.")
@click.option("--owner", help="Who is responsible.")
@click.option(
    "--expires-at", metavar="INSTANT", callback=or_none(to_instant), help="Its own credentials' end; '' for none."
)
@click.option("--expires-skew", metavar="DURATION", callback=to_skew, help="How long before that it counts as expired.")
@click.option(
    "--ttl", metavar="DURATION", callback=or_none(to_span), help="Life of what it issues; '' for the default."
)
@click.option("--allow-unnarrowed/--no-allow-unnarrowed", default=None, help="Issue what cannot be confined.")
@click.option("--allow-long-lived/--no-allow-long-lived", default=None, help="Issue what does not end by itself.")
@click.option("--verify/--no-verify", default=None, help="Ask the vendor; by default if it matters for the change.")
@output_option
@click.pass_context
def update(
    ctx: click.Context,
    /,
    arguments: Sequence[str],
    remove: Sequence[str],
    labels: Sequence[str],
    gone: Sequence[str],
    verify: bool | None,
    output: str,
    **options: Any,
) -> None:
    """Change a connector; what is not named stays. Nothing changes unless the vendor accepts the new configuration.

    Fields are given as in register.
    """
    run: Run = ctx.obj
    registry = Registry()
    name, *arguments = arguments or ("--",)
    if name.startswith("-"):
        raise InvalidConfig("write the connector's NAME before its fields: mooring connector update NAME --field value")
    connector = with_broker(run, lambda broker: broker.get(name))
    known = [option for param in ctx.command.params for option in param.opts]
    config = _config(run, registry.route(connector.type), connector, options["auth_method"], arguments, remove, known)
    changes = {name: _cleared(name, value) for name, value in options.items() if value is not None}
    if config:
        changes["config"] = config
    if changed := {key: value or None for key, value in read_labels(labels).items()} | dict.fromkeys(gone):
        changes["labels"] = changed
    if not changes:
        raise InvalidConfig("there is nothing to change; name an option or a field")
    check = any(name in changes for name in VERIFIED) if verify is None else verify
    store_and_show(
        run,
        lambda broker: broker.update(connector.id, verify=check, **changes),
        registry,
        output,
        done=_done(connector.name, changes),
        listed=check,
    )


def _config(
    run: Run,
    route: Route,
    connector: Connector,
    auth_method: str | None,
    arguments: Sequence[str],
    remove: Sequence[str],
    options: Sequence[str],
) -> dict[str, Any]:
    """The fields that were given, and None for those to remove."""
    method = route.auth_method(auth_method or connector.auth_method)
    fields = fields_for(route, [method])
    positional, given = split(arguments, fields, options)
    one_name([connector.name, *positional])
    if method.name != connector.auth_method:
        check_required(fields, given)
    source = Source()
    config = values(given, source, run.mask)
    source.warn()
    for name in (one.lstrip("-").replace("-", "_") for one in remove):
        if name not in fields.by_name:
            raise InvalidConfig(f"there is no field {name!r} to remove; {suggest(name, fields.by_name)}", field=name)
        config[name] = None
    if method.name != connector.auth_method:
        config |= missing_secrets(fields.by_name.values(), config)
    return config


def _done(name: str, changes: dict[str, Any]) -> str:
    """What was done, in words."""
    to = changes.get("name", name)
    if to == name:
        return f"Updated the connector {name!r}"
    return f"Renamed {name!r} to {to!r}" + (" and updated it" if len(changes) > 1 else "")


def _cleared(name: str, value: Any) -> Any:
    return None if name in CLEARED and value == "" else value
