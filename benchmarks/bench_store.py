"""Connectors at rest: lists and point reads among 10,000, registers from ten processes, sealing and opening."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import aiosqlite
import anyio
import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import mooring
from measure import Figure
from mooring.assembly import Settings
from mooring.store import open_sqlite
from mooring.testing import example
from mooring.types import Connector, Sealed, Secret
from mooring.vault import Vault, parse_keys

CONNECTORS = 10_000
TEAMS = 10
REGISTERS = 1_000
PROCESSES = 10
ROUNDS = 21
POINT_READS = 200
SEALS = 200
RAW_LIST = """
SELECT id, name, type, auth_method, settings, sealed, labels, created_at, updated_at FROM connectors
WHERE type = ? AND EXISTS (SELECT 1 FROM json_each(labels) AS label WHERE label.key = ? AND label.value = ?)
ORDER BY name
"""
FIELDS = {"password": Secret("p" * 40), "token": Secret("t" * 40)}


def figures() -> Iterator[Figure]:
    """Medians of ratios, each round beside its yardstick."""
    with tempfile.TemporaryDirectory() as home, _one_processor():
        found = anyio.run(_reads, Path(home))
    yield from found
    yield _registers()
    yield from _sealing()


@contextmanager
def _one_processor() -> Iterator[None]:
    """Every thread that is started meanwhile shares one processor.

    Both sides hand each read to a thread. Where the system puts that thread, beside the event loop or on another
    processor that has to wake up, changes a read's time fourfold, and stays as it is for the whole run.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def _reads(home: Path) -> list[Figure]:
    settings = Settings(home=home)
    async with mooring.open_broker(settings=settings, plugins=[example], system_plugins=[]) as broker:
        await _fill(broker, settings.store_file)
        raw = sqlite3.connect(settings.store_file)
        async with aiosqlite.connect(settings.store_file, isolation_level=None) as plain:

            async def ours() -> None:
                found = await broker.list(type="example", labels={"team": "3"})
                assert len(found) == CONNECTORS // TEAMS

            async def theirs() -> None:
                rows = raw.execute(RAW_LIST, ("example", "team", "3")).fetchall()
                assert len([_decoded(row) for row in rows]) == CONNECTORS // TEAMS

            async def get() -> None:
                await broker.get("connector-5000")

            async def point() -> None:
                await plain.execute_fetchall("SELECT * FROM connectors WHERE name = ?", ("connector-5000",))

            lists = await _in_turn(ours, theirs, calls=1)
            gets = await _in_turn(get, point, calls=POINT_READS)
        raw.close()
    return [
        Figure(
            "list_of_10000",
            lists[0],
            f"{lists[1] * 1e3:.1f} ms to {lists[2] * 1e3:.1f} ms for {CONNECTORS // TEAMS} rows",
        ),
        Figure("get_of_10000", gets[0], f"{gets[1] * 1e6:.0f} us to {gets[2] * 1e6:.0f} us"),
    ]


async def _fill(broker: mooring.Broker, path: Path) -> None:
    """One connector is registered; the others are copies of it, written in one transaction."""
    labels = {"team": "0", "stage": "production"}
    one = await broker.register("connector-0", type="example", config={"user": "u"}, labels=labels)
    with sqlite3.connect(path) as raw:
        columns = [row[1] for row in raw.execute("PRAGMA table_info(connectors)")]
        rest = ", ".join(name for name in columns if name not in ("id", "name", "labels"))
        raw.executemany(
            f"INSERT INTO connectors (id, name, labels, {rest}) SELECT ?, ?, ?, {rest} FROM connectors WHERE id = ?",
            [
                (f"id-{number}", f"connector-{number}", f'{{"team":"{number % TEAMS}","stage":"production"}}', one.id)
                for number in range(1, CONNECTORS)
            ],
        )
    raw.close()


def _decoded(row: tuple[Any, ...]) -> dict[str, Any]:
    """What anybody who reads such a row has to do."""
    return {
        "id": row[0],
        "name": row[1],
        "type": row[2],
        "auth_method": row[3],
        "settings": msgspec.json.decode(row[4]),
        "sealed": msgspec.msgpack.decode(row[5], type=Sealed),
        "labels": msgspec.json.decode(row[6], type=dict[str, str]),
        "created_at": datetime.fromisoformat(row[7]),
        "updated_at": datetime.fromisoformat(row[8]),
    }


async def _in_turn(
    ours: Callable[[], Awaitable[None]], theirs: Callable[[], Awaitable[None]], *, calls: int
) -> tuple[float, float, float]:
    rounds = [(await _time(ours, calls), await _time(theirs, calls)) for _ in range(ROUNDS)]
    return median(a / b for a, b in rounds), median(a for a, _ in rounds), median(b for _, b in rounds)


async def _time(call: Callable[[], Awaitable[None]], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        await call()
    return (time.perf_counter() - begin) / calls


def _registers() -> Figure:
    """The time of ten processes at once to that of one, for the same number of registers."""
    many = _register_in(PROCESSES)
    one = _register_in(1)
    return Figure(
        "register_1000",
        many / one,
        f"{REGISTERS / many:.0f} a second from ten processes, {REGISTERS / one:.0f} from one",
    )


def _register_in(processes: int) -> float:
    """Seconds from when all are ready until the last is done; each failure ends the benchmark."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, str(Path(__file__).with_name("registrar.py")), home, str(REGISTERS // processes)]
        children = [
            subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for number in range(processes)
        ]
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        begin = time.perf_counter()
        for child in children:
            assert child.stdin is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
        failed = [child.wait() for child in children if child.wait()]
        took = time.perf_counter() - begin
        for child in children:
            child.communicate()
        stored = len(anyio.run(_stored, Path(home) / "mooring.db"))
    if failed or stored != REGISTERS:
        raise SystemExit(f"{len(failed)} of {processes} processes failed; {stored} of {REGISTERS} connectors are there")
    return took


async def _stored(path: Path) -> list[Connector]:
    async with open_sqlite(path) as store:
        return await store.list()


def _sealing() -> Iterator[Figure]:
    """A record of two secrets, to as many AES-GCM calls (and keys, and nonces) as its envelope needs."""
    vault = Vault(parse_keys("k:" + "A" * 43, "the benchmark"))
    sealed = vault.seal("record", FIELDS)
    plain = [secret.reveal().encode() for secret in FIELDS.values()]
    master, data_key = AESGCM(os.urandom(32)), os.urandom(32)
    cipher, nonce, bound = AESGCM(data_key), os.urandom(12), b"bound"
    wrapped, blobs = master.encrypt(nonce, data_key, bound), [cipher.encrypt(nonce, text, bound) for text in plain]

    def raw_seal() -> None:
        fresh = os.urandom(32)
        master.encrypt(os.urandom(12), fresh, bound)
        one = AESGCM(fresh)
        for text in plain:
            one.encrypt(os.urandom(12), text, bound)

    def raw_open() -> None:
        one = AESGCM(master.decrypt(nonce, wrapped, bound))
        for blob in blobs:
            one.decrypt(nonce, blob, bound)

    for name, ours, theirs in (
        ("seal", lambda: vault.seal("record", FIELDS), raw_seal),
        ("open", lambda: vault.open("record", sealed), raw_open),
    ):
        rounds = [(_loop(ours), _loop(theirs)) for _ in range(ROUNDS)]
        mine, raw = median(a for a, _ in rounds), median(b for _, b in rounds)
        yield Figure(name, median(a / b for a, b in rounds), f"{mine * 1e6:.1f} us to {raw * 1e6:.1f} us")


def _loop(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    for _ in range(SEALS):
        call()
    return (time.perf_counter() - begin) / SEALS
