"""The hot paths inside a process: a cached `issue`, and `publish`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from statistics import median, quantiles

import anyio

import mooring
from measure import Figure, in_memory
from mooring import blocking
from mooring.bus import open_bus
from mooring.events import ConnectorRegistered, Event
from mooring.testing import example

ROUNDS = 41
CALLS = 500
SUBSCRIBERS = 10
LIVE = 10_000
PERCENTILES = 15
"""Rounds of which each has a p99 of its own; the median of these is told, which one bad moment does not move."""


def figures() -> Iterator[Figure]:
    """Medians over rounds, each round beside its yardstick."""
    half, most, ours, slow, theirs = anyio.run(cached_issue)
    yield Figure("cached_issue", half, f"{ours * 1e6:.1f} us to {theirs * 1e6:.1f} us, of {LIVE} live")
    yield Figure("cached_issue_p99", most, f"{slow * 1e6:.1f} us to {theirs * 1e6:.1f} us at its p50")
    ratio, ours, theirs, bare = blocking_issue()
    detail = f"{ours * 1e9:.0f} ns to {theirs * 1e9:.0f} ns, of {LIVE} live; the bare read takes {bare * 1e9:.0f} ns"
    yield Figure("blocking_issue", ratio, detail)
    ratio, ours, theirs = anyio.run(publish)
    yield Figure("publish", ratio, f"{ours * 1e6:.1f} us to {theirs * 1e6:.1f} us")


async def cached_issue() -> tuple[float, float, float, float, float]:
    """`issue` of what is at hand, one call of each of many, to a bare checkpoint of the event loop: p50 and p99."""
    async with mooring.open_broker(plugins=[example], **in_memory()) as broker:
        await broker.register("bench", type="example", config={"user": "u"})
        for number in range(LIVE):
            await broker.issue("bench", resource_id=f"bucket{number}")
        rounds = []
        for start in range(PERCENTILES):
            ours, theirs = [], []
            for number in range(start, LIVE, 2):
                name = f"bucket{number * 7 % LIVE}"
                begin = time.perf_counter()
                await broker.issue("bench", resource_id=name)
                middle = time.perf_counter()
                await anyio.lowlevel.checkpoint()
                theirs.append(time.perf_counter() - middle)
                ours.append(middle - begin)
            rounds.append((median(ours), quantiles(ours, n=100)[98], median(theirs)))
    half, slow, yardstick = (median(each) for each in zip(*rounds, strict=True))
    return half / yardstick, slow / yardstick, half, slow, yardstick


def blocking_issue() -> tuple[float, float, float, float]:
    """`issue` of what is at hand in a synchronous host, to a function that reads a dict by the same under a lock."""
    lock, known = threading.Lock(), {("bench", None, f"bucket{one}", "read", None, None): one for one in range(LIVE)}

    def read(
        connector: str,
        *,
        resource_type: str | None = None,
        resource_id: str | None = None,
        access: str = "read",
        ttl: object = None,
        consumer: str | None = None,
    ) -> int:
        with lock:
            return known[connector, resource_type, resource_id, access, ttl, consumer]

    def bare() -> None:
        with lock:
            known[key]

    def timed(call: Callable[[], object]) -> float:
        begin = time.perf_counter()
        for _ in range(CALLS):
            call()
        return (time.perf_counter() - begin) / CALLS

    key = ("bench", None, "bucket500", "read", None, None)
    with blocking.open_broker(plugins=[example], **in_memory()) as broker:
        broker.register("bench", type="example", config={"user": "u"})
        for number in range(LIVE):
            broker.issue("bench", resource_id=f"bucket{number}")
        issue = partial(broker.issue, "bench", resource_id="bucket500")
        held = partial(read, "bench", resource_id="bucket500")
        rounds = [(timed(issue), timed(held)) for _ in range(10 * ROUNDS)]
        return (
            median(a / b for a, b in rounds),
            median(a for a, _ in rounds),
            median(b for _, b in rounds),
            median(timed(bare) for _ in range(ROUNDS)),
        )


async def publish() -> tuple[float, float, float]:
    """One `publish` to ten live subscribers, to ten `send_nowait` on streams with live receivers.

    Both sides get one event, then the receivers run: so every send finds a receiver that waits for it.
    """
    event = ConnectorRegistered(at=datetime.now(UTC), connector_id="1", connector="c", connector_type="t")
    received = [0, 0]

    async with open_bus() as bus, anyio.create_task_group() as tasks:
        streams = [anyio.create_memory_object_stream[Event](256) for _ in range(SUBSCRIBERS)]

        async def raw(receive: anyio.abc.ObjectReceiveStream[Event]) -> None:
            async for _ in receive:
                received[0] += 1

        async def subscribed() -> None:
            async with bus.subscribe() as events:
                async for _ in events:
                    received[1] += 1

        for _, receive in streams:
            tasks.start_soon(raw, receive)
            tasks.start_soon(subscribed)
        await anyio.wait_all_tasks_blocked()

        ratios, ours, theirs = [], [], []
        for _ in range(ROUNDS):
            mine = yardstick = 0.0
            for _ in range(CALLS):
                begin = time.perf_counter()
                for send, _ in streams:
                    send.send_nowait(event)
                yardstick += time.perf_counter() - begin
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
                begin = time.perf_counter()
                bus.publish(event)
                mine += time.perf_counter() - begin
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
            ratios.append(mine / yardstick)
            ours.append(mine / CALLS)
            theirs.append(yardstick / CALLS)
        await anyio.wait_all_tasks_blocked()
        if received != [ROUNDS * CALLS * SUBSCRIBERS] * 2:
            raise SystemExit(f"events were lost: {received}")
        tasks.cancel_scope.cancel()
    return median(ratios), median(ours), median(theirs)
