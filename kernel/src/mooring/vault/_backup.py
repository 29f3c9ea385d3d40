r"""A backup: a stream of bytes, sealed in chunks, so that its size does not matter.

    "mooring backup 1\n" | length, header | (length, chunk)...

Lengths are 4 bytes, big-endian. The header is msgpack: what the backup says of itself, and a data key sealed for it.
Each chunk is AES-256-GCM under that key; its number, and whether it is the last, are bound to it: a backup that was
cut, extended or rearranged does not open.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from mooring.errors import StoreCorrupt, Tampered
from mooring.types import Sealed, Secret, Struct
from mooring.vault._keys import KEY_BYTES
from mooring.vault._vault import Vault, cipher_of, decrypt, encrypt

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"mooring backup 1\n"
CHUNK_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 16
OVERHEAD_BYTES = 28
"""Nonce and tag of a chunk."""


class BackupNote(Struct):
    """What a backup says of itself; sealed with it, so that it can be believed once the backup opens."""

    created_at: datetime
    connectors: int
    version: str
    """Of the mooring that wrote it."""


class Header(Struct):
    """The beginning of a backup."""

    note: BackupNote
    sealed: Sealed


def write_backup(vault: Vault, note: BackupNote, source: BinaryIO, sink: BinaryIO) -> None:
    """Seal everything that the source holds.

    Raises:
        NoMasterKey: there is no key to seal it under.
    """
    data_key = os.urandom(KEY_BYTES)
    key = Secret(base64.b64encode(data_key).decode())
    header = msgspec.msgpack.encode(Header(note=note, sealed=vault.seal(_record(note), {"key": key})))
    sink.write(MAGIC)
    _write(sink, header)
    cipher, number, chunk = cipher_of(data_key), 0, source.read(CHUNK_BYTES)
    while True:
        following = source.read(CHUNK_BYTES)
        _write(sink, encrypt(cipher, chunk, _bound(number, last=not following)))
        if not following:
            return
        number, chunk = number + 1, following


def read_backup(vault: Vault, source: BinaryIO, name: str) -> tuple[BackupNote, Iterator[bytes]]:
    """What the backup says of itself, and what was sealed, chunk by chunk.

    Raises:
        StoreCorrupt: it is not a backup, or was cut or altered; while it is iterated too.
        NoMasterKey, WrongKey: the master key that sealed it is not at hand.
    """
    try:
        if source.read(len(MAGIC)) != MAGIC:
            raise ValueError
        header = msgspec.msgpack.decode(_read(source, MAX_HEADER_BYTES), type=Header)
    except (ValueError, msgspec.MsgspecError):
        header = None
    if header is None:
        raise StoreCorrupt(f"{name} is not a mooring backup, or its beginning is damaged; choose another file")
    try:
        key = vault.open(_record(header.note), header.sealed).get("key", Secret(""))
        cipher = cipher_of(base64.b64decode(key.reveal()))
    except (Tampered, ValueError):
        raise _damaged(name) from None
    return header.note, _chunks(source, name, cipher)


def _chunks(source: BinaryIO, name: str, cipher: AESGCM) -> Iterator[bytes]:
    number, more = 0, True
    while more:
        try:
            chunk = _read(source, CHUNK_BYTES + OVERHEAD_BYTES)
            more = bool(source.read(1))
            if more:
                source.seek(-1, os.SEEK_CUR)
            yield decrypt(cipher, chunk, _bound(number, last=not more))
        except (Tampered, ValueError):
            raise _damaged(name) from None
        number += 1


def _damaged(name: str) -> StoreCorrupt:
    return StoreCorrupt(f"the backup {name} was cut or altered; choose another one")


def _record(note: BackupNote) -> str:
    return f"mooring backup {msgspec.json.encode(note).decode()}"


def _bound(number: int, *, last: bool) -> bytes:
    return number.to_bytes(8, "big") + bytes([last])


def _write(sink: BinaryIO, part: bytes) -> None:
    sink.write(len(part).to_bytes(4, "big"))
    sink.write(part)


def _read(source: BinaryIO, limit: int) -> bytes:
    length = int.from_bytes(source.read(4), "big")
    part = source.read(length) if length <= limit else b""
    if not part or len(part) != length:
        raise ValueError("cut")
    return part
