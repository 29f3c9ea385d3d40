"""The machine's two clocks, when one of them jumps or stands still: nothing is served that has ended."""

from datetime import timedelta
from pathlib import Path

import anyio
import pytest

import mooring as m
from mooring.assembly import Settings
from mooring.cache import Cache, Due
from mooring.errors import LongLived, Rejected
from mooring.store import MemoryStore
from mooring.testing import Fake, ManualClock, memory_broker
from mooring.vault import Vault, parse_keys

pytestmark = pytest.mark.anyio
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
JUMPS = [-DAY, -10 * MINUTE, 10 * MINUTE, DAY]
A = {"resource_type": "bucket", "resource_id": "a"}


class Clocks(ManualClock):
    """The wall clock may be put back or ahead; the monotonic one may stand still."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = timedelta(0)
        self.asleep = timedelta(0)

    def now(self):
        return super().now() + self.ahead

    def monotonic(self) -> float:
        return super().monotonic() - self.asleep.total_seconds()

    def suspend(self, span: timedelta) -> None:
        """The laptop sleeps: only the wall clock goes on."""
        self.advance(span)
        self.asleep += span


class Vendor:
    """Has a clock of its own, which is right, and knows what has ended by that."""

    def __init__(self, clocks: Clocks) -> None:
        self.fake = Fake()
        self.fake.on["issue_credentials"] = self.issue
        self.clocks = clocks
        self.ends: dict[str, timedelta] = {}

    @property
    def real(self) -> timedelta:
        return self.clocks._passed

    async def issue(self, request):
        token = f"t{len(self.ends) + 1}"
        self.ends[token] = self.real + HOUR
        ends = self.clocks.now() - self.clocks.ahead + HOUR  # in the vendor's words
        return m.BearerToken(token=m.Secret(token), expires_at=ends, narrowed=True)

    def accepts(self, issued: m.Issued) -> bool:
        return self.real < self.ends[issued.credentials.token.reveal()]


async def register(broker: m.Broker) -> None:
    await broker.register("mine", type="fake", auth_method="key", verify=False, allow_long_lived=True)


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("after", [0, 20, 44, 54])
async def test_the_wall_clock_jumps_while_credentials_are_kept(jump, after):
    """What is served is good until its real end, and a jump costs one call at most."""
    vendor = Vendor(clocks := Clocks())
    async with memory_broker(vendor.fake, clock=clocks) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        clocks.advance(after * MINUTE)
        clocks.ahead = jump
        for _ in range(90 - after):
            try:
                assert vendor.accepts(await broker.issue("mine", **A))
            except Rejected:
                assert jump == DAY, "by this clock all that the vendor gives has ended: it is said, and never served"
            clocks.advance(MINUTE)
        if jump != DAY:
            assert len(vendor.ends) <= 3


@pytest.mark.parametrize("jump", JUMPS)
async def test_the_wall_clock_is_put_right_again(jump):
    vendor = Vendor(clocks := Clocks())
    clocks.ahead = jump
    async with memory_broker(vendor.fake, clock=clocks) as broker:
        await register(broker)
        if jump == DAY:
            with pytest.raises(Rejected, match="check both clocks"):
                await broker.issue("mine", **A)
        else:
            assert vendor.accepts(await broker.issue("mine", **A))
        clocks.ahead = timedelta(0)
        clocks.advance(timedelta(seconds=5))
        for _ in range(90):
            assert vendor.accepts(await broker.issue("mine", **A))
            clocks.advance(MINUTE)


async def test_a_machine_that_is_ten_minutes_behind_may_ask_for_the_longest_life():
    """The vendor's end lies ten minutes beyond what was asked for, by this clock."""
    clock, beyond = ManualClock(), [10 * MINUTE]

    async def issue(request):
        return m.BearerToken(token=m.Secret("t"), expires_at=clock.now() + request.ttl + beyond[0], narrowed=True)

    fake = Fake()
    fake.on["issue_credentials"] = issue
    async with memory_broker(fake, clock=clock) as broker:
        await broker.register("mine", type="fake", auth_method="key", verify=False)
        await broker.issue("mine", ttl=12 * HOUR, **A)
        beyond[0] = 20 * MINUTE
        with pytest.raises(LongLived):
            await broker.issue("mine", ttl=12 * HOUR, resource_type="bucket", resource_id="b")


@pytest.mark.parametrize("asleep", [30 * MINUTE, 50 * MINUTE, 57 * MINUTE, 61 * MINUTE, DAY])
async def test_a_laptop_sleeps(asleep):
    vendor = Vendor(clocks := Clocks())
    async with memory_broker(vendor.fake, clock=clocks) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        clocks.suspend(asleep)
        peeked = broker.peek("mine", **A)  # at once, before the store is looked at again
        assert peeked is None or vendor.accepts(peeked)
        assert (peeked is not None) is (asleep < 55 * MINUTE)
        for _ in range(90):
            assert vendor.accepts(await broker.issue("mine", **A))
            clocks.advance(MINUTE)


async def due(cache: Cache) -> list[Due]:
    return list(cache.due())


@pytest.mark.parametrize("how", ["suspend", "ahead"])
async def test_what_is_due_after_a_jump_is_found_at_once(how):
    """A heap by the monotonic clock would sleep on."""
    vendor = Vendor(clocks := Clocks())
    async with memory_broker(vendor.fake, clock=clocks) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        await broker.issue("mine", **A)
        cache = broker._desk.cache
        assert await due(cache) == []
        if how == "suspend":
            clocks.suspend(50 * MINUTE)
        else:
            clocks.ahead = 50 * MINUTE
        (one,) = await due(cache)
        await broker.refresh(one)
        assert len(vendor.ends) == 2
        assert await due(cache) == []


async def test_many_small_steps_of_a_clock_are_a_jump_too():
    vendor = Vendor(clocks := Clocks())
    async with memory_broker(vendor.fake, clock=clocks) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        await broker.issue("mine", **A)
        for _ in range(750):
            clocks.ahead += timedelta(seconds=4)
            found = await due(broker._desk.cache)
            if found:
                break
        assert found
        assert clocks.ahead <= 46 * MINUTE


async def test_a_failure_is_not_remembered_for_longer_since_the_wall_clock_was_put_back():
    clocks, fake = Clocks(), Fake()

    async def fail(request):
        raise m.Unreachable("no answer")

    fake.on["issue_credentials"] = fail
    async with memory_broker(fake, clock=clocks) as broker:
        await register(broker)
        with pytest.raises(m.Unreachable):
            await broker.issue("mine", **A)
        del fake.on["issue_credentials"]
        clocks.ahead = -DAY
        clocks.advance(timedelta(seconds=2))
        await broker.issue("mine", **A)


async def test_what_lies_on_the_shelf_from_the_future_is_not_taken(tmp_path: Path):
    """It was laid there before the clock was put back: nobody can tell how old it is."""
    vendor = Vendor(clocks := Clocks())
    shared = {
        "store": MemoryStore(),
        "vault": Vault(parse_keys("k:" + "A" * 43 + "=", "the test")),
        "settings": Settings(home=tmp_path),
        "share_cache": True,
        "clock": clocks,
    }
    async with memory_broker(vendor.fake, **shared) as broker:
        await register(broker)
        await broker.issue("mine", **A)
    clocks.advance(50 * MINUTE)
    clocks.ahead = -DAY
    async with memory_broker(vendor.fake, **shared) as broker:
        for _ in range(30):
            assert vendor.accepts(await broker.issue("mine", **A))
            clocks.advance(MINUTE)
    assert len(vendor.ends) == 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_while_time_stands_still_callers_are_served_and_share_one_failure():
    clocks, fake = Clocks(), Fake()

    async def fail(request):
        raise m.Unreachable("no answer")

    fake.on["issue_credentials"] = fail
    async with memory_broker(fake, clock=clocks) as broker:
        await register(broker)
        for _ in range(100):
            with pytest.raises(m.Unreachable):
                await broker.issue("mine", **A)
        assert fake.calls["issue_credentials"] == 1
        del fake.on["issue_credentials"]
        clocks.advance(timedelta(seconds=2))
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(lambda: broker.issue("mine", **A))
        assert fake.issued == 1
