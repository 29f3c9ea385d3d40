"""A real SDK with exporters in memory: what it collected since a test began."""

from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

DELTA = dict.fromkeys((Counter, Histogram, ObservableCounter), AggregationTemporality.DELTA)
READER = InMemoryMetricReader(preferred_temporality=DELTA)
EXPORTER = InMemorySpanExporter()
TRACERS = TracerProvider()
TRACERS.add_span_processor(SimpleSpanProcessor(EXPORTER))


class Collected:
    """What the SDK has, by name."""

    def __init__(self) -> None:
        READER.get_metrics_data()
        EXPORTER.clear()

    def metrics(self) -> dict[str, list[Any]]:
        """The data points of each metric since the last call."""
        data = READER.get_metrics_data()
        scopes = [scope for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics]
        return {one.name: list(one.data.data_points) for scope in scopes for one in scope.metrics}

    def spans(self) -> tuple[ReadableSpan, ...]:
        """In the order in which they ended."""
        return EXPORTER.get_finished_spans()


@pytest.fixture(scope="session")
def sdk() -> None:
    """Set up once, as a host does: before or after mooring is imported."""
    metrics.set_meter_provider(MeterProvider([READER]))
    trace.set_tracer_provider(TRACERS)


@pytest.fixture
def collected(sdk: None) -> Collected:
    return Collected()


@pytest.fixture(autouse=True)
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOORING_METRICS_PORT", "MOORING_METRICS_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param
