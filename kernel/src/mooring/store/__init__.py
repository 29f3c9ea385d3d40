"""Connectors at rest: a port, SQLite behind it, and memory for tests."""

from mooring.store._memory import MemoryStore
from mooring.store._port import Connectors, KeyRecord, Portable, Rewrapped, Store, UndoEntry
from mooring.store._sqlite import SqliteStore, open_sqlite

__all__ = [
    "Connectors",
    "KeyRecord",
    "MemoryStore",
    "Portable",
    "Rewrapped",
    "SqliteStore",
    "Store",
    "UndoEntry",
    "open_sqlite",
]
