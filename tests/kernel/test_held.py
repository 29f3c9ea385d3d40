"""What a client that lives long holds: when others are asked for, and what becomes of a refusal."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace

import mooring as m
from mooring.assembly import Settings
from mooring.held import BlockingHeld, Held
from mooring.testing import Fake, memory_broker, powered

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
A = {"resource_type": "bucket", "resource_id": "a"}


def token(text, life=None, began=BEGAN):
    ends = began + timedelta(seconds=life) if life is not None else None
    return m.BearerToken(token=m.Secret(text), expires_at=ends, narrowed=True)


def same(credentials):
    return credentials


@pytest.fixture
def at(monkeypatch):
    """Sets the clock, to seconds since it all began."""
    now = [0.0]
    monkeypatch.setattr("mooring.held._now", lambda: BEGAN + timedelta(seconds=now[0]))

    def set(seconds):
        now[0] = seconds

    return set


def asked_at(at, first, renew, moments):
    """When a holder that is used at these moments asks."""
    asked = []

    def noted(**_):
        asked.append(moment)
        return renew(moment)

    held = BlockingHeld(first, noted, same)
    for moment in moments:
        at(moment)
        held.fresh()
    return asked


@pytest.mark.parametrize(("life", "first"), [(900, 600), (3600, 2700), (12 * 3600, 12 * 3600 - 900), (60, 40)])
def test_others_are_asked_for_with_a_third_or_a_quarter_of_an_hour_left(at, life, first):
    moments = range(0, life, 5)
    assert asked_at(at, token("1", life), lambda _: token("2", life, BEGAN + timedelta(days=1)), moments) == [first]


def test_as_long_as_there_are_no_others_it_asks_ever_more_seldom_until_the_end(at):
    moments = [step / 10 for step in range(8990)]
    asked = asked_at(at, token("1", 900), lambda _: token("1", 900), moments)
    assert asked[:4] == [600.0, 800.0, 866.7, 888.9]
    assert len(asked) < 12
    assert all(later - sooner >= 1 for sooner, later in pairwise(asked))


def test_what_has_no_end_is_not_asked_for_again(at):
    assert asked_at(at, token("1"), lambda _: token("2"), range(0, 10**6, 1000)) == []


def test_a_failure_counts_as_an_answer_until_the_end(at):
    def fail(**_):
        asked.append(1)
        raise m.Unreachable("no answer")

    asked = []
    first = token("1", 900)
    held = BlockingHeld(first, fail, same)
    for moment in (600, 601, 799):
        at(moment)
        assert held.fresh() is first
    assert len(asked) == 1
    at(900)
    with pytest.raises(m.Unreachable):
        held.fresh()


@pytest.mark.anyio
async def test_one_asks_while_the_others_go_on_and_at_the_end_they_wait(at):
    go, asked = anyio.Event(), []

    async def renew():
        asked.append(1)
        await go.wait()
        return token("2", 9000)

    first, got = token("1", 900), []
    held = Held(first, renew, same)

    async def use():
        got.append((await held.fresh()).token.reveal())

    async with anyio.create_task_group() as tasks:
        at(700)
        for _ in range(10):
            tasks.start_soon(use)
        await anyio.wait_all_tasks_blocked()
        assert got == ["1"] * 9
        at(900)
        for _ in range(5):
            tasks.start_soon(use)
        await anyio.wait_all_tasks_blocked()
        assert got == ["1"] * 9
        go.set()
    assert got == ["1"] * 9 + ["2"] * 6
    assert len(asked) == 1


def test_one_thread_asks_while_the_others_go_on(at):
    begun, go = threading.Event(), threading.Event()

    def renew():
        begun.set()
        assert go.wait(10)
        return token("2", 9000)

    held = BlockingHeld(token("1", 900), renew, same)
    at(700)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(held.fresh)
        assert begun.wait(10)
        assert held.fresh().token.reveal() == "1"
        go.set()
        assert asking.result(10).token.reveal() == "2"


@pytest.mark.anyio
async def test_what_was_refused_is_replaced_once_for_all_who_say_so():
    asked = []

    async def renew(refused=None):
        asked.append(refused)
        await anyio.lowlevel.checkpoint()
        return token(str(1 + len(asked)))

    first = token("1")
    held = Held(first, renew, same)

    async def use():
        assert (await held.instead_of(first)).token.reveal() == "2"

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(use)
    assert asked == [first]


def test_what_was_refused_is_replaced_once_for_all_threads():
    asked, first = [], token("1")

    def renew(refused=None):
        asked.append(refused)
        return token(str(1 + len(asked)))

    held = BlockingHeld(first, renew, same)
    with ThreadPoolExecutor(50) as pool:
        assert {one.token.reveal() for one in pool.map(held.instead_of, [first] * 50)} == {"2"}
    assert asked == [first]


def test_where_there_are_no_others_it_stays_the_same_object():
    first = token("1")
    held = BlockingHeld(first, lambda refused: token("1"), same)
    assert held.instead_of(first) is first


@pytest.mark.anyio
async def test_the_broker_makes_others_for_a_client_whose_own_were_refused():
    fake = Fake()
    async with memory_broker(fake, powered) as broker:
        await broker.register("mine", type="fake", auth_method="key")
        async with broker.client("mine", **A) as renew:
            first = await renew()
            assert await renew() == first
            second = await renew(refused=first)
            assert second != first
            assert await renew(refused=first) == second
    assert fake.issued == 2


@pytest.mark.anyio
async def test_a_lease_is_role_wide_where_the_auth_method_says_so_of_its_resource_type():
    class Wide(Fake):
        @m.hookimpl
        def describe(self):
            found = super().describe()
            types = {"key": ("bucket",), "fixed": (), "implicit": None}
            methods = tuple(replace(one, role_wide=types[one.name]) for one in found.auth_methods)
            return replace(found, auth_methods=methods)

        @m.hookimpl
        async def revoke_all(self, session, request):
            return "done"

    async with memory_broker(Wide(), settings=Settings(home=Path("/nonexistent"), allow_implicit=True)) as broker:
        seen = {}
        for method in ("key", "fixed", "implicit"):
            await broker.register(method, type="fake", auth_method=method)
            for wish in ({"resource_type": "bucket", "resource_id": "a"}, {"resource_type": "generic"}):
                issued = await broker.issue(method, **wish)
                seen[method, wish["resource_type"]] = (await broker.lease(issued.lease)).revocation
    wide = {pair for pair, revocation in seen.items() if revocation == "role-wide"}
    assert wide == {("key", "bucket"), ("implicit", "bucket"), ("implicit", "generic")}
    assert set(seen.values()) == {"role-wide", "none"}
