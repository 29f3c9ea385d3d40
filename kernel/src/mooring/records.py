"""What is written down: leases, the audit log, the numbered event log, and looks at what connectors reach."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec

from mooring.types import Access, Struct

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""Aware; in UTC where it is ours."""

Revocation = Literal["real", "role-wide", "none"]
"""What taking credentials back means where they came from.

`real`: they, and only they, stop working. `role-wide`: only together with all others of the same role. `none`: they
work until they end.
"""

LeaseState = Literal["active", "released", "revoking", "revoked", "irrevocable", "expired"]
"""`released`: not handed out any more, but good until it ends. `revoking`: to be revoked, tried again until it is.
`irrevocable`: it could not be revoked; good until it ends, and somebody has to look.
"""

LIVE: tuple[LeaseState, ...] = ("active", "released", "revoking", "irrevocable")
"""The states in which the credentials may still work."""


class Holder(Struct):
    """A consumer that was handed the credentials of a lease."""

    consumer: str
    first_at: Instant
    last_at: Instant
    count: int = 1
    """How many times; repeats are written within a second."""


class Lease(Struct):
    """The record of credentials that were handed out."""

    id: str
    connector_id: str
    connector: str
    """Its name then."""
    connector_type: str
    resource_type: str
    resource_id: str | None
    access: Access
    issued_at: Instant
    expires_at: Instant | None
    """None: they do not end by themselves."""
    narrowed: bool
    revocation: Revocation
    ttl: timedelta | None = None
    """For how long they were asked for; None: nobody had a choice."""
    state: LeaseState = "active"
    holders: tuple[Holder, ...] = ()
    undo: tuple[str, ...] = ()
    """The entries of the undo log whose undoing revokes it."""
    attempts: int = 0
    """How often revoking it has failed."""
    error: str = ""
    """Why it failed last, in one line."""


class AuditEntry(Struct):
    """One line of the audit log: who did what, to what, and with what result."""

    at: Instant
    action: str
    """Such as `issue`, `register`, `revoke`."""
    consumer: str
    """For whom credentials were asked; else who acted."""
    outcome: str
    """`ok`, or the name of the error."""
    connector_id: str = ""
    connector: str = ""
    resource_type: str = ""
    resource_id: str | None = None
    access: str = ""
    lease: str = ""
    count: int = 1
    by: str = ""
    """Who acted: the user and host of the process. A consumer is what that one says it is."""
    detail: str = ""
    """How, where there is more than one way, such as `role-wide`."""
    marks: Mapping[str, str] = {}
    """Of each secret that was handed out, `key id:keyed hash` by its field: found again only by who has both."""


class Sealing(Struct):
    """The last link of the audit chain, signed: what is cut off at its end is noticed."""

    seq: int
    digest: bytes
    key_id: str
    signature: bytes


class Audited(Struct):
    """An audit entry as it is stored, linked to the one before."""

    seq: int
    body: bytes
    """JSON, as it was hashed."""
    digest: bytes
    """SHA-256 of the digest before and the body."""


class Logged(Struct):
    """An event in the numbered event log."""

    seq: int
    at: Instant
    event: str
    """Its name, such as `CredentialsIssued`."""
    connector_id: str
    body: dict[str, Any]
    """Its fields."""


class Entries(Struct):
    """What one caller has to write, all of it or nothing."""

    leases: tuple[Lease, ...] = ()
    """New or changed; without holders. One that is revoked or expired does not change any more."""
    holders: tuple[tuple[str, Holder], ...] = ()
    """By lease, which must be active; `count` is added to what is stored."""
    uses: tuple[tuple[str, Holder], ...] = ()
    """The same of hand-outs that were made; dropped where the lease is known no more, or taken from that consumer."""
    gone: tuple[tuple[str, str], ...] = ()
    """Consumers that are holders of a lease no more."""
    audit: tuple[AuditEntry, ...] = ()
    events: tuple[Logged, ...] = ()
    """Their numbers are given when they are written."""


class Look(Struct):
    """One connector's unit of one resource type, and what became of asking it; of type "" the connector itself."""

    connector_id: str
    version: int
    """The connector's; as it was before it may have reached something else."""
    resource_type: str = ""
    unit: str = ""
    ids: str = "*"
    """A pattern of the ids that there may be, see `Unit.ids`."""
    at: datetime | None = None
    """When it last named all it has; None if it never did."""
    count: int = 0
    took: timedelta = timedelta(0)
    failed_at: datetime | None = None
    """When it failed, if that was after it named all."""
    error: str = ""
    """With which error."""
    message: str = ""

    @property
    def tried_at(self) -> datetime | None:
        """When it last answered or failed."""
        return self.failed_at or self.at


class Change(Struct):
    """The ids of what is new in a unit, and of what is gone, since the look before; those beyond are counted."""

    found: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    more_found: int = 0
    more_gone: int = 0
