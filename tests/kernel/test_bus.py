"""The bus: order, slow subscribers, bystanders that fail, and scatter's bounds."""

import gc
import itertools
import tracemalloc
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from trio.testing import MockClock

from mooring.bus import Bus, open_bus
from mooring.errors import Overdue, Rejected
from mooring.events import (
    ConnectorDeleted,
    ConnectorEvent,
    ConnectorVerified,
    DiscoveryStarted,
    Event,
    Lagged,
    TaskFailed,
)

pytestmark = pytest.mark.anyio

VIRTUAL = pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("trio", {"clock": MockClock(autojump_threshold=0)}), id="virtual")]
)
AT = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def event(number: int) -> DiscoveryStarted:
    return DiscoveryStarted(at=AT, connectors=number)


def about(kind: type[ConnectorEvent], **more: str) -> ConnectorEvent:
    return kind(at=AT, connector_id="1", connector="c", connector_type="t", **more)


async def take(subscription, count: int) -> list[int | Lagged]:
    taken = [await anext(subscription) for _ in range(count)]
    return [one if isinstance(one, Lagged) else one.connectors for one in taken]


# -- publish and subscribe


async def test_events_arrive_in_order():
    async with open_bus() as bus, bus.subscribe() as events:
        for number in range(5):
            bus.publish(event(number))
        assert await take(events, 5) == [0, 1, 2, 3, 4]


async def test_every_subscriber_gets_every_event():
    async with open_bus() as bus, bus.subscribe() as one, bus.subscribe() as other:
        bus.publish(event(7))
        assert await take(one, 1) == await take(other, 1) == [7]


async def test_a_base_class_stands_for_its_subclasses():
    async with open_bus() as bus, bus.subscribe(ConnectorEvent) as some, bus.subscribe(Event) as all_of_them:
        bus.publish(event(1))
        bus.publish(about(ConnectorDeleted))
        bus.publish(about(ConnectorVerified, subject="me"))
        assert [type(await anext(some)) for _ in range(2)] == [ConnectorDeleted, ConnectorVerified]
        assert type(await anext(all_of_them)) is DiscoveryStarted


async def test_several_types():
    async with open_bus() as bus, bus.subscribe(DiscoveryStarted, ConnectorDeleted) as events:
        bus.publish(about(ConnectorVerified, subject="me"))
        bus.publish(about(ConnectorDeleted))
        bus.publish(event(1))
        assert [type(await anext(events)) for _ in range(2)] == [ConnectorDeleted, DiscoveryStarted]


async def test_a_slow_subscriber_is_told_how_many_it_missed_and_where():
    async with open_bus() as bus, bus.subscribe(buffer=3) as events:
        for number in range(10):
            bus.publish(event(number))
        assert await take(events, 4) == [0, 1, 2, Lagged(missed=7)]
        bus.publish(event(10))
        assert await take(events, 1) == [10]


async def test_lagged_stands_between_what_came_before_and_after():
    async with open_bus() as bus, bus.subscribe(buffer=3) as events:
        for number in range(5):
            bus.publish(event(number))
        assert await take(events, 2) == [0, 1]
        bus.publish(event(5))  # there is room for the mark and for this one
        bus.publish(event(6))
        assert await take(events, 4) == [2, Lagged(missed=2), 5, Lagged(missed=1)]
        bus.publish(event(7))
        assert await take(events, 1) == [7]


async def test_room_for_the_mark_alone_loses_the_event_behind_it():
    async with open_bus() as bus, bus.subscribe(buffer=2) as events:
        for number in range(4):
            bus.publish(event(number))
        assert await take(events, 1) == [0]
        bus.publish(event(4))
        assert await take(events, 3) == [1, Lagged(missed=2), Lagged(missed=1)]


async def test_nothing_is_lost_without_a_mark():
    """Whatever the rhythm, what arrives and what is marked as missed add up."""
    async with open_bus() as bus, bus.subscribe(buffer=4) as events:
        published = taken = 0
        for publishes, takes in [(3, 2), (9, 1), (0, 3), (1, 1), (20, 4), (2, 5), (6, 1)]:
            for _ in range(publishes):
                bus.publish(event(published))
                published += 1
            for _ in range(takes):
                with anyio.move_on_after(0.01):
                    (one,) = await take(events, 1)
                    if isinstance(one, Lagged):
                        taken += one.missed
                    else:
                        assert one == taken
                        taken += 1
        with anyio.move_on_after(0.01):
            while True:
                (one,) = await take(events, 1)
                taken += one.missed if isinstance(one, Lagged) else 1
        assert taken == published == 41


async def test_a_slow_subscriber_does_not_disturb_the_others():
    async with open_bus() as bus, bus.subscribe(buffer=1), bus.subscribe(buffer=100) as quick:
        for number in range(100):
            bus.publish(event(number))
        assert await take(quick, 100) == list(range(100))


async def test_who_has_left_gets_nothing():
    async with open_bus() as bus:
        async with bus.subscribe() as events:
            bus.publish(event(1))
        bus.publish(event(2))
        assert [one async for one in events] == []


async def test_closing_the_bus_ends_the_iteration_after_what_is_buffered():
    seen = []

    async def listen(bus: Bus) -> None:
        async with bus.subscribe(buffer=2) as events:
            await anyio.lowlevel.checkpoint()
            async for one in events:
                seen.append(one)
                await anyio.sleep(0.001)

    async with open_bus() as bus:
        bus.spawn("listener", lambda: listen(bus))
        await anyio.wait_all_tasks_blocked()
        for number in range(4):
            bus.publish(event(number))
    assert seen == [event(0), event(1), event(2), Lagged(missed=1)] or seen == [event(0), event(1), Lagged(missed=2)]


@VIRTUAL
async def test_a_subscriber_that_does_not_end_is_cancelled():
    async def listen() -> None:
        async with bus.subscribe():
            await anyio.sleep_forever()

    async with open_bus() as bus:
        bus.spawn("listener", listen)
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
    assert anyio.current_time() - began == 1.0


async def test_publishing_while_the_bus_closes_is_harmless():
    async with open_bus() as bus, bus.subscribe():
        for subscription in bus._subscriptions:
            subscription.close()
        bus.publish(event(1))  # as by a task that is cancelled


# -- spawn


async def test_a_bystander_that_fails_is_an_event_and_nothing_else():
    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError("secret")

    async with open_bus() as bus, bus.subscribe(TaskFailed) as events:
        bus.spawn("clumsy", fail)
        failed = await anext(events)
        assert (failed.task, failed.error) == ("clumsy", "ValueError")
        bus.spawn("clumsy again", fail)
        assert (await anext(events)).task == "clumsy again"


async def test_a_bystander_that_fails_while_the_bus_closes_is_harmless():
    async def fail() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError

    async with open_bus() as bus, anyio.create_task_group() as tasks:

        async def listen() -> None:
            async with bus.subscribe() as events:
                async for _ in events:
                    pass

        bus.spawn("clumsy", fail)
        bus.spawn("listener", listen)
        tasks.start_soon(anyio.lowlevel.checkpoint)


async def test_what_is_spawned_ends_with_the_bus(count_tasks):
    before = count_tasks()
    async with open_bus() as bus:
        for _ in range(10):
            bus.spawn("sleeper", anyio.sleep_forever)
        await anyio.wait_all_tasks_blocked()
        assert count_tasks() == before + 10
    assert count_tasks() == before


@pytest.mark.parametrize("error", [ValueError("mine"), Rejected("ours"), SystemExit(3), KeyboardInterrupt()])
async def test_what_the_body_raises_is_not_wrapped(error):
    with pytest.raises(type(error)) as caught:  # noqa: PT012
        async with open_bus() as bus:
            bus.spawn("sleeper", anyio.sleep_forever)
            await anyio.lowlevel.checkpoint()
            raise error
    assert caught.value is error


async def test_what_the_body_of_scatter_raises_is_not_wrapped(count_tasks):
    async def work(job, reply):
        await reply(job)
        await anyio.sleep_forever()

    async with open_bus() as bus:
        before = count_tasks()
        with pytest.raises(ValueError, match="mine"):  # noqa: PT012
            async with bus.scatter(range(10), work, limit=5) as replies:
                await anext(replies)
                raise ValueError("mine")
        assert count_tasks() == before


# -- scatter


async def echo(job, reply):
    await reply(job)


@VIRTUAL
async def test_bounded_concurrency_is_exact():
    async def work(job, reply):
        await anyio.sleep(0.1)
        await reply(job)

    async with open_bus() as bus:
        began = anyio.current_time()
        async with bus.scatter(range(500), work, limit=50) as replies:
            jobs = [reply.job async for reply in replies]
        assert anyio.current_time() - began == pytest.approx(1.0, abs=1e-9)
    assert sorted(jobs) == list(range(500))


@VIRTUAL
async def test_replies_come_as_they_land():
    async def work(job, reply):
        await anyio.sleep(job)
        await reply(job)

    async with open_bus() as bus, bus.scatter([3, 1, 2], work, limit=3) as replies:
        landed = [(reply.value, anyio.current_time()) async for reply in replies]
    began = landed[0][1] - 1
    assert landed == [(1, began + 1), (2, began + 2), (3, began + 3)]


async def test_a_failure_is_a_reply_beside_the_others():
    async def work(job, reply):
        if job == 2:
            raise Rejected("no")
        await reply(job * 10)

    async with open_bus() as bus, bus.scatter(range(4), work, limit=2) as replies:
        got = {reply.job: reply.value if reply.error is None else type(reply.error) async for reply in replies}
    assert got == {0: 0, 1: 10, 2: Rejected, 3: 30}


async def test_a_job_may_reply_often_and_then_fail():
    async def work(job, reply):
        for number in range(3):
            await reply(number)
        raise Rejected("enough")

    async with open_bus() as bus, bus.scatter(["job"], work, limit=1) as replies:
        got = [reply.value if reply.error is None else str(reply.error) async for reply in replies]
    assert got == [0, 1, 2, "enough"]


async def test_a_job_may_give_no_reply():
    async def work(job, reply):
        pass

    async with open_bus() as bus, bus.scatter(range(5), work, limit=2) as replies:
        assert [reply async for reply in replies] == []


async def test_zero_jobs():
    async with open_bus() as bus, bus.scatter([], echo, limit=5) as replies:
        assert [reply async for reply in replies] == []


@VIRTUAL
async def test_each_job_has_a_budget_of_its_own():
    async def work(job, reply):
        await reply(job)
        await anyio.sleep(job)

    async with open_bus() as bus:
        began = anyio.current_time()
        async with bus.scatter([0.5, 5, 0.9, 7], work, limit=2, budget=SECOND) as replies:
            got = [reply async for reply in replies]
        assert anyio.current_time() - began == pytest.approx(2.0)  # 0.5 then 0.9, beside 1.0; 1.0 to the last one's end
    late = [reply.job for reply in got if isinstance(reply.error, Overdue)]
    assert late == [5, 7]
    assert [reply.value for reply in got if reply.error is None] == [0.5, 5, 0.9, 7]
    assert all(reply.error is None or reply.error.retryable for reply in got)


@VIRTUAL
async def test_a_slow_reader_does_not_use_up_a_jobs_budget():
    async def work(job, reply):
        for number in range(4):
            await anyio.sleep(0.2)
            await reply(number)

    async with open_bus() as bus, bus.scatter(["job"], work, limit=1, budget=SECOND) as replies:
        got = []
        async for reply in replies:
            got.append(reply.value)
            await anyio.sleep(60)
    assert got == [0, 1, 2, 3]


@VIRTUAL
async def test_what_a_job_spends_itself_counts_also_around_a_slow_reader():
    async def work(job, reply):
        for number in range(10):
            await anyio.sleep(0.3)
            await reply(number)

    async with open_bus() as bus, bus.scatter(["job"], work, limit=1, budget=SECOND) as replies:
        got = []
        async for reply in replies:
            got.append(reply.value if reply.error is None else type(reply.error))
            await anyio.sleep(60)
    assert got == [0, 1, 2, Overdue]


@VIRTUAL
async def test_a_reply_that_is_given_up_does_not_lift_the_budget():
    async def work(job, reply):
        for number in range(3):  # the buffer holds one
            with anyio.move_on_after(0.1):
                await reply(number)
        await anyio.sleep(3600)

    async with open_bus() as bus, bus.scatter(["job"], work, limit=1, budget=SECOND) as replies:
        began = anyio.current_time()
        await anyio.sleep(0.5)
        got = [reply async for reply in replies]
        assert anyio.current_time() - began < 2
    assert isinstance(got[-1].error, Overdue)


async def test_a_job_that_is_over_budget_when_it_replies_is_overdue():
    """A job that held the event loop past its deadline ends in Overdue, not in silence."""
    import time

    async def work(job, reply):
        with anyio.CancelScope() as scope:
            scope.shield = True
            time.sleep(0.02)  # noqa: ASYNC251  that is the point
            await anyio.sleep(0.001)
        await reply("late")

    async with open_bus() as bus, bus.scatter(["job"], work, limit=1, budget=SECOND / 100) as replies:
        got = [reply async for reply in replies]
    assert [type(reply.error) for reply in got] == [Overdue]


async def test_an_error_of_the_jobs_own_is_not_overdue():
    async def work(job, reply):
        raise TimeoutError("the vendor's own")

    async with open_bus() as bus, bus.scatter(["job"], work, limit=1, budget=SECOND) as replies:
        assert [type(reply.error) async for reply in replies] == [TimeoutError]


async def test_leaving_early_leaves_nothing_running(count_tasks):
    running = 0

    async def work(job, reply):
        nonlocal running
        running += 1
        try:
            await reply(job)
            await anyio.sleep_forever()
        finally:
            running -= 1

    async with open_bus() as bus:
        before = count_tasks()
        async with bus.scatter(range(1000), work, limit=20) as replies:
            async for _ in replies:
                break
            assert running
        assert running == 0
        assert count_tasks() == before


async def test_cancellation_at_any_point_leaves_nothing_running(count_tasks):
    running = 0

    async def work(job, reply):
        nonlocal running
        running += 1
        try:
            for _ in range(3):
                await reply(job)
                await anyio.lowlevel.checkpoint()
        finally:
            running -= 1

    async def use(bus: Bus, steps: list[int]) -> None:
        async with bus.scatter(range(6), work, limit=3) as replies:
            async for _ in replies:
                await anyio.lowlevel.checkpoint()
        steps.append(1)

    async with open_bus() as bus:
        before = count_tasks()
        for checkpoints in itertools.count():
            finished: list[int] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use, bus, finished)
                for _ in range(checkpoints):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert (running, count_tasks()) == (0, before)
            if finished:
                break
        assert checkpoints > 10


async def test_very_many_jobs_are_never_very_many_tasks(count_tasks, anyio_backend):
    jobs, limit, most = 100_000 if anyio_backend == "asyncio" else 10_000, 20, 0

    async def work(job, reply):
        nonlocal most
        if job % 100 == 0:
            most = max(most, count_tasks())
        await reply(None)

    async with open_bus() as bus:
        before = count_tasks()
        async with bus.scatter(range(jobs), work, limit=limit) as replies:
            taken = 0
            async for _ in replies:
                taken += 1
    assert taken == jobs
    assert most <= before + limit


async def test_very_many_jobs_take_no_more_memory_than_few():
    async def peak(count: int) -> int:
        gc.collect()
        tracemalloc.start()
        try:
            async with bus.scatter((bytes(100) for _ in range(count)), echo, limit=10) as replies:
                async for _ in replies:
                    pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    async with open_bus() as bus:
        await peak(100)
        few, many = await peak(300), await peak(6000)
    assert many < 2 * few + 100_000  # 6,000 jobs alone would be 800 kB


async def test_no_more_workers_than_jobs(count_tasks):
    async def work(job, reply):
        await anyio.sleep(0.001)
        await reply(count_tasks())

    async with open_bus() as bus:
        before = count_tasks()
        async with bus.scatter(range(3), work, limit=1000) as replies:
            assert max([reply.value async for reply in replies]) <= before + 4


async def test_an_endless_iterable():
    async with open_bus() as bus, bus.scatter(itertools.count(), echo, limit=4) as replies:
        assert sorted([(await anext(replies)).value for _ in range(100)])[:90] == list(range(90))


async def test_an_iterable_that_raises_is_told_after_the_replies():
    def jobs():
        yield from range(3)
        raise ValueError("mine")

    got = []
    async with open_bus() as bus:
        with pytest.raises(ValueError, match="mine"):
            async with bus.scatter(jobs(), echo, limit=2) as replies:
                got += [reply.value async for reply in replies]
    assert sorted(got) == [0, 1, 2]


async def test_the_iterable_is_closed_on_leaving_early():
    closed = []

    def jobs():
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    async with open_bus() as bus:
        async with bus.scatter(jobs(), echo, limit=2) as replies:
            await anext(replies)
        assert closed == [True]


async def test_scatter_in_scatter(count_tasks):
    async with open_bus() as bus:
        before = count_tasks()

        async def work(job, reply):
            async with bus.scatter(range(job), echo, limit=2) as replies:
                async for one in replies:
                    await reply((job, one.value))

        async with bus.scatter(range(4), work, limit=2) as replies:
            got = sorted([reply.value async for reply in replies])
        assert got == [(job, number) for job in range(4) for number in range(job)]
        assert count_tasks() == before


async def test_leaving_a_nested_scatter_early(count_tasks):
    async with open_bus() as bus:
        before = count_tasks()

        async def hang(job, reply):
            await reply(job)
            await anyio.sleep_forever()

        async def work(job, reply):
            async with bus.scatter(range(5), hang, limit=5) as replies:
                async for one in replies:
                    await reply(one.value)

        async with bus.scatter(range(3), work, limit=3) as replies:
            for _ in range(7):
                await anext(replies)
        assert count_tasks() == before


# -- each: the same, told where it lands


@VIRTUAL
async def test_each_bounds_and_tells_as_scatter_does():
    told = []

    async def work(job, reply):
        await anyio.sleep(job)
        await reply(job)
        if job == 4:
            raise Rejected("no")

    async def tell(reply):
        told.append((reply.job, reply.value, type(reply.error), anyio.current_time() - began))

    async with open_bus() as bus:
        began = anyio.current_time()
        await bus.each([3, 1, 4, 9], work, tell, limit=2, budget=5 * SECOND)
    assert told == [
        (1, 1, type(None), 1),
        (3, 3, type(None), 3),
        (4, 4, type(None), 5),
        (4, None, Rejected, 5),
        (9, None, Overdue, 8),
    ]


async def test_each_of_one_job_or_none_takes_no_task(count_tasks):
    async def work(job, reply):
        await reply(count_tasks())

    told = []

    async def tell(reply):
        told.append(reply.value)

    async with open_bus() as bus:
        before = count_tasks()
        await bus.each([1], work, tell, limit=2)
        await bus.each([], work, tell, limit=2)
    assert told == [before]


async def test_each_that_is_cancelled_leaves_nothing_running(count_tasks):
    async def work(job, reply):
        if job == 2:
            scope.cancel()
        await anyio.sleep_forever()

    before = count_tasks()
    async with open_bus() as bus:
        with anyio.CancelScope() as scope:
            await bus.each(range(3), work, echo, limit=3)
    assert scope.cancelled_caught
    assert count_tasks() == before
