"""OpenTelemetry metrics and traces of mooring, and a Prometheus endpoint.

`plugin` subscribes to the bus of every broker. What it measures goes to the providers that the host has set up (see
`opentelemetry.metrics.set_meter_provider`), and with MOORING_METRICS_PORT to an endpoint that a broker hosts for as
long as it lasts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mooring.hookspecs import hookimpl

if TYPE_CHECKING:
    from mooring.broker import Broker
    from mooring.bus import Bus


class TelemetryPlugin:
    """The system plugin; OpenTelemetry is imported when a broker is opened."""

    @hookimpl
    def subscribe(self, bus: Bus) -> None:
        """Record what happens."""
        from mooring_telemetry.recorder import record

        bus.spawn("telemetry", lambda: record(bus))

    @hookimpl
    @asynccontextmanager
    async def lifespan(self, broker: Broker) -> AsyncGenerator[None, None]:
        """Measure what the broker has at hand, and serve it if that was asked for."""
        from mooring_telemetry.recorder import watching

        async with watching(broker):
            yield


plugin = TelemetryPlugin()
