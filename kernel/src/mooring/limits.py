"""How many calls may be under way at once, by vendor, account, region or service.

A slot is asked for by its labels from the widest to the narrowest (`"aws", "123456789012", "eu-west-1", "s3"`); each
prefix of them has its own bound, and a call holds one slot of every bound that applies.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

import anyio


class Limits:
    """Bounds on concurrency, kept per tuple of labels for as long as somebody holds or waits for a slot."""

    def __init__(self, bounds: Mapping[int, int] | None = None) -> None:
        """Take `bounds`, from the number of labels to the calls that may be under way for one such tuple of labels."""
        self._bounds = dict(bounds if bounds is not None else {1: 500})
        self._limiters: WeakValueDictionary[tuple[str, ...], anyio.CapacityLimiter] = WeakValueDictionary()

    @asynccontextmanager
    async def slot(self, *labels: str) -> AsyncGenerator[None, None]:
        """Wait until a call with these labels may go; hold its slots while inside."""
        async with AsyncExitStack() as stack:
            # the narrowest first: who waits for a busy region does not keep others from the rest of the account
            for length, bound in sorted(self._bounds.items(), reverse=True):
                if length <= len(labels):
                    await stack.enter_async_context(self._limiter(labels[:length], bound))
            yield

    def _limiter(self, labels: tuple[str, ...], bound: int) -> anyio.CapacityLimiter:
        limiter = self._limiters.get(labels)
        if limiter is None:
            limiter = self._limiters[labels] = anyio.CapacityLimiter(bound)
        return limiter
