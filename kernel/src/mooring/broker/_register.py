"""Register, update, delete: connectors at rest."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict

import msgspec

from mooring.broker._desk import SHOWN, Desk, bound, checked, doing, guard, unchain, within
from mooring.broker._issue import fingerprint
from mooring.broker._undo import step_of, undo
from mooring.broker._verify import verify
from mooring.errors import InvalidConfig, NameTaken, NothingToLift, UnknownAuthMethod, VendorError
from mooring.events import ConnectorDeleted, ConnectorRegistered, ConnectorUpdated
from mooring.hookspecs import Lifted, LiftRequest, Unlifted
from mooring.references import references, resolve
from mooring.registry import Route
from mooring.types import AuthMethod, Config, Connector, Secret, build_config, instant, split_config

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NAME_LENGTH = 128
LABEL_LENGTH = 256
LONGEST_SPAN = timedelta(days=3653)


class Changes(TypedDict, total=False):
    """What `update` may change; what is not named stays."""

    name: str
    description: str
    owner: str
    labels: Mapping[str, str | None]
    """Merged with the present ones; None removes a label."""
    auth_method: str
    config: Mapping[str, Any]
    """Fields to set; None removes an optional one. With another auth method, the whole configuration."""
    resource_type: str | None
    resource_id: str | None
    expires_at: datetime | None
    expires_skew: timedelta
    ttl: timedelta | None
    allow_unnarrowed: bool
    allow_long_lived: bool


async def register(desk: Desk, draft: Connector, values: Mapping[str, Any] | Config, *, check: bool) -> Connector:
    """Store the draft with its configuration, verified first unless told not to."""
    _check(draft)
    if (known := await desk.store.find(draft.name)) and known.name == draft.name:
        raise NameTaken(f"a connector named {draft.name!r} exists already; choose another name, or update it")
    with desk.failing_on_record("register", draft), doing("register", draft, draft.resource_id):
        await desk.prepare_to_seal()  # so that the audit log is signed from its first entry, if this fails
        connector, secrets = await _configured(desk, draft, values)
        connector = msgspec.structs.replace(connector, id=str(uuid.uuid4()), owner=draft.owner or desk.owner)
        connector = await desk.seal(connector, secrets)
        if check:
            identity = await verify(desk, connector)
            connector = msgspec.structs.replace(connector, expires_at=connector.expires_at or identity.expires_at)
        connector = await desk.write(desk.store.add, connector)
    registered = ConnectorRegistered(at=desk.clock.now(), **_about(connector))
    await desk.books.write(registered, audit=[desk.entry("register", connector)])
    return connector


async def draft(
    desk: Desk, connector: Connector, values: Mapping[str, Any] | Config
) -> tuple[Connector, dict[str, Secret]]:
    """What `register` would store of it, and seal with it; calls no vendor and stores nothing."""
    _check(connector)
    with doing("register", connector, connector.resource_id):
        return await _configured(desk, connector, values)
    raise AssertionError  # `doing` has raised


async def update(desk: Desk, connector: Connector, changes: Changes, *, check: bool) -> Connector:
    """Store a changed connector; refused when somebody else has changed it since."""
    with desk.failing_on_record("update", connector), doing("update", connector):
        route = desk.registry.route(connector.type)
        if unknown := changes.keys() - Changes.__annotations__.keys():
            raise TypeError(f"update() changes no {', '.join(sorted(unknown))}")
        plain = {key: value for key, value in changes.items() if key not in ("labels", "config", "auth_method")}
        draft = msgspec.structs.replace(connector, **plain, version=connector.version + 1, updated_at=desk.clock.now())
        draft = msgspec.structs.replace(draft, expires_at=draft.expires_at and instant(draft.expires_at))
        labels: dict[str, str | None] = {**connector.labels, **changes.get("labels", {})}
        draft = msgspec.structs.replace(draft, labels={k: v for k, v in labels.items() if v is not None})
        _check(draft)
        method = route.auth_method(changes.get("auth_method", connector.auth_method))
        desk.permit(method)
        secrets = None
        if "config" in changes or method.name != connector.auth_method:
            before = await desk.open(connector)
            present = connector.settings | before if method.name == connector.auth_method else {}
            settings, secrets = await _config(desk, method, present | dict(changes.get("config", {})))
            draft = msgspec.structs.replace(draft, auth_method=method.name, settings=settings)
            if "expires_at" not in changes and secrets != before:
                draft = msgspec.structs.replace(draft, expires_at=None)  # that was when the old secrets end
        draft = await _scoped(desk, route, draft)
        if secrets is None and bound(draft) != bound(connector):
            secrets = await desk.open(connector)
        if secrets is not None:
            draft = await desk.seal(draft, secrets)
        if check:
            identity = await verify(desk, draft)
            draft = msgspec.structs.replace(draft, expires_at=draft.expires_at or identity.expires_at)
        draft = await desk.write(desk.store.replace, draft)
    if fingerprint(draft) != fingerprint(connector):
        await desk.cache.forget(connector.id)
    updated = ConnectorUpdated(at=desk.clock.now(), version=draft.version, **_about(draft))
    await desk.books.write(updated, audit=[desk.entry("update", draft)])
    return draft


async def delete(desk: Desk, connector: Connector, *, force: bool) -> None:
    """Remove a connector, what was cached of it, and before that what it has made at its vendor."""
    with desk.failing_on_record("delete", connector), doing("delete", connector):
        if not force:
            await desk.unused("connector", connector.id, connector.name)
        made = await desk.store.undos(connector_id=connector.id)
        if (left := await undo(desk, made)) and not force:
            named = ", ".join([*(step_of(entry) for entry, _ in left[:SHOWN]), *(["..."] if left[SHOWN:] else [])])
            raise VendorError(
                f"connector {connector.name!r} was not deleted, for {len(left)} of what it made at its vendor could "
                f"not be removed ({left[0][1].rstrip('.')}): {named}; mend that and delete it again, or use --force "
                "and remove them by hand"
            )
        await desk.store.delete(connector)
    await desk.cache.forget(connector.id)
    deleted = ConnectorDeleted(at=desk.clock.now(), **_about(connector))
    await desk.books.write(deleted, audit=[desk.entry("delete", connector)])


async def lift(desk: Desk, type: str, auth_method: str | None, options: Mapping[str, Any]) -> Lifted:
    """A configuration from what this machine has."""
    route = desk.registry.route(type)
    if route.lift is None:
        raise NothingToLift(f"connector type {type!r} cannot be configured from this machine; give its fields")
    request = _lift_request(desk, route, auth_method, options)
    with within(desk.budgets.lift, "looking at this machine's configuration"), guard(route, "lift"):
        return checked(route, "lift", await route.lift(request), Lifted)
    raise AssertionError  # `within` has raised


async def lift_all(
    desk: Desk, type: str, prefix: str, auth_method: str | None, options: Mapping[str, Any]
) -> Sequence[Lifted | Unlifted]:
    """A configuration for each thing that this machine has, with names that are valid and differ."""
    if prefix:
        check_name(prefix)
    route = desk.registry.route(type)
    if route.lift_all is None:
        able = ", ".join(one.type.name for one in desk.registry.routes() if one.lift_all) or "none"
        raise NothingToLift(
            f"connector type {type!r} cannot find everything on this machine; types that can: {able}; "
            "register its connectors one by one"
        )
    request = _lift_request(desk, route, auth_method, options)
    with within(desk.budgets.lift, "looking at this machine's configuration"), guard(route, "lift_all"):
        found = checked(route, "lift_all", await route.lift_all(request), tuple)
        for one in found:
            if isinstance(one, Unlifted):
                unchain(one.error)
            else:
                checked(route, "lift_all", one, Lifted)
        if not found:
            raise NothingToLift(f"there is nothing on this machine that connector type {type!r} could be made of")
        return _named(found, prefix, type)
    raise AssertionError  # `within` has raised


def _lift_request(desk: Desk, route: Route, auth_method: str | None, options: Mapping[str, Any]) -> LiftRequest:
    if auth_method is not None:
        desk.permit(route.auth_method(auth_method))
    return LiftRequest(auth_method=auth_method, options=options, allow_implicit=desk.allow_implicit)


def _named(found: Sequence[Lifted | Unlifted], prefix: str, type: str) -> list[Lifted | Unlifted]:
    """The same with names as `Broker.lift_all` has them; the type's where nothing of a name is left."""
    named: dict[str, Lifted | Unlifted] = {}
    for one in found:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", one.name).strip("-._") or type
        whole = f"{prefix}-{plain}" if prefix else plain
        name, number = whole[:NAME_LENGTH], 1
        while name in named:
            number += 1
            name = f"{whole[: NAME_LENGTH - len(f'-{number}')]}-{number}"
        named[name] = msgspec.structs.replace(one, name=name)
    return list(named.values())


async def _config(
    desk: Desk, method: AuthMethod, values: Mapping[str, Any] | Config
) -> tuple[dict[str, Any], dict[str, Secret]]:
    """The settings and the secrets of a configuration that is valid, with what they refer to; stored is what refers."""
    if isinstance(values, Config):
        if not isinstance(values, method.config):
            wanted, given = method.config.__name__, type(values).__name__
            raise InvalidConfig(f"auth method {method.name!r} is configured by a {wanted}, not by a {given}")
        return split_config(values)
    resolved = await resolve(values, desk.open_secret)
    settings, secrets = split_config(build_config(method.config, resolved))
    for name, value in values.items():
        if not references(value):
            continue
        if name in secrets:
            secrets[name] = value if isinstance(value, Secret) else Secret(value)
        else:
            settings[name] = value.reveal() if isinstance(value, Secret) else value
    return settings, secrets


async def _configured(
    desk: Desk, draft: Connector, values: Mapping[str, Any] | Config
) -> tuple[Connector, dict[str, Secret]]:
    """The draft with its auth method, its settings and its scope in canonical form; and its secrets."""
    route = desk.registry.route(draft.type)
    method = route.auth_method(draft.auth_method) if draft.auth_method else _default_method(route)
    desk.permit(method)
    settings, secrets = await _config(desk, method, values)
    connector = msgspec.structs.replace(draft, auth_method=method.name, settings=settings)
    return await _scoped(desk, route, connector), secrets


async def _scoped(desk: Desk, route: Route, connector: Connector) -> Connector:
    """The connector with its scope checked and its resource id in canonical form."""
    if connector.resource_type is None and connector.resource_id is None:
        return connector
    unscoped = msgspec.structs.replace(await desk.referred(connector), resource_id=None)
    target = desk.target(unscoped, route, connector.resource_type, connector.resource_id)
    if target is None:
        return connector
    return msgspec.structs.replace(connector, resource_type=target.resource_type, resource_id=target.resource_id)


def _default_method(route: Route) -> AuthMethod:
    methods = route.type.auth_methods
    if len(methods) == 1:
        return methods[0]
    known = ", ".join(method.name for method in methods)
    raise UnknownAuthMethod(f"name an auth method of {route.type.name!r}; one of: {known}")


def _check(draft: Connector) -> None:
    check_name(draft.name)
    check_labels(draft.labels)
    _check_spans(draft)


def check_name(name: str, kind: str = "connector") -> None:
    """Refuse what no connector, or other record of that kind, can be called."""
    if not NAME.fullmatch(name):
        raise InvalidConfig(
            f"a {kind}'s name is 1 to 128 letters, digits, dots, dashes and underscores, "
            "beginning with a letter or digit",
            field="name",
        )
    if ID.fullmatch(name):
        raise InvalidConfig(f"a {kind}'s name is no id, for one would be taken for the other", field="name")


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse labels that nothing can have."""
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidConfig("a label's key and value are texts", field="labels")
        if not key or not key.isprintable() or not value.isprintable() or max(len(key), len(value)) > LABEL_LENGTH:
            raise InvalidConfig(
                f"a label's key and value are printable and at most {LABEL_LENGTH} characters", field="labels"
            )


def _check_spans(connector: Connector) -> None:
    """Spans that are spans, and that no instant overflows with."""
    if not isinstance(connector.expires_skew, timedelta) or not timedelta(0) <= connector.expires_skew <= LONGEST_SPAN:
        raise InvalidConfig("expires_skew is a timedelta from nothing to ten years", field="expires_skew")
    ttl = connector.ttl
    if ttl is not None and (not isinstance(ttl, timedelta) or not timedelta(0) < ttl <= LONGEST_SPAN):
        raise InvalidConfig("ttl is a timedelta longer than nothing, and at most ten years", field="ttl")


def _about(connector: Connector) -> dict[str, str]:
    return {"connector_id": connector.id, "connector": connector.name, "connector_type": connector.type}
