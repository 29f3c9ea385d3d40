"""The broker's face: every use case, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Unpack

import msgspec

from mooring.broker import _discover, _register, _verify
from mooring.broker._desk import Desk, guard
from mooring.broker._issue import Issuer, Wish
from mooring.bus import Subscription
from mooring.credentials import Credentials, Issued
from mooring.errors import UnsupportedResource
from mooring.events import Event
from mooring.hookspecs import ClientRequest, Explanation, Lifted
from mooring.registry import Plugin, Registry
from mooring.types import Access, Config, Connector, ConnectorType, Identity, Secret, instant, split_config


class Broker:
    """Connectors, what they reach, and credentials for it. Made by `open_broker`.

    A connector is named by its name, its id, or the beginning of its id (8 characters or more). Every method may raise
    `StoreError`; those that call a vendor may raise `VendorError` and `PluginError`.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._issuer = Issuer(desk)

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
        return self._desk.open(await self._desk.find(connector))

    async def list(
        self,
        *,
        type: str | None = None,
        auth_method: str | None = None,
        resource_type: str | None = None,
        resource_id: str | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> list[Connector]:
        """The connectors that match all filters, by name.

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
        return [one for one in found if _discover.may_reach(self._desk, one, resource_type, resource_id)]

    async def update(self, connector: str, *, verify: bool = True, **changes: Unpack[_register.Changes]) -> Connector:
        """Change a connector, once the vendor has accepted the change. What is issued from now on is by the new one.

        Raises:
            StoreConflict: somebody else changed it meanwhile.
            InvalidConfig, UnknownAuthMethod, NameTaken, VendorError: nothing was changed.
        """
        found = await self._desk.find(connector)
        try:
            return await _register.update(self._desk, found, changes, check=verify)
        finally:
            self._issuer.forget()  # also when cancelled: the store may have taken it

    async def delete(self, connector: str) -> Connector:
        """Remove a connector; what it issued lives until it ends."""
        found = await self._desk.find(connector)
        try:
            await _register.delete(self._desk, found)
        finally:
            self._issuer.forget()
        return found

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
            named = {one.id if isinstance(one, Connector) else (await self._desk.find(one)).id for one in connectors}
        found = await self._desk.store.list(type=type, resource_type=resource_type, labels=labels)
        if named is not None:
            found = [one for one in found if one.id in named]
        async with _discover.discover(self._desk, found, resource_type, resource_id) as replies:
            yield replies

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

    # -- events ---------------------------------------------------------------------------------------------------

    def subscribe(self, *types: type[Event], buffer: int = 256) -> AbstractAsyncContextManager[Subscription]:
        """Events of these types (of all, if none is named) from now on."""
        return self._desk.bus.subscribe(*types, buffer=buffer)

    def close(self) -> None:
        """Let go of what plugins keep; called by `open_broker`."""
        self._desk.lifespans.close()
