"""References to named secrets in configurations: `{{name.key}}`, anywhere in a text.

They are stored as they are written, and resolved when the configuration is used. What a secret holds may refer to
others.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mooring.errors import InvalidConfig, suggest
from mooring.types import Secret

REFERENCE = re.compile(r"\{\{\s*([A-Za-z0-9][\w.-]{0,127})\.([A-Za-z_][\w-]{0,127})\s*\}\}", re.ASCII)
MEANT = re.compile(r"\{\{\s*\w[^{}]*\}\}")
"""What is no reference, but must have been meant as one."""
OPENING = "{{"
DEEPEST = 8
"""References through so many secrets, at most."""
MOST = 1_000
"""References in all, at most: ten in each of eight secrets would be a hundred million."""

Read = Callable[[str], Awaitable[Mapping[str, Secret]]]
"""The values of a named secret."""


def references(value: Any) -> set[str]:
    """The names of the secrets that a value refers to; values are texts, secrets, and lists and maps of them.

    >>> sorted(references({"user": "{{db.user}}", "words": ["{{ mail.word }}!"], "port": 1}))
    ['db', 'mail']
    """
    if isinstance(value, Secret):
        value = value.reveal()
    if isinstance(value, str):
        return {name for name, _ in REFERENCE.findall(value)} if OPENING in value else set()
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return set()
    return {name for one in value for name in references(one)}


def only_references(text: str) -> bool:
    """Whether nothing in a text could be a secret but what it refers to.

    >>> only_references("{{db.user}}:{{db.password}}"), only_references("{{db.user}}:tiger"), only_references("")
    (True, False, False)
    """
    return bool(references(text)) and not re.search(r"\w", REFERENCE.sub("", text))


async def resolve(values: Mapping[str, Any], read: Read) -> dict[str, Any]:
    """The values with what they refer to in place of the references.

    Raises:
        InvalidConfig: a secret lacks the key that is asked for, refers to itself in the end, a reference is malformed,
            or there are more than a thousand.
        UnknownDocument: there is no secret of that name.
    """
    resolver = _Resolver(read)
    return {name: await resolver.value(one, (), name) for name, one in values.items()}


class _Resolver:
    def __init__(self, read: Read) -> None:
        self._read = read
        self._known: dict[str, Mapping[str, Secret]] = {}
        self._followed = 0

    async def value(self, value: Any, path: tuple[str, ...], field: str) -> Any:
        """A value, resolved; the path is of the references that have led here."""
        if isinstance(value, Secret):
            return Secret(await self._text(value.reveal(), path, field))
        if isinstance(value, str):
            return await self._text(value, path, field)
        if isinstance(value, Mapping):
            return {name: await self.value(one, path, field) for name, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [await self.value(one, path, field) for one in value]
        return value

    async def _text(self, text: str, path: tuple[str, ...], field: str) -> str:
        if OPENING not in text:
            return text
        parts, end = [], 0
        for found in REFERENCE.finditer(text):
            parts += [text[end : found.start()], await self._one(found[1], found[2], path, field)]
            end = found.end()
        if MEANT.search(REFERENCE.sub("", text)):
            raise InvalidConfig(
                f"field {field!r} has a reference that is none; it is written {{{{name.key}}}}", field=field
            )
        return "".join([*parts, text[end:]])

    async def _one(self, name: str, key: str, path: tuple[str, ...], field: str) -> str:
        place = f"{name}.{key}"
        if place in path or len(path) >= DEEPEST:
            raise InvalidConfig(
                f"field {field!r} refers to a secret that refers to itself in the end: {' -> '.join([*path, place])}",
                field=field,
            )
        self._followed += 1
        if self._followed > MOST:
            raise InvalidConfig(f"field {field!r} leads to more than {MOST} references", field=field)
        if name not in self._known:
            self._known[name] = await self._read(name)
        values = self._known[name]
        if key not in values:
            raise InvalidConfig(
                f"field {field!r} refers to {place!r}, but the secret has no such key; {suggest(key, values)}",
                field=field,
            )
        return await self._text(values[key].reveal(), (*path, place), field)
