"""The broker's face: every use case, and nothing else."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Unpack
from weakref import ref

import msgspec

from mooring import __version__
from mooring.breakers import Breaker
from mooring.broker import _audit, _backup, _discover, _keys, _leases, _register, _revoke, _undo, _verify
from mooring.broker._audit import AuditLine, AuditReport
from mooring.broker._backup import Report, Restored
from mooring.broker._desk import DRAFT, Desk, Figures, Users, guard
from mooring.broker._documents import Documents
from mooring.broker._handouts import entry_for
from mooring.broker._issue import Issuer, Wish
from mooring.broker._keys import KeyStatus, Rotation
from mooring.broker._secrets import NamedSecrets
from mooring.bus import Subscription
from mooring.cache import Due, Key
from mooring.credentials import Credentials, Issued
from mooring.errors import (
    BrokerClosed,
    InvalidConfig,
    MooringError,
    NotPermitted,
    RecordDamaged,
    UnknownLease,
    UnsupportedResource,
)
from mooring.events import Event
from mooring.globs import checked, is_pattern, labelled
from mooring.hookspecs import ClientRequest, Explanation, Lifted, Unlifted
from mooring.records import LIVE, Lease, LeaseState, Logged
from mooring.references import resolve
from mooring.registry import Plugin, Registry
from mooring.store import Connectors, UndoEntry
from mooring.types import Access, Config, Connector, ConnectorType, Identity, Resource, Secret, instant, split_config
from mooring.vault import BackupNote, Place


def _tell(broker: ref[Broker]) -> None:
    """In the child of a fork: a broker is its parent's."""
    if (here := broker()) is not None:
        here._forked = True  # noqa: SLF001  its own


class Broker:
    """Connectors, what they reach, and credentials for it. Made by `open_broker`.

    A connector is named by its name, its id, or the beginning of its id (8 characters or more). Every method may raise
    `StoreError`; those that call a vendor may raise `VendorError` and `PluginError`.
    """

    def __init__(self, desk: Desk) -> None:
        self._rooms: tuple[Desk, Issuer] | None = (desk, Issuer(desk))
        self._forked = False
        if hasattr(os, "register_at_fork"):  # quicker to look at in every read than the process's id is to have
            os.register_at_fork(after_in_child=partial(_tell, ref(self)))

    def _opened(self) -> tuple[Desk, Issuer]:
        """The rooms, while they are open, in the process that opened them.

        Raises:
            BrokerClosed: they are not.
        """
        if self._rooms is not None and not self._forked:
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
            id=DRAFT,
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

    async def draft(
        self, connector: Connector, config: Mapping[str, Any] | Config
    ) -> tuple[Connector, dict[str, Secret]]:
        """A connector as `register` would store it, and what it would seal; for system plugins.

        Checks all that can be checked without the vendor; stores nothing.

        Raises:
            InvalidConfig, UnknownConnectorType, UnknownAuthMethod, UnknownDocument, UnsupportedResource, NotPermitted.
        """
        return await _register.draft(self._desk, connector, config)

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
        desk = self._desk
        found = await desk.find(connector)
        with desk.failing_on_record("reveal", found):
            secrets = await desk.open(found)
            await desk.books.write(audit=[desk.entry("reveal", found)])  # before they leave
            return secrets

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
            labels: with these labels; a value may be a pattern, such as `da*`, and None stands for any.
        """
        found = await _listed(self._desk, labels, type=type, auth_method=auth_method, resource_type=resource_type)
        if resource_type is None and resource_id is None:
            return found
        wanted = _discover.Filter(resource_type=resource_type, resource_id=resource_id)
        reaching = [one for one in found if await _discover.may_reach(self._desk, one, wanted)]
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

    async def delete(
        self, connector: str | Connector, *, revoke: bool = False, role_wide: bool = False, force: bool = False
    ) -> Connector:
        """Remove a connector, after what issuing made at its vendor; what else it issued lives until it ends.

        Args:
            connector: its name; or the connector as it was read.
            revoke: take back what it issued first, where that can be done for each lease.
            role_wide: also where others who use the same role lose theirs.
            force: delete it also if some of that cannot be removed. `unremoved` gives what, and `RemovalFailed` tells.

        Raises:
            VendorError: some of that could not be removed, and the connector was not deleted.
            StoreConflict: somebody else changed or deleted it meanwhile, or since it was read.
            NotPermitted: a lease could not be taken back; the connector is kept, so that it can be tried again.
            RecordDamaged: its record cannot be read; see `discard`.
        """
        desk, issuer = self._opened()
        found = await desk.as_read(connector)
        if revoke:
            kept = [
                one for one in await self.revoke(connector=found.id, role_wide=role_wide) if _revoke.may_be_later(one)
            ]
            if kept and not force:
                why = kept[0].error or "it can only be taken back from all who use the role (role_wide=True)"
                raise NotPermitted(
                    f"{len(kept)} leases of connector {found.name!r} could not be taken back: {why}; it is kept, since "
                    "nobody could without it; to delete it all the same, use --force"
                )
        try:
            await _register.delete(desk, found, force=force)
        finally:
            issuer.forget()
        return found

    async def discard(self, connector: str) -> bool:
        """Remove a record that cannot be read, by its exact name or id; whether there was one."""
        desk = self._desk
        if not await desk.store.discard(connector):
            return False
        await desk.books.write(audit=[msgspec.structs.replace(desk.entry("discard"), connector=connector)])
        return True

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
        connectors: str | Connector | Sequence[str | Connector] | None = None,
        type: str | None = None,
        resource_type: str | None = None,
        resource_id: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        match: str | Sequence[str] = (),
        cached: bool = False,
        refresh: bool = True,
    ) -> AsyncGenerator[AsyncIterator[_discover.Discovery], None]:
        """What connectors reach, as it is found: `Found`, `Finished` for each unit, and `Failed` beside them.

        All connectors are asked at once; leaving the context early stops asking.

        Args:
            connectors: only these, or this one.
            type: only those of this connector type.
            resource_type: only this resource type.
            resource_id: only this resource, in any accepted form.
            labels: only those with these labels, see `list`.
            match: only ids that match this pattern, or one of these, such as `s3://prod-*`.
            cached: answer at once from what was found before, whatever its age, which is in `at`; what never was found
                out is asked now.
            refresh: with `cached`, ask again in the background for what was found more than 10 minutes ago.

        Raises:
            UnknownConnector: there is none that is named so.
            InvalidConfig: a pattern that nothing can match.
        """
        patterns = tuple(map(checked, [match] if isinstance(match, str) else match))
        named: set[str] | None = None
        if connectors is not None:
            connectors = [connectors] if isinstance(connectors, str | Connector) else connectors
            named = {one.id if isinstance(one, Connector) else await self._id(one) for one in connectors}
        found = await _listed(self._desk, labels, type=type, resource_type=resource_type)
        if named is not None:
            damaged = (one for one in found.damaged if one.id in named)
            found = Connectors((one for one in found if one.id in named), damaged)
        wanted = _discover.Filter(resource_type=resource_type, resource_id=resource_id, match=patterns)
        async with _discover.discover(self._desk, found, wanted, cached=cached, refresh=refresh) as replies:
            yield replies

    async def recall(
        self, connector: str | None = None, *, resource_type: str | None = None, most: int = 1000
    ) -> Sequence[Resource]:
        """What connectors were found to reach, whatever its age. Asks nobody.

        Args:
            connector: only this one.
            resource_type: only this resource type.
            most: not more than this of a resource type of a connector.
        """
        found = [await self._desk.find(connector)] if connector is not None else await _listed(self._desk, None)
        return await _discover.recall(self._desk, found, resource_type, most)

    async def _id(self, name: str) -> str:
        try:
            return (await self._desk.find(name)).id
        except RecordDamaged as error:  # its failure is shown beside the others' replies
            return error.id

    # -- named secrets, and other documents -------------------------------------------------------------------------

    @property
    def named_secrets(self) -> NamedSecrets:
        """Secrets that configurations refer to as `{{name.key}}`: create, get, list, open, update, delete."""
        return NamedSecrets(self._desk)

    async def resolve(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values, with what they refer to (`{{name.key}}`) in place of the references.

        Raises:
            UnknownDocument, InvalidConfig: there is no such secret, or it has no such key.
        """
        return await resolve(values, self._desk.open_secret)

    def documents(self, kind: str) -> Documents:
        """Named records of a kind of its own, for system plugins: sealed, rotated and backed up with the connectors."""
        return Documents(self._desk, kind)

    def before_delete(self, users: Users) -> None:
        """Ask who uses a connector or document before it is deleted, for system plugins; what is used stays."""
        self._desk.users.append(users)

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
        refused: str = "",
    ) -> Issued:
        """Short-lived credentials for exactly this resource; fresh ones are served again without a call.

        Args:
            connector: whose resource it is.
            resource_type: may be left out where the connector reaches one type.
            resource_id: in any accepted form; may be left out where the connector reaches one resource.
            access: `list`, `read` or `write`; each includes the one before.
            ttl: how long they shall live; brought within the auth method's bounds, which the reply says.
            consumer: who gets them; the current user and host unless given.
            refused: the lease of credentials that the vendor has refused before their end: others are made, once for
                all who say so.

        Raises:
            NotNarrowed, LongLived: the connector does not allow what could be had.
            ConnectorExpired: the connector's own credentials have ended.
        """
        desk, issuer = self._opened()
        wish = Wish(connector, resource_type, resource_id, access, ttl, consumer or desk.consumer)
        return await issuer.issue(wish, unlike=refused)

    def peek(
        self,
        connector: str,
        *,
        resource_type: str | None = None,
        resource_id: str | None = None,
        access: Access = "read",
        ttl: timedelta | None = None,
        consumer: str | None = None,
        refused: str = "",
    ) -> Issued | None:
        """What `issue` would serve again at once, or None. Never waits; safe to call from any thread."""
        if refused:
            return None
        rooms = None if self._forked else self._rooms  # as `_opened`, without a frame of its own
        desk, issuer = rooms or self._opened()
        return issuer.peek((connector, resource_type, resource_id, access, ttl, consumer or desk.consumer))

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
        desk, issuer = self._opened()
        wish = Wish(connector, resource_type, resource_id, access, ttl, consumer or desk.consumer)
        return await issuer.explain(wish)

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
        wish = Wish(connector, resource_type, resource_id, access, ttl, consumer or self._desk.consumer)
        issued = await self._issuer.issue(wish)
        route = self._desk.registry.renders(issued.credentials)
        if route.client is None:
            raise UnsupportedResource(f"the plugin for {route.type.name!r} makes no asynchronous clients")

        last, cache = issued, self._desk.cache

        async def renew(refused: Credentials | None = None) -> Credentials:
            nonlocal last
            unlike = last.lease if refused is not None and refused == last.credentials else ""
            given = await self._issuer.issue(wish, unlike=unlike)
            cache.hold(given.lease, instead_of=last.lease)
            last = given
            return given.credentials

        request = ClientRequest(
            credentials=issued.credentials,
            renew=renew,
            resource_type=issued.resource_type,
            resource_id=issued.resource_id,
        )
        async with AsyncExitStack() as stack:
            cache.hold(issued.lease)
            stack.callback(lambda: cache.hold(instead_of=last.lease))
            with guard(route, "client"):
                client = await stack.enter_async_context(route.client(request))
            yield client

    # -- leases ---------------------------------------------------------------------------------------------------

    async def lease(self, lease: str) -> Lease:
        """The record of a hand-out, by its id or the beginning of it (8 characters or more).

        Raises:
            UnknownLease: there is none, or more than one.
        """
        await self._desk.books.flush()
        return await _leases.find(self._desk, lease)

    async def leases(
        self,
        *,
        connector: str | None = None,
        resource: str | None = None,
        consumer: str | None = None,
        states: Sequence[LeaseState] | None = LIVE,
    ) -> Sequence[Lease]:
        """What was handed out, by when; those that may still work, unless other states are named.

        Args:
            connector: of this connector, which may be deleted.
            resource: of resources whose id begins so.
            consumer: to this consumer.
            states: in one of these; None for all.
        """
        await self._desk.books.flush()
        return await _leases.select(
            self._desk, connector=connector, resource=resource, consumer=consumer, states=states
        )

    async def renew(self, lease: str) -> Issued:
        """Credentials like those of a lease, new ones; the old ones are good until they end.

        Raises:
            UnknownLease, UnknownConnector, VendorError: there are none.
        """
        old = await _leases.find(self._desk, lease)
        wish = Wish(old.connector_id, old.resource_type, old.resource_id, old.access, old.ttl, self._desk.consumer)
        return await self._issuer.issue(wish, unlike=old.id)

    async def revoke(
        self,
        lease: str | None = None,
        *,
        connector: str | None = None,
        resource: str | None = None,
        consumer: str | None = None,
        role_wide: bool = False,
    ) -> Sequence[Lease]:
        """Take credentials back as far as their vendor can; gives the leases as they are now.

        What cannot be taken back is handed out no more and is `released`. What could not be taken back this time is
        `revoking`, and tried again.

        Args:
            lease: this one; else all that match the filters, of which there must be one.
            connector: of this connector.
            resource: of resources whose id begins so.
            consumer: from this consumer alone; what others hold too stays theirs.
            role_wide: where a vendor can only refuse all that a role was issued until now, do that.

        Raises:
            UnknownLease: there is none of that id.
            InvalidConfig: nothing says which, or an empty text does, as an unset variable gives it.
        """
        desk = self._desk
        if "" in (lease, connector, resource, consumer):
            raise InvalidConfig("an empty name stands for nothing; name whose leases to revoke, or leave it out")
        if lease is not None:
            found: Sequence[Lease] = [await self.lease(lease)]
            if consumer is not None and all(one.consumer != consumer for one in found[0].holders):
                raise UnknownLease(f"{consumer!r} holds no lease {found[0].id}; see: mooring lease list")
        elif connector is None and resource is None and consumer is None:
            raise InvalidConfig("name a lease, or a connector, a resource or a consumer whose leases to revoke")
        else:
            found = await self.leases(connector=connector, resource=resource, consumer=consumer)
        live = [one for one in found if one.state in LIVE]
        if consumer is not None:
            self._issuer.leave((one.id for one in live), consumer)
        return await _revoke.revoke(desk, live, consumer=consumer, role_wide=role_wide)

    def hold(self, lease: str = "", *, instead_of: str = "") -> None:
        """See `Cache.hold`; called for synchronous clients, in the event loop."""
        self._desk.cache.hold(lease, instead_of=instead_of)

    async def refresh(self, due: Due[Key]) -> None:
        """Renew what the cache says is due; called by the refresher."""
        await self._issuer.renew(due)

    def breakers(self) -> Sequence[Breaker]:
        """The vendor endpoints that have not answered lately, as this process sees them."""
        return self._desk.breakers.all()

    def figures(self) -> Figures:
        """What this process has at hand, in numbers."""
        cache, books = self._desk.cache, self._desk.books
        return Figures(entries=len(cache), repeats=books.repeats, renewing=cache.renewing)

    # -- audit and events -----------------------------------------------------------------------------------------

    async def note(self, action: str, issued: Issued, error: MooringError | None = None) -> None:
        """Put on record what was done with credentials that were handed out, such as `login`, or why it failed."""
        desk, outcome = self._desk, "ok" if error is None else type(error).__name__
        entry = entry_for(action, issued, issued.consumer, desk.clock.now(), outcome=outcome)
        await desk.books.write(audit=[entry])

    def audit(self, *, after: int = 0) -> AsyncGenerator[AuditLine, None]:
        """The audit log from an entry on."""
        return _audit.read(self._desk, after=after)

    async def verify_audit(self, *, expected: str | None = None) -> AuditReport:
        """Whether the audit log is as it was written; `expected` is a digest that an earlier report gave."""
        return await _audit.verify(self._desk, expected=expected)

    async def trace(self, secret: Secret) -> Sequence[AuditLine]:
        """The hand-outs of a secret that has turned up somewhere."""
        return await _audit.trace(self._desk, secret)

    async def logged(self, *, after: int, most: int = 1000) -> Sequence[Logged]:
        """Events of all processes with greater numbers, in order; see `last_event`."""
        return await self._desk.books.ledger.events(after=after, most=most)

    async def last_event(self) -> int:
        """The number of the newest event; 0 if there is none."""
        return await self._desk.books.ledger.last_event()

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
            if not self._forked:
                self._rooms[0].lifespans.close()
            self._rooms = None


async def _listed(desk: Desk, labels: Mapping[str, str | None] | None, **filters: Any) -> Connectors:
    """The connectors that match the filters; labels also by patterns, which a store does not know."""
    patterns = {name: value for name, value in (labels or {}).items() if value is not None and is_pattern(value)}
    found = await desk.connectors(labels={**(labels or {}), **dict.fromkeys(patterns)}, **filters)
    if not patterns:
        return found
    return Connectors((one for one in found if labelled(one.labels, patterns)), found.damaged)
