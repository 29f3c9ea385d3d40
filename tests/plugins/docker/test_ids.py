"""Every accepted form of an id, and what is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mooring as m
from mooring_docker import connector, ids

DIGEST = "@sha256:" + "0" * 64

GOOD = {
    "redis": "docker.io/library/redis",
    " redis ": "docker.io/library/redis",
    "redis:alpine": "docker.io/library/redis",
    f"ubuntu:22.04{DIGEST}": "docker.io/library/ubuntu",
    "library/redis": "docker.io/library/redis",
    "team/app": "docker.io/team/app",
    "docker.io": "docker.io",
    "docker.io/redis": "docker.io/library/redis",
    "index.docker.io": "docker.io",
    "https://index.docker.io/v1/": "docker.io",
    "index.docker.io/v1/": "docker.io",
    "https://registry-1.docker.io/v2/": "docker.io",
    "registry-1.docker.io/team/app:v1": "docker.io/team/app",
    "registry.example.org": "registry.example.org",
    "Registry.Example.ORG:5000": "registry.example.org:5000",
    "https://registry.example.org:5000/": "registry.example.org:5000",
    "https://registry.example.org/v2": "registry.example.org",
    "registry.example.org/v2": "registry.example.org/v2",
    "registry.example.org:5000/a/b/c:v1": "registry.example.org:5000/a/b/c",
    "registry.example.org/a__b.c-d--e/f": "registry.example.org/a__b.c-d--e/f",
    "localhost": "localhost",
    "localhost:5000": "localhost:5000",
    "localhost/app": "localhost/app",
    "http://127.0.0.1:5000/app": "127.0.0.1:5000/app",
    "[::1]:5000/app": "[::1]:5000/app",
    "[::1]": "[::1]",
    "registry:5000": "registry:5000",
    ".": ".",
    "registry:5000/app": "registry:5000/app",
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app",
}

BAD = [
    "", "/", "https://", "https:///app", "ftp://host/app", "Redis", "team/App", "registry.example.org/App",
    "registry.example.org//app", "registry.example.org/app/", "registry.example.org/../app", "a..b/app",
    "registry.example.org/app:", "registry.example.org/app:v 1", "registry.example.org/app@sha256:00",
    "registry.example.org:0/app", "registry.example.org:65536", "registry.example.org:05000", "-a.org/app",
    "user:pw@registry.example.org/app", "https://user@registry.example.org", "[::g]/app", "[127.0.0.1]x/app",
    "0" * 64, "registry.example.org/" + "a" * 256, "a_b.org/app", "registry.example.org/*", "\u212a.io/app",
    "registry.example.org/app\n:v1", "registry.example.org/\ud800", "a." * 127 + "org/app", "HOST/app", "https://host/app",
]  # fmt: skip


@pytest.mark.parametrize(("text", "want"), GOOD.items())
def test_accepted_forms(text: str, want: str) -> None:
    assert connector.canonical(ids.REGISTRY, text) == want


@pytest.mark.parametrize("text", BAD)
def test_refused_forms(text: str) -> None:
    with pytest.raises(m.InvalidConfig, match=r"HOST\[:PORT\]/REPOSITORY") as caught:
        connector.canonical(ids.REGISTRY, text)
    assert caught.value.field == "resource_id"


def test_another_resource_type_is_refused() -> None:
    with pytest.raises(m.UnsupportedResource, match="docker-registry"):
        connector.canonical("s3-bucket", "redis")


@given(st.text() | st.lists(st.sampled_from([*GOOD, "/", ":", "@", ".", "v1/", "[", "]", "-", "_"])).map("".join))
@example("https://docker.io/v2/v1/")
@example(".")
def test_what_is_canonical_stays_so(text: str) -> None:
    try:
        found = ids.canonical(ids.REGISTRY, text)
    except m.InvalidConfig:
        return
    assert ids.canonical(ids.REGISTRY, found) == found
    assert ids.canonical(ids.REGISTRY, f" {found} ") == found
    assert ids.is_canonical(found)
    assert str(ids.place_of(found)) == found
    assert found.isascii()
    assert found.isprintable()


HOSTS = st.sampled_from(["docker.io", "registry.example.org", "localhost:5000", "registry:5000"])
NAMES = st.sampled_from(["library/redis", "team/app", "a/b/c"])


@given(HOSTS, NAMES, st.sampled_from(["", ":v1", DIGEST, f":v1{DIGEST}"]), st.sampled_from(["", "https://", "http://"]))
def test_a_reference_of_a_repository_means_that_repository(host: str, name: str, end: str, start: str) -> None:
    assert ids.canonical(ids.REGISTRY, f"{start}{host}/{name}{end}") == f"{host}/{name}"


@given(HOSTS, HOSTS, NAMES)
def test_a_registry_covers_its_own_repositories_alone(one: str, other: str, name: str) -> None:
    assert connector.covers(ids.REGISTRY, one, f"{other}/{name}") == (one == other)
    assert not connector.covers(ids.REGISTRY, f"{one}/{name}", f"{one}/{name}/more")
    assert not connector.covers("s3-bucket", one, f"{one}/{name}")


OWN: list[tuple[str, dict[str, Any], str]] = [
    ("docker.io/library/redis", {}, "docker.io/library/redis"),
    ("postgres:16", {}, "docker.io/library/postgres"),
    ("postgres:16", {"registry": "index.docker.io"}, "docker.io/library/postgres"),
    ("registry:5000", {"registry": "http://registry:5000"}, "registry:5000"),
    ("r.org/team/app", {"registry": "r.org/team"}, "r.org/team/app"),
    ("r.org/team", {"registry": "https://r.org/team/"}, "r.org/team"),
    ("r.org", {"registry": "r.org/team"}, "r.org"),
]

FOREIGN: list[tuple[str, dict[str, Any]]] = [
    ("r.org/app", {}),
    ("docker.io/library/redis", {"registry": "r.org"}),
    ("r.org:5000", {"registry": "r.org"}),
    ("postgres:16", {"registry": "r.org"}),
    ("r.org/teams/app", {"registry": "r.org/team"}),
]


@pytest.mark.parametrize(("id", "settings", "want"), OWN)
def test_an_id_of_the_connectors_own_registry_is_completed(id: str, settings: dict[str, Any], want: str) -> None:
    assert connector.qualify(ids.REGISTRY, id, settings) == want


@pytest.mark.parametrize(("id", "settings"), FOREIGN)
def test_an_id_of_another_registry_is_refused(id: str, settings: dict[str, Any]) -> None:
    with pytest.raises(m.UnsupportedResource, match="the connector reaches"):
        connector.qualify(ids.REGISTRY, id, settings)


@pytest.mark.parametrize(
    ("host", "own"),
    [("localhost:1", True), ("127.0.0.2", True), ("[::1]:5", True), ("a.localhost", True), ("127.0.0.1.org", False),
     ("r.org", False), ("10.0.0.1:5000", False)],
)  # fmt: skip
def test_this_machine(host: str, own: bool) -> None:
    assert ids.is_loopback(host) == own


IMAGES = {
    "redis": ("docker.io/library/redis", ""),
    "redis:7": ("docker.io/library/redis", ":7"),
    "index.docker.io/team/app": ("docker.io/team/app", ""),
    "localhost:5000/app:v1": ("localhost:5000/app", ":v1"),
    f"r.org/app:v1{DIGEST}": ("r.org/app", f":v1{DIGEST}"),
    f"r.org/app{DIGEST}": ("r.org/app", DIGEST),
    "a.b": ("docker.io/library/a.b", ""),
}


@pytest.mark.parametrize(("text", "want"), IMAGES.items())
def test_an_image_is_read_as_engines_read_it(text: str, want: tuple[str, str]) -> None:
    place, end = ids.image(text)
    assert (str(place), end) == want


@pytest.mark.parametrize("text", ["", "/", "r.org/", "Redis", "r.org/App", "https://r.org/app", "r.org/app:", "-/a"])
def test_what_is_no_image(text: str) -> None:
    with pytest.raises(m.InvalidConfig, match="not an image reference"):
        ids.image(text)


@pytest.mark.parametrize(
    ("registry", "endpoint"),
    [
        ("docker.io", "registry-1.docker.io"),
        ("ghcr.io/team", "ghcr.io"),
        ("http://127.0.0.1:5000", "127.0.0.1:5000"),
        ("https://r.example.org:5443/team", "r.example.org:5443"),
    ],
)
def test_the_endpoint(settle: Any, registry: str, endpoint: str) -> None:
    assert connector.endpoint(settle("anonymous", registry=registry)) == endpoint
