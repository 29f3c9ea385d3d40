"""An auth method's fields as options: `--region eu-west-1`, `--session_tags team=ml`, `--insecure`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from mooring.cli._secrets import Source
from mooring.errors import InvalidConfig, suggest
from mooring.masking import Masking
from mooring.registry import Route
from mooring.types import AuthMethod, ConfigField, Secret, fields_of

APART = "--field."
"""Before a field that has the name of an option of ours: `--field.description`."""

Given = list[tuple[ConfigField, str | bool]]


class Fields(NamedTuple):
    """What may be given, and where to read about it."""

    by_name: Mapping[str, ConfigField]
    elsewhere: Mapping[str, str]
    """Fields of other auth methods of the type, with the method's name."""
    about: str
    """The end of an error's message: how to see the fields."""


def fields_for(route: Route, methods: Sequence[AuthMethod]) -> Fields:
    """The fields of one auth method, or of several where it is not known yet which."""
    names = {method.name for method in methods}
    others = (method for method in route.type.auth_methods if method.name not in names)
    about = f"mooring connector describe-type {route.type.name}"
    return Fields(
        by_name={field.name: field for method in methods for field in fields_of(method.config)},
        elsewhere={field.name: method.name for method in others for field in fields_of(method.config)},
        about=f"{about} --auth-method {methods[0].name}" if len(methods) == 1 else about,
    )


def split(arguments: Sequence[str], fields: Fields, options: Iterable[str]) -> tuple[list[str], Given]:
    """The positional arguments, and the fields in their order.

    Args:
        arguments: what click did not know.
        fields: what may be given.
        options: click's own option names, for suggestions.

    Raises:
        InvalidConfig: an option is unknown or lacks its value. Names the nearest, and never says a value.
    """
    positional: list[str] = []
    given: Given = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "-" or not argument.startswith("-"):
            positional.append(argument)
            continue
        option, equals, value = argument.partition("=")
        field, sign = _field(option, fields, options)
        if equals:
            given.append((field, value))
        elif field.type == "bool":
            given.append((field, sign))
        else:
            following = next(rest, None)
            if following is None or following.startswith("--"):
                raise InvalidConfig(f"option {option} needs a value; one that begins with -- is written {option}=...")
            given.append((field, following))
    return positional, given


def _field(option: str, fields: Fields, options: Iterable[str]) -> tuple[ConfigField, bool]:
    """The field that an option is for, and whether it is switched on by it."""
    name = option.removeprefix(APART).lstrip("-").replace("-", "_")
    known = {field.replace("-", "_"): field for field in fields.by_name}
    if option.startswith("--") and name in known:
        return fields.by_name[known[name]], True
    if name.startswith("no_") and (field := fields.by_name.get(known.get(name[3:], ""))) and field.type == "bool":
        return field, False
    if other := fields.elsewhere.get(name):
        raise InvalidConfig(f"{option} is a field of the auth method {other!r}; see: {fields.about}", field=name)
    written = [f"--{field.replace('_', '-')}" for field in fields.by_name]
    near = suggest(option.replace("_", "-"), [*written, *options])
    near = f"{near} " if near.startswith("did") else ""
    raise InvalidConfig(f"no such option or field: {option}; {near}see: {fields.about}", field=name)


def check_required(fields: Fields, given: Given) -> None:
    """Refuse to go on without a field that nobody will ask for, before anything is asked.

    Raises:
        InvalidConfig: names all that are missing.
    """
    had = {field.name for field, _ in given}
    asked = sys.stdin.isatty()
    missing = [
        name
        for name, field in fields.by_name.items()
        if field.required and name not in had and not (field.secret and asked)
    ]
    if missing:
        names = ", ".join(map(repr, missing))
        what = f"field {names} is required" if len(missing) == 1 else f"the fields {names} are required"
        raise InvalidConfig(f"{what}; see: {fields.about}", field=missing[0])


def values(given: Given, source: Source, mask: Masking) -> dict[str, Any]:
    """The fields' values: lists and maps gathered, secrets as `Secret`.

    Raises:
        InvalidConfig: a value cannot be read, or a field that takes one value was given twice.
    """
    found: dict[str, Any] = {}
    for field, text in given:
        if field.secret and isinstance(text, str):
            mask.learn(text)
        value = source.read(field, text) if isinstance(text, str) else text
        if field.type == "dict":
            key, equals, one = str(value).partition("=")
            if not equals or not key:
                raise InvalidConfig(f"field {field.name!r} is given as key=value, once for each", field=field.name)
            found.setdefault(field.name, {})[key] = one
        elif field.multiple:
            found.setdefault(field.name, []).append(value)
        elif field.name in found:
            raise InvalidConfig(f"field {field.name!r} was given twice", field=field.name)
        else:
            found[field.name] = _secret(field, str(value), mask) if field.secret else value
    return found


def _secret(field: ConfigField, text: str, mask: Masking) -> Secret:
    mask.learn(text)
    with suppress(ValueError):
        return Secret(text)
    raise InvalidConfig(f"field {field.name!r} is not valid Unicode; write it in UTF-8", field=field.name)
