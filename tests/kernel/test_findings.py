"""What was found, at rest: one suite for both stores."""

# ruff: noqa: ASYNC221  a test may wait for a process of its own

import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import msgspec
import pytest

from mooring.errors import InvalidConfig, StoreCorrupt
from mooring.records import Change, Look
from mooring.store import MemoryStore, Store, _findings, _memory_findings, open_sqlite
from mooring.types import Connector, Resource

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]
NOW, HOUR = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), timedelta(hours=1)
BAD = "\udcff"
MINE = Connector(id="c", name="mine", type="fake", auth_method="key", created_at=NOW, updated_at=NOW)
LOOK = Look(connector_id="c", version=1, resource_type="bucket", unit="north")


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Store, None]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        async with open_sqlite(tmp_path / "mooring.db") as store:
            yield store


def look(unit: str = "north", **changes: object) -> Look:
    return msgspec.structs.replace(LOOK, unit=unit, **changes)


def done(unit: str = "north", at: datetime = NOW, **changes: object) -> Look:
    return look(unit, at=at, took=HOUR / 3600, **changes)


def buckets(*ids: str) -> list[Resource]:
    return [Resource(type="bucket", id=id) for id in ids]


async def finish(store: Store, *ids: str, unit: str = "north", run: int = 7, at: datetime = NOW) -> Change | None:
    return await store.findings.finish(done(unit, at, count=len(ids)), run, buckets(*ids), begins=True)


async def found(store: Store, one: Connector = MINE, kind: str = "bucket") -> list[tuple[str, str]]:
    return [(unit, resource.id) for unit, resource in await store.findings.found(one, kind)]


async def test_a_look_comes_back_as_it_was_with_what_it_found(store: Store) -> None:
    await store.add(MINE)
    whole = Resource(type="bucket", id="a", region="eu", attributes={"Größe": "7"})
    assert await store.findings.finish(done(count=1), 7, [whole], begins=True) == Change()

    assert await store.findings.looks(MINE) == [done(count=1)]
    assert await store.findings.found(MINE, "bucket") == [("north", whole)]
    assert await store.findings.found(MINE, "cluster") == []


async def test_what_a_run_adds_is_seen_when_it_is_finished(store: Store) -> None:
    await store.add(MINE)
    await finish(store, "a", "b")

    assert await store.findings.add(look(), 8, buckets("b"), begins=True)
    assert await store.findings.add(look(), 8, buckets("d"), begins=False)
    assert (await found(store), await store.findings.looks(MINE)) == ([("north", "a"), ("north", "b")], [done(count=2)])

    change = await store.findings.finish(done(at=NOW + HOUR, count=3), 8, buckets("c", "c"), begins=False)
    assert change == Change(found=("c", "d"), gone=("a",))
    assert await found(store) == [("north", "b"), ("north", "c"), ("north", "d")]
    assert [one.at for one in await store.findings.looks(MINE)] == [NOW + HOUR]


async def test_units_and_types_do_not_mix(store: Store) -> None:
    await store.add(MINE)
    await finish(store, "a")
    await finish(store, "a", "b", unit="south", run=8)
    await store.findings.finish(done(resource_type="cluster"), 9, buckets("x"), begins=True)

    assert await finish(store, "a", unit="south", run=10) == Change(gone=("b",))
    assert await found(store) == [("north", "a"), ("south", "a")]
    assert await found(store, kind="cluster") == [("north", "x")]


async def test_it_is_read_in_pages_also_while_another_look_is_finished(store: Store) -> None:
    await store.add(MINE)
    await finish(store, "a", "b", "c")
    await finish(store, "a", "b", unit="south", run=8)
    after, seen = ("", ""), []
    while page := await store.findings.found(MINE, "bucket", after=after, most=2):
        assert len(page) <= 2
        after = (page[-1][0], page[-1][1].id)
        seen += [(unit, one.id) for unit, one in page]
        await finish(store, "a", "c", "d", run=len(seen) * 100)

    assert seen == [("north", "a"), ("north", "b"), ("north", "c"), ("north", "d"), ("south", "a"), ("south", "b")]


async def test_a_unit_that_was_empty_has_a_first_look_all_the_same(store: Store) -> None:
    await store.add(MINE)
    assert await finish(store) == Change()
    assert await finish(store, "a", run=8) == Change(found=("a",))


async def test_of_many_changes_the_first_are_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (_findings, _memory_findings):
        monkeypatch.setattr(module, "MOST_NAMED", 2)
    await store.add(MINE)
    await finish(store, "a", "b", "c", "d")

    change = await finish(store, "e", "f", "g", run=8)
    assert change == Change(found=("e", "f"), gone=("a", "b"), more_found=1, more_gone=2)


async def test_a_failure_stands_beside_the_look_before(store: Store) -> None:
    await store.add(MINE)
    await finish(store, "a")
    await store.findings.add(look(), 8, buckets("half"), begins=True)
    failure = look(failed_at=NOW + HOUR, error="Throttled", message=f"slow{BAD} down")
    await store.findings.fail(failure, 8)

    (known,) = await store.findings.looks(MINE)
    assert known == done(count=1, failed_at=NOW + HOUR, error="Throttled", message="slow? down")
    assert (known.tried_at, await found(store)) == (NOW + HOUR, [("north", "a")])
    assert not await store.findings.add(look(), 8, buckets("late"), begins=False)
    assert await finish(store, "a", "half", run=9, at=NOW + 2 * HOUR) == Change(found=("half",))
    assert await store.findings.looks(MINE) == [done(at=NOW + 2 * HOUR, count=2)]


async def test_a_unit_that_only_failed(store: Store) -> None:
    await store.add(MINE)
    await store.findings.fail(look("", resource_type="", failed_at=NOW, error="AuthFailed", message="no"))

    (known,) = await store.findings.looks(MINE)
    assert (known.at, known.tried_at, known.error) == (None, NOW, "AuthFailed")
    assert await store.findings.expect(MINE, {"bucket": {"north": "*"}}) == [known]
    assert await store.findings.looks(MINE) == [look()]


async def test_a_run_that_was_cut_short_is_never_seen(store: Store) -> None:
    await store.add(MINE)
    await finish(store, "a")
    await store.findings.add(look(), 8, buckets("half"), begins=True)

    assert await finish(store, "a", "b", run=9) == Change(found=("b",))
    assert await store.findings.finish(done(), 8, buckets("c"), begins=False) is None
    assert not await store.findings.add(look(), 8, buckets("c"), begins=False)
    assert await found(store) == [("north", "a"), ("north", "b")]


async def test_the_run_that_began_last_is_the_one_that_counts(store: Store) -> None:
    await store.add(MINE)
    await store.findings.add(look(), 8, buckets("a"), begins=True)
    await store.findings.add(look(), 9, buckets("b"), begins=True)

    assert await store.findings.finish(done(), 8, buckets("c"), begins=False) is None
    assert await store.findings.finish(done(), 9, buckets("d"), begins=False) == Change()
    assert await found(store) == [("north", "b"), ("north", "d")]


async def test_units_are_known_before_they_are_looked_at(store: Store) -> None:
    await store.add(MINE)
    await finish(store, "a")
    before = await store.findings.expect(MINE, {"bucket": {"north": "*", "south": "s-*"}, "cluster": {}})
    assert before == [done(count=1)]
    assert await store.findings.looks(MINE) == [done(count=1), look("south", ids="s-*")]
    await store.findings.expect(MINE, {"bucket": {"north": "n-*", "south": "s-*"}})
    assert [one.ids for one in await store.findings.looks(MINE)] == ["n-*", "s-*"]

    await store.findings.expect(MINE, {"cluster": {"": "*"}})
    await store.findings.expect(MINE, {"bucket": {"south": "s-*"}})
    assert [(one.resource_type, one.unit) for one in await store.findings.looks(MINE)] == [
        ("bucket", "south"),
        ("cluster", ""),
    ]
    assert await found(store) == []


@pytest.mark.parametrize("how", ["changed", "deleted"])
async def test_what_was_found_goes_with_the_connector(store: Store, how: str) -> None:
    await store.add(MINE)
    other = msgspec.structs.replace(MINE, id="d", name="other")
    await store.add(other)
    await store.findings.finish(done(connector_id="d"), 6, buckets("z"), begins=True)
    await finish(store, "a")
    await store.findings.add(look(), 8, buckets("b"), begins=True)
    later = msgspec.structs.replace(MINE, version=2)
    await (store.replace(later) if how == "changed" else store.delete(MINE))

    for one in (MINE, later):
        assert (await store.findings.looks(one), await found(store, one)) == ([], [])
    assert await found(store, other) == [("north", "z")]
    assert not await store.findings.add(look(), 8, buckets("c"), begins=False)
    assert await finish(store, "a", run=9) is None
    await store.findings.fail(look(failed_at=NOW, error="Throttled"))
    await store.findings.expect(MINE, {"bucket": {"north": "*"}})
    for one in (MINE, later):
        assert await store.findings.looks(one) == []


@pytest.mark.parametrize(
    "resource", [Resource(type="bucket", id=BAD), Resource(type="bucket", id="a", attributes={"x": BAD})]
)
async def test_what_is_no_text_is_refused_alone(store: Store, resource: Resource) -> None:
    await store.add(MINE)
    await finish(store, "a")
    with pytest.raises(InvalidConfig):
        await store.findings.add(look(), 8, [resource], begins=True)
    with pytest.raises(InvalidConfig):
        await store.findings.finish(done(), 8, [resource], begins=True)
    with pytest.raises(InvalidConfig):
        await store.findings.finish(done(BAD), 8, [], begins=True)
    with pytest.raises(InvalidConfig):
        await store.findings.expect(MINE, {"bucket": {BAD: "*"}})
    assert await found(store) == [("north", "a")]


async def test_callers_at_once_are_each_told_what_became_of_theirs(store: Store) -> None:
    await store.add(MINE)
    changes: dict[str, Change | None] = {}

    async def one(unit: str) -> None:
        changes[unit] = await finish(store, unit, unit=unit, run=hash(unit))

    for ids in range(2):
        async with anyio.create_task_group() as tasks:
            for unit in range(50):
                tasks.start_soon(one, f"{unit}")
        assert list(changes.values()) == [Change()] * 50, ids
    assert len(await found(store)) == 50


# -- SQLite's alone

CRASH = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import test_findings as t

async def main():
    async with t.open_sqlite(Path(sys.argv[1])) as store:
        await store.add(t.MINE)
        await t.finish(store, "a", "b")
        for number in range(5):
            ids = map(str, range(500 * number, 500 * number + 500))
            await store.findings.add(t.look(), 8, t.buckets(*ids), begins=not number)
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""


async def test_a_process_that_is_killed_leaves_the_last_whole_look(tmp_path: Path) -> None:
    path = tmp_path / "mooring.db"
    crashed = subprocess.run([sys.executable, "-c", CRASH, path, Path(__file__).parent], check=False)
    assert crashed.returncode == -9
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM findings").fetchone() == (2502,)
    async with open_sqlite(path) as store:
        assert await found(store) == [("north", "a"), ("north", "b")]
        assert await finish(store, "b", "1", run=9) == Change(found=("1",), gone=("a",))
        assert await store.check() == []
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM findings").fetchone() == (2,)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE findings SET resource = '{'",
        "UPDATE findings SET resource = '[1]'",
        "UPDATE findings SET resource = '{\"none\": 1}'",
        "UPDATE findings SET resource = CAST(x'ff' AS TEXT)",
        "UPDATE looks SET at = 'yesterday'",
    ],
)
async def test_a_damaged_record(tmp_path: Path, statement: str) -> None:
    async with open_sqlite(tmp_path / "mooring.db") as store:
        await store.add(MINE)
        await finish(store, "a")
        with closing(sqlite3.connect(tmp_path / "mooring.db", isolation_level=None)) as database:
            database.execute(statement)
        with pytest.raises(StoreCorrupt, match=r"a record of findings in .* is damaged"):
            await (found(store) if "findings" in statement else store.findings.looks(MINE))


async def test_a_page_is_read_by_the_index(tmp_path: Path) -> None:
    """Without sorting all that is left: pages of a large unit would take the square of its size."""
    async with open_sqlite(tmp_path / "mooring.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "mooring.db")) as database:
        for end in ("unit = ? AND id > ? ORDER BY id LIMIT ?", "unit > ? ORDER BY unit, id LIMIT ?"):
            statement = f"EXPLAIN QUERY PLAN {_findings.FOUND} {end}"
            plan = " ".join(row[3] for row in database.execute(statement, ("",) * (3 + end.count("?"))))
            assert "TEMP B-TREE" not in plan, plan
            assert "SCAN" not in plan, plan
