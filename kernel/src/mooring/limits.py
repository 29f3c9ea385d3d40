"""How many calls may be under way at once, by vendor, account, region or service.

A slot is asked for by its labels from the widest to the narrowest (`"aws", "123456789012", "eu-west-1", "s3"`); each
prefix of them has its own bound, and a call holds one slot of every bound that applies.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

import anyio

from mooring.errors import BrokenPlugin


class Limits:
    """Bounds on concurrency, kept per tuple of labels for as long as somebody holds or waits for a slot."""

    def __init__(self, bounds: Mapping[int, int] | None = None) -> None:
        """Take `bounds`, from the number of labels to the calls that may be under way for one such tuple of labels."""
        self._bounds = dict(bounds if bounds is not None else {1: 500})
        self._limiters: WeakValueDictionary[tuple[str, ...], anyio.CapacityLimiter] = WeakValueDictionary()
        self._holders: set[tuple[int, tuple[str, ...]]] = set()
        """The tasks that hold, or wait for, a slot of a bound."""

    @asynccontextmanager
    async def slot(self, *labels: str) -> AsyncGenerator[None, None]:
        """Wait until a call with these labels may go; hold its slots while inside.

        Raises:
            BrokenPlugin: this task holds a slot of the same bound already. A call within a call would be two for one
                slot if it went on, and could wait for itself, or in a ring with others, if it took another.
        """
        prefixes = [labels[:length] for length in sorted(self._bounds, reverse=True) if length <= len(labels)]
        mine = {(anyio.get_current_task().id, prefix) for prefix in prefixes}
        if taken := mine & self._holders:
            what = "/".join(min(prefix for _, prefix in taken)) or "all calls"
            raise BrokenPlugin(
                f"a slot of {what} was asked for inside another one by the same task; "
                "take one slot around each call, none around another; report it to the plugin's author"
            )
        self._holders |= mine
        try:
            async with AsyncExitStack() as stack:
                # the narrowest first: who waits for a busy region does not keep others from the rest of the account
                for prefix in prefixes:
                    await stack.enter_async_context(self._limiter(prefix, self._bounds[len(prefix)]))
                yield
        finally:
            self._holders -= mine

    def _limiter(self, labels: tuple[str, ...], bound: int) -> anyio.CapacityLimiter:
        limiter = self._limiters.get(labels)
        if limiter is None:
            limiter = self._limiters[labels] = anyio.CapacityLimiter(bound)
        return limiter
