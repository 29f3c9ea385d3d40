"""Configuration as code: what would change for the store to be as mooring.yaml says, and changing it.

All of it is checked before the first change. What is there and not in the document stays. Applying again changes
nothing; after a failure it goes on where it ended, for what is done is no change any more.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

import mooring as m
from mooring.broker import Document
from mooring.references import only_references, references
from mooring.types import Connector
from mooring_components.components import Component, Components, check_stack, parts_of
from mooring_components.documents import ComponentEntry, ConnectorEntry, Source, value_of
from mooring_components.flavors import Flavors

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
    """What would change: how what the document says would be stored differs from what is. Made by `plan`."""

    def __init__(self, broker: m.Broker, source: Source, folder: Path, flavors: Flavors | None = None) -> None:
        self._broker = broker
        self._components = Components(broker, flavors)
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
        self._check_variables()
        for name, connector in desired.connectors.items():
            with self._at("connectors", name):
                self.steps.append(await self._connector(name, connector))
        components = {one.name: one for one in await self._components.list()}
        for name, component in desired.components.items():
            with self._at("components", name):
                self.steps.append(await self._component(name, component, components.get(name)))
        stacks = {one.name: one for one in await self._components.stacks()}
        for name, parts in desired.stacks.items():
            with self._at("stacks", name):
                self.steps.append(self._stack(name, parts, stacks.get(name), components))

    def _check_variables(self) -> None:
        """Refuse a document that takes secrets from environment variables which are not set: all of them at once."""
        missing: dict[str, str] = {}
        for name, connector in self._source.desired.connectors.items():
            for field, value in connector.config.items():
                if isinstance(value, dict) and set(value) == {"env"} and not os.environ.get(str(value["env"])):
                    where = self._source.at("connectors", name, "config", field)
                    missing.setdefault(str(value["env"]), f"{where}: field {field!r}")
        if missing:
            place = next(iter(missing.values()))
            raise m.InvalidConfig(f"{place}: not set in the environment: {', '.join(missing)}")

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
        self._configs[name] = await self._config(name, entry)
        now = datetime.now(UTC)
        about = _about(entry) | {"auth_method": entry.auth_method or ""}
        wanted, secrets = await self._broker.draft(
            Connector(id="", name=name, type=entry.type, labels=entry.labels, created_at=now, updated_at=now, **about),
            self._configs[name],
        )
        stored = await self._stored(name)
        if stored is None:
            return _step("connector", name, None, _connector(wanted, secrets))
        if stored.type != entry.type:
            raise m.InvalidConfig(f"connector {name!r} is of the type {stored.type!r}; it cannot become another")
        present = _connector(stored, await self._broker.secrets(stored.id))
        return _step("connector", name, present, _connector(wanted, secrets))

    async def _config(self, name: str, entry: ConnectorEntry) -> dict[str, Any]:
        """A connector's fields, from where they are kept; a secret in clear is refused."""
        methods = self._broker.registry.route(entry.type).type.auth_methods
        fields = [m.fields_of(one.config) for one in methods if entry.auth_method in (one.name, None)]
        secret = {one.name for some in fields for one in some if one.secret}
        config: dict[str, Any] = {}
        for field, value in entry.config.items():
            where = self._source.at("connectors", name, "config", field)
            if field in secret and not _is_reference(value):
                raise m.InvalidConfig(
                    f"{where}: field {field!r} is a secret, which is not written in clear; give it as {{env: NAME}}, "
                    f"{{file: PATH}} or '{{{{secret.key}}}}' (mooring secret create)",
                    field=field,
                )
            given = value_of(value, self._folder, field, where)
            config[field] = given.reveal() if isinstance(given, m.Secret) and field not in secret else given
        return config

    async def _stored(self, name: str) -> Connector | None:
        try:
            found = await self._broker.get(name)
        except m.UnknownConnector:
            return None
        return found if found.name == name else None

    async def _apply_connector(self, step: Step) -> None:
        entry, config = self._source.desired.connectors[step.name], self._configs[step.name]
        about = _about(entry)
        if step.action == "create":
            await self._broker.register(
                step.name, type=entry.type, auth_method=entry.auth_method, config=config, labels=entry.labels, **about
            )
            return
        stored = await self._broker.get(step.name)
        if entry.auth_method is not None:
            about["auth_method"] = entry.auth_method
        gone = dict.fromkeys(label for label in stored.labels if label not in entry.labels)
        if about.get("auth_method", stored.auth_method) == stored.auth_method:
            present = stored.settings | await self._broker.secrets(stored.id)
            config = dict.fromkeys(field for field in present if field not in config) | config
        await self._broker.update(stored, labels={**gone, **entry.labels}, config=config, **about)

    # -- components

    async def _component(self, name: str, entry: ComponentEntry, stored: Component | None) -> Step:
        made = await self._components.draft(
            name, type=entry.type, flavor=entry.flavor, config=entry.config, connector=entry.connector,
            resource_id=entry.resource_id, secret=entry.secret, labels=entry.labels,
            to_come=self._source.desired.connectors,
        )  # fmt: skip
        if stored is None:
            return _step("component", name, None, await self._described(made))
        if (stored.type, stored.flavor) != (entry.type, entry.flavor):
            raise m.InvalidConfig(
                f"component {name!r} is a {stored.type} of the flavor {stored.flavor}; delete it to make another"
            )
        wanted = await self._described(self._components.settled(made, stored))
        return _step("component", name, await self._described(stored), wanted)

    async def _described(self, component: Component) -> dict[str, Any]:
        """What can be said of a component, by field."""
        connector = component.connector_id
        if connector is not None:
            with suppress(m.UnknownConnector):  # it was deleted, or is to come
                connector = (await self._broker.get(connector)).name
        return {
            "type": component.type,
            "flavor": component.flavor,
            "connector": connector,
            "resource_id": component.resource_id,
            "secret": component.secret,
            **{f"config.{field}": value for field, value in component.config.items()},
            **{f"labels.{label}": value for label, value in component.labels.items()},
        }

    async def _apply_component(self, step: Step) -> None:
        entry = self._source.desired.components[step.name]
        about: dict[str, Any] = {"config": entry.config, "connector": entry.connector, "secret": entry.secret,
                                 "resource_id": entry.resource_id, "labels": entry.labels}  # fmt: skip
        if step.action == "create":
            await self._components.register(step.name, type=entry.type, flavor=entry.flavor, **about)
        else:
            await self._components.put(step.name, **about)

    # -- stacks

    def _stack(
        self, name: str, parts: Sequence[str], stored: Document | None, components: Mapping[str, Component]
    ) -> Step:
        there: dict[str, Component | ComponentEntry] = {**components, **self._source.desired.components}
        for part in parts:
            if part not in there:
                raise m.InvalidConfig(f"stack {name!r} names a component {part!r}, which there is not")
        check_stack([there[part].type for part in parts])
        wanted = {"components": sorted(parts)}
        if stored is None:
            return _step("stack", name, None, wanted)
        names = {one.id: one.name for one in components.values()}
        return _step("stack", name, {"components": sorted(names.get(one, one) for one in parts_of(stored))}, wanted)

    async def _apply_stack(self, step: Step) -> None:
        write = self._components.add_stack if step.action == "create" else self._components.put_stack
        await write(step.name, self._source.desired.stacks[step.name])


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


async def plan(broker: m.Broker, source: Source, folder: Path, flavors: Flavors | None = None) -> Plan:
    """What would change for the store to be as a document says, whose files are relative to the folder."""
    made = Plan(broker, source, folder, flavors)
    await made.make()
    return made


class Exported(m.types.Struct):
    """The store as a document."""

    document: dict[str, Any]
    variables: tuple[str, ...]
    """The environment variables that it takes secrets from."""
    secrets: tuple[str, ...]
    """The named secrets that it refers to; they are no part of it."""
    lost: tuple[str, ...]
    """The components whose connector was deleted; they are not connected in the document."""


async def export(broker: m.Broker) -> Exported:
    """The store as a document; secrets as references to environment variables, which are to be set.

    Raises:
        RecordDamaged: a record cannot be read, and would be left out.
    """
    components = Components(broker)
    if damaged := [*(await broker.list()).damaged, *await components.damaged()]:
        raise damaged[0]
    connectors: dict[str, Any] = {}
    names: dict[str, str] = {}
    variables: set[str] = set()
    for one in await broker.list():
        names[one.id] = one.name
        secrets = await broker.secrets(one.id)
        config = dict(one.settings) | {
            field: value.reveal() if only_references(value.reveal()) else {"env": _variable(one.name, field, variables)}
            for field, value in secrets.items()
        }
        entry = {"type": one.type, "auth_method": one.auth_method, "resource_type": one.resource_type,
                 "resource_id": one.resource_id, "config": config, "labels": one.labels,
                 "description": one.description, "ttl": _written(one.ttl),
                 "allow_unnarrowed": one.allow_unnarrowed, "allow_long_lived": one.allow_long_lived}  # fmt: skip
        connectors[one.name] = {key: value for key, value in entry.items() if value not in (None, "", {}, False)}
    parts: dict[str, Any] = {}
    listed = await components.list()
    lost = tuple(part.name for part in listed if part.connector_id not in (None, *names))
    for part in listed:
        entry = {"type": part.type, "flavor": part.flavor, "config": dict(part.config),
                 "connector": names.get(part.connector_id or ""),
                 "resource_id": None if part.name in lost else part.resource_id,
                 "secret": part.secret, "labels": dict(part.labels)}  # fmt: skip
        parts[part.name] = {key: value for key, value in entry.items() if value not in (None, "", {})}
    by_id = {one.id: one.name for one in listed}
    stacks = {one.name: [by_id.get(id, id) for id in parts_of(one)] for one in await components.stacks()}
    named = {"connectors": connectors, "components": parts, "stacks": stacks}
    referred = references(connectors) | references(parts) | {part.secret for part in listed if part.secret}
    return Exported(
        document={"version": 1} | {key: value for key, value in named.items() if value},
        variables=tuple(sorted(variables)),
        secrets=tuple(sorted(referred)),
        lost=lost,
    )


def _is_reference(value: Any) -> bool:
    """Whether a secret is not written in clear."""
    return (isinstance(value, dict) and set(value) in ({"env"}, {"file"})) or (
        isinstance(value, str) and only_references(value)
    )


def _about(entry: ConnectorEntry) -> dict[str, Any]:
    """What a document says of a connector, as `register`, `update` and a record take it."""
    return {
        "resource_type": entry.resource_type,
        "resource_id": entry.resource_id,
        "description": entry.description,
        "ttl": _span(entry.ttl),
        "allow_unnarrowed": entry.allow_unnarrowed,
        "allow_long_lived": entry.allow_long_lived,
    }


def _connector(one: Connector, secrets: Mapping[str, m.Secret]) -> dict[str, Any]:
    """What can be said of a connector, by field; None is nothing."""
    return {
        "auth_method": one.auth_method,
        "resource_type": one.resource_type,
        "resource_id": one.resource_id,
        "description": one.description or None,
        "ttl": _written(one.ttl),
        "allow_unnarrowed": one.allow_unnarrowed or None,
        "allow_long_lived": one.allow_long_lived or None,
        **{f"labels.{label}": value for label, value in one.labels.items()},
        **{f"config.{field}": value for field, value in {**one.settings, **secrets}.items()},
    }


def _step(kind: Kind, name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Step:
    """What is done for a thing to become as it is wanted; `before` is None where there is none."""
    changes = _differ(before or {}, after)
    return Step(
        kind=kind, name=name, action="create" if before is None else "update" if changes else "keep", changes=changes
    )


def _differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """The fields that differ; of secrets, that they do."""
    found = []
    for field in sorted({*before, *after}):
        old, new = before.get(field), after.get(field)
        if _plain(old) != _plain(new):
            found.append(Change(field=field, before=_shown(old), after=_shown(new)))
    return tuple(found)


def _plain(value: Any) -> Any:
    return value.reveal() if isinstance(value, m.Secret) else value


def _shown(value: Any) -> Any:
    return HIDDEN if isinstance(value, m.Secret) else value


def _variable(connector: str, field: str, taken: set[str]) -> str:
    """The environment variable for a secret; no two have the same."""
    usual = "".join(one if one.isalnum() else "_" for one in f"{connector}_{field}").upper()
    usual = f"_{usual}" if usual[0].isdigit() else usual
    numbered = (f"{usual}_{number}" for number in count(2))
    name = next(one for one in chain([usual], numbered) if one not in taken)
    taken.add(name)
    return name


def _span(text: str | None) -> timedelta | None:
    from mooring.cli.toolkit import span

    return None if text is None else span(text)


def _written(length: timedelta | None) -> str | None:
    from mooring.cli.toolkit import written

    return None if length is None else written(length)
