"""The Docker plugin's parsers: what is drawn for each, and what must hold."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import anyio
import msgspec
from held import Refused, outcome, taken
from hypothesis import strategies as st
from near import CANARY, mangled, near, near_bytes

import mooring as m
from mooring.http import Answer
from mooring.testing import example_context
from mooring.types import build_config
from mooring_docker import connector, files, helper, helpers, ids, lift, logins
from mooring_docker.challenge import challenges
from mooring_docker.grant import LIFE, claims_of, granted
from mooring_docker.repositories import _next_of
from mooring_docker.session import RegistrySession

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# Ids

FORMS = [
    "redis:7",
    "team/app",
    "r.org:5000/team/app:v1",
    "https://index.docker.io/v1/",
    "[::1]:5000/a@sha256:" + "0" * 32,
]
PIECES = [":", "/", ".", "-", "__", "@", "[", "]", "v2/", "library/", "localhost", "http://", "65536", "docker.io", "A"]
IDS = near(FORMS, PIECES)


@outcome
def check_id(text: str) -> None:
    found = taken(lambda: ids.canonical(ids.REGISTRY, text), m.InvalidConfig)
    assert ids.canonical(ids.REGISTRY, found) == found
    assert ids.is_canonical(found)
    assert found.isascii()
    assert found.isprintable()
    place = ids.place_of(found)
    assert str(place) == found
    assert urlsplit(f"https://{place.host}/").netloc == place.host
    own = ids.qualify(ids.REGISTRY, found, {"registry": place.host})
    assert ids.is_canonical(own)
    assert place.repository is None or ids.covers(ids.REGISTRY, place.host, found)


@outcome
def check_image(text: str) -> None:
    place, end = taken(lambda: ids.image(text), m.InvalidConfig)
    assert place.repository is not None
    again, same = ids.image(f"{place}{end}")
    assert (again, same) == (place, end)
    assert text.endswith(end)


# Settings

METHODS = {method.name: method.config for method in connector.describe().auth_methods}
FIELDS: dict[str, Any] = {
    "registry": "http://127.0.0.1:5000/team",
    "realm": "https://auth.example.org/token",
    "insecure": True,
    "username": "alice",
    "password": CANARY,
    "token": CANARY,
}


@st.composite
def settings_of(draw: Any) -> tuple[str, Any]:
    method = draw(st.sampled_from(sorted(METHODS)))
    fields = {name: value for name, value in FIELDS.items() if name in METHODS[method].__struct_fields__}
    texts = near(["r.org:5000", "http://r.org", "https://r.org/v2/", FIELDS["realm"]], [*PIECES, "?", "//"])
    return method, draw(st.just(fields) | mangled(fields, texts))


@outcome
def check_settings(given: tuple[str, Any]) -> str:
    method, fields = given
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        return "no mapping"
    named = CANARY in "".join(fields)  # a field's name is none of its values, and is said
    config: Any = taken(lambda: build_config(METHODS[method], fields), m.InvalidConfig, secret=not named)
    base = urlsplit(config.base)
    assert base.scheme == "https" or config.insecure or ids.is_loopback(config.place.host)
    assert f"{base.scheme}://{base.netloc}" == config.base
    return f"taken {method}"


# What registries and token servers say

CHALLENGES = near(
    ['Bearer realm="https://auth.docker.io/token",service="registry.docker.io"', 'Basic realm="a\\"b"'],
    [",", "=", '"', "\\", " ", "Basic ", "NTLM a=="],
)


@outcome
def check_challenge(header: str) -> str:
    found = challenges(header)
    for one in found:
        assert one.scheme == one.scheme.lower() != ""
        assert all(name == name.lower() != "" for name in one.parameters)
    return f"{min(len(found), 3)}"


REALMS = near(
    ["https://auth.example.org/token", "https://r.org:5001/token?a=b", "http://r.org/t"],
    ["@", "\\", "//", ":", "?", "#", "r.org", ".evil.org", "[", "]", "%2f"],
)


@outcome
def check_realm(realm: str) -> None:
    config = build_config(METHODS["password"], {"registry": "r.org", "username": "alice", "password": CANARY})
    session = RegistrySession(config, example_context())
    base, path, _ = taken(lambda: session._token_server(realm), m.InvalidConfig, m.Rejected)
    parts = urlsplit(base + path)
    assert (parts.scheme, parts.hostname) == ("https", "r.org")
    assert parts.username is None
    assert path.startswith("/")


def jwt(claims: Any) -> str:
    return (
        "e30." + base64.urlsafe_b64encode(json.dumps(claims).encode("utf-8", "replace")).decode().rstrip("=") + ".c2ln"
    )


CLAIMS = {"sub": "alice", "exp": 1.8e9, "access": [{"type": "repository", "name": "team/app", "actions": ["pull"]}]}
TEXTS = near(["pull", "repository", "2026-01-02T03:04:05Z", "*"])
TOKENS = st.one_of(
    mangled(CLAIMS, TEXTS).filter(lambda value: "bytes" not in str(type(value))).map(lambda value: jwt(plainly(value))),
    near([jwt(CLAIMS)], ["."]),
)


def plainly(value: Any) -> Any:
    """What JSON can hold of it."""
    return json.loads(json.dumps(value, default=str, skipkeys=True))


@outcome
def check_token(text: str) -> str:
    try:
        token = m.Secret(text)
    except ValueError:
        return "no text"
    claims = claims_of(token)
    if claims.confined_to("team/app", ("pull",)):
        assert claims.access is not None
        assert not claims.allows("repository", "team/app", "push")
        assert not claims.allows("registry", "catalog", "*")
        return "confined"
    return "wider" if claims.access is not None else "unsaid"


GRANTS = mangled(
    {"token": jwt(CLAIMS), "access_token": "t", "expires_in": 300, "issued_at": "2026-01-02T03:04:05Z"}, TEXTS
)


@outcome
def check_grant(answer: Any) -> None:
    found = taken(lambda: granted(answer, "r.org", NOW), m.Rejected)
    token = found.token.reveal()
    assert token.isascii()
    assert token.isprintable()
    assert " " not in token
    assert found.expires_at.tzinfo is not None
    if not isinstance(answer.get("expires_in"), int | float):
        assert found.expires_at <= NOW + LIFE


LINKS = near(
    ['</v2/_catalog?last=b&n=1>; rel="next"', "<https://evil.org/?last=a>; rel=next"], ["<", ">", ",", ";", "["]
)


@outcome
def check_link(text: str) -> str:
    found = _next_of(text, "https://r.org")
    return "taken" if found is not None else "none"


ANSWERS = st.tuples(
    st.sampled_from([200, 204, 302, 401, 403, 404, 500]),
    near_bytes([b'{"repositories": ["a"]}', b"{}", b""], ['"', "[" * 100_000]),
)


@outcome
def check_answer(given: tuple[int, bytes]) -> None:
    status, body = given
    taken(Answer("r.org", status, {}, body).json, m.VendorError)
    assert 200 <= status < 300


# What the machine has

CONFIG = {
    "auths": {
        "https://index.docker.io/v1/": {"auth": base64.b64encode(f"alice:{CANARY}".encode()).decode()},
        "r.org:5000": {"username": "alice", "password": CANARY},
        "s.org": {"registrytoken": CANARY},
    },
    "credHelpers": {"t.org": "not-on-this-machine"},
}
FILES = st.one_of(
    near_bytes([json.dumps(CONFIG).encode()], ['"', "{", "[" * 5000]),
    mangled(CONFIG, near(["r.org", "alice", "YTpi"])).map(lambda value: json.dumps(plainly(value)).encode()),
)


@outcome
def check_lift(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_bytes(content)

        def find() -> list[m.Lifted]:
            _, values = files.read(path)
            entries: dict[str, lift.Entry] = {}
            for key, stored in files.table(values, "auths").items():
                if isinstance(stored, dict):
                    lift._add(entries, key, path, stored, None)
            for key, named in files.table(values, "credHelpers").items():
                lift._add(entries, key, path, {}, named)
            return [anyio.run(lift._lifted, entry, m.LiftRequest()) for entry in entries.values()]

        for found in taken(find, m.ConfigError):
            assert ids.registry_of(found.config.registry) == found.config.registry  # type: ignore[attr-defined]


HELPER_ANSWERS = near_bytes(
    [json.dumps({"ServerURL": "r.org", "Username": "alice", "Secret": CANARY}).encode()], ['"', "{", "[" * 5000]
)


@outcome
def check_helper(answer: bytes) -> str:
    values = helper._values(answer)
    found = helpers._values(answer)
    assert found is None or isinstance(found, dict)
    if values is None:
        return "refused"
    assert isinstance(values["Username"], str)
    assert isinstance(values["Secret"], str)
    return "taken"


REQUESTS = near_bytes(
    [b"r.org:5000\n", b"https://index.docker.io/v1/", json.dumps({"ServerURL": "r.org", "Secret": CANARY}).encode()],
    ["https://", "/v2/", ":", "@"],
)


@outcome
def check_request(request: bytes) -> None:
    host = taken(lambda: helper._host(helper._requested(request)), helper.Refused)
    assert ids.registry_of(host) == host


HOST = "r.org:5000"
LOGIN = m.LoginRequest(
    credentials=m.RegistryLogin(
        registry=HOST, username="alice", password=m.Secret(CANARY), expires_at=None, narrowed=False
    ),
    connector="mine",
    resource_type=ids.REGISTRY,
    resource_id=HOST,
    access="read",
    command=("mooring", "issue", "mine"),
    folder=Path(),
)
LOGOUT = m.LogoutRequest(connector="mine", resource_type=None, resource_id=None, folder=Path())
REMEMBERED = {
    HOST: {"connector": "mine", "resource_id": HOST, "username": "alice", "command": ["mooring"], "files": ["/none"]},
    "s.org": {"connector": "other", "resource_id": "s.org", "username": "bob", "command": ["mooring"], "files": []},
}
CHANGED = st.tuples(
    FILES,
    mangled(REMEMBERED, near(["mine", HOST, "/none"])).map(lambda value: json.dumps(plainly(value)).encode()),
    st.booleans(),
)


@outcome
def check_change(contents: tuple[bytes, bytes, bool]) -> None:
    """After login and logout docker's file holds what it did, but for an older entry of ours and an empty table."""
    with tempfile.TemporaryDirectory() as name:
        file, folder = Path(name) / "config.json", Path(name) / "logins" / "docker"
        folder.mkdir(parents=True)
        file.write_bytes(contents[0])
        (folder / logins.NAME).write_bytes(contents[1])
        named = CANARY.encode() in contents[1]  # what is remembered has no secret in it
        request = msgspec.structs.replace(LOGIN, folder=folder, file=file)
        try:
            taken(lambda: connector.login(request), m.InvalidConfig, secret=not named)
        except Refused:
            assert file.read_bytes() == contents[0]
            raise
        before = json.loads(contents[0]) if contents[0].strip() else {}
        after = json.loads(file.read_bytes())
        assert after["credHelpers"].pop(HOST) == logins.OURS
        assert {**after, "credHelpers": 0} == {**before, "credHelpers": 0}
        with mock.patch.dict(os.environ, MOORING_HOME=name):
            assert HOST in helper._entries()
        back = msgspec.structs.replace(LOGOUT, folder=folder, file=file if contents[2] else None)
        taken(lambda: connector.logout(back), m.InvalidConfig, secret=not named)
        left = json.loads(file.read_bytes())
        assert HOST not in left.get("credHelpers", {})
        assert {**left, "credHelpers": 0} == {**before, "credHelpers": 0}
