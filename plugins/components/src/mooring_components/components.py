"""Components: registered, connected to what they need, and found again. They are documents of the broker's store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import msgspec

import mooring as m
from mooring.broker import Document, Documents
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
    """What it is connected to, as it was named; None for whatever the connector reaches."""
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
        kind = self.flavors.find(self._type(type), flavor)
        built = m.build_config(kind.config, dict(config or {}))
        if connector is not None and secret is not None:
            raise m.InvalidConfig("a component is connected or takes a secret, not both; leave one out", field="secret")
        if secret is not None:
            await self._check_secret(kind, secret)
        body = {"type": type, "flavor": flavor, "config": m.types.split_config(built)[0], "secret": secret}
        if connector is not None:
            if name in [one.name for one in await self.list()]:
                raise m.NameTaken(f"a component named {name!r} exists already; choose another name")
            body |= await self._connection(kind, built, connector, resource_id)
        return _component(await self._documents.add(name, body, labels=labels))

    async def get(self, name: str, type: str | None = None) -> Component:
        """A component, of that type if one is given.

        Raises:
            UnknownDocument: there is none.
        """
        found = _component(await self._documents.get(name))
        if type not in (None, found.type):
            raise m.UnknownDocument(f"component {found.name!r} is no {type} but of the type {found.type}")
        return found

    async def list(self, type: str | None = None) -> Sequence[Component]:
        """All components, by name."""
        found = (_component(one) for one in await self._documents.list())
        return [one for one in found if type in (None, one.type)]

    async def configure(
        self, name: str, config: Mapping[str, Any], *, labels: Mapping[str, str] | None = None
    ) -> Component:
        """Change fields of its configuration (None removes one); a connected one is connected anew, or not changed."""
        document = await self._documents.get(name)
        before = _component(document)
        flavor = self.flavors.find(before.type, before.flavor)
        values = {key: value for key, value in {**before.config, **config}.items() if value is not None}
        built = m.build_config(flavor.config, values)
        body = dict(document.body) | {"config": m.types.split_config(built)[0]}
        if before.connector_id is not None and body["config"] != document.body["config"]:
            usual = flavor.resource_id(self._built(before)[1])
            named = before.resource_id if before.resource_id != usual else None
            body |= await self._connection(flavor, built, before.connector_id, named)
        return _component(await self._documents.replace(document, body=body, labels=labels))

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
        flavor, config = self._built(component)
        asked: Sequence[Candidate] = ()
        if connector is None:
            asked = await self.candidates(component.id, resource_id=resource_id)
            connector = _only(component, [one for one in asked if one.error is None], asked).id
        connection = await self._connection(flavor, config, connector, resource_id)
        body = dict(document.body) | connection | {"secret": None}
        return _component(await self._documents.replace(document, body=body)), asked

    async def candidates(self, name: str, *, resource_id: str | None = None) -> Sequence[Candidate]:
        """The connectors that may reach what a component needs; each is asked whether it does."""
        component = await self.get(name)
        flavor, config = self._built(component)
        kind, wanted = _need(flavor, config, resource_id)
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
        return _need(*self._built(await self.get(name)), None)

    async def take_secret(self, name: str, secret: str) -> Component:
        """Have a component take a named secret instead of a connector."""
        document = await self._documents.get(name)
        component = _component(document)
        await self._check_secret(self.flavors.find(component.type, component.flavor), secret)
        body = dict(document.body) | {"connector_id": None, "resource_id": None, "secret": secret}
        return _component(await self._documents.replace(document, body=body))

    async def disconnect(self, name: str) -> Component:
        """Take a component's connection away; its configuration stays."""
        document = await self._documents.get(name)
        body = dict(document.body) | {"connector_id": None, "resource_id": None}
        return _component(await self._documents.replace(document, body=body))

    async def delete(self, name: str, *, force: bool = False) -> Component:
        """Remove a component.

        Raises:
            InUse: a stack has it, and it is not forced.
        """
        document = await self._documents.get(name)
        stacks = [one.name for one in await self.stacks() if document.id in one.body["components"]]
        if stacks and not force:
            raise m.InUse(
                f"component {document.name!r} is in use by stack {', '.join(stacks[:SHOWN])}; change that first, or "
                "delete it all the same with --force (force=True)"
            )
        await self._documents.delete(document)
        return _component(document)

    # -- stacks ---------------------------------------------------------------------------------------------------

    async def add_stack(self, name: str, components: Sequence[str]) -> Document:
        """A named set of components, at most one of each type.

        Raises:
            InvalidConfig: two are of one type, or there are none.
        """
        found = [await self.get(one) for one in components]
        if not found:
            raise m.InvalidConfig("a stack has at least one component; name them", field="components")
        types = [one.type for one in found]
        if twice := next((one for one in types if types.count(one) > 1), None):
            raise m.InvalidConfig(f"a stack has one {twice}; two were named", field="components")
        return await self._broker.documents(STACK).add(name, {"components": [one.id for one in found]})

    async def stacks(self) -> Sequence[Document]:
        """All stacks, by name; `components` in the body are ids."""
        return await self._broker.documents(STACK).list()

    async def stack(self, name: str) -> tuple[Document, Sequence[Component]]:
        """A stack, and its components by type."""
        found = await self._broker.documents(STACK).get(name)
        components = [await self.get(one) for one in found.body["components"]]
        return found, sorted(components, key=lambda one: one.type)

    async def delete_stack(self, name: str) -> Document:
        """Remove a stack; its components stay."""
        found = await self._broker.documents(STACK).get(name)
        await self._broker.documents(STACK).delete(found)
        return found

    # -- who uses what --------------------------------------------------------------------------------------------

    async def users(self, kind: str, id: str) -> Sequence[str]:
        """The components that use a connector or a secret: asked by the broker before it deletes one."""
        if kind == "connector":
            return [f"{one.type} {one.name}" for one in await self.list() if one.connector_id == id]
        if kind == "secret":
            name = (await self._broker.named_secrets.get(id)).name
            return [f"{one.type} {one.name}" for one in await self.list() if one.secret == name]
        return []

    # -- steps ----------------------------------------------------------------------------------------------------

    def _type(self, type: str) -> str:
        known = self.flavors.types()
        if type not in known:
            raise m.InvalidConfig(f"there is no component type {type!r}; {m.errors.suggest(type, known)}", field="type")
        return type

    def _built(self, component: Component) -> tuple[Flavor, m.Config]:
        flavor = self.flavors.find(component.type, component.flavor)
        return flavor, m.build_config(flavor.config, component.config)

    async def _check_secret(self, flavor: Flavor, secret: str) -> None:
        if not flavor.secret_keys:
            raise m.InvalidConfig(f"a {flavor.name} component takes no secret; connect it instead", field="secret")
        held = (await self._broker.named_secrets.get(secret)).fields
        if lacking := [key for key in flavor.secret_keys if key not in held]:
            raise m.InvalidConfig(
                f"the secret {secret!r} lacks {', '.join(lacking)}, which a {flavor.name} component needs",
                field="secret",
            )

    async def _connection(
        self, flavor: Flavor, config: m.Config, connector: str, resource_id: str | None
    ) -> dict[str, Any]:
        """What is stored of a connection, once the vendor has said that it is one."""
        kind, wanted = _need(flavor, config, resource_id)
        found = await self._broker.get(connector)
        await self._broker.verify(found.id, resource_type=kind, resource_id=wanted)
        return {"connector_id": found.id, "resource_id": wanted}


def _need(flavor: Flavor, config: m.Config, resource_id: str | None) -> tuple[str, str | None]:
    """The resource type and id that a component needs."""
    if flavor.resource_type is None:
        raise m.InvalidConfig(f"a {flavor.name} component needs no connector")
    return flavor.resource_type, resource_id or flavor.resource_id(config)


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
