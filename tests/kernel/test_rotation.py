"""Rotation of master keys: while others work, cut short at every step, and twice at once; nothing is ever lost."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import mooring as m
from mooring.assembly import Settings, open_broker
from mooring.broker import _keys
from mooring.broker._desk import bound
from mooring.errors import ConfigError, KeyRetired, NoMasterKey, StoreUnavailable, VaultError, WrongKey
from mooring.events import Event, KeyRotated
from mooring.store import MemoryStore, Store, open_sqlite
from mooring.testing import Fake
from mooring.types import Connector, Sealed
from mooring.vault import KeyRing, Vault, parse_keys

pytestmark = pytest.mark.anyio
POSIX = pytest.mark.skipif(os.name != "posix", reason="SIGKILL and fork are POSIX's")
A = {"resource_type": "bucket", "resource_id": "a"}
K1, K2 = (f"{name}:{letter * 43}=" for name, letter in (("one", "A"), ("two", "E")))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # for SQLite; nothing here knows the loop


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, home: Path) -> AsyncGenerator[Store, None]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        async with open_sqlite(home / "mooring.db") as store:
            yield store


def at(home: Path, store: Store, *, key: str | None = None, **options: Any) -> AbstractAsyncContextManager[m.Broker]:
    """A broker with a vault of its own."""
    defaults = {"plugins": [Fake()], "system_plugins": (), "share_cache": False}
    return open_broker(settings=Settings(home=home, master_key=key), store=store, **defaults | options)


async def register(broker: m.Broker, name: str, secret: str = "") -> Connector:
    config = {"key": m.Secret(secret or f"s-{name}")}
    return await broker.register(name, type="fake", auth_method="key", config=config, verify=False)


async def opened(store: Store, keys: Any) -> dict[str, str]:
    """What a process that starts now can open: all, or it fails."""
    vault = Vault(KeyRing(keys / "master.key") if isinstance(keys, Path) else parse_keys(keys, "the test"))
    found = await store.list()
    assert not found.damaged
    return {one.name: vault.open(bound(one), one.sealed)["key"].reveal() for one in found}


async def states(broker: m.Broker) -> list[str]:
    return [key.state for key in await broker.keys()]


async def test_everything_comes_under_a_new_key_and_nothing_else_changes(home: Path, store: Store) -> None:
    async with at(home, store) as broker:
        for name in "abc":
            await register(broker, name)
        before = {one.name: one for one in await broker.list()}
        for turn in (1, 2):
            old = (await broker.keys())[0].id
            steps: list[tuple[int, int]] = []
            done = await broker.rotate_keys(progress=lambda *step, steps=steps: steps.append(step))
            after = {one.name: one for one in await broker.list()}

            assert done.key_id != old
            assert (done.resumed, done.rewrapped, done.retired, done.problems) == (False, 3, (old,), ())
            assert steps == [(3, 3)]
            assert {one.sealed.key_id for one in after.values()} == {done.key_id}
            for name, one in after.items():
                was = before[name]
                assert one == msgspec.structs.replace(was, sealed=one.sealed)
                assert one.sealed.fields == was.sealed.fields
                assert one.sealed.wrapped != was.sealed.wrapped
            assert await opened(store, home) == {name: f"s-{name}" for name in "abc"}
            assert await states(broker) == ["active"] + ["retired"] * turn
            with pytest.raises(KeyRetired):
                await store.replace(msgspec.structs.replace(before["a"], version=after["a"].version + 1))
        assert [key.id for key in KeyRing(home / "master.key").load()] == [key.id for key in await broker.keys()]


async def test_without_connectors_and_without_any_key(home: Path, store: Store) -> None:
    async with at(home, store) as broker:
        assert await broker.keys() == []
        first = await broker.rotate_keys()
        assert (first.resumed, first.rewrapped, first.retired) == (False, 0, ())
        second = await broker.rotate_keys()
        assert (second.resumed, second.rewrapped, second.retired) == (False, 0, (first.key_id,))
        await register(broker, "a")
        await broker.delete("a")
        assert (await broker.rotate_keys()).retired == (second.key_id,)
        assert await states(broker) == ["active", "retired", "retired"]


async def test_many_records_are_wrapped_in_batches(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keys, "BATCH", 2)
    store, steps = MemoryStore(), []
    async with at(home, store) as broker:
        for name in "abcde":
            await register(broker, name)
        await broker.rotate_keys(progress=lambda *step: steps.append(step))

    assert steps == [(2, 5), (4, 5), (5, 5)]


class Keyring:
    """A backend of the library keyring, in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.asked = 0
        self.broken = False

    def get_password(self, service: str, name: str) -> str | None:
        self.asked += 1
        if self.broken:
            raise RuntimeError("locked")
        return self.kept.get((service, name))

    def set_password(self, service: str, name: str, value: str) -> None:
        self.kept[service, name] = value

    def delete_password(self, service: str, name: str) -> None:
        del self.kept[service, name]


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Keyring:
    keyring = Keyring()
    monkeypatch.setattr("mooring.vault._keyring._backend", lambda: keyring)
    return keyring


async def test_a_key_may_go_into_the_os_keyring_and_back_into_the_file(
    home: Path, store: Store, keyring: Keyring
) -> None:
    async with at(home, store) as broker:
        await register(broker, "a")
        kept = await broker.rotate_keys(into="keyring")
        assert list(keyring.kept) == [("mooring", kept.key_id)]
        assert (home / "master.key").read_text().splitlines()[0] == f"{kept.key_id}:keyring"
        assert (await broker.keys())[0].source == "the OS keyring"
        assert await opened(store, home) == {"a": "s-a"}
        await broker.rotate_keys(into="file")
        keyring.broken = True
        assert await opened(store, home) == {"a": "s-a"}
        with pytest.raises(NoMasterKey, match="the OS keyring failed"):
            await broker.prune_keys()
        assert await states(broker) == ["active", "retired", "retired"], "what could not be erased is not forgotten"
        keyring.broken = False
        assert set(await broker.prune_keys()) == {key.id for key in (await broker.keys())[1:]}
        assert not keyring.kept
        assert len(KeyRing(home / "master.key").load()) == 1


async def test_a_first_key_goes_into_the_os_keyring_too(home: Path, keyring: Keyring) -> None:
    store = MemoryStore()
    async with at(home, store) as broker:
        await broker.rotate_keys(into="keyring")
        await register(broker, "a")
    assert (home / "master.key").read_text().endswith(":keyring\n")
    assert await opened(store, home) == {"a": "s-a"}


async def test_a_keyring_that_is_gone_is_asked_once_and_stops_nothing_else(home: Path, keyring: Keyring) -> None:
    store = MemoryStore()
    async with at(home, store) as broker:
        lost = await broker.rotate_keys(into="keyring")
        for name in "abc":
            await register(broker, name)
    ring = KeyRing(home / "master.key")
    ring.add("file")
    keyring.broken, keyring.asked = True, 0
    async with at(home, store) as broker:
        await register(broker, "d")
        done = await broker.rotate_keys()
        assert len(done.problems) == 3
        assert keyring.asked <= 6
        assert [key.state for key in await broker.keys() if key.id == lost.key_id] == ["in use"]
        assert [one.sealed.key_id == done.key_id for one in await broker.list()] == [False, False, False, True]
    keyring.broken = False
    async with at(home, store) as broker:
        done = await broker.rotate_keys()
        assert (done.resumed, done.rewrapped, done.retired) == (True, 3, (lost.key_id,))
        assert await opened(store, home) == {name: f"s-{name}" for name in "abcd"}


# Keys that the host gives


async def test_one_key_of_the_host_is_not_rotated_and_the_error_says_how(home: Path, store: Store) -> None:
    async with at(home, store, key=K1) as broker:
        await register(broker, "a")
        with pytest.raises(ConfigError, match=r"put a new one before it, as in new:\.\.\.,old:\.\.\.") as caught:
            await broker.rotate_keys()
        assert await states(broker) == ["active"]
        with pytest.raises(ConfigError, match="take the retired ones out of MOORING_MASTER_KEY"):
            await broker.prune_keys()
    assert K1[4:] not in str(caught.value)
    assert not (home / "master.key").exists()


async def test_of_two_keys_of_the_host_the_first_gets_everything(home: Path, store: Store) -> None:
    async with at(home, store, key=K1) as broker:
        await register(broker, "a")
    async with at(home, store, key=f"{K2},{K1}") as broker:
        await register(broker, "b")
        done = await broker.rotate_keys()
        assert done == _keys.Rotation(key_id="two", resumed=True, rewrapped=1, retired=("one",), problems=())
        with pytest.raises(ConfigError):
            await broker.rotate_keys()
    assert await opened(store, K2) == {"a": "s-a", "b": "s-b"}
    async with at(home, store, key=K1) as broker:
        with pytest.raises(KeyRetired, match="'one' was retired by a rotation; put the one that replaced it first"):
            await register(broker, "c")
    async with at(home, store, key=f"{K1},{K2}") as broker:  # a host that turned them around
        with pytest.raises(KeyRetired):
            await register(broker, "c")
        with pytest.raises(ConfigError, match="put a new one before it"):
            await broker.rotate_keys()
    assert await opened(store, K2) == {"a": "s-a", "b": "s-b"}, "nothing went back under the retired key"


async def test_the_hosts_next_key_is_not_retired_before_it_was_used(home: Path, store: Store) -> None:
    """Every process is given it in second place first, so that all can open what one of them seals."""
    async with at(home, store, key=K1) as broker:
        await register(broker, "a")
    async with at(home, store, key=f"{K1},{K2}") as broker:
        with pytest.raises(ConfigError, match="put a new one before it"):
            await broker.rotate_keys()
        assert await states(broker) == ["active", "unused"]
        await broker.secrets("a")
    async with at(home, store, key=f"{K2},{K1}") as other, at(home, store, key=f"{K1},{K2}") as broker:
        await register(other, "b")
        assert (await broker.secrets("b"))["key"].reveal() == "s-b"
        await register(broker, "c")
        assert (await other.rotate_keys()).retired == ("one",)
    assert await opened(store, K2) == {name: f"s-{name}" for name in "abc"}


async def test_keys_of_the_ring_that_a_restored_store_does_not_know_are_retired_too(home: Path) -> None:
    store = MemoryStore()
    async with at(home, store) as broker:
        await register(broker, "a")
        for _ in range(2):
            await broker.rotate_keys()
    older = MemoryStore()  # of a time before the ring
    async with at(home, older) as broker:
        await register(broker, "a")
        done = await broker.rotate_keys()
        assert done.resumed
        assert len(done.retired) == 2
        assert await states(broker) == ["active", "retired", "retired"]


async def test_records_of_a_store_that_knows_no_key_are_wrapped_and_their_key_retired(home: Path) -> None:
    """As after the migration from a schema without keys."""
    async with open_sqlite(home / "mooring.db") as store, at(home, store, key=K1) as broker:
        await register(broker, "a")
        with closing(sqlite3.connect(home / "mooring.db")) as raw, raw:
            raw.execute("DELETE FROM master_keys")
    async with open_sqlite(home / "mooring.db") as store, at(home, store, key=f"{K2},{K1}") as broker:
        done = await broker.rotate_keys()
        assert (done.rewrapped, done.retired) == (1, ("one",))


async def test_a_key_that_nothing_needs_any_more_is_retired_though_nothing_is_to_be_wrapped(home: Path) -> None:
    """As after a rotation that was killed between its last record and its last step."""
    store = MemoryStore()
    async with at(home, store, key=K1) as broker:
        await register(broker, "a")
        await broker.delete("a")
    async with at(home, store, key=f"{K2},{K1}") as broker:
        done = await broker.rotate_keys()
        assert (done.resumed, done.rewrapped, done.retired) == (True, 0, ("one",))


# What cannot be opened


async def test_what_cannot_be_opened_is_named_keeps_its_key_and_stops_nothing(home: Path, store: Store) -> None:
    async with at(home, store) as broker:
        for name in ("good", "altered", "moved"):
            await register(broker, name)
        old = (await broker.keys())[0].id
        altered, moved = await broker.get("altered"), await broker.get("moved")
        await store.replace(msgspec.structs.replace(altered, settings={"place": "mine"}, version=altered.version + 1))
        foreign = msgspec.structs.replace(moved.sealed, key_id="foreign")
        await store.replace(msgspec.structs.replace(moved, sealed=foreign, version=moved.version + 1))
        keys = []
        for _ in range(2):  # the second time too a new key is made: what is lost does not stop rotating for ever
            done = await broker.rotate_keys()
            keys.append(done.key_id)
            assert not done.resumed
            assert done.rewrapped == 1
            assert [problem.partition(":")[0] for problem in done.problems] == ["altered", "moved"]
            assert "'foreign'" in done.problems[1]
            assert (await broker.secrets("good"))["key"].reveal() == "s-good"
        known = {key.id: key.state for key in await broker.keys()}
        assert known == {keys[1]: "active", keys[0]: "retired", old: "in use", "foreign": "missing"}
        assert old not in await broker.prune_keys(), "whoever repairs the record needs its key"
        for name in ("altered", "moved"):
            await broker.delete(name)
        assert (await broker.rotate_keys()).retired == (old,), "that finishes it"


async def test_a_damaged_record_is_named_and_keeps_its_key(home: Path) -> None:
    async with open_sqlite(home / "mooring.db") as store, at(home, store) as broker:
        for name in ("good", "bad"):
            await register(broker, name)
        old = (await broker.keys())[0].id
        with closing(sqlite3.connect(home / "mooring.db")) as raw, raw:
            raw.execute("UPDATE connectors SET labels = '5' WHERE name = 'bad'")
        done = await broker.rotate_keys()
        assert (done.rewrapped, done.retired) == (1, ())
        assert ["'bad'" in problem for problem in done.problems] == [True]
        assert {key.id: key.state for key in await broker.keys()} == {done.key_id: "active", old: "in use"}


async def test_a_seal_that_another_program_wrote_in_another_form_ends_the_rotation_with_a_problem(home: Path) -> None:
    """Its bytes are never those that were read; it must not be tried for ever."""
    async with open_sqlite(home / "mooring.db") as store, at(home, store) as broker:
        one = await register(broker, "a")
        fields = msgspec.structs.asdict(one.sealed)
        other = msgspec.msgpack.encode(dict(reversed(fields.items())))
        assert msgspec.msgpack.decode(other, type=Sealed) == one.sealed
        with closing(sqlite3.connect(home / "mooring.db")) as raw, raw:
            raw.execute("UPDATE connectors SET sealed = ?", (other,))
        with anyio.fail_after(10):
            done = await broker.rotate_keys()
        assert done.problems == ("a: the store does not take the new seal; set one of its secrets anew",)
        await broker.update("a", config={"key": m.Secret("new")}, verify=False)
        assert await opened(store, home) == {"a": "new"}
        assert (await broker.rotate_keys()).problems == ()


async def test_a_lost_ring_is_not_replaced_by_a_rotation(home: Path, store: Store) -> None:
    async with at(home, store) as broker:
        await register(broker, "a")
    (home / "master.key").unlink()
    async with at(home, store) as broker:
        with pytest.raises(NoMasterKey, match="restore its file"):
            await broker.rotate_keys()
        assert await states(broker) == ["missing"]
    assert not (home / "master.key").exists()


async def test_another_key_of_the_active_ones_name_is_refused_before_anything_is_sealed(home: Path) -> None:
    store = MemoryStore()
    async with at(home, store, key=K1) as broker:
        await register(broker, "a")
    async with at(home, store, key=f"one:{K2[4:]},other:{K1[4:]}") as broker:
        for call in (broker.rotate_keys(), register(broker, "b")):
            with pytest.raises(WrongKey, match="give the new one a name of its own"):
                await call


async def test_prune_removes_what_is_retired_and_nothing_else(home: Path, store: Store) -> None:
    async with at(home, store) as broker:
        await register(broker, "a")
        assert await broker.prune_keys() == []
        first = (await broker.keys())[0].id
        await broker.rotate_keys()
        assert await broker.prune_keys() == [first]
        assert await broker.prune_keys() == []
        assert await opened(store, home) == {"a": "s-a"}
    async with at(home, store) as broker:
        assert await states(broker) == ["active", "removed"]


async def test_the_first_key_of_the_ring_is_never_pruned(home: Path) -> None:
    """Somebody put back an old ring: its only key is retired. A ring without a key could not be read."""
    store = MemoryStore()
    async with at(home, store) as broker:
        await register(broker, "a")
        old = (home / "master.key").read_bytes()
        new = await broker.rotate_keys()
        kept = (home / "master.key").read_bytes()
    (home / "master.key").write_bytes(old)
    async with at(home, store) as broker:
        await broker.delete("a")
        assert await broker.prune_keys() == []
        with pytest.raises(KeyRetired):
            await register(broker, "b")
        done = await broker.rotate_keys()
        assert not done.resumed
        assert done.retired == (new.key_id,)
        await register(broker, "b")
    assert kept
    assert await opened(store, home) == {"b": "s-b"}


async def test_the_event_tells_of_the_rotation_and_of_no_key(home: Path, store: Store) -> None:
    async with at(home, store) as broker, broker.subscribe(KeyRotated) as events:
        await register(broker, "a")
        done = await broker.rotate_keys()
        async for event in events:
            assert (event.key_id, event.rewrapped, event.retired) == (done.key_id, 1, 1)
            break
        said = (
            f"{event!r} {msgspec.json.encode(event)} {done!r} {await broker.keys()!r} {KeyRing(home / 'master.key')!r}"
        )
        keys = KeyRing(home / "master.key").load()
        for key in keys:
            assert key.key.reveal().rstrip("=") not in f"{said} {key!r} {keys!r}"
        assert isinstance(event, Event)


# While others work


class Watched:
    """A store that tells of every call to it, before and after."""

    def __init__(self, store: Store, step: Callable[[], Awaitable[None]]) -> None:
        self._store, self._step = store, step

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name == "ledger":
            return method

        async def call(*args: Any, **options: Any) -> Any:
            await self._step()
            result = await method(*args, **options)
            await self._step()
            return result

        return call


async def registers(broker: m.Broker, name: str, expected: dict[str, str]) -> None:
    await register(broker, name)
    expected[name] = f"s-{name}"


async def labels(broker: m.Broker, name: str, expected: dict[str, str]) -> None:
    assert (await broker.update("kept", labels={"step": name}, verify=False)).labels["step"] == name


async def changes(broker: m.Broker, name: str, expected: dict[str, str]) -> None:
    await broker.update("kept", config={"key": m.Secret(name)}, verify=False)
    expected["kept"] = name


async def issues(broker: m.Broker, name: str, expected: dict[str, str]) -> None:
    assert await broker.issue("kept", **A, consumer=name)


async def deletes(broker: m.Broker, name: str, expected: dict[str, str]) -> None:
    await broker.delete("gone")
    del expected["gone"]


async def all_of_it(broker: m.Broker, name: str, expected: dict[str, str]) -> None:
    for act in (registers, labels, changes, issues, deletes):
        await act(broker, name, expected)


@pytest.mark.parametrize("act", [registers, labels, changes, issues, deletes, all_of_it])
async def test_another_broker_works_at_each_step_of_a_rotation_and_nothing_is_lost(home: Path, act: Any) -> None:
    """It knows the ring as it was before each rotation, and learns of the new key by itself."""
    store, expected = MemoryStore(), dict[str, str]()
    target, seen = 0, 0

    async def step() -> None:
        nonlocal seen
        seen += 1
        if seen == target:
            await act(other, f"n{target}", expected)

    async with at(home, store) as other, at(home, Watched(store, step)) as rotator, at(home, store) as asleep:
        await registers(other, "kept", expected)
        await asleep.secrets("kept")  # it knows the first key, and then nothing for long
        while seen >= target:
            if "gone" not in expected:
                await registers(other, "gone", expected)
            await other.update("kept", config={"size": target}, verify=False)  # it knows the key that is active now
            target, seen = target + 1, 0
            done = await rotator.rotate_keys()

            assert done.problems == ()
            assert not done.resumed
            assert await opened(store, home) == expected
            assert await states(rotator) == ["active"] + ["retired"] * len((await rotator.keys())[1:])
            assert {one.sealed.key_id for one in await store.list()} <= {done.key_id}
        assert target > 20, "so many steps were looked at"
        await asleep.update("kept", description="awake", verify=False)
        await registers(asleep, "late", expected)
        assert await opened(store, home) == expected


async def test_a_change_that_was_read_before_a_rotation_and_is_written_after_it(home: Path) -> None:
    """The seal in it is under a key that was retired meanwhile, twice over."""

    class Late(MemoryStore):
        meanwhile: Callable[[], Awaitable[None]] | None = None

        async def replace(self, connector: Connector) -> None:
            if self.meanwhile is not None:
                await self.meanwhile()
            await super().replace(connector)

        async def add(self, connector: Connector) -> None:
            if self.meanwhile is not None:
                await self.meanwhile()
            await super().add(connector)

    store, turns = Late(), 0

    async def rotate() -> None:
        nonlocal turns
        turns += 1
        if turns % 3:
            await rotator.rotate_keys()

    async with at(home, store) as broker, at(home, store) as rotator:
        one = await register(broker, "a")
        store.meanwhile = rotate
        after = await broker.update("a", labels={"x": "y"}, verify=False)
        assert (turns, after.version) == (3, one.version + 1)
        await register(broker, "b")
        assert turns == 6
        assert await opened(store, home) == {"a": "s-a", "b": "s-b"}
        assert {one.sealed.key_id for one in await store.list()} == {(await rotator.keys())[0].id}
        assert (await broker.get("a")).labels == {"x": "y"}


async def test_a_running_broker_tells_of_keys_as_they_are_now(home: Path, store: Store) -> None:
    async with at(home, store) as one, at(home, store) as other:
        await register(one, "a")
        assert await one.keys() == await other.keys()
        done = await other.rotate_keys()
        assert (await one.keys())[0].id == done.key_id
        assert await one.keys() == await other.keys()


async def test_the_shared_cache_outlives_a_rotation(home: Path, store: Store) -> None:
    async with at(home, store, share_cache=True) as broker:
        await register(broker, "a")
        issued = await broker.issue("a", **A)
        await broker.rotate_keys()
    async with at(home, store, share_cache=True) as broker:
        again = await broker.issue("a", **A)
        assert again.cached
        assert again.credentials.token.reveal() == issued.credentials.token.reveal()
        await broker.prune_keys()
    async with at(home, store, share_cache=True) as broker:
        assert not (await broker.issue("a", **A)).cached, "what was sealed under a pruned key is asked for anew"


async def test_a_rotation_while_another_one_is_under_way_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keys, "LOCK_POLL_SECONDS", 0)
    store, ring = MemoryStore(), KeyRing(home / "master.key")
    async with at(home, store) as broker:
        await register(broker, "a")
        before = (home / "master.key").read_bytes()
        assert ring.take()
        for call in (broker.rotate_keys(), broker.prune_keys()):
            with pytest.raises(VaultError, match="another process is changing the master keys; try again"):
                await call
        await register(broker, "b")
        assert (home / "master.key").read_bytes() == before
        ring.let_go()
        await broker.rotate_keys()


async def test_two_rotations_in_one_broker_go_one_after_the_other(home: Path, store: Store) -> None:
    async with at(home, store) as broker:
        await register(broker, "a")
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(broker.rotate_keys)
        assert await states(broker) == ["active", "retired", "retired"]
        assert await opened(store, home) == {"a": "s-a"}


@pytest.mark.parametrize("method", ["note_key", "list", "rewrap", "retire_key"])
async def test_a_rotation_that_fails_or_is_cancelled_lets_go_and_is_finished_by_the_next(
    home: Path, method: str
) -> None:
    class Failing(MemoryStore):
        how: Callable[[], Awaitable[Any]] | None = None

    async def call(self: Failing, *args: Any) -> Any:
        if self.how is not None:
            await self.how()
        return await getattr(MemoryStore, method)(self, *args)

    async def fail() -> None:
        raise StoreUnavailable("the disk is gone")

    setattr(Failing, method, call)
    store = Failing()
    async with at(home, store) as broker:
        await register(broker, "a")
        (home / "master.key").read_text()
        store.how = fail
        with pytest.raises(StoreUnavailable):
            await broker.rotate_keys()
        store.how = anyio.sleep_forever
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broker.rotate_keys)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        store.how = None
        await register(broker, "b")
        await broker.rotate_keys()
        assert (await states(broker)).count("active") == 1
        assert set((await states(broker))[1:]) == {"retired"}
        assert await opened(store, home) == {"a": "s-a", "b": "s-b"}


# Real processes


COMMON = """
import json, os, shutil, signal, sys
from contextlib import suppress
from pathlib import Path
import aiosqlite, anyio
import mooring as m
from mooring.assembly import Settings, open_broker
from mooring.broker._desk import bound
from mooring.errors import VaultError
from mooring.store import open_sqlite
from mooring.testing import Fake
from mooring.vault import KeyRing, Vault, _keyring

def at(home):
    return open_broker(settings=Settings(home=home), plugins=[Fake()], system_plugins=(), share_cache=False)

async def register(broker, name):
    await broker.register(name, type="fake", auth_method="key", config={"key": m.Secret(f"s-{name}")}, verify=False)
"""

WORK = (
    COMMON
    + """
async def main(home, name):
    async with at(home) as broker:
        print("ready", flush=True)
        sys.stdin.read(1)  # all begin at once
        for number in range(15):
            one = f"{name}-{number}"
            await register(broker, one)
            await broker.update(one, labels={"a": "b"}, verify=False)
            await broker.update(f"{name}-0", config={"key": m.Secret(f"s-{number}")}, verify=False)
anyio.run(main, Path(sys.argv[1]), sys.argv[2])
"""
)

ROTATE = (
    COMMON
    + """
async def main(home, count):
    async with at(home) as broker:
        print("ready", flush=True)
        sys.stdin.read(1)
        for _ in range(count):
            done = await broker.rotate_keys()
            assert not done.problems, done
            assert not done.resumed, done
anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
"""
)


def all_at_once(*commands: tuple[str, Path, object]) -> list[str]:
    """Run scripts in processes that begin at the same moment; what they say on stderr, and nothing if they did well."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(home), str(argument)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for script, home, argument in commands
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * len(processes)
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    return [process.communicate(timeout=60)[1] for process in processes]


async def test_four_processes_register_and_update_while_a_fifth_rotates_ten_times(home: Path) -> None:
    async with open_sqlite(home / "mooring.db") as store, at(home, store) as broker:
        await register(broker, "first")
        workers = [(WORK, home, f"w{number}") for number in range(4)]
        assert all_at_once((ROTATE, home, 10), *workers) == [""] * 5

        expected = {f"w{worker}-{number}": f"s-w{worker}-{number}" for worker in range(4) for number in range(15)}
        expected |= {"first": "s-first"} | {f"w{worker}-0": "s-14" for worker in range(4)}
        assert await opened(store, home) == expected
        assert await states(broker) == ["active"] + ["retired"] * 10
        assert {one.version for one in await store.list() if one.name in ("w0-0", "w0-1")} == {2, 17}


async def test_two_processes_that_rotate_at_once_both_do(home: Path) -> None:
    async with open_sqlite(home / "mooring.db") as store, at(home, store) as broker:
        for name in "abc":
            await register(broker, name)
        assert all_at_once((ROTATE, home, 3), (ROTATE, home, 3)) == [""] * 2

        assert await states(broker) == ["active"] + ["retired"] * 6
        assert await opened(store, home) == {name: f"s-{name}" for name in "abc"}


KILLED = (
    COMMON
    + '''
"""One process forks others, so that mooring is loaded once: it has no threads, since all work is done in the forks.

SIGKILL takes nothing that was written from a process, synced or not: nothing is synced here, which saves time.
"""
import anyio._backends._asyncio, cryptography.hazmat.primitives.ciphers.aead, filelock

execute = aiosqlite.Connection.execute
aiosqlite.Connection.execute = lambda self, text, *more: execute(self, text.replace("= FULL", "= OFF"), *more)
os.fsync = lambda fd: None

class Keyring:
    """A keyring in a file, which outlives a process."""
    def __init__(self, home):
        self.path = home / "keyring.json"
    def read(self):
        return json.loads(self.path.read_text()) if self.path.exists() else {}
    def write(self, kept):
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(kept))
        os.replace(draft, self.path)
    def get_password(self, service, name):
        return self.read().get(name)
    def set_password(self, service, name, value):
        self.write(self.read() | {name: value})
    def delete_password(self, service, name):
        self.write({key: value for key, value in self.read().items() if key != name})

async def make(home):  # from nothing
    async with at(home) as broker:
        await register(broker, "made")

async def rotate(home, into="file"):
    async with at(home) as broker:
        await broker.rotate_keys(into=into)

async def rotate_into_keyring(home):
    await rotate(home, "keyring")

async def prune(home):
    async with at(home) as broker:
        await broker.prune_keys()

async def empty(home):  # how the store itself is made has tests of its own
    async with at(home):
        pass

async def three(home):
    async with at(home) as broker:
        for name in "abc":
            await register(broker, name)

async def rotated(home):
    await three(home)
    await rotate(home, "keyring")
    await rotate(home)

def instrument(limit):
    """Kill this process before step number `limit`: every change of a file's state, and every SQL statement."""
    steps = 0
    def before(owner, name):
        call = getattr(owner, name)
        def counted(*args, **options):
            nonlocal steps
            steps += 1
            if steps == limit:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)
        setattr(owner, name, counted)
    for name in ("fsync", "link", "replace", "rename", "unlink"):
        before(os, name)
    for name in ("execute", "execute_fetchall", "close"):
        before(aiosqlite.Connection, name)

def drafts(home):
    return [path.name for path in home.iterdir() if path.name.startswith(".")]

async def everything(home):
    vault = Vault(KeyRing(home / "master.key"))
    async with open_sqlite(home / "mooring.db") as store:
        return {one.name: vault.open(bound(one), one.sealed)["key"].reveal() for one in await store.list()}

async def examine(home, work):
    report = {"drafts": drafts(home), "opened": await everything(home)}
    if work is not make:
        await work(home)  # once more
    async with at(home) as broker:
        await register(broker, "later")
        report["kept"] = len(KeyRing(home / "master.key").load())
        report["resumed"] = (await broker.rotate_keys()).resumed
        if report["resumed"]:
            await broker.rotate_keys()
        report["states"] = [key.state for key in await broker.keys()]
    ring = {key.id for key in KeyRing(home / "master.key").load() if key.key is None}
    report["lost"] = sorted(ring - {*Keyring(home).read()})
    report["keyring"] = sorted(Keyring(home).read())
    return report | {"after": await everything(home), "drafts after": drafts(home)}

def forked(work, home):
    sys.stdout.flush()
    _keyring._backend = lambda: Keyring(home)
    if pid := os.fork():
        return os.waitpid(pid, 0)[1]
    try:
        work()
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)

def tried(folder, template, work, limit):
    home, report = folder / f"home-{limit}", folder / f"report-{limit}"
    shutil.copytree(template, home)
    def run():
        instrument(limit)
        anyio.run(work, home)
    status = forked(run, home)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, status
    assert forked(lambda: report.write_text(json.dumps(anyio.run(examine, home, work))), home) == 0, limit
    return killed, json.loads(report.read_text())

folder, work = Path(sys.argv[1]), globals()[sys.argv[2]]
template = folder / "template"
prepare = {make: empty, rotate: three, rotate_into_keyring: three, prune: rotated}[work]
assert forked(lambda: anyio.run(prepare, template), template) == 0
killed, limit = True, 0
while killed:
    limit += 1
    killed, report = tried(folder, template, work, limit)
    print(json.dumps(report | {"killed": killed}))
'''
)


def killed_at_every_step(folder: Path, work: str) -> list[dict[str, Any]]:
    folder.mkdir()
    command = [sys.executable, "-c", KILLED, str(folder), work]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    for report in reports:
        later = {"later": "s-later"}
        assert report["after"] == report["opened"] | later, report
        assert report["drafts after"] == [], report
        assert report["states"][0] == "active", report
        assert report["lost"] == [], report
        assert set(report["states"][1:]) <= {"retired", "removed"}, report
    assert [report["killed"] for report in reports] == [True] * (len(reports) - 1) + [False]
    return reports


THREE = {name: f"s-{name}" for name in "abc"}


@POSIX
@pytest.mark.parametrize("work", ["rotate", "rotate_into_keyring"])
def test_a_rotation_that_is_killed_at_any_step_loses_nothing_and_the_next_one_finishes(
    tmp_path: Path, work: str
) -> None:
    reports = killed_at_every_step(tmp_path / "kill", work)

    assert all(report["opened"] == THREE for report in reports)
    assert len(reports) > 20, "so many steps were looked at"
    assert any(report["drafts"] for report in reports), "some were killed with a draft on the disk"
    assert not any(report["resumed"] for report in reports), "one more rotation is enough"


@POSIX
def test_a_process_that_is_killed_while_it_makes_the_first_key_leaves_a_home_that_works(tmp_path: Path) -> None:
    reports = killed_at_every_step(tmp_path / "kill", "make")

    assert {len(report["opened"]) for report in reports} == {0, 1}
    assert any(report["drafts"] for report in reports)
    assert {report["kept"] for report in reports} == {1}


@POSIX
def test_a_prune_that_is_killed_at_any_step_loses_nothing_and_the_next_one_finishes(tmp_path: Path) -> None:
    reports = killed_at_every_step(tmp_path / "kill", "prune")

    assert all(report["opened"] == THREE for report in reports)
    assert any(report["drafts"] for report in reports)
    assert {report["kept"] for report in reports} == {1}
    assert all(report["states"][1:].count("retired") == 1 for report in reports)
    assert not any(report["keyring"] for report in reports), "no retired key stays in the keyring either"
