"""Every event as one line of the host's structlog."""

from __future__ import annotations

import msgspec

from mooring.bus import Bus
from mooring.events import Event, Lagged


async def keep_journal(bus: Bus) -> None:
    """Log what happens until the bus closes. structlog is loaded with the first event."""
    async with bus.subscribe(Event) as events:
        async for event in events:
            import structlog

            log = structlog.get_logger("mooring")
            if isinstance(event, Lagged):
                log.warning("events_missed", missed=event.missed)
            else:
                fields = msgspec.to_builtins(event)
                log.info(fields.pop("event"), **fields)
