"""Master keys, and how they are written down."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from mooring.errors import NoMasterKey
from mooring.types import Secret, Struct
from mooring.vault import _keyring

KEY_BYTES = 32
KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
IN_KEYRING = "keyring"
"""Written in the place of a key that lies in the OS keyring, under the key's id."""
EXTERNAL = "external"
"""The id of a key that a system plugin serves."""


class MasterKey(Struct):
    """A key and the name under which records remember it."""

    id: str
    key: Secret | None
    """32 bytes in base64; None if it lies in the OS keyring."""
    source: str
    """Where it came from, for people."""

    def raw(self) -> bytes:
        """The 32 bytes.

        Raises:
            NoMasterKey: the OS keyring does not give it.
        """
        if self.key is not None:
            return base64.b64decode(self.key.reveal())
        raw = _decoded(_keyring.read(self.id))
        if raw is None:
            raise NoMasterKey(f"what the OS keyring holds for master key {self.id!r} is not 32 bytes in base64")
        return raw

    def exported(self) -> str:
        """The key in clear, wherever it lies, as `parse_keys` takes it; raises as `raw` does."""
        return f"{self.id}:{base64.b64encode(self.raw()).decode()}"

    def line(self) -> str:
        """How it is written down."""
        return f"{self.id}:{IN_KEYRING if self.key is None else self.key.reveal()}"


def fingerprint(raw: bytes) -> bytes:
    """What tells a wrong key from altered data, and nothing else about the key."""
    return hashlib.blake2b(b"mooring master key check", key=raw, digest_size=8).digest()


def parse_keys(text: Secret | str, source: str) -> tuple[MasterKey, ...]:
    """Master keys from `id:key`, separated by commas or lines.

    A key is 32 bytes in base64, or URL-safe base64, or the word `keyring`: then it lies in the OS keyring.

    Raises:
        NoMasterKey: malformed. Never shows the text, neither in its message nor in its frames.
    """
    found = _parsed(text, source)
    if isinstance(found, str):
        raise NoMasterKey(found)
    return found


def _parsed(text: Secret | str, source: str) -> tuple[MasterKey, ...] | str:
    """The keys, or what is wrong with them."""
    keys: dict[str, MasterKey] = {}
    plain = text.reveal() if isinstance(text, Secret) else text
    lines = (line for line in plain.splitlines() if not line.lstrip().startswith("#"))
    entries = (part.strip() for line in lines for part in line.split(","))
    for number, entry in enumerate(filter(None, entries), 1):
        name, colon, value = entry.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not KEY_ID.fullmatch(name) or name in keys:
            return f"master key {number} in {source} is not of the form id:key with an id of its own"
        if value == IN_KEYRING:
            keys[name] = MasterKey(id=name, key=None, source="the OS keyring")
        elif raw := _decoded(value):
            keys[name] = MasterKey(id=name, key=Secret(base64.b64encode(raw).decode()), source=source)
        else:  # the id is not said: it is the key, where somebody wrote key:id
            return f"master key {number} in {source} is not 32 bytes in base64; make one with: openssl rand -base64 32"
    return tuple(keys.values()) or f"{source} holds no master key; write it as id:key, a key being 32 bytes in base64"


def _decoded(text: str) -> bytes | None:
    """A key from base64, whose padding URL-safe forms often leave out (RFC 4648 section 3.2)."""
    plain = text.translate(str.maketrans("-_", "+/"))
    try:
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == KEY_BYTES else None
