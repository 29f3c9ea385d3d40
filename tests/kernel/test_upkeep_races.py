"""Backup, restore, rotation and pruning beside each other, and a store that lies: no secret is ever lost to it."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import msgspec
import pytest

import mooring as m
from mooring.assembly import Settings, open_broker
from mooring.errors import KeyRetired, NoMasterKey
from mooring.testing import Fake
from mooring.types import Secret
from mooring.vault import KeyRing

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the SQLite store needs it


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@asynccontextmanager
async def opened(home: Path, key: str | None = None) -> AsyncGenerator[m.Broker, None]:
    settings = Settings(home=home, master_key=Secret(key) if key else None)
    async with open_broker(settings=settings, plugins=[Fake()], system_plugins=()) as broker:
        yield broker


async def register(broker: m.Broker, name: str) -> None:
    await broker.register(name, type="fake", auth_method="key", config={"key": f"key of {name}"}, verify=False)


async def opens(broker: m.Broker, *names: str) -> None:
    for name in names:
        assert (await broker.secrets(name))["key"].reveal() == f"key of {name}"
    assert (await broker.check()).problems == ()


def altered(home: Path, *statements: str) -> None:
    with closing(sqlite3.connect(home / "mooring.db")) as raw, raw:
        for statement in statements:
            raw.execute(statement)


def exported(home: Path) -> list[str]:
    return [key.exported() for key in KeyRing(home / "master.key").load()]


async def test_a_restore_lets_nobody_rotate_meanwhile_and_opens_after_a_rotation_and_pruning(home, tmp_path) -> None:
    async with opened(home) as broker, opened(home) as other:
        await register(broker, "mine")
        await broker.back_up(tmp_path / "before")
        rotated: list[str] = []
        store = broker._desk.store
        restore = store.restore

        async def slowly(path: Path) -> None:
            await anyio.sleep(0.3)
            assert rotated == [], "the ring is held"
            await restore(path)

        store.restore = slowly

        async def run() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(rotate_at_once)
                await broker.restore(tmp_path / "before", replace=True)

        async def rotate_at_once() -> None:
            await anyio.sleep(0.05)
            rotated.append((await other.rotate_keys()).key_id)
            await other.prune_keys()

        await run()
        assert len(rotated) == 1
        await opens(broker, "mine")
        await opens(other, "mine")


async def test_a_backup_from_before_a_rotation_is_restored_under_the_active_key(home, tmp_path) -> None:
    async with opened(home) as broker:
        await register(broker, "mine")
        await broker.back_up(tmp_path / "before")
        await broker.rotate_keys()
        await broker.restore(tmp_path / "before", replace=True)

        states = {key.state: key for key in await broker.keys()}
        assert (states["active"].connectors, states["retired"].connectors) == (1, 0)
        assert len(await broker.prune_keys()) == 1
        await opens(broker, "mine")
        done = await broker.rotate_keys()
        assert not done.resumed


async def test_a_broker_that_was_open_before_a_rotation_backs_up_under_the_new_key(home, tmp_path) -> None:
    async with opened(home) as old, opened(home) as broker:
        await register(old, "mine")
        await old.back_up(tmp_path / "first")
        await broker.rotate_keys()
        await broker.prune_keys()
        await old.back_up(tmp_path / "second")
        assert (await broker.check(tmp_path / "second")).problems == ()

    (key,) = exported(home)
    async with opened(tmp_path / "elsewhere", key) as elsewhere:
        await elsewhere.restore(tmp_path / "second")
        await opens(elsewhere, "mine")


async def test_a_backup_needs_one_key_alone(home, tmp_path) -> None:
    """A record that another process wrote under an old key just before is wrapped in the copy."""
    async with opened(home) as broker:
        await register(broker, "mine")
        one, two = exported(home)[0], "next:" + "A" * 43
    async with opened(home, f"{two},{one}") as broker:
        await broker.back_up(tmp_path / "file")
        assert (await broker.get("mine")).sealed.key_id == one.partition(":")[0]
    async with opened(tmp_path / "elsewhere", two) as elsewhere:
        await elsewhere.restore(tmp_path / "file")
        await opens(elsewhere, "mine")


async def test_no_backup_is_made_under_a_retired_key(home, tmp_path) -> None:
    one, two = "one:" + "A" * 43, "two:" + "B" * 42 + "A"
    async with opened(home, one) as broker:
        await register(broker, "mine")
    async with opened(home, f"{two},{one}") as broker:
        assert (await broker.rotate_keys()).retired == ("one",)
    async with opened(home, f"{one},{two}") as broker:
        with pytest.raises(KeyRetired, match="master key 'one' was retired"):
            await broker.back_up(tmp_path / "file")
    assert not (tmp_path / "file").exists()


async def test_a_restore_remembers_which_keys_are_retired_here(home, tmp_path) -> None:
    """Else a broker with an old ring would seal under a key that is gone."""
    async with opened(home) as old:
        await register(old, "mine")
        (first,) = exported(home)
        await old.back_up(tmp_path / "file")
        await old.rotate_keys()
        second = old._desk.vault.keys[0].id
        async with opened(home) as broker:
            await broker.rotate_keys()
            await broker.prune_keys()
        async with opened(home, f"{exported(home)[0]},{first}") as broker:
            await broker.restore(tmp_path / "file", replace=True)
            known = {key.id: key for key in await broker._desk.store.keys()}
            assert known[second].retired_at is not None
        await register(old, "new")
        assert (await old.get("new")).sealed.key_id in {key.partition(":")[0] for key in exported(home)}


@pytest.mark.parametrize("kind", ["a pipe", "too large", "a folder"])
def test_a_key_file_that_is_none_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "master.key"
    if kind == "a pipe":
        os.mkfifo(path, 0o600)
    elif kind == "a folder":
        path.mkdir(0o700)
    else:
        with path.open("wb") as file:
            file.truncate(3 << 30)
        path.chmod(0o600)
    with pytest.raises(NoMasterKey, match="it is not a file of keys"):
        KeyRing(path).load()


async def test_a_column_that_lies_about_the_key_hides_nothing(home) -> None:
    async with opened(home) as broker:
        await register(broker, "mine")
        before = (await broker.get("mine")).sealed
        await broker.rotate_keys()
        with closing(sqlite3.connect(home / "mooring.db")) as raw, raw:
            raw.execute("UPDATE connectors SET sealed = ?", (msgspec.msgpack.encode(before),))

        assert "'mine' does not name the master key that seals it" in str((await broker.check()).problems)
        assert {key.id: key.connectors for key in await broker.keys()}[before.key_id] == 1
        assert await broker.prune_keys() == []
        assert (await broker.secrets("mine"))["key"].reveal() == "key of mine"


async def test_a_lost_key_is_not_replaced_where_the_column_is_empty(home, tmp_path) -> None:
    async with opened(home) as broker:
        await register(broker, "mine")
    altered(home, "UPDATE connectors SET key_id = NULL")
    (home / "master.key").unlink()
    async with opened(home) as broker:
        with pytest.raises(NoMasterKey, match="connectors are sealed under"):
            await broker.back_up(tmp_path / "file")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE master_keys SET created_at = 'x'", "the record of a master key"),
        ("DROP TABLE master_keys", "are not those that mooring makes"),
        ("CREATE TRIGGER late AFTER UPDATE ON connectors BEGIN SELECT 1; END", "are not those that mooring makes"),
        ("DROP INDEX connectors_by_key", "are not those that mooring makes"),
    ],
)
async def test_a_check_finds_what_later_commands_would_fail_of(home, statement: str, says: str) -> None:
    async with opened(home) as broker:
        await register(broker, "mine")
    altered(home, statement)
    async with opened(home) as broker:
        problems = (await broker.check()).problems
    assert problems
    assert any(re.search(says, one) for one in problems), problems


async def test_a_rotation_ends_where_the_store_takes_nothing(home) -> None:
    async with opened(home) as broker:
        await register(broker, "mine")
        altered(
            home,
            "CREATE TRIGGER back AFTER UPDATE OF sealed ON connectors WHEN NEW.sealed <> OLD.sealed "
            "BEGIN UPDATE connectors SET sealed = OLD.sealed, key_id = OLD.key_id WHERE id = OLD.id; END",
        )
        with anyio.fail_after(20):
            done = await broker.rotate_keys()
        assert done.problems
        assert done.retired == ()


async def test_a_rotation_names_a_record_that_has_lost_its_seal(home) -> None:
    async with opened(home) as broker:
        await register(broker, "mine")
        await register(broker, "other")
        altered(home, "UPDATE connectors SET sealed = NULL WHERE name = 'mine'")
        done = await broker.rotate_keys()
        assert any("mine" in problem and "lost its seal" in problem for problem in done.problems)
        assert done.retired == (), "the column still says that something is under the old key"


async def test_a_seal_that_is_nested_without_end_stops_no_command(home) -> None:
    """The decoder gives up on it in a way of its own."""
    async with opened(home) as broker:
        await register(broker, "mine")
        await register(broker, "other")
        with closing(sqlite3.connect(home / "mooring.db")) as raw, raw:
            blob = b"\x81\xa1x" + b"\x91" * 5000 + b"\xc0"
            raw.execute("UPDATE connectors SET sealed = ? WHERE name = 'mine'", (blob,))

        assert [key.connectors for key in await broker.keys()] == [2], "the column tells of it still"
        done = await broker.rotate_keys()
        assert (done.rewrapped, done.retired) == (1, ())
        assert any("'mine'" in problem for problem in done.problems)
        assert any("'mine'" in problem for problem in (await broker.check()).problems)
        assert (await broker.secrets("other"))["key"].reveal() == "key of other"


async def test_a_version_beyond_all_numbers_is_an_error_of_the_store(home) -> None:
    async with opened(home) as broker:
        await register(broker, "mine")
        altered(home, f"UPDATE connectors SET version = {2**63 - 1}")
        with pytest.raises(m.StoreCorrupt, match="a number that is out of range; restore a backup"):
            await broker.update("mine", description="new", verify=False)


async def test_a_check_tells_seals_apart_from_the_rest(home) -> None:
    async with opened(home) as broker:
        await register(broker, "mine")
        altered(home, 'UPDATE connectors SET settings = \'{"place":"elsewhere"}\'')
        report = await broker.check()
    assert report.problems == report.closed
    assert len(report.closed) == 1
