"""What has happened: past tense, no secrets.

Events are for observers and may be dropped by a slow one; nothing that must not be lost is only an event.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from mooring.types import Access, Struct


class Event(Struct, tag_field="event"):
    """The base of every event. What has `took` began so long before `at`."""

    at: datetime


class ConnectorEvent(Event):
    """The base of events about one connector."""

    connector_id: str
    connector: str
    connector_type: str


class ConnectorRegistered(ConnectorEvent, tag=True):
    """A connector was stored."""


class ConnectorUpdated(ConnectorEvent, tag=True):
    """A connector was changed."""

    version: int


class ConnectorDeleted(ConnectorEvent, tag=True):
    """A connector was removed."""


class ConnectorVerified(ConnectorEvent, tag=True):
    """The vendor accepted a connector's credentials."""

    subject: str
    took: timedelta = timedelta(0)


class VerificationFailed(ConnectorEvent, tag=True):
    """The vendor did not accept a connector's credentials, or did not answer."""

    error: str
    message: str
    took: timedelta = timedelta(0)


class DiscoveryStarted(Event, tag=True):
    """Connectors are being asked what they reach."""

    connectors: int
    discovery: str = ""
    """Its id, which its other events bear too."""


class ResourceFound(ConnectorEvent, tag=True):
    """A connector reaches a resource that it did not reach at the look before.

    All of a unit's first look are new; those are published, and not written into the numbered log. A discovery of one
    resource, or by patterns, is no look.
    """

    resource_type: str
    resource_id: str


class ResourceGone(ConnectorEvent, tag=True):
    """A connector does not reach a resource any more that it reached at the look before."""

    resource_type: str
    resource_id: str


class MoreChanged(ConnectorEvent, tag=True):
    """Beyond the first 1,000 resources of a unit, which have events of their own, so many are new and gone."""

    resource_type: str
    unit: str
    found: int
    gone: int


class DiscoveryFailed(ConnectorEvent, tag=True):
    """A connector could not be asked, for one resource type and unit or at all."""

    resource_type: str | None
    unit: str
    error: str
    message: str
    discovery: str = ""
    took: timedelta = timedelta(0)
    calls: int = 0
    retries: int = 0
    waited: timedelta = timedelta(0)


class UnitDiscovered(ConnectorEvent, tag=True):
    """A connector has named everything of one resource type in one unit."""

    resource_type: str
    unit: str
    resources: int
    discovery: str = ""
    took: timedelta = timedelta(0)
    """Since the connector was asked: with opening its session."""
    calls: int = 0
    retries: int = 0
    waited: timedelta = timedelta(0)
    """For the limits, all calls together."""


class DiscoveryFinished(Event, tag=True):
    """All connectors have answered, or failed to."""

    connectors: int
    resources: int
    failures: int
    discovery: str = ""
    took: timedelta = timedelta(0)


class CredentialsIssued(ConnectorEvent, tag=True):
    """Credentials were made by the vendor and handed to a consumer."""

    resource_type: str
    resource_id: str | None
    access: Access
    consumer: str
    expires_at: datetime | None
    narrowed: bool
    lease: str = ""
    took: timedelta = timedelta(0)


class CredentialsRefreshed(ConnectorEvent, tag=True):
    """New credentials were made before those of another lease end."""

    resource_type: str
    resource_id: str | None
    lease: str
    before: str
    """The lease whose credentials they replace; those are good until they end."""
    expires_at: datetime | None
    took: timedelta = timedelta(0)


class RefreshFailed(ConnectorEvent, tag=True):
    """Credentials could not be made anew; those at hand are served until they end."""

    resource_type: str
    resource_id: str | None
    lease: str
    expires_at: datetime | None
    error: str
    message: str
    took: timedelta = timedelta(0)


class LeaseEvent(ConnectorEvent):
    """The base of what happens to a lease."""

    lease: str
    resource_type: str
    resource_id: str | None


class CredentialsExpired(LeaseEvent, tag=True):
    """The credentials of a lease have ended."""


class CredentialsRevoked(LeaseEvent, tag=True):
    """The credentials of a lease were taken back: the vendor does not accept them any more."""


class CredentialsReleased(LeaseEvent, tag=True):
    """The credentials of a lease are not handed out any more, but good until they end: nothing can take them back."""

    expires_at: datetime | None


class RevocationFailed(LeaseEvent, tag=True):
    """The credentials of a lease could not be taken back; it is tried again."""

    attempts: int
    error: str
    message: str


class BreakerOpened(Event, tag=True):
    """A vendor's endpoint did not answer several times in a row, and is not asked for a while."""

    endpoint: str
    failures: int
    until: datetime


class BreakerClosed(Event, tag=True):
    """A vendor's endpoint answers again."""

    endpoint: str


class IssueFailed(ConnectorEvent, tag=True):
    """Credentials were asked for and not had."""

    resource_type: str
    resource_id: str | None
    consumer: str
    error: str
    message: str
    took: timedelta = timedelta(0)


class KeyRotated(Event, tag=True):
    """Connectors were wrapped under another master key."""

    key_id: str
    rewrapped: int
    retired: int


class RemovalFinished(Event, tag=True):
    """Something that issuing had made at a vendor was removed there."""

    connector_id: str
    step: str
    """What it was, in JSON."""


class RemovalFailed(Event, tag=True):
    """Something that issuing had made at a vendor could not be removed; it is tried again later."""

    connector_id: str
    step: str
    attempts: int
    error: str
    message: str


class TaskFailed(Event, tag=True):
    """Something that ran beside the broker (a subscriber, a plugin's task) ended with an error."""

    task: str
    error: str


class Lagged(Struct):
    """Given to a subscriber that was too slow: so many events were dropped here."""

    missed: int
