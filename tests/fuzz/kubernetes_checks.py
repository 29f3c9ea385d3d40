"""The Kubernetes plugin's parsers: what is drawn for each, and what must hold."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from held import Refused, outcome, taken
from hypothesis import strategies as st
from near import CANARY, mangled, near, near_bytes, plain

import mooring as m
from mooring.types import build_config
from mooring_kubernetes import (
    claims,
    cluster,
    connector,
    errors,
    formats,
    ids,
    issue,
    kubeconfig,
    lift,
    program,
    render,
)
from mooring_kubernetes import plain as plain_yaml
from mooring_kubernetes.session import Answer, _object
from mooring_kubernetes.way import Way, endpoint_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
METHODS = {method.name: method.config for method in connector.describe().auth_methods}


def _certificate() -> str:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ann")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    dated = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    return dated.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


PEM = _certificate()


def plainly(value: Any) -> Any:
    """What JSON can hold of it."""
    return json.loads(json.dumps(value, default=str, skipkeys=True))


# Ids

FORMS = ["lab", "https://k8s.example.org:6443/k8s/clusters/c-1", "http://[::1]:80/", "arn:aws:eks:eu:1:cluster/c"]
IDS = near(FORMS, [":", "/", "//", "://", "@", "[", "]", "..", "%", "?", "65536", "0443", "A", " "])


@outcome
def check_id(text: str) -> None:
    found = taken(lambda: ids.canonical(ids.CLUSTER, text), m.InvalidConfig)
    assert ids.canonical(ids.CLUSTER, found) == found
    assert found.isascii()
    assert found.isprintable()
    assert " " not in found
    if "://" in found:
        assert ids.address_of(found) == found
        assert ids.qualify(found, {"cluster_name": "lab", "server": text.strip()}) == "lab"


# Settings

FIELDS: dict[str, Any] = {
    "cluster_name": "lab",
    "service_account": "apps/bot",
    "audiences": ["vault"],
    "namespace": "apps",
    "server": "https://k8s.example.org:6443",
    "certificate_authority": PEM,
    "insecure_skip_tls_verify": True,
    "proxy_url": "http://proxy:3128",
    "tls_server_name": "k8s",
    "token": CANARY,
    "username": "ann",
    "password": CANARY,
    "kubeconfig_file": "config",
    "allow_exec": True,
    "exec_commands": ["aws"],
    "context": "prod",
}


@st.composite
def settings_of(draw: Any) -> tuple[str, Any]:
    method = draw(st.sampled_from(sorted(METHODS)))
    fields = {name: value for name, value in FIELDS.items() if name in METHODS[method].__struct_fields__}
    if draw(st.booleans()):
        fields.pop("certificate_authority", None)
    return method, draw(st.just(fields) | mangled(fields, near([FIELDS["server"], "apps/bot", "http://x"], ["/", ":"])))


@outcome
def check_settings(given: tuple[str, Any]) -> str:
    method, fields = given
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        return "no mapping"
    named = CANARY in "".join(fields)  # a field's name is none of its values, and is said
    config: Any = taken(lambda: build_config(METHODS[method], fields), m.InvalidConfig, secret=not named)
    server = getattr(config, "server", None)
    if server is not None:
        insecure = getattr(config, "insecure_skip_tls_verify", False)
        address = ids.address_of(server)
        assert address is not None
        assert (
            address.startswith("https:") or insecure or formats.LOOPBACK.fullmatch(address.split("/")[2].split(":")[0])
        )
    if config.account is not None:
        assert "/".join(config.account) == config.service_account
    if getattr(config, "token", None) is not None:
        assert config.token.reveal().isprintable()
    endpoint = taken(lambda: endpoint_of(config), m.MooringError)
    assert endpoint.rpartition(":")[2].isdecimal() or getattr(config, "kubeconfig_file", None) is not None
    return f"taken {method}"


PEMS = near(
    [PEM, base64.b64encode(PEM.encode()).decode(), PEM.replace("CERTIFICATE", "EC PRIVATE KEY")],
    ["-----BEGIN ", "-----END ", "-----", "CERTIFICATE", "PRIVATE KEY", "ENCRYPTED", "RSA ", "\r\n", "=", CANARY],
)


@outcome
def check_pem(text: str) -> str:
    claims.ends_of_certificate(text)
    claims.subject_of_certificate(text)
    try:
        secret = m.Secret(text)
    except ValueError:
        return "no text"
    key = taken(lambda: formats.private_key(secret), m.InvalidConfig).reveal()
    assert formats.KEY.fullmatch(key.strip())
    assert "ENCRYPTED" not in key
    return "key"


@outcome
def check_certificate(text: str) -> None:
    pem = taken(lambda: formats.certificates(text, "client_certificate"), m.InvalidConfig)
    assert formats.certificates(pem, "client_certificate") == pem


# What credentials say of themselves


def jwt(held: Any) -> str:
    return "e30." + base64.urlsafe_b64encode(json.dumps(held).encode("utf-8", "replace")).decode().rstrip("=") + ".c2ln"


CLAIMS = {"sub": "system:serviceaccount:apps:bot", "exp": 1.8e9, "kubernetes.io": {"namespace": "apps"}}
TOKENS = st.one_of(
    mangled(CLAIMS, near(["ann", "1800000000"])).map(lambda value: jwt(plainly(value))), near([jwt(CLAIMS)], ["."])
)


@outcome
def check_claims(text: str) -> str:
    try:
        token = m.Secret(text)
    except ValueError:
        return "no text"
    ends, subject = claims.ends_of_token(token), claims.subject_of_token(token)
    assert ends is None or ends.tzinfo is not None
    assert subject is None or claims.NAME.fullmatch(subject)
    return "taken" if ends and subject else "some" if ends or subject else "none"


# Kubeconfigs

DOCUMENT: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "c", "cluster": {"server": "https://k8s.example.org", "proxy-url": "http://p:1"}}],
    "users": [
        {"name": "u", "user": {"token": CANARY}},
        {"name": "p", "user": {"username": "ann", "password": CANARY}},
        {
            "name": "e",
            "user": {
                "exec": {
                    "apiVersion": "client.authentication.k8s.io/v1",
                    "command": "aws",
                    "args": ["eks"],
                    "env": [{"name": "A", "value": CANARY}],
                }
            },
        },
        {"name": "a", "user": {"auth-provider": {"name": "gcp", "config": {"access-token": CANARY}}}},
    ],
    "contexts": [
        {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "apps"}},
        {"name": "y", "context": {"cluster": "c", "user": "p"}},
        {"name": "z", "context": {"cluster": "c", "user": "e"}},
        {"name": "w", "context": {"cluster": "c", "user": "a"}},
    ],
    "current-context": "x",
}
TEXT = """\
# my clusters
apiVersion: v1
kind: Config
preferences: {}
clusters:
- cluster: &home
    server: "https://home.example.org"   # behind the router
  name: home
- {name: other, cluster: *home}
users:
# never share
- name: ann
  user:
    token: '0123'
    note: |
      two
      lines
contexts:
  - context: {cluster: home, user: ann}   # indented
    name: home
    more: {a: 1.50, b: 0o17, c: yes, d: ~, e: 2020-01-01, f: "a\\tb", g: >-
        folded
        text}
current-context: home
"""
PIECES = [
    "- ", ": ", "&a ", "*a", "<<: ", "!!bool ", "!!int ", "!!timestamp ", "!!binary ", "!!set ", "!x ", "? ",
    "| \n", ">-\n", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x:\n", "#", "\r\n", "\ufeff", "1:1", "0x", ".nan",
    "2020-01-01", "yes",
]  # fmt: skip
TEXTS = st.one_of(
    near([yaml.safe_dump(DOCUMENT), TEXT], PIECES),
    mangled(DOCUMENT, near(["x", "c", "https://k8s", "aws"])).map(
        lambda value: yaml.safe_dump(plainly(value), sort_keys=False)
    ),
)


@outcome
def check_plain(text: str) -> str:
    value = taken(lambda: plain_yaml.plain(text), plain_yaml.Unreadable)
    try:
        known = yaml.safe_load(text)
    except Exception:  # noqa: BLE001  (that it may raise anything is why there is `plain`)
        return "more than PyYAML"
    assert repr(value) == repr(known)
    return "taken" if value else "empty"


NOT = (m.InvalidConfig, m.NotPermitted)


def says_names(document: Any) -> bool:
    """Whether the canary is in a name or a command, which are no secrets, and are said."""
    users = [entry.get("user") or {} for entry in document["users"]]
    programs = [user["exec"].get("command") for user in users if isinstance(user.get("exec"), dict)]
    return CANARY in repr(([entry["name"] for section in kubeconfig.SECTIONS for entry in document[section]], programs))


@outcome
def check_kubeconfig(text: str) -> str:
    """As text, every context of it, with programs and without."""
    try:
        secret = m.Secret(text)
    except ValueError:
        return "no text"
    document = taken(lambda: kubeconfig.parsed(text, "kubeconfig"), m.InvalidConfig)
    named = says_names(document)
    names = [None, *(entry["name"] for entry in document["contexts"])][:6]
    ways = 0
    for name in names:
        fields = {"cluster_name": "lab", "kubeconfig": secret, "context": name, "allow_exec": True}
        for commands in (["aws"], []):
            given = fields | {"exec_commands": commands}
            try:
                config: Any = taken(partial(build_config, METHODS["kubeconfig"], given), *NOT, secret=not named)
            except Refused:
                continue
            way = kubeconfig.way_of(config)
            assert way.server.startswith("https:") or formats.LOOPBACK.search(way.server)
            assert way.exec is None or way.exec.command in commands
            assert CANARY not in repr(way.exec) + repr(way.token)
            ways += 1
    return "taken" if ways else "no context"


@outcome
def check_lift(content: bytes) -> str:
    """All contexts of a file: each config is one that `describe` knows, and what is lifted once lifts again alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config"
        path.write_bytes(content)
        options = {"kubeconfig_file": str(path), "allow_exec": True, "exec_commands": ["aws"]}
        request = m.LiftRequest(options=options)
        found = taken(lambda: lift._contexts(options), m.InvalidConfig)
        assert found is not None
        document, names = found
        named, lifted = says_names(document), 0
        for name in names[:6]:
            try:
                one = taken(partial(lift._lifted, document, name, request), m.ConfigError, secret=not named)
            except Refused:
                continue
            assert isinstance(one.config, METHODS[one.auth_method])
            lifted += 1
    return "taken" if lifted else "none"


FILES = TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")) | near_bytes([TEXT.encode()])
ACCESS = m.KubernetesAccess(
    server="https://k8s.example.org",
    cluster="lab",
    namespace="on",
    token=m.Secret(CANARY),
    expires_at=NOW,
    narrowed=True,
)


def comments(text: str) -> set[str]:
    """The comments of TEXT that are still comments."""
    known = ("# my clusters", "# behind the router", "# never share", "# indented")
    return {one for one in known if one in text and one[2:] not in repr(plain_yaml.plain(text))}


@outcome
def check_edit(content: bytes) -> str:
    """login keeps what it finds and logout brings it back; a file that is refused stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config"
        path.write_bytes(content)
        asked: dict[str, Any] = {"connector": "prod", "folder": Path(folder), "file": path}
        login = m.LoginRequest(
            credentials=ACCESS,
            resource_type=ids.CLUSTER,
            resource_id=None,
            access="read",
            command=("mooring",),
            **asked,
        )
        try:
            change = taken(lambda: connector.login(login), m.InvalidConfig, secret=CANARY not in str(path))
        finally:
            after = path.read_bytes()
            left = {one.name for one in path.parent.iterdir()}
        assert left <= {"config", "config.before-mooring"}
        assert change.entries == ("mooring-prod",)
        before, held = plain_yaml.plain(content.decode()), plain_yaml.plain(after.decode())
        assert CANARY not in after.decode() or CANARY in content.decode()
        known = {entry["name"] for entry in held["contexts"] if isinstance(entry.get("name"), str)}
        assert "mooring-prod" in known
        assert held["current-context"]
        assert comments(after.decode()) == comments(content.decode())
        connector.logout(m.LogoutRequest(resource_type=None, resource_id=None, **asked))
        assert comments(path.read_bytes().decode()) == comments(content.decode())
        again = plain_yaml.plain(path.read_bytes().decode())
        empty = {section: [] for section in kubeconfig.SECTIONS} | {"current-context": ""}
        first = (before or {}) if before is not None else {"apiVersion": "v1", "kind": "Config"}
        whole = empty | {name: value for name, value in first.items() if value is not None or name not in empty}
        if not first.get("current-context"):
            whole["current-context"] = ""
        assert repr(sorted(again.items(), key=repr)) == repr(sorted(whole.items(), key=repr))
    return "taken"


# Exec credentials

STATUS = {
    "token": CANARY,
    "expirationTimestamp": "2100-01-02T03:04:05Z",
    "clientCertificateData": PEM,
    "clientKeyData": PEM,
}
VERSION = "client.authentication.k8s.io/v1"
CREDENTIAL = {"apiVersion": VERSION, "kind": "ExecCredential", "status": STATUS}
PAIRLESS = CREDENTIAL | {"status": {"token": CANARY, "expirationTimestamp": "2100-01-02T03:04:05Z"}}
PRINTED = st.one_of(
    near_bytes([json.dumps(PAIRLESS).encode()], ['"', "{", "[" * 5000, "1e999"]),
    (mangled(PAIRLESS, near(["t", "2026-01-02T03:04:05Z"])) | mangled(CREDENTIAL, near([PEM]))).map(
        lambda value: json.dumps(plainly(value)).encode()
    ),
)


@outcome
def check_printed(output: bytes) -> str:
    found = program._printed(output, VERSION)
    if found is None:
        return "refused"
    assert found.token is not None or found.client_key is not None
    assert found.token is None or formats.TOKEN.fullmatch(found.token.reveal())
    assert found.expires_at is None or found.expires_at.tzinfo is not None
    return "taken"


INFOS = near(
    [json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "spec": {"interactive": False}})], ['"', "{"]
)


@outcome
def check_info(text: str) -> None:
    answer = taken(lambda: render.exec_credential(ACCESS, {render.INFO: text}), m.InvalidConfig)
    assert answer["apiVersion"] in render.VERSIONS


# What API servers answer

DENIAL = {
    "kind": "Status",
    "message": 'secrets is forbidden: User "ann" cannot create resource',
    "details": {"kind": "namespaces", "name": "apps"},
}
ANSWERS = st.tuples(
    st.sampled_from([200, 201, 204, 302, 400, 401, 403, 404, 407, 409, 418, 422, 429, 500, 503]),
    near(["7", "Fri, 31 Dec 1999 23:59:59 GMT"]),
    mangled(DENIAL, near(["ann", 'User "x" cannot'])) | plain(near(["t"])),
)


@outcome
def check_answer(given: tuple[int, str, Any]) -> str:
    status, pause, document = given
    problem = errors.refusal(status, {"Retry-After": pause}, "GET /version", "https://k8s")
    assert isinstance(problem, m.MooringError)
    assert "\n" not in problem.message
    found = errors.denied_user(document)
    assert found is None or claims.NAME.fullmatch(found)
    issue._of(document, "namespaces")
    ends = issue._instant(pause)
    assert ends is None or ends.tzinfo is not None
    token = issue._token_of(pause) if pause else None
    assert token is None or token.reveal().isprintable()
    return "taken" if found else "none"


class Scripted:
    """A session whose server answers one thing to every call."""

    def __init__(self, status: int, content: bytes) -> None:
        self.answer = Answer(status, {}, _object(content))

    async def ask(self, *_: Any, **__: Any) -> Answer:
        return self.answer

    async def server(self) -> str:
        return "https://k8s"

    async def way(self) -> Way:
        return Way(server="https://k8s", token=m.Secret(CANARY))


def done(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine gives that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


BODIES = st.tuples(
    st.sampled_from([200, 201, 302, 401, 403, 404, 500]),
    near_bytes([b'{"gitVersion": "v1.33.1+k3s1"}', b'{"status": {"userInfo": {"username": "ann"}}}'], ["[" * 100_000]),
)


@outcome
def check_cluster(given: tuple[int, bytes]) -> str:
    session: Any = Scripted(*given)
    found = taken(lambda: done(cluster.whoami(session)), m.VendorError)
    assert found.isprintable()
    version = taken(lambda: done(cluster.version(session)), m.VendorError)
    assert version is None or version.isprintable()
    return "taken"
