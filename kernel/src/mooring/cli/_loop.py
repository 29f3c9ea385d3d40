"""The event loop in a thread of its own, so that nothing in it, however it hangs, stands between Ctrl-C and the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from threading import Event, Thread
from typing import TypeVar

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
    done: Future[T] = Future()
    cancel: list[Callable[[], object]] = []
    stop = Event()

    async def serve() -> None:
        async with BlockingPortal() as portal:
            with anyio.CancelScope() as scope:
                cancel.append(lambda: portal.start_task_soon(scope.cancel))
                if stop.is_set():
                    scope.cancel()
                try:
                    done.set_result(await work())
                except anyio.get_cancelled_exc_class():
                    raise
                except BaseException as error:  # noqa: BLE001  raised again by whoever waits
                    done.set_exception(error)
            if not done.done():
                done.set_exception(KeyboardInterrupt())

    thread = Thread(target=anyio.run, args=(serve,), name="mooring")
    try:
        thread.start()
        while not wait([done], POLL).done:
            pass
    except KeyboardInterrupt:
        stop.set()
        for call in cancel:
            Thread(target=call, daemon=True).start()  # it waits for the loop, which may be blocked
        if not wait([done], GRACE).done:
            raise
    thread.join(GRACE)
    return done.result()
