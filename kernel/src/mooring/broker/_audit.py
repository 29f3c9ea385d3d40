"""The audit log, read: is it whole, and what does it say?"""

from __future__ import annotations

import hmac
from collections.abc import AsyncGenerator

from mooring.broker._books import PURPOSE
from mooring.broker._desk import Desk
from mooring.errors import VaultError
from mooring.records import Audited, AuditEntry, Sealing
from mooring.store import DAMAGE, FIRST_LINK, LOST_LINK, entry_in, link, seal_text
from mooring.types import Secret, Struct

PAGE = 1000
MOST_PROBLEMS = 100
"""So many are told."""


class AuditReport(Struct):
    """Whether the audit log is as it was written."""

    entries: int
    digest: str
    """Of the last entry, in hex. Who keeps it elsewhere can prove later that nothing before was changed."""
    problems: tuple[str, ...] = ()
    """One sentence each; none if it is whole."""


class AuditLine(Struct):
    """An entry of the audit log, with its number."""

    seq: int
    entry: AuditEntry


async def read(desk: Desk, *, after: int = 0) -> AsyncGenerator[AuditLine, None]:
    """The entries with greater numbers, in order; those that are damaged are left to `verify`."""
    async for one in _links(desk, after):
        try:
            entry = entry_in(one.body)
        except DAMAGE:
            continue
        yield AuditLine(seq=one.seq, entry=entry)


async def verify(desk: Desk, *, expected: str | None = None) -> AuditReport:
    """Go through the chain from its first link to its signed end.

    Args:
        desk: the rooms.
        expected: a digest that was told before; it must be one of the chain's.
    """
    seq, digest, problems, known = 0, FIRST_LINK, list[str](), expected is None
    while True:
        async for one in _links(desk, seq):
            if one.seq != seq + 1:
                problems.append(f"entries {seq + 1} to {one.seq - 1} are missing")
            if hmac.compare_digest(link(LOST_LINK, one.body), one.digest):
                problems.append(f"when entry {one.seq} was written, no good signature vouched for those before")
            elif not hmac.compare_digest(link(digest, one.body), one.digest):
                problems.append(f"entry {one.seq} is not as it was written, or does not follow entry {seq}")
            seq, digest = one.seq, one.digest
            known = known or hmac.compare_digest(digest.hex(), expected or "")
            if len(problems) > MOST_PROBLEMS:
                return AuditReport(entries=seq, digest=digest.hex(), problems=(*problems, "and more"))
        sealing = await desk.books.ledger.sealing()
        if sealing is None or sealing.seq <= seq or not await desk.books.ledger.audited(after=seq, most=1):
            break  # else others have written meanwhile
    problems += await _end(desk, sealing, seq, digest)
    if not known:
        problems.append("no entry has the digest that was expected; entries were removed from the end, or all replaced")
    return AuditReport(entries=seq, digest=digest.hex(), problems=tuple(problems))


async def trace(desk: Desk, secret: Secret) -> list[AuditLine]:
    """The hand-outs of a secret that has turned up somewhere."""
    found: list[AuditLine] = []
    signatures: dict[str, str] = {}
    async for line in read(desk):
        for mark in line.entry.marks.values():
            key_id, _, _ = mark.partition(":")
            if key_id not in signatures:
                await desk.fetch(key_id)
                signatures[key_id] = desk.vault.mark(key_id, secret)
            if hmac.compare_digest(mark.encode(), signatures[key_id].encode()):
                found.append(line)
                break
    return found


async def _links(desk: Desk, after: int) -> AsyncGenerator[Audited, None]:
    while page := await desk.books.ledger.audited(after=after, most=PAGE):
        for one in page:
            yield one
        after = page[-1].seq


async def _end(desk: Desk, sealing: Sealing | None, seq: int, digest: bytes) -> list[str]:
    """What is wrong with the signed end of the chain."""
    if sealing is None:
        return ["the end of the log is not signed"] if seq or await desk.books.ledger.leases() else []
    if (sealing.seq, sealing.digest) != (seq, digest):
        return [f"the log ends with entry {seq}, but entry {sealing.seq} was signed as its end"]
    if not sealing.key_id:
        return ["the end of the log was written without a master key, and is not signed"]
    try:
        await desk.fetch(sealing.key_id)
        good = desk.vault.signed(PURPOSE, seal_text(seq, digest), sealing.key_id, sealing.signature)
    except VaultError as error:
        return [f"the signature of its end cannot be checked: {error.message}"]
    return [] if good else ["the signature of its end is not ours"]
