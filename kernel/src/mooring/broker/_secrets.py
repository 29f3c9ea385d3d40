"""Named secrets: kept once, and referred to by any configuration as `{{name.key}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mooring.broker._desk import Desk
from mooring.broker._documents import Document, Documents, Listing
from mooring.errors import InvalidConfig, MooringError
from mooring.references import references, resolve
from mooring.types import Connector, Secret

SECRET = "secret"  # noqa: S105  the kind, not one
KEY = re.compile(r"[A-Za-z_][\w-]{0,127}", re.ASCII)


class NamedSecrets:
    """The named secrets of a broker's store."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._documents = Documents(desk, SECRET)

    async def create(self, name: str, values: Mapping[str, Secret | str]) -> Document:
        """Seal values under a name; a value may refer to other secrets.

        Raises:
            NameTaken: there is one of that name.
            InvalidConfig: the name or a key is none, a value is empty, or refers to itself in the end.
            UnknownDocument: a value refers to a secret that there is not.
        """
        held = _checked(values)
        await self._check_references(name, held)
        return await self._documents.add(name, {}, secrets=held)

    async def get(self, name: str) -> Document:
        """What is known of one: its keys are its `fields`.

        Raises:
            UnknownDocument: there is none.
        """
        return await self._documents.get(name)

    async def list(self) -> Listing:
        """All, by name."""
        return await self._documents.list()

    async def open(self, name: str) -> dict[str, Secret]:
        """The values, as they were given: references are not resolved. That it was opened is on record."""
        found = await self._documents.get(name)
        await self._documents.note("open", found)
        return await self._documents.open(found.id)

    async def update(self, name: str, values: Mapping[str, Secret | str | None]) -> Document:
        """Set keys, or remove those whose value is None. What was issued with what it held before is served no more.

        Raises:
            InvalidConfig: a key is none, none would be left, or a value refers to itself in the end.
            UnknownDocument: a value refers to a secret that there is not.
        """
        found = await self._documents.get(name)
        present = await self._documents.open(found.id)
        for key, value in values.items():
            if value is None and key not in present:
                raise InvalidConfig(f"secret {found.name!r} has no key {key[:64]!r} to remove", field=key)
        kept = {key: value for key, value in present.items() if key not in values}
        held = kept | _checked({key: value for key, value in values.items() if value is not None}, kept)
        await self._check_references(found.name, held)
        changed = await self._documents.replace(found, secrets=held)
        for connector in await self._connectors(found.name):
            await self._desk.cache.forget(connector.id)
        return changed

    async def delete(self, name: str, *, force: bool = False) -> Document:
        """Remove one.

        Raises:
            InUse: a configuration refers to it, and it is not forced.
        """
        found = await self._documents.get(name)
        if not force:
            await self._desk.unused(SECRET, found.id, found.name, await self._users(found.name))
        connectors = await self._connectors(found.name)
        await self._documents.delete(found)
        for connector in connectors:
            await self._desk.cache.forget(connector.id)
        return found

    async def _check_references(self, name: str, held: Mapping[str, Secret]) -> None:
        """Refuse values that could not be resolved, as they are now."""

        async def read(other: str) -> Mapping[str, Secret]:
            return held if other == name else await self._desk.open_secret(other)

        await resolve(held, read)

    async def _users(self, name: str) -> Sequence[str]:
        """The connectors and other secrets that refer to a secret."""
        others = [one for one in await self._documents.list() if one.name != name]
        return [
            *[f"connector {one.name}" for one in await self._connectors(name)],
            *[f"secret {one.name}" for one in others if name in references(await self._documents.open(one.id))],
        ]

    async def _connectors(self, name: str) -> Sequence[Connector]:
        """Those that refer to a secret, also by others."""
        return [one for one in await self._desk.connectors() if name in await self._referred(one.id)]

    async def _referred(self, connector_id: str) -> set[str]:
        """The secrets that a connector refers to, also by others; none, where it cannot be opened."""
        try:
            connector = await self._desk.find(connector_id)
            named = references(connector.settings | await self._desk.open(connector))
            for _ in range(8):
                named |= {further for one in named for further in references(await self._desk.open_secret(one))}
        except MooringError:
            return set()
        return named


def check_key(key: str) -> None:
    """Refuse what no key of a secret can be."""
    if not KEY.fullmatch(key):
        raise InvalidConfig(
            f"the key {key[:64]!r} is none; it is letters, digits, dashes and underscores, beginning with a letter, "
            "128 at most"
        )


def _checked(values: Mapping[str, Secret | str], kept: Mapping[str, Secret] = {}) -> dict[str, Secret]:
    for key, value in values.items():
        check_key(key)
        if not value:
            raise InvalidConfig(f"the value of key {key!r} is empty", field=key)
    if not values and not kept:
        raise InvalidConfig("a secret holds at least one key; give key=value")
    return {key: value if isinstance(value, Secret) else Secret(value) for key, value in values.items()}
