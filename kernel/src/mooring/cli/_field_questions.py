"""Questions about the fields of an auth method: each with its help and its default, and read as an option is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mooring.cli._draft import Draft
from mooring.cli._fields import values
from mooring.cli._guided import Guide, is_path
from mooring.cli._output import say
from mooring.cli._secrets import Source
from mooring.errors import InvalidConfig
from mooring.references import references
from mooring.types import ConfigField, build_config


class FieldQuestions:
    """Fill the configuration of a draft.

    Args:
        guide: asks.
        draft: whose auth method is known by then.
    """

    def __init__(self, guide: Guide, draft: Draft) -> None:
        self._guide = guide
        self._draft = draft

    def about(self, field: ConfigField) -> str:
        """A field's help, and its value."""
        default = "" if field.default in (None, "", (), [], {}) else f"{self._draft.text(field.default)} unless set"
        present = (
            f"now {self._draft.text(self._draft.config[field.name])}" if field.name in self._draft.config else default
        )
        return "; ".join(filter(None, (field.description, present)))

    def ask(self, field: ConfigField) -> bool:
        """A field's value; whether there is one. What does not fit is asked for again at once."""
        self._draft.lifted = None
        while True:
            self._draft.config.pop(field.name, None)
            self._draft.paths.pop(field.name, None)
            value = self._answer(field)
            if value is None:
                return False
            self._draft.config[field.name] = value
            problem = self.problem()
            if problem is None or problem.field != field.name:
                return True
            if not self._guide.person:
                raise InvalidConfig(f"{self._guide.run.told(problem)}; {self._guide.undone}", field=field.name)
            say(f"  Error: {self._guide.run.told(problem)}")

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
            found = values([(field, text)], Source(), self._guide.run.mask)[field.name]
            if is_path(text) and not field.multiple:
                self._draft.paths[field.name] = text
            return found[0] if field.multiple and field.type != "dict" else found

        return read

    def problem(self) -> InvalidConfig | None:
        """What is wrong with the configuration as it is; of one that refers to secrets, the broker knows."""
        if any(references(value) for value in self._draft.config.values()):
            return None
        try:
            build_config(self._draft.method.config, self._draft.config)
        except InvalidConfig as error:
            return error
        return None
