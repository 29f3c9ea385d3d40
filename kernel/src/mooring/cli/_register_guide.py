"""`register -i`: what a connector needs, asked for one after the other, until the vendor accepts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mooring.assembly import settings_from
from mooring.cli._broker import with_broker
from mooring.cli._edge import Run
from mooring.cli._fields import APART, Fields, fields_for, split, values
from mooring.cli._guided import INTRO, Guide, guiding, is_path, show_command, show_summary, stored
from mooring.cli._known import refusal
from mooring.cli._output import say
from mooring.cli._process import INTERRUPTED
from mooring.cli._register import one_name, store_and_show
from mooring.cli._secrets import Source
from mooring.cli._values import written
from mooring.errors import ConfigError, InvalidConfig, MooringError, NameTaken, NothingToLift, VendorError
from mooring.references import references
from mooring.types import MASK, AuthMethod, ConfigField, Connector, Secret, build_config, split_config

if TYPE_CHECKING:
    from mooring.broker import Broker
    from mooring.hookspecs import Lifted
    from mooring.registry import Registry, Route

AGAIN, UNVERIFIED, NAME, SCOPE, GIVE_UP = "try again", "do not verify", "the name", "the scope", "give up"
ALL = "all"
OWN = (
    *("type_", "auth_method", "resource_type", "resource_id"),
    *("auto_configure", "no_verify", "interactive", "expires_at"),
)
"""Options that the questions are about; the others are written as they were given."""


def register_guided(
    ctx: click.Context,
    registry: Registry,
    arguments: Sequence[str],
    named: Mapping[str, str | None],
    *,
    auto_configure: bool,
    output: str,
    rest: dict[str, Any],
) -> None:
    """Ask for what was not given, register it, and say how to do the same without questions."""
    with guiding(ctx.obj, "nothing was registered") as guide:
        say(INTRO)
        route = registry.route(named["type_"] or _type(guide, registry))
        registering = Registering(ctx, guide, route, rest)
        registering.take(arguments, named["auth_method"])
        registering.ask(named["auth_method"], auto_configure=auto_configure, scope=rest["resource_type"] is None)
        registering.finish(registry, output)
        show_command(registering.command(), asks=registering.asks)


def _type(guide: Guide, registry: Registry) -> str:
    choices = [(one.type.name, one.type.title) for one in registry.routes()]
    if not choices:
        raise InvalidConfig("no connector type is installed; install a plugin, such as mooring-aws")
    return guide.choose("connector type", choices, default=choices[0][0] if len(choices) == 1 else None)


class Registering:
    """The connector that the answers make.

    Args:
        ctx: the command's.
        guide: asks.
        route: the connector type's.
        rest: what else `Broker.register` takes.
    """

    def __init__(self, ctx: click.Context, guide: Guide, route: Route, rest: dict[str, Any]) -> None:
        self._ctx = ctx
        self._run: Run = ctx.obj
        self._guide = guide
        self._route = route
        self._rest = rest
        self._options = [option for param in ctx.command.params for option in param.opts]
        self.name = ""
        self.config: dict[str, Any] = {}
        self._paths: dict[str, str] = {}
        """The files that fields were read from, as @FILE."""
        self._lifted: Lifted | None = None
        """Where the configuration was found, as long as nothing of it is changed."""
        self._sought: dict[str, Any] = {}
        """What was given to say what to look for there."""
        self._method: AuthMethod | None = None
        self._stored = False

    # -- what was given -------------------------------------------------------------------------------------------

    def take(self, arguments: Sequence[str], auth_method: str | None) -> None:
        """What stands on the command line: the name and fields, which are not asked for again."""
        methods = [self._route.auth_method(auth_method)] if auth_method else list(self._route.type.auth_methods)
        positional, given = split(arguments, fields_for(self._route, methods), self._options)
        source = Source()
        self.config = values(given, source, self._run.mask)
        source.warn()
        self._paths = {
            field.name: text for field, text in given if isinstance(text, str) and not field.multiple and is_path(text)
        }
        if positional:
            self.name = one_name(positional)
            check_free(self._run, self.name)
        self._arguments = arguments

    @property
    def method(self) -> AuthMethod:
        """The auth method, once it is known."""
        assert self._method is not None  # noqa: S101
        return self._method

    @property
    def _fields(self) -> Fields:
        return fields_for(self._route, [self.method])

    # -- what is asked --------------------------------------------------------------------------------------------

    def ask(self, auth_method: str | None, *, auto_configure: bool, scope: bool) -> None:
        """Everything, in order."""
        if not self.name:
            self._ask_name()
        if not self._lift(auth_method, asked_for=auto_configure):
            self._method = self._route.auth_method(auth_method or self._ask_method())
            split(self._arguments, self._fields, self._options)  # a field of another method is refused
            self._ask_fields()
        if scope:
            self._ask_scope()

    def _ask_name(self) -> None:
        def free(text: str) -> str:
            check_free(self._run, text)
            return text

        self.name = self._guide.ask("name", free, about="what to call the connector")

    def _lift(self, auth_method: str | None, *, asked_for: bool) -> bool:
        """Offer what this machine has; whether it was taken."""
        if self._route.lift is None and not asked_for:
            return False
        if not asked_for and any(isinstance(value, Secret) for value in self.config.values()):
            return False
        options = dict(self.config)
        try:
            found = with_broker(
                self._run, lambda broker: broker.lift(self._route.type.name, auth_method=auth_method, options=options)
            )
        except (ConfigError, VendorError) as error:
            if asked_for:
                raise
            why = "" if isinstance(error, NothingToLift) else "what there is cannot be used: "
            say(f"This machine has nothing to configure it from: {why}{self._run.told(error)}")
            return False
        settings, secrets = split_config(found.config)
        self._run.mask.learn(*secrets.values())
        say(f"This machine has what it takes: the auth method {found.auth_method!r}, from {found.source}.")
        if not asked_for and not self._guide.confirm("Take it?"):
            return False
        self._lifted, self._sought = found, options
        self._method = self._route.auth_method(found.auth_method)
        self.config = settings | secrets
        self._rest["expires_at"] = self._rest["expires_at"] or found.expires_at
        return True

    def _ask_method(self) -> str:
        methods = self._route.type.auth_methods
        if not settings_from().allow_implicit and (off := [one.name for one in methods if one.implicit]):
            say(f"Left out, since MOORING_ALLOW_IMPLICIT is not set: {', '.join(off)}")
            methods = tuple(one for one in methods if not one.implicit)
        if len(methods) == 1:
            say(f"It has one auth method, {methods[0].name}.")
            return methods[0].name
        return self._guide.choose("auth method", [(one.name, one.description or one.title) for one in methods])

    def _ask_fields(self) -> None:
        """Those that are needed, then of the others whichever are wanted."""
        fields = self._fields.by_name
        for field in fields.values():
            if field.required and field.name not in self.config:
                self._ask_field(field)
        while (problem := self._problem()) and (named := fields.get(problem.field or "")):
            if named.name in self.config or not self._ask_field(named):
                break
        while any(name not in self.config for name in fields):
            say("More fields, which may be left as they are:")
            more = [(name, self._about(field)) for name, field in fields.items() if not field.required]
            if not (name := self._guide.choose("field to set, or Enter for none", more, default="")):
                break
            self._ask_field(fields[name])
        while problem := self._problem():
            say(f"Error: {self._run.told(problem)}")
            self._mend(problem)

    def _about(self, field: ConfigField) -> str:
        """A field's help, and its value."""
        default = "" if field.default in (None, "", (), [], {}) else f"{self._text(field.default)} unless set"
        present = f"now {self._text(self.config[field.name])}" if field.name in self.config else default
        return "; ".join(filter(None, (field.description, present)))

    def _ask_field(self, field: ConfigField) -> bool:
        """A field's value; whether there is one. What does not fit is asked for again at once."""
        self._lifted = None
        while True:
            self.config.pop(field.name, None)
            self._paths.pop(field.name, None)
            value = self._answer(field)
            if value is None:
                return False
            self.config[field.name] = value
            problem = self._problem()
            if problem is None or problem.field != field.name:
                return True
            if not self._guide.person:
                raise InvalidConfig(f"{self._run.told(problem)}; {self._guide.undone}", field=field.name)
            say(f"  Error: {self._run.told(problem)}")

    def _answer(self, field: ConfigField) -> Any:
        """What was typed, as the command line would take it; None for nothing."""
        ask = self._guide
        if field.type == "bool":
            about = f" ({field.description})" if field.description else ""
            return ask.confirm(f"{field.name}{about}:", default=not field.default)
        if field.choices:
            choice = ask.choose(field.name, [(one, "") for one in field.choices], default=self._default(field))
            return choice or None
        if not field.multiple:
            return ask.ask(
                field.name, self._reader(field), about=field.description, default=self._default(field),
                hidden=field.secret,
            )  # fmt: skip
        form = "key=value, one at a time" if field.type == "dict" else "one at a time"
        about = "; ".join(filter(None, (field.description, form, "empty to end")))
        given: list[Any] = []
        while (one := ask.ask(field.name, self._reader(field), about=about, default="")) is not None:
            given.append(one)
        merged = {key: value for one in given for key, value in one.items()} if field.type == "dict" else given
        return merged or None

    def _default(self, field: ConfigField) -> str | None:
        return None if field.required else str(field.default) if field.default is not None else ""

    def _reader(self, field: ConfigField) -> Callable[[str], Any]:
        """Reads one answer as an option is read."""

        def read(text: str) -> Any:
            if not text:
                return None
            if text == "-":
                raise InvalidConfig("type the value itself, or @FILE")
            found = values([(field, text)], Source(), self._run.mask)[field.name]
            if is_path(text) and not field.multiple:
                self._paths[field.name] = text
            return found[0] if field.multiple and field.type != "dict" else found

        return read

    def _problem(self) -> InvalidConfig | None:
        """What is wrong with the configuration as it is; of one that refers to secrets, the broker knows."""
        if any(references(value) for value in self.config.values()):
            return None
        try:
            build_config(self.method.config, self.config)
        except InvalidConfig as error:
            return error
        return None

    def _ask_scope(self) -> None:
        kinds = [
            one
            for one in self._route.type.resource_types
            if not one.auth_methods or self.method.name in one.auth_methods
        ]
        choices = [(ALL, "everything that it reaches"), *((one.name, one.title or one.description) for one in kinds)]
        chosen = self._guide.choose("resource type to confine it to", choices, default=ALL)
        self._rest |= {"resource_type": None if chosen == ALL else chosen, "resource_id": None}
        if chosen == ALL:
            return
        kind = self._route.resource_type(chosen)

        def read(text: str) -> str | None:
            if text and (error := refusal(self._route, kind, text)):
                raise error
            return text or None

        about = "; ".join(filter(None, (" or ".join(kind.formats), "empty for all of them")))
        self._rest["resource_id"] = self._guide.ask("resource id", read, about=about, default="")

    # -- until it is accepted -------------------------------------------------------------------------------------

    def finish(self, registry: Registry, output: str) -> None:
        """Show what it comes to, verify and store it; what is wrong is asked for again."""
        show_summary(self._summary())
        while not self._guide.confirm("Register it?"):
            self._change(None)
            show_summary(self._summary())
        while True:
            if self._rest["verify"]:
                say(f"Asking {self._route.type.title or self._route.type.name} whether it accepts it ...")
            try:
                done = f"Registered the connector {self.name!r}"
                store_and_show(self._run, self._store, registry, output, done=done, listed=self._rest["verify"])
            except (ConfigError, VendorError) as error:
                if self._stored or not self._guide.person:
                    raise
                say(f"Error: {self._run.told(error)}")
                self._mend(error)
            except KeyboardInterrupt:
                with suppress(NameTaken):
                    check_free(self._run, self.name)
                    raise
                say(f"Interrupted; the connector {self.name!r} is stored.")
                raise click.exceptions.Exit(INTERRUPTED) from None
            else:
                return

    async def _store(self, broker: Broker) -> Connector:
        made = await broker.register(
            self.name, type=self._route.type.name, auth_method=self.method.name,
            config=self._lifted.config if self._lifted else self.config, **self._rest,
        )  # fmt: skip
        self._stored = True
        return made

    def _mend(self, error: MooringError) -> None:
        """Ask again for what an error is about; where it does not say, for what the user thinks."""
        field = getattr(error, "field", None) or ""
        if not self._guide.person:
            raise error
        if field in self._fields.by_name:
            self._ask_field(self._fields.by_name[field])
        elif field == "name":
            self._ask_name()
        elif field in ("resource_type", "resource_id"):
            self._ask_scope()
        else:
            self._change(error)

    def _change(self, error: MooringError | None) -> None:
        """Ask what to change, and for that."""
        fields = self._fields.by_name
        choices = [(name, self._about(field)) for name, field in fields.items()]
        choices += [(NAME, self.name), (SCOPE, self._scope())]
        default = None
        if error is not None:
            secrets = [name for name, field in fields.items() if field.secret and name in self.config]
            default = AGAIN if error.retryable or not secrets else secrets[0]
            choices += [(AGAIN, "as it is"), (UNVERIFIED, "register it without asking the vendor")]
        chosen = self._guide.choose("what to change", [*choices, (GIVE_UP, "register nothing")], default=default)
        if chosen in fields:
            self._ask_field(fields[chosen])
        elif chosen == NAME:
            self._ask_name()
        elif chosen == SCOPE:
            self._ask_scope()
        elif chosen == UNVERIFIED:
            self._rest["verify"] = False
        elif chosen == GIVE_UP:
            self._guide.give_up()

    # -- what is shown --------------------------------------------------------------------------------------------

    def _summary(self) -> list[tuple[str, str]]:
        rows = [("name", self.name), ("type", self._route.type.name), ("auth method", self.method.name)]
        rows += [(name, self._text(self.config[name])) for name in self._fields.by_name if name in self.config]
        rows += [("from", self._lifted.source)] if self._lifted else []
        return [*rows, ("reaches", self._scope())]

    def _scope(self) -> str:
        kind, one = self._rest["resource_type"], self._rest["resource_id"]
        return " ".join(filter(None, (kind, one))) or "everything that it can"

    def _text(self, value: Any) -> str:
        """A value as it is shown; a secret as three stars or so."""
        if isinstance(value, Secret):
            return MASK
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, dict):
            value = [f"{key}={one}" for key, one in value.items()]
        return self._run.mask(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))

    @property
    def asks(self) -> bool:
        """Whether the command asks for a secret that was typed."""
        return any(word.endswith("=-") for word in self.command())

    def command(self) -> list[str]:
        """What registers the same without questions; a secret is its file, or a `-`."""
        words = [*self._ctx.command_path.split(), self.name, f"--type={self._route.type.name}"]
        words += ["--auto-configure"] if self._lifted else []
        if self._lifted is None or self._given("auth_method"):
            words.append(f"--auth-method={self.method.name}")
        config = self._sought if self._lifted else self.config
        for name, field in self._fields_of(config):
            words += self._words(field, config[name])
        for option in ("resource_type", "resource_id"):
            words += [_option(option, self._rest[option])] if self._rest[option] else []
        if (ends := self._rest["expires_at"]) and (self._lifted is None or self._given("expires_at")):
            words.append(_option("expires_at", ends.isoformat()))
        words += [] if self._rest["verify"] else ["--no-verify"]
        return [*words, *self._others()]

    def _fields_of(self, config: dict[str, Any]) -> list[tuple[str, ConfigField]]:
        known = fields_for(self._route, self._route.type.auth_methods if self._lifted else [self.method]).by_name
        return [(name, field) for name, field in known.items() if name in config]

    def _words(self, field: ConfigField, value: Any) -> list[str]:
        """A field as options."""
        dashed = f"--{field.name.replace('_', '-')}"
        before = APART if dashed in self._options else "--"
        option = f"{before}{dashed[2:]}"
        if field.name in self._paths:
            return [f"{option}={self._paths[field.name]}"]
        if isinstance(value, Secret):
            return [f"{option}=-"]
        if field.type == "bool":
            return [option if value else f"{before}no-{dashed[2:]}"]
        if isinstance(value, dict):
            value = [f"{key}={one}" for key, one in value.items()]
        return [_written(option, str(one)) for one in (value if isinstance(value, list | tuple) else [value])]

    def _given(self, option: str) -> bool:
        return self._ctx.get_parameter_source(option) is ParameterSource.COMMANDLINE

    def _others(self) -> list[str]:
        """The options that nothing was asked about, as they were given."""
        words: list[str] = []
        for param in self._ctx.command.params:
            name = param.name or ""
            if not isinstance(param, click.Option) or name in OWN or not self._given(name):
                continue
            value = self._ctx.params[name]
            if value is True:
                words.append(_flag(name))
                continue
            for one in value if isinstance(value, tuple) else (value,):
                text = written(one) if isinstance(one, timedelta) else str(one)
                words.append(_option(name, text))
        return words


def check_free(run: Run, name: str) -> None:
    """Refuse a name that is none, or that a connector has. No store is made for it."""
    from mooring.broker._register import check_name

    check_name(name)
    if not stored():
        return

    async def names(broker: Broker) -> list[str]:
        return [one.name for one in await broker.list()]

    if name in with_broker(run, names, looking=True):
        raise NameTaken(f"a connector named {name!r} exists already; choose another name")


def _flag(name: str) -> str:
    return f"--{name.rstrip('_').replace('_', '-')}"


def _option(name: str, value: str) -> str:
    return f"{_flag(name)}={value}"


def _written(option: str, text: str) -> str:
    """A field's value, so that it is read as it stands; what the shell cannot be shown is left to a file."""
    if not text.isprintable():
        return f"{option}=@FILE"
    return f"{option}={'@' if text.startswith('@') else ''}{text}"
