"""Circuit breakers: when they open, who is let through, and how soon a vendor that is back is asked again."""

from datetime import timedelta

import anyio
import pytest
import trio.testing

import mooring as m
from mooring.breakers import Breakers
from mooring.errors import AccessDenied, BrokenPlugin, ConfigError, Overdue, Throttled, Unreachable
from mooring.events import BreakerClosed, BreakerOpened
from mooring.testing import Fake, ManualClock, VirtualClock, memory_broker

A = {"resource_type": "bucket", "resource_id": "a"}
SECOND = timedelta(seconds=1)
DOWN = Unreachable("no answer")
VIRTUAL = ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


class Circuit:
    """Breakers of one endpoint without jitter, and what they told."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.told: list[str] = []
        self.breakers = Breakers(
            self.clock,
            opened=lambda breaker: self.told.append(f"opened for {(breaker.until - self.clock.now()).seconds}"),
            closed=lambda endpoint: self.told.append(f"closed {endpoint}"),
            jitter=lambda: 0.0,
        )

    def call(self, error: BaseException | None = None) -> str:
        """Whether it went through, or was refused."""
        try:
            with self.breakers.calling("sts"):
                if error is not None:
                    raise error
        except BaseException as problem:  # noqa: BLE001  a cancellation is one of them
            return "asked" if problem is error else "refused"
        return "asked"

    def fail(self, times: int) -> None:
        for _ in range(times):
            assert self.call(DOWN) == "asked"

    @property
    def state(self) -> str:
        return ", ".join(one.state for one in self.breakers.all()) or "none"


def test_it_opens_after_five_failures_in_a_row():
    one = Circuit()
    one.fail(4)
    assert (one.state, one.told) == ("closed", [])
    one.call()
    assert one.state == "none"
    one.fail(5)
    assert (one.state, one.told) == ("open", ["opened for 5"])
    assert one.call() == "refused"
    (breaker,) = one.breakers.all()
    assert (breaker.endpoint, breaker.failures, breaker.error) == ("sts", 5, "Unreachable")
    assert breaker.until == one.clock.now() + 5 * SECOND


def test_a_refusal_says_when_and_that_nobody_was_asked():
    one = Circuit()
    one.fail(5)
    one.clock.advance(2 * SECOND)
    with (
        pytest.raises(Unreachable, match="sts did not answer 5 times in a row; it is asked again in 3 s") as caught,
        one.breakers.calling("sts"),
    ):
        pass
    assert (caught.value.asked, caught.value.retry_after) == (False, 3 * SECOND)


def test_when_the_pause_is_over_one_call_finds_out():
    one = Circuit()
    one.fail(5)
    one.clock.advance(5 * SECOND)
    assert one.state == "half-open"
    with one.breakers.calling("sts"):
        assert one.state == "half-open"
        assert [one.call() for _ in range(3)] == ["refused"] * 3
    assert (one.state, one.told) == ("none", ["opened for 5", "closed sts"])
    assert one.call() == "asked"


def test_a_probe_that_fails_doubles_the_pause_up_to_a_minute():
    one = Circuit()
    one.fail(5)
    for pause in (5, 10, 20, 40, 60, 60):
        one.clock.advance((pause - 0.001) * SECOND)
        assert one.call() == "refused"
        one.clock.advance(0.001 * SECOND)
        one.fail(1)
    assert one.told == [f"opened for {pause}" for pause in (5, 10, 20, 40, 60, 60, 60)]
    one.clock.advance(60 * SECOND)
    assert one.call() == "asked"
    one.fail(5)
    assert one.told[-2:] == ["closed sts", "opened for 5"], "and begins anew"


@pytest.mark.parametrize("error", [Unreachable("x"), Overdue("x")])
def test_what_counts_as_no_answer(error):
    one = Circuit()
    for _ in range(5):
        one.call(error)
    assert one.state == "open"


@pytest.mark.parametrize("error", [AccessDenied("x"), Throttled("x")])
def test_a_no_is_an_answer(error):
    one = Circuit()
    one.fail(4)
    one.call(error)
    assert one.state == "none"


@pytest.mark.parametrize("error", [ConfigError("x"), BrokenPlugin("x"), ValueError("x"), KeyboardInterrupt()])
def test_what_fails_before_the_vendor_is_asked_says_nothing_of_it(error):
    one = Circuit()
    one.fail(4)
    one.call(error)
    one.fail(1)
    assert one.state == "open"
    one.clock.advance(5 * SECOND)
    assert one.call(error) == "asked"
    assert one.state == "half-open"
    assert one.told == ["opened for 5"]
    assert one.call() == "asked", "the next one finds out"
    assert one.told[-1] == "closed sts"


def test_a_call_from_before_that_answers_late_closes_it_and_the_probes_failure_is_the_first():
    one = Circuit()
    with one.breakers.calling("sts"):
        one.fail(5)
        one.clock.advance(5 * SECOND)
        probe = one.breakers.calling("sts")
        probe.__enter__()
    assert one.told == ["opened for 5", "closed sts"]
    assert not probe.__exit__(Unreachable, DOWN, None)
    assert (one.state, [each.failures for each in one.breakers.all()]) == ("closed", [1])


def test_calls_from_before_that_fail_late_open_it_once():
    one = Circuit()
    calls = [one.breakers.calling("sts") for _ in range(20)]
    for call in calls:
        call.__enter__()
    for call in calls:
        assert not call.__exit__(Unreachable, DOWN, None)
    assert one.told == ["opened for 5"]


def test_each_endpoint_has_its_own_and_there_are_not_endlessly_many(monkeypatch):
    monkeypatch.setattr("mooring.breakers.MOST", 10)
    one = Circuit()
    for number in range(30):
        with pytest.raises(Unreachable), one.breakers.calling(f"host{number}"):
            raise Unreachable("no answer")
    assert {breaker.endpoint for breaker in one.breakers.all()} == {f"host{number}" for number in range(20, 30)}
    assert one.call() == "asked"


# -- in a broker


@pytest.mark.anyio
async def test_it_is_told_of_and_written_down():
    async def fail(request):
        raise Unreachable("no answer")

    fake, clock = Fake(), ManualClock()
    async with memory_broker(fake, clock=clock) as broker, broker.subscribe(BreakerOpened, BreakerClosed) as events:
        await broker.register("mine", type="fake", auth_method="key", verify=False)
        fake.on["issue_credentials"] = fail
        for number in range(8):
            with pytest.raises(Unreachable):
                await broker.issue("mine", resource_type="bucket", resource_id=f"b{number}")
        assert fake.calls["issue_credentials"] == 5
        assert [one.state for one in broker.breakers()] == ["open"]
        opened = await anext(events)
        assert (opened.endpoint, opened.failures) == ("the vendor of connector 'mine'", 5)
        del fake.on["issue_credentials"]
        clock.advance(60 * SECOND)
        await broker.issue("mine", **A)
        assert (await anext(events)).endpoint == opened.endpoint
        assert broker.breakers() == []


@pytest.mark.parametrize("anyio_backend", [VIRTUAL], ids=["virtual time"])
@pytest.mark.parametrize("down", [10, 100, 1000])
@pytest.mark.anyio
async def test_a_vendor_that_is_back_is_used_again_within_a_minute(down):
    """For every key, whatever its own pause and the breaker's: both are of a minute at most, and never one on another.

    While it is down, ten keys asked for every second cost no more than one call in every 54 s, the shortest of the
    longest pauses, and those before: 5 until the breaker opens, 5 probes until its pause is the longest.
    """
    fake, served = Fake(), {}
    async with memory_broker(fake, clock=(clock := VirtualClock())) as broker:
        await broker.register("mine", type="fake", auth_method="key", verify=False)

        async def fail(request):
            if clock.monotonic() < down:
                raise Unreachable("no answer")

        fake.on["issue_credentials"] = fail

        async def ask(number: int) -> None:
            while number not in served:
                try:
                    await broker.issue("mine", resource_type="bucket", resource_id=f"b{number}")
                    served[number] = clock.monotonic()
                except m.Unreachable:
                    await anyio.sleep(1)

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(ask, number)
        assert max(served.values()) <= down + 61  # each asks once a second
        assert fake.calls["issue_credentials"] - 10 <= 5 + 5 + down / 54
