"""The Prometheus endpoint: what the instruments measure, over HTTP, on a port of this machine.

One a process, for as long as a broker that asked for it is open. It has a meter provider of its own, so it works beside
whatever the host has set up, and without.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock

import click

from mooring.errors import InvalidConfig, MooringError
from mooring.types import Struct
from mooring_telemetry.instruments import Brokers, Instruments

PORT = "MOORING_METRICS_PORT"
HOST = "MOORING_METRICS_HOST"
EXPORTER = "opentelemetry-exporter-prometheus"
LOOPBACK = "127.0.0.1"
MOST_PORT = 65535

log = logging.getLogger(__name__)


class Place(Struct):
    """Where metrics are served."""

    port: int
    """0 for one of the system's choice."""
    host: str = LOOPBACK


def is_wanted() -> bool:
    """Whether the environment asks for it."""
    return bool(os.environ.get(PORT, "").strip())


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """Where the environment says.

    Raises:
        InvalidConfig: MOORING_METRICS_PORT is no port.
    """
    text = environment.get(PORT, "").strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_PORT)) and int(text) <= MOST_PORT):
        raise InvalidConfig(f"{PORT} is no port; give a number up to {MOST_PORT}, such as 9464", field=PORT)
    return Place(port=int(text), host=environment.get(HOST, "").strip() or LOOPBACK)


class Endpoint:
    """Serves while somebody has entered it. Blocking; safe to use from any thread."""

    def __init__(self, brokers: Brokers) -> None:
        self.instruments: Instruments | None = None
        self.url = ""
        """Where it serves; empty while it does not."""
        self._brokers = brokers
        self._users = 0
        self._close: Callable[[], None] = lambda: None
        self._lock = Lock()

    def enter(self) -> None:
        """Serve, if nobody has entered before.

        Raises:
            InvalidConfig: the port is none, or a library is missing.
            OSError: the port cannot be had.
        """
        with self._lock:
            if not self._users:
                self._start(place())
            self._users += 1

    def leave(self) -> None:
        """Serve no more, if nobody else has entered."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self.instruments, self.url = None, ""
                self._close()

    def _start(self, asked: Place) -> None:
        try:
            from opentelemetry.exporter.prometheus import PrometheusMetricReader
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.resources import Resource
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError:
            raise InvalidConfig(f"{PORT} needs {EXPORTER}; try: pip install {EXPORTER}", field=PORT) from None
        registry = CollectorRegistry()
        reader = PrometheusMetricReader(scope_info_enabled=False, registry=registry)
        server, thread = start_http_server(asked.port, asked.host, registry)
        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or "mooring"})
        provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()
            provider.shutdown()

        self.instruments, self._close = Instruments(provider, self._brokers), close
        host = f"[{asked.host}]" if ":" in asked.host else asked.host
        self.url = f"http://{host}:{server.server_port}/metrics"


def explain(error: Exception) -> str:
    """Why metrics are not served, in one line."""
    if isinstance(error, MooringError):
        return f"Metrics are not served: {error.message}"
    reason = getattr(error, "strerror", None) or type(error).__name__
    return f"Metrics are not served: {PORT} cannot be had ({reason}); it is tried again"


def tell(level: int, text: str) -> None:
    """Say something to who runs this: in the log, and on stderr too in mooring's own commands, which show no logs."""
    log.log(level, text)
    if isinstance(logging.lastResort, logging.NullHandler):
        with suppress(OSError):
            click.echo(text, err=True)
