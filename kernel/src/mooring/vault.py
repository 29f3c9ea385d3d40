"""Seals and opens secrets: AES-256-GCM, envelope by envelope (NIST SP 800-38D).

Every record has a data key of its own, wrapped under the master key; every field is sealed under the data key with the
record's id and the field's name bound to it as associated data, so that a blob moved elsewhere does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mooring.errors import NoMasterKey, Tampered, WrongKey
from mooring.types import Sealed, Secret, Struct

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
KEY_BYTES = 32
KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class MasterKey(Struct):
    """A key and the name under which records remember it."""

    id: str
    key: Secret
    """32 bytes in base64."""
    source: str
    """Where it came from, for `mooring doctor`."""

    def raw(self) -> bytes:
        """The 32 bytes."""
        return base64.b64decode(self.key.reveal())

    def check(self) -> bytes:
        """A fingerprint that tells a wrong key from altered data and nothing else about the key."""
        return hashlib.blake2b(b"mooring master key check", key=self.raw(), digest_size=8).digest()


class Vault:
    """Seals under the first of its master keys, opens under any of them."""

    def __init__(
        self,
        keys: Sequence[MasterKey] | Callable[[], Sequence[MasterKey]],
        make: Callable[[], Sequence[MasterKey]] | None = None,
    ) -> None:
        """Take the keys, or how to get them when the first secret is sealed or opened; and how to make a first one."""
        self._load = keys if callable(keys) else lambda: keys
        self._make = make
        self._keys: tuple[MasterKey, ...] = ()
        self._ciphers: dict[str, AESGCM] = {}

    @property
    def keys(self) -> tuple[MasterKey, ...]:
        """The master keys at hand; the first is active.

        Raises:
            NoMasterKey: there is none, or its source is malformed.
        """
        if not self.ready():
            raise NoMasterKey("there is no master key; restore its file, or set MOORING_MASTER_KEY to id:key")
        return self._keys

    def ready(self) -> bool:
        """Whether there is a master key.

        Raises:
            NoMasterKey: its source is malformed.
        """
        self._keys = self._keys or tuple(self._load())
        return bool(self._keys)

    def make_key(self) -> None:
        """Make the first master key, where that is possible. Nothing is sealed under it yet, so nothing may be sealed.

        Raises:
            NoMasterKey: it cannot be made.
        """
        self._keys = tuple(self._make()) if self._make else self.keys

    def seal(self, record: str, values: Mapping[str, Secret]) -> Sealed:
        """The values, sealed for this record and these field names."""
        active = self.keys[0]
        data_key = os.urandom(KEY_BYTES)
        cipher = _cipher(data_key)
        return Sealed(
            key_id=active.id,
            check=active.check(),
            wrapped=_encrypt(self._master(active), data_key, _bound(record, *sorted(values))),
            fields={
                name: _encrypt(cipher, value.reveal().encode(), _bound(record, name)) for name, value in values.items()
            },
        )

    def open(self, record: str, sealed: Sealed) -> dict[str, Secret]:
        """What `seal` took.

        Raises:
            WrongKey: the master key at hand is not the one that sealed it.
            Tampered: it was altered, sealed for another record or field, or lost or gained a field.
        """
        key = next((one for one in self.keys if one.id == sealed.key_id), None)
        if key is None:
            known = ", ".join(repr(one.id) for one in self.keys)
            raise WrongKey(
                f"the secret is sealed under master key {sealed.key_id!r}, but only {known} is at hand; "
                "add it to MOORING_MASTER_KEY"
            )
        if not secrets.compare_digest(key.check(), sealed.check):
            raise WrongKey(
                f"master key {key.id!r} from {key.source} is not the key of that name that sealed the secret; "
                "provide the right one"
            )
        cipher = _cipher(_decrypt(self._master(key), sealed.wrapped, _bound(record, *sorted(sealed.fields))))
        return {
            name: Secret(_decrypt(cipher, blob, _bound(record, name)).decode()) for name, blob in sealed.fields.items()
        }

    def _master(self, key: MasterKey) -> AESGCM:
        if key.id not in self._ciphers:
            self._ciphers[key.id] = _cipher(key.raw())
        return self._ciphers[key.id]


def _cipher(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _bound(*parts: str) -> bytes:
    """Associated data: the parts, each with its length, so that no two lists of parts give the same bytes."""
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)


def _encrypt(cipher: AESGCM, plain: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, bound)


def _decrypt(cipher: AESGCM, blob: bytes, bound: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], bound)
    except (InvalidTag, ValueError):
        pass
    raise Tampered("a sealed secret was altered or moved; restore the connector from a backup or register it again")


def parse_keys(text: str, source: str) -> tuple[MasterKey, ...]:
    """Master keys from `id:key`, separated by commas or lines; a key is 32 bytes in base64, or URL-safe base64.

    Raises:
        NoMasterKey: malformed. Never shows the text.
    """
    keys: dict[str, MasterKey] = {}
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    entries = (part.strip() for line in lines for part in line.split(","))
    for number, entry in enumerate(filter(None, entries), 1):
        name, colon, value = entry.partition(":")
        name = name.strip()
        if not colon or not KEY_ID.fullmatch(name) or name in keys:
            raise NoMasterKey(f"master key {number} in {source} is not of the form id:key with an id of its own")
        try:
            raw = base64.b64decode(_padded(value.strip().translate(str.maketrans("-_", "+/"))), validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != KEY_BYTES:  # the id is not said: it is the key, where somebody wrote key:id
            raise NoMasterKey(
                f"master key {number} in {source} is not 32 bytes in base64; make one with: openssl rand -base64 32"
            )
        keys[name] = MasterKey(id=name, key=Secret(base64.b64encode(raw).decode()), source=source)
    if not keys:
        raise NoMasterKey(f"{source} holds no master key; write it as id:key, a key being 32 bytes in base64")
    return tuple(keys.values())


def _padded(text: str) -> str:
    """Base64 with the padding that URL-safe forms often leave out (RFC 4648 section 3.2)."""
    return text + "=" * (-len(text) % 4)


def make_key_file(path: Path) -> tuple[MasterKey, ...]:
    """The master keys in a file, which is made with one new key if there is none; see `key_file`."""
    try:
        if not path.exists():
            _write_key_file(path)
        if keys := key_file(path):
            return keys
        reason = "it is a link that leads nowhere; remove it"
    except OSError as error:
        reason = f"{error.strerror}; check its rights and its folder"
    raise NoMasterKey(f"the master key file {path} cannot be used: {reason}")


def key_file(path: Path) -> tuple[MasterKey, ...]:
    """The master keys in a file that only its owner may read; none if there is no file.

    Raises:
        NoMasterKey: the file cannot be read, is malformed, or others may read it.
    """
    try:
        if not path.exists():
            return ()
        mode = stat.S_IMODE(path.stat().st_mode)
        if os.name == "posix" and mode & 0o077:
            reason = f"others can read it (mode {mode:04o}); run: chmod 600 {path}"
        else:
            return parse_keys(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        reason = f"{error.strerror}; check its rights and its folder"
    except UnicodeDecodeError:
        reason = "it is not text; restore it from a backup"
    raise NoMasterKey(f"the master key file {path} cannot be used: {reason}")  # outside: the error may quote the file


def _write_key_file(path: Path) -> None:
    """Written aside and linked into place: of two processes that start at once, both end up with the same key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(f"local-{secrets.token_hex(4)}:{base64.b64encode(os.urandom(KEY_BYTES)).decode()}\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
