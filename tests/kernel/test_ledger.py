"""Leases, the audit log and the event log at rest: one suite for both ledgers."""

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from mooring.errors import InvalidConfig, StoreConflict, StoreCorrupt
from mooring.records import AuditEntry, Entries, Holder, Lease, Logged, Sealing
from mooring.store import FIRST_LINK, Ledger, MemoryStore, _ledger, _memory_ledger, link, open_sqlite, seal_text

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]
NOW, HOUR = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), timedelta(hours=1)
BAD = "\udcff"


@pytest.fixture(params=["memory", "sqlite"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Ledger, None]:
    if request.param == "memory":
        yield MemoryStore().ledger
    else:
        async with open_sqlite(tmp_path / "mooring.db") as store:
            yield store.ledger


def lease(id: str = "lease-1", **changes: object) -> Lease:
    values = {
        "id": id, "connector_id": "c", "connector": "mine", "connector_type": "fake", "resource_type": "bucket",
        "resource_id": "a/logs", "access": "read", "issued_at": NOW, "expires_at": NOW + HOUR, "narrowed": True,
        "revocation": "real", "undo": ("u1", "u2"),
    }  # fmt: skip
    return Lease(**values | changes)


def holder(consumer: str = "ann", count: int = 1, at: datetime = NOW) -> Holder:
    return Holder(consumer=consumer, first_at=at, last_at=at, count=count)


def audit(action: str = "issue", **changes: object) -> AuditEntry:
    return AuditEntry(at=NOW, action=action, consumer="ann", outcome="ok", **changes)


def event(number: int = 0) -> Logged:
    return Logged(seq=0, at=NOW, event="Happened", connector_id="c", body={"number": number})


def sign(message: bytes) -> tuple[str, bytes]:
    return "k", b"signed " + message


def signed(sealing: Sealing) -> bool:
    return sealing.signature == b"signed " + seal_text(sealing.seq, sealing.digest)


async def record(ledger: Ledger, **entries: object) -> None:
    assert await ledger.record([Entries(**entries)], sign, signed) == [None]


async def test_a_lease_comes_back_as_it_was_with_its_holders(ledger: Ledger) -> None:
    one, endless = lease(), lease("lease-2", expires_at=None, resource_id=None, issued_at=NOW + HOUR, undo=())
    await record(ledger, leases=(one, endless), holders=(("lease-1", holder("bob")), ("lease-1", holder())))

    assert await ledger.leases() == [msgspec.structs.replace(one, holders=(holder(), holder("bob"))), endless]
    found = msgspec.structs.replace(one, state="revoking", attempts=2, error="away")
    await record(ledger, leases=(found,), gone=(("lease-1", "bob"),))
    assert await ledger.leases(lease="lease-1") == [msgspec.structs.replace(found, holders=(holder(),))]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"lease": "a"}, "a1 a2"), ({"lease": "a1"}, "a1"), ({"lease": "%"}, ""), ({"lease": ""}, "a1 a2 b1"),
        ({"connector_id": "c"}, "a1 b1"), ({"connector_id": ""}, ""), ({"resource": "logs"}, "a1 a2"),
        ({"resource": "logs/b"}, "a2"), ({"resource": "LOGS"}, ""), ({"consumer": "bob"}, "a2"),
        ({"consumer": "bo"}, ""), ({"consumer": ""}, ""), ({"states": ("active",)}, "a1 b1"), ({"states": ()}, ""),
        ({"states": ("revoked", "active"), "connector_id": "d"}, "a2"), ({"ended": NOW}, "a2"),
        ({"ended": NOW - HOUR}, ""), ({"ended": NOW + HOUR, "states": ("active",), "lease": "a"}, "a1"),
    ],
)  # fmt: skip
async def test_leases_are_found_by_each_filter_and_by_all(ledger: Ledger, filters: dict, found: str) -> None:
    one = lease("a1", resource_id="logs/a")
    two = lease("a2", resource_id="logs/b", connector_id="d", state="revoked", expires_at=NOW)
    three = lease("b1", resource_id=None, expires_at=None)
    await record(ledger, leases=(one, two, three), uses=(("a2", holder("bob")),))

    assert " ".join(one.id for one in await ledger.leases(**filters)) == found


async def test_a_repeat_is_added_to_what_is_stored(ledger: Ledger) -> None:
    await record(ledger, leases=(lease(),), holders=(("lease-1", holder()),))
    await record(ledger, uses=(("lease-1", holder(count=3, at=NOW + HOUR)), ("lease-1", holder(count=2))))
    await record(ledger, uses=(("pruned", holder()),))

    (found,) = await ledger.leases()
    assert found.holders == (Holder(consumer="ann", first_at=NOW, last_at=NOW + HOUR, count=6),)


async def test_who_is_a_holder_no_more_is_told_and_is_one_anew_only_by_a_new_hand_out(ledger: Ledger) -> None:
    holders = (("lease-1", holder(count=4)), ("lease-1", holder("bob")))
    await record(ledger, leases=(lease(),), holders=holders)
    await record(ledger, gone=(("lease-1", "ann"), ("lease-1", "nobody"), ("nothing", "ann")))
    await record(ledger, uses=(("lease-1", holder(count=3)),))  # of before, written late
    (found,) = await ledger.leases()
    assert [one.consumer for one in found.holders] == ["bob"]
    assert list(await ledger.parted()) == [("lease-1", "ann")]
    assert await ledger.leases(consumer="ann") == []

    await record(ledger, holders=(("lease-1", holder(at=NOW + HOUR)),))
    (found,) = await ledger.leases(consumer="ann")
    assert set(found.holders) == {holder("bob"), holder(at=NOW + HOUR)}
    assert list(await ledger.parted()) == []

    await record(ledger, gone=(("lease-1", "ann"),))
    await record(ledger, leases=(lease(state="expired"),))
    assert await ledger.prune(NOW + HOUR) == 1
    assert list(await ledger.parted()) == []


@pytest.mark.parametrize("state", ["released", "revoking", "irrevocable", "revoked", "expired"])
async def test_what_is_not_active_gets_no_holder(ledger: Ledger, state: str) -> None:
    await record(ledger, leases=(lease(state=state),))
    good = Entries(audit=(audit(),), events=(event(),))
    refused = Entries(holders=(("lease-1", holder()),), audit=(audit("never"),), events=(event(),))

    outcomes = await ledger.record([good, refused, good], sign, signed)

    assert [type(one) for one in outcomes] == [type(None), StoreConflict, type(None)]
    assert (await ledger.leases())[0].holders == ()
    assert [one.seq for one in await ledger.events(after=0)] == [1, 2]
    assert all(b"never" not in one.body for one in await ledger.audited())


@pytest.mark.parametrize("state", ["revoked", "expired"])
async def test_what_is_over_stays_over(ledger: Ledger, state: str) -> None:
    await record(ledger, leases=(lease(state=state),))

    (outcome,) = await ledger.record([Entries(leases=(lease(state="revoking"),), audit=(audit(),))], sign, signed)

    assert isinstance(outcome, StoreConflict)
    assert [one.state for one in await ledger.leases()] == [state]
    assert (await ledger.audited(), await ledger.sealing()) == ([], None)


async def test_text_that_is_not_unicode_fails_no_other_and_is_replaced_where_it_is_only_told(ledger: Ledger) -> None:
    bad = Entries(leases=(lease("bad", resource_id=BAD),), audit=(audit(),))
    told = Entries(
        audit=(audit(resource_id=BAD),),
        events=(Logged(seq=0, at=NOW, event="Told", connector_id=BAD, body={"message": BAD}),),
    )

    outcomes = await ledger.record([bad, told, Entries(leases=(lease(),))], sign, signed)

    assert [type(one) for one in outcomes] == [InvalidConfig, type(None), type(None)]
    assert [one.id for one in await ledger.leases()] == ["lease-1"]
    assert [one.body for one in await ledger.events(after=0)] == [{"message": "?"}]
    assert len(await ledger.audited()) == 1


async def test_the_chain_links_every_entry_to_the_one_before_and_its_end_is_signed(ledger: Ledger) -> None:
    for number in range(3):
        await record(ledger, audit=(audit(str(number)), audit("and")))
    links = await ledger.audited()

    assert [one.seq for one in links] == [1, 2, 3, 4, 5, 6]
    digest = FIRST_LINK
    for one in links:
        digest = link(digest, one.body)
        assert one.digest == digest
    sealing = await ledger.sealing()
    assert (sealing.seq, sealing.digest, sealing.key_id) == (6, digest, "k")
    assert sealing.signature == b"signed " + seal_text(6, digest)
    assert [one.seq for one in await ledger.audited(after=2, most=3)] == [3, 4, 5]


async def test_events_have_numbers_without_gaps_and_the_oldest_go(ledger: Ledger, monkeypatch) -> None:
    monkeypatch.setattr(_ledger, "MOST_EVENTS", 50)
    monkeypatch.setattr(_ledger, "EVENTS_AT_ONCE", 10)
    most = 50 if isinstance(ledger, _ledger.SqliteLedger) else _memory_ledger.MOST_EVENTS
    for number in range(40):
        await record(ledger, events=tuple(event(3 * number + one) for one in range(3)))
        found = await ledger.events(after=0)
        assert [one.seq for one in found] == list(range(found[0].seq, 3 * number + 4))
        assert [one.body["number"] + 1 for one in found] == [one.seq for one in found]
        assert len(found) <= most
    assert await ledger.last_event() == 120
    assert [one.seq for one in await ledger.events(after=110, most=3)] == [111, 112, 113]
    assert await ledger.events(after=120) == []


async def test_only_leases_that_are_over_and_long_ended_are_forgotten(ledger: Ledger) -> None:
    states = ("active", "released", "revoking", "irrevocable", "revoked", "expired")
    for ends, mark in ((NOW, "old"), (NOW + HOUR, "new"), (None, "endless")):
        await record(ledger, leases=tuple(lease(f"{mark}-{state}", state=state, expires_at=ends) for state in states))
    await record(ledger, uses=(("old-expired", holder()), ("new-expired", holder())))

    assert await ledger.prune(NOW) == 2
    assert len(await ledger.leases()) == 16
    assert await ledger.leases(lease="old-expired") == []
    assert [one.id for one in await ledger.leases(consumer="ann")] == ["new-expired"]


# -- SQLite


@pytest.mark.parametrize(
    ("damage", "read"),
    [
        ("UPDATE leases SET undo = 'x'", "leases"),
        ("UPDATE leases SET state = 'odd'", "leases"),
        ("UPDATE leases SET issued_at = 'then'", "leases"),
        ("UPDATE leases SET error = CAST(x'ff' AS TEXT)", "leases"),
        ("UPDATE leases SET expires_at = '2026-01-01T00:00:00'", "leases"),  # of no zone
        ("UPDATE leases SET ttl = 9e99", "leases"),
        (f"UPDATE leases SET undo = '{'[' * 5000}'", "leases"),
        ("UPDATE holders SET first_at = ''", "leases"),
        ("UPDATE events SET body = '{'", "events"),
        ("UPDATE events SET body = '5'", "events"),
        ("UPDATE events SET at = 'then'", "events"),
    ],
)
async def test_a_damaged_record_is_one_error(tmp_path: Path, damage: str, read: str) -> None:
    async with open_sqlite(tmp_path / "mooring.db") as store:
        await record(store.ledger, leases=(lease(),), holders=(("lease-1", holder()),), events=(event(),))
        with closing(sqlite3.connect(tmp_path / "mooring.db", isolation_level=None)) as other:
            other.execute(damage)
        with pytest.raises(StoreCorrupt, match="restore a backup"):
            await (store.ledger.leases() if read == "leases" else store.ledger.events(after=0))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE leases SET undo = 'x' WHERE id = 'lease-2'", "lease 'lease-2'"),
        ("UPDATE leases SET error = CAST(x'ff' AS TEXT) WHERE id = 'lease-2'", "lease 'lease-2'"),
        ("UPDATE leases SET id = CAST(x'6cff' AS TEXT) WHERE id = 'lease-2'", "lease 'l\N{REPLACEMENT CHARACTER}'"),
        ("UPDATE holders SET last_at = 'then' WHERE lease = 'lease-2'", "holder of lease 'lease-2'"),
        ("UPDATE audit SET body = x'ff' WHERE seq = 2", "audit entry 2"),
        ("UPDATE audit SET body = CAST('{}' AS BLOB) WHERE seq = 2", "audit entry 2"),
        ("UPDATE events SET at = '2026-01-01' WHERE seq = 2", "event 2"),
    ],
)
async def test_which_record_is_damaged_is_told(tmp_path: Path, damage: str, told: str) -> None:
    async with open_sqlite(tmp_path / "mooring.db") as store:
        for number in (1, 2, 3):
            one = lease(f"lease-{number}")
            await record(
                store.ledger, leases=(one,), holders=((one.id, holder()),), audit=(audit(),), events=(event(),)
            )
        assert await store.ledger.damaged() == []
        with closing(sqlite3.connect(tmp_path / "mooring.db", isolation_level=None)) as other:
            other.execute(damage)
        assert await store.ledger.damaged() == [f"the record of {told} is damaged; restore a backup"]


async def test_of_very_many_damaged_records_some_are_told(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "mooring.db") as store:
        await record(store.ledger, audit=tuple(audit() for _ in range(2 * _ledger.MOST_TOLD)))
        with closing(sqlite3.connect(tmp_path / "mooring.db", isolation_level=None)) as other:
            other.execute("UPDATE audit SET body = x''")
        assert len(await store.ledger.damaged()) == _ledger.MOST_TOLD + 1


async def test_what_is_out_of_bounds_is_one_error(tmp_path: Path) -> None:
    async with open_sqlite(tmp_path / "mooring.db") as store:
        with pytest.raises(InvalidConfig):
            await store.ledger.events(after=1 << 70)
        with pytest.raises(InvalidConfig):
            await store.ledger.leases(consumer=BAD)
