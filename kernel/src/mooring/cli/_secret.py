"""`mooring secret`: values that are kept once, sealed, and referred to from configurations as `{{name.key}}`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from mooring.cli._broker import with_broker
from mooring.cli._completion import complete_secret
from mooring.cli._edge import Run, fail
from mooring.cli._guided import INTRO, Guide, guiding, is_path, show_command, show_summary, stored
from mooring.cli._lazy import LazyGroup, command
from mooring.cli._output import Table, emit, output_option, say, short
from mooring.cli._process import INTERRUPTED
from mooring.cli._secrets import Source
from mooring.errors import InvalidConfig, NameTaken
from mooring.types import MASK, ConfigField, Secret

if TYPE_CHECKING:
    from mooring.broker import Broker, Document

group = LazyGroup(
    "secret",
    help="Named secrets: sealed values, which configurations refer to as {{name.key}}.",
    places={
        "create": "_secret:create",
        "list": "_secret:list_",
        "get": "_secret:get",
        "update": "_secret:update",
        "delete": "_secret:delete",
    },
)

VALUES = click.argument("values", nargs=-1, metavar="[KEY=VALUE]...", type=click.UNPROCESSED)
INTERACTIVE = click.option("-i", "--interactive", is_flag=True, help="Ask for keys and values, which are not shown.")


@command(
    "create",
    examples=(
        "mooring secret create warehouse -i",
        "mooring secret create warehouse user=ann password=@password.txt",
    ),
)
@click.argument("name", required=False)
@VALUES
@INTERACTIVE
@output_option
@click.pass_context
def create(ctx: click.Context, /, name: str | None, values: Sequence[str], interactive: bool, output: str) -> None:
    """Seal values under a name.

    A VALUE - is read from standard input, @path from a file; @@ begins one that begins with @. It may refer to other
    secrets. A configuration refers to it as {{NAME.KEY}}, in any field; it is resolved when the connector is used.

    With -i, it asks for the name and for keys and values, and prints the command that does the same. Ctrl-C leaves
    nothing behind. It also reads its answers from a pipe, a line each.
    """
    run: Run = ctx.obj
    if interactive and name and "=" in name:
        values, name = [name, *values], None
    given = _read(run, values)
    if interactive or (name and not given and sys.stdin.isatty()):
        _create_guided(ctx, name, values, given, output)
        return
    if name is None:
        raise click.MissingParameter(ctx=ctx, param_type="argument", param_hint="NAME")
    if not given:
        raise InvalidConfig("a secret holds at least one key; give key=value, or -i to be asked")
    _create(run, name, given, output)


def _create(run: Run, name: str, given: Mapping[str, Secret], output: str) -> None:
    made = with_broker(run, lambda broker: broker.named_secrets.create(name, given))
    say(f"Created the secret {made.name!r}; refer to it as {_reference(made)}.")
    emit(output, _data(made), _table([made]))


def _create_guided(
    ctx: click.Context, name: str | None, values: Sequence[str], given: dict[str, Secret], output: str
) -> None:
    """Ask for what was not given, create it, and say how to do the same without questions."""
    run: Run = ctx.obj
    with guiding(run, "nothing was created") as guide:
        if guide.person:
            say(INTRO)
        if name is None:
            name = guide.ask("name", lambda text: _free(run, text), about="what to call the secret")
        else:
            _free(run, name)
        asked = _asked(guide, run, given)
        if not (given := given | {key: value for key, (value, _) in asked.items()}):
            raise InvalidConfig("a secret holds at least one key; nothing was created")
        show_summary([("name", name), *((key, MASK) for key in given)])
        if not guide.confirm("Create it?"):
            guide.give_up()
        guide.undone = "it may have been created; see: mooring secret list"
        _create(run, name, given, output)
    told = [f"{key}={path or '-'}" for key, (_, path) in asked.items()]
    had = [one if is_path(one.partition("=")[2]) else f"{one.partition('=')[0]}=-" for one in values]
    words = [*ctx.command_path.split(), name, *had, *told]
    show_command(words, asks=any(word.endswith("=-") for word in words))


def _free(run: Run, name: str) -> str:
    """The name, if it is one and no secret has it. No store is made for it."""
    from mooring.broker._register import check_name

    check_name(name, "secret")
    if stored():
        names = [one.name for one in with_broker(run, lambda broker: broker.named_secrets.list(), looking=True)]
        if name in names:
            raise NameTaken(f"a secret named {name!r} exists already; choose another name, or update it")
    return name


@command("list", examples=("mooring secret list",))
@output_option
@click.pass_obj
def list_(run: Run, output: str) -> None:
    """List the secrets and their keys, without the values."""
    found = with_broker(run, lambda broker: broker.named_secrets.list(), alone=True)
    emit(output, [_data(one) for one in found], _table(found))
    fail(run, found.damaged)
    if not found:
        say("There is no secret; to make one: mooring secret create NAME key=value")


@command(
    "get",
    examples=(
        "mooring secret get warehouse",
        "mooring secret get warehouse --key password",
    ),
)
@click.argument("name", shell_complete=complete_secret)
@click.option("-k", "--key", metavar="KEY", help="Print the value of this key alone, in clear, and nothing else.")
@click.option("--show-values", is_flag=True, help="Show the values, in clear.")
@output_option
@click.pass_obj
def get(run: Run, name: str, key: str | None, show_values: bool, output: str) -> None:
    """Show a secret: its keys; its values only if asked to, which the audit log keeps."""

    async def work(broker: Broker) -> tuple[Document, dict[str, Secret]]:
        found = await broker.named_secrets.get(name)
        return found, await broker.named_secrets.open(found.id) if show_values or key is not None else {}

    found, values = with_broker(run, work)
    if key is not None:
        if key not in values:
            raise InvalidConfig(f"secret {found.name!r} has no key {key[:64]!r}; it has: {', '.join(found.fields)}")
        click.echo(values[key].reveal())
        return
    shown = {one: values[one].reveal() if one in values else "********" for one in found.fields}
    data = _data(found) | ({"values": shown} if values else {})
    about = [("name", found.name), ("id", found.id), ("updated", f"{found.updated_at:%Y-%m-%d %H:%M:%SZ}")]
    emit(output, data, Table(("", ""), about), Table(("KEY", "VALUE"), list(shown.items())))


@command("update", examples=("mooring secret update warehouse password=@password.txt",))
@click.argument("name", shell_complete=complete_secret)
@VALUES
@click.option("-d", "--remove-key", "removed", metavar="KEY", multiple=True, help="Remove this key; repeatable.")
@INTERACTIVE
@output_option
@click.pass_obj
def update(run: Run, name: str, values: Sequence[str], removed: Sequence[str], interactive: bool, output: str) -> None:
    """Set keys of a secret, or remove them; the others stay.

    What connectors have issued with the old values is served no more.
    """
    given: dict[str, Secret | None] = {**_read(run, values), **dict.fromkeys(removed)}
    if interactive:
        with guiding(run, "nothing was changed") as guide:
            given |= {key: value for key, (value, _) in _asked(guide, run, given).items()}
    if not given:
        raise InvalidConfig("nothing is changed; give key=value, --remove-key KEY, or -i to be asked")
    changed = with_broker(run, lambda broker: broker.named_secrets.update(name, given))
    say(f"Updated the secret {changed.name!r}.")
    emit(output, _data(changed), _table([changed]))


@command("delete", examples=("mooring secret delete warehouse",))
@click.argument("name", shell_complete=complete_secret)
@click.option("--force", is_flag=True, help="Delete it also if configurations refer to it.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(run: Run, name: str, force: bool, yes: bool) -> None:
    """Delete a secret; one that a configuration refers to stays, unless forced. Asks first on a terminal."""
    if not yes and sys.stdin.isatty() and not click.confirm(f"Delete the secret {name!r} for good?", err=True):
        say("Nothing was deleted.")
        raise click.exceptions.Exit(INTERRUPTED)
    gone = with_broker(run, lambda broker: broker.named_secrets.delete(name, force=force))
    say(f"Deleted the secret {gone.name!r}.")


def _read(run: Run, values: Sequence[str]) -> dict[str, Secret]:
    """What was given as key=value. What is malformed is not repeated: it may be a secret."""
    source, found = Source(), dict[str, Secret]()
    for number, given in enumerate(values, 1):
        key, equals, text = given.partition("=")
        if not equals:
            raise InvalidConfig(f"the {number}. value is malformed; write key=value, key=@path or key=-")
        if key in found:
            raise InvalidConfig(f"the key {key[:64]!r} was given twice", field=key)
        run.mask.learn(text)
        found[key] = Secret(source.read(_field(key), text))
        run.mask.learn(found[key].reveal())
    source.warn()
    return found


def _asked(guide: Guide, run: Run, had: Mapping[str, Any]) -> dict[str, tuple[Secret, str]]:
    """Keys, each with its value and the @FILE that it was read from, if any; an empty key ends it."""
    found: dict[str, tuple[Secret, str]] = {}

    from mooring.broker._secrets import check_key

    def new(key: str) -> str:
        if key in had or key in found:
            raise InvalidConfig(f"the key {key!r} was given already")
        if key:
            check_key(key)
        return key

    def value(key: str, text: str) -> tuple[Secret, str]:
        if text == "-":
            raise InvalidConfig("type the value itself, or @FILE")
        read = Source().read(_field(key), text)
        run.mask.learn(read)
        return Secret(read), text if is_path(text) else ""

    while key := guide.ask("key", new, about="empty to end", default=""):
        found[key] = guide.ask(f"value of {key}", partial(value, key), hidden=True)
    return found


def _field(key: str) -> ConfigField:
    return ConfigField(name=key, type="str", secret=True, required=True)


def _reference(document: Document) -> str:
    return f"{{{{{document.name}.{document.fields[0]}}}}}"


def _data(document: Document) -> dict[str, Any]:
    return {
        "id": document.id,
        "name": document.name,
        "keys": list(document.fields),
        "owner": document.owner,
        "created_at": document.created_at.isoformat(),
        "updated_at": document.updated_at.isoformat(),
        "version": document.version,
    }


def _table(documents: Sequence[Document]) -> Table:
    rows = [(short(one.id), one.name, list(one.fields), one.owner) for one in documents]
    return Table(("ID", "NAME", "KEYS", "OWNER"), rows)
