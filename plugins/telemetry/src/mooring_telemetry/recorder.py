"""From a broker's bus to the instruments and spans, without ever being in its way.

Recording runs on a thread of its own: an exporter that hangs holds up that thread, then events are missed, and counted.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus
from opentelemetry import metrics, trace

from mooring.broker import Broker
from mooring.bus import Bus
from mooring.events import BreakerOpened, DiscoveryStarted, Event, Lagged
from mooring_telemetry.endpoint import Endpoint, explain, is_wanted, tell
from mooring_telemetry.instruments import DURATIONS, Brokers, Instruments, Watched
from mooring_telemetry.spans import Spans

BUFFER = 4096
"""Events that wait while an exporter is slow."""
PAUSE = 10.0
"""Seconds between two looks at the leases, and between two tries to get a port."""
TYPES: tuple[type[Event], ...] = (*DURATIONS, DiscoveryStarted, BreakerOpened)

CLOSE_SECONDS = 1.0

log = logging.getLogger(__name__)
brokers = Brokers()
instruments = Instruments(metrics.get_meter_provider(), brokers)
endpoint = Endpoint(brokers)


async def record(bus: Bus) -> None:
    """Record what happens on a bus until it closes."""
    spans = Spans(trace.get_tracer_provider())
    alone = anyio.CapacityLimiter(1)
    async with bus.subscribe(*TYPES, buffer=BUFFER) as events:
        async for event in events:
            await anyio.to_thread.run_sync(take, spans, event, limiter=alone, abandon_on_cancel=True)


def take(spans: Spans, event: Event | Lagged) -> None:
    """Give an event to everybody who wants it; one who fails harms none of the others."""
    for one in (instruments, endpoint.instruments, spans):
        try:
            if one is not None:
                one.take(event)
        except Exception as error:  # noqa: BLE001  an exporter may raise anything
            log.warning("%s was not recorded: %s", type(event).__name__, type(error).__name__)


@asynccontextmanager
async def watching(broker: Broker) -> AsyncGenerator[None, None]:
    """Observe a broker, and serve what is measured if that is asked for and the broker lasts."""
    one = Watched(broker)
    brokers.add(one)
    failure: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            if broker.figures().renewing:  # it lasts
                if is_wanted():
                    await tasks.start(_serve)
                tasks.start_soon(_look, one)
            try:
                yield
            except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  raised again, outside the group
                failure = error
            tasks.cancel_scope.cancel()
    finally:
        brokers.remove(one)
    if failure is not None:
        raise failure


async def _serve(*, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
    """Serve until cancelled; started when it was tried once. A port that is taken is tried again until it is free."""
    tried = False
    while (problem := await _enter()) is not None:
        if not tried:
            tell(logging.WARNING, explain(problem))
            task_status.started()
        if not isinstance(problem, OSError):
            return
        tried = True
        await anyio.sleep(PAUSE)
    try:
        tell(logging.INFO, f"Serving metrics at {endpoint.url}.")
        if not tried:
            task_status.started()
        await anyio.sleep_forever()
    finally:
        with suppress(Exception), anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await anyio.to_thread.run_sync(endpoint.leave, abandon_on_cancel=True)


async def _enter() -> Exception | None:
    try:
        await anyio.to_thread.run_sync(endpoint.enter)
    except Exception as error:  # noqa: BLE001  nothing that goes wrong here may end the broker
        return error
    return None


async def _look(one: Watched) -> None:
    """See which leases are live, when somebody has asked since the last time."""
    while True:
        if one.asked:
            one.asked = False
            with suppress(Exception):  # such as a store that cannot be read now
                found = await one.broker.leases()
                one.leases = Counter((lease.connector_type, lease.state) for lease in found)
        await anyio.sleep(PAUSE)
