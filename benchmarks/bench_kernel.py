"""The hot paths inside a process: a cached `issue`, and `publish`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from statistics import median

import anyio

import mooring
from measure import Figure
from mooring.bus import open_bus
from mooring.events import ConnectorRegistered, Event
from mooring.store import MemoryStore
from mooring.testing import example

ROUNDS = 41
CALLS = 500
SUBSCRIBERS = 10


def figures() -> Iterator[Figure]:
    """Medians over rounds, each round beside its yardstick."""
    ratio, ours, theirs = anyio.run(cached_issue)
    yield Figure("cached_issue", ratio, f"{ours * 1e6:.1f} us to {theirs * 1e6:.1f} us")
    ratio, ours, theirs = anyio.run(publish)
    yield Figure("publish", ratio, f"{ours * 1e6:.1f} us to {theirs * 1e6:.1f} us")


async def cached_issue() -> tuple[float, float, float]:
    """`issue` of what is at hand, to a bare checkpoint of the event loop."""
    options = {"plugins": [example], "system_plugins": [], "store": MemoryStore(), "share_cache": False}
    async with mooring.open_broker(**options) as broker:  # type: ignore[arg-type]
        await broker.register("bench", type="example", config={"user": "u"})
        for name in (f"bucket{number}" for number in range(1000)):
            await broker.issue("bench", resource_id=name)

        async def issue() -> None:
            await broker.issue("bench", resource_id="bucket500")

        return await _in_turn(issue, anyio.lowlevel.checkpoint)


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


async def _in_turn(
    ours: Callable[[], Awaitable[None]], theirs: Callable[[], Awaitable[None]]
) -> tuple[float, float, float]:
    """The median ratio of two calls, and both medians in seconds."""
    rounds = [(await _time(ours), await _time(theirs)) for _ in range(ROUNDS)]
    return median(a / b for a, b in rounds), median(a for a, _ in rounds), median(b for _, b in rounds)


async def _time(call: Callable[[], Awaitable[None]]) -> float:
    begin = time.perf_counter()
    for _ in range(CALLS):
        await call()
    return (time.perf_counter() - begin) / CALLS
