"""`register -i`: what a connector needs, asked for one after the other, until the vendor accepts it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from mooring.assembly import settings_from
from mooring.cli._broker import with_broker
from mooring.cli._draft import Draft, options_of
from mooring.cli._edge import Run
from mooring.cli._field_questions import FieldQuestions
from mooring.cli._fields import fields_for, split, values
from mooring.cli._guided import INTRO, Guide, guiding, is_path, show_command, show_summary, stored
from mooring.cli._known import refusal
from mooring.cli._output import say
from mooring.cli._process import INTERRUPTED
from mooring.cli._register import one_name, store_and_show
from mooring.cli._secrets import Source
from mooring.errors import (
    ConfigError,
    InvalidConfig,
    MooringError,
    NameTaken,
    NothingToLift,
    ResourceNotFound,
    UnsupportedResource,
    VendorError,
)
from mooring.types import Connector, Secret, split_config

if TYPE_CHECKING:
    from mooring.broker import Broker
    from mooring.registry import Registry

AGAIN, UNVERIFIED, NAME, SCOPE, GIVE_UP = "try again", "do not verify", "the name", "the scope", "give up"
ALL = "all"


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
        if guide.person:
            say(INTRO)
        route = registry.route(named["type_"] or _type(guide, registry))
        draft = Draft(ctx, route, rest)
        registering = Registering(ctx, guide, draft)
        registering.take(arguments, named["auth_method"])
        registering.ask(named["auth_method"], auto_configure=auto_configure, scope=rest["resource_type"] is None)
        registering.finish(registry, output)
        show_command(words := draft.command(), asks=any(word.endswith("=-") for word in words))


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
        draft: what is known of it.
    """

    def __init__(self, ctx: click.Context, guide: Guide, draft: Draft) -> None:
        self._ctx = ctx
        self._run: Run = ctx.obj
        self._guide = guide
        self._draft = draft
        self._questions = FieldQuestions(guide, draft)
        self._arguments: Sequence[str] = ()
        self._stored = False

    # -- what was given -------------------------------------------------------------------------------------------

    def take(self, arguments: Sequence[str], auth_method: str | None) -> None:
        """What stands on the command line: the name and fields, which are not asked for again."""
        methods = (
            [self._draft.route.auth_method(auth_method)] if auth_method else list(self._draft.route.type.auth_methods)
        )
        positional, given = split(arguments, fields_for(self._draft.route, methods), options_of(self._ctx))
        source = Source()
        self._draft.config = values(given, source, self._run.mask)
        source.warn()
        self._draft.paths = {
            field.name: text for field, text in given if isinstance(text, str) and not field.multiple and is_path(text)
        }
        if positional:
            self._draft.name = one_name(positional)
            check_free(self._run, self._draft.name)
        self._arguments = arguments

    # -- what is asked --------------------------------------------------------------------------------------------

    def ask(self, auth_method: str | None, *, auto_configure: bool, scope: bool) -> None:
        """Everything, in order."""
        if not self._draft.name:
            self._ask_name()
        if not self._lift(auth_method, asked_for=auto_configure):
            self._draft.chosen = self._draft.route.auth_method(auth_method or self._ask_method())
            split(self._arguments, self._draft.fields, options_of(self._ctx))  # a field of another method is refused
            self._ask_fields()
        if scope:
            self._ask_scope()

    def _ask_name(self) -> None:
        def free(text: str) -> str:
            check_free(self._run, text)
            return text

        self._draft.name = self._guide.ask("name", free, about="what to call the connector")

    def _lift(self, auth_method: str | None, *, asked_for: bool) -> bool:
        """Offer what this machine has; whether it was taken."""
        if self._draft.route.lift is None and not asked_for:
            return False
        if not asked_for and any(isinstance(value, Secret) for value in self._draft.config.values()):
            return False
        options = dict(self._draft.config)
        say("Looking at what this machine has ...")
        try:
            found = with_broker(
                self._run,
                lambda broker: broker.lift(self._draft.route.type.name, auth_method=auth_method, options=options),
                storeless=True,
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
        self._draft.lifted, self._draft.sought = found, options
        self._draft.chosen = self._draft.route.auth_method(found.auth_method)
        self._draft.config = settings | secrets
        self._draft.rest["expires_at"] = self._draft.rest["expires_at"] or found.expires_at
        return True

    def _ask_method(self) -> str:
        methods = self._draft.route.type.auth_methods
        if not settings_from().allow_implicit and (off := [one.name for one in methods if one.implicit]):
            say(f"Left out, since MOORING_ALLOW_IMPLICIT is not set: {', '.join(off)}")
            methods = tuple(one for one in methods if not one.implicit)
        if len(methods) == 1:
            say(f"It has one auth method, {methods[0].name}.")
            return methods[0].name
        return self._guide.choose("auth method", [(one.name, one.title or _first(one.description)) for one in methods])

    def _ask_fields(self) -> None:
        """Those that are needed, then of the others whichever are wanted."""
        fields = self._draft.fields.by_name
        for field in fields.values():
            if field.required and field.name not in self._draft.config:
                self._questions.ask(field)
        while (problem := self._questions.problem()) and (named := fields.get(problem.field or "")):
            if named.name in self._draft.config:
                say(f"Error: {self._run.told(problem)}")
                self._mend(problem)
            elif not self._questions.ask(named):
                break
        self._ask_more()
        while problem := self._questions.problem():
            say(f"Error: {self._run.told(problem)}")
            left_out = problem.field in fields and problem.field not in self._draft.config
            if left_out and self._guide.person:
                self._ask_more()  # another field may do as well
            else:
                self._mend(problem)

    def _ask_more(self) -> None:
        """Those fields that are not needed, until none is wanted."""
        fields = self._draft.fields.by_name
        while any(name not in self._draft.config for name in fields):
            say("More fields, which may be left as they are:")
            more = [(name, self._questions.about(field)) for name, field in fields.items() if not field.required]
            if not (name := self._guide.choose("field to set, or Enter for none", more, default="")):
                break
            self._questions.ask(fields[name])

    def _ask_scope(self) -> None:
        kinds = [
            one
            for one in self._draft.route.type.resource_types
            if not one.auth_methods or self._draft.method.name in one.auth_methods
        ]
        choices = [
            (ALL, "everything that it reaches"),
            *((one.name, one.title or _first(one.description)) for one in kinds),
        ]
        chosen = self._guide.choose("resource type to confine it to", choices, default=ALL)
        self._draft.rest |= {"resource_type": None if chosen == ALL else chosen, "resource_id": None}
        if chosen == ALL:
            return
        kind = self._draft.route.resource_type(chosen)

        def read(text: str) -> str | None:
            if text and (error := refusal(self._draft.route, kind, text)):
                raise error
            return text or None

        about = "; ".join(filter(None, (" or ".join(kind.formats), "empty for all of them")))
        self._draft.rest["resource_id"] = self._guide.ask("resource id", read, about=about, default="")

    # -- until it is accepted -------------------------------------------------------------------------------------

    def finish(self, registry: Registry, output: str) -> None:
        """Show what it comes to, verify and store it; what is wrong is asked for again."""
        show_summary(self._draft.summary())
        while not self._guide.confirm("Register it?"):
            self._change(None)
            show_summary(self._draft.summary())
        while True:
            if self._draft.rest["verify"]:
                say(f"Asking {self._draft.route.type.title or self._draft.route.type.name} whether it accepts it ...")
            try:
                done = f"Registered the connector {self._draft.name!r}"
                store_and_show(self._run, self._store, registry, output, done=done, listed=self._draft.rest["verify"])
            except (ConfigError, VendorError) as error:
                if self._stored or not self._guide.person:
                    raise
                say(f"Error: {self._run.told(error)}")
                self._mend(error)
            except KeyboardInterrupt:
                with suppress(NameTaken):
                    check_free(self._run, self._draft.name)
                    raise
                say(f"Interrupted; the connector {self._draft.name!r} is stored.")
                raise click.exceptions.Exit(INTERRUPTED) from None
            else:
                return

    async def _store(self, broker: Broker) -> Connector:
        made = await broker.register(
            self._draft.name, type=self._draft.route.type.name, auth_method=self._draft.method.name,
            config=self._draft.lifted.config if self._draft.lifted else self._draft.config, **self._draft.rest,
        )  # fmt: skip
        self._stored = True
        return made

    def _mend(self, error: MooringError) -> None:
        """Ask again for what an error is about; where it does not say, for what the user thinks."""
        told = [name for name in self._named(error) if "_" in name]  # which is no word that says something else
        field = getattr(error, "field", None) or (told[0] if len(told) == 1 else "")
        if not self._guide.person:
            raise error
        if field in self._draft.fields.by_name:
            self._questions.ask(self._draft.fields.by_name[field])
        elif field == "name":
            self._ask_name()
        elif field in ("resource_type", "resource_id"):
            self._ask_scope()
        else:
            self._change(error)

    def _named(self, error: MooringError) -> list[str]:
        """The fields that an error's message names, out of those that were given."""
        return [name for name in self._draft.config if re.search(rf"\b{re.escape(name)}\b", error.message)]

    def _suspect(self, error: MooringError) -> str:
        """What is most likely to be changed for an error: what it names, what it is about, a secret."""
        if error.retryable:
            return AGAIN
        if isinstance(error, ResourceNotFound | UnsupportedResource) and self._draft.rest["resource_id"]:
            return SCOPE
        secrets = [name for name, field in self._draft.fields.by_name.items() if field.secret]
        given = [name for name in secrets if name in self._draft.config]
        return next(iter([*self._named(error), *given]), AGAIN)

    def _change(self, error: MooringError | None) -> None:
        """Ask what to change, and for that."""
        fields = self._draft.fields.by_name
        choices = [(name, self._questions.about(field)) for name, field in fields.items()]
        choices += [(NAME, self._draft.name), (SCOPE, self._draft.scope())]
        default = None
        if error is not None:
            default = self._suspect(error)
            choices += [(AGAIN, "as it is"), (UNVERIFIED, "register it without asking the vendor")]
        chosen = self._guide.choose("what to change", [*choices, (GIVE_UP, "register nothing")], default=default)
        if chosen in fields:
            self._questions.ask(fields[chosen])
        elif chosen == NAME:
            self._ask_name()
        elif chosen == SCOPE:
            self._ask_scope()
        elif chosen == UNVERIFIED:
            self._draft.rest["verify"] = False
        elif chosen == GIVE_UP:
            self._guide.give_up()


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


def _first(text: str) -> str:
    """The first sentence, without its end."""
    return text.partition(". ")[0].removesuffix(".")
