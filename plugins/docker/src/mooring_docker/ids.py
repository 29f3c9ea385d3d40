"""Resource ids: registries, repositories and image references to the one form `HOST[:PORT][/REPOSITORY]`. Pure.

The grammar is the one of the distribution project's `reference` package: what stands before the first slash is a host
if it has a dot, a colon or a capital in it, or is `localhost`; else the image is Docker Hub's. Tags and digests name
something inside of a repository, and are left out.

Source: https://github.com/distribution/reference/blob/main/regexp.go and normalize.go
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import mooring as m

REGISTRY = "docker-registry"
OWN = "."
"""The connector's registry, whichever that is."""
HUB = "docker.io"
HUB_API = "registry-1.docker.io"
HUB_KEY = "https://index.docker.io/v1/"
"""What Docker's own configuration files call Docker Hub."""

FORMATS = (
    "HOST[:PORT]",
    "HOST[:PORT]/REPOSITORY",
    "HOST[:PORT]/REPOSITORY:TAG[@DIGEST]",
    "https://HOST[:PORT][/v2/]",
    "NAME (docker.io/library/NAME)",
    "USER/NAME (docker.io/USER/NAME)",
    ". (the connector's registry)",
)
"""The accepted forms, the canonical ones first."""

LONGEST_NAME = 255
LONGEST_HOST = 253
LAST_PORT = 65535

_HUB_NAMES = (HUB, "index.docker.io", HUB_API)
_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_HOST = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::([1-9][0-9]{{0,4}}))?", re.ASCII)
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}", re.ASCII)
_IMAGE_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_API_ROOT = re.compile(r"(.+)/v[12]/?")


class Place(NamedTuple):
    """A canonical id, taken apart."""

    host: str
    """With the port, if it has one."""
    repository: str | None
    """None: the whole registry."""

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}" if self.repository else self.host


def canonical(resource_type: str, text: str) -> str:
    """The canonical form of any accepted one.

    >>> canonical("docker-registry", "redis"), canonical("docker-registry", "https://index.docker.io/v1/")
    ('docker.io/library/redis', 'docker.io')
    >>> canonical("docker-registry", "Registry.example.org:5000/team/app:v1")
    'registry.example.org:5000/team/app'

    `NAME:DIGITS` is both an image of Docker Hub and a registry's host and port, and `.` is the registry of whatever
    connector; they are kept until `qualify` knows.
    """
    if resource_type != REGISTRY:
        raise m.UnsupportedResource(f"docker has no resource type {resource_type!r}; known: {REGISTRY}")
    if text.strip() == OWN:
        return OWN
    found = _place(text.strip())
    if found is None:
        raise m.InvalidConfig(f"not an id of {REGISTRY}; write {' or '.join(FORMATS[:2])}", field="resource_id")
    return str(found)


def image(text: str) -> tuple[Place, str]:
    """The repository of an image reference, read as engines read it, and its end: tag and digest.

    >>> str(image("redis:7")[0]), image("r.org:5000/app:v1")[1]
    ('docker.io/library/redis', ':v1')
    """
    first, slash, path = text.partition("/")
    host, rest = (_known(first), path) if slash and _names_a_host(first) else (HUB, text)
    found = _inside(host, rest) if host and rest else None
    if found is None or found.repository is None:
        raise m.InvalidConfig("not an image reference; write [HOST[:PORT]/]NAME[:TAG][@DIGEST]", field="image")
    last = text.rpartition("/")[2]
    return found, last[len(re.split("[:@]", last, maxsplit=1)[0]) :]


def is_canonical(text: str) -> bool:
    """Whether a text, such as a registry's answer, is an id in its canonical form."""
    return text == OWN or str(_place(text)) == text


def place_of(resource_id: str) -> Place:
    """The parts of a canonical id."""
    host, _, repository = resource_id.partition("/")
    return Place(host, repository or None)


def covers(resource_type: str, scope: str, resource_id: str) -> bool:
    """Whether one canonical id contains another: a registry its repositories."""
    return resource_type == REGISTRY and "/" not in scope and resource_id.startswith(scope + "/")


def qualify(resource_type: str, resource_id: str, settings: Mapping[str, Any]) -> str:
    """The canonical id, if it is in the connector's registry.

    >>> qualify("docker-registry", "redis:7", {})
    'docker.io/library/redis'
    >>> qualify("docker-registry", "registry:5000", {"registry": "registry:5000"})
    'registry:5000'
    """
    if resource_type != REGISTRY:
        raise m.UnsupportedResource(f"docker has no resource type {resource_type!r}; known: {REGISTRY}")
    own = place_of(registry_of(str(settings.get("registry") or HUB)))
    if resource_id == OWN:
        return own.host
    if resource_id != own.host and own.host == HUB and _ambiguous(resource_id):
        resource_id = f"{HUB}/library/{resource_id.partition(':')[0]}"
    found = place_of(resource_id)
    if found.host != own.host:
        raise m.UnsupportedResource(
            f"the connector reaches the registry {own.host}, not {found.host}; use a connector of that one, "
            f"or begin the id with {own.host}/"
        )
    if own.repository and found.repository and not within(own.repository, found.repository):
        raise m.UnsupportedResource(f"the connector reaches what is below {own}/ alone; use another one for {found}")
    return resource_id


def within(prefix: str | None, repository: str) -> bool:
    """Whether a repository is below a path prefix, or is there itself."""
    return prefix is None or f"{repository}/".startswith(f"{prefix}/")


def registry_of(text: str) -> str:
    """The canonical `HOST[:PORT][/PREFIX]` of a connector's `registry`.

    Raises:
        InvalidConfig: it is none.
    """
    rest, _ = _without_scheme(text.strip())
    host, _, prefix = (rest + "/").partition("/")
    found = _known(host)
    prefix = prefix.strip("/")
    if found is None or (prefix and not _NAME.fullmatch(prefix)):
        raise m.InvalidConfig(
            "field 'registry' is malformed; write HOST[:PORT][/PREFIX], such as registry.example.org:5000",
            field="registry",
        )
    return f"{found}/{prefix}" if prefix else found


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _place(text: str) -> Place | None:
    rest, is_url = _without_scheme(text)
    first, slash, path = rest.partition("/")
    if is_url or (slash and _names_a_host(first)):
        host = _known(first)
        return _inside(host, path) if host else None
    if not slash and (_is_dotted(rest) or _ambiguous(rest)):
        host = _known(rest)
        return Place(host, None) if host else None
    return _inside(HUB, rest) if rest and not _IMAGE_ID.fullmatch(rest) else None


def _inside(host: str, path: str) -> Place | None:
    if not path:
        return Place(host, None)
    name, at, digest = path.partition("@")
    name, colon, tag = name.partition(":")
    if (at and not _DIGEST.fullmatch(digest)) or (colon and not _TAG.fullmatch(tag)):
        return None
    if host == HUB and "/" not in name:
        name = f"library/{name}"
    return Place(host, name) if len(name) <= LONGEST_NAME and _NAME.fullmatch(name) else None


def _without_scheme(text: str) -> tuple[str, bool]:
    """The text without `http[s]://` and the API's root at its end; and whether it had the former."""
    start = text[:8].lower()
    length = 8 if start == "https://" else 7 if start[:7] == "http://" else 0
    rest = text[length:]
    if (length or rest.endswith("/")) and (root := _API_ROOT.fullmatch(rest)) and "/" not in root[1]:
        rest = root[1]
    return rest, bool(length)


def _names_a_host(first: str) -> bool:
    return any(sign in first for sign in ".:") or first == "localhost" or first != first.lower()


def _is_dotted(text: str) -> bool:
    """Whether a text without a slash is a host: one with a dot, or localhost; a tag may have dots too."""
    name = text if text.startswith("[") else text.partition(":")[0]
    return "." in name or name == "localhost" or text.startswith("[")


def _ambiguous(text: str) -> bool:
    name, _, port = text.partition(":")
    return "/" not in text and not _is_dotted(text) and bool(name) and port.isascii() and port.isdigit()


def _known(host: str) -> str | None:
    """The host in its one form, None if it is none, or one that no image reference can begin with."""
    found = _HOST.fullmatch(host.lower()) if host.isascii() else None
    if found is None or not _names_a_host(found[0]) or len(found[1]) > LONGEST_HOST or int(found[2] or 1) > LAST_PORT:
        return None
    if found[1].startswith("["):
        try:
            ip_address(found[1][1:-1])
        except ValueError:
            return None
    return HUB if found[0] in _HUB_NAMES else found[0]
