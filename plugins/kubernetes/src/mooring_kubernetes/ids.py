"""The ids of clusters: a name that the connector gives its one cluster, or the cluster's address. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import mooring as m

CLUSTER = "kubernetes-cluster"
FORMATS = ("NAME", "https://HOST[:PORT]")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,252}", re.ASCII)
SERVER = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[\w./~-]*)?", re.ASCII)


def canonical(resource_type: str, text: str) -> str:
    """A name as it is, an address in its one form; `qualify` makes the name of that.

    >>> canonical("kubernetes-cluster", "https://K8s.Example.org:443/")
    'https://k8s.example.org'
    """
    if resource_type != CLUSTER:
        raise m.UnsupportedResource(f"kubernetes has no resource type {resource_type!r}; known: {CLUSTER}")
    text = text.strip()
    if "://" in text and (address := address_of(text)) is not None:
        return address
    if "://" in text or not NAME.fullmatch(text):
        raise m.InvalidConfig(f"not an id of {CLUSTER}; write {' or '.join(FORMATS)}", field="resource_id")
    return text


def address_of(text: str) -> str | None:
    """The address of an API server in its one form; None if it is none."""
    if not SERVER.fullmatch(text):
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    usual = {"https": 443, "http": 80}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, usual) else "") + parts.path.rstrip("/")


def qualify(resource_id: str, settings: Mapping[str, Any]) -> str:
    """The name of the connector's cluster, if the id means that one.

    >>> qualify("https://k8s.example.org", {"cluster_name": "prod", "server": "https://k8s.example.org/"})
    'prod'
    """
    name = settings.get("cluster_name")
    if name is None:
        return resource_id
    own = (name, address_of(settings.get("server") or ""))
    if resource_id not in own:
        raise m.UnsupportedResource(
            f"the connector reaches the cluster {name!r} alone; use another connector for {resource_id!r}"
        )
    return str(name)
