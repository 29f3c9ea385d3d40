"""Seals and opens secrets: AES-256-GCM, envelope by envelope (NIST SP 800-38D).

Every record has a data key of its own, wrapped under the master key; every field is sealed under the data key with the
record's id and the field's name bound to it as associated data, so that a blob moved elsewhere does not open.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mooring.errors import NoMasterKey, Tampered, WrongKey
from mooring.types import Sealed, Secret
from mooring.vault._keys import KEY_BYTES, MasterKey, fingerprint
from mooring.vault._ring import KeyRing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12


class Ready(NamedTuple):
    """A master key that has been fetched."""

    cipher: AESGCM
    check: bytes
    mac: hmac.HMAC
    """Under a key derived from it (RFC 5869 would expand it the same way)."""


class Vault:
    """Seals under the first of its master keys, opens under any of them."""

    def __init__(self, keys: Sequence[MasterKey] | Callable[[], Sequence[MasterKey]] | KeyRing) -> None:
        """Take the keys, or how to get them when the first secret is sealed or opened, or the ring that keeps them."""
        self.ring = keys if isinstance(keys, KeyRing) else None
        self._load = keys.load if isinstance(keys, KeyRing) else keys if callable(keys) else lambda: keys
        self._keys: tuple[MasterKey, ...] = ()
        self._ready: dict[str, Ready] = {}

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

    def reload(self) -> None:
        """Look at the source of the keys again: another process may have rotated them.

        A key that is not there any more still opens, for as long as this process knows it.
        """
        now = tuple(self._load())
        known = {key.id for key in now}
        for key in now:
            if key not in self._keys:  # new, or another one under a known id
                self._ready.pop(key.id, None)
        self._keys = (*now, *(key for key in self._keys if key.id not in known))

    def make_key(self) -> None:
        """Make the first master key, where that is possible. Nothing is sealed under it yet, so nothing may be sealed.

        Raises:
            NoMasterKey: it cannot be made.
        """
        self._keys = self.ring.make() if self.ring else self.keys

    def waits(self, key_id: str | None = None) -> bool:
        """Whether this key (the active one, if none is named) has to be fetched from the OS keyring first."""
        key = self._find(key_id) if key_id else self.keys[0]
        return key is not None and key.key is None and key.id not in self._ready

    def fetch(self, key_id: str | None = None) -> None:
        """Fetch a key; it may take as long as the OS keyring may (see `waits`)."""
        key = self._find(key_id) if key_id else self.keys[0]
        if key is not None:
            self._get(key)

    def check(self, key: MasterKey) -> bytes:
        """The key's fingerprint."""
        return self._get(key).check

    def seal(self, record: str, values: Mapping[str, Secret]) -> Sealed:
        """The values, sealed for this record and these field names."""
        active = self.keys[0]
        master, prefix = self._get(active), _part(record)
        data_key = os.urandom(KEY_BYTES)
        cipher = type(master.cipher)(data_key)
        return Sealed(
            key_id=active.id,
            check=master.check,
            wrapped=encrypt(master.cipher, data_key, _of_all(prefix, values)),
            fields={
                name: encrypt(cipher, value.reveal().encode(), prefix + _part(name)) for name, value in values.items()
            },
        )

    def open(self, record: str, sealed: Sealed) -> dict[str, Secret]:
        """What `seal` took.

        Raises:
            WrongKey: the master key at hand is not the one that sealed it.
            Tampered: it was altered, sealed for another record or field, or lost or gained a field.
        """
        master, prefix = self._master(sealed), _part(record)
        cipher = type(master.cipher)(decrypt(master.cipher, sealed.wrapped, _of_all(prefix, sealed.fields)))
        return {
            name: Secret(decrypt(cipher, blob, prefix + _part(name)).decode()) for name, blob in sealed.fields.items()
        }

    def rewrap(self, record: str, sealed: Sealed) -> Sealed:
        """The same, with its data key under the active master key. Raises as `open` does."""
        bound = _of_all(_part(record), sealed.fields)
        data_key = decrypt(self._master(sealed).cipher, sealed.wrapped, bound)
        active = self.keys[0]
        master = self._get(active)
        wrapped = encrypt(master.cipher, data_key, bound)
        return msgspec.structs.replace(sealed, key_id=active.id, check=master.check, wrapped=wrapped)

    def sign(self, purpose: str, message: bytes) -> tuple[str, bytes]:
        """The active master key's id, and HMAC-SHA-256 of the message under a key derived from it (RFC 2104)."""
        active = self.keys[0]
        return active.id, _signature(self._get(active), purpose, message)

    def signed(self, purpose: str, message: bytes, key_id: str, signature: bytes) -> bool:
        """Whether `sign` gave this.

        Raises:
            WrongKey: the master key of that id is not at hand.
        """
        key = self._find(key_id)
        if key is None:
            raise WrongKey(f"master key {key_id!r} is not at hand; add it to MOORING_MASTER_KEY")
        return hmac.compare_digest(_signature(self._get(key), purpose, message), signature)

    def mark(self, key_id: str | None, secret: Secret) -> str:
        """`key id:keyed hash`, by which a secret is recognised and nothing else is learned.

        Args:
            key_id: of the master key; the active one if None. One that is not at hand recognises nothing.
            secret: what to mark.
        """
        key = self.keys[0] if key_id is None else self._find(key_id)
        if key is None:
            return ""
        return f"{key.id}:{_signature(self._get(key), 'mark', secret.reveal().encode()).hex()}"

    def _master(self, sealed: Sealed) -> Ready:
        """The master key that sealed it."""
        key = self._find(sealed.key_id)
        if key is None:
            known = ", ".join(repr(one.id) for one in self.keys)
            raise WrongKey(
                f"the secret is sealed under master key {sealed.key_id!r}, but only {known} is at hand; "
                "add it to MOORING_MASTER_KEY"
            )
        master = self._get(key)
        if not secrets.compare_digest(master.check, sealed.check):
            raise WrongKey(
                f"master key {key.id!r} from {key.source} is not the key of that name that sealed the secret; "
                "provide the right one"
            )
        return master

    def _find(self, key_id: str) -> MasterKey | None:
        """The key of that id; where it is not known yet, another process may have made it."""
        for key in self._keys:
            if key.id == key_id:
                return key
        self.reload()
        for key in self._keys:
            if key.id == key_id:
                return key
        if self._keys:
            return None
        raise NoMasterKey(
            f"there is no master key, but this is sealed under {key_id!r}; "
            "restore its file, or set MOORING_MASTER_KEY to id:key"
        )

    def _get(self, key: MasterKey) -> Ready:
        found = self._ready.get(key.id)
        if found is None:
            raw = key.raw()
            mac = hmac.new(hmac.digest(raw, b"mooring signing key", "sha256"), digestmod="sha256")
            found = self._ready[key.id] = Ready(cipher_of(raw), fingerprint(raw), mac)
        return found


def _signature(key: Ready, purpose: str, message: bytes) -> bytes:
    mac = key.mac.copy()
    mac.update(_part(purpose) + message)
    return mac.digest()


def cipher_of(key: bytes) -> AESGCM:
    """AES-256-GCM under a key."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _part(text: str) -> bytes:
    """A part of the associated data, with its length, so that no two lists of parts give the same bytes."""
    raw = text.encode()
    return len(raw).to_bytes(4, "big") + raw


def _of_all(prefix: bytes, fields: Iterable[str]) -> bytes:
    """What is bound to the data key: the record and all its fields."""
    return prefix + b"".join(map(_part, sorted(fields)))


def encrypt(cipher: AESGCM, plain: bytes, bound: bytes) -> bytes:
    """A fresh nonce, and the ciphertext with its tag."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, bound)


def decrypt(cipher: AESGCM, blob: bytes, bound: bytes) -> bytes:
    """What `encrypt` took.

    Raises:
        Tampered: it is not as it was.
    """
    try:
        return cipher.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], bound)
    except Exception as error:
        from cryptography.exceptions import InvalidTag

        if not isinstance(error, InvalidTag | ValueError):
            raise
    raise Tampered("a sealed secret was altered or moved; restore the connector from a backup or register it again")
