"""Every error that mooring raises, as one tree.

Two axes, both of which a caller can ask: whose fault it is (the branch) and whether the same call may succeed later
(`retryable`, `retry_after`):

    MooringError
    |- ConfigError            the caller must change something
    |   |- UnknownConnector, UnknownLease, UnknownDocument, UnknownConnectorType, UnknownAuthMethod,
    |   |- UnsupportedResource
    |   |- InvalidConfig      names the field, never its value
    |   |- NameTaken, InUse, NothingToLift, NotPermitted, NotNarrowed, LongLived, ConnectorExpired,
    |   |- BrokerClosed
    |- PluginError            the plugin's author must change something
    |   |- PluginConflict, BrokenPlugin
    |- VendorError            the other side said no, or nothing
    |   |- AuthFailed, AccessDenied, ResourceNotFound, Rejected
    |   `- retryable: Throttled, Unreachable, Overdue
    |- StoreError             StoreConflict, StoreCorrupt, RecordDamaged, StoreTooNew,
    |                          StoreUnavailable
    `- VaultError             NoMasterKey, WrongKey, KeyRetired, Tampered

A message is one sentence: what is wrong, which name, and what to do. It never holds a secret or the value of a field.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta


class MooringError(Exception):
    """The root of the tree.

    `where` says what was being done when it was raised: any of the keys `connector`, `type`, `verb`, `resource`.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.where: dict[str, str] = {}

    def stamp(self, **where: str | None) -> Self:
        """Add where it happened; what an inner room has said already stands."""
        self.where = {key: value for key, value in where.items() if value is not None} | self.where
        return self


class ConfigError(MooringError):
    """Raised when the caller must change something: a name, a field, a request."""


class UnknownConnector(ConfigError):
    """Raised when no connector has the given name or id."""


class UnknownLease(ConfigError):
    """Raised when no lease has the given id."""


class UnknownDocument(ConfigError):
    """Raised when no secret, or other named record, has the given name."""


class InUse(ConfigError):
    """Raised when what is to be deleted is used by something else. The message names what uses it."""


class UnknownConnectorType(ConfigError):
    """Raised when no installed plugin serves the given connector type."""


class UnknownAuthMethod(ConfigError):
    """Raised when a connector type has no auth method of the given name."""


class UnsupportedResource(ConfigError):
    """Raised when a connector, or its type, does not reach the given resource type or resource."""


class InvalidConfig(ConfigError):
    """Raised when a value is missing, malformed or unexpected. Names the field, never the value."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class NameTaken(ConfigError):
    """Raised when a connector, or another record of that kind, of that name exists already."""


class NothingToLift(ConfigError):
    """Raised when the local machine holds no configuration that could be lifted into a connector."""


class NotPermitted(ConfigError):
    """Raised when an auth method must be switched on first (implicit authentication is off unless configured)."""


class NotNarrowed(ConfigError):
    """Raised when credentials cannot be confined to the resource and the connector does not allow wider ones."""


class LongLived(ConfigError):
    """Raised when only credentials without an end could be handed out and the connector does not allow it."""


class ConnectorExpired(ConfigError):
    """Raised when the connector's own credentials have passed their `expires_at`."""


class BrokerClosed(ConfigError):
    """Raised when a broker is used after its context was left, or in a child process that was forked from its own."""


class PluginError(MooringError):
    """Raised when a plugin's author must change something."""


class PluginConflict(PluginError):
    """Raised when two plugins claim one name. The message names both distributions."""


class BrokenPlugin(PluginError):
    """Raised when a plugin fails to import, breaks the contract or answers with something that is not in it."""


class VendorError(MooringError):
    """Raised when the other side said no, or nothing."""


class AuthFailed(VendorError):
    """Raised when the vendor does not accept the connector's credentials."""


class AccessDenied(VendorError):
    """Raised when the credentials are good, but not for this."""


class ResourceNotFound(VendorError):
    """Raised when the resource does not exist, or is not visible to the connector."""


class Rejected(VendorError):
    """Raised when the vendor refused a request for a reason of its own that no other class covers."""


class Throttled(VendorError):
    """Raised when the vendor asks for fewer calls. `retry_after` says when, if the vendor did."""

    retryable = True


class Unreachable(VendorError):
    """Raised when no answer came: DNS, connection, TLS, or a server error.

    `asked` is False where the vendor was left alone, since it has not answered several times in a row.
    """

    retryable = True
    asked = True


class Overdue(VendorError):
    """Raised when a budget of time ran out."""

    retryable = True


class StoreError(MooringError):
    """Raised when connectors at rest cannot be read or written."""


class StoreConflict(StoreError):
    """Raised when somebody else changed the connector since it was read. Read it again, then update."""


class StoreCorrupt(StoreError):
    """Raised when the store's file is damaged or is not a mooring store. It is left untouched."""


class RecordDamaged(StoreError):
    """Raised when one record of the store cannot be read; the others can.

    `id`, `name` and `type` are the connector's, as far as they can be read themselves.
    """

    def __init__(self, message: str, *, id: str = "", name: str = "", type: str = "") -> None:
        super().__init__(message)
        self.id = id
        self.name = name
        self.type = type


class StoreTooNew(StoreError):
    """Raised when a newer mooring wrote the store. It is left untouched."""


class StoreUnavailable(StoreError):
    """Raised when the store's file cannot be opened, locked or written, or lies where SQLite's WAL is unsafe."""


class VaultError(MooringError):
    """Raised when a secret cannot be sealed or opened."""


class NoMasterKey(VaultError):
    """Raised when there is no usable master key, or its source is malformed or readable by others."""


class WrongKey(VaultError):
    """Raised when the master key at hand is not the one that sealed the secret."""


class KeyRetired(VaultError):
    """Raised when something was sealed under a master key that a rotation has retired."""


class Tampered(VaultError):
    """Raised when a sealed secret was altered, or moved to another record or field."""


SHOWN = 20
"""How many known names a message lists at most."""


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them.

    >>> suggest("aws-rool", ["iam-role", "aws-role"])
    "did you mean 'aws-role'?"
    >>> suggest("x", ["docker", "aws"])
    'known: aws, docker'
    >>> suggest("x", [])
    'there are none'
    """
    names = sorted(known)
    if near := get_close_matches(name[:128], names, n=1):
        return f"did you mean {near[0]!r}?"
    if not names:
        return "there are none"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "known: " + ", ".join(names[:SHOWN]) + more
