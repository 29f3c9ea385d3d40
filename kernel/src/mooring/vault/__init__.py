"""Seals and opens secrets, and keeps the master keys: in a file, in the OS keyring, or as the host gives them."""

from mooring.vault._backup import BackupNote, read_backup, write_backup
from mooring.vault._keys import EXTERNAL, KEY_BYTES, MasterKey, fingerprint, parse_keys
from mooring.vault._ring import KeyRing, Place, key_file
from mooring.vault._vault import NONCE_BYTES, Vault

__all__ = [
    "EXTERNAL",
    "KEY_BYTES",
    "NONCE_BYTES",
    "BackupNote",
    "KeyRing",
    "MasterKey",
    "Place",
    "Vault",
    "fingerprint",
    "key_file",
    "parse_keys",
    "read_backup",
    "write_backup",
]
