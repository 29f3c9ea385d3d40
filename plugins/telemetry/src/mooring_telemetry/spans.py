"""Spans: one for each thing that took time, made when it is over.

They stand by themselves. An event comes from another task than the one that asked, and often from one that asked for
several callers; so there is no telling whose span would be the parent.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from mooring.events import (
    ConnectorVerified,
    CredentialsIssued,
    CredentialsRefreshed,
    DiscoveryFailed,
    DiscoveryFinished,
    DiscoveryStarted,
    Event,
    IssueFailed,
    Lagged,
    RefreshFailed,
    UnitDiscovered,
    VerificationFailed,
)
from mooring_telemetry.instruments import SCOPE, attributes, seconds

VERBS: dict[type[Event], str] = {
    CredentialsIssued: "issue",
    IssueFailed: "issue",
    CredentialsRefreshed: "refresh",
    RefreshFailed: "refresh",
    ConnectorVerified: "verify",
    VerificationFailed: "verify",
    UnitDiscovered: "discover",
    DiscoveryFailed: "discover",
}
DETAILS = {
    "connector": "mooring.connector.name",
    "access": "mooring.access",
    "lease": "mooring.lease.id",
    "unit": "mooring.discovery.unit",
    "connectors": "mooring.discovery.connectors",
    "resources": "mooring.discovery.resources",
    "failures": "mooring.discovery.failures",
}
"""What a span has beside the attributes of metrics. Resources and consumers are in the audit log."""
MOST_DISCOVERIES = 100
"""One that its caller left has no end; the oldest is given up."""


class Spans:
    """The spans of one bus, in the order of its events."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer(SCOPE, version("mooring-telemetry"))
        self._discoveries: OrderedDict[str, Span] = OrderedDict()

    def take(self, event: Event | Lagged) -> None:
        """Make of an event the span that it ends."""
        if isinstance(event, Lagged):
            return
        if isinstance(event, DiscoveryStarted):
            self._begin(event)
        elif isinstance(event, DiscoveryFinished):
            if span := self._discoveries.pop(event.discovery, None):
                _end(span, event)
        elif verb := VERBS.get(type(event)):
            about = getattr(event, "resource_type", None) or getattr(event, "connector_type", "")
            parent = self._discoveries.get(getattr(event, "discovery", ""))
            began = _nanoseconds(event.at) - int(seconds(event) * 1e9)
            _end(self._span(f"{verb} {about}", began, parent), event)

    def _begin(self, event: DiscoveryStarted) -> None:
        if len(self._discoveries) >= MOST_DISCOVERIES:
            _, span = self._discoveries.popitem(last=False)
            span.end()
        self._discoveries[event.discovery] = self._span("discover", _nanoseconds(event.at))

    def _span(self, name: str, began: int, parent: Span | None = None) -> Span:
        context = trace.set_span_in_context(parent or trace.INVALID_SPAN)
        return self._tracer.start_span(name, context, SpanKind.INTERNAL, start_time=began)


def _end(span: Span, event: Event) -> None:
    details = ((name, getattr(event, field, None)) for field, name in DETAILS.items())
    span.set_attributes(attributes(event) | {name: value for name, value in details if value not in (None, "")})
    if error := getattr(event, "error", None):
        span.set_status(Status(StatusCode.ERROR, error))
    span.end(_nanoseconds(event.at))


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000
