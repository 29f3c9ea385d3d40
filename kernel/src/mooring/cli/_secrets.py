"""Where the values of fields come from: the command line, a file, standard input, or a hidden prompt."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from mooring.cli._output import say
from mooring.cli._process import begin
from mooring.cli._signals import typing_hidden
from mooring.errors import InvalidConfig
from mooring.references import only_references
from mooring.types import ConfigField, Secret

MAX_BYTES = 1 << 20


class Source:
    """Reads values: `-` is standard input, `@path` a file, `@@...` a value that begins with `@`."""

    def __init__(self) -> None:
        self._stdin_for: str | None = None
        self._in_clear: list[str] = []

    def read(self, field: ConfigField, given: str) -> str:
        """The value of a field.

        Raises:
            InvalidConfig: it cannot be read. Never shows what was given, which may be a secret with an `@`.
        """
        if given == "-":
            return prompted(field) if field.secret and sys.stdin.isatty() else self._stdin(field)
        if given.startswith("@@"):
            given = given[1:]
        elif given.startswith("@"):
            return _file(field, given[1:])
        if field.secret and not only_references(given):
            self._in_clear.append(field.name)
        return given

    def _stdin(self, field: ConfigField) -> str:
        if self._stdin_for is not None:
            message = f"the fields {self._stdin_for!r} and {field.name!r} cannot both be read from standard input"
            raise InvalidConfig(f"{message}; give one of them as @path", field=field.name)
        self._stdin_for = field.name
        try:
            return _checked(field, sys.stdin.read(MAX_BYTES + 1))
        except UnicodeDecodeError:
            problem = "it is not text in UTF-8"
        except OSError as error:
            problem = error.strerror or "it cannot be read"
        raise InvalidConfig(f"field {field.name!r} cannot be read from standard input: {problem}", field=field.name)

    def warn(self) -> None:
        """Say which secrets were given where others can see them."""
        if self._in_clear:
            names = ", ".join(dict.fromkeys(self._in_clear))
            say(
                f"Warning: what is given on the command line (here: {names}) can be seen by other users and stays in "
                "the shell's history; give a secret as @path, as - for standard input, or have mooring ask for it"
            )


def _file(field: ConfigField, path: str) -> str:
    try:
        with Path(path).expanduser().open(encoding="utf-8") as file:
            return _checked(field, file.read(MAX_BYTES + 1))
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
    except (UnicodeDecodeError, RuntimeError, ValueError):
        reason = "it is not text in UTF-8"
    raise InvalidConfig(
        f"the file for field {field.name!r} cannot be read: {reason}; a value that begins with @ is written @@...",
        field=field.name,
    )


def _checked(field: ConfigField, text: str) -> str:
    if len(text) > MAX_BYTES:
        raise InvalidConfig(f"field {field.name!r} is longer than a mebibyte", field=field.name)
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise InvalidConfig(f"field {field.name!r} was to be read, but there is nothing", field=field.name)
    return text


def prompted(field: ConfigField) -> str:
    """A secret from the terminal, not shown."""
    begin()  # the terminal shall show again what is typed
    label = f"{field.name} ({field.description})" if field.description else field.name
    with typing_hidden():
        return str(click.prompt(label, hide_input=True, err=True))


def missing_secrets(fields: Iterable[ConfigField], given: dict[str, object]) -> dict[str, Secret]:
    """The required secrets that were not given, asked for where a person can answer."""
    if not sys.stdin.isatty():
        return {}
    return {
        field.name: Secret(prompted(field))
        for field in fields
        if field.required and field.secret and field.name not in given
    }
