"""What is measured, under which names.

The names follow OpenTelemetry's semantic conventions (general/naming, general/metrics), and come out of its Prometheus
exporter as that one's rules want them (`mooring_issue_duration_seconds`, `mooring_cache_hits_total`). Counts of what is
there now are gauges in the plural: the `.count` that is the convention for an UpDownCounter is a histogram's suffix in
Prometheus. Every attribute has few values: those of the installed plugins, or of an enumeration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import version
from threading import Lock

from msgspec import structs
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

from mooring.breakers import Breaker
from mooring.broker import Broker, Figures
from mooring.errors import BrokerClosed
from mooring.events import (
    BreakerOpened,
    ConnectorVerified,
    CredentialsIssued,
    CredentialsRefreshed,
    DiscoveryFailed,
    DiscoveryFinished,
    Event,
    IssueFailed,
    Lagged,
    RefreshFailed,
    UnitDiscovered,
    VerificationFailed,
)

SCOPE = "mooring_telemetry"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0)
"""The bounds that the conventions give for HTTP, and two more: a vendor has up to a minute."""

DURATIONS: Mapping[type[Event], tuple[str, str]] = {
    CredentialsIssued: ("mooring.issue.duration", "Making credentials that somebody asked for."),
    IssueFailed: ("mooring.issue.duration", ""),
    CredentialsRefreshed: ("mooring.refresh.duration", "Making credentials before those at hand end."),
    RefreshFailed: ("mooring.refresh.duration", ""),
    ConnectorVerified: ("mooring.verify.duration", "Asking a vendor whether it accepts a connector."),
    VerificationFailed: ("mooring.verify.duration", ""),
    DiscoveryFinished: ("mooring.discovery.duration", "Asking connectors what they reach, all of them."),
    UnitDiscovered: ("mooring.discovery.unit.duration", "Asking one connector for one resource type in one unit."),
    DiscoveryFailed: ("mooring.discovery.unit.duration", ""),
}
ATTRIBUTES = {
    "connector_type": "mooring.connector.type",
    "resource_type": "mooring.resource.type",
    "error": "error.type",
}
"""From an event's field to the attribute that it becomes."""


class Watched:
    """A broker that is observed, and the leases that it had when somebody looked last."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.leases: Counter[tuple[str, str]] = Counter()
        """How many are live, by connector type and state."""
        self.asked = True
        """Whether anybody wants to know since then."""
        self._last = Figures(entries=0, repeats=0, renewing=False)

    @property
    def figures(self) -> Figures:
        """What it has at hand, or had when it could be asked last."""
        with suppress(BrokerClosed):  # in a process that was forked
            now = self.broker.figures()
            self._last = structs.replace(
                now, repeats=max(now.repeats, self._last.repeats)
            )  # what is counted never falls
        return self._last

    @property
    def breakers(self) -> Sequence[Breaker]:
        """Its circuit breakers."""
        with suppress(BrokerClosed):
            return self.broker.breakers()
        return ()


class Brokers:
    """The open brokers of this process. Safe to use from any thread."""

    def __init__(self) -> None:
        self._watched: tuple[Watched, ...] = ()
        self._repeats = 0  # of those that are closed
        self._lock = Lock()

    def add(self, one: Watched) -> None:
        """Observe a broker from now on."""
        with self._lock:
            self._watched += (one,)

    def remove(self, one: Watched) -> None:
        """Observe it no more: it is about to close."""
        with self._lock:
            self._watched = tuple(other for other in self._watched if other is not one)
            self._repeats += one.figures.repeats

    def hits(self, _: CallbackOptions) -> Iterable[Observation]:
        """What was served without a call."""
        with self._lock:
            return [Observation(self._repeats + sum(one.figures.repeats for one in self._watched))]

    def entries(self, _: CallbackOptions) -> Iterable[Observation]:
        """What the caches hold."""
        return [Observation(sum(one.figures.entries for one in self._watched))]

    def breakers(self, _: CallbackOptions) -> Iterable[Observation]:
        """Endpoints that are left alone, by state."""
        states = Counter(breaker.state for one in self._watched for breaker in one.breakers)
        return [Observation(states[state], {"mooring.breaker.state": state}) for state in ("open", "half-open")]

    def leases(self, _: CallbackOptions) -> Iterable[Observation]:
        """Live leases, as of the last look; this has the next look follow."""
        total: Counter[tuple[str, str]] = Counter()
        for one in self._watched:
            one.asked = True
            total += one.leases
        names = ("mooring.connector.type", "mooring.lease.state")
        return [Observation(number, dict(zip(names, key, strict=True))) for key, number in total.items()]


class Instruments:
    """Those of one meter provider."""

    def __init__(self, provider: MeterProvider, brokers: Brokers) -> None:
        meter: Meter = provider.get_meter(SCOPE, version("mooring-telemetry"))
        self._durations = {
            name: meter.create_histogram(name, "s", text, explicit_bucket_boundaries_advisory=SECONDS)
            for name, text in DURATIONS.values()
            if text
        }
        self._openings = meter.create_counter(
            "mooring.breaker.openings", "{opening}", "How often an endpoint was left alone because it did not answer."
        )
        self._missed = meter.create_counter(
            "mooring.events.missed", "{event}", "Events that telemetry had no time for; what they tell is not counted."
        )
        meter.create_observable_counter(
            "mooring.cache.hits", [brokers.hits], "{hit}", "Credentials that were handed out without asking a vendor."
        )
        meter.create_observable_gauge(
            "mooring.cache.entries", [brokers.entries], "{entry}", "Sets of credentials that are kept in memory."
        )
        meter.create_observable_gauge(
            "mooring.open_breakers", [brokers.breakers], "{breaker}", "Vendor endpoints that are left alone."
        )
        meter.create_observable_gauge(
            "mooring.live_leases",
            [brokers.leases],
            "{lease}",
            "Leases of the store that are not over; as it was when they were last collected.",
        )

    def take(self, event: Event | Lagged) -> None:
        """Count an event."""
        if isinstance(event, Lagged):
            self._missed.add(event.missed)
        elif isinstance(event, BreakerOpened):
            self._openings.add(1)
        elif type(event) in DURATIONS:
            name, _ = DURATIONS[type(event)]
            self._durations[name].record(seconds(event), attributes(event))


def seconds(event: Event) -> float:
    """How long what an event tells of took."""
    took: timedelta = getattr(event, "took", timedelta(0))
    return took.total_seconds()


def attributes(event: Event) -> dict[str, str]:
    """What an event is about, in attributes with few values."""
    found = ((name, getattr(event, field, None)) for field, name in ATTRIBUTES.items())
    return {name: value for name, value in found if value}
