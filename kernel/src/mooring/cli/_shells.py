"""Variables as text: what each shell evaluates to just these values, whatever they hold; and a dotenv file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mooring.errors import InvalidConfig

if TYPE_CHECKING:
    from mooring.registry import Route

Variables = Mapping[str, str | None]
"""None: not to be set, whatever was there before."""
PLAIN = re.compile(r"[\w./:@%+=,-]+", re.ASCII)
"""What every reader of dotenv files takes as it stands, without quotes."""
POWERSHELL_QUOTES = re.compile("(['\u2018-\u201b])")
"""All of these end a text in single quotes, and each stands for itself when doubled."""


def posix(variables: Variables) -> str:
    """For sh, bash, zsh and their like: `eval "$(...)"`.

    >>> print(posix({"A": "it's", "B": None}), end="")
    unset B
    export A='it'"'"'s'
    """
    return _lines(variables, lambda name, value: f"export {name}={shlex.quote(value)}", lambda name: f"unset {name}")


def fish(variables: Variables) -> str:
    r"""For fish: `... | source`.

    >>> print(fish({"A": "it's", "B": None}), end="")
    set -e B
    set -gx A 'it\'s'
    """

    def put(name: str, value: str) -> str:
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {name} '{quoted}'"

    return _lines(variables, put, lambda name: f"set -e {name}")


def powershell(variables: Variables) -> str:
    """For PowerShell: `... | Out-String | Invoke-Expression`.

    >>> print(powershell({"A": "it's", "B": None}), end="")
    Remove-Item -ErrorAction Ignore Env:B
    $env:A = 'it''s'
    """

    def put(name: str, value: str) -> str:
        quoted = POWERSHELL_QUOTES.sub(r"\1\1", value)
        return f"$env:{name} = '{quoted}'"

    return _lines(variables, put, lambda name: f"Remove-Item -ErrorAction Ignore Env:{name}")


def dotenv(variables: Variables) -> str:
    """A file of `NAME=value` as docker's `--env-file`, compose, the dotenv libraries and sh read it.

    >>> print(dotenv({"A": "x/y=", "B": None, "C": ""}), end="")
    A=x/y=
    C=

    Raises:
        InvalidConfig: a value needs quotes, which docker takes for a part of it, and others read each in its own way.

    Source: https://docs.docker.com/reference/cli/docker/container/run/#env
    """

    def put(name: str, value: str) -> str:
        if value and not PLAIN.fullmatch(value):
            raise InvalidConfig(
                f"the value of {name} needs quotes, which readers of dotenv files, docker's --env-file among them, do "
                "not agree about; use the format 'env', or mooring exec",
                field="format",
            )
        return f"{name}={value}"

    return _lines(variables, put)


SHELLS: dict[str, Callable[[Variables], str]] = {
    "env": posix,
    "posix": posix,
    "fish": fish,
    "powershell": powershell,
    "dotenv": dotenv,
}
"""The formats of `issue` that any plugin with the power `environment` has."""


def formats_of(route: Route) -> tuple[str, ...]:
    """The formats that a plugin's credentials can be written in, beside those that need no plugin."""
    return tuple(dict.fromkeys((*route.type.formats, *(SHELLS if route.environment else ()))))


def _lines(variables: Variables, put: Callable[[str, str], str], drop: Callable[[str], str] | None = None) -> str:
    dropped = [drop(name) for name, value in variables.items() if value is None] if drop else []
    return "".join(f"{line}\n" for line in (*dropped, *(put(n, v) for n, v in variables.items() if v is not None)))
