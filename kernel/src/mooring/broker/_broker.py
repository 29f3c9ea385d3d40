"""The broker's face: every use case, and nothing else."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Unpack

import msgspec

from mooring import __version__
from mooring.broker import _backup, _discover, _keys, _register, _undo, _verify
from mooring.broker._backup import Report, Restored
from mooring.broker._desk import Desk, guard
from mooring.broker._issue import Issuer, Wish
from mooring.broker._keys import KeyStatus, Rotation
from mooring.bus import Subscription
from mooring.credentials import Credentials, Issued
from mooring.errors import BrokerClosed, RecordDamaged, UnsupportedResource
from mooring.events import Event
from mooring.hookspecs import ClientRequest, Explanation, Lifted, Unlifted
from mooring.registry import Plugin, Registry
from mooring.store import Connectors, UndoEntry
from mooring.types import Access, Config, Connector, ConnectorType, Identity, Secret, instant, split_config
from mooring.vault import BackupNote, Place


class Broker:
    """Connectors, what they reach, and credentials for it. Made by `open_broker`.

    A connector is named by its name, its id, or the beginning of its id (8 characters or more). Every method may raise
    `StoreError`; those that call a vendor may raise `VendorError` and `PluginError`.
    """

    def __init__(self, desk: Desk) -> None:
        self._rooms: tuple[Desk, Issuer] | None = (desk, Issuer(desk))
        self._process = os.getpid()

    def _opened(self) -> tuple[Desk, Issuer]:
        """The rooms, while they are open, in the process that opened them.

        Raises:
            BrokerClosed: they are not.
        """
        if self._rooms is not None and self._process == os.getpid():
            return self._rooms
        why = "was closed" if self._rooms is None else "belongs to the process that this one was forked from"
        raise BrokerClosed(f"this broker {why}; open another with open_broker()")

    @property
    def _desk(self) -> Desk:
        return self._opened()[0]

    @property
    def _issuer(self) -> Issuer:
        return self._opened()[1]

    # -- connector types ------------------------------------------------------------------------------------------

    def types(self) -> list[ConnectorType]:
        """The connector types that the installed plugins offer, by name."""
        return [route.type for route in self._desk.registry.routes()]

    @property
    def registry(self) -> Registry:
        """The plugins."""
        return self._desk.registry

    def plugins(self) -> list[Plugin]:
        """The installed plugins, broken ones with their error."""
        return self._desk.registry.plugins()

    # -- connectors -----------------------------------------------------------------------------------------------

    async def register(
        self,
        name: str,
        *,
        type: str,
        auth_method: str | None = None,
        config: Mapping[str, Any] | Config | None = None,
        lift: bool = False,
        resource_type: str | None = None,
        resource_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        description: str = "",
        owner: str | None = None,
        expires_at: datetime | None = None,
        expires_skew: timedelta = timedelta(0),
        ttl: timedelta | None = None,
        allow_unnarrowed: bool = False,
        allow_long_lived: bool = False,
        verify: bool = True,
    ) -> Connector:
        """Store a new connector, once the vendor has accepted it.

        Args:
            name: 1 to 128 letters, digits, dots, dashes and underscores; unique.
            type: a connector type, such as `aws`.
            auth_method: one of the type's; may be left out where there is one, or with `lift`.
            config: the auth method's fields, or what `lift` gave; with `lift=True`, what to look for (a profile).
            lift: take the configuration from this machine.
            resource_type: the only type that the connector shall reach; None for all.
            resource_id: the only resource that it shall reach, in any accepted form; None for all.
            labels: for finding it again.
            description: for people.
            owner: who is responsible; the current user unless given.
            expires_at: when the connector's own credentials end, where that is known.
            expires_skew: how long before that the connector counts as expired.
            ttl: the life of issued credentials when a caller names none.
            allow_unnarrowed: hand out credentials that could not be confined to the resource.
            allow_long_lived: hand out credentials without an end where the vendor makes no others.
            verify: ask the vendor first; without it nothing is called.

        Raises:
            NameTaken, InvalidConfig, UnknownConnectorType, UnknownAuthMethod, NothingToLift, NotPermitted.
            AuthFailed, AccessDenied, ResourceNotFound: the vendor did not accept it; nothing was stored.
        """
        now = self._desk.clock.now()
        draft = Connector(
            id="new",
            name=name,
            type=type,
            auth_method=auth_method or "",
            resource_type=resource_type,
            resource_id=resource_id,
            labels=dict(labels or {}),
            description=description,
            owner=owner or "",
            expires_at=expires_at and instant(expires_at),
            expires_skew=expires_skew,
            ttl=ttl,
            allow_unnarrowed=allow_unnarrowed,
            allow_long_lived=allow_long_lived,
            created_at=now,
            updated_at=now,
        )
        values = config if config is not None else {}
        if lift:
            given = (
                values
                if isinstance(values, Mapping)
                else {k: v for part in split_config(values) for k, v in part.items()}
            )
            lifted = await self.lift(type, auth_method=auth_method, options=given)
            draft = msgspec.structs.replace(
                draft, auth_method=lifted.auth_method, expires_at=draft.expires_at or lifted.expires_at
            )
            values = lifted.config
        return await _register.register(self._desk, draft, values, check=verify)

    async def lift(
        self, type: str, *, auth_method: str | None = None, options: Mapping[str, Any] | None = None
    ) -> Lifted:
        """A configuration from what this machine has, for `register`; reads nothing that was not asked for.

        Raises:
            NothingToLift: there is none. The message says where was looked.
        """
        return await _register.lift(self._desk, type, auth_method, options or {})

    async def lift_all(
        self,
        type: str,
        *,
        prefix: str = "",
        auth_method: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Sequence[Lifted | Unlifted]:
        """Everything that this machine has, each for a `register` of its own, and beside it what cannot be lifted.

        Each has a name that a connector may bear and that no other of them has: the prefix and a dash, if there is one,
        and what the thing is called, with a dash for whatever no name may hold; `-2`, `-3`... tell equal ones apart.

        Raises:
            NothingToLift: there is nothing, or the type cannot find all; the message says which types can.
            InvalidConfig: the prefix is no name.
        """
        return await _register.lift_all(self._desk, type, prefix, auth_method, options or {})

    async def get(self, connector: str) -> Connector:
        """One connector.

        Raises:
            UnknownConnector: there is none; the message names the nearest.
        """
        return await self._desk.find(connector)

    async def secrets(self, connector: str) -> dict[str, Secret]:
        """The connector's own secrets.

        Raises:
            WrongKey, Tampered: they cannot be opened.
        """
        return await self._desk.open(await self._desk.find(connector))

    async def list(
        self,
        *,
        type: str | None = None,
        auth_method: str | None = None,
        resource_type: str | None = None,
        resource_id: str | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> Connectors:
        """The connectors that match all filters, by name, and in `damaged` the records that cannot be read.

        Args:
            type: of this connector type.
            auth_method: of this auth method.
            resource_type: that reach this resource type: scoped to it, or not scoped and of a type that has it.
            resource_id: scoped to a resource that is or contains this one, or to none.
            labels: with these labels; None as a value stands for any value.
        """
        found = await self._desk.store.list(
            type=type, auth_method=auth_method, resource_type=resource_type, labels=labels
        )
        if resource_type is None and resource_id is None:
            return found
        reaching = (one for one in found if _discover.may_reach(self._desk, one, resource_type, resource_id))
        return Connectors(reaching, found.damaged)

    async def update(
        self, connector: str | Connector, *, verify: bool = True, **changes: Unpack[_register.Changes]
    ) -> Connector:
        """Change a connector, once the vendor has accepted the change. What is issued from now on is by the new one.

        Args:
            connector: its name; or the connector as it was read, where the changes were made from that.
            verify: ask the vendor first.
            changes: see `Changes`.

        Raises:
            StoreConflict: somebody else changed it meanwhile, or since it was read.
            InvalidConfig, UnknownAuthMethod, NameTaken, VendorError: nothing was changed.
        """
        desk, issuer = self._opened()
        found = await desk.as_read(connector)
        try:
            return await _register.update(desk, found, changes, check=verify)
        finally:
            issuer.forget()  # also when cancelled: the store may have taken it

    async def delete(self, connector: str | Connector, *, force: bool = False) -> Connector:
        """Remove a connector, after what issuing made at its vendor; what else it issued lives until it ends.

        Args:
            connector: its name; or the connector as it was read.
            force: delete it also if some of that cannot be removed. `unremoved` gives what, and `RemovalFailed` tells.

        Raises:
            VendorError: some of that could not be removed, and the connector was not deleted.
            StoreConflict: somebody else changed or deleted it meanwhile, or since it was read.
            RecordDamaged: its record cannot be read; see `discard`.
        """
        desk, issuer = self._opened()
        found = await desk.as_read(connector)
        try:
            await _register.delete(desk, found, force=force)
        finally:
            issuer.forget()
        return found

    async def discard(self, connector: str) -> bool:
        """Remove a record that cannot be read, by its exact name or id; whether there was one."""
        return await self._desk.store.discard(connector)

    async def verify(
        self, connector: str, *, resource_type: str | None = None, resource_id: str | None = None
    ) -> Identity:
        """Whom the vendor takes the connector for; with a resource, only if the connector reaches it."""
        found = await self._desk.find(connector)
        return await _verify.verify(self._desk, found, resource_type, resource_id)

    # -- resources ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def discover(
        self,
        *,
        connectors: Sequence[str | Connector] | None = None,
        type: str | None = None,
        resource_type: str | None = None,
        resource_id: str | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> AsyncGenerator[AsyncIterator[_discover.Discovery], None]:
        """What connectors reach, as it is found: `Found`, `Finished` for each unit, and `Failed` beside them.

        All connectors are asked at once; leaving the context early stops asking.

        Args:
            connectors: only these.
            type: only those of this connector type.
            resource_type: only this resource type.
            resource_id: only this resource, in any accepted form.
            labels: only those with these labels.
        """
        named: set[str] | None = None
        if connectors is not None:
            named = {one.id if isinstance(one, Connector) else await self._id(one) for one in connectors}
        found = await self._desk.store.list(type=type, resource_type=resource_type, labels=labels)
        if named is not None:
            damaged = (one for one in found.damaged if one.id in named)
            found = Connectors((one for one in found if one.id in named), damaged)
        async with _discover.discover(self._desk, found, resource_type, resource_id) as replies:
            yield replies

    async def _id(self, name: str) -> str:
        try:
            return (await self._desk.find(name)).id
        except RecordDamaged as error:  # its failure is shown beside the others' replies
            return error.id

    # -- credentials ----------------------------------------------------------------------------------------------

    async def issue(
        self,
        connector: str,
        *,
        resource_type: str | None = None,
        resource_id: str | None = None,
        access: Access = "read",
        ttl: timedelta | None = None,
        consumer: str | None = None,
    ) -> Issued:
        """Short-lived credentials for exactly this resource; fresh ones are served again without a call.

        Args:
            connector: whose resource it is.
            resource_type: may be left out where the connector reaches one type.
            resource_id: in any accepted form; may be left out where the connector reaches one resource.
            access: `list`, `read` or `write`; each includes the one before.
            ttl: how long they shall live; brought within the auth method's bounds, which the reply says.
            consumer: who gets them; the current user and host unless given.

        Raises:
            NotNarrowed, LongLived: the connector does not allow what could be had.
            ConnectorExpired: the connector's own credentials have ended.
        """
        wish = Wish(connector, resource_type, resource_id, access, ttl)
        return await self._issuer.issue(wish, consumer or self._desk.consumer)

    def peek(
        self,
        connector: str,
        *,
        resource_type: str | None = None,
        resource_id: str | None = None,
        access: Access = "read",
        ttl: timedelta | None = None,
        consumer: str | None = None,
    ) -> Issued | None:
        """What `issue` would serve again at once, or None. Never waits; safe to call from any thread."""
        wish = Wish(connector, resource_type, resource_id, access, ttl)
        return self._issuer.peek(wish, consumer or self._desk.consumer)

    async def explain(
        self,
        connector: str,
        *,
        resource_type: str | None = None,
        resource_id: str | None = None,
        access: Access = "read",
        ttl: timedelta | None = None,
        consumer: str | None = None,
    ) -> Explanation:
        """The calls and the exact policy with which `issue` would ask the vendor, without asking."""
        wish = Wish(connector, resource_type, resource_id, access, ttl)
        return await self._issuer.explain(wish, consumer or self._desk.consumer)

    @asynccontextmanager
    async def client(
        self,
        connector: str,
        *,
        resource_type: str | None = None,
        resource_id: str | None = None,
        access: Access = "read",
        ttl: timedelta | None = None,
        consumer: str | None = None,
    ) -> AsyncGenerator[Any, None]:
        """A ready native client for the resource, which renews its credentials for as long as it lives.

        Raises:
            UnknownConnectorType, UnsupportedResource: no installed plugin makes clients of these credentials.
        """
        wish = Wish(connector, resource_type, resource_id, access, ttl)
        who = consumer or self._desk.consumer
        issued = await self._issuer.issue(wish, who)
        route = self._desk.registry.renders(issued.credentials)
        if route.client is None:
            raise UnsupportedResource(f"the plugin for {route.type.name!r} makes no asynchronous clients")

        async def renew() -> Credentials:
            return (await self._issuer.issue(wish, who)).credentials

        request = ClientRequest(
            credentials=issued.credentials,
            renew=renew,
            resource_type=issued.resource_type,
            resource_id=issued.resource_id,
        )
        async with AsyncExitStack() as stack:
            with guard(route, "client"):
                client = await stack.enter_async_context(route.client(request))
            yield client

    # -- master keys and backups ----------------------------------------------------------------------------------

    async def keys(self) -> Sequence[KeyStatus]:
        """Every master key that is at hand or that the store knows of, the active one first."""
        return await _keys.status(self._desk)

    async def rotate_keys(
        self, *, into: Place = "file", progress: Callable[[int, int], None] | None = None
    ) -> Rotation:
        """Make a new master key and wrap everything under it, while everybody goes on; older keys are retired.

        A rotation that was cut short is finished instead. Where the host gives the keys, everything is wrapped under
        the first of them.

        Args:
            into: where the new key shall lie.
            progress: told how many records are done, of how many.

        Raises:
            NoMasterKey, WrongKey: there is no key, or the new one cannot be kept.
            ConfigError: the host gives the keys, and everything is under the first.
            VaultError: another process is rotating them.
        """
        return await _keys.rotate(self._desk, into, progress)

    async def prune_keys(self) -> Sequence[str]:
        """Remove the retired master keys for good; gives their ids. Backups made under them open no more.

        Raises:
            ConfigError: the host gives the keys.
            VaultError: another process is changing them.
        """
        return await _keys.prune(self._desk)

    async def back_up(self, path: Path) -> BackupNote:
        """Write everything that is stored, as of one moment and sealed, into a new file.

        Raises:
            NameTaken: there is a file already.
            ConfigError: the store is not a file of mooring's.
        """
        return await _backup.back_up(self._desk, path, __version__)

    async def restore(self, path: Path, *, replace: bool = False) -> Restored:
        """Put what a backup holds in the place of what is stored, in one step.

        Args:
            path: what `back_up` wrote, here or on another machine.
            replace: also if connectors are stored; these are backed up first, beside the store.

        Raises:
            NameTaken: connectors are stored.
            StoreCorrupt, StoreTooNew: the backup is damaged, foreign or too new; nothing was changed.
            NoMasterKey, WrongKey: the master key that sealed it is not at hand.
        """
        desk, issuer = self._opened()
        try:
            return await _backup.restore(desk, path, __version__, replace=replace)
        finally:
            issuer.forget()

    async def check(self, backup: Path | None = None) -> Report:
        """Look at the store's file, every record and every seal; or at those of a backup. Changes nothing."""
        return await _backup.check(self._desk, backup)

    # -- events ---------------------------------------------------------------------------------------------------

    def subscribe(self, *types: type[Event], buffer: int = 256) -> AbstractAsyncContextManager[Subscription]:
        """Events of these types (of all, if none is named) from now on."""
        return self._desk.bus.subscribe(*types, buffer=buffer)

    async def sweep(self) -> None:
        """Remove at the vendors what issuing had made there and nothing needs any more; also done by itself."""
        await _undo.sweep(self._desk)

    async def unremoved(self) -> Sequence[UndoEntry]:
        """What issuing made at the vendors and could not be removed so far; without a connector it is given up."""
        return [one for one in await self._desk.store.undos() if one.attempts]

    def close(self) -> None:
        """Let go of what plugins keep, and serve nobody any more; called by `open_broker`."""
        if self._rooms is not None:
            if self._process == os.getpid():
                self._rooms[0].lifespans.close()
            self._rooms = None
