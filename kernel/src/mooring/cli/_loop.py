"""The event loop in a thread of its own, so that nothing in it, however it hangs, stands between Ctrl-C and the end."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Thread, current_thread, main_thread
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
        KeyboardInterrupt: when interrupted, after the work was cancelled; at once when interrupted again.
    """
    elsewhere = _Elsewhere(work)
    thread = Thread(target=elsewhere.run, name="mooring")
    news: SimpleQueue[bool] = SimpleQueue()
    elsewhere.done.add_done_callback(lambda _: news.put(True))
    with _interruptions(news):
        thread.start()
        if not _done(news):
            elsewhere.stop()
            if not _done(news, GRACE):
                raise KeyboardInterrupt
    thread.join(GRACE)
    return elsewhere.done.result()


@contextmanager
def _interruptions(news: SimpleQueue[bool]) -> Generator[None, None, None]:
    """Ctrl-C is a piece of news: an exception could come anywhere, such as between a lock and its release."""
    if current_thread() is not main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda _number, _frame: news.put(False))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _done(news: SimpleQueue[bool], seconds: float | None = None) -> bool:
    """Whether the work is done, once there is news; it is not if there is none in time."""
    while True:
        try:
            return news.get(timeout=POLL if seconds is None else seconds)
        except Empty:
            if seconds is not None:
                return False


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
