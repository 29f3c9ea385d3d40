"""A broker for as long as a command runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from mooring.cli._output import say
from mooring.cli._process import begin

if TYPE_CHECKING:
    from mooring.broker import Broker
    from mooring.cli._edge import Run

T = TypeVar("T")


def with_broker(
    run: Run,
    work: Callable[[Broker], Awaitable[T]],
    *,
    alone: bool = False,
    looking: bool = False,
    storeless: bool = False,
    **more: Any,
) -> T:
    """Do work with a broker.

    Args:
        run: its mask learns each connector's secrets before a plugin gets them.
        work: called in an event loop of its own.
        alone: without system plugins, unless the store or the master key come from one: for calls that must be quick.
        looking: alone, and without what else runs beside a broker: it calls no vendor unless the work does.
        storeless: the same, with nothing stored, and none made: for work that looks at this machine alone.
        more: what else `open_broker` takes.

    Raises:
        KeyboardInterrupt: after the broker has closed, when interrupted.
    """
    from mooring.cli._loop import run_interruptible

    looking = looking or storeless
    opened = opening(run, alone=alone or looking, sweep=not looking, storeless=storeless, **more)

    async def main() -> T:
        async with opened as broker:
            return await work(broker)

    begin()
    with quiet(run):
        return run_interruptible(main)


def opening(
    run: Run,
    *,
    alone: bool = False,
    refresh: bool = False,
    sweep: bool = True,
    storeless: bool = False,
    **more: Any,
) -> AbstractAsyncContextManager[Broker]:
    """A broker of the settings that the environment has; see `with_broker`. It renews only if it lasts."""
    from mooring.assembly import open_broker, settings_from

    settings = settings_from()
    places = (settings.store, settings.master_key.reveal() if settings.master_key else None)
    needed = any("://" in (place or "") for place in places)
    options: dict[str, Any] = {
        "settings": settings,
        "opened": lambda secrets: run.mask.learn(*secrets),
    }
    if storeless:
        from mooring.store import MemoryStore

        more |= {"store": MemoryStore(), "share_cache": False}
    return open_broker(
        **options, **more, refresh=refresh, sweep=sweep, system_plugins=() if alone and not needed else None
    )


@contextmanager
def quiet(run: Run) -> Generator[None, None, None]:
    """What libraries log, and what fails where nobody can catch it, may quote anything: --debug shows it, masked.

    Where the process is ours it stays so to its very end, which some write their last words at.
    """
    if run.hushed:
        yield
        return
    import logging
    import sys
    import threading

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if run.debug:
                with suppress(Exception):  # half of the interpreter may be gone
                    say(run.mask(f"{record.name}: {record.getMessage()}"))

    def failed(args: Any) -> None:
        if run.debug and args.exc_value is not None:
            with suppress(Exception):
                run.trace(args.exc_value)

    handler = Shown(logging.WARNING)
    logging.lastResort = (
        logging.NullHandler()
    )  # for good: tasks that nobody awaited are told of as the interpreter goes
    before = threading.excepthook, sys.unraisablehook
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(capture=True)
    threading.excepthook = sys.unraisablehook = failed
    run.hushed = True
    try:
        yield
    finally:
        if not run.lasting:
            logging.captureWarnings(capture=False)
            logging.getLogger().removeHandler(handler)
            threading.excepthook, sys.unraisablehook = before
            run.hushed = False
