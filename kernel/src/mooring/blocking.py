"""mooring for synchronous hosts: the broker's methods, each waiting for its result.

An event loop runs in a thread of its own (anyio's blocking portal). Credentials that are at hand and fresh are served
without crossing over to it. Every method may be called from any thread but that loop's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal

from mooring import assembly
from mooring.broker import Broker, Discovery
from mooring.credentials import Credentials
from mooring.errors import UnsupportedResource
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


def _wait(portal: BlockingPortal, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What work in the event loop gives; it is cancelled when the caller is interrupted, as by Ctrl-C."""
    future = portal.start_task_soon(work)
    try:
        return cast("T", future.result())
    finally:
        future.cancel()


def _at_hand_first(
    peek: Callable[Concatenate[Broker, P], T | None], method: Callable[Concatenate[Broker, P], Coroutine[Any, Any, T]]
) -> Callable[Concatenate[BlockingBroker, P], T]:
    """What `peek` has at hand, in the calling thread; else what the method gives."""
    asked = _waiting(method)

    @wraps(method)
    def call(self: BlockingBroker, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return peek(self.broker, *args, **kwargs) or asked(self, *args, **kwargs)

    return call


class BlockingBroker:
    """See `mooring.Broker`, whose methods these are. Made by `mooring.blocking.open_broker`."""

    def __init__(self, broker: Broker, portal: BlockingPortal) -> None:
        self.broker = broker
        self.portal = portal

    register = _waiting(Broker.register)
    lift = _waiting(Broker.lift)
    get = _waiting(Broker.get)
    secrets = _waiting(Broker.secrets)
    list = _waiting(Broker.list)
    update = _waiting(Broker.update)
    delete = _waiting(Broker.delete)
    verify = _waiting(Broker.verify)
    explain = _waiting(Broker.explain)
    discard = _waiting(Broker.discard)
    keys = _waiting(Broker.keys)
    rotate_keys = _waiting(Broker.rotate_keys)
    prune_keys = _waiting(Broker.prune_keys)
    back_up = _waiting(Broker.back_up)
    restore = _waiting(Broker.restore)
    check = _waiting(Broker.check)
    issue = _at_hand_first(Broker.peek, Broker.issue)

    def types(self) -> tuple[ConnectorType, ...]:
        """See `Broker.types`."""
        return tuple(self.broker.types())

    def plugins(self) -> tuple[Plugin, ...]:
        """See `Broker.plugins`."""
        return tuple(self.broker.plugins())

    @contextmanager
    def discover(self, **filters: Any) -> Generator[Iterator[Discovery], None, None]:
        """See `Broker.discover`."""
        with self.portal.wrap_async_context_manager(self.broker.discover(**filters)) as replies:
            yield self._iterate(replies)

    @contextmanager
    def subscribe(self, *types: type[Event], buffer: int = 256) -> Generator[Iterator[Event | Lagged], None, None]:
        """See `Broker.subscribe`."""
        with self.portal.wrap_async_context_manager(self.broker.subscribe(*types, buffer=buffer)) as events:
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

        def renew() -> Credentials:
            return self.issue(connector, access=access, **wish).credentials

        request = BlockingClientRequest(
            credentials=issued.credentials,
            renew=renew,
            resource_type=issued.resource_type,
            resource_id=issued.resource_id,
        )
        with route.blocking_client(request) as client:
            yield client

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        end = object()

        async def step() -> object:
            return await anext(items, end)

        while (item := _wait(self.portal, step)) is not end:
            yield cast("T", item)


@contextmanager
def open_broker(**options: Any) -> Generator[BlockingBroker, None, None]:
    """A broker for synchronous code, for as long as the context lives; the options are `mooring.open_broker`'s."""
    with (
        start_blocking_portal(name="mooring") as portal,
        portal.wrap_async_context_manager(assembly.open_broker(**options)) as broker,
    ):
        yield BlockingBroker(broker, portal)
