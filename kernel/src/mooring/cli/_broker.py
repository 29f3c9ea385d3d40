"""A broker for as long as a command runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from mooring.cli._output import say
from mooring.errors import MooringError

if TYPE_CHECKING:
    from mooring.broker import Broker
    from mooring.cli._edge import Run

T = TypeVar("T")


def with_broker(run: Run, work: Callable[[Broker], Awaitable[T]], *, alone: bool = False) -> T:
    """Do work with a broker.

    Args:
        run: learns the secrets that an error could quote.
        work: called in an event loop of its own.
        alone: without system plugins, unless the store or the master key come from one: for calls that must be quick.

    Raises:
        KeyboardInterrupt: after the broker has closed, when interrupted.
    """
    import anyio

    from mooring.assembly import open_broker, settings_from

    settings = settings_from()
    needed = any("://" in (place or "") for place in (settings.store, settings.master_key))

    async def main() -> T:
        async with open_broker(settings=settings, system_plugins=() if alone and not needed else None) as broker:
            try:
                return await work(broker)
            except Exception as error:
                await _learn(run, broker, error)
                raise

    with _quiet(run):
        return anyio.run(main)


async def _learn(run: Run, broker: Broker, error: Exception) -> None:
    """Know what to mask: the secrets of the connector that it is about, or in a traceback those of all."""
    try:
        if run.debug:
            names = [one.id for one in await broker.list()]
        else:
            names = [error.where["connector"]] if isinstance(error, MooringError) and "connector" in error.where else []
    except MooringError:
        return  # the store itself is what failed
    for name in names:
        await run.learn(broker, name)


@contextmanager
def _quiet(run: Run) -> Generator[None, None, None]:
    """What libraries log, and what fails where nobody can catch it, may quote anything: --debug shows it, masked."""
    import logging
    import sys
    import threading

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if run.debug:
                say(run.mask(f"{record.name}: {record.getMessage()}"))

    def failed(args: Any) -> None:
        if run.debug and args.exc_value is not None:
            run.trace(args.exc_value)

    handler = Shown(logging.WARNING)
    before = threading.excepthook, sys.unraisablehook
    logging.getLogger().addHandler(handler)
    threading.excepthook = sys.unraisablehook = failed
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        threading.excepthook, sys.unraisablehook = before
