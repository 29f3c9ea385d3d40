"""A connector that is about to be registered: what is known of it, how it is shown, and the command that makes it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mooring.cli._edge import Run
from mooring.cli._fields import APART, Fields, fields_for
from mooring.cli._values import written
from mooring.types import MASK, AuthMethod, ConfigField, Secret

if TYPE_CHECKING:
    from mooring.hookspecs import Lifted
    from mooring.registry import Route

OURS = (
    *("type_", "auth_method", "resource_type", "resource_id"),
    *("auto_configure", "no_verify", "interactive", "expires_at"),
)
"""Options that the draft knows itself; the others are written as they were given."""


class Draft:
    """What is known of a connector so far.

    Args:
        ctx: the command's.
        route: the connector type's.
        rest: what else `Broker.register` takes.
    """

    def __init__(self, ctx: click.Context, route: Route, rest: dict[str, Any]) -> None:
        self._ctx = ctx
        self._run: Run = ctx.obj
        self.route = route
        self.rest = rest
        self.name = ""
        self.chosen: AuthMethod | None = None
        self.config: dict[str, Any] = {}
        self.paths: dict[str, str] = {}
        """The files that fields were read from, as @FILE."""
        self.lifted: Lifted | None = None
        """Where the configuration was found, as long as nothing of it is changed."""
        self.sought: dict[str, Any] = {}
        """What was given to say what to look for there."""

    @property
    def method(self) -> AuthMethod:
        """The auth method, once it is chosen."""
        assert self.chosen is not None  # noqa: S101
        return self.chosen

    @property
    def fields(self) -> Fields:
        """The auth method's."""
        return fields_for(self.route, [self.method])

    def summary(self) -> list[tuple[str, str]]:
        """What it is, in rows; secrets masked."""
        rows = [("name", self.name), ("type", self.route.type.name), ("auth method", self.method.name)]
        rows += [(name, self.text(self.config[name])) for name in self.fields.by_name if name in self.config]
        rows += [("from", self.lifted.source)] if self.lifted else []
        return [*rows, ("reaches", self.scope())]

    def scope(self) -> str:
        """What it shall reach."""
        return (
            " ".join(filter(None, (self.rest["resource_type"], self.rest["resource_id"]))) or "everything that it can"
        )

    def text(self, value: Any) -> str:
        """A field's value as it is shown."""
        if isinstance(value, Secret):
            return MASK
        if isinstance(value, bool):
            return "yes" if value else "no"
        return self._run.mask(", ".join(_each(value)))

    def command(self) -> list[str]:
        """What registers the same without questions; a secret is its file, or a `-`."""
        words = [*self._ctx.command_path.split(), self.name, f"--type={self.route.type.name}"]
        words += ["--auto-configure"] if self.lifted else []
        if self.lifted is None or self._given("auth_method"):
            words.append(f"--auth-method={self.method.name}")
        config, methods = (self.sought, self.route.type.auth_methods) if self.lifted else (self.config, [self.method])
        for name, field in fields_for(self.route, methods).by_name.items():
            words += self._words(field, config[name]) if name in config else []
        for option in ("resource_type", "resource_id"):
            words += [f"--{option.replace('_', '-')}={self.rest[option]}"] if self.rest[option] else []
        if (ends := self.rest["expires_at"]) and (self.lifted is None or self._given("expires_at")):
            words.append(f"--expires-at={ends.isoformat()}")
        words += [] if self.rest["verify"] else ["--no-verify"]
        return [*words, *self._others()]

    def _words(self, field: ConfigField, value: Any) -> list[str]:
        """A field as options."""
        name = field.name.replace("_", "-")
        before = APART if f"--{name}" in options_of(self._ctx) else "--"
        if field.name in self.paths:
            return [f"{before}{name}={self.paths[field.name]}"]
        if isinstance(value, Secret):
            return [f"{before}{name}=-"]
        if field.type == "bool":
            return [f"{before}{name}" if value else f"{before}no-{name}"]
        return [f"{before}{name}={_typed(one)}" for one in _each(value)]

    def _given(self, option: str) -> bool:
        return self._ctx.get_parameter_source(option) is ParameterSource.COMMANDLINE

    def _others(self) -> Iterator[str]:
        """The options that it does not know itself, as they were given."""
        for param in self._ctx.command.params:
            name = param.name or ""
            if not isinstance(param, click.Option) or name in OURS or not self._given(name):
                continue
            option = next(one for one in param.opts if one.startswith("--"))
            value = self._ctx.params[name]
            if value is True:
                yield option
                continue
            for one in value if isinstance(value, tuple) else (value,):
                yield f"{option}={written(one) if isinstance(one, timedelta) else one}"


def options_of(ctx: click.Context) -> list[str]:
    """The options that click knows of a command."""
    return [option for param in ctx.command.params for option in param.opts]


def _each(value: Any) -> list[str]:
    """What a field's value is made of, as it is written."""
    if isinstance(value, dict):
        return [f"{key}={one}" for key, one in value.items()]
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]


def _typed(text: str) -> str:
    """A value as it is read from the command line; what has several lines, or controls, is left to a file."""
    if not text.isprintable():
        return "@FILE"
    return f"@{text}" if text.startswith("@") else text
