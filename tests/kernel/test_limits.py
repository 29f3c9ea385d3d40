"""Limits: every bound and rate holds, nobody starves, what vendors answer narrows them, and nothing is left behind.

In virtual time, which is exact: what the clock says is how long it would really take.
"""

import gc
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import anyio
import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from mooring.errors import (
    AccessDenied,
    AuthFailed,
    BrokenPlugin,
    InvalidConfig,
    MooringError,
    Rejected,
    Throttled,
    Unreachable,
)
from mooring.limits import LABELS, RETRIES, RETRY_COST, Limits, Spent, asking, counting, parse_limits
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
        for number in range(1, 100):
            await run_all(limits, [(("aws", str(number)), 0.0)])
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


def test_what_somebody_waits_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waits for the vendor, the account that it will need next is not made anew for others."""
    monkeypatch.setattr("mooring.limits.MOST_KEPT", 3)
    limits = bounded({1: 1, 2: 1})
    calls = [(("aws", "0"), 1.0), *((("gcp", str(number)), 0.0) for number in range(9)), (("aws", "0"), 1.0)]
    most: list[Any] = []
    in_virtual_time(lambda: _append(most, run_all(limits, calls)))

    async def wait_and_forget() -> None:
        async with anyio.create_task_group() as tasks, limits.slot("aws"):
            tasks.start_soon(hold, limits, "aws", "0")
            await anyio.wait_all_tasks_blocked()
            gate = limits._gates_of(("aws", "0"))
            for number in range(9):
                async with anyio.create_task_group() as other:
                    other.start_soon(run_all, limits, [(("gcp", f"x{number}"), 0.0)])
            assert limits._gates_of(("aws", "0"))[0] is gate[0]
            tasks.cancel_scope.cancel()

    in_virtual_time(wait_and_forget)
    assert most[0]["aws", "0"] == 1


async def _append(found: list[Any], work: Awaitable[Any]) -> None:
    found.append(await work)


# -- rates ------------------------------------------------------------------------------------------------------------

ECR = Limit(name="ecr", per=("vendor",), rate=5)


class Log:
    """Who began a call, and when."""

    def __init__(self, limits: Limits, *labels: str) -> None:
        self.limits = limits
        self.labels = labels or ("aws",)
        self.began: list[tuple[float, str]] = []

    async def call(self, asker: str = "", seconds: float = 0.0) -> None:
        with asking(asker):
            async with self.limits.slot(*self.labels):
                self.began.append((anyio.current_time(), asker))
                await anyio.sleep(seconds)

    async def run(self, calls: dict[str, int], seconds: float = 0.0) -> None:
        """So many calls of each asker, all at once."""
        async with anyio.create_task_group() as tasks:
            for asker, count in calls.items():
                for _ in range(count):
                    tasks.start_soon(self.call, asker, seconds)

    @property
    def askers(self) -> list[str]:
        return [asker for _, asker in self.began]

    def most_in(self, window: float) -> int:
        """The most calls that began within any such time."""
        times = [time for time, _ in self.began]
        return max(sum(first <= time < first + window for time in times) for first in times)


@given(
    rate=st.sampled_from([0.25, 1.0, 3.0, 5.0, 40.0]),
    burst=st.integers(1, 6),
    pauses=st.lists(st.sampled_from([0.0, 0.01, 0.3, 1.0, 7.0]), min_size=1, max_size=40),
    seconds=st.sampled_from([0.0, 0.4, 3.0]),
)
def test_a_rate_is_never_exceeded_in_any_window(rate: float, burst: int, pauses: list[float], seconds: float) -> None:
    log = Log(Limits([Limit(name="r", per=("vendor",), rate=rate, burst=burst)]))

    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            for pause in pauses:
                await anyio.sleep(pause)
                tasks.start_soon(log.call, "", seconds)

    in_virtual_time(work)
    assert len(log.began) == len(pauses)
    for window in (0.1, 1.0, 10.0):
        assert log.most_in(window) <= burst + rate * window + 1e-6


def test_five_a_second_for_a_hundred_connectors_is_never_exceeded_and_nobody_starves() -> None:
    log, names = Log(Limits([ECR])), [f"c{number}" for number in range(100)]

    took = in_virtual_time(lambda: log.run(dict.fromkeys(names, 3)))

    assert took == pytest.approx(299 / 5)
    assert log.most_in(1.0 - 1e-6) <= 5
    for turn in range(1, 4):  # the very first call went before anybody waited
        so_far = Counter(log.askers[: turn * 100 + 1])
        assert min(so_far[name] for name in names) >= turn, "each has its turn before any has the next"


def test_a_connector_with_a_thousand_calls_does_not_keep_one_with_three_waiting() -> None:
    log = Log(Limits([Limit(name="n", per=("vendor",), at_once=1)]))

    in_virtual_time(lambda: log.run({"big": 1000, "small": 3}, seconds=1.0))

    assert [place for place, asker in enumerate(log.askers) if asker == "small"][-1] <= 7


def test_those_who_move_on_to_wait_elsewhere_keep_their_order() -> None:
    rules = [
        Limit(name="narrow", per=("vendor", "account"), at_once=1),
        Limit(name="wide", per=("vendor",), rate=1.0),
    ]
    log = Log(Limits(rules), "aws", "0")

    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            for asker in "abcdef":
                tasks.start_soon(log.call, asker, 0.5)
                await trio.testing.wait_all_tasks_blocked()

    in_virtual_time(work)
    assert log.askers == list("abcdef")


# -- what vendors answer ----------------------------------------------------------------------------------------------


def test_a_complaint_pauses_for_as_long_as_the_vendor_asks() -> None:
    log = Log(Limits([Limit(name="n", per=("vendor",), at_once=4)]))

    async def work() -> None:
        with pytest.raises(Throttled):
            async with log.limits.slot("aws"):
                raise Throttled("slow down", retry_after=timedelta(seconds=7))
        await log.run({"": 1})

    assert in_virtual_time(work) == pytest.approx(7.0)


def test_a_complaint_that_names_no_time_pauses_for_a_moment() -> None:
    log = Log(Limits([Limit(name="n", per=("vendor",), at_once=4)]))

    async def work() -> None:
        async with log.limits.slot("aws") as slot:
            slot.throttled()
        await log.run({"": 1})

    assert 0.25 <= in_virtual_time(work) <= 0.5


async def complain(limits: Limits, count: int, seconds: float = 0.0, retry_after: float = 0.0) -> None:
    """So many calls at once, of all of which the vendor complains."""

    async def one() -> None:
        async with limits.slot("aws") as slot:
            await anyio.sleep(seconds)
            slot.throttled(timedelta(seconds=retry_after))

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(one)


@pytest.mark.parametrize("retry_after", [0.0, 3.0])
@pytest.mark.parametrize("count", [1, 8])
def test_the_complaints_of_calls_under_way_together_count_once_and_halve_the_limit(
    count: int, retry_after: float
) -> None:
    limits = Limits([Limit(name="n", per=("vendor",), at_once=8)])
    most: list[Any] = []

    async def work() -> None:
        await complain(limits, count, 1.0, retry_after)
        await anyio.sleep(10)
        most.append(await run_all(limits, [(("aws",), 1.0)] * 4))
        most.append(await free(limits, "aws"))

    in_virtual_time(work)
    assert most[0]["aws",] == 4
    assert 4 < most[1] <= 8, "what the vendor takes widens it again"


def test_a_rate_is_halved_too_and_recovers() -> None:
    log = Log(Limits([Limit(name="r", per=("vendor",), rate=10.0)]))

    async def work() -> None:
        await complain(log.limits, 1)
        await anyio.sleep(10)
        await log.run({"": 40})

    in_virtual_time(work)
    times = [time for time, _ in log.began]
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) > 0.15
    assert gaps[-10:] == pytest.approx([0.1] * 10)


def test_complaint_after_complaint_leaves_some_of_the_limit() -> None:
    limits = Limits([Limit(name="n", per=("vendor",), at_once=8)])

    async def work() -> None:
        for _ in range(50):
            await complain(limits, 1, 1.0)
        assert await free(limits, "aws") == 1
        await anyio.sleep(1)
        await run_all(limits, [(("aws",), 1.0)] * 100)
        assert await free(limits, "aws") == 8

    in_virtual_time(work)


def test_what_was_taken_before_the_complaint_does_not_widen() -> None:
    limits = Limits([Limit(name="n", per=("vendor",), at_once=8)])

    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(7):
                tasks.start_soon(run_all, limits, [(("aws",), 5.0)])
            await trio.testing.wait_all_tasks_blocked()
            tasks.start_soon(complain, limits, 1, 1.0)
        await anyio.sleep(10)
        assert await free(limits, "aws") == 4

    in_virtual_time(work)


def test_a_complaint_narrows_its_own_group_alone() -> None:
    rules = [
        Limit(name="v", per=("vendor",), at_once=8),
        Limit(name="s", per=("vendor", "account"), where={"account": "a*"}, at_once=8),
    ]
    limits = Limits(rules)

    async def work() -> None:
        async with limits.slot("aws", "a1") as slot:
            slot.throttled(timedelta(seconds=60))
        assert (await free(limits, "aws", "a1"), await free(limits, "aws", "a2")) == (0, 8)
        assert await free(limits, "aws", "b") == 8

    in_virtual_time(work)


@pytest.mark.parametrize("how", ["by its slot", "afterwards"])
def test_so_many_calls_as_the_vendor_says_remain_and_no_more(how: str) -> None:
    log = Log(Limits([Limit(name="n", per=("vendor",), at_once=100)]))

    async def work() -> None:
        async with log.limits.slot("aws") as slot:
            if how == "by its slot":
                slot.remaining(3, timedelta(seconds=60))
        if how == "afterwards":
            log.limits.remaining(3, timedelta(seconds=60), "aws")
        begin = anyio.current_time()
        await log.run({"": 8})
        assert [time - begin for time, _ in log.began] == [0, 0, 0, 60, 60, 60, 60, 60]

    in_virtual_time(work)


@pytest.mark.parametrize("waiting", [1, 5])
def test_a_wait_beyond_the_callers_deadline_is_refused_at_once_and_says_when(waiting: int) -> None:
    log, refused = Log(Limits([Limit(name="slow", per=("vendor",), rate=0.001)])), []

    async def late() -> None:
        with anyio.fail_after(60):
            with pytest.raises(Throttled, match="the limit slow leaves no room") as caught:
                await log.call()
            refused.append(caught.value.retry_after)

    async def work() -> None:
        await log.call()
        async with anyio.create_task_group() as tasks:
            for _ in range(waiting):
                tasks.start_soon(late)
        assert await anyio.to_thread.run_sync(lambda: len(log.began)) == 1

    assert in_virtual_time(work) == 0
    assert refused == [timedelta(seconds=1000)] * waiting


def test_a_pause_of_days_is_told_as_long_as_it_is() -> None:
    limits = Limits([Limit(name="n", per=("vendor",), at_once=4)])

    async def work() -> None:
        async with limits.slot("aws") as slot:
            slot.throttled(timedelta(days=2))
        with anyio.fail_after(60), pytest.raises(Throttled, match="in 172800 s"):
            await run_one(limits)

    in_virtual_time(work)


async def run_one(limits: Limits) -> None:
    async with limits.slot("aws"):
        pass


# -- retries ----------------------------------------------------------------------------------------------------------


class Vendor:
    """Answers with errors, then well."""

    def __init__(self, *errors: MooringError) -> None:
        self.errors = list(errors)
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "well"


def called(vendor: Vendor, limits: Limits | None = None, within: float = float("inf")) -> tuple[str, Spent]:
    """What a call gives, and what it cost."""
    spent, given = Spent(), []

    async def work() -> None:
        with counting(spent), anyio.fail_after(within):
            given.append(await (limits or Limits()).call(vendor, "aws", "0"))

    in_virtual_time(work)
    return given[0], spent


@pytest.mark.parametrize("error", [Unreachable("no"), Throttled("no"), Throttled("no", retry_after=timedelta(0))])
def test_what_may_help_is_tried_again_and_counted(error: MooringError) -> None:
    vendor = Vendor(error, error)
    given, spent = called(vendor)
    assert (given, vendor.asked, spent.calls, spent.retries) == ("well", 3, 3, 2)


@pytest.mark.parametrize("error", [AccessDenied("no"), AuthFailed("no"), Rejected("no"), ZeroDivisionError("no")])
def test_what_does_not_help_is_not(error: Exception) -> None:
    vendor = Vendor(error)  # type: ignore[arg-type]
    with pytest.raises(type(error)):
        called(vendor)
    assert vendor.asked == 1


def test_after_three_attempts_the_last_error_is_raised() -> None:
    vendor = Vendor(Unreachable("1"), Unreachable("2"), Unreachable("3"), Unreachable("4"))
    with pytest.raises(Unreachable, match="3"):
        called(vendor)
    assert vendor.asked == 3


@pytest.mark.parametrize(("retry_after", "within"), [(6.0, 100.0), (3.0, 2.0)], ids=["too long", "no time left"])
def test_who_asks_for_more_time_than_there_is_is_not_asked_again(retry_after: float, within: float) -> None:
    vendor = Vendor(Throttled("no", retry_after=timedelta(seconds=retry_after)))
    with pytest.raises(Throttled) as caught:
        called(vendor, within=within)
    assert vendor.asked == 1
    assert caught.value.retry_after == timedelta(seconds=retry_after)


def test_no_slot_is_held_between_attempts() -> None:
    limits = Limits([Limit(name="n", per=("vendor",), at_once=1)])
    vendor, other = Vendor(Unreachable("no", retry_after=timedelta(seconds=4))), Vendor()

    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(limits.call, vendor, "aws")
            await anyio.sleep(1)
            await limits.call(other, "aws")
            assert anyio.current_time() - begin[0] == pytest.approx(1.0)

    begin: list[float] = []

    async def timed() -> None:
        begin.append(anyio.current_time())
        await work()

    in_virtual_time(timed)
    assert (vendor.asked, other.asked) == (2, 1)


def test_an_outage_is_not_met_by_many_more_calls() -> None:
    limits, vendor = Limits(), Vendor(*[Unreachable("down")] * 5000)

    async def one() -> None:
        with pytest.raises(Unreachable):
            await limits.call(vendor, "aws", "0", "eu", "s3")

    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(one)

    in_virtual_time(work)
    assert vendor.asked == 1000 + RETRIES // RETRY_COST
    vendor.errors = [Unreachable("no")]
    with pytest.raises(Unreachable):
        called(vendor, limits)  # the budget is used up
    for _ in range(RETRY_COST):
        called(vendor, limits)
    vendor.errors = [Unreachable("no")]
    assert called(vendor, limits)[0] == "well", "what succeeds fills it again"


# -- cancellation -----------------------------------------------------------------------------------------------------


@given(
    at_once=st.none() | st.integers(1, 2),
    rate=st.none() | st.sampled_from([1.0, 4.0]),
    narrow=st.none() | st.integers(1, 2),
    calls=st.lists(
        st.tuples(
            st.sampled_from(["x", "y"]), st.sampled_from("ab"), st.sampled_from([None, 0.0, 0.25, 0.5, 1.0, 2.0])
        ),
        max_size=12,
    ),
)
def test_being_cancelled_at_any_moment_loses_no_room(
    at_once: int | None, rate: float | None, narrow: int | None, calls: list[tuple[str, str, float | None]]
) -> None:
    rules = [
        Limit(name="wide", per=("vendor",), at_once=at_once, rate=rate, burst=2),
        Limit(name="narrow", per=("vendor", "account"), at_once=narrow),
    ]
    limits = Limits(rules)

    async def one(account: str, asker: str, until: float | None) -> None:
        with anyio.move_on_after(float("inf")) as scope, asking(asker):
            async with anyio.create_task_group() as tasks:
                if until is not None:
                    tasks.start_soon(_cancel_after, scope, until)
                async with limits.slot("aws", account):
                    await anyio.sleep(0.75)
                tasks.cancel_scope.cancel()

    async def work() -> None:
        async with anyio.create_task_group() as tasks:
            for account, asker, until in calls:
                tasks.start_soon(one, account, asker, until)
        await anyio.sleep(10)
        for gate in limits._gates.values():
            assert gate.in_use == 0
            assert not gate.waiting
            assert gate.idle(anyio.current_time())
        assert not limits._holders
        with anyio.fail_after(10):
            await run_all(limits, [(("aws", account), 0.1) for account in "xy"])

    in_virtual_time(work)


async def _cancel_after(scope: anyio.CancelScope, seconds: float) -> None:
    await anyio.sleep(seconds)
    scope.cancel()


def test_room_that_was_given_to_somebody_cancelled_goes_to_the_next() -> None:
    """Granted and cancelled in the same moment: the call was not made, so neither is its part of the rate used up."""
    log = Log(Limits([Limit(name="n", per=("vendor",), at_once=1, rate=0.01, burst=2)]))

    async def doomed(scope: anyio.CancelScope) -> None:
        with scope:
            await log.call("doomed")

    async def work() -> None:
        first = anyio.CancelScope()
        async with anyio.create_task_group() as tasks, log.limits.slot("aws"):
            tasks.start_soon(doomed, first)
            await trio.testing.wait_all_tasks_blocked()
            tasks.start_soon(log.call, "next")
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()

    assert in_virtual_time(work) == 0
    assert log.askers == ["next"]


# -- what is declared and configured ----------------------------------------------------------------------------------


def test_a_configuration_changes_limits_by_name_also_those_that_are_learned_later() -> None:
    limits = Limits([ECR], parse_limits("ecr.rate=none, ecr.at_once=2, later.at_once=1"))
    limits.learn([Limit(name="later", per=("vendor",), where={"vendor": "gcp"}, at_once=50)])
    most: list[Any] = []
    in_virtual_time(lambda: _append(most, run_all(limits, [((vendor,), 1.0) for vendor in ("aws", "gcp")] * 5)))
    assert (most[0]["aws",], most[0]["gcp",]) == (2, 1)


def test_learning_the_same_again_changes_nothing_and_another_of_the_name_takes_its_place() -> None:
    limits = Limits([ECR])
    before = limits._gates_of(("aws",))
    limits.learn([ECR])
    assert limits._gates_of(("aws",))[0] is before[0]
    limits.learn([Limit(name="ecr", per=("vendor",), at_once=1)])
    assert [gate.limit.at_once for gate in limits._gates_of(("aws",))] == [1]


@pytest.mark.parametrize("rule", [{"per": ("vendor", "cloud")}, {"per": ("vendor",), "where": {"host": "x"}}])
def test_a_limit_of_labels_that_there_are_none_is_the_plugins_fault(rule: dict[str, Any]) -> None:
    with pytest.raises(BrokenPlugin, match=r"the limit 'mine' names '(cloud|host)', not one of: vendor, account"):
        Limits().learn([Limit(name="mine", **rule)])


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("", {}),
        (" , ,", {}),
        ("aws-ecr.rate=5", {"aws-ecr": {"rate": 5.0}}),
        ("a.b.at_once = 3 ,a.b.burst=2", {"a.b": {"at_once": 3, "burst": 2}}),
        ("x.rate=none,x.at_once=none", {"x": {"rate": None, "at_once": None}}),
        ("x.rate=0.5", {"x": {"rate": 0.5}}),
    ],
)
def test_what_a_configuration_says(text: str, changes: dict[str, Any]) -> None:
    assert parse_limits(text) == changes


@pytest.mark.parametrize(
    "part",
    [
        *("x", "x=1", ".rate=5", "=5", "x.rate", "x.rate=", "x.speed=5", "x.rate=fast", "x.rate=0", "x.rate=-1"),
        *("x.rate=inf", "x.rate=nan", "x.rate=1e999", "x.at_once=1.5", "x.at_once=0", "x.burst=none", "x.rate=5=6"),
    ],
)
def test_what_a_configuration_cannot_say(part: str) -> None:
    with pytest.raises(InvalidConfig, match="malformed; write name") as caught:
        parse_limits(f"vendor.rate=5, {part}")
    assert repr(part) in caught.value.message
    assert caught.value.field == "MOORING_LIMITS"
