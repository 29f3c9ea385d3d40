"""The audit log: who did what, with what result; and that nobody can change it unseen."""

import json
import os
import sqlite3
import subprocess
import sys
import tracemalloc
from contextlib import AbstractAsyncContextManager, closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

import mooring as m
from mooring.assembly import Settings, open_broker
from mooring.errors import MooringError
from mooring.store import FIRST_LINK, link, seal_text
from mooring.testing import Fake

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]
A = {"resource_type": "bucket", "resource_id": "a"}
EMPTY = datetime(2026, 1, 1, tzinfo=UTC)


def opened(home: Path, plugin: Fake | None = None, **options: object) -> AbstractAsyncContextManager[m.Broker]:
    return open_broker(
        settings=Settings(home=home), plugins=[plugin or Fake()], system_plugins=(), consumer="ann", **options
    )


def raw(home: Path, *statements: str) -> None:
    with closing(sqlite3.connect(home / "mooring.db", isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


async def filled(home: Path, count: int = 8) -> m.broker.AuditReport:
    async with opened(home) as broker:
        await broker.register("mine", type="fake", auth_method="key", verify=False)
        for number in range(count - 1):
            await broker.update("mine", description=str(number), verify=False)
        report = await broker.verify_audit()
        assert (report.entries, report.problems) == (count, ())
        return report


async def problems(home: Path, expected: str | None = None) -> tuple[str, ...]:
    async with opened(home) as broker:
        return (await broker.verify_audit(expected=expected)).problems


async def said(broker: m.Broker) -> list[tuple[str, str]]:
    return [(line.entry.action, line.entry.outcome) async for line in broker.audit()]


async def test_every_verb_that_changes_or_shows_something_is_on_record_and_its_failure_too(tmp_path: Path) -> None:
    plugin = Fake()

    async def refuse(_: object) -> None:
        raise m.AccessDenied("no")

    async with opened(tmp_path / "home", plugin) as broker:
        await broker.register("mine", type="fake", auth_method="key", config={"key": "k"})
        await broker.secrets("mine")
        await broker.update("mine", description="new", verify=False)
        issued = await broker.issue("mine", **A)
        await broker.issue("mine", **A, consumer="bob")
        await broker.revoke(issued.lease, consumer="bob")
        await broker.revoke(issued.lease)
        await broker.back_up(tmp_path / "backup")
        await broker.rotate_keys()
        await broker.prune_keys()
        plugin.on = dict.fromkeys(("verify", "issue_credentials"), refuse)
        for act in (
            lambda: broker.verify("mine"),
            lambda: broker.register("other", type="fake", auth_method="key"),
            lambda: broker.update("mine", description="no"),
            lambda: broker.issue("mine", **A, consumer="eve"),
            lambda: broker.back_up(tmp_path / "backup"),
            lambda: broker.restore(tmp_path / "backup"),
        ):
            with suppress(MooringError):
                await act()
        await broker.delete("mine")
        await broker._desk.books.flush()
        lines = [line.entry async for line in broker.audit()]
        assert [(one.action, one.consumer) for one in lines if one.action in ("issue", "release")] == [
            ("issue", "ann"), ("issue", "bob"), ("release", "bob"), ("release", "ann"), ("issue", "eve"),
        ]  # fmt: skip
        assert sorted((one.action, one.outcome) for one in lines) == sorted([
            ("verify", "ok"), ("register", "ok"), ("reveal", "ok"), ("update", "ok"), ("issue", "ok"), ("issue", "ok"),
            ("release", "ok"), ("release", "ok"), ("back-up", "ok"), ("rotate-keys", "ok"), ("prune-keys", "ok"),
            ("verify", "AccessDenied"), ("verify", "AccessDenied"), ("register", "AccessDenied"),
            ("verify", "AccessDenied"), ("update", "AccessDenied"), ("issue", "AccessDenied"),
            ("back-up", "NameTaken"), ("restore", "NameTaken"), ("delete", "ok"),
        ])  # fmt: skip
        assert all(one.connector == "mine" for one in lines if one.action in ("reveal", "issue", "update", "delete"))
        assert (await broker.verify_audit()).problems == ()


async def test_a_secret_that_turned_up_is_led_back_to_who_got_it_also_after_a_rotation(tmp_path: Path) -> None:
    async with opened(tmp_path) as broker:
        await broker.register("mine", type="fake", auth_method="key", verify=False)
        issued = await broker.issue("mine", **A, consumer="bob")
        await broker.rotate_keys()
        (line,) = await broker.trace(m.Secret(issued.credentials.token.reveal()))
        assert (line.entry.lease, line.entry.consumer) == (issued.lease, "bob")
        assert await broker.trace(m.Secret("another")) == []
    assert issued.credentials.token.reveal().encode() not in (tmp_path / "mooring.db").read_bytes()
    raw(tmp_path, "UPDATE audit SET body = CAST(replace(CAST(body AS TEXT), 'local-', 'löcal') AS BLOB)")
    async with opened(tmp_path) as broker:
        assert await broker.trace(m.Secret("another")) == []


TAMPERING = {
    "an edit": ["UPDATE audit SET body = CAST(replace(CAST(body AS TEXT), 'ann', 'bob') AS BLOB) WHERE seq = 4"],
    "an edit that is no JSON": ["UPDATE audit SET body = x'ff' WHERE seq = 4"],
    "a deletion": ["DELETE FROM audit WHERE seq = 4"],
    "a deletion, renumbered": ["DELETE FROM audit WHERE seq = 4", "UPDATE audit SET seq = seq - 1 WHERE seq > 4"],
    "the first gone": ["DELETE FROM audit WHERE seq = 1"],
    "two in another order": [
        "UPDATE audit SET seq = -1 WHERE seq = 3", "UPDATE audit SET seq = 3 WHERE seq = 4",
        "UPDATE audit SET seq = 4 WHERE seq = -1",
    ],
    "the end cut off": ["DELETE FROM audit WHERE seq > 5"],
    "the end cut off with its signature": ["DELETE FROM audit WHERE seq > 5", "DELETE FROM audit_seal"],
    "the end cut off and the signature moved": [
        "DELETE FROM audit WHERE seq > 5",
        "UPDATE audit_seal SET seq = 5, digest = (SELECT digest FROM audit WHERE seq = 5)",
    ],
    "another signature": ["UPDATE audit_seal SET signature = zeroblob(32)"],
    "no signature": ["UPDATE audit_seal SET key_id = '', signature = x''"],
    "an unknown key": ["UPDATE audit_seal SET key_id = 'other'"],
    "one more": ["INSERT INTO audit SELECT 9, body, digest FROM audit WHERE seq = 8"],
    "all gone": ["DELETE FROM audit"],
}  # fmt: skip


@pytest.mark.parametrize("how", TAMPERING)
async def test_every_change_is_found(tmp_path: Path, how: str) -> None:
    await filled(tmp_path)
    raw(tmp_path, *TAMPERING[how])

    found = await problems(tmp_path)

    assert found
    assert all("\n" not in one for one in found)


@pytest.mark.parametrize("how", TAMPERING)
async def test_every_change_is_found_still_after_others_have_written(tmp_path: Path, how: str) -> None:
    await filled(tmp_path)
    raw(tmp_path, *TAMPERING[how])
    for _ in range(2):
        async with opened(tmp_path) as broker:
            await broker.update("mine", description="written after it", verify=False)

    found = await problems(tmp_path)

    assert found
    assert all("\n" not in one for one in found)


async def test_a_log_that_is_wholly_gone_is_missed_where_there_are_leases(tmp_path: Path) -> None:
    async with opened(tmp_path) as broker:
        await broker.register("mine", type="fake", auth_method="key", verify=False)
        await broker.issue("mine", **A)
    raw(tmp_path, "DELETE FROM audit", "DELETE FROM audit_seal")

    assert await problems(tmp_path)


async def test_a_chain_that_was_written_anew_without_the_key_is_found_and_by_a_digest_a_rollback(
    tmp_path: Path,
) -> None:
    report = await filled(tmp_path)
    old = (tmp_path / "mooring.db").read_bytes()
    async with opened(tmp_path) as broker:
        await broker.update("mine", description="more", verify=False)
        newer = (await broker.verify_audit(expected=report.digest)).digest
        assert (await broker.verify_audit(expected=report.digest)).problems == ()
    with closing(sqlite3.connect(tmp_path / "mooring.db", isolation_level=None)) as database:
        digest = FIRST_LINK
        for seq, body in database.execute("SELECT seq, body FROM audit ORDER BY seq").fetchall():
            other = body.replace(b"ann", b"bob")
            digest = link(digest, other)
            database.execute("UPDATE audit SET body = ?, digest = ? WHERE seq = ?", (other, digest, seq))
        database.execute("UPDATE audit_seal SET digest = ?", (digest,))
    assert await problems(tmp_path) == ("the signature of its end is not ours",)
    async with opened(tmp_path) as broker:
        await broker.update("mine", description="signs no other's words", verify=False)
    assert "entry 10" in "".join(await problems(tmp_path))
    for one in ("mooring.db-wal", "mooring.db-shm"):
        (tmp_path / one).unlink(missing_ok=True)
    (tmp_path / "mooring.db").write_bytes(old)
    assert await problems(tmp_path) == ()
    (found,) = await problems(tmp_path, expected=newer)
    assert "no entry has the digest that was expected" in found


async def test_rotating_and_pruning_keys_and_restoring_a_backup_leave_it_whole(tmp_path: Path) -> None:
    home = tmp_path / "home"
    await filled(home)
    async with opened(home) as broker, opened(home) as other:
        await other.update("mine", description="it knows the first key", verify=False)
        for _ in range(2):
            await broker.rotate_keys()
            assert await broker.prune_keys()
            await other.update("mine", description="and not the next one", verify=False)
            assert await problems(home) == (), "it was signed under the key that is active now"
        await broker.back_up(tmp_path / "backup")
        await broker.delete("mine")
        await broker.restore(tmp_path / "backup")
        assert (await broker.verify_audit()).problems == ()
        assert (await said(broker))[-1] == ("restore", "ok")
    assert await problems(home) == ()


WRITER = """
import sys
from pathlib import Path
import anyio
import test_audit as t

async def main():
    async with t.opened(Path(sys.argv[1])) as broker:
        for number in range(20):
            await broker.register(f"c{sys.argv[2]}-{number}", type="fake", auth_method="key", verify=False)
            assert (await broker.verify_audit()).problems == ()

anyio.run(main)
"""


async def test_ten_processes_write_one_chain_and_each_sees_it_whole_meanwhile(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    await filled(tmp_path, 1)
    writers = [subprocess.Popen([*command, str(number)], env=environment) for number in range(10)]  # noqa: ASYNC220
    assert [one.wait(120) for one in writers] == [0] * 10
    async with opened(tmp_path) as broker:
        report = await broker.verify_audit()
        events = await broker.logged(after=0)
    assert (report.entries, report.problems) == (201, ())
    assert [one.seq for one in events] == list(range(1, 202))


async def test_a_long_log_is_verified_in_bounded_memory(tmp_path: Path) -> None:
    await filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "mooring.db", isolation_level=None)) as database:
        seq, digest = database.execute("SELECT seq, digest FROM audit ORDER BY seq DESC").fetchone()
        body = json.dumps({"at": EMPTY.isoformat(), "action": "x", "consumer": "x" * 200, "outcome": "ok"}).encode()
        database.execute("BEGIN")
        while seq < 100_000:
            seq, digest = seq + 1, link(digest, body)
            database.execute("INSERT INTO audit VALUES (?, ?, ?)", (seq, body, digest))
        database.execute("COMMIT")
    async with opened(tmp_path) as broker:
        await broker.secrets("mine")  # which has the key at hand
        key_id, signature = broker._desk.books._sign(seal_text(seq, digest))
        with closing(sqlite3.connect(tmp_path / "mooring.db", isolation_level=None)) as database:
            database.execute("DELETE FROM audit WHERE seq > ?", (seq,))
            database.execute(
                "UPDATE audit_seal SET seq=?, digest=?, key_id=?, signature=?", (seq, digest, key_id, signature)
            )
        await broker.update("mine", description="which goes on from there", verify=False)
        tracemalloc.start()
        try:
            report = await broker.verify_audit()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (report.entries, report.problems) == (100_001, ())
    assert peak < 4_000_000
    raw(tmp_path, "DELETE FROM audit WHERE seq % 2")
    assert len(await problems(tmp_path)) < 110
