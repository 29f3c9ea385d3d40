"""Components: registered, connected to what they need, and found again. They are documents of the broker's store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import anyio
import msgspec

import mooring as m
from mooring.broker import Document, Documents, Failed, Found
from mooring.references import references
from mooring_components.flavors import Flavor, Flavors

COMPONENT = "component"
STACK = "stack"
AT_ONCE = 50
"""How many connectors are asked at once whether they reach a resource."""
SHOWN = 10


class Component(m.types.Struct, kw_only=True):
    """A registered component."""

    id: str
    name: str
    type: str
    flavor: str
    config: Mapping[str, Any]
    connector_id: str | None = None
    resource_id: str | None = None
    """What was named for it to be connected to; None for what its configuration says, or whatever is reached."""
    secret: str | None = None
    """The named secret that it takes instead of a connector."""
    labels: Mapping[str, str] = {}
    version: int = 1


class Candidate(m.types.Struct, kw_only=True):
    """A connector that may do, and what came of asking it."""

    connector: m.types.Connector
    error: m.MooringError | None = None
    """Why it does not reach the resource."""


class Components:
    """The components and stacks in a broker's store.

    Names are unique among all components. Wherever a name is taken, so is an id, or the beginning of one.
    """

    def __init__(self, broker: m.Broker, flavors: Flavors | None = None) -> None:
        self._broker = broker
        self.flavors = flavors or Flavors()

    @property
    def _documents(self) -> Documents:
        return self._broker.documents(COMPONENT)

    async def register(
        self,
        name: str,
        *,
        type: str,
        flavor: str,
        config: Mapping[str, Any] | None = None,
        connector: str | None = None,
        resource_id: str | None = None,
        secret: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Component:
        """Store a component; with a connector, only if that reaches what it needs.

        Raises:
            InvalidConfig: the type, flavor or configuration is none.
            NameTaken: there is a component of that name.
            VendorError, UnsupportedResource: the connector does not reach it, and nothing was stored.
        """
        made = await self.draft(
            name, type=type, flavor=flavor, config=config, connector=connector, resource_id=resource_id,
            secret=secret, labels=labels,
        )  # fmt: skip
        if made.connector_id is not None:
            if name in [one.name for one in await self.list()]:
                raise m.NameTaken(f"a component named {name!r} exists already; choose another name")
            made = await self._reach(made)
        return _component(await self._documents.add(name, _body(made), labels=made.labels))

    async def draft(
        self,
        name: str,
        *,
        type: str,
        flavor: str,
        config: Mapping[str, Any] | None = None,
        connector: str | None = None,
        resource_id: str | None = None,
        secret: str | None = None,
        labels: Mapping[str, str] | None = None,
        to_come: Collection[str] = (),
    ) -> Component:
        """A component as `register` would store it: checked as far as it can be without the vendor.

        The names `to_come` are of connectors that are not there yet; they stand for their ids.

        Raises:
            InvalidConfig, UnknownConnector, UnknownDocument: something is wrong.
        """
        self._documents.check(name, labels or {})
        kind = self.flavors.find(type, flavor)
        _, plain = await self._fields(kind, config or {})
        if connector is not None and secret is not None:
            raise m.InvalidConfig("a component is connected or takes a secret, not both; leave one out", field="secret")
        if connector is None and resource_id is not None:
            raise m.InvalidConfig("a resource is what a connector reaches; name the connector too", field="resource_id")
        return Component(
            id="",
            name=name,
            type=type,
            flavor=flavor,
            config=plain,
            connector_id=None if connector is None else await self._connector_id(kind, connector, to_come),
            resource_id=resource_id,
            secret=None if secret is None else await self.secret_for(kind, secret),
            labels=dict(labels or {}),
        )

    async def put(
        self,
        name: str,
        *,
        config: Mapping[str, Any],
        connector: str | None = None,
        resource_id: str | None = None,
        secret: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Component:
        """Have a component be just as given, in one change; what is not given, it has not. Its type and flavor stay.

        Raises:
            InvalidConfig: something is wrong.
            VendorError, UnsupportedResource: the connector does not reach it, and nothing was changed.
        """
        document = await self._documents.get(name)
        before = _component(document)
        made = await self.draft(
            before.name, type=before.type, flavor=before.flavor, config=config, connector=connector,
            resource_id=resource_id, secret=secret, labels=labels,
        )  # fmt: skip
        return await self._replace(document, self.settled(made, before))

    def settled(self, made: Component, before: Component) -> Component:
        """What a component becomes: where nothing says which resource it is, the one that it has stays."""
        if made.resource_id is None and made.connector_id == before.connector_id and self._says(made) is None:
            return msgspec.structs.replace(made, resource_id=before.resource_id)
        return made

    async def get(self, name: str, type: str | None = None) -> Component:
        """A component, of that type if one is given.

        Raises:
            UnknownDocument: there is none.
        """
        found = _component(await self._documents.get(name))
        _check_type(found.name, found.type, type)
        return found

    async def list(self, type: str | None = None) -> Sequence[Component]:
        """All components, by name."""
        found = (_component(one) for one in await self._documents.list())
        return [one for one in found if type in (None, one.type)]

    async def damaged(self) -> Sequence[m.errors.RecordDamaged]:
        """The errors of components and stacks whose records cannot be read, which the lists leave out."""
        return [*(await self._documents.list()).damaged, *(await self._stacks.list()).damaged]

    async def configure(
        self,
        name: str,
        config: Mapping[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        secret: str | None = None,
    ) -> Component:
        """Change fields of its configuration; a connected component is connected anew, or not changed.

        Args:
            name: the component.
            config: the fields to set; None removes one.
            labels: all its labels, anew; as they are, if left out.
            secret: a named secret, which it takes instead of a connector from now on.

        Raises:
            InvalidConfig: something is wrong.
            VendorError, UnsupportedResource: the connector does not reach it, and nothing was changed.
        """
        document = await self._documents.get(name)
        before = _component(document)
        flavor = self.flavors.find(before.type, before.flavor)
        values = {key: value for key, value in {**before.config, **config}.items() if value is not None}
        _, plain = await self._fields(flavor, values)
        made = msgspec.structs.replace(before, config=plain, labels=before.labels if labels is None else labels)
        if self._says(before) is None and self._says(made) is not None:  # the resource was for want of that
            made = msgspec.structs.replace(made, resource_id=None)
        if secret is not None:
            taken = await self.secret_for(flavor, secret)
            made = msgspec.structs.replace(made, connector_id=None, resource_id=None, secret=taken)
        return await self._replace(document, made)

    async def connect(
        self, name: str, connector: str | None = None, *, resource_id: str | None = None
    ) -> tuple[Component, Sequence[Candidate]]:
        """Connect a component to a connector that reaches what it needs; gives it, and what came of asking.

        Without a connector, the only one that fits is taken.

        Raises:
            InvalidConfig: several fit, or the flavor needs none.
            UnsupportedResource: none fits.
            VendorError: the connector does not reach it.
        """
        document = await self._documents.get(name)
        component = _component(document)
        asked: Sequence[Candidate] = ()
        if connector is None:
            asked = await self.candidates(component.id, resource_id=resource_id)
            connector = _only(component, [one for one in asked if one.error is None], asked).id
        flavor = self.flavors.find(component.type, component.flavor)
        found = await self._connector_id(flavor, connector)
        made = msgspec.structs.replace(component, connector_id=found, resource_id=resource_id, secret=None)
        made = await self._reach(made)
        return _component(await self._documents.replace(document, body=_body(made))), asked

    async def candidates(self, name: str, *, resource_id: str | None = None) -> Sequence[Candidate]:
        """The connectors that may reach what a component needs; each is asked whether it does."""
        component = await self.get(name)
        kind, wanted = await self.need(component.id)
        wanted = resource_id or wanted
        types = [one.name for one in self._broker.types() if kind in [each.name for each in one.resource_types]]
        if not types:
            raise m.UnsupportedResource(
                f"no installed connector type reaches a {kind}; install the plugin of its vendor"
            )
        found = await self._broker.list(resource_type=kind, resource_id=wanted)
        limiter = anyio.CapacityLimiter(AT_ONCE)
        asked: dict[str, Candidate] = {}

        async def ask(connector: m.types.Connector) -> None:
            async with limiter:
                try:
                    await self._broker.verify(connector.id, resource_type=kind, resource_id=wanted)
                except m.MooringError as error:
                    asked[connector.id] = Candidate(connector=connector, error=error)
                else:
                    asked[connector.id] = Candidate(connector=connector)

        async with anyio.create_task_group() as tasks:
            for connector in found:
                tasks.start_soon(ask, connector)
        return [asked[one.id] for one in found]

    async def need(self, name: str) -> tuple[str, str | None]:
        """The resource type that a component needs, and the id that its configuration says, if it says one.

        Raises:
            InvalidConfig: its flavor needs no connector.
        """
        component = await self.get(name)
        flavor, config = await self.built(component)
        return _needed(flavor), flavor.resource_id(config)

    async def built(self, component: Component) -> tuple[Flavor, m.Config]:
        """A component's flavor, and its configuration with what that refers to."""
        flavor = self.flavors.find(component.type, component.flavor)
        return flavor, (await self._fields(flavor, component.config))[0]

    async def connector(self, component: Component) -> m.types.Connector:
        """The connector of a component that is connected.

        Raises:
            InvalidConfig: it was deleted.
        """
        try:
            return await self._broker.get(component.connector_id or "")
        except m.UnknownConnector:
            pass
        raise m.InvalidConfig(
            f"the connector of component {component.name!r} was deleted; connect it to another: "
            f"mooring {component.type} connect {component.name}"
        )

    def resource(self, component: Component) -> str | None:
        """What a component is connected to, references as they are written; None: not connected, or what is reached."""
        if component.connector_id is None or component.resource_id is not None:
            return component.resource_id
        return self._says(component)

    def _says(self, component: Component) -> str | None:
        """The resource that a configuration says."""
        try:
            flavor = self.flavors.find(component.type, component.flavor)
            return flavor.resource_id(self.flavors.build(flavor, component.config))
        except m.MooringError:
            return None

    async def disconnect(self, name: str) -> Component:
        """Take a component's connection away, or its secret; its configuration stays."""
        document = await self._documents.get(name)
        body = dict(document.body) | {"connector_id": None, "resource_id": None, "secret": None}
        return _component(await self._documents.replace(document, body=body))

    async def delete(self, name: str, *, type: str | None = None, force: bool = False) -> Document:
        """Remove a component, also one whose record makes no sense; forced, also from the stacks that have it.

        Raises:
            InUse: a stack has it, and it is not forced.
            UnknownDocument: there is none of that name, or that type.
        """
        document = await self._documents.get(name)
        _check_type(document.name, document.body.get("type"), type)
        stacks = [one for one in await self.stacks() if document.id in parts_of(one)]
        if stacks and not force:
            names = ", ".join(one.name for one in stacks[:SHOWN])
            raise m.InUse(
                f"component {document.name!r} is in use by stack {names}; take it out of there first (mooring stack "
                "update), or delete it from there too with --force"
            )
        for stack in stacks:
            left = [one for one in parts_of(stack) if one != document.id]
            await self._stacks.replace(stack, body={"components": left})
        await self._documents.delete(document)
        return document

    # -- stacks ---------------------------------------------------------------------------------------------------

    @property
    def _stacks(self) -> Documents:
        return self._broker.documents(STACK)

    async def add_stack(self, name: str, components: Sequence[str]) -> Document:
        """A named set of components, at most one of each type.

        Raises:
            InvalidConfig: two are of one type, or there are none.
            NameTaken: there is a stack of that name.
        """
        return await self._stacks.add(name, {"components": await self._parts(components)})

    async def put_stack(self, name: str, components: Sequence[str]) -> Document:
        """Have a stack be of just these components.

        Raises:
            InvalidConfig: two are of one type, or there are none.
            UnknownDocument: there is no such stack, or component.
        """
        found = await self._stacks.get(name)
        return await self._stacks.replace(found, body={"components": await self._parts(components)})

    async def _parts(self, components: Sequence[str]) -> Sequence[str]:
        """Their ids."""
        found = [await self.get(one) for one in components]
        check_stack([one.type for one in found])
        return [one.id for one in found]

    async def stacks(self) -> Sequence[Document]:
        """All stacks, by name; see `parts_of`."""
        return await self._stacks.list()

    async def stack(self, name: str) -> tuple[Document, Sequence[Component]]:
        """A stack, and its components by type."""
        found = await self._stacks.get(name)
        components = [await self.get(one) for one in parts_of(found)]
        return found, sorted(components, key=lambda one: one.type)

    async def delete_stack(self, name: str) -> Document:
        """Remove a stack; its components stay."""
        found = await self._stacks.get(name)
        await self._stacks.delete(found)
        return found

    # -- who uses what --------------------------------------------------------------------------------------------

    async def users(self, kind: str, id: str) -> Sequence[str]:
        """The components that use a connector or a secret: asked by the broker before it deletes one."""
        if kind == "connector":
            return [f"{one.type} {one.name}" for one in await self.list() if one.connector_id == id]
        if kind == "secret":
            name = (await self._broker.named_secrets.get(id)).name
            users = [one for one in await self.list() if one.secret == name or name in references(one.config)]
            return [f"{one.type} {one.name}" for one in users]
        return []

    # -- steps ----------------------------------------------------------------------------------------------------

    async def _fields(self, flavor: Flavor, values: Mapping[str, Any]) -> tuple[m.Config, dict[str, Any]]:
        """A configuration with what it refers to, and what is stored of it: references as they are written."""
        built = self.flavors.build(flavor, await self._broker.resolve(values))
        plain = m.types.split_config(built)[0]
        return built, plain | {name: value for name, value in values.items() if references(value)}

    async def _connector_id(self, flavor: Flavor, connector: str, to_come: Collection[str] = ()) -> str:
        _needed(flavor)
        try:
            found = await self._broker.get(connector)
        except m.UnknownConnector:
            if connector not in to_come:
                raise
            return connector
        return found.id

    async def secret_for(self, flavor: Flavor, secret: str) -> str:
        """The name of a secret that serves a flavor.

        Raises:
            InvalidConfig: it lacks a key, or none serves.
            UnknownDocument: there is no such secret.
        """
        if not flavor.secret_keys:
            raise m.InvalidConfig(f"a {flavor.name} component takes no secret; connect it instead", field="secret")
        found = await self._broker.named_secrets.get(secret)
        if lacking := [key for key in flavor.secret_keys if key not in found.fields]:
            raise m.InvalidConfig(
                f"the secret {found.name!r} lacks {', '.join(lacking)}, which a {flavor.name} component needs",
                field="secret",
            )
        return found.name

    async def _reach(self, component: Component) -> Component:
        """Have the vendor say that the connector reaches what the component needs; the component, with what that is."""
        flavor, config = await self.built(component)
        connector, kind = await self.connector(component), _needed(flavor)
        wanted = component.resource_id or flavor.resource_id(config)
        await self._broker.verify(connector.id, resource_type=kind, resource_id=wanted)
        route = self._broker.registry.route(connector.type)
        if wanted is None and connector.resource_id is None and route.resource_type(kind).instances:
            return msgspec.structs.replace(component, resource_id=await self._only_one(connector, kind))
        return component

    async def _only_one(self, connector: m.types.Connector, kind: str) -> str:
        """The one resource that a connector reaches: there must be no other, for nothing says which it is to be."""
        found: set[str] = set()
        async with self._broker.discover(connectors=[connector.name], resource_type=kind) as replies:
            async for reply in replies:
                if isinstance(reply, Failed):
                    raise reply.error
                if isinstance(reply, Found):
                    found.add(reply.resource.id)
        if not found:
            raise m.UnsupportedResource(f"connector {connector.name!r} reaches no {kind}")
        if len(found) > 1:
            some = ", ".join([*sorted(found)[:SHOWN], *(["..."] if len(found) > SHOWN else [])])
            raise m.InvalidConfig(
                f"connector {connector.name!r} reaches several resources: {some}; name one with --resource-id",
                field="resource_id",
            )
        return found.pop()

    async def _replace(self, document: Document, made: Component) -> Component:
        """Store a changed component; its connection is verified if it is another one, or about something else."""
        before = _component(document)
        if made.connector_id is not None and _connection(made) != _connection(before):
            made = await self._reach(made)
        return _component(await self._documents.replace(document, body=_body(made), labels=made.labels))


def parts_of(stack: Document) -> Sequence[str]:
    """The ids of a stack's components.

    Raises:
        StoreCorrupt: its record makes no sense.
    """
    found = stack.body.get("components")
    if isinstance(found, list) and all(isinstance(one, str) for one in found):
        return found
    raise m.errors.StoreCorrupt(f"the record of stack {stack.name!r} cannot be read; delete and register it again")


def _check_type(name: str, found: object, wanted: str | None) -> None:
    if wanted not in (None, found):
        raise m.UnknownDocument(f"component {name!r} is no {wanted} but of the type {found}")


def check_stack(types: Sequence[str]) -> None:
    """Refuse what no stack can be made of.

    Args:
        types: of its components.

    Raises:
        InvalidConfig: two are of one type, or there are none.
    """
    if not types:
        raise m.InvalidConfig("a stack has at least one component; name them", field="components")
    if twice := next((one for one in types if types.count(one) > 1), None):
        raise m.InvalidConfig(f"a stack has one {twice}; two were named", field="components")


def _needed(flavor: Flavor) -> str:
    """The resource type that a flavor needs."""
    if flavor.resource_type is None:
        raise m.InvalidConfig(f"a {flavor.name} component needs no connector")
    return flavor.resource_type


def _connection(component: Component) -> tuple[object, ...]:
    return component.connector_id, component.resource_id, component.config


def _body(component: Component) -> dict[str, Any]:
    """What is stored of a component, besides its name and labels."""
    return {
        "type": component.type,
        "flavor": component.flavor,
        "config": component.config,
        "connector_id": component.connector_id,
        "resource_id": component.resource_id,
        "secret": component.secret,
    }


def _only(component: Component, fit: Sequence[Candidate], asked: Sequence[Candidate]) -> m.types.Connector:
    if len(fit) == 1:
        return fit[0].connector
    if fit:
        names = ", ".join(one.connector.name for one in fit[:SHOWN])
        raise m.InvalidConfig(
            f"several connectors reach what {component.name!r} needs: {names}; name one with --connector",
            field="connector",
        )
    reasons = "; ".join(f"{one.connector.name}: {one.error.message}" for one in asked[:SHOWN] if one.error)
    raise m.UnsupportedResource(
        f"no connector reaches what {component.name!r} needs" + (f" ({reasons})" if reasons else "")
        + "; register one: mooring connector register"
    )  # fmt: skip


def _component(document: Document) -> Component:
    try:
        return msgspec.convert(
            {"id": document.id, "name": document.name, "labels": document.labels, "version": document.version}
            | dict(document.body),
            Component,
        )
    except msgspec.ValidationError:
        pass
    raise m.errors.StoreCorrupt(
        f"the record of component {document.name!r} cannot be read; delete and register it again"
    )
