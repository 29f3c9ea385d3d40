"""Connectors at rest: a port, SQLite behind it, and memory for tests."""

from mooring.store._ledger import DAMAGE, FIRST_LINK, LOST_LINK, entry_in, link, seal_text
from mooring.store._memory import MemoryStore
from mooring.store._port import Connectors, Findings, KeyRecord, Ledger, Portable, Rewrapped, Store, UndoEntry
from mooring.store._sqlite import SqliteStore, open_sqlite

__all__ = [
    "DAMAGE",
    "FIRST_LINK",
    "LOST_LINK",
    "Connectors",
    "Findings",
    "KeyRecord",
    "Ledger",
    "MemoryStore",
    "Portable",
    "Rewrapped",
    "SqliteStore",
    "Store",
    "UndoEntry",
    "entry_in",
    "link",
    "open_sqlite",
    "seal_text",
]
