"""The event loop in a thread of its own, so that nothing in it, however it hangs, stands between Ctrl-C and the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import Generic, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

T = TypeVar("T")

GRACE = 1.0
"""How many seconds there are for cleaning up after Ctrl-C, and for closing the event loop."""
POLL = 1.0
"""How often Windows hears of Ctrl-C, in seconds; elsewhere it ends the wait."""


def run_interruptible(work: Callable[[], Awaitable[T]]) -> T:
    """Do work in an event loop, and wait for it. What does not end in time after Ctrl-C is left behind.

    Raises:
        KeyboardInterrupt: when interrupted, after the work was cancelled.
    """
    elsewhere = _Elsewhere(work)
    thread = Thread(target=elsewhere.run, name="mooring")
    try:
        thread.start()
        while not wait([elsewhere.done], POLL).done:
            pass
    except KeyboardInterrupt:
        elsewhere.stop()
        if not wait([elsewhere.done], GRACE).done:
            raise
    thread.join(GRACE)
    return elsewhere.done.result()


class _Elsewhere(Generic[T]):
    """Work in the event loop of another thread."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self.done: Future[T] = Future()
        self._work = work
        self._stopped = False
        self._cancel: Callable[[], object] | None = None

    def run(self) -> None:
        """The other thread."""
        try:
            anyio.run(self._serve)
        except BaseException as error:
            if self.done.done():
                raise
            self.done.set_exception(error)

    def stop(self) -> None:
        """Cancel the work. Does not wait, not even for the loop, which may be blocked."""
        self._stopped = True
        if self._cancel is not None:
            Thread(target=self._cancel, daemon=True).start()

    async def _serve(self) -> None:
        async with BlockingPortal() as portal:
            with anyio.CancelScope() as scope:
                self._cancel = lambda: portal.start_task_soon(scope.cancel)
                if self._stopped:
                    scope.cancel()
                await self._end()
            if scope.cancelled_caught:
                self.done.set_exception(KeyboardInterrupt())

    async def _end(self) -> None:
        """The work to its end, which is told before the loop is closed: that may wait for its threads."""
        try:
            self.done.set_result(await self._work())
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001  raised again by whoever waits
            self.done.set_exception(error)
