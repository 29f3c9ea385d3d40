"""Connectors at rest: a port, SQLite behind it, and memory for tests."""

from mooring.store._ledger import FIRST_LINK, link, seal_text
from mooring.store._memory import MemoryStore
from mooring.store._port import Connectors, Findings, KeyRecord, Ledger, Portable, Rewrapped, Store, UndoEntry
from mooring.store._sqlite import SqliteStore, open_sqlite

__all__ = [
    "FIRST_LINK",
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
    "link",
    "open_sqlite",
    "seal_text",
]
