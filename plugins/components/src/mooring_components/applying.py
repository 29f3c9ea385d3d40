"""Configuration as code: what would change for the store to be as mooring.yaml says, and changing it.

All of it is checked before the first change. What is there and not in the document stays. Applying again changes
nothing; after a failure it goes on where it ended, for what is done is no change any more.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import mooring as m
from mooring.broker import Document
from mooring_components.components import STACK, Component, Components
from mooring_components.documents import ComponentEntry, ConnectorEntry, Source, value_of

HIDDEN = "********"
Kind = Literal["connector", "component", "stack"]
Action = Literal["create", "update", "keep"]


class Change(m.types.Struct):
    """One field; secrets are hidden, and differ where they are shown to."""

    field: str
    before: Any
    after: Any


class Step(m.types.Struct):
    """What is done about one thing."""

    kind: Kind
    name: str
    action: Action
    changes: tuple[Change, ...] = ()


class Plan:
    """What would change; made by `plan`."""

    def __init__(self, broker: m.Broker, source: Source, folder: Path) -> None:
        self._broker = broker
        self._components = Components(broker)
        self._source = source
        self._folder = folder
        self._configs: dict[str, dict[str, Any]] = {}
        """By connector: its fields, secrets as such."""
        self.steps: list[Step] = []

    async def make(self) -> None:
        """Check everything, and find out what differs.

        Raises:
            InvalidConfig: something is wrong; names its line.
        """
        desired = self._source.desired
        for name, connector in desired.connectors.items():
            with self._at("connectors", name):
                self.steps.append(await self._connector(name, connector))
        for name, component in desired.components.items():
            with self._at("components", name):
                self.steps.append(await self._component(name, component))
        for name, parts in desired.stacks.items():
            with self._at("stacks", name):
                self.steps.append(await self._stack(name, parts))

    @property
    def changes(self) -> list[Step]:
        """The steps that change something."""
        return [one for one in self.steps if one.action != "keep"]

    async def apply(self) -> AsyncGenerator[Step, None]:
        """Do it; each step is given when it is done.

        Raises:
            MooringError: a step failed; those before are done.
        """
        for step in self.changes:
            with self._at(f"{step.kind}s", step.name):
                await getattr(self, f"_apply_{step.kind}")(step)
            yield step

    def _at(self, *path: str) -> _Place:
        return _Place(self._source.at(*path), ".".join(path))

    # -- connectors

    async def _connector(self, name: str, entry: ConnectorEntry) -> Step:
        place = self._source.at("connectors", name)
        route = self._broker.registry.route(entry.type)
        method = route.auth_method(entry.auth_method or _only_method(route.type))
        fields = {one.name: one for one in m.fields_of(method.config)}
        for field, value in entry.config.items():
            known = fields.get(field)
            if known is not None and known.secret and not _is_reference(value):
                where = self._source.at("connectors", name, "config", field)
                raise m.InvalidConfig(
                    f"{where}: field {field!r} is a secret, which is not written in clear; give it as {{env: NAME}}, "
                    f"{{file: PATH}} or '{{{{secret.key}}}}' (mooring secret create)",
                    field=field,
                )
        config = {
            field: value_of(value, self._folder, field, self._source.at("connectors", name, "config", field) or place)
            for field, value in entry.config.items()
        }
        m.build_config(method.config, await self._broker.resolve(config))
        self._configs[name] = config
        wanted = _wanted(entry, method.name)
        stored = await self._stored(name)
        if stored is None:
            shown = {field: HIDDEN if isinstance(value, m.Secret) else value for field, value in config.items()}
            changes = _differ({}, wanted | {f"config.{field}": value for field, value in shown.items()})
            return Step(kind="connector", name=name, action="create", changes=changes)
        if stored.type != entry.type:
            raise m.InvalidConfig(
                f"{place}: connector {name!r} is of the type {stored.type!r}; it cannot become another"
            )
        secrets = await self._broker.secrets(stored.id)
        changed = (*_differ(_present(stored), wanted), *_fields(stored.settings | secrets, config))
        return Step(kind="connector", name=name, action="update" if changed else "keep", changes=changed)

    async def _stored(self, name: str) -> m.types.Connector | None:
        try:
            found = await self._broker.get(name)
        except m.UnknownConnector:
            return None
        return found if found.name == name else None

    async def _apply_connector(self, step: Step) -> None:
        entry = self._source.desired.connectors[step.name]
        route = self._broker.registry.route(entry.type)
        about: dict[str, Any] = {
            "auth_method": entry.auth_method or _only_method(route.type),
            "config": self._configs[step.name],
            "resource_type": entry.resource_type,
            "resource_id": entry.resource_id,
            "description": entry.description,
            "ttl": _span(entry.ttl),
            "allow_unnarrowed": entry.allow_unnarrowed,
            "allow_long_lived": entry.allow_long_lived,
        }
        if step.action == "create":
            await self._broker.register(step.name, type=entry.type, labels=entry.labels, **about)
            return
        stored = await self._broker.get(step.name)
        gone = dict.fromkeys(label for label in stored.labels if label not in entry.labels)
        removed = dict.fromkeys(field for field in stored.settings if field not in entry.config)
        about["config"] = {**removed, **about["config"]}
        await self._broker.update(stored, labels={**gone, **entry.labels}, **about)

    # -- components

    async def _component(self, name: str, entry: ComponentEntry) -> Step:
        flavor = self._components.flavors.find(entry.type, entry.flavor)
        m.build_config(flavor.config, entry.config)
        if entry.connector is not None and entry.secret is not None:
            raise m.InvalidConfig("a component is connected or takes a secret, not both; leave one out")
        if entry.connector is not None and entry.connector not in self._source.desired.connectors:
            await self._broker.get(entry.connector)
        if entry.secret is not None:
            await self._broker.named_secrets.get(entry.secret)
        wanted = {"type": entry.type, "flavor": entry.flavor, "connector": entry.connector, "secret": entry.secret}
        wanted |= {f"config.{field}": value for field, value in entry.config.items()}
        wanted |= {f"labels.{label}": value for label, value in entry.labels.items()}
        stored = await self._known(name)
        if stored is None:
            return Step(kind="component", name=name, action="create", changes=_differ({}, wanted))
        if (stored.type, stored.flavor) != (entry.type, entry.flavor):
            raise m.InvalidConfig(
                f"component {name!r} is a {stored.type} of the flavor {stored.flavor}; delete it to make another"
            )
        present = {"type": stored.type, "flavor": stored.flavor, "secret": stored.secret, "connector": None}
        if stored.connector_id is not None:
            present["connector"] = await self._name_of(stored.connector_id)
        present |= {f"config.{field}": value for field, value in stored.config.items()}
        present |= {f"labels.{label}": value for label, value in stored.labels.items()}
        changes = _differ(present, wanted)
        return Step(kind="component", name=name, action="update" if changes else "keep", changes=changes)

    async def _known(self, name: str) -> Component | None:
        return next((one for one in await self._components.list() if one.name == name), None)

    async def _name_of(self, connector_id: str) -> str:
        try:
            return (await self._broker.get(connector_id)).name
        except m.UnknownConnector:
            return connector_id

    async def _apply_component(self, step: Step) -> None:
        entry = self._source.desired.components[step.name]
        if step.action == "create":
            await self._components.register(
                step.name, type=entry.type, flavor=entry.flavor, config=entry.config, connector=entry.connector,
                resource_id=entry.resource_id, secret=entry.secret, labels=entry.labels,
            )  # fmt: skip
            return
        stored = await self._components.get(step.name)
        changed = {change.field for change in step.changes}
        removed = dict.fromkeys(field for field in stored.config if field not in entry.config)
        await self._components.configure(stored.id, {**removed, **entry.config}, labels=entry.labels)
        if "connector" in changed and entry.connector is None:
            await self._components.disconnect(stored.id)
        elif "connector" in changed:
            await self._components.connect(stored.id, entry.connector, resource_id=entry.resource_id)
        if "secret" in changed and entry.secret is not None:
            await self._components.take_secret(stored.id, entry.secret)

    # -- stacks

    async def _stack(self, name: str, parts: Sequence[str]) -> Step:
        known = {one.id: one.name for one in await self._components.list()}
        for part in parts:
            if part not in self._source.desired.components and part not in known.values():
                raise m.InvalidConfig(f"stack {name!r} names a component {part!r}, which there is not")
        stored = await self._stack_of(name)
        if stored is None:
            return Step(kind="stack", name=name, action="create", changes=_differ({}, {"components": sorted(parts)}))
        present = sorted(known.get(one, one) for one in stored.body["components"])
        changes = _differ({"components": present}, {"components": sorted(parts)})
        return Step(kind="stack", name=name, action="update" if changes else "keep", changes=changes)

    async def _stack_of(self, name: str) -> Document | None:
        return next((one for one in await self._components.stacks() if one.name == name), None)

    async def _apply_stack(self, step: Step) -> None:
        parts = self._source.desired.stacks[step.name]
        stored = await self._stack_of(step.name)
        if stored is None:
            await self._components.add_stack(step.name, parts)
            return
        ids = [(await self._components.get(one)).id for one in parts]
        await self._broker.documents(STACK).replace(stored, body={"components": ids})


class _Place:
    """Has errors of ours begin with where in the document they are about."""

    def __init__(self, place: str, what: str) -> None:
        self._place, self._what = place, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, m.MooringError) and not error.message.startswith(self._place.rpartition(":")[0] + ":"):
            error.message = f"{self._place}: {self._what}: {error.message}"
            error.args = (error.message,)


async def plan(broker: m.Broker, source: Source, folder: Path) -> Plan:
    """What would change for the store to be as a document says."""
    made = Plan(broker, source, folder)
    await made.make()
    return made


async def export(broker: m.Broker) -> dict[str, Any]:
    """The store as a document; secrets as references to environment variables, which are to be set."""
    components = Components(broker)
    connectors: dict[str, Any] = {}
    names: dict[str, str] = {}
    for one in await broker.list():
        names[one.id] = one.name
        secrets = await broker.secrets(one.id)
        config = dict(one.settings) | {
            field: value.reveal() if _is_reference(value.reveal()) else {"env": _variable(one.name, field)}
            for field, value in secrets.items()
        }
        entry = {"type": one.type, "auth_method": one.auth_method, "resource_type": one.resource_type,
                 "resource_id": one.resource_id, "config": config, "labels": one.labels,
                 "description": one.description, "ttl": _written(one.ttl),
                 "allow_unnarrowed": one.allow_unnarrowed, "allow_long_lived": one.allow_long_lived}  # fmt: skip
        connectors[one.name] = {key: value for key, value in entry.items() if value not in (None, "", {}, False)}
    parts: dict[str, Any] = {}
    listed = await components.list()
    for part in listed:
        entry = {"type": part.type, "flavor": part.flavor, "config": dict(part.config),
                 "connector": names.get(part.connector_id or ""), "secret": part.secret,
                 "labels": dict(part.labels)}  # fmt: skip
        parts[part.name] = {key: value for key, value in entry.items() if value not in (None, "", {})}
    by_id = {one.id: one.name for one in listed}
    stacks = {one.name: [by_id.get(id, id) for id in one.body["components"]] for one in await components.stacks()}
    return {"version": 1, "connectors": connectors, "components": parts, "stacks": stacks}


def _only_method(type: m.ConnectorType) -> str:
    if len(type.auth_methods) == 1:
        return type.auth_methods[0].name
    names = ", ".join(one.name for one in type.auth_methods)
    raise m.InvalidConfig(f"name the auth method of {type.name!r}: auth_method is one of {names}", field="auth_method")


def _is_reference(value: Any) -> bool:
    from mooring.references import references

    return (isinstance(value, dict) and set(value) in ({"env"}, {"file"})) or bool(references(value))


def _wanted(entry: ConnectorEntry, auth_method: str) -> dict[str, Any]:
    return {
        "auth_method": auth_method,
        "resource_type": entry.resource_type,
        "resource_id": entry.resource_id,
        "description": entry.description,
        "ttl": _written(_span(entry.ttl)),
        "allow_unnarrowed": entry.allow_unnarrowed,
        "allow_long_lived": entry.allow_long_lived,
    } | {f"labels.{label}": value for label, value in entry.labels.items()}


def _present(stored: m.types.Connector) -> dict[str, Any]:
    return {
        "auth_method": stored.auth_method,
        "resource_type": stored.resource_type,
        "resource_id": stored.resource_id,
        "description": stored.description,
        "ttl": _written(stored.ttl),
        "allow_unnarrowed": stored.allow_unnarrowed,
        "allow_long_lived": stored.allow_long_lived,
    } | {f"labels.{label}": value for label, value in stored.labels.items()}


def _fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The fields of a configuration that differ; of secrets, that they do."""
    found = []
    for field in sorted({*before, *after}):
        old, new = before.get(field), after.get(field)
        if isinstance(old, m.Secret) or isinstance(new, m.Secret):
            if _plain(old) != _plain(new):
                found.append(Change(field=f"config.{field}", before=old and HIDDEN, after=new and HIDDEN))
        elif old != new:
            found.append(Change(field=f"config.{field}", before=old, after=new))
    return found


def _plain(value: Any) -> Any:
    return value.reveal() if isinstance(value, m.Secret) else value


def _differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    nothing = (None, "", False)
    return tuple(
        Change(field=field, before=before.get(field), after=after.get(field))
        for field in sorted({*before, *after})
        if before.get(field) != after.get(field) and not (before.get(field) in nothing and after.get(field) in nothing)
    )


def _variable(connector: str, field: str) -> str:
    return "".join(one if one.isalnum() else "_" for one in f"{connector}_{field}").upper()


def _span(text: str | None) -> timedelta | None:
    from mooring.cli.toolkit import span

    return None if text is None else span(text)


def _written(length: timedelta | None) -> str | None:
    from mooring.cli.toolkit import written

    return None if length is None else written(length)
