"""Limits: every prefix of the labels has its own bound, which holds, and which nobody leaves behind.

In virtual time, which is exact: what the clock says is how long it would really take.
"""

import gc
import random
from collections import Counter
from collections.abc import Callable

import anyio
import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from mooring.errors import BrokenPlugin
from mooring.limits import LABELS, Limits
from mooring.types import Limit

pytestmark = pytest.mark.anyio

Call = tuple[tuple[str, ...], float]


def bounded(bounds: dict[int, int]) -> Limits:
    """Limits by the number of labels that calls have in common."""
    return Limits(Limit(name=str(length), per=LABELS[:length], at_once=bound) for length, bound in bounds.items())


async def run_all(limits: Limits, calls: list[Call]) -> Counter[tuple[str, ...]]:
    """Make all the calls at once; the most that were under way for each prefix of the labels."""
    now: Counter[tuple[str, ...]] = Counter()
    most: Counter[tuple[str, ...]] = Counter()

    async def call(labels: tuple[str, ...], seconds: float) -> None:
        async with limits.slot(*labels):
            prefixes = [labels[:length] for length in range(len(labels) + 1)]
            now.update(prefixes)
            for prefix in prefixes:
                most[prefix] = max(most[prefix], now[prefix])
            await anyio.sleep(seconds)
            now.subtract(prefixes)

    async with anyio.create_task_group() as tasks:
        for labels, seconds in calls:
            tasks.start_soon(call, labels, seconds)
    assert not any(now.values())
    return most


def in_virtual_time(work: Callable[[], object]) -> float:
    """The seconds that the work took, by a clock that jumps ahead whenever all wait."""

    async def timed() -> float:
        begin = anyio.current_time()
        await work()
        return anyio.current_time() - begin

    return trio.run(timed, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_no_more_calls_than_the_bound_are_under_way() -> None:
    most = await run_all(bounded({1: 3}), [(("aws",), 0.001)] * 20)

    assert most["aws",] == 3


async def test_each_vendor_has_a_bound_of_its_own() -> None:
    most = await run_all(bounded({1: 2}), [((vendor, "x"), 0.001) for vendor in ("aws", "gcp") for _ in range(8)])

    assert (most["aws",], most["gcp",], most[()]) == (2, 2, 4)


async def test_an_empty_bound_is_no_bound_and_the_default_is_five_hundred_a_vendor() -> None:
    unbound = await run_all(bounded({}), [(("aws",), 0.001)] * 600)
    default = await run_all(Limits(), [(("aws",), 0.001)] * 600)

    assert (unbound["aws",], default["aws",]) == (600, 500)


async def test_a_bound_on_longer_labels_does_not_touch_shorter_ones() -> None:
    most = await run_all(bounded({2: 1}), [(("aws",), 0.001)] * 4)

    assert most["aws",] == 4


async def test_a_bound_of_no_labels_is_one_for_all() -> None:
    most = await run_all(bounded({0: 2}), [((vendor,), 0.001) for vendor in "abcdef"])

    assert most[()] == 2


TUPLES = st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from("12")).flatmap(
    lambda labels: st.integers(0, 3).map(lambda length: labels[:length])
)


@given(
    st.dictionaries(st.integers(0, 3), st.integers(1, 4), max_size=4),
    st.lists(st.tuples(TUPLES, st.sampled_from([0.0, 1.0, 2.5])), max_size=25),
)
def test_every_bound_holds_for_every_prefix_and_all_calls_are_made(bounds: dict[int, int], calls: list[Call]) -> None:
    counted = []

    async def work() -> None:
        counted.append(await run_all(bounded(bounds), calls))

    in_virtual_time(work)
    (most,) = counted
    asked = Counter(labels[:length] for labels, _ in calls for length in range(len(labels) + 1))
    assert set(most) == set(asked), "all were made"
    for prefix, count in most.items():
        assert count <= min(asked[prefix], bounds.get(len(prefix), asked[prefix]))


def test_the_bound_is_used_to_the_full() -> None:
    async def work() -> None:
        await run_all(bounded({1: 50}), [(("aws",), 0.1)] * 500)

    assert in_virtual_time(work) == pytest.approx(1.0)


def test_those_who_wait_for_a_busy_region_do_not_keep_others_from_the_account() -> None:
    """They hold no slot of the account while they wait: 4 regions of 2 slots each fill the account's 8."""
    regions = [("aws", region) for region in ("a", "b", "c", "d")]

    async def work() -> None:
        await run_all(bounded({1: 8, 2: 2}), [(labels, 1.0) for labels in regions for _ in range(10)])

    assert in_virtual_time(work) == pytest.approx(5.0)


def test_many_that_ask_in_any_order_never_wait_for_each_other_in_a_ring() -> None:
    order = random.Random(0)
    calls = [((v, a, r), 1.0) for v in "ab" for a in "12" for r in "xy" for _ in range(4)]
    order.shuffle(calls)

    async def work() -> None:
        await run_all(bounded({1: 3, 2: 2, 3: 1}), calls)

    assert in_virtual_time(work) <= len(calls)


async def test_the_first_to_ask_is_the_first_to_go() -> None:
    limits, order = bounded({1: 1}), []

    async def call(number: int) -> None:
        async with limits.slot("aws"):
            order.append(number)

    async with anyio.create_task_group() as tasks, limits.slot("aws"):
        for number in range(5):
            tasks.start_soon(call, number)
            await anyio.wait_all_tasks_blocked()

    assert order == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("inner", [("aws",), ("aws", "a"), ("aws", "a", "x"), ("aws", "b"), ("gcp",)])
async def test_a_slot_around_another_is_refused_at_once_and_nothing_is_lost(inner: tuple[str, ...]) -> None:
    """It could wait for itself for ever: nobody else frees the slot that it holds."""
    limits = bounded({1: 2, 2: 1})
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks, limits.slot("aws", "a"):
            async with anyio.create_task_group() as busy:
                busy.start_soon(hold, limits, "aws", "b")
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(BrokenPlugin, match=r"a slot of .* was asked for inside another") as caught:
                    async with limits.slot(*inner):
                        pytest.fail("the slot was taken")
                assert not caught.value.retryable
                busy.cancel_scope.cancel()
            tasks.start_soon(hold, limits, "aws", "c")  # another task is another call
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    assert (await free(limits, "aws"), await free(limits, "aws", "a")) == (2, 1)
    async with limits.slot("aws", "a"):
        pass
    async with limits.slot("aws", "a"):
        pass


async def hold(limits: Limits, *labels: str) -> None:
    async with limits.slot(*labels):
        await anyio.sleep_forever()


async def free(limits: Limits, *labels: str) -> int:
    """How many calls may go now."""
    entered = 0

    async def call() -> None:
        nonlocal entered
        async with limits.slot(*labels):
            entered += 1
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    return entered


async def test_an_error_inside_frees_the_slots() -> None:
    limits = bounded({1: 2, 2: 1})
    with pytest.raises(ZeroDivisionError):
        async with limits.slot("aws", "a"):
            raise ZeroDivisionError

    assert (await free(limits, "aws"), await free(limits, "aws", "a")) == (2, 1)


async def test_being_cancelled_inside_frees_the_slots() -> None:
    limits = bounded({1: 2, 2: 1})
    async with anyio.create_task_group() as tasks:

        async def call() -> None:
            async with limits.slot("aws", "a"):
                await anyio.sleep_forever()

        tasks.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()

    assert (await free(limits, "aws"), await free(limits, "aws", "a")) == (2, 1)


@pytest.mark.parametrize("taken", [("aws",), ("aws", "a")], ids=["the wide one", "the narrow one"])
async def test_being_cancelled_while_waiting_frees_what_was_held_and_takes_nothing(taken: tuple[str, ...]) -> None:
    limits = bounded({1: 1, 2: 1})
    waiting = anyio.CancelScope()

    async def wait() -> None:
        with waiting:
            async with limits.slot("aws", "a"):
                pytest.fail("the slot was taken")

    async with anyio.create_task_group() as tasks, limits.slot(*taken):
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        waiting.cancel()
        await anyio.wait_all_tasks_blocked()

    assert waiting.cancelled_caught
    assert (await free(limits, "aws"), await free(limits, "aws", "a"), await free(limits, "aws", "b")) == (1, 1, 1)


async def test_little_is_kept_of_labels_that_nobody_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mooring.limits.MOST_KEPT", 10)
    limits = bounded({1: 2, 2: 2})
    async with limits.slot("aws", "0"):
        await run_all(limits, [(("aws", str(number)), 0.0) for number in range(1, 100)])
        assert len(limits._gates) <= 22
        most = await run_all(limits, [(("aws", "0"), 0.001)] * 4)

    assert most["aws", "0"] == 1, "what is in use is kept"
    assert not limits._holders


async def test_the_bound_is_kept_for_as_long_as_somebody_waits() -> None:
    """The last holder leaves and the next comes at once: it is still the same bound."""
    limits = bounded({1: 1})
    most = await run_all(limits, [(("aws",), 0.0)] * 10)
    gc.collect()

    assert most["aws",] == 1
