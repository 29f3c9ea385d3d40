"""The kernel's parsers: what is drawn for each, and what must hold."""

from __future__ import annotations

import base64
import io
import os
import sqlite3
import tempfile
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from unittest import mock

import anyio
import click
import httpx
import msgspec
from held import Refused, outcome, silent, taken
from hypothesis import strategies as st
from near import CANARY, mangled, near, near_bytes, plain

import mooring as m
from mooring.assembly import settings_from
from mooring.cache import Key
from mooring.cli._fields import fields_for, split, values
from mooring.cli._output import width
from mooring.cli._secrets import Source
from mooring.cli._values import labels, span, to_instant, to_skew, to_span, wanted_labels, written
from mooring.credentials import SHARED, Issued, restore, reveal
from mooring.errors import (
    BrokenPlugin,
    ConfigError,
    InvalidConfig,
    NoMasterKey,
    RecordDamaged,
    StoreCorrupt,
    Tampered,
    VendorError,
    WrongKey,
)
from mooring.globs import is_pattern, matches, overlap
from mooring.http import Http
from mooring.limits import parse_limits
from mooring.masking import Masking
from mooring.registry import bind
from mooring.shelf import SealedShelf
from mooring.store import DAMAGE, entry_in, open_sqlite
from mooring.store._files import file_system
from mooring.store._ledger import body_of
from mooring.testing import Example, example, memory_broker
from mooring.types import Config, ConnectorType, Sealed, Secret, build_config, fields_of, instant, split_config
from mooring.vault import BackupNote, MasterKey, Vault, key_file, parse_keys, read_backup, write_backup

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = base64.b64encode(bytes(range(32))).decode()
VAULT = Vault([MasterKey(id="one", key=Secret(KEY), source="here")])


def in_a_folder(work: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return work(Path(folder))


# Time, secrets, configurations

INSTANTS = near(
    ["2026-01-02T03:04:05Z", "2026-01-02 03:04:05.123456+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01", "20260102"],
    ["T", "Z", "+", "-00:00", "24:00", "60"],
)


@outcome
def check_instant(value: Any) -> None:
    found = taken(lambda: instant(value), InvalidConfig)
    assert found.tzinfo is UTC
    assert instant(found.isoformat()) == found


LIMITS = near(
    ["aws-ecr.rate=5, vendor.at_once=none", "a.b.burst=3,", "x.rate=1e3"], ["none", "inf", "nan", "=", ".", ","]
)


@outcome
def check_limits(value: str) -> None:
    for fields in taken(lambda: parse_limits(value), InvalidConfig).values():
        assert fields
        assert all(number is None or 0 < number < float("inf") for number in fields.values())
        assert fields.get("burst", 1) is not None


PATTERNS = st.tuples(
    near(["s3://prod-*", "*.dkr.ecr.*", "a?c*"], ["*", "?", "[!a]", "[", "]", "[]]", "s3://"]),
    near(["s3://*", "[0-9]*", "*bcd"], ["*", "?", "[a-c]", "[", "!"]),
    near(["s3://prod-1", "abcd", "1.dkr.ecr.x"]),
)


@outcome
def check_patterns(value: tuple[str, str, str]) -> None:
    one, other, text = value
    assert overlap(one, other) == overlap(other, one)
    if matches(text, [one]) and matches(text, [other]):
        assert overlap(one, other)
    assert is_pattern(one) or matches(one, [one])


@outcome
def check_secret(value: Any) -> None:
    found = taken(lambda: Secret(value), TypeError, ValueError)
    assert found.reveal() == value
    assert CANARY not in repr(found)


class Level(Enum):
    LOW = "low"
    HIGH = "high"


class Inner(msgspec.Struct, frozen=True):
    name: str = ""
    size: float | None = None


class Sorts(Config):
    """One field of every sort that a plugin's author may think of."""

    url: Annotated[str, msgspec.Meta(min_length=1)]
    key: Annotated[Secret, msgspec.Meta(description="a secret")]
    spare: Secret | None = None
    present: Secret | None = Secret("present")
    port: Annotated[int, msgspec.Meta(ge=1)] = 443
    ratio: float = 0.5
    verify: bool = True
    region: str | None = "here"
    either: int | str | None = None
    partition: Literal["aws", "aws-cn"] = "aws"
    level: Level = Level.LOW
    regions: tuple[str, ...] = ()
    zones: frozenset[str] = frozenset({"a"})
    tags: dict[str, str] = {}  # noqa: RUF012  msgspec copies it
    numbers: dict[int, str] = {}  # noqa: RUF012
    since: datetime | None = NOW
    life: timedelta = timedelta(0)
    raw: bytes = b""
    inner: Inner | None = Inner()


SORTS = {
    "url": "https://x", "key": CANARY, "spare": "s", "present": "p", "port": "8080", "ratio": "0.25", "verify": "no",
    "region": "eu", "either": "5", "partition": "aws-cn", "level": "high", "regions": ["a", "b"], "zones": ["z"],
    "tags": {"a": "b"}, "numbers": {"1": "x"}, "since": "2026-01-02T03:04:05Z", "life": "PT15M", "raw": "aGVsbG8=",
    "inner": {"name": "n", "size": 1.5},
}  # fmt: skip
CONFIGS = mangled(SORTS, near(list(SORTS)))


def again(config: Config) -> Config:
    """The configuration, after a stay in the store."""
    settings, secrets = taken(lambda: split_config(config), InvalidConfig)
    assert all(isinstance(one, Secret) for one in secrets.values())
    stored = msgspec.json.decode(msgspec.json.encode(settings))
    return build_config(type(config), stored | secrets)


@outcome
def check_config(given: Any) -> str:
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        return "no mapping"
    named = CANARY in "".join(given)  # a field's name is none of its values, and is said
    config = taken(lambda: build_config(Sorts, given), InvalidConfig, secret=not named)
    assert CANARY not in repr(config) or CANARY in repr({**given, "key": 0, "spare": 0, "present": 0})
    assert again(config) == config
    return "taken"


# The vault

KEYS = near([f"one:{KEY}", f"one:{KEY},two:{KEY[:-1]}", f"# note\none:{KEY}\n"], [KEY, "one:", f"{CANARY}:", ",", "="])


def read_again(keys: tuple[MasterKey, ...]) -> None:
    assert keys
    assert len({key.id for key in keys}) == len(keys)
    assert all(len(key.raw()) == 32 for key in keys)
    text = ",".join(f"{key.id}:{key.key.reveal()}" for key in keys)
    assert [(key.id, key.key) for key in parse_keys(text, "there")] == [(key.id, key.key) for key in keys]


@outcome
def check_keys(text: str) -> None:
    read_again(taken(lambda: parse_keys(text, "here"), NoMasterKey))


@outcome
def check_key_file(content: bytes) -> None:
    def read(folder: Path) -> Any:
        path = folder / "master.key"
        path.touch(0o600)
        path.write_bytes(content)
        return taken(lambda: key_file(path), NoMasterKey)

    read_again(in_a_folder(read))


@cache
def sealed() -> Sealed:
    return VAULT.seal("record", {"a": Secret(CANARY), "b": Secret("b")})


@st.composite
def seals(draw: Any) -> Sealed:
    """A seal with something about it changed, or nothing."""
    one = sealed()
    blobs = near_bytes([one.wrapped, *one.fields.values()])
    changes = {
        "key_id": near(["one"]),
        "check": near_bytes([one.check]),
        "wrapped": blobs,
        "fields": st.dictionaries(st.text(), blobs | st.sampled_from(list(one.fields.values())), max_size=3),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(changes)), max_size=2))
    return msgspec.structs.replace(one, **{name: draw(changes[name]) for name in chosen})


@outcome
def check_seal(value: Sealed) -> None:
    found = taken(lambda: VAULT.open("record", value), WrongKey, Tampered, secret=CANARY not in value.key_id)
    assert found == {"a": Secret(CANARY), "b": Secret("b")}


# Backups


def _backup() -> bytes:
    note, sink = BackupNote(created_at=NOW, connectors=1, version="0"), io.BytesIO()
    write_backup(VAULT, note, io.BytesIO(CANARY.encode()), sink)
    return sink.getvalue()


BACKUP = _backup()
BACKUPS = near_bytes([BACKUP], ["mooring backup 1\n", "\x00\x00\x00\x00", "\xff\xff\xff\xff"])


@outcome
def check_backup(content: bytes) -> None:
    """It gives what was sealed, all of it, or nothing."""

    def work() -> bytes:
        _, chunks = read_backup(VAULT, io.BytesIO(content), "the file")
        return b"".join(chunks)

    assert taken(work, StoreCorrupt, WrongKey) == CANARY.encode()


# The shelf

ISSUED = Issued(
    connector_id="1", connector="c", connector_type="example", resource_type="example-bucket", resource_id="a",
    access="read", consumer="me", issued_at=NOW,
    credentials=m.BearerToken(token=Secret(CANARY), expires_at=NOW, narrowed=True),
)  # fmt: skip
SHELF_KEY = Key(
    connector_id="1", fingerprint="f", resource_type="example-bucket", resource_id="a", access="read", ttl=None
)


async def on_the_shelf(folder: Path, change: Any) -> Issued | None:
    shelf = SealedShelf(folder, VAULT, lambda _: SHARED)
    await shelf.put(SHELF_KEY, ISSUED)
    [file] = folder.glob("*.sealed")  # noqa: ASYNC240  (nobody else waits)
    change(file)
    return await shelf.get(SHELF_KEY)


def check_found(found: Issued | None) -> str:
    if found is None:
        return "absent"
    assert isinstance(found.credentials, SHARED)
    assert isinstance(found.issued_at, datetime)
    return "taken"


@outcome
def check_shelf_file(content: bytes) -> str:
    found = in_a_folder(lambda folder: anyio.run(on_the_shelf, folder, lambda file: file.write_bytes(content)))
    return check_found(found)


ISSUED_VALUES = {field: getattr(ISSUED, field) for field in ISSUED.__struct_fields__} | {
    "credentials": reveal(ISSUED.credentials), "issued_at": NOW.isoformat(), "access": "read"
}  # fmt: skip
ISSUED_TEXTS = near([msgspec.json.encode(ISSUED_VALUES).decode()], ['"credentials"', '"type"', "null"])


@outcome
def check_shelf_content(text: str) -> str:
    """What was sealed by another version of ours, under the right key."""
    value = taken(lambda: Secret(text), ValueError)

    def change(file: Path) -> None:
        file.write_bytes(msgspec.msgpack.encode(VAULT.seal(file.stem, {"issued": value})))

    return check_found(in_a_folder(lambda folder: anyio.run(on_the_shelf, folder, change)))


BEARER = reveal(ISSUED.credentials)
CLUSTER = reveal(
    m.KubernetesAccess(server="https://x", cluster="c", token=Secret(CANARY), expires_at=NOW, narrowed=True)
)
LOGIN = reveal(m.RegistryLogin(registry="r", username="u", password=Secret(CANARY), expires_at=None, narrowed=False))
REVEALED = st.one_of(*(mangled(one, near([CANARY, "bearer-token", "type"])) for one in (BEARER, CLUSTER, LOGIN)))


@outcome
def check_restore(value: Any) -> None:
    found = taken(lambda: restore(value, SHARED), ValueError)
    assert restore(reveal(found), SHARED) == found


# The store

COLUMNS = {
    "id": "11111111-2222", "name": "prod", "type": "example", "auth_method": "password", "resource_type": None,
    "resource_id": None, "settings": '{"user": "u"}', "sealed": msgspec.msgpack.encode(sealed()),
    "labels": '{"a": "b"}', "description": "", "owner": "me", "expires_at": NOW.isoformat(),
    "expires_skew": 0.0, "ttl": 900.0,
    "allow_unnarrowed": 0, "allow_long_lived": 0, "created_at": NOW.isoformat(), "updated_at": NOW.isoformat(),
    "version": 1,
}  # fmt: skip
CELLS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("settings", "labels"), near(['{"a": "b"}', "[]", "{}", "null"], ['"a"', "1"])),
    "sealed": near_bytes([COLUMNS["sealed"]]) | st.none(),
    **dict.fromkeys(("expires_at", "created_at", "updated_at"), INSTANTS),
    **dict.fromkeys(("expires_skew", "ttl"), st.floats(allow_nan=False)),
    **dict.fromkeys(("allow_unnarrowed", "version"), st.integers(-(2**63), 2**63 - 1)),
    **dict.fromkeys(("type", "auth_method", "resource_type", "description"), near(["example"])),
}
ROWS = st.fixed_dictionaries({}, optional=CELLS)


@outcome
def check_row(cells: dict[str, Any]) -> str:
    row = COLUMNS | cells

    async def find(path: Path) -> Any:
        async with open_sqlite(path):
            pass
        with closing(sqlite3.connect(path)) as connection, connection:
            marks = ", ".join("?" * len(row))
            try:
                connection.execute(f"INSERT INTO connectors ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
            except (UnicodeEncodeError, sqlite3.IntegrityError):
                raise Refused("SQLite takes no such row") from None
        async with open_sqlite(path) as store:
            try:
                return await store.find("prod")
            except (StoreCorrupt, RecordDamaged) as error:
                silent(error)
                raise Refused(type(error).__name__) from None

    found = in_a_folder(lambda folder: anyio.run(find, folder / "s.db"))
    assert found is None or found.name == "prod"
    return "taken" if found else "absent"


LEASE = {
    "id": "11111111-2222", "connector_id": "1", "connector": "prod", "connector_type": "example", "resource_type": "r",
    "resource_id": "a", "access": "read", "issued_at": NOW.isoformat(), "expires_at": NOW.isoformat(), "ttl": 900.0,
    "narrowed": 1, "revocation": "real", "state": "active", "undo": '["u"]', "attempts": 0, "error": "",
}  # fmt: skip
HOLDER = {"lease": LEASE["id"], "consumer": "me", "first_at": NOW.isoformat(), "last_at": NOW.isoformat(), "count": 1}
EVENT = {"seq": 1, "at": NOW.isoformat(), "event": "Happened", "connector_id": "1", "body": '{"a": {"b": [1, null]}}'}
ENTRY = {
    "at": NOW.isoformat(), "action": "issue", "consumer": "me", "outcome": "ok", "resource_id": None, "count": 1,
    "marks": {"token": "one:00ff"},
}  # fmt: skip
RECORDS = {"leases": LEASE, "holders": HOLDER, "events": EVENT}
INTEGERS = st.integers(-(2**63), 2**63 - 1)
RECORDED: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("issued_at", "expires_at", "first_at", "last_at", "at"), INSTANTS | near([NOW.isoformat()])),
    "ttl": st.floats(allow_nan=False) | st.none(),
    **dict.fromkeys(("narrowed", "attempts", "count"), INTEGERS),
    **dict.fromkeys(("undo", "body"), near(['["u"]', "{}", "[]", "null", '{"a": 1}'], ['"a"', "1", "[", "{"])),
    **dict.fromkeys(("access", "revocation", "state"), near(["read", "real", "active"])),
    **dict.fromkeys(("connector", "resource_id", "error", "consumer", "event"), near(["prod", CANARY])),
}
RECORD_ROWS = st.sampled_from(sorted(RECORDS)).flatmap(
    lambda table: st.tuples(
        st.just(table),
        st.fixed_dictionaries({}, optional={name: RECORDED[name] for name in RECORDS[table] if name in RECORDED}),
    )
)


@outcome
def check_record(given: tuple[str, dict[str, Any]]) -> str:
    """It is read, or named as damaged; nothing else, and by both ways of reading alike."""
    table, cells = given
    rows = {name: row | (cells if name == table else {}) for name, row in RECORDS.items()}

    async def find(path: Path) -> Any:
        async with open_sqlite(path):
            pass
        with closing(sqlite3.connect(path)) as connection, connection:
            for name, row in rows.items():
                marks = ", ".join("?" * len(row))
                try:
                    connection.execute(f"INSERT INTO {name} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
                except (UnicodeEncodeError, sqlite3.IntegrityError):
                    raise Refused("SQLite takes no such row") from None
        async with open_sqlite(path) as store:
            problems = await store.ledger.damaged()
            try:
                return problems, await store.ledger.leases(), await store.ledger.events(after=0)
            except StoreCorrupt as error:
                silent(error)
                assert (len(problems), CANARY in str(problems)) == (1, False)
                raise Refused("StoreCorrupt") from None

    problems, leases, events = in_a_folder(lambda folder: anyio.run(find, folder / "s.db"))
    assert (problems, len(leases), len(events)) == ([], 1, 1)
    moments = [leases[0].issued_at, leases[0].expires_at, events[0].at, leases[0].holders[0].last_at]
    assert all(one.utcoffset() is not None for one in moments if one is not None)
    return "taken"


ENTRIES = near_bytes([msgspec.json.encode(ENTRY)], ['"at"', '{"a":', "[" * 5000, "null", "\ud800"])


@outcome
def check_entry(body: bytes) -> None:
    """What is taken is written as the same again."""
    found = taken(lambda: entry_in(body), *DAMAGE)
    assert found.at.utcoffset() is not None
    assert entry_in(body_of(found)) == found


MOUNTINFO = near_bytes(
    [b"36 35 98:0 / /mnt\\040x rw,noatime master:1 - ext3 /dev/root rw\n22 1 8:1 / / rw - nfs4 a:/b rw\n"],
    [" - ", "\n", " / ", "\\777", "\\0", " "],
)


@outcome
def check_mounts(content: bytes) -> None:
    def read(folder: Path) -> str:
        mounts = folder / "mountinfo"
        mounts.write_bytes(content)
        return file_system(folder / "x" / "mooring.db", mounts)

    assert isinstance(in_a_folder(read), str)


# The environment and the command line

VARIABLES = near(["/home/x", "~", "~nobody-there/x", "postgresql://h/d", "yes", "0", f"one:{KEY}", "80"])
ENVIRONMENTS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("MOORING_HOME", "MOORING_STORE", "MOORING_MASTER_KEY", "MOORING_ALLOW_IMPLICIT"), VARIABLES
    ),
)


@outcome
def check_environment(variables: dict[str, str]) -> None:
    found = taken(lambda: settings_from(variables), InvalidConfig)
    assert isinstance(found.allow_implicit, bool)


@outcome
def check_columns(text: str) -> str:
    if "\x00" in text or any("\ud800" <= sign < "\udc80" or "\udcff" < sign < "\ue000" for sign in text):
        return "no variable can hold it"
    with mock.patch.dict(os.environ, {"MOORING_COLUMNS": text}):
        found = taken(lambda: width(io.StringIO()), InvalidConfig)
    assert found is None or found >= 0
    return "taken"


SPANS = near(["15m", "1h30m", "900", "2d", "1d2h3m4s", "0s"], ["d", "h", "m", "s", "1", "٣"])


@outcome
def check_span(text: str) -> None:
    found = taken(lambda: span(text), InvalidConfig)
    assert found >= timedelta(0)
    assert span(written(found)) == found


@outcome
def check_labels(texts: list[str]) -> None:
    with suppress(Refused):
        wanted = taken(lambda: wanted_labels(texts), InvalidConfig, secret=False)
        assert all(value is None or value == value.strip() for value in wanted.values())
    found = taken(lambda: labels(texts), InvalidConfig)
    assert labels([f"{key}={value}" for key, value in found.items()]) == found


@outcome
def check_options(text: str) -> None:
    option = click.Option(["--o"])
    context = click.Context(click.Command("c"))
    found = []
    for read in (to_span, to_skew, to_instant):
        try:
            found.append(type(read(context, option, text)).__name__)
        except click.BadParameter as error:
            silent(error)
    return " ".join(found)


def sorted_route() -> Any:
    method = m.AuthMethod(name="sorts", config=Sorts)

    class Plugin(Example):
        @m.hookimpl
        def describe(self) -> ConnectorType:
            return ConnectorType(name="sorts", auth_methods=(method,), resource_types=())

    return bind(Plugin())


ROUTE = sorted_route()
FIELDS = fields_for(ROUTE, ROUTE.type.auth_methods)
ARGUMENTS = st.lists(
    near(
        ["--url", "https://x", f"--key={CANARY}", "--port", "8080", "--tags=a=b", "--no-verify", "--verify",
         "--regions=a", "--field.url=x", "-x", "--", "-", f"--zone={CANARY}", "@@at"],
        ["--", "-", "=", "no-"],
    ).filter(lambda text: not text.partition("=")[2].startswith("@") and not text.startswith("@/")),
    max_size=6,
)  # fmt: skip


@outcome
def check_arguments(arguments: list[str]) -> None:
    positional, given = taken(lambda: split(arguments, FIELDS, ["--type"]), InvalidConfig, secret=False)
    assert len(positional) + len(given) <= len(arguments)
    with mock.patch("sys.stdin", io.StringIO(CANARY)):
        found = taken(lambda: values(given, Source(), Masking({})), InvalidConfig)
    assert CANARY not in repr({name: found.get(name) for name in ("key", "spare", "present")})
    taken(lambda: build_config(Sorts, found), InvalidConfig)


SECRET_FIELD = next(field for field in fields_of(Sorts) if field.name == "key")
SOURCES = near_bytes([f"{CANARY}\n".encode(), b"line\r\nline\r\n", b"\xff\xfe", b"\x80"], ["\n", "\r"])


@outcome
def check_source(content: bytes) -> None:
    """The same of a file and of standard input."""

    def from_file(folder: Path) -> str:
        path = folder / "secret"
        path.write_bytes(content)
        return Source().read(SECRET_FIELD, f"@{path}")

    def from_stdin() -> str:
        with mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")):
            return Source().read(SECRET_FIELD, "-")

    try:
        found = in_a_folder(lambda folder: taken(lambda: from_file(folder), InvalidConfig))
    except Refused:
        taken(from_stdin, InvalidConfig)
        raise AssertionError("standard input was taken, and not the file") from None
    assert found == from_stdin()


NAMES = near(["prod", "a.b-c_1", "x" * 129], ["-", ".", " "])
REGISTRATIONS = st.tuples(NAMES, st.dictionaries(near(["team", ""]), near(["ml", "x" * 300]), max_size=2))


@outcome
def check_registration(given: tuple[str, dict[str, str]]) -> None:
    name, given_labels = given

    async def register() -> Any:
        async with memory_broker(example) as broker:
            await broker.register(name, type="example", config={"user": "u"}, labels=given_labels, verify=False)
            return await broker.get(name)

    found = taken(lambda: anyio.run(register), ConfigError, secret=False)
    assert (found.name, found.labels) == (name, given_labels)


# Plugins, and what answers over HTTP

DESCRIBED = ConnectorType(
    name="example", auth_methods=(m.AuthMethod(name="a", config=Sorts),), resource_types=(m.ResourceType(name="r"),)
)


class Listed(Config):
    tokens: list[Secret] = []  # noqa: RUF012


class Nesting(Config):
    inner: dict[str, Unknown] = {}  # type: ignore[name-defined]  # noqa: F821, RUF012


METHODS = st.builds(
    m.AuthMethod, name=near(["a"]), config=st.sampled_from([Sorts, Listed, Nesting, Inner, int, None, "Sorts"])
)
DESCRIPTIONS = st.one_of(
    plain(near(["a"])),
    st.builds(
        ConnectorType,
        name=near(["example"]),
        auth_methods=st.lists(METHODS | plain(near(["a"])), max_size=2).map(tuple) | plain(near(["a"])),
        resource_types=st.lists(st.builds(m.ResourceType, name=near(["r"])) | plain(near(["r"])), max_size=2).map(tuple)
        | plain(near(["r"])),
    ),
)


@outcome
def check_plugin(described: Any) -> None:
    class Plugin(Example):
        @m.hookimpl
        def describe(self) -> ConnectorType:
            return described  # type: ignore[no-any-return]

    route = taken(lambda: bind(Plugin(), name="example"), BrokenPlugin, secret=False)
    for method in route.type.auth_methods:
        assert "tokens" not in {field.name for field in fields_of(method.config)}


REPLIES = st.tuples(
    st.sampled_from([200, 200, 204, 301, 401, 403, 404, 418, 429, 429, 500, 503]),
    st.dictionaries(
        st.sampled_from(["retry-after", "date", "content-type"]),
        near(["17", "Fri, 02 Jan 2026 03:04:05 GMT", "application/json; charset=utf-16", "²"]).map(
            lambda text: text.encode("utf-8", "replace").replace(b"\n", b"").replace(b"\r", b"").replace(b"\0", b"")
        ),
        max_size=3,
    ),
    near_bytes([b'{"login": "ann"}', b"[]", b""], ['"', "[" * 100_000]),
)


@outcome
def check_http(reply: tuple[int, dict[str, bytes], bytes]) -> str:
    status, headers, body = reply

    async def ask() -> Any:
        def answer(_: httpx.Request) -> httpx.Response:
            return httpx.Response(
                status, headers=list(headers.items()), content=body + CANARY.encode() * (status > 299)
            )

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            return await Http(client).at("https://api.example", authorization=f"Bearer {CANARY}").get_json("/me")

    try:
        anyio.run(ask)
    except VendorError as error:
        silent(error)
        refusal = error
    else:
        assert status < 300
        return "taken"
    assert refusal.retry_after is None or refusal.retry_after >= timedelta(0)
    return f"{type(refusal).__name__} {refusal.retry_after is None}"


@cache
def client() -> httpx.AsyncClient:
    """Never used: to make one costs a TLS context."""
    return httpx.AsyncClient()


@outcome
def check_address(address: str) -> None:
    said = taken(lambda: repr(Http(client()).at(address)), InvalidConfig)
    assert "@" not in said, "what stands before it may be a password"


ADDRESSES = near(
    ["https://host/path", f"https://ann:{CANARY}@host:1", "http://[::1]:80/"], ["@", ":", "/", "[", "]", "?"]
)
