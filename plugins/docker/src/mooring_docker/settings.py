"""The configuration of each auth method: its fields, what they mean, and their formats, checked before any call."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

import mooring as m
from mooring_docker import ids


def _says(description: str) -> Any:
    return msgspec.Meta(description=description)


Registry = Annotated[
    str,
    _says(
        "the registry, HOST[:PORT][/PREFIX]; with a prefix, only the repositories below it; Docker Hub if left out. "
        "Spoken to by https, unless it begins with http:// (this machine's own alone) or `insecure` is set"
    ),
]
Insecure = Annotated[bool, _says("speak plain http with the registry, so that anybody on the way reads the password")]
Realm = Annotated[
    str | None,
    _says("the URL of the registry's token server, where that is another host; the password goes to no other"),
]
Username = Annotated[str, _says("the user")]
Password = Annotated[m.Secret, _says("the password, or an access token in its place")]
Token = Annotated[m.Secret, _says("a bearer token that the registry itself takes")]

_ORIGIN = re.compile(r"(https?)://([A-Za-z0-9.\[\]:-]+)(/[!-~]*)?", re.ASCII)
_USERNAME = re.compile(r"[^:\x00-\x1f\x7f\ud800-\udfff]{1,255}")
_PASSWORD = re.compile(r"[^\x00-\x1f\x7f]{1,16384}")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,16384}=*")
"""Source: https://www.rfc-editor.org/rfc/rfc6750#section-2.1"""


class RegistryConfig(m.Config, kw_only=True):
    """What every auth method has: where the registry is."""

    registry: Registry = ids.HUB
    insecure: Insecure = False
    realm: Realm = None

    def __post_init__(self) -> None:
        place = self.place
        if self._asks_for_http and not (self.insecure or ids.is_loopback(place.host)):
            raise m.InvalidConfig(
                "field 'registry' says http://, which shows the password to the network; write https://, "
                "or set insecure if that is wanted",
                field="registry",
            )
        if self.insecure and self.registry.strip().lower().startswith("https://"):
            raise m.InvalidConfig("field 'insecure' contradicts https:// in 'registry'; drop one", field="insecure")
        if self.realm is not None:
            origin = _ORIGIN.fullmatch(self.realm)
            if not origin:
                raise m.InvalidConfig(
                    "field 'realm' is malformed; write a URL like https://auth.example.org/token", field="realm"
                )
            if origin[1] == "http" and not (self.insecure or ids.is_loopback(origin[2])):
                raise m.InvalidConfig(
                    "field 'realm' says http://, which shows the password to the network; write https://, "
                    "or set insecure if that is wanted",
                    field="realm",
                )

    @property
    def _asks_for_http(self) -> bool:
        return self.registry.strip().lower().startswith("http://")

    @property
    def place(self) -> ids.Place:
        """The host, and the prefix as the repository."""
        return ids.place_of(ids.registry_of(self.registry))

    @property
    def host(self) -> str:
        """The host of the registry's API, with its port if it has one."""
        host = self.place.host
        return ids.HUB_API if host == ids.HUB else host

    @property
    def base(self) -> str:
        """The address of the registry's API."""
        return f"{'http' if self._asks_for_http or self.insecure else 'https'}://{self.host}"


class PasswordConfig(RegistryConfig, kw_only=True):
    """A user, and a password or access token."""

    username: Username
    password: Password

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _USERNAME.fullmatch(self.username):
            raise m.InvalidConfig(
                "field 'username' is malformed; it has no colon and no control characters (RFC 7617)", field="username"
            )
        _check(_PASSWORD, self.password, "password", "a password without line breaks and control characters")


class TokenConfig(RegistryConfig, kw_only=True):
    """A bearer token, sent as it is."""

    token: Token

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(_TOKEN, self.token, "token", "a bearer token, without spaces and line breaks (RFC 6750)")


class AnonymousConfig(RegistryConfig, kw_only=True):
    """Nobody: what the registry shows to everybody."""


def _check(form: re.Pattern[str], secret: m.Secret, field: str, wanted: str) -> None:
    if not _fits(form, secret):
        raise m.InvalidConfig(f"field {field!r} is malformed; write {wanted}", field=field)


def _fits(form: re.Pattern[str], secret: m.Secret) -> bool:
    """A function of its own: no frame of an error holds a secret that has been revealed."""
    return form.fullmatch(secret.reveal()) is not None


METHODS = (
    m.AuthMethod(
        name="password",
        title="User and password",
        config=PasswordConfig,
        description=(
            "A user with a password or an access token. Where the registry has a token server (Docker Hub, GitLab, "
            "Harbor, Quay, ...) a token for one repository is issued, which ends within minutes; elsewhere the "
            "password itself, if the connector allows credentials that are long-lived and not narrowed."
        ),
    ),
    m.AuthMethod(
        name="token",
        title="Bearer token",
        config=TokenConfig,
        description=(
            "A bearer token of the registry, which somebody else renews; it is handed out as it is. Set the "
            "connector's expiry to the token's."
        ),
    ),
    m.AuthMethod(
        name="anonymous",
        title="Anonymous",
        config=AnonymousConfig,
        description="No credentials: what the registry shows to everybody, as Docker Hub's public images.",
    ),
)

TYPE = m.ResourceType(
    name=ids.REGISTRY,
    title="Container registry",
    description="A container registry, or one repository in it.",
    permissions=("pull", "push", "registry:catalog:* (to list the repositories)"),
    formats=ids.FORMATS,
    login_id=ids.OWN,
)

LIMITS = (
    m.Limit(name="docker-hub", per=("vendor",), where={"vendor": "docker", "account": ids.HUB}, rate=15, burst=100),
    m.Limit(name="docker-registry", per=("vendor", "account"), where={"vendor": "docker"}, at_once=20),
)
"""Docker Hub takes "in the order of thousands of requests per minute" of an address: this is one thousand. Of others
nothing is known: the bound is ours.

Source: https://docs.docker.com/docker-hub/usage/#abuse-rate-limit
"""
