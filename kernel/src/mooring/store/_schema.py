"""The store's tables, version by version."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import aiosqlite
import msgspec

from mooring.errors import StoreCorrupt, StoreTooNew, StoreUnavailable
from mooring.store._files import close_to_others
from mooring.types import Sealed

APPLICATION_ID: Final = 0x6D6F6F72  # "moor", in the file's header (sqlite.org/fileformat.html)
SEALED: Final = msgspec.msgpack.Decoder(Sealed)
OWN_WAIT_MS: Final = 5
"""How long a statement waits within SQLite, once the store is open; see `SqliteStore._patiently`."""

MIGRATIONS: Final = (
    """
    CREATE TABLE connectors (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        type TEXT NOT NULL,
        auth_method TEXT NOT NULL,
        resource_type TEXT,
        resource_id TEXT,
        settings TEXT NOT NULL,
        sealed BLOB,
        labels TEXT NOT NULL,
        description TEXT NOT NULL,
        owner TEXT NOT NULL,
        expires_at TEXT,
        expires_skew REAL NOT NULL,
        ttl REAL,
        allow_unnarrowed INTEGER NOT NULL,
        allow_long_lived INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        version INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX connectors_by_type ON connectors (type, name);
    """,
    """
    ALTER TABLE connectors ADD COLUMN key_id TEXT;
    UPDATE connectors SET key_id = sealed_under(sealed);
    CREATE INDEX connectors_by_key ON connectors (key_id);
    CREATE TABLE master_keys (
        id TEXT PRIMARY KEY,
        fingerprint BLOB NOT NULL,
        source TEXT NOT NULL,
        created_at TEXT NOT NULL,
        retired_at TEXT
    ) STRICT;
    """,
    """
    CREATE TABLE undo_log (
        id TEXT PRIMARY KEY,
        connector_id TEXT NOT NULL,
        step TEXT NOT NULL,
        due_at TEXT NOT NULL,
        attempts INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX undo_log_by_due ON undo_log (due_at);
    """,
    """
    CREATE TABLE leases (
        id TEXT PRIMARY KEY,
        connector_id TEXT NOT NULL,
        connector TEXT NOT NULL,
        connector_type TEXT NOT NULL,
        resource_type TEXT NOT NULL,
        resource_id TEXT,
        access TEXT NOT NULL,
        issued_at TEXT NOT NULL,
        expires_at TEXT,
        ttl REAL,
        narrowed INTEGER NOT NULL,
        revocation TEXT NOT NULL,
        state TEXT NOT NULL,
        undo TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        error TEXT NOT NULL
    ) STRICT;
    CREATE INDEX leases_by_connector ON leases (connector_id, state);
    CREATE INDEX leases_by_end ON leases (state, expires_at);
    CREATE TABLE holders (
        lease TEXT NOT NULL,
        consumer TEXT NOT NULL,
        first_at TEXT NOT NULL,
        last_at TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (lease, consumer)
    ) STRICT;
    CREATE INDEX holders_by_consumer ON holders (consumer);
    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY,
        body BLOB NOT NULL,
        digest BLOB NOT NULL
    ) STRICT;
    CREATE TABLE audit_seal (
        one INTEGER PRIMARY KEY,
        seq INTEGER NOT NULL,
        digest BLOB NOT NULL,
        key_id TEXT NOT NULL,
        signature BLOB NOT NULL
    ) STRICT;
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        event TEXT NOT NULL,
        connector_id TEXT NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    ALTER TABLE undo_log ADD COLUMN lease TEXT NOT NULL DEFAULT '';
    CREATE TABLE revision (one INTEGER PRIMARY KEY, number INTEGER NOT NULL) STRICT;
    INSERT INTO revision VALUES (1, random());
    CREATE TRIGGER added AFTER INSERT ON connectors BEGIN UPDATE revision SET number = random(); END;
    CREATE TRIGGER changed AFTER UPDATE ON connectors BEGIN UPDATE revision SET number = random(); END;
    CREATE TRIGGER deleted AFTER DELETE ON connectors BEGIN UPDATE revision SET number = random(); END;
    CREATE TRIGGER withdrawn AFTER UPDATE OF state ON leases
        WHEN new.state <> old.state AND new.state NOT IN ('active', 'expired')
        BEGIN UPDATE revision SET number = random(); END;
    CREATE TRIGGER parted AFTER UPDATE OF count ON holders WHEN new.count = 0
        BEGIN UPDATE revision SET number = random(); END;
    """,
    """
    CREATE TABLE looks (
        connector_id TEXT NOT NULL,
        version INTEGER NOT NULL,
        resource_type TEXT NOT NULL,
        unit TEXT NOT NULL,
        ids TEXT NOT NULL DEFAULT '*',
        at TEXT,
        count INTEGER NOT NULL DEFAULT 0,
        took REAL NOT NULL DEFAULT 0,
        failed_at TEXT,
        error TEXT NOT NULL DEFAULT '',
        message TEXT NOT NULL DEFAULT '',
        run INTEGER NOT NULL DEFAULT 0,
        begun INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (connector_id, resource_type, unit)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE findings (
        run INTEGER NOT NULL,
        id TEXT NOT NULL,
        resource TEXT NOT NULL,
        PRIMARY KEY (run, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER superseded AFTER UPDATE OF run, begun ON looks
        BEGIN DELETE FROM findings WHERE run IN (old.run, old.begun) AND run NOT IN (new.run, new.begun); END;
    CREATE TRIGGER unlooked AFTER DELETE ON looks
        BEGIN DELETE FROM findings WHERE run IN (old.run, old.begun); END;
    CREATE TRIGGER outdated AFTER UPDATE OF version ON connectors WHEN new.version <> old.version
        BEGIN DELETE FROM looks WHERE connector_id = old.id; END;
    CREATE TRIGGER unregistered AFTER DELETE ON connectors
        BEGIN DELETE FROM looks WHERE connector_id = old.id; END;
    """,
)
"""One script a schema version. A store of version n has run the first n; never edit one that was released."""


def schema() -> set[tuple[str, str]]:
    """The tables and indexes of the current schema."""
    with closing(sqlite3.connect(":memory:")) as empty:
        empty.create_function("sealed_under", 1, sealed_under)
        for script in MIGRATIONS:
            empty.executescript(script)
        return set(empty.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"))


def sealed_under(sealed: bytes | None) -> str | None:
    """The master key of a record, as its seal itself says; None where it cannot be read."""
    try:
        return None if sealed is None else SEALED.decode(sealed).key_id
    except (msgspec.MsgspecError, RecursionError):
        return None


async def configure(connection: aiosqlite.Connection, path: Path, *, read_only: bool) -> None:
    """Refuse what is not ours before the first change, then switch WAL on and migrate."""
    # in one statement, and so of one moment: another process may be migrating
    rows = await connection.execute_fetchall(
        "SELECT * FROM pragma_application_id, pragma_user_version, pragma_schema_version"
    )
    application, version, changes = next(iter(rows))
    if application != APPLICATION_ID and (application or version or changes):
        raise StoreCorrupt(
            f"{path} is a database of another program; it was left as it is; set MOORING_HOME to another folder"
        )
    if version > len(MIGRATIONS):
        raise StoreTooNew(
            f"the store {path} was written by a newer mooring (schema {version}, this one knows {len(MIGRATIONS)}); "
            "upgrade mooring"
        )
    if read_only:
        if version < len(MIGRATIONS):
            raise StoreUnavailable(f"the store {path} is of an older mooring and cannot be written; check its rights")
        return
    close_to_others(path)
    mode = await connection.execute_fetchall("PRAGMA journal_mode")
    if next(iter(mode))[0] != "wal":
        mode = await connection.execute_fetchall("PRAGMA journal_mode = WAL")
    if next(iter(mode))[0] != "wal":
        raise StoreUnavailable(
            f"the store {path} cannot use SQLite's WAL mode there; set MOORING_HOME to a folder on a local disk"
        )
    await connection.execute("PRAGMA synchronous = FULL")
    if version < len(MIGRATIONS):
        await connection.create_function("sealed_under", 1, sealed_under, deterministic=True)
        await _migrate(connection)
    await connection.execute(f"PRAGMA busy_timeout = {OWN_WAIT_MS}")


async def _migrate(connection: aiosqlite.Connection) -> None:
    """Run what is missing, all or nothing; of two processes at once the second finds it done.

    When it fails half-way the connection is closed, which rolls it back.
    """
    await connection.execute("BEGIN IMMEDIATE")
    version = await _pragma(connection, "user_version")
    for script in MIGRATIONS[version:]:
        for statement in script.split(";\n"):
            await connection.execute(statement)
    await connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    await connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    await connection.execute("COMMIT")


async def _pragma(connection: aiosqlite.Connection, name: str) -> int:
    rows = await connection.execute_fetchall(f"PRAGMA {name}")
    return int(next(iter(rows))[0])
