"""mooring for synchronous hosts: the broker's methods, each waiting for its result.

An event loop runs in a thread of its own (anyio's blocking portal). Credentials that are at hand and fresh are served
without crossing over to it. Every method may be called from any thread but that loop's own.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial, wraps
from threading import Lock, Thread
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import anyio
from anyio.from_thread import BlockingPortal

from mooring import assembly
from mooring.breakers import Breaker
from mooring.broker import AuditLine, Broker, Discovery
from mooring.credentials import Credentials, Issued
from mooring.errors import BrokerClosed, UnsupportedResource
from mooring.events import Event, Lagged
from mooring.hookspecs import BlockingClientRequest
from mooring.registry import Plugin
from mooring.types import Access, ConnectorType

P = ParamSpec("P")
T = TypeVar("T")


def _waiting(
    method: Callable[Concatenate[Broker, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[BlockingBroker, P], T]:
    """The broker's method, called in its event loop and waited for."""

    @wraps(method)
    def call(self: BlockingBroker, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return _wait(self.portal, lambda: method(self.broker, *args, **kwargs))

    return call


class _Cancelling(Generic[T]):
    """Work in the event loop that another thread may cancel, wherever an interruption hits that thread."""

    def __init__(self, portal: BlockingPortal, work: Callable[[], Awaitable[T]]) -> None:
        self._portal = portal
        self._work = work
        self._scopes: list[anyio.CancelScope] = []

    async def run(self) -> T | None:
        """Do the work; None if it was cancelled."""
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            return await self._work()
        return None

    def cancel(self) -> None:
        """Cancel it: this is done in the event loop after `run` has begun, if that was asked for."""
        self._portal.start_task_soon(self._cancel)

    def _cancel(self) -> None:
        for scope in self._scopes:
            scope.cancel()


def _wait(portal: BlockingPortal, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What work in the event loop gives; it is cancelled when the caller is interrupted, as by Ctrl-C."""
    cancelling = _Cancelling(portal, work)
    try:
        return cast("T", portal.start_task_soon(cancelling.run).result())
    except (KeyboardInterrupt, SystemExit):
        cancelling.cancel()
        raise


@contextmanager
def _lasting(portal: BlockingPortal, context: AbstractAsyncContextManager[T]) -> Generator[T, None, None]:
    """A context of the event loop; it is left by cancelling, also when the caller is interrupted on the way in."""
    entered: Future[T] = Future()

    async def live() -> None:
        try:
            async with context as value:
                entered.set_result(value)
                await anyio.sleep_forever()
        except Exception as error:
            if entered.done():
                raise
            entered.set_exception(error)

    process, cancelling, life = os.getpid(), _Cancelling(portal, live), None
    try:
        life = portal.start_task_soon(cancelling.run)
        yield entered.result()
    finally:
        if os.getpid() == process:  # a process that was forked meanwhile has no event loop to leave it in
            cancelling.cancel()
            if life is not None:
                life.result()


class BlockingBroker:
    """See `mooring.Broker`, whose methods these are. Made by `mooring.blocking.open_broker`."""

    def __init__(self, broker: Broker, portal: BlockingPortal) -> None:
        self.broker = broker
        self._portal = portal

    @property
    def portal(self) -> BlockingPortal:
        """The way into the event loop.

        Raises:
            BrokerClosed: it does not run, or not in this process.
        """
        _ = self.broker.registry
        return self._portal

    register = _waiting(Broker.register)
    lift = _waiting(Broker.lift)
    lift_all = _waiting(Broker.lift_all)
    get = _waiting(Broker.get)
    secrets = _waiting(Broker.secrets)
    list = _waiting(Broker.list)
    update = _waiting(Broker.update)
    delete = _waiting(Broker.delete)
    verify = _waiting(Broker.verify)
    explain = _waiting(Broker.explain)
    recall = _waiting(Broker.recall)
    resolve = _waiting(Broker.resolve)
    discard = _waiting(Broker.discard)
    unremoved = _waiting(Broker.unremoved)
    keys = _waiting(Broker.keys)
    rotate_keys = _waiting(Broker.rotate_keys)
    prune_keys = _waiting(Broker.prune_keys)
    back_up = _waiting(Broker.back_up)
    restore = _waiting(Broker.restore)
    check = _waiting(Broker.check)
    sweep = _waiting(Broker.sweep)
    lease = _waiting(Broker.lease)
    leases = _waiting(Broker.leases)
    renew = _waiting(Broker.renew)
    revoke = _waiting(Broker.revoke)
    note = _waiting(Broker.note)
    verify_audit = _waiting(Broker.verify_audit)
    trace = _waiting(Broker.trace)
    logged = _waiting(Broker.logged)
    last_event = _waiting(Broker.last_event)
    _issue = _waiting(Broker.issue)

    def issue(
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
        # every argument by its name: to pack and unpack them would take as long as all the rest
        at_hand = self.broker.peek(
            connector,
            resource_type=resource_type,
            resource_id=resource_id,
            access=access,
            ttl=ttl,
            consumer=consumer,
            refused=refused,
        )
        return at_hand or self._issue(
            connector,
            resource_type=resource_type,
            resource_id=resource_id,
            access=access,
            ttl=ttl,
            consumer=consumer,
            refused=refused,
        )

    issue.__doc__ = Broker.issue.__doc__

    def types(self) -> tuple[ConnectorType, ...]:
        """See `Broker.types`."""
        return tuple(self.broker.types())

    def plugins(self) -> tuple[Plugin, ...]:
        """See `Broker.plugins`."""
        return tuple(self.broker.plugins())

    def breakers(self) -> Sequence[Breaker]:
        """See `Broker.breakers`."""
        return self.portal.call(self.broker.breakers)

    def audit(self, *, after: int = 0) -> Iterator[AuditLine]:
        """See `Broker.audit`."""
        return self._closing(self.broker.audit(after=after))

    @contextmanager
    def discover(self, **filters: Any) -> Generator[Iterator[Discovery], None, None]:
        """See `Broker.discover`."""
        with _lasting(self.portal, self.broker.discover(**filters)) as replies:
            yield self._iterate(replies)

    @contextmanager
    def subscribe(self, *types: type[Event], buffer: int = 256) -> Generator[Iterator[Event | Lagged], None, None]:
        """See `Broker.subscribe`."""
        with _lasting(self.portal, self.broker.subscribe(*types, buffer=buffer)) as events:
            yield self._iterate(events)

    @contextmanager
    def client(self, connector: str, *, access: Access = "read", **wish: Any) -> Generator[Any, None, None]:
        """See `Broker.client`; the client is the vendor's synchronous one.

        Raises:
            UnsupportedResource: no installed plugin makes synchronous clients of these credentials.
        """
        issued = self.issue(connector, access=access, **wish)
        route = self.broker.registry.renders(issued.credentials)
        if route.blocking_client is None:
            raise UnsupportedResource(f"the plugin for {route.type.name!r} makes no synchronous clients")

        last, holding = issued, Lock()

        def renew(refused: Credentials | None = None) -> Credentials:
            nonlocal last
            given = last
            unlike = given.lease if refused is not None and refused == given.credentials else ""
            given = self.issue(connector, access=access, refused=unlike, **wish)
            if given.lease != last.lease:  # else there is nothing to tell the event loop, which may be busy
                with holding:
                    self._hold(given.lease, instead_of=last.lease)
                    last = given
            return given.credentials

        request = BlockingClientRequest(
            credentials=issued.credentials,
            renew=renew,
            resource_type=issued.resource_type,
            resource_id=issued.resource_id,
        )
        self._hold(issued.lease)
        try:
            with route.blocking_client(request) as client:
                yield client
        finally:
            with suppress(BrokerClosed):
                self._hold(instead_of=last.lease)

    def _hold(self, lease: str = "", *, instead_of: str = "") -> None:
        self.portal.call(partial(self.broker.hold, lease, instead_of=instead_of))

    def _closing(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        try:
            yield from self._iterate(items)
        finally:
            with suppress(BrokerClosed):
                _wait(self.portal, items.aclose)

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        end = object()

        async def step() -> object:
            return await anext(items, end)

        while True:
            try:
                item = _wait(self.portal, step)
            except BrokerClosed:
                return
            if item is end:
                return
            yield cast("T", item)


@contextmanager
def open_broker(**options: Any) -> Generator[BlockingBroker, None, None]:
    """A broker for synchronous code, for as long as the context lives; the options are `mooring.open_broker`'s."""
    process = os.getpid()
    with _event_loop() as portal, ExitStack() as stack:
        broker = stack.enter_context(portal.wrap_async_context_manager(assembly.open_broker(**options)))
        try:
            yield BlockingBroker(broker, portal)
        finally:
            if os.getpid() != process:
                stack.pop_all()


@contextmanager
def _event_loop() -> Generator[BlockingPortal, None, None]:
    """anyio's `start_blocking_portal`, which a forked process may leave: it has neither the loop nor its thread."""
    process, opened = os.getpid(), Future[BlockingPortal]()

    async def run() -> None:
        async with BlockingPortal() as portal:
            opened.set_result(portal)
            await portal.sleep_until_stopped()

    def main() -> None:
        try:
            anyio.run(run)
        except BaseException as error:  # noqa: BLE001  it is raised where the loop was asked for
            if not opened.done():
                opened.set_exception(error)

    thread = Thread(target=main, name="mooring", daemon=True)
    thread.start()
    portal, failed = opened.result(), True
    try:
        yield portal
        failed = False
    finally:
        if os.getpid() == process:
            portal.call(portal.stop, failed)
            thread.join()
