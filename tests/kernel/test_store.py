"""The store: one contract for memory and SQLite, and what is SQLite's alone: files, schemas, other processes."""

# ruff: noqa: ASYNC221, ASYNC240  a test may wait for a small file or a process of its own

import gc
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mooring.assembly import Settings, open_broker
from mooring.errors import (
    InvalidConfig,
    KeyRetired,
    NameTaken,
    RecordDamaged,
    StoreConflict,
    StoreCorrupt,
    StoreTooNew,
    StoreUnavailable,
)
from mooring.store import KeyRecord, MemoryStore, Rewrapped, SqliteStore, Store, UndoEntry, open_sqlite
from mooring.store._files import UNSAFE_FILE_SYSTEMS, file_system
from mooring.store._schema import APPLICATION_ID, MIGRATIONS, sealed_under
from mooring.store._sqlite import COLUMNS
from mooring.testing import Fake
from mooring.types import Connector, Sealed

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
POSIX = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
LINUX = pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks Linux what a process holds")
CANARY = "cAnArY-90aa"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # aiosqlite needs it


def connector(name: str = "main", **changes: Any) -> Connector:
    return Connector(
        **{
            "id": f"id-of-{name}",
            "name": name,
            "type": "acme",
            "auth_method": "key",
            "created_at": NOW,
            "updated_at": NOW,
        }
        | changes
    )


def later(one: Connector, **changes: Any) -> Connector:
    return msgspec.structs.replace(one, version=one.version + 1, **changes)


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncGenerator[Store, None]:
    if kind == "memory":
        yield MemoryStore()
    else:
        async with open_sqlite(folder / "mooring.db") as store:
            yield store


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store, None]:
    async with opened(request.param, tmp_path) as store:
        yield store


async def none_beside(threads: list[threading.Thread]) -> bool:
    """Whether no other threads run than these; one that has done its work takes a moment to end."""
    with anyio.move_on_after(2):
        while set(threading.enumerate()) - set(threads):  # noqa: ASYNC110  a thread sets no event when it ends
            await anyio.sleep(0.001)
    return not set(threading.enumerate()) - set(threads)


# The contract


FULL = connector(
    "full",
    resource_type="s3-bucket",
    resource_id="s3://b",
    settings={"region": "eu-west-1", "port": 5, "on": True, "regions": ["a", "b"], "deep": {"x": None}, "ratio": 0.5},
    sealed=Sealed(key_id="k", check=b"\x00\xff", wrapped=b"w\x00", fields={"secret_key": b"\xff\x00"}),
    labels={"team": "ml", "": ""},
    description='It\'s "the" one;\n-- really',
    owner="me",
    expires_at=NOW + timedelta(days=30, microseconds=1),
    expires_skew=timedelta(seconds=90, microseconds=7),
    ttl=timedelta(minutes=15),
    allow_unnarrowed=True,
    allow_long_lived=True,
)


@pytest.mark.parametrize("one", [connector(), FULL], ids=["bare", "full"])
async def test_a_connector_comes_back_as_it_was(store: Store, one: Connector) -> None:
    await store.add(one)

    for key in (one.name, one.id):
        assert await store.find(key) == one
    assert await store.list() == [one]


async def test_an_empty_store_finds_nothing(store: Store) -> None:
    assert await store.find("main") is None
    assert await store.find("") is None
    assert await store.list() == []


async def test_an_instant_in_another_zone_is_the_same_instant(store: Store) -> None:
    one = connector(expires_at=datetime.fromisoformat("2026-01-02T05:00:00+02:00"))
    await store.add(one)

    assert (await store.find("main")).expires_at == one.expires_at


IDS = ("aaaaaaaa-1111-x", "aaaaaaaa-2222-x", "bbbbbbbb-1111-x", "dddddddd~é")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("aaaaaaaa-1111-x", "c0"),
        ("aaaaaaaa-1", "c0"),
        ("aaaaaaaa-2222", "c1"),
        ("bbbbbbbb", "c2"),
        ("dddddddd", "c3"),
        ("aaaaaaaa", None),  # two begin so
        ("aaaaaaaa-", None),
        ("bbbbbbb", None),  # seven characters are too few
        ("b", None),
        ("", None),
        ("cccccccc", None),
        ("bbbbbbbb-1111-x-more", None),
        ("BBBBBBBB", None),
        ("bbbbbbb%", None),
        ("bbbbbbb_", None),
        ("bbbbbbb*", None),
        ("c1", "c1"),
        ("C1", None),
        (" c1", None),
        ("c1\0", None),
    ],
)
async def test_a_connector_is_found_by_name_id_or_a_unique_beginning_of_its_id(
    store: Store, text: str, name: str | None
) -> None:
    for number, id in enumerate(IDS):
        await store.add(connector(f"c{number}", id=id))
    found = await store.find(text)

    assert (found and found.name) == name


@pytest.mark.parametrize("first", [0, 1])
async def test_an_id_goes_before_a_name_and_a_name_before_the_beginning_of_an_id(store: Store, first: int) -> None:
    """A connector cannot be shadowed by one that is named like its id."""
    rivals = [connector("victim", id="11111111-2222"), connector("11111111-2222", id="33333333-4444")]
    for one in (rivals[first], rivals[1 - first], connector("11111111", id="55555555")):
        await store.add(one)

    assert (await store.find("11111111-2222")).name == "victim"
    assert (await store.find("11111111")).id == "55555555"


async def test_a_name_is_given_once(store: Store) -> None:
    await store.add(connector())
    with pytest.raises(NameTaken, match="'main'"):
        await store.add(connector(id="another"))

    assert await store.list() == [connector()]


async def test_an_id_is_given_once(store: Store) -> None:
    await store.add(connector())
    with pytest.raises(StoreConflict):
        await store.add(connector("other", id="id-of-main"))

    assert await store.list() == [connector()]


FLEET = [
    connector("a", type="aws", auth_method="key", labels={"team": "ml", "env": "prod"}),
    connector("b", type="aws", auth_method="role", resource_type="s3-bucket", labels={"team": "ml"}),
    connector("c", type="aws", auth_method="key", resource_type="docker-registry", labels={"team": "web"}),
    connector("d", type="gcp", auth_method="key", resource_type="docker-registry", labels={"env": ""}),
    connector("é", type="gcp", auth_method="token"),
]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, "abcdé"),
        ({"type": "aws"}, "abc"),
        ({"type": ""}, ""),
        ({"type": "AWS"}, ""),
        ({"auth_method": "key"}, "acd"),
        ({"resource_type": "s3-bucket"}, "abé"),  # those of every type reach it too
        ({"resource_type": "docker-registry"}, "acdé"),
        ({"resource_type": "kubernetes-cluster"}, "aé"),
        ({"labels": {}}, "abcdé"),
        ({"labels": {"team": "ml"}}, "ab"),
        ({"labels": {"team": None}}, "abc"),
        ({"labels": {"env": None}}, "ad"),
        ({"labels": {"env": ""}}, "d"),
        ({"labels": {"team": "ml", "env": "prod"}}, "a"),
        ({"labels": {"team": None, "env": None}}, "a"),
        ({"labels": {"team": "web", "env": "prod"}}, ""),
        ({"labels": {"tea": None}}, ""),
        ({"type": "aws", "auth_method": "key"}, "ac"),
        ({"type": "aws", "resource_type": "docker-registry"}, "ac"),
        ({"type": "aws", "auth_method": "key", "resource_type": "s3-bucket", "labels": {"team": "ml"}}, "a"),
        ({"type": "gcp", "labels": {"team": "ml"}}, ""),
    ],
)
async def test_a_list_holds_those_that_match_every_filter_by_name(
    store: Store, filters: dict[str, Any], names: str
) -> None:
    for one in reversed(FLEET):
        await store.add(one)

    assert [one.name for one in await store.list(**filters)] == list(names)


NASTY = st.text(max_size=12) | st.sampled_from(
    ["a.b", "$", "$.team", '"', "'", "\\", "a'b\"c", "%", "_", "[0]", "é", "🐙", "\0", "a\0b", "\n", "null", "1", "#",
     "'; DROP TABLE connectors; --", "\uffff", "\U0010ffff"]
)  # fmt: skip
WRITTEN = NASTY.map(lambda text: text.replace("\0", "0"))  # SQLite's JSON functions take no zero character
LABELS = st.dictionaries(WRITTEN, WRITTEN, max_size=3)


async def agree(folder: Path, connectors: list[Connector], ask: Callable[[Store], Any]) -> Any:
    """What both stores say, if it is the same."""
    said = []
    for kind in ("memory", "sqlite"):
        async with opened(kind, folder) as store:
            for one in connectors:
                await store.add(one)
            said.append(await ask(store))
    (folder / "mooring.db").unlink()
    assert said[0] == said[1]
    return said[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@settings(max_examples=30)  # each opens a store
@given(LABELS, LABELS, st.dictionaries(WRITTEN, st.none() | WRITTEN, max_size=2))
@example({"a.b": 'x"y', "$.a": "'"}, {"a": "b", "$": "."}, {"a.b": 'x"y'})
@example({"é\n": "\\u00e9"}, {"e": "\\"}, {"é\n": "\\u00e9"})
@example({"a": "1"}, {"a": "01"}, {"a": "1"})
def test_labels_are_matched_as_they_are_written(
    folder: Path, one: dict[str, str], other: dict[str, str], asked: dict[str, str | None]
) -> None:
    fleet = [connector("one", labels=one), connector("other", labels=other)]
    wanted = asked | dict(list(one.items())[:1])

    for labels in (asked, wanted):
        found = anyio.run(agree, folder, fleet, lambda store: store.list(labels=labels))  # noqa: B023
        assert found == [
            each for each in fleet if all(k in each.labels and v in (None, each.labels[k]) for k, v in labels.items())
        ]


@settings(max_examples=40)
@given(NASTY, NASTY, NASTY)
@example("'; DROP TABLE connectors; --", '" OR 1=1 --', "x' OR '1'='1")
def test_names_and_ids_are_values_and_never_sql(folder: Path, name: str, id: str, other: str) -> None:
    one = connector(name, id=id, type=other, auth_method=other, owner=other, description=other, settings={name: other})

    async def use(store: Store) -> Any:
        found = [await store.find(text) for text in (name, id, other)]
        listed = [await store.list(type=other), await store.list(type=name), await store.list(resource_type=name)]
        changed = later(one, name=other, description=name)
        await store.replace(changed)
        again = await store.find(id)
        await store.delete(changed)
        return found, listed, again, await store.list()

    found, listed, again, left = anyio.run(agree, folder, [one], use)
    assert found[:2] == [one, one]
    assert listed[0] == [one]
    assert listed[2] == [one]
    assert (again.name, again.description) == (other, name)
    assert left == []


async def test_a_connector_is_replaced_whole(store: Store) -> None:
    await store.add(connector())
    changed = later(FULL, id="id-of-main", name="renamed", created_at=NOW - timedelta(days=1))
    await store.replace(changed)

    assert await store.find("renamed") == changed
    assert await store.find("main") is None
    assert await store.list() == [changed]


@pytest.mark.parametrize("version", [0, 1, 2, 4])
async def test_a_stale_change_is_a_conflict_and_changes_nothing(store: Store, version: int) -> None:
    await store.add(connector())
    changed = later(connector(), description="first")
    await store.replace(changed)
    with pytest.raises(StoreConflict, match="'main'"):
        await store.replace(connector(version=version, description="second"))

    assert await store.find("main") == changed


async def test_of_many_changes_of_one_version_only_one_is_made(store: Store) -> None:
    await store.add(connector())
    outcomes = []

    async def change(number: int) -> None:
        try:
            await store.replace(later(connector(), description=str(number)))
            outcomes.append(number)
        except StoreConflict:
            outcomes.append(None)

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(change, number)

    won = [number for number in outcomes if number is not None]
    assert len(outcomes) == 8
    assert [(await store.find("main")).description] == [str(number) for number in won]


async def test_what_is_not_there_cannot_be_changed_or_deleted(store: Store) -> None:
    for act in (store.replace(later(connector())), store.delete(connector())):
        with pytest.raises(StoreConflict, match="'main'"):
            await act


async def test_a_name_of_another_cannot_be_taken_by_renaming(store: Store) -> None:
    await store.add(connector("a"))
    await store.add(connector("b"))
    with pytest.raises(NameTaken, match="'b'"):
        await store.replace(later(connector("a"), name="b"))

    assert await store.list() == [connector("a"), connector("b")]


async def test_a_connector_is_deleted_in_the_version_that_was_seen_and_no_other(store: Store) -> None:
    await store.add(connector())
    changed = later(connector())
    await store.replace(changed)
    with pytest.raises(StoreConflict):
        await store.delete(connector())
    assert await store.find("main") == changed

    await store.delete(changed)
    assert await store.list() == []
    await store.add(connector())
    assert await store.list() == [connector()], "its name is free again"


async def test_half_characters_find_nothing_and_cannot_be_stored(tmp_path: Path) -> None:
    """Python makes them of bytes that are not UTF-8, as on a command line."""
    async with opened("sqlite", tmp_path) as store:
        assert await store.find("main\udcff") is None
        assert await store.list(type="\udcff", labels={"\udcff": "x"}) == []
        for changes in ({"description": "\udcff"}, {"settings": {"a": "\udcff"}}, {"labels": {"\udcff": "a"}}):
            with pytest.raises(InvalidConfig, match="'main' holds text that is not valid Unicode"):
                await store.add(connector(**changes))
        assert await store.list() == []


# The contract: master keys


def key(name: str, **changes: Any) -> KeyRecord:
    return KeyRecord(**{"id": name, "check": b"\x00\xff", "source": "the test", "created_at": NOW} | changes)


def seal(key_id: str, wrapped: bytes = b"w\x00") -> Sealed:
    return Sealed(key_id=key_id, check=b"\x00\xff", wrapped=wrapped, fields={"secret_key": b"\xff\x00"})


async def test_a_key_is_noted_once_and_stays_what_it_was(store: Store) -> None:
    assert await store.keys() == []
    second = key("b", created_at=NOW + timedelta(seconds=1))
    assert await store.note_key(second) == second
    assert await store.note_key(key("a")) == key("a")
    assert await store.note_key(key("a", check=b"other", source="elsewhere")) == key("a"), "what is known, unchanged"
    assert await store.keys() == [key("a"), second], "by when they were noted"


async def test_uses_count_what_is_sealed_under_each_key(store: Store) -> None:
    assert dict(await store.key_uses()) == {}
    for name, sealed in (("a", seal("k1")), ("b", seal("k1")), ("c", seal("k2")), ("d", None)):
        await store.add(connector(name, sealed=sealed))
    assert dict(await store.key_uses()) == {"k1": 2, "k2": 1}
    await store.replace(later(connector("a"), sealed=seal("k3")))
    await store.replace(later(connector("b"), sealed=None))
    await store.delete(connector("c", sealed=seal("k2")))
    assert dict(await store.key_uses()) == {"k3": 1}


async def test_only_the_seal_changes_when_it_is_wrapped_anew(store: Store) -> None:
    one, other = msgspec.structs.replace(FULL, sealed=seal("k1")), connector("other", sealed=seal("k1"))
    await store.add(one)
    await store.add(other)
    new = seal("k2", b"anew")
    before = await store.changes()

    assert await store.rewrap([Rewrapped(connector=one, sealed=new)]) == 1
    assert await store.find("full") == msgspec.structs.replace(one, sealed=new)
    assert await store.find("other") == other
    assert dict(await store.key_uses()) == {"k1": 1, "k2": 1}
    assert await store.rewrap([]) == 0
    if isinstance(store, MemoryStore):  # SQLite tells of others' writes, see below
        assert await store.changes() != before


async def test_what_is_not_as_it_was_read_is_left_out_and_the_others_are_not(store: Store) -> None:
    fleet = [connector(name, sealed=seal("k1", name.encode())) for name in ("good", "relabelled", "resealed", "gone")]
    for one in fleet:
        await store.add(one)
    _, relabelled, resealed, gone = fleet
    await store.replace(later(relabelled, labels={"a": "b"}))
    await store.replace(later(resealed, sealed=seal("k1", b"another")))
    await store.delete(gone)
    changes = [Rewrapped(connector=one, sealed=seal("k2", b"anew")) for one in (*fleet, connector("never"))]

    assert await store.rewrap(changes) == 2
    assert (await store.find("good")).sealed == seal("k2", b"anew")
    assert await store.find("relabelled") == later(relabelled, labels={"a": "b"}, sealed=seal("k2", b"anew"))
    assert (await store.find("resealed")).sealed == seal("k1", b"another")
    assert await store.find("gone") is None


def undo(id: str, due: timedelta = timedelta(0), **changes: Any) -> UndoEntry:
    entry = UndoEntry(id=id, connector_id="c", step={"secret": f"s-{id}", "ö": "'"}, due_at=NOW + due)
    return msgspec.structs.replace(entry, **changes)


async def test_the_undo_log_gives_back_what_was_put_by_when_it_is_due(store: Store) -> None:
    minute = timedelta(minutes=1)
    late, early, other = undo("1", 2 * minute), undo("2", -minute), undo("3", connector_id="d", attempts=7)
    for one in (late, early, other):
        await store.put_undo(one)

    assert await store.undos() == [early, other, late]
    assert await store.undos(due=NOW - minute) == [early]
    assert await store.undos(due=NOW - minute - timedelta(microseconds=1)) == []
    assert await store.undos(due=NOW) == [early, other]
    assert await store.undos(connector_id="d") == [other]
    assert await store.undos(connector_id="d", due=NOW - minute) == []
    assert await store.undos(connector_id="nobody") == []


async def test_an_entry_of_the_undo_log_is_replaced_and_dropped_by_its_id(store: Store) -> None:
    await store.put_undo(undo("1"))
    again = undo("1", timedelta(hours=1), attempts=3)
    await store.put_undo(again)
    await store.put_undo(undo("2"))
    assert await store.undos() == [undo("2"), again]
    await store.drop_undo("2")
    await store.drop_undo("2")
    await store.drop_undo("nobody's")
    assert await store.undos() == [again]


async def test_an_instant_of_another_zone_is_the_same_in_the_undo_log(store: Store) -> None:
    there = timezone(timedelta(hours=5, minutes=30))
    await store.put_undo(undo("1", due_at=NOW.astimezone(there)))
    assert await store.undos(due=NOW.astimezone(there)) == [undo("1")]
    assert await store.undos(due=NOW - timedelta(microseconds=1)) == []


async def test_the_undo_log_outlives_its_connector(store: Store) -> None:
    one = connector()
    await store.add(one)
    await store.put_undo(undo("1", connector_id=one.id))
    await store.delete(one)
    assert await store.undos() == [undo("1", connector_id=one.id)]


@pytest.mark.parametrize(
    "damage", ["step = '[1]'", "step = CAST(x'ff' AS TEXT)", "step = 'cAnArY-90aa'", "due_at = 'cAnArY-90aa'"]
)
async def test_a_damaged_entry_of_the_undo_log_is_said_to_be_one(path: Path, damage: str) -> None:
    async with open_sqlite(path) as store:
        await store.put_undo(undo("1"))
    raw(path, f"UPDATE undo_log SET {damage}")
    async with open_sqlite(path) as store:
        with pytest.raises(StoreCorrupt) as caught:
            await store.undos()
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def of_version(path: Path, version: int) -> None:
    """A store as that version of the schema had it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.create_function("sealed_under", 1, sealed_under)
        for script in MIGRATIONS[:version]:
            database.executescript(script)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {version}")


def inserted(one: Connector) -> list[str]:
    """The statements that put a connector into a store of the first version."""
    values = (repr(one.id), repr(one.name), repr(one.type), repr(one.auth_method), f"'{NOW.isoformat()}'")
    names = "id, name, type, auth_method, created_at, updated_at, settings, labels, description, owner, expires_skew"
    given = ", ".join((*values, values[-1]))
    return [
        (
            f"INSERT INTO connectors ({names}, allow_unnarrowed, allow_long_lived, version) "
            f"VALUES ({given}, '{{}}', '{{}}', '', '', 0, 0, 0, 1)"
        )
    ]


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
async def test_a_store_that_is_really_of_an_older_schema_becomes_a_sound_one_of_this(path: Path, version: int) -> None:
    of_version(path, version)
    raw(path, *inserted(connector()))
    if version >= 3:
        names = "id, connector_id, step, due_at, attempts"
        raw(path, f"INSERT INTO undo_log ({names}) VALUES ('u', 'c', '{{}}', '{NOW.isoformat()}', 2)")

    async with open_sqlite(path) as store:
        assert list(await store.list()) == [connector()]
        assert await store.check() == []
        assert [(one.id, one.attempts, one.lease) for one in await store.undos()] == [("u", 2, "")] * (version >= 3)
        assert (await store.ledger.leases(), await store.ledger.last_event()) == ([], 0)
        before = await store.changes()
        await store.replace(later(connector(), description="new"))
        assert await store.changes() != before


async def test_a_store_from_before_the_undo_log_gets_one_and_keeps_its_connectors(path: Path) -> None:
    of_version(path, 2)
    raw(path, *inserted(connector()))
    async with open_sqlite(path) as store:
        assert list(await store.list()) == [connector()]
        assert await store.undos() == []
        await store.put_undo(undo("1"))
    async with open_sqlite(path) as store:
        assert await store.undos() == [undo("1")]


async def test_a_key_that_is_needed_is_not_retired(store: Store) -> None:
    one = connector(sealed=seal("k1"))
    await store.note_key(key("k1"))
    await store.add(one)

    assert not await store.retire_key("k1", NOW)
    assert not await store.retire_key("unknown", NOW)
    assert await store.keys() == [key("k1")]
    await store.replace(later(one, description="still"))
    await store.delete(later(one))
    assert await store.retire_key("k1", NOW)
    assert await store.retire_key("k1", NOW + timedelta(days=1)), "it is already"
    assert await store.keys() == [key("k1", retired_at=NOW)]
    assert await store.note_key(key("k1")) == key("k1", retired_at=NOW), "to note it again does not bring it back"


async def test_nothing_is_sealed_under_a_retired_key_by_any_way(store: Store) -> None:
    one, bare = connector(sealed=seal("k2")), connector("bare")
    await store.add(one)
    await store.add(bare)
    await store.note_key(key("k1"))
    assert await store.retire_key("k1", NOW)
    with pytest.raises(KeyRetired, match="'k1' was retired by a rotation"):
        await store.add(connector("new", sealed=seal("k1")))
    with pytest.raises(KeyRetired, match="'k1'"):
        await store.replace(later(one, sealed=seal("k1")))
    assert await store.rewrap([Rewrapped(connector=one, sealed=seal("k1"))]) == 0

    assert await store.list() == [bare, one]
    await store.replace(later(one, sealed=seal("k3"), description="another key"))
    await store.replace(later(bare, description="no seal"))
    assert dict(await store.key_uses()) == {"k3": 1}


async def test_a_conflict_and_a_taken_name_are_still_told_beside_a_retired_key(store: Store) -> None:
    await store.add(connector(sealed=seal("k2")))
    await store.note_key(key("k2"))
    await store.note_key(key("k1"))
    await store.retire_key("k1", NOW)
    with pytest.raises(StoreConflict):
        await store.replace(connector(version=3, sealed=seal("k2")))
    with pytest.raises(NameTaken):
        await store.add(connector(id="x", sealed=seal("k2")))


async def test_a_key_is_retired_and_used_at_once_by_two_connections_and_only_one_wins(path: Path) -> None:
    async with open_sqlite(path) as one, open_sqlite(path) as other:
        for number in range(30):
            name = f"k{number}"
            await one.note_key(key(name))
            outcome: dict[str, bool] = {}

            async def retire(name: str = name, outcome: dict[str, bool] = outcome) -> None:
                outcome["retired"] = await one.retire_key(name, NOW)

            async def use(name: str = name, outcome: dict[str, bool] = outcome) -> None:
                try:
                    await other.add(connector(name, sealed=seal(name)))
                    outcome["used"] = True
                except KeyRetired:
                    outcome["used"] = False

            async with anyio.create_task_group() as tasks:
                for work in (retire, use) if number % 2 else (use, retire):
                    tasks.start_soon(work)
            assert outcome["retired"] is not outcome["used"]


async def test_many_records_are_wrapped_in_one_step_that_others_see(path: Path) -> None:
    async with open_sqlite(path) as one, open_sqlite(path) as other:
        fleet = [connector(f"n{number:03}", sealed=seal("k1", bytes([number]))) for number in range(200)]
        for each in fleet:
            await one.add(each)
        before = await other.changes()
        changes = [Rewrapped(connector=each, sealed=seal("k2", each.sealed.wrapped)) for each in fleet]
        assert await one.rewrap(changes) == 200

        assert await other.changes() != before
        assert {each.sealed.key_id for each in await other.list()} == {"k2"}
        assert [each.sealed.wrapped for each in await other.list()] == [each.sealed.wrapped for each in fleet]


async def test_a_damaged_record_still_counts_for_its_key(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.add(msgspec.structs.replace(FULL, sealed=seal("k1")))
        await store.note_key(key("k1"))
        raw(path, "UPDATE connectors SET sealed = x'80', labels = '5'")
        assert dict(await store.key_uses()) == {"k1": 1}
        assert not await store.retire_key("k1", NOW)


@pytest.mark.parametrize("damage", ["created_at = 'x'", "retired_at = ''", "created_at = '2026-01-02T03:04:05'"])
async def test_a_damaged_record_of_a_key_is_said_to_be_one(path: Path, damage: str) -> None:
    async with open_sqlite(path) as store:
        await store.note_key(key("k1"))
        raw(path, f"UPDATE master_keys SET {damage}")
        for call in (store.keys(), store.note_key(key("k1"))):
            with pytest.raises(StoreCorrupt, match=r"the record of a master key in .* is damaged; restore a backup"):
                await call


async def test_a_store_of_schema_1_learns_under_which_keys_its_records_are(path: Path) -> None:
    """With a record whose seal is damaged, and one that has none: both come through."""
    path.parent.mkdir()
    fleet = [msgspec.structs.replace(FULL, sealed=seal("k1")), connector("b", sealed=seal("k2")), connector("c")]
    raw(path, f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 1")
    for statement in MIGRATIONS[0].split(";"):
        raw(path, statement)
    async with open_sqlite(path.with_name("other.db")) as other:  # to write them as they were: without `key_id`
        for each in fleet:
            await other.add(each)
        await other.add(connector("d", sealed=seal("k3")))
    columns = ", ".join(COLUMNS)
    raw(
        path,
        f"ATTACH '{path.with_name('other.db')}' AS other",
        f"INSERT INTO connectors ({columns}) SELECT {columns} FROM other.connectors",
        "UPDATE connectors SET sealed = x'80' WHERE name = 'd'",
    )

    async with open_sqlite(path) as store:
        found = await store.list()
        assert found == sorted(fleet, key=lambda one: one.name)
        assert [error.name for error in found.damaged] == ["d"]
        assert dict(await store.key_uses()) == {"k1": 1, "k2": 1}
        assert await store.keys() == []
        await store.note_key(key("k1"))
        assert not await store.retire_key("k1", NOW)
        assert await store.rewrap([Rewrapped(connector=fleet[0], sealed=seal("k2"))]) == 1
        assert await store.retire_key("k1", NOW)
    assert raw(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]


# SQLite: other connections


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "mooring.db"


def raw(path: Path, *statements: str) -> list[Any]:
    """Run statements as another program would; the rows of the last."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rows: list[Any] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


async def test_the_number_of_changes_differs_after_another_connection_wrote(path: Path) -> None:
    async with open_sqlite(path) as one, open_sqlite(path) as other:
        seen = [await one.changes()]
        assert await one.changes() == seen[0]
        await other.add(connector())
        seen.append(await one.changes())
        await other.replace(later(connector()))
        seen.append(await one.changes())
        await other.delete(later(connector()))
        seen.append(await one.changes())
        await other.find("main")

        assert len(set(seen)) == 4
        assert await one.changes() == seen[-1]


async def test_a_failed_write_is_no_change(store: Store) -> None:
    await store.add(connector())
    before = await store.changes()
    with pytest.raises(NameTaken):
        await store.add(connector(id="x"))

    assert await store.changes() == before


async def test_two_connections_see_each_others_writes_and_conflicts(path: Path) -> None:
    async with open_sqlite(path) as one, open_sqlite(path) as other:
        await one.add(connector())
        assert await other.find("main") == connector()
        await other.replace(later(connector(), owner="other"))
        with pytest.raises(StoreConflict):
            await one.replace(later(connector(), owner="one"))
        with pytest.raises(NameTaken):
            await one.add(connector(id="x"))

        assert (await one.find("main")).owner == "other"


async def test_what_was_stored_is_there_when_the_store_is_opened_again(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.add(FULL)
    async with open_sqlite(path) as store:
        assert await store.list() == [FULL]


OPEN_AND_ADD = """
import sys, anyio
from datetime import datetime, UTC
from pathlib import Path
from mooring.store import open_sqlite
from mooring.types import Connector
async def main(path, name):
    print("ready", flush=True)
    sys.stdin.read(1)  # all begin at once
    async with open_sqlite(Path(path)) as store:
        now = datetime.now(UTC)
        await store.add(Connector(id=name, name=name, type="t", auth_method="a", created_at=now, updated_at=now))
anyio.run(main, *sys.argv[1:])
"""


def all_at_once(script: str, path: Path, count: int) -> list[str]:
    """Run a script in so many processes that begin at the same moment; what they say on stderr."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, path, f"n{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * count
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    return [process.communicate(timeout=60)[1] for process in processes]


@pytest.mark.parametrize("before", ["nothing", "an older schema"])
async def test_many_processes_may_make_or_migrate_the_store_at_once(path: Path, before: str) -> None:
    if before == "an older schema":
        path.parent.mkdir()
        raw(path, f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA journal_mode = WAL")
    said = all_at_once(OPEN_AND_ADD, path, 5)

    assert said == [""] * 5
    async with open_sqlite(path) as store:
        assert [one.name for one in await store.list()] == [f"n{number}" for number in range(5)]


@LINUX
async def test_opening_a_store_twice_in_one_process_keeps_the_locks_of_the_first(path: Path) -> None:
    """POSIX drops all locks of a process on a file when it closes any descriptor of it (howtocorrupt.html, 2.2)."""
    leave_wal = (
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1], timeout=0).execute('PRAGMA journal_mode = DELETE'))"
    )
    async with open_sqlite(path) as first:
        async with open_sqlite(path):
            pass
        done = subprocess.run([sys.executable, "-c", leave_wal, path], capture_output=True, text=True, check=False)

        assert "database is locked" in done.stderr
        await first.add(connector())
    assert raw(path, "PRAGMA journal_mode") == [("wal",)]


async def test_a_store_that_another_process_writes_is_waited_for(path: Path) -> None:
    async with open_sqlite(path) as store:
        blocker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        blocker.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.2, lambda: (blocker.execute("COMMIT"), blocker.close()))
        timer.start()
        await store.add(connector())
        timer.join()

        assert await store.list() == [connector()]


# SQLite: the file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@POSIX
async def test_the_files_and_their_folder_are_their_owners_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        async with open_sqlite(path) as store:
            await store.add(connector())
            modes = {file.name: mode(file) for file in path.parent.iterdir()}
    finally:
        os.umask(before)

    assert mode(path.parent) == 0o700
    assert modes == {"mooring.db": 0o600, "mooring.db-wal": 0o600, "mooring.db-shm": 0o600}


@POSIX
async def test_a_store_that_others_can_read_is_closed_to_them(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.add(connector())
    path.chmod(0o644)

    async with open_sqlite(path) as store:
        assert await store.list() == [connector()]
        assert {mode(file) for file in path.parent.iterdir()} == {0o600}
    assert mode(path) == 0o600


async def test_a_store_is_in_wal_mode_and_written_through_to_the_disk(path: Path) -> None:
    async with open_sqlite(path) as store:
        assert raw(path, "PRAGMA journal_mode") == [("wal",)]
        assert await store._read("PRAGMA synchronous", ()) == ((2,),)


async def test_a_new_store_says_whose_and_which_it_is(path: Path) -> None:
    async with open_sqlite(path):
        pass

    assert raw(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert raw(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert path.read_bytes()[68:72] == b"moor"


async def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c" / "mooring.db"
    async with open_sqlite(path) as store:
        await store.add(connector())

    assert path.exists()


async def test_an_empty_file_is_a_new_store(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    async with open_sqlite(path) as store:
        await store.add(connector())
        assert await store.list() == [connector()]


@pytest.mark.parametrize("tables", [False, True])
async def test_an_older_schema_is_brought_up_to_date(path: Path, tables: bool) -> None:
    """Version 0, as a store that was made and left before its first migration."""
    path.parent.mkdir()
    raw(path, f"PRAGMA application_id = {APPLICATION_ID}", *(["CREATE TABLE plugin_notes (x)"] if tables else []))
    async with open_sqlite(path) as store:
        await store.add(connector())

    assert raw(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert raw(path, "PRAGMA journal_mode") == [("wal",)]


async def test_a_migration_that_fails_leaves_the_old_schema(path: Path) -> None:
    path.parent.mkdir()
    raw(path, f"PRAGMA application_id = {APPLICATION_ID}", "CREATE TABLE connectors_by_type (in_the_way)")
    with pytest.raises(StoreUnavailable):
        async with open_sqlite(path):
            pass

    assert raw(path, "PRAGMA user_version") == [(0,)]
    assert raw(path, "SELECT name FROM sqlite_schema") == [("connectors_by_type",)]


# SQLite: what is not ours


def whole(path: Path) -> tuple[bytes, int, int, list[str]]:
    """All that could have been touched."""
    return path.read_bytes(), mode(path), path.stat().st_mtime_ns, sorted(file.name for file in path.parent.iterdir())


async def refused(path: Path, error: type[Exception], match: str) -> None:
    before = whole(path)
    threads = threading.enumerate()
    with pytest.raises(error, match=match) as caught:
        async with open_sqlite(path):
            pytest.fail("it was opened")

    assert str(path) in str(caught.value)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert whole(path) == before
    assert await none_beside(threads)


async def made(path: Path) -> None:
    async with open_sqlite(path) as store:
        for number in range(40):
            await store.add(connector(f"n{number}", description="x" * 400))


@pytest.mark.parametrize("version", [len(MIGRATIONS) + 1, 2**31 - 1])
async def test_a_newer_schema_is_refused_and_left_untouched(path: Path, version: int) -> None:
    await made(path)
    raw(path, f"PRAGMA user_version = {version}", "CREATE TABLE from_the_future (x)")

    await refused(path, StoreTooNew, f"schema {version}, this one knows {len(MIGRATIONS)}.*upgrade mooring")


FOREIGN = {
    "tables": ["CREATE TABLE t (x)", f"INSERT INTO t VALUES ('{CANARY}')"],
    "tables, in WAL mode": ["PRAGMA journal_mode = WAL", "CREATE TABLE t (x)"],
    "another application": ["PRAGMA application_id = 1234", "CREATE TABLE t (x)"],
    "another application without tables": ["PRAGMA application_id = 1234"],
    "a version without tables": ["PRAGMA user_version = 1"],
    "a table of ours": [MIGRATIONS[0].split(";")[0]],
}


@pytest.mark.parametrize("statements", FOREIGN.values(), ids=FOREIGN)
async def test_another_programs_database_is_refused_and_left_untouched(path: Path, statements: list[str]) -> None:
    path.parent.mkdir()
    raw(path, *statements)
    path.chmod(0o644)

    await refused(path, StoreCorrupt, "another program.*left as it is")


GARBAGE = {
    "two bytes": b"xx",
    "ten bytes": b"0123456789",
    "text": f"[settings]\nkey = {CANARY}\n".encode() * 50,
    "zeros": bytes(8192),
    "almost SQLite": b"SQLite format 3\x01" + bytes(4080),
    "compressed": b"\x1f\x8b\x08\x00" + bytes(range(256)) * 40,
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
async def test_a_file_that_is_no_database_is_refused_and_left_untouched(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)

    await refused(path, StoreCorrupt, "damaged or not a mooring store.*left as it is")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
async def test_a_file_that_was_cut_is_refused_and_left_untouched(path: Path, share: float) -> None:
    await made(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])

    await refused(path, StoreCorrupt, "damaged")


async def test_pages_that_were_overwritten_are_noticed_when_they_are_read(path: Path) -> None:
    await made(path)
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[16:18], "big")
    content[size:] = b"\xa5" * (len(content) - size)
    path.write_bytes(content)

    with pytest.raises(StoreCorrupt, match="is damaged"):
        async with open_sqlite(path) as store:
            await store.list()


DAMAGED = {
    "settings that are no JSON": "settings = '{\"a\": cAnArY-90aa'",
    "settings that are a list": "settings = '[\"cAnArY-90aa\"]'",
    "labels that are a number": "labels = '5'",
    "labels that are not texts": "labels = '{\"a\": 5}'",
    "sealed that is no msgpack": "sealed = CAST('cAnArY-90aa' AS BLOB)",
    "sealed that is cut": "sealed = substr(sealed, 1, length(sealed) - 3)",
    "sealed of another shape": "sealed = x'80'",
    "an end that is no instant": "expires_at = 'cAnArY-90aa'",
    "an end that is empty": "expires_at = ''",
    "an end without a zone": "expires_at = '2026-01-02T03:04:05'",
    "a beginning that is empty": "created_at = ''",
    "a skew beyond all bounds": "expires_skew = 1e300",
    "a skew that is infinite": "expires_skew = 9e999",
    "a ttl beyond all bounds": "ttl = -1e300",
    "settings that are not UTF-8": "settings = CAST(x'22ff22' AS TEXT)",
    "a description that is not UTF-8": "description = CAST(x'ff' AS TEXT)",
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
async def test_a_damaged_record_is_reported_without_an_echo_and_does_not_hide_the_others(
    path: Path, damage: str
) -> None:
    async with open_sqlite(path) as store:
        await store.add(FULL)
        await store.add(connector("good"))
        raw(path, f"UPDATE connectors SET {damage} WHERE name = 'full'")
        errors = []
        for key in ("full", FULL.id, FULL.id[:9]):
            with pytest.raises(RecordDamaged) as caught:
                await store.find(key)
            errors.append(caught.value)
        for labels in ({}, {"no": "such label"}):
            found = await store.list(labels=labels)
            assert found == ([] if labels else [connector("good")])
            errors += found.damaged if not labels or "labels" in damage else []

        assert len(errors) >= 4
        for error in errors:
            assert (error.id, error.name, error.type) == (FULL.id, "full", "acme")
            assert "'full'" in error.message
            assert str(path) in error.message
            assert CANARY not in "".join(traceback.format_exception(error))
        assert await store.find("good") == connector("good")
        assert not await store.discard("good"), "what can be read is not discarded"
        assert not await store.discard("nobody")
        assert await store.discard("full")
        assert (await store.list(), (await store.list()).damaged) == ([connector("good")], [])


async def test_a_record_whose_name_is_no_text_is_named_by_its_id(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.add(FULL)
        raw(path, "UPDATE connectors SET name = CAST(x'66ff' AS TEXT)")
        (error,) = (await store.list()).damaged

        assert (error.id, error.name) == (FULL.id, "f\N{REPLACEMENT CHARACTER}")
        assert await store.discard(FULL.id)


@LINUX
@pytest.mark.parametrize("damage", ["a record that is no text", "a page"])
async def test_what_is_damaged_keeps_no_file_open(path: Path, damage: str) -> None:
    await made(path)
    if damage == "a page":
        content = bytearray(path.read_bytes())
        content[5 * 4096 :] = b"\xa5" * (len(content) - 5 * 4096)
        path.write_bytes(content)
    else:
        raw(path, "UPDATE connectors SET description = CAST(x'ff' AS TEXT)")
    gc.disable()
    try:
        with suppress(StoreCorrupt):
            async with open_sqlite(path) as store:
                await store.list()
        assert held(path) == []
    finally:
        gc.enable()


async def test_of_two_records_of_one_name_and_id_the_damaged_one_is_discarded(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.add(connector("one", id="rival"))
        await store.add(connector("rival", id="id-of-rival"))
        raw(path, "UPDATE connectors SET settings = '' WHERE name = 'one'")

        assert await store.discard("rival")
        assert await store.list() == [connector("rival", id="id-of-rival")]


# SQLite: where it may only be read


READER = """
import os, sys, anyio
from pathlib import Path
from mooring.assembly import Settings, open_broker
from mooring.errors import MooringError
from mooring.testing import Fake
warm, home = map(Path, sys.argv[1:])

async def use(home):
    said = []
    async with open_broker(settings=Settings(home=home), plugins=[Fake()], system_plugins=()) as broker:
        said.append([one.name for one in await broker.list()])
        said.append((await broker.get("mine")).description)
        said.append((await broker.check()).problems)
        said.append((await broker.verify("mine")).subject)
        for act in (
            lambda: broker.issue("mine", resource_type="bucket", resource_id="a"),
            lambda: broker.register("other", type="fake", auth_method="key"),
            lambda: broker.update("mine", description="new"),
            lambda: broker.delete("mine"),
            lambda: broker.back_up(home.parent / f"{home.name}.backup"),
        ):
            try:
                await act()
                said.append("done")
            except MooringError as error:
                said.append(f"{type(error).__name__}: {error.message}")
    return said

async def open_it(home):
    try:
        return await use(home)
    except MooringError as error:
        return [f"{type(error).__name__}: {error.message}"]

anyio.run(use, warm)  # the interpreter may lie where the other user cannot read
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for line in anyio.run(open_it, home):
    print(line)
"""


@asynccontextmanager
async def readable(kind: str) -> AsyncGenerator[tuple[Path, Path], None]:
    """A home that may be read and not be written, and one to try everything in before."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for home in (folder / "warm", folder / "home"):
            async with open_broker(settings=Settings(home=home), plugins=[Fake()], system_plugins=()) as broker:
                await broker.register("mine", type="fake", auth_method="key", description="that is there")
                if kind == "a log beside it" and home.name == "home":
                    kept = {
                        one: (home / one).read_bytes() for one in ("mooring.db", "mooring.db-wal", "mooring.db-shm")
                    }
            if kind == "a log beside it" and home.name == "home":  # as a process leaves it that is killed
                for one, content in kept.items():
                    (home / one).write_bytes(content)
        if kind == "an older schema":
            raw(folder / "home" / "mooring.db", "PRAGMA user_version = 1")
        for one in (folder / "home").iterdir():
            one.chmod(0o644 if one.name.startswith("mooring.db") or os.getuid() == 0 else 0o600)
        (folder / "home" / "master.key").chmod(0o600)
        if os.getuid() == 0:
            os.chown(folder / "home" / "master.key", 65534, 65534)
        for one, mode in ((folder, 0o755), (folder / "home", 0o555)):
            one.chmod(mode)
        yield folder / "warm", folder / "home"
        (folder / "home").chmod(0o755)


def everything(home: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in home.iterdir() if not one.name.endswith("-shm")}


@POSIX
@pytest.mark.parametrize("kind", ["a sound store", "a log beside it", "an older schema"])
async def test_a_home_that_may_only_be_read_serves_what_it_can(kind: str) -> None:
    async with readable(kind) as (warm, home):
        before = everything(home)
        command = [sys.executable, "-c", READER, warm, home]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stderr == ""
        said = done.stdout.splitlines()
        assert everything(home) == before
    path = home / "mooring.db"
    if kind == "an older schema":
        assert said == [
            f"StoreUnavailable: the store {path} is of an older mooring and cannot be written; check its rights"
        ]
        return
    refused = "it cannot be written; check the rights of the file and its folder"
    assert said[:4] == ["['mine']", "that is there", "()", "here"]
    assert said[4] == (
        "StoreUnavailable: credentials that cannot be recorded are not handed out: "
        f"the store {path} is not usable: {refused}"
    )
    assert said[5:8] == [f"StoreUnavailable: the store {path} is not usable: {refused}"] * 3
    assert said[8:] == [
        f"NoMasterKey: the master key file {home / 'master.key'} cannot be changed: Permission denied; check its folder"
    ]


# SQLite: a full disk


async def test_a_disk_that_fills_up_refuses_the_write_and_keeps_what_was_stored(path: Path) -> None:
    async with open_sqlite(path) as store:
        await store.add(connector())
        pages = raw(path, "PRAGMA page_count")[0][0]
        await store._read(f"PRAGMA max_page_count = {pages}", ())
        with pytest.raises(StoreUnavailable, match="the disk is full; free some space") as caught:
            await store.add(connector("big", description="x" * 50_000))

        assert str(path) in caught.value.message
        assert await store.list() == [connector()]
        await store._read("PRAGMA max_page_count = 100000", ())
        await store.add(connector("big", description="x" * 50_000))
    async with open_sqlite(path) as store:
        assert [one.name for one in await store.list()] == ["big", "main"]
        assert await store.check() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        done = None
    if done is None or done.returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=True)


async def test_a_small_disk_that_is_really_full(small_disk: Path) -> None:
    path, ballast = small_disk / "home" / "mooring.db", small_disk / "ballast"
    ballast.write_bytes(bytes(120_000))
    stored = []
    async with open_sqlite(path) as store:

        async def fill() -> None:
            for number in range(100):
                await store.add(connector(f"n{number:02}", description="x" * 8000))
                stored.append(f"n{number:02}")

        with pytest.raises(StoreUnavailable, match="the disk is full; free some space"):
            await fill()
        assert [one.name for one in await store.list()] == stored
        with pytest.raises(StoreUnavailable, match=r"cannot be written in .*; free some space"):
            await store.snapshot(small_disk / "copy")
    assert len(stored) > 5
    (small_disk / "copy").unlink(missing_ok=True)
    ballast.unlink()
    async with open_sqlite(path) as store:
        assert [one.name for one in await store.list()] == stored
        assert await store.check() == []
        await store.delete((await store.list())[0])
        await store.add(connector())


# SQLite: where it cannot be


@pytest.mark.parametrize(
    "place",
    [
        lambda folder: folder / "file" / "mooring.db",
        lambda folder: folder / "file" / "home" / "mooring.db",
        lambda folder: folder,
        lambda folder: folder / "link" / "mooring.db",
        pytest.param(
            lambda folder: folder / "closed" / "mooring.db",
            marks=pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may write anywhere"),
        ),
        pytest.param(
            lambda folder: folder / "read-only.db",
            marks=pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may write anywhere"),
        ),
    ],
    ids=[
        "below a file",
        "far below a file",
        "a folder",
        "below a broken link",
        "a read-only folder",
        "a read-only file",
    ],
)
async def test_a_store_that_cannot_be_written_is_unavailable_and_says_what_to_do(
    tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file" / "gone")
    (tmp_path / "closed").mkdir(mode=0o500)
    (tmp_path / "read-only.db").touch(mode=0o400)
    path = place(tmp_path)
    threads = threading.enumerate()
    with pytest.raises(StoreUnavailable, match=r"MOORING_HOME|check the rights") as caught:
        async with open_sqlite(path) as store:
            await store.add(connector())

    assert str(path) in caught.value.message
    assert await none_beside(threads)


MOUNTINFO = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:5 / /proc rw - proc proc rw
30 22 0:40 / {home} rw,relatime - {kind} server:/export rw
31 22 0:41 / {home}/local rw - ext4 /dev/vdb rw
32 22 0:42 / {home}/with\\040a\\011blank rw master:3 propagate_from:2 - xfs /dev/vdc rw
33 22 0:43 / {home}/auto rw - autofs systemd-1 rw
34 33 0:44 / {home}/auto rw - {kind} server:/c rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Callable[[str], Path]:
    def write(kind: str) -> Path:
        file = tmp_path / "mountinfo"
        file.write_text(MOUNTINFO.format(home=os.path.realpath(tmp_path / "home"), kind=kind))
        return file

    return write


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("home/mooring.db", "nfs4"),
        ("home/deep/er/mooring.db", "nfs4"),
        ("home/local/mooring.db", "ext4"),
        ("home/locale/mooring.db", "nfs4"),
        ("home/with a\tblank/mooring.db", "xfs"),
        ("home/auto/mooring.db", "nfs4"),
        ("homestead/mooring.db", "ext4"),
        ("link/mooring.db", "nfs4"),
        ("home/local/../mooring.db", "nfs4"),
    ],
)
def test_a_path_lies_on_the_file_system_mounted_nearest_above_it(
    tmp_path: Path, mounts: Callable[[str], Path], place: str, kind: str
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")

    assert file_system(tmp_path / place, mounts("nfs4")) == kind


def test_where_the_system_does_not_tell_no_file_system_is_named(tmp_path: Path) -> None:
    assert file_system(tmp_path, tmp_path / "none") == ""


@LINUX
def test_the_systems_own_list_is_understood(tmp_path: Path) -> None:
    assert file_system(Path("/proc/self/status")) == "proc"
    assert file_system(tmp_path) not in ("", "proc")


@pytest.mark.parametrize("kind", sorted(UNSAFE_FILE_SYSTEMS))
async def test_a_shared_file_system_is_refused_before_anything_is_made(
    path: Path, mounts: Callable[[str], Path], kind: str
) -> None:
    with pytest.raises(StoreUnavailable, match=f"{kind} file system.*MOORING_HOME to a folder on a local disk"):
        async with open_sqlite(path, mounts=mounts(kind)):
            pass

    assert not path.parent.exists()


async def test_a_local_file_system_is_taken(path: Path, mounts: Callable[[str], Path]) -> None:
    async with open_sqlite(path, mounts=mounts("btrfs")) as store:
        assert await store.list() == []


# SQLite: leaving


def held(path: Path) -> list[str]:
    """The files in the store's folder that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except OSError:  # the one that lists
            continue
    return [name for name in found if name.startswith(str(path.parent))]


@LINUX
async def test_leaving_closes_the_file_and_ends_the_thread(path: Path) -> None:
    threads = threading.enumerate()
    async with open_sqlite(path):
        assert held(path)

    assert held(path) == []
    assert await none_beside(threads)
    assert [file.name for file in path.parent.iterdir()] == ["mooring.db"]


@LINUX
@pytest.mark.parametrize("steps", range(14))
async def test_being_cancelled_in_the_middle_of_opening_leaves_nothing_behind(path: Path, steps: int) -> None:
    threads = threading.enumerate()
    entered = False

    async def open_it(scope: anyio.CancelScope) -> None:
        nonlocal entered
        with scope:
            async with open_sqlite(path):
                entered = True
                await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()
        tasks.start_soon(open_it, scope)
        for _ in range(steps * 3):
            await anyio.sleep(0 if steps < 7 else 0.0005)
        scope.cancel()

    assert held(path) == []
    assert await none_beside(threads)
    async with open_sqlite(path) as store:
        assert await store.list() == [], "and the file is good"


@LINUX
async def test_being_cancelled_while_another_process_holds_the_store_leaves_nothing_behind(path: Path) -> None:
    threads = threading.enumerate()
    path.parent.mkdir()
    blocker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    blocker.execute("PRAGMA journal_mode = WAL")
    blocker.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, lambda: (blocker.execute("ROLLBACK"), blocker.close()))
    timer.start()
    with anyio.move_on_after(0.1) as scope:
        async with open_sqlite(path):
            pytest.fail("it was opened")
    timer.join()

    assert scope.cancelled_caught
    assert held(path) == []
    assert await none_beside(threads)


async def test_an_error_in_the_body_closes_the_store_and_comes_out_as_it_is(path: Path) -> None:
    threads = threading.enumerate()
    with pytest.raises(ZeroDivisionError):
        async with open_sqlite(path):
            raise ZeroDivisionError

    assert await none_beside(threads)


def test_the_type_of_each_store_is_the_port(tmp_path: Path) -> None:
    """mypy says whether the signatures agree; that none is missing is seen here."""
    verbs = [name for name in vars(Store) if not name.startswith("_")]

    assert verbs
    kinds = (MemoryStore, SqliteStore)
    for part in ("ledger", "findings"):  # which are no verbs
        verbs.remove(part)
    assert all(callable(getattr(kind, verb)) for kind in kinds for verb in verbs)
