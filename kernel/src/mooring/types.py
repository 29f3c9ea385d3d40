"""The values that every room speaks of: secrets, connector types, connectors, resources."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, NoReturn, Protocol, TypeVar, dataclass_transform

import msgspec

from mooring.errors import InvalidConfig, suggest

Access = Literal["list", "read", "write"]
"""What a caller wants to do with a resource; `read` includes `list`, `write` includes both."""

ACCESSES: tuple[Access, ...] = ("list", "read", "write")

MASK = "********"

NOT_UNICODE = re.compile("[\ud800-\udfff]")
"""Half characters, as Python makes of bytes that are not UTF-8: no codec takes them, and its error would quote them."""

C = TypeVar("C", bound="Config")


class Secret:
    """A value that shows itself only when asked by `reveal()`.

    Not a `str`, so that an f-string cannot print it, and not a Struct, so that no encoder can write it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError("a secret is made of a str")
        if NOT_UNICODE.search(value):
            raise ValueError("a secret is made of valid Unicode")
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        from hmac import compare_digest

        return compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]  # a hash is a fingerprint

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class ValueMeta(msgspec.StructMeta):
    """Makes Structs immutable and built by keyword, subclasses too (msgspec itself does not pass `kw_only` on)."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> ValueMeta:
        return super().__new__(mcls, name, bases, namespace, **{"kw_only": True, "frozen": True} | options)


class Struct(msgspec.Struct, metaclass=ValueMeta):
    """The base of mooring's values: immutable, built by keyword."""


class Config(msgspec.Struct, metaclass=ValueMeta, forbid_unknown_fields=True):
    """The base of an auth method's configuration.

    Fields annotated `Secret` are sealed at rest and masked everywhere; give each field a description with
    `Annotated[str, msgspec.Meta(description=...)]`. Check formats in `__post_init__`, raising `InvalidConfig`.
    """


class ConfigField(Struct):
    """What is known of one field of a `Config` without a value."""

    name: str
    type: str
    required: bool
    secret: bool
    default: Any = None
    description: str = ""
    multiple: bool = False
    choices: tuple[str, ...] = ()
    """The only values that it takes, where they are counted."""


class Lifetime(Struct):
    """The shortest, the usual and the longest life of credentials that an auth method issues."""

    minimum: timedelta
    default: timedelta
    maximum: timedelta

    def clamp(self, wish: timedelta | None) -> timedelta:
        """The wish, or the default, brought within the bounds."""
        return min(max(self.default if wish is None else wish, self.minimum), self.maximum)


class AuthMethod(Struct):
    """One way to authenticate a connector type."""

    name: str
    config: type[Config]
    title: str = ""
    description: str = ""
    temporary: bool = False
    """Whether what it issues ends by itself."""
    lifetime: Lifetime | None = None
    """Bounds of the life of issued credentials, where the caller has a choice."""
    implicit: bool = False
    """Whether it takes the identity of the machine that mooring runs on; off unless the configuration allows it."""
    revocable: bool = False
    """Whether what it issues can be taken back from one consumer alone; then no two consumers share it."""
    role_wide: tuple[str, ...] | None = None
    """The resource types whose credentials the plugin's `revoke_all` takes back; all, if None."""


class ResourceType(Struct):
    """A class of resources that a connector type reaches."""

    name: str
    title: str = ""
    description: str = ""
    instances: bool = True
    """Whether one connector can reach many of them."""
    auth_methods: tuple[str, ...] = ()
    """The auth methods that serve it; all, if empty."""
    permissions: tuple[str, ...] = ()
    """The vendor's permissions that a connector needs for it."""
    formats: tuple[str, ...] = ()
    """The accepted forms of a resource id; the canonical one first."""
    narrowable: bool = True
    """Whether credentials for one resource are less than the connector's own; false for a generic, whole account."""
    ids: str = "*"
    """A pattern that every canonical id matches, such as `s3://*`: who looks for others need not ask."""
    login_id: str | None = None
    """What `mooring login` is for where no resource is named, in a form that `qualify` completes from the settings."""


class Limit(Struct):
    """A bound on a vendor's calls, for each group of them: as the vendor documents it, or is known to enforce it.

    The labels of a call are `vendor`, `account` (whose quota it counts against), `region`, `service` and `operation`.
    """

    name: str
    """By which a configuration changes it, such as `aws-ecr`."""
    per: tuple[str, ...]
    """The labels by which calls are grouped; each group has the bound to itself."""
    where: Mapping[str, str] = {}
    """Only calls with these labels; the values are patterns, such as `Describe*`."""
    at_once: int | None = None
    """How many calls may be under way."""
    rate: float | None = None
    """How many calls may begin in a second, for as long as one likes."""
    burst: int = 1
    """How many of them may begin at once, after a pause."""


class ConnectorType(Struct):
    """What a plugin offers."""

    name: str
    auth_methods: tuple[AuthMethod, ...]
    resource_types: tuple[ResourceType, ...]
    title: str = ""
    description: str = ""
    credentials: tuple[type, ...] = ()
    """The credential kinds that this plugin renders and makes clients for, whoever issued them."""
    formats: tuple[str, ...] = ()
    """The output formats of `render`, beside json."""
    limits: tuple[Limit, ...] = ()
    """The vendor's bounds on calls; slots are asked for by their labels."""

    def auth_method(self, name: str) -> AuthMethod | None:
        """The auth method of that name."""
        return next((method for method in self.auth_methods if method.name == name), None)

    def resource_type(self, name: str) -> ResourceType | None:
        """The resource type of that name."""
        return next((kind for kind in self.resource_types if kind.name == name), None)


class Sealed(Struct):
    """Secrets at rest: each field under the record's data key, that one under the master key `key_id`."""

    key_id: str
    check: bytes
    """A fingerprint of the master key, so that a wrong key can be told from altered data."""
    wrapped: bytes
    """The record's data key, encrypted."""
    fields: dict[str, bytes]
    """Field name to nonce and ciphertext."""


class Connector(Struct, kw_only=True):
    """A stored, named configuration of a connector type. Holds no secret in the clear.

    Multi-type when `resource_type` is None, single-type otherwise; single-instance when `resource_id` is set.
    """

    id: str
    name: str
    type: str
    auth_method: str
    resource_type: str | None = None
    resource_id: str | None = None
    settings: dict[str, Any] = {}
    """The configuration's fields that are not secret."""
    sealed: Sealed | None = None
    labels: dict[str, str] = {}
    description: str = ""
    owner: str = ""
    expires_at: datetime | None = None
    """When the connector's own credentials end, where that is known."""
    expires_skew: timedelta = timedelta(0)
    """How long before `expires_at` the connector counts as expired."""
    ttl: timedelta | None = None
    """The life that issued credentials get when the caller names none."""
    allow_unnarrowed: bool = False
    allow_long_lived: bool = False
    created_at: datetime
    updated_at: datetime
    version: int = 1
    """Grows by one with each update; an update of a stale version is refused."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Everything but the sealed bytes."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        return list((shown | {"sealed": self.sealed and "..."}).items())

    def __repr__(self) -> str:
        return f"Connector({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def expired(self, now: datetime) -> bool:
        """Whether the connector's own credentials have ended."""
        return self.expires_at is not None and self.expires_at - now <= self.expires_skew


class Resource(Struct):
    """One instance of a resource type; `id` is canonical."""

    type: str
    id: str
    region: str | None = None
    attributes: dict[str, str] = {}


class Unit(Struct):
    """One place that discovery asks by itself, with a deadline of its own: a region, an account, or all at once."""

    name: str = ""
    ids: str = "*"
    """A pattern that every canonical id there matches, such as `eu-west-1/*`."""


class Identity(Struct):
    """Whom the vendor takes the connector for."""

    subject: str
    account: str | None = None
    expires_at: datetime | None = None
    """When the vendor says that the connector's own credentials end, where it does."""


class Clock(Protocol):
    """Where the time comes from; tests hand in their own."""

    def now(self) -> datetime:
        """The wall clock, aware and in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from some start, never going back."""
        ...


def instant(value: str | float | datetime) -> datetime:
    """An aware UTC datetime from RFC 3339 text, Unix seconds or a datetime; a naive one is taken as UTC.

    >>> instant("2026-01-02T03:04:05Z")
    datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    >>> instant("2026-01-02 03:04:05").isoformat()
    '2026-01-02T03:04:05+00:00'

    Raises:
        InvalidConfig: it is not a date and time, or not one within the years 1 to 9999.
    """
    try:
        if isinstance(value, datetime):
            moment = value
        elif isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
        else:
            moment = datetime.fromtimestamp(value, UTC)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise InvalidConfig("not a date and time; write it like 2026-12-31T23:59:59Z")


def fields_of(config: type[Config]) -> tuple[ConfigField, ...]:
    """The fields of a configuration, in the order of their declaration."""
    return tuple(_field(item) for item in msgspec.structs.fields(config))


def _field(item: msgspec.structs.FieldInfo) -> ConfigField:
    info = msgspec.inspect.type_info(item.type)
    description = ""
    while isinstance(info, msgspec.inspect.Metadata):
        description = description or str((info.extra_json_schema or {}).get("description", ""))
        info = info.type
    kind = next((one for one in _kinds(item) if not isinstance(one, msgspec.inspect.NoneType)), info)
    secret = _is_secret(kind)
    multiple = isinstance(kind, msgspec.inspect.VarTupleType | msgspec.inspect.ListType | msgspec.inspect.DictType)
    return ConfigField(
        name=item.encode_name,
        type="secret" if secret else type(kind).__name__.removesuffix("Type").lower(),
        required=item.required,
        secret=secret,
        default=None if item.required or secret else _default(item),
        description=description,
        multiple=multiple,
        choices=tuple(map(str, kind.values)) if isinstance(kind, msgspec.inspect.LiteralType) else (),
    )


def unsealable(config: type[Config]) -> tuple[str, ...]:
    """The fields that have a secret inside of something else, where nothing seals it."""
    return tuple(
        item.encode_name
        for item in msgspec.structs.fields(config)
        if any(one is not top and _is_secret(one) for top in _kinds(item) for one in _within(top, []))
    )


def _kinds(item: msgspec.structs.FieldInfo) -> tuple[msgspec.inspect.Type, ...]:
    """What a field may be, each by itself."""
    info = msgspec.inspect.type_info(item.type)
    while isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    return info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)


def _is_secret(info: Any) -> bool:
    return isinstance(info, msgspec.inspect.CustomType) and info.cls is Secret


def _within(info: Any, seen: list[Any]) -> Iterator[Any]:
    """A type and all that it is made of; msgspec has one node for a type that contains itself."""
    if isinstance(info, tuple):
        for one in info:
            yield from _within(one, seen)
    elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field) and not any(info is one for one in seen):
        seen.append(info)
        yield info
        for name in info.__struct_fields__:
            yield from _within(getattr(info, name), seen)


def _default(item: msgspec.structs.FieldInfo) -> Any:
    if item.default is not msgspec.NODEFAULT:
        return item.default
    return item.default_factory() if item.default_factory is not msgspec.NODEFAULT else None


def _decode(kind: type, value: Any) -> Any:
    if kind is Secret:
        if isinstance(value, Secret):
            return value
        if isinstance(value, str):
            return Secret(value)
        raise TypeError("expected a text")
    raise NotImplementedError(kind)


def build_config(config: type[C], values: Mapping[str, Any]) -> C:
    """A configuration from plain values; texts become secrets, numbers and flags where the field wants them.

    None stands for a field that was not given; but where one may be None and is something else by default, for itself.

    Raises:
        InvalidConfig: a field is missing, unknown or malformed. Never says the value.
    """
    return config_builder(config)(values)


def config_builder(config: type[C]) -> Callable[[Mapping[str, Any]], C]:
    """`build_config` of one type, for who needs it often: the type is looked into once."""
    fields = {field.name: field for field in fields_of(config)}
    unset = {item.encode_name for item in msgspec.structs.fields(config) if _may_be_unset(item)}
    return partial(_build, config, fields, unset)


def _build(config: type[C], fields: Mapping[str, ConfigField], unset: Container[str], values: Mapping[str, Any]) -> C:
    for given in values:
        if given not in fields:
            raise InvalidConfig(f"unknown field {given!r}; {suggest(given, fields)}", field=given)
    for field in fields.values():
        value = values.get(field.name)
        if field.required and (value is None or value == "" or (isinstance(value, Secret) and not value)):
            raise InvalidConfig(f"field {field.name!r} is required", field=field.name)
    present = {name: value for name, value in values.items() if value is not None or name in unset}
    try:
        return msgspec.convert(present, config, dec_hook=_decode, strict=False)
    except msgspec.ValidationError as error:
        name, reason = _malformed(error, fields)
    except UnicodeEncodeError:
        name, reason = None, "it holds text that is not valid Unicode; write it in UTF-8"
    where = f"field {name!r}" if name else "the configuration"
    raise InvalidConfig(f"{where} is malformed: {reason}", field=name)  # outside the except, which may quote the input


def _may_be_unset(item: msgspec.structs.FieldInfo) -> bool:
    """Whether a field may be None and would be something else if it were left out."""
    nothing = any(isinstance(kind, msgspec.inspect.NoneType) for kind in _kinds(item))
    return nothing and not item.required and _default(item) is not None


def _malformed(error: msgspec.ValidationError, fields: Mapping[str, ConfigField]) -> tuple[str | None, str]:
    """The field that an error is about, and what it takes.

    msgspec's own "Expected `int`, got `str` - at `$.port`" is safe to repeat. Its other messages, and those of a
    configuration's `__post_init__` (which become the error's cause), may quote the value.
    """
    text, _, path = str(error).rpartition(" - at ")
    found = re.match(r"(?:`\w+` in )?`\$\.([^.\[`]+)", path)
    field = fields.get(found[1]) if found else None
    if field is None:
        return None, "its fields do not fit together"
    if field.choices:
        return field.name, f"it is one of: {', '.join(field.choices)}"
    if "matching regex" in text and field.description:
        return field.name, f"it is to be {field.description}"
    if error.__cause__ is None and text.startswith("Expected "):
        return field.name, f"e{text[1:]}"
    return field.name, f"it is not a valid {field.type}"


def split_config(config: Config) -> tuple[dict[str, Any], dict[str, Secret]]:
    """The fields that are not secret, as plain values, and those that are. Fields at their default are left out.

    Raises:
        InvalidConfig: a value cannot be written in JSON, such as an infinite number.
    """
    plain: dict[str, Any] = {}
    secrets: dict[str, Secret] = {}
    for item in msgspec.structs.fields(config):
        name, value = item.encode_name, getattr(config, item.name)
        if isinstance(value, Secret):
            secrets[name] = value
        elif item.required or value != _default(item):
            plain[name] = _plain(name, value)
    return plain, secrets


def _plain(name: str, value: Any) -> Any:
    with suppress(ValueError, TypeError, RecursionError):
        plain = msgspec.to_builtins(value, str_keys=True)
        json.dumps(
            plain, allow_nan=False, ensure_ascii=False
        ).encode()  # stricter than msgspec, which writes NaN as null
        return plain
    raise InvalidConfig(
        f"field {name!r} holds what cannot be stored; give it valid text or a finite number", field=name
    )
