"""What was found long ago is asked again after it was shown: in a process of its own, which nobody waits for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mooring.cli._broker import with_broker
from mooring.cli._edge import Run

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mooring.broker import Broker
    from mooring.store import Connectors


def is_stale(at: datetime | None) -> bool:
    """Whether something was found too long ago."""
    from mooring.broker import STALE

    return at is not None and datetime.now(UTC) - at > STALE


def start(arguments: Sequence[str]) -> bool:
    """Start a process that refreshes what these arguments choose; whether that succeeded.

    It has no terminal, no standard streams and a session of its own, and imports nothing from the current folder.
    """
    command = [sys.executable, "-P", "-m", "mooring", "connector", "list-resources", "--refresh-stale", *arguments]
    devnull = subprocess.DEVNULL
    with suppress(OSError):
        child = subprocess.Popen(command, stdin=devnull, stdout=devnull, stderr=devnull, start_new_session=True)  # noqa: S603
        child.returncode = 0  # it is nobody's child any more: neither waited for, nor ended with this process
        return True
    return False


def refresh(run: Run, choose: Callable[[Broker], Awaitable[Connectors]], resource_type: str | None) -> None:
    """Ask the connectors of which something is stale, unless another process of this home is about it."""
    from filelock import FileLock, Timeout

    from mooring.assembly import settings_from

    async def work(broker: Broker) -> None:
        about: dict[str, Any] = {"resource_type": resource_type}
        chosen, stale = await choose(broker), set[str]()
        async with broker.discover(connectors=chosen, cached=True, refresh=False, **about) as replies:
            async for reply in replies:
                if is_stale(reply.at):
                    stale.add(reply.connector.id)
        async with broker.discover(connectors=[one for one in chosen if one.id in stale], **about) as replies:
            async for _ in replies:
                pass

    with suppress(Timeout), FileLock(settings_from().home / "refresh.lock", mode=0o600, blocking=False):
        with_broker(run, work)
