"""What plugins keep for as long as the broker lives: entered at first use, each in a task of its own."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import anyio

from mooring.bus import Bus
from mooring.errors import MooringError, Overdue
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
        self._lives: dict[str, _Life] = {}

    async def shared(self, route: Route) -> Any:
        """What the plugin's `lifespan` yielded, or None if it has none.

        Of many callers at once only one has it entered; when that fails all hear of it, and the next tries anew.
        """
        if route.lifespan is None:
            return None
        name = route.type.name
        life = self._lives.get(name)
        if life is None:
            life = self._lives[name] = _Life()
            self._bus.spawn(f"lifespan of {name}", lambda: self._live(route, life))
        if not life.entered.is_set():  # a wait costs a turn of the event loop even so
            await life.entered.wait()
        if life.failure is not None:
            raise copy.copy(life.failure) if isinstance(life.failure, MooringError) else life.failure  # stamped by each
        return life.shared

    async def _live(self, route: Route, life: _Life) -> None:
        assert route.lifespan is not None  # noqa: S101  for the type checker
        life.failure = Overdue(f"the broker closed before the plugin {route.type.name!r} was ready")
        try:
            with life.scope:
                async with route.lifespan(self._tools) as life.shared:
                    life.failure = None
                    life.entered.set()
                    await life.closing.wait()
        except Exception as error:
            if life.entered.is_set():
                raise  # nobody waits for it: the bus publishes it
            life.failure = error
        finally:
            life.entered.set()
            with suppress(KeyError):
                del self._lives[route.type.name]

    def close(self) -> None:
        """Let all of them leave."""
        for life in self._lives.values():
            life.scope.deadline = anyio.current_time() + (CLOSE_SECONDS if life.entered.is_set() else 0)
            life.closing.set()


class _Life:
    """One plugin's lifespan: under way, entered or failed."""

    def __init__(self) -> None:
        self.entered = anyio.Event()
        self.closing = anyio.Event()
        self.scope = anyio.CancelScope(shield=True)
        self.shared: Any = None
        self.failure: Exception | None = None
