"""Credentials that were issued and are still good: kept, shared, and made anew before they end."""

from mooring.cache._agenda import Due
from mooring.cache._cache import Cache, Key, Shelf
from mooring.cache._entry import Entry

__all__ = ["Cache", "Due", "Entry", "Key", "Shelf"]
