"""The commands: `mooring artifact-store ...`, the same for each component type, `mooring component` and `stack`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

import mooring as m
from mooring.cli import toolkit as t
from mooring_components.components import Component, Components, parts_of
from mooring_components.connecting import Choice, connect_guided
from mooring_components.flavors import Flavors

if TYPE_CHECKING:
    from mooring.broker import Document

EXAMPLES: Mapping[str | None, tuple[str, str]] = MappingProxyType({
    "artifact-store": ("models", "--flavor s3 --path s3://team-models"),
    "container-registry": ("images", "--flavor docker --uri registry.example.org/team"),
    "image-builder": ("builder", "--flavor kaniko --cluster eu-west-1/production"),
    "model-deployer": ("serving", "--flavor kserve --cluster eu-west-1/production"),
    "orchestrator": ("runs", "--flavor kubernetes --cluster eu-west-1/production"),
    "step-operator": ("steps", "--flavor kubernetes --cluster eu-west-1/production"),
    None: ("models", "--type artifact-store --flavor s3 --path s3://team-models"),
})  # fmt: skip
"""By component type, a name and how to register it, for the examples."""
COLUMNS = ("ID", "NAME", "TYPE", "FLAVOR", "CONNECTED TO", "RESOURCE", "SECRET")


def groups() -> list[click.Group]:
    """One group for each component type, and those for all."""
    flavors = Flavors()
    typed = [_group(kind, f"{title or kind}: register, connect, list.") for kind, title in flavors.types().items()]
    return [*typed, _group(None, "Components of all types."), _stacks()]


def as_code() -> list[click.Command]:
    """`plan`, `apply`, `export` and `schema`."""
    from mooring_components.code import apply, export, plan

    return [plan, apply, export]


def _group(kind: str | None, title: str) -> click.Group:
    group = t.Group(kind or "component", help=title)
    for make in (_register, _update, _connect, _disconnect, _list, _describe, _delete):
        group.add_command(make(kind))
    if kind is None:
        group.add_command(_flavors())
    return group


def _examples(kind: str | None, *texts: str) -> list[str]:
    """Examples for a component type, of texts with NAME and HOW."""
    name, how = EXAMPLES.get(kind, ("mine", "--flavor FLAVOR"))
    group = f"mooring {kind or 'component'}"
    return [f"{group} {one.replace('NAME', name).replace('HOW', how)}" for one in texts]


def _register(kind: str | None) -> click.Command:
    @t.command(
        "register", fields=True, examples=_examples(kind, "register NAME HOW", "register NAME HOW --connector prod")
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="NAME [--FIELD VALUE]...")
    @click.option(
        "-f",
        "--flavor",
        required=True,
        metavar="FLAVOR",
        shell_complete=_flavor_names(kind),
        help="Its kind; see: mooring component flavors.",
    )
    @click.option(
        "--connector", metavar="NAME", shell_complete=t.complete_connector, help="Connect it to this connector."
    )
    @click.option(
        "--resource-id",
        metavar="ID",
        shell_complete=t.complete_resource,
        help="Connect it to this, instead of what its fields say.",
    )
    @click.option(
        "--authentication-secret",
        "secret",
        metavar="NAME",
        shell_complete=t.complete_secret,
        help="Take this secret instead of a connector.",
    )
    @click.option("-l", "--label", "labels", metavar="KEY=VALUE", multiple=True, help="Repeatable.")
    @t.output_option
    @click.pass_context
    def register(
        ctx: click.Context,
        /,
        arguments: Sequence[str],
        flavor: str,
        connector: str | None,
        resource_id: str | None,
        secret: str | None,
        labels: Sequence[str],
        output: str,
        type_: str | None = None,
    ) -> None:
        """Register a component. The flavor's fields are options too, such as --path s3://bucket.

        With --connector, it is connected at once; if that fails, nothing is registered.
        """
        run, type = ctx.obj, kind or type_
        if type is None:
            raise m.InvalidConfig("name the component type with --type")
        found = Flavors().find(type, flavor)
        options = [option for param in ctx.command.params for option in param.opts]
        about = f"mooring component flavors {type} {flavor}"
        name, config = t.fields(run, arguments, found.config, options, about=about)

        async def work(broker: m.Broker) -> Row:
            components = Components(broker)
            made = await components.register(
                name, type=type, flavor=flavor, config=config, connector=connector, resource_id=resource_id,
                secret=secret, labels=t.labels(labels),
            )  # fmt: skip
            return await _row(components, made)

        row = t.with_broker(run, work)
        made, to = row.component, row.connector
        t.say(f"Registered the {made.type} {made.name!r}" + (f", connected to {to!r}." if to else "."))
        if not to and not made.secret and found.resource_type:
            t.say(f"To connect it: mooring {made.type} connect {made.name}")
        t.emit(output, _data(row), _table([row]))

    if kind is None:
        option = click.option(
            "-t", "--type", "type_", metavar="TYPE", shell_complete=_type_names, help="The component type."
        )
        return option(register)
    return register


def _update(kind: str | None) -> click.Command:
    @t.command("update", fields=True, examples=_examples(kind, "update NAME --label team=data"))
    @click.argument(
        "arguments",
        nargs=-1,
        type=click.UNPROCESSED,
        metavar="NAME [--FIELD VALUE]...",
        shell_complete=_names(kind),
    )
    @click.option("--remove", metavar="FIELD", multiple=True, help="Remove an optional field; repeatable.")
    @click.option(
        "-l", "--label", "labels", metavar="KEY=VALUE", multiple=True, help="All its labels, anew. Repeatable."
    )
    @click.option(
        "--authentication-secret",
        "secret",
        metavar="NAME",
        shell_complete=t.complete_secret,
        help="Take this secret instead of a connector.",
    )
    @t.output_option
    @click.pass_context
    def update(
        ctx: click.Context,
        /,
        arguments: Sequence[str],
        remove: Sequence[str],
        labels: Sequence[str],
        secret: str | None,
        output: str,
    ) -> None:
        """Change a component; what is not named stays. A connected one is connected anew, or not changed."""
        run = ctx.obj
        name, *_ = arguments or ("--",)
        if name.startswith("-"):
            raise m.InvalidConfig(f"write the NAME before its fields: mooring {kind or 'component'} update NAME ...")
        before = t.with_broker(run, lambda broker: Components(broker).get(name, kind), alone=True)
        options = [option for param in ctx.command.params for option in param.opts]
        about = f"mooring component flavors {before.type} {before.flavor}"
        flavor = Flavors().find(before.type, before.flavor)
        _, config = t.fields(run, arguments, flavor.config, options, about=about, whole=False)
        known = [one.name for one in m.types.fields_of(flavor.config)]
        for field in (one.replace("-", "_") for one in remove):
            if field not in known:
                raise m.InvalidConfig(f"there is no field {field!r}; {m.errors.suggest(field, known)}", field=field)
            config[field] = None
        if not config and not labels and secret is None:
            raise m.InvalidConfig("there is nothing to change; name a field or an option")

        async def work(broker: m.Broker) -> Row:
            components = Components(broker)
            made = await components.configure(
                before.id, config, labels=t.labels(labels) if labels else None, secret=secret
            )
            return await _row(components, made)

        row = t.with_broker(run, work)
        t.say(f"Updated the {row.component.type} {row.component.name!r}.")
        t.emit(output, _data(row), _table([row]))

    return update


def _connect(kind: str | None) -> click.Command:
    @t.command("connect", examples=_examples(kind, "connect NAME", "connect NAME --connector prod", "connect -i"))
    @click.argument("component", required=False, metavar="[NAME]", shell_complete=_names(kind))
    @click.option("-c", "--connector", metavar="NAME", shell_complete=t.complete_connector, help="The connector.")
    @click.option(
        "--resource-id",
        metavar="ID",
        shell_complete=t.complete_resource,
        help="This resource, instead of what the component's fields say.",
    )
    @click.option("-i", "--interactive", is_flag=True, help="Ask for the component, the connector and the resource.")
    @t.output_option
    @click.pass_context
    def connect(
        ctx: click.Context,
        /,
        component: str | None,
        connector: str | None,
        resource_id: str | None,
        interactive: bool,
        output: str,
    ) -> None:
        """Connect a component to what it needs, by a connector that reaches it.

        Without --connector, each connector that may fit is asked; if one alone does, it is taken.

        With -i, it asks for what is not given: the component, the connector, the resource; and prints the command that
        does the same. Ctrl-C changes nothing.
        """
        connected: list[Row] = []

        def work(name: str, connector: str | None, resource_id: str | None) -> None:
            async def connect(broker: m.Broker) -> Row:
                components = Components(broker)
                found = await components.get(name, kind)
                made, _ = await components.connect(found.id, connector, resource_id=resource_id)
                return await _row(components, made)

            connected.append(t.with_broker(ctx.obj, connect))

        if interactive:
            words = connect_guided(ctx, kind, Choice(component, connector, resource_id), work)
        elif component is None:
            raise click.UsageError("name the component, or give -i to be asked")
        else:
            work(component, connector, resource_id)
        (row,) = connected
        made, to = row.component, row.connector
        t.say(f"Connected the {made.type} {made.name!r} to {row.resource or 'what it reaches'} by {to!r}.")
        t.emit(output, _data(row), _table([row]))
        if interactive:
            t.show_command(words)

    return connect


def _disconnect(kind: str | None) -> click.Command:
    @t.command("disconnect", examples=_examples(kind, "disconnect NAME"))
    @click.argument("name", shell_complete=_names(kind))
    @click.pass_obj
    def disconnect(run: Any, name: str) -> None:
        """Take a component's connection away, or its secret; the component stays."""

        async def work(broker: m.Broker) -> Component:
            components = Components(broker)
            return await components.disconnect((await components.get(name, kind)).id)

        made = t.with_broker(run, work)
        t.say(f"Disconnected the {made.type} {made.name!r}.")

    return disconnect


def _list(kind: str | None) -> click.Command:
    @t.command("list", examples=_examples(kind, "list", "list -o json"))
    @t.output_option
    @click.pass_obj
    def list_(run: Any, output: str) -> None:
        """List components, and what they are connected to."""

        async def work(broker: m.Broker) -> tuple[list[Row], Sequence[m.MooringError]]:
            names = {one.id: one.name for one in await broker.list()}
            components = Components(broker)
            found = await components.list(kind)
            rows = [Row(one, names.get(one.connector_id or ""), components.resource(one)) for one in found]
            return rows, await components.damaged()

        found, damaged = t.with_broker(run, work, alone=True)
        t.emit(output, [_data(one) for one in found], _table(found))
        t.fail(run, damaged)
        if not found:
            t.say(f"There is no {kind or 'component'}; to make one: mooring {kind or 'artifact-store'} register")

    return list_


def _describe(kind: str | None) -> click.Command:
    @t.command("describe", examples=_examples(kind, "describe NAME"))
    @click.argument("name", shell_complete=_names(kind))
    @t.output_option
    @click.pass_obj
    def describe(run: Any, name: str, output: str) -> None:
        """Show a component."""

        async def work(broker: m.Broker) -> Row:
            components = Components(broker)
            return await _row(components, await components.get(name, kind))

        row = t.with_broker(run, work, alone=True)
        one = row.component
        rows = [("name", one.name), ("id", one.id), ("type", one.type), ("flavor", one.flavor)]
        rows += [(f"  {field}", str(value)) for field, value in one.config.items()]
        rows += [("connected to", row.to), ("resource", row.resource or "-"), ("secret", one.secret or "-")]
        t.emit(output, _data(row), t.Table(("", ""), rows))

    return describe


def _delete(kind: str | None) -> click.Command:
    @t.command("delete", examples=_examples(kind, "delete NAME"))
    @click.argument("name", shell_complete=_names(kind))
    @click.option("--force", is_flag=True, help="Delete it also if a stack has it, and from there.")
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @click.pass_obj
    def delete(run: Any, name: str, force: bool, yes: bool) -> None:
        """Delete a component. Asks first on a terminal."""
        t.confirm(f"Delete the component {name!r}?", yes=yes)

        gone = t.with_broker(run, lambda broker: Components(broker).delete(name, type=kind, force=force))
        t.say(f"Deleted the {gone.body.get('type') or 'component'} {gone.name!r}.")

    return delete


def _flavors() -> click.Command:
    @t.command("flavors", examples=("mooring component flavors", "mooring component flavors artifact-store s3"))
    @click.argument("type", required=False, shell_complete=_type_names)
    @click.argument("flavor", required=False, shell_complete=_flavor_names(None))
    @t.output_option
    def flavors(type: str | None, flavor: str | None, output: str) -> None:
        """List the flavors of component types, or the fields of one."""
        known = Flavors()
        if type is not None:
            known.check_type(type)
        if type is not None and flavor is not None:
            fields = m.types.fields_of(known.find(type, flavor).config)
            data = [{"name": one.name, "type": one.type, "required": one.required, "description": one.description}
                    for one in fields]  # fmt: skip
            rows = [(one.name, one.type, "yes" if one.required else "", one.description) for one in fields]
            t.emit(output, data, t.Table(("FIELD", "TYPE", "REQUIRED", "DESCRIPTION"), rows))
            return
        found = [(kind, one) for kind in known.types() if type in (None, kind) for one in known.of(kind)]
        data = [{"type": kind, "flavor": one.name, "title": one.title, "resource_type": one.resource_type}
                for kind, one in found]  # fmt: skip
        rows = [(kind, one.name, one.title, one.resource_type or "-") for kind, one in found]
        t.emit(output, data, t.Table(("TYPE", "FLAVOR", "TITLE", "NEEDS"), rows))

    return flavors


def _stacks() -> click.Group:
    group = t.Group("stack", help="Stacks: named sets of components, one of each type, which open all at once.")

    @t.command("register", examples=("mooring stack register prod models runs",))
    @click.argument("name")
    @click.argument("components", nargs=-1, required=True, shell_complete=_names(None))
    @t.output_option
    @click.pass_obj
    def register(run: Any, name: str, components: Sequence[str], output: str) -> None:
        """Name a set of components."""
        made = t.with_broker(run, lambda broker: Components(broker).add_stack(name, components))
        t.say(f"Registered the stack {made.name!r}.")
        t.emit(output, _stack_data(made), t.Table(("ID", "NAME"), [(t.short(made.id), made.name)]))

    @t.command("update", examples=("mooring stack update prod models runs images",))
    @click.argument("name", shell_complete=_stack_names)
    @click.argument("components", nargs=-1, required=True, shell_complete=_names(None))
    @t.output_option
    @click.pass_obj
    def update(run: Any, name: str, components: Sequence[str], output: str) -> None:
        """Have a stack be of these components, and no others."""
        made = t.with_broker(run, lambda broker: Components(broker).put_stack(name, components))
        t.say(f"Updated the stack {made.name!r}.")
        t.emit(output, _stack_data(made), t.Table(("ID", "NAME"), [(t.short(made.id), made.name)]))

    @t.command("list", examples=("mooring stack list",))
    @t.output_option
    @click.pass_obj
    def list_(run: Any, output: str) -> None:
        """List stacks."""

        async def work(broker: m.Broker) -> tuple[list[tuple[Document, list[str]]], Sequence[m.MooringError]]:
            components = Components(broker)
            names = {one.id: one.name for one in await components.list()}
            stacks = [(one, [names.get(part, part) for part in parts_of(one)]) for one in await components.stacks()]
            return stacks, await components.damaged()

        found, damaged = t.with_broker(run, work, alone=True)
        rows = [(t.short(one.id), one.name, parts) for one, parts in found]
        t.emit(output, [_stack_data(one) for one, _ in found], t.Table(("ID", "NAME", "COMPONENTS"), rows))
        t.fail(run, damaged)

    @t.command("describe", examples=("mooring stack describe prod",))
    @click.argument("name", shell_complete=_stack_names)
    @t.output_option
    @click.pass_obj
    def describe(run: Any, name: str, output: str) -> None:
        """Show a stack and its components."""

        async def work(broker: m.Broker) -> tuple[Document, list[Row]]:
            components = Components(broker)
            found, parts = await components.stack(name)
            return found, [await _row(components, one) for one in parts]

        found, parts = t.with_broker(run, work, alone=True)
        data = _stack_data(found) | {"components": [_data(one) for one in parts]}
        t.emit(output, data, t.Title(found.name), _table(parts))

    @t.command("delete", examples=("mooring stack delete prod",))
    @click.argument("name", shell_complete=_stack_names)
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @click.pass_obj
    def delete(run: Any, name: str, yes: bool) -> None:
        """Delete a stack; its components stay."""
        t.confirm(f"Delete the stack {name!r}?", yes=yes)
        gone = t.with_broker(run, lambda broker: Components(broker).delete_stack(name))
        t.say(f"Deleted the stack {gone.name!r}.")

    for command in (register, update, list_, describe, delete):
        group.add_command(command)
    return group


def _type_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [one for one in Flavors().types() if one.startswith(incomplete)]


def _flavor_names(kind: str | None) -> Callable[..., list[str]]:
    """Completes the flavors of a component type: this one, or that on the line."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        known = Flavors()
        type = kind or ctx.params.get("type") or ctx.params.get("type_")
        types = [type] if type in known.types() else known.types()
        return sorted({one.name for each in types for one in known.of(each) if one.name.startswith(incomplete)})

    return complete


def _stack_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    async def names(broker: m.Broker) -> list[str]:
        return [one.name for one in await Components(broker).stacks()]

    return t.complete(names, incomplete)


def _names(kind: str | None) -> Callable[..., list[str]]:
    """Completes the names of components."""

    async def names(broker: m.Broker) -> list[str]:
        return [one.name for one in await Components(broker).list(kind)]

    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        return t.complete(names, incomplete)

    return complete


class Row(NamedTuple):
    """A component as it is shown."""

    component: Component
    connector: str | None
    """The name of its connector; None if it has none, or that was deleted."""
    resource: str | None

    @property
    def to(self) -> str:
        """What it is connected to, for people."""
        return self.connector or ("(deleted)" if self.component.connector_id else "-")


async def _row(components: Components, component: Component) -> Row:
    try:
        connector = (await components.connector(component)).name if component.connector_id else None
    except m.InvalidConfig:
        connector = None
    return Row(component, connector, components.resource(component))


def _data(row: Row) -> dict[str, Any]:
    component = row.component
    return {
        "id": component.id,
        "name": component.name,
        "type": component.type,
        "flavor": component.flavor,
        "config": dict(component.config),
        "connector": row.connector,
        "connector_id": component.connector_id,
        "resource_id": row.resource,
        "secret": component.secret,
        "labels": dict(component.labels),
    }


def _stack_data(stack: Document) -> dict[str, Any]:
    return {"id": stack.id, "name": stack.name, "components": list(parts_of(stack))}


def _table(rows: Sequence[Row]) -> t.Table:
    return t.Table(
        COLUMNS,
        [
            (t.short(one.id), one.name, one.type, one.flavor, row.to, row.resource or "-", one.secret or "-")
            for row in rows
            for one in [row.component]
        ],
    )
