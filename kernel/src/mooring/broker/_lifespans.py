"""What plugins keep for as long as the broker lives: entered at first use, each in a task of its own."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

import anyio

from mooring.bus import Bus
from mooring.hookspecs import Tools
from mooring.registry import Route

CLOSE_SECONDS = 10.0


class Lifespans:
    """The entered `lifespan` of each plugin.

    A task of its own enters and leaves it, since a context manager may hold a task group; it is shielded, so that
    connections close in order when the broker is cancelled, and given `CLOSE_SECONDS` for it.
    """

    def __init__(self, bus: Bus, tools: Tools) -> None:
        self._bus = bus
        self._tools = tools
        self._closing = anyio.Event()
        self._shared: dict[str, Any] = {}
        self._locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def shared(self, route: Route) -> Any:
        """What the plugin's `lifespan` yielded, or None if it has none."""
        name = route.type.name
        if route.lifespan is None or name in self._shared:
            return self._shared.get(name)
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = anyio.Lock()
        async with lock:
            if name not in self._shared:
                await self._enter(route)
        return self._shared[name]

    async def _enter(self, route: Route) -> None:
        entered = anyio.Event()
        failure: list[Exception] = []

        async def live() -> None:
            assert route.lifespan is not None  # noqa: S101  for the type checker
            scope = anyio.CancelScope(shield=True)
            with scope:
                try:
                    async with route.lifespan(self._tools) as shared:
                        self._shared[route.type.name] = shared
                        entered.set()
                        await self._closing.wait()
                        scope.deadline = anyio.current_time() + CLOSE_SECONDS
                except Exception as error:  # noqa: BLE001  told to whoever waits
                    failure.append(error)
                finally:
                    entered.set()

        self._bus.spawn(f"lifespan of {route.type.name}", live)
        await entered.wait()
        if failure:
            raise failure[0]

    def close(self) -> None:
        """Let all of them leave."""
        self._closing.set()
