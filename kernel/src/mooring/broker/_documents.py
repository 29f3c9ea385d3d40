"""Documents: named records beside the connectors, such as secrets, for the kernel and for system plugins.

A document is kept as a connector is, under a type that no plugin can have and a name that no connector can have
(`mooring.KIND` and `KIND/NAME`): so it is sealed, rotated, backed up, restored and checked by the same code.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from mooring.broker._desk import DOCUMENT, Desk
from mooring.broker._register import check_labels, check_name
from mooring.errors import InvalidConfig, NameTaken, RecordDamaged, StoreConflict, UnknownDocument, suggest
from mooring.records import AuditEntry
from mooring.types import Connector, Secret, Struct

KIND = re.compile(r"[a-z][a-z-]{0,31}")


class Document(Struct, kw_only=True):
    """A named record. Holds no secret in the clear."""

    id: str
    kind: str
    name: str
    body: Mapping[str, Any]
    """Plain values, as JSON has them."""
    fields: tuple[str, ...] = ()
    """The names of its secrets."""
    labels: Mapping[str, str] = {}
    description: str = ""
    owner: str = ""
    created_at: datetime
    updated_at: datetime
    version: int


class Listing(list[Document]):
    """Documents by name; beside them, in `damaged`, the error of each record that cannot be read."""

    def __init__(self, documents: Iterable[Document], damaged: Iterable[RecordDamaged]) -> None:
        super().__init__(documents)
        self.damaged = list(damaged)


class Documents:
    """The documents of one kind: a word in small letters.

    Raises:
        InvalidConfig: the kind is none, or what is to be stored is nothing that JSON has.
    """

    def __init__(self, desk: Desk, kind: str) -> None:
        if not KIND.fullmatch(kind):
            raise InvalidConfig("a kind of documents is a word of small letters and dashes", field="kind")
        self._desk = desk
        self._kind = kind

    async def add(
        self,
        name: str,
        body: Mapping[str, Any],
        *,
        secrets: Mapping[str, Secret] | None = None,
        labels: Mapping[str, str] | None = None,
        description: str = "",
    ) -> Document:
        """Store a new one.

        Raises:
            NameTaken: there is one of that name.
            InvalidConfig: the name is none, or a label.
        """
        self.check(name, labels or {})
        now = self._desk.clock.now()
        record = Connector(
            id=str(uuid.uuid4()),
            name=self._stored(name),
            type=DOCUMENT + self._kind,
            auth_method="",
            settings=_plain(body),
            labels=dict(labels or {}),
            description=description,
            owner=self._desk.owner,
            created_at=now,
            updated_at=now,
        )
        problem = NameTaken(f"a {self._kind} named {name!r} exists already; choose another name, or update it")
        try:
            record = await self._desk.write(self._desk.store.add, await self._desk.seal(record, secrets or {}))
        except NameTaken:
            pass
        else:
            return await self._audited("create", record)
        raise problem

    def check(self, name: str, labels: Mapping[str, str]) -> None:
        """Refuse a name or labels that none can have.

        Raises:
            InvalidConfig: they are none.
        """
        check_name(name, self._kind)
        check_labels(labels)

    async def get(self, name: str) -> Document:
        """The one of that name, id or beginning of an id (8 characters or more).

        Raises:
            UnknownDocument: there is none.
        """
        return self._document(await self._find(name))

    async def list(self) -> Listing:
        """All, by name."""
        found = await self._desk.store.list(type=DOCUMENT + self._kind)
        return Listing(map(self._document, found), found.damaged)

    async def open(self, name: str) -> dict[str, Secret]:
        """The secrets of one."""
        return await self._desk.open(await self._find(name))

    async def replace(
        self,
        document: Document,
        *,
        body: Mapping[str, Any] | None = None,
        secrets: Mapping[str, Secret] | None = None,
        labels: Mapping[str, str] | None = None,
        description: str | None = None,
    ) -> Document:
        """Store it changed; what is not given stays.

        Raises:
            StoreConflict: somebody else has changed it since it was read.
            InvalidConfig: a label is none.
        """
        check_labels(labels or {})
        record = await self._as_read(document)
        kept = await self._desk.open(record) if secrets is None else secrets
        changed = msgspec.structs.replace(
            record,
            settings=_plain(body) if body is not None else record.settings,
            labels=dict(labels) if labels is not None else record.labels,
            description=description if description is not None else record.description,
            version=record.version + 1,
            updated_at=self._desk.clock.now(),
        )
        sealed = await self._desk.seal(changed, kept)
        return await self._audited("update", await self._desk.write(self._desk.store.replace, sealed))

    async def delete(self, document: Document) -> None:
        """Remove it.

        Raises:
            StoreConflict: somebody else has changed it since it was read.
        """
        record = await self._as_read(document)
        await self._desk.store.delete(record)
        await self._audited("delete", record)

    async def _as_read(self, document: Document) -> Connector:
        record = await self._find(document.id)
        if record.version != document.version:
            raise StoreConflict(f"{self._kind} {document.name!r} was changed since it was read; read it again")
        return record

    async def _find(self, name: str) -> Connector:
        for stored in (self._stored(name), name):
            found = await self._desk.store.find(stored)
            if found is not None and found.type == DOCUMENT + self._kind:
                return found
        names = [one.name for one in await self.list()]
        raise UnknownDocument(f"no {self._kind} is named {name!r}; {suggest(name, names)}")

    def _stored(self, name: str) -> str:
        return f"{self._kind}/{name}"

    def _document(self, record: Connector) -> Document:
        return Document(
            id=record.id,
            kind=self._kind,
            name=record.name.partition("/")[2],
            body=record.settings,
            fields=tuple(sorted(record.sealed.fields)) if record.sealed else (),
            labels=record.labels,
            description=record.description,
            owner=record.owner,
            created_at=record.created_at,
            updated_at=record.updated_at,
            version=record.version,
        )

    async def note(self, verb: str, document: Document) -> None:
        """A line in the audit log about what was done with one."""
        entry = AuditEntry(
            at=self._desk.clock.now(),
            action=f"{verb} {self._kind}",
            consumer=self._desk.consumer,
            outcome="ok",
            connector_id=document.id,
            connector=self._stored(document.name),
        )
        await self._desk.books.write(audit=[entry])

    async def _audited(self, verb: str, record: Connector) -> Document:
        document = self._document(record)
        await self.note(verb, document)
        return document


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body that can be stored as it is."""
    try:
        json.dumps(dict(body), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        pass
    else:
        return dict(body)
    raise InvalidConfig("a document holds what JSON has: texts, finite numbers, flags, lists and maps of them")
