"""What a caller takes away: the credential shapes that vendors share.

A plugin adds kinds of its own by subclassing `Credentials` (with a `tag`) and naming them in
`ConnectorType.credentials`. The plugin that owns a protocol makes clients of its kind, whoever issued it.
"""

from __future__ import annotations

from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any, ClassVar

import msgspec

from mooring.types import Access, Secret, Struct


class Credentials(Struct):
    """The base of every credential kind."""

    expires_at: datetime | None
    """When they really end, as the vendor says; None means that they are long-lived."""
    narrowed: bool
    """Whether they are confined to the resource that was asked for."""
    clamped: tuple[str, ...] = ()
    """What was given less, or more, than was asked for; one sentence each."""
    traced: ClassVar[tuple[str, ...]] = ()
    """Fields that are no secrets, but by which a vendor's records name the credentials; `audit trace` finds them."""


class BearerToken(Credentials, kw_only=True, tag="bearer-token"):
    """An OAuth 2.0 bearer token (RFC 6750)."""

    token: Secret


class KubernetesAccess(Credentials, kw_only=True, tag="kubernetes-access"):
    """The way into one Kubernetes cluster: a token, or a client certificate."""

    server: str
    """The API server's URL."""
    cluster: str
    """A name for the cluster, for contexts in a kubeconfig."""
    certificate_authority: str | None = None
    """PEM; None means the system's trust store."""
    token: Secret | None = None
    client_certificate: str | None = None
    client_key: Secret | None = None
    namespace: str | None = None
    tls_server_name: str | None = None
    insecure_skip_tls_verify: bool = False
    proxy_url: str | None = None
    """The HTTP proxy on the way; None means what the environment says."""


class RegistryLogin(Credentials, kw_only=True, tag="registry-login"):
    """A user and password for one container registry."""

    registry: str
    """Host, with the port if it has one, as image references begin."""
    username: str
    password: Secret
    repository: str | None = None
    """The one repository that it is good for, if it is narrowed to one."""


SHARED: tuple[type[Credentials], ...] = (BearerToken, KubernetesAccess, RegistryLogin)


class Issued(Struct):
    """The reply to `issue`: the credentials, for whom and for what they are, and what became of the request."""

    connector_id: str
    connector: str
    connector_type: str
    resource_type: str
    resource_id: str | None
    access: Access
    consumer: str
    issued_at: datetime
    credentials: Credentials
    cached: bool = False
    lease: str = ""
    """The id of the record of this hand-out; the same for all who share the credentials."""

    @property
    def expires_at(self) -> datetime | None:
        """When the credentials really end."""
        return self.credentials.expires_at

    @property
    def narrowed(self) -> bool:
        """Whether they are confined to the resource that was asked for."""
        return self.credentials.narrowed

    @property
    def clamped(self) -> tuple[str, ...]:
        """What was given less, or more, than was asked for."""
        return self.credentials.clamped


def kind_of(credentials: Credentials | type[Credentials]) -> str:
    """The kind's tag, such as `registry-login`."""
    return str(credentials.__struct_config__.tag)


def reveal(credentials: Credentials) -> dict[str, Any]:
    """The credentials as plain values, secrets in the clear: for handing out, and for sealing."""
    return msgspec.to_builtins(credentials, enc_hook=_clear)  # type: ignore[no-any-return]


def restore(values: Any, kinds: tuple[type[Credentials], ...]) -> Credentials:
    """The inverse of `reveal`, for credentials of one of the kinds.

    Raises:
        ValueError: the values are of no such kind, or damaged. Never says them.
    """
    try:
        union: Any = reduce(or_, kinds)
        return msgspec.convert(values, union, dec_hook=_seal)  # type: ignore[no-any-return]
    except (msgspec.ValidationError, TypeError):
        pass
    raise ValueError("not credentials of a known kind")


def _clear(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value))


def _seal(kind: type, value: Any) -> Any:
    if kind is Secret:
        return Secret(value)
    raise NotImplementedError(kind)
