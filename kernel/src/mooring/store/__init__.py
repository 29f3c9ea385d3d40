"""Connectors at rest: a port, SQLite behind it, and memory for tests."""

from mooring.store._memory import MemoryStore
from mooring.store._port import Store
from mooring.store._sqlite import SqliteStore, open_sqlite

__all__ = ["MemoryStore", "SqliteStore", "Store", "open_sqlite"]
