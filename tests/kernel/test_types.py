"""Secrets that never show, configurations that are built without an echo, and the values of time."""

import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import traceback
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
import rich.console
import rich.pretty
import rich.traceback
import yaml
from hypothesis import given
from hypothesis import strategies as st

import mooring as m
from mooring.errors import InvalidConfig
from mooring.types import (
    Config,
    Connector,
    ConnectorType,
    Lifetime,
    Secret,
    Struct,
    build_config,
    fields_of,
    instant,
    split_config,
)

CANARY = "cAnArY-8d1f"
TEXTS = st.text(max_size=20)


# Secret


class Holder(Struct):
    password: Secret
    user: str = "u"


@dataclasses.dataclass
class Foreign:
    password: Secret


def printed_by_rich(value: object) -> str:
    console = rich.console.Console(file=io.StringIO(), width=200)
    console.print(value)
    console.print(rich.pretty.Pretty(value))
    return console.file.getvalue()


def logged(value: object) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("mooring-test-of-secrets")
    logger.propagate = False
    logger.addHandler(handler)
    logger.warning("%s %r %s", value, value, [value], extra={"value": value})
    logger.removeHandler(handler)
    return stream.getvalue()


SHOWN = {
    "repr": repr,
    "str": str,
    "format": format,
    "f-string": lambda secret: f"{secret} {secret!r} {secret!s} {secret!a}",
    "%": lambda secret: "%s %r %a" % (secret, secret, secret),  # noqa: UP031  the old way must not show it either
    "str.format": "{0} {0!r} {0!s}".format,
    "a list": lambda secret: str([secret]),
    "a struct": lambda secret: repr(Holder(password=secret)),
    "a dataclass": lambda secret: repr(Foreign(secret)),
    "pprint": lambda secret: pprint.pformat({"a": secret}),
    "dir": lambda secret: str(dir(secret)),
    "json by str": lambda secret: json.dumps({"a": secret}, default=str),
    "json by repr": lambda secret: json.dumps({"a": secret}, default=repr),
    "msgspec by str": lambda secret: str(msgspec.json.encode(Holder(password=secret), enc_hook=str)),
    "rich": printed_by_rich,
    "rich, in a struct": lambda secret: printed_by_rich(Holder(password=secret)),
    "logging": logged,
}

REFUSED = {
    "format with a width": lambda secret: f"{secret:>40}",
    "concatenation": lambda secret: "x" + secret,
    "join": lambda secret: "".join(iter([secret])),
    "len": len,
    "iteration": list,
    "indexing": lambda secret: secret[0],
    "vars": vars,
    "pickle": pickle.dumps,
    "pickle, oldest": lambda secret: pickle.dumps(secret, protocol=0),
    "pickle, in a struct": lambda secret: pickle.dumps(Holder(password=secret)),
    "copy": copy.copy,
    "deepcopy": lambda secret: copy.deepcopy([secret]),
    "json": json.dumps,
    "msgspec json": msgspec.json.encode,
    "msgspec json, in a struct": lambda secret: msgspec.json.encode(Holder(password=secret)),
    "msgspec msgpack": lambda secret: msgspec.msgpack.encode(Holder(password=secret)),
    "msgspec builtins": lambda secret: msgspec.to_builtins(Holder(password=secret)),
    "yaml": yaml.dump,
    "yaml, safe": lambda secret: yaml.safe_dump({"a": secret}),
    "int": int,
    "bytes": bytes,
    "dataclasses.asdict": lambda secret: dataclasses.asdict(Foreign(secret)),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_a_secret_shows_its_mask_alone(show) -> None:
    said = show(Secret(CANARY))

    assert CANARY not in said
    assert len(show(Secret("x" * 30))) == len(show(Secret("y"))), "the length is not told either"


@pytest.mark.parametrize("take", REFUSED.values(), ids=REFUSED)
def test_what_cannot_mask_a_secret_is_refused_and_does_not_quote_it(take) -> None:
    with pytest.raises((TypeError, AttributeError, yaml.YAMLError)) as caught:
        take(Secret(CANARY))

    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_traceback_that_shows_locals_masks_a_secret() -> None:
    def fail(token: Secret) -> None:
        holder = Holder(password=token)
        raise ValueError(holder)

    with pytest.raises(ValueError, match="Holder") as caught:
        fail(Secret(CANARY))
    trace = caught.tb.tb_next
    plain = traceback.TracebackException(ValueError, caught.value, trace, capture_locals=True)
    console = rich.console.Console(file=io.StringIO(), width=200)
    console.print(rich.traceback.Traceback.from_exception(ValueError, caught.value, trace, show_locals=True))

    for said in ("".join(plain.format()), console.file.getvalue()):
        assert "Secret(" in said
        assert CANARY not in said


@given(TEXTS)
def test_a_secret_reveals_what_it_was_made_of(text: str) -> None:
    assert Secret(text).reveal() == text
    assert bool(Secret(text)) is bool(text)


@given(TEXTS, TEXTS)
def test_secrets_are_equal_when_their_values_are(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) is (one == other)
    assert (Secret(one) != Secret(other)) is (one != other)
    assert Secret(one) != one


def test_secrets_are_compared_in_constant_time() -> None:
    assert "compare_digest" in Secret.__eq__.__code__.co_names


def test_a_secret_has_no_hash_since_that_would_be_a_fingerprint() -> None:
    with pytest.raises(TypeError):
        hash(Secret(CANARY))
    with pytest.raises(TypeError):
        {Secret(CANARY)}


@pytest.mark.parametrize("value", [None, 5, b"x", ["x"], Secret("x")])
def test_a_secret_is_made_of_text(value: Any) -> None:
    with pytest.raises(TypeError, match="made of a str"):
        Secret(value)


def test_text_that_no_codec_takes_is_refused_at_once_since_the_codecs_error_would_quote_it() -> None:
    with pytest.raises(ValueError, match="valid Unicode") as caught:
        Secret(CANARY + "\udcff")

    assert CANARY not in "".join(traceback.format_exception(caught.value))


# Struct


def test_values_are_built_by_keyword_and_do_not_change_subclasses_too() -> None:
    class Child(Holder):
        more: int = 0

    with pytest.raises(TypeError):
        Child(Secret("x"))
    with pytest.raises(AttributeError):
        Child(password=Secret("x")).more = 1


# Config


class Level(Enum):
    LOW = "low"
    HIGH = "high"


class Nested(Config):
    pattern: str = ""

    def __post_init__(self) -> None:
        if self.pattern.startswith("!"):
            raise ValueError(f"Expected something else than {self.pattern}")


class Full(Config):
    """One field of every sort."""

    url: Annotated[str, msgspec.Meta(description="Where it is.")]
    key: Annotated[Secret, msgspec.Meta(description="What it is.")]
    spare: Secret | None = None
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 443
    ratio: float = 0.5
    verify: bool = True
    region: str | None = None
    partition: Literal["aws", "aws-cn"] = "aws"
    level: Level = Level.LOW
    regions: tuple[str, ...] = ()
    tags: dict[str, str] = {}  # noqa: RUF012  msgspec copies it
    since: datetime | None = None
    zone: Annotated[str, msgspec.Meta(pattern="^[a-z]*$")] = ""
    nested: Nested = Nested()


GOOD: dict[str, Any] = {"url": "https://x", "key": "k"}


def test_the_fields_of_a_configuration_are_described_without_a_value() -> None:
    fields = {field.name: field for field in fields_of(Full)}

    assert list(fields) == [item.name for item in msgspec.structs.fields(Full)]
    assert {name for name, field in fields.items() if field.required} == {"url", "key"}
    assert {name for name, field in fields.items() if field.secret} == {"key", "spare"}
    assert {name for name, field in fields.items() if field.multiple} == {"regions", "tags"}
    assert (fields["url"].type, fields["url"].description) == ("str", "Where it is.")
    assert (fields["key"].type, fields["key"].description) == ("secret", "What it is.")
    assert (fields["port"].type, fields["port"].default) == ("int", 443)
    assert (fields["region"].type, fields["region"].default) == ("str", None)
    assert fields["partition"].choices == ("aws", "aws-cn")
    assert fields["port"].choices == ()


def test_a_configuration_is_built_from_texts_as_they_come_from_options_and_the_environment() -> None:
    built = build_config(
        Full,
        GOOD | {"port": "8080", "ratio": "0.25", "verify": "false", "regions": ["a"], "since": "2026-01-02T03:04:05Z"},
    )

    assert (built.port, built.ratio, built.verify, built.regions) == (8080, 0.25, False, ("a",))
    assert built.since == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert built.key == Secret("k")


def test_a_text_that_reads_null_stays_a_text() -> None:
    built = build_config(Full, GOOD | {"region": "null", "spare": "null"})

    assert (built.region, built.spare) == ("null", Secret("null"))


def test_none_stands_for_not_given() -> None:
    assert build_config(Full, GOOD | {"port": None, "spare": None}) == build_config(Full, GOOD)


@pytest.mark.parametrize("nothing", [None, "", Secret("")])
@pytest.mark.parametrize("name", ["url", "key"])
def test_a_required_field_that_is_missing_or_empty_is_named(name: str, nothing: Any) -> None:
    for values in (GOOD | {name: nothing}, {key: value for key, value in GOOD.items() if key != name}):
        if name == "url" and isinstance(nothing, Secret):
            continue
        with pytest.raises(InvalidConfig, match=f"^field '{name}' is required$") as caught:
            build_config(Full, values)
        assert caught.value.field == name


def test_an_unknown_field_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(InvalidConfig, match=r"^unknown field 'prot'; did you mean 'port'\?$") as caught:
        build_config(Full, GOOD | {"prot": CANARY})

    assert caught.value.field == "prot"


class Strict(Config):
    """Raises what a plugin's author might without thinking."""

    account: str
    secret: Secret = Secret("")

    def __post_init__(self) -> None:
        int(self.account)
        if self.account.startswith("9"):
            raise TypeError(f"nine: {self.account} {self.secret.reveal()}")
        if self.account.startswith("8"):
            raise InvalidConfig("field 'account' does not begin with 8", field="account")


MALFORMED = {
    "a number": (Full, "port", GOOD | {"port": CANARY}, "expected `int`, got `str`"),
    "a number out of bounds": (Full, "port", GOOD | {"port": "70000"}, "expected `int` <= 65535"),
    "a flag": (Full, "verify", GOOD | {"verify": CANARY}, "expected `bool`, got `str`"),
    "a choice": (Full, "partition", GOOD | {"partition": CANARY}, "it is one of: aws, aws-cn"),
    "an enum": (Full, "level", GOOD | {"level": CANARY}, "it is not a valid enum"),
    "a list": (Full, "regions", GOOD | {"regions": CANARY}, "expected `array`, got `str`"),
    "an item of a list": (Full, "regions", GOOD | {"regions": [1]}, "expected `str`, got `int`"),
    "a value of a table": (Full, "tags", GOOD | {"tags": {CANARY: 1}}, "expected `str`, got `int`"),
    "a key of a table": (Full, "tags", GOOD | {"tags": {1: CANARY}}, "expected `str`, got `int`"),
    "an instant": (Full, "since", GOOD | {"since": CANARY}, "it is not a valid datetime"),
    "a pattern": (Full, "zone", GOOD | {"zone": CANARY}, "expected `str` matching regex '^[a-z]*$'"),
    "a name inside": (Full, "nested", GOOD | {"nested": {CANARY: 1}}, "it is not a valid struct"),
    "an error inside": (Full, "nested", GOOD | {"nested": {"pattern": f"!{CANARY}"}}, "it is not a valid struct"),
    "a secret that is a number": (Full, "key", GOOD | {"key": 815}, "it is not a valid secret"),
    "a secret that is a list": (Full, "key", GOOD | {"key": [CANARY]}, "it is not a valid secret"),
    "a secret that is not Unicode": (Full, "key", GOOD | {"key": CANARY + "\udcff"}, "it is not a valid secret"),
    "a number that is not Unicode": (
        Full,
        None,
        GOOD | {"port": CANARY + "\udcff"},
        "it holds text that is not valid Unicode; write it in UTF-8",
    ),
    "a ValueError of the plugin": (Strict, None, {"account": CANARY}, "its fields do not fit together"),
    "a TypeError of the plugin": (Strict, None, {"account": "9", "secret": CANARY}, "its fields do not fit together"),
}


@pytest.mark.parametrize(("config", "field", "values", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_value_is_never_echoed(
    config: type[Config], field: str | None, values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidConfig) as caught:
        build_config(config, values)
    error = caught.value
    where = f"field {field!r}" if field else "the configuration"

    assert error.message == f"{where} is malformed: {reason}"
    assert error.field == field
    assert error.__cause__ is None
    assert error.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(error))


def test_what_the_plugin_says_in_our_words_is_handed_on() -> None:
    with pytest.raises(InvalidConfig, match=r"^field 'account' does not begin with 8$"):
        build_config(Strict, {"account": "81"})


@given(
    st.dictionaries(
        st.sampled_from([item.name for item in msgspec.structs.fields(Full)]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.just(CANARY) | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just(CANARY), inner, max_size=1),
            max_leaves=3,
        ),
    )
)
def test_no_value_whatever_is_echoed(values: dict[str, Any]) -> None:
    refused = None
    try:
        built = build_config(Full, GOOD | values)
    except InvalidConfig as error:
        refused = error
    if refused is None:
        assert isinstance(built.key, Secret)
    else:
        assert CANARY not in "".join(traceback.format_exception(refused))
        assert refused.__context__ is None
        assert refused.field in {item.name for item in msgspec.structs.fields(Full)}


CONFIGS = st.builds(
    Full,
    url=st.text(min_size=1, max_size=20),
    key=st.text(min_size=1, max_size=20).map(Secret),
    spare=st.none() | TEXTS.map(Secret),
    port=st.integers(1, 65535),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    verify=st.booleans(),
    region=st.none() | TEXTS,
    partition=st.sampled_from(["aws", "aws-cn"]),
    level=st.sampled_from(Level),
    regions=st.lists(TEXTS, max_size=3).map(tuple),
    tags=st.dictionaries(TEXTS, TEXTS, max_size=3),
    since=st.none() | st.datetimes(timezones=st.just(UTC)),
    nested=st.builds(Nested, pattern=TEXTS.filter(lambda text: not text.startswith("!"))),
)


@given(CONFIGS)
def test_a_configuration_that_is_split_and_stored_is_built_again_as_it_was(config: Full) -> None:
    plain, secrets = split_config(config)
    stored = msgspec.json.decode(msgspec.json.encode(plain))

    assert build_config(Full, stored | secrets) == config
    assert all(isinstance(value, Secret) for value in secrets.values())


def test_what_is_at_its_default_is_left_out_so_that_a_later_default_holds() -> None:
    plain, secrets = split_config(build_config(Full, GOOD))

    assert (plain, secrets) == ({"url": "https://x"}, {"key": Secret("k")})


class Presets(Config):
    """Fields that are something unless they are made nothing."""

    region: str | None = "here"
    key: Secret | None = Secret("preset")
    tags: dict[str, str] | None = msgspec.field(default_factory=lambda: {"a": "b"})


@pytest.mark.parametrize("name", ["region", "key", "tags"])
def test_a_field_that_was_made_nothing_stays_so_in_the_store(name: str) -> None:
    config = build_config(Presets, {name: None})
    plain, secrets = split_config(config)

    assert getattr(config, name) is None
    assert (plain[name], name in secrets) == (None, False)
    assert build_config(Presets, msgspec.json.decode(msgspec.json.encode(plain)) | secrets) == config


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", float("inf")])
def test_a_number_that_json_does_not_have_is_refused_and_does_not_come_back_as_the_default(value: Any) -> None:
    config = build_config(Full, GOOD | {"ratio": value})
    with pytest.raises(InvalidConfig, match=r"^field 'ratio' holds what cannot be stored") as caught:
        split_config(config)

    assert caught.value.field == "ratio"


def test_fields_that_go_by_another_name_outside_are_split_and_built_by_that() -> None:
    class Renamed(Config, rename="kebab"):
        access_key: str
        secret_key: Secret

    built = build_config(Renamed, {"access-key": "a", "secret-key": "s"})

    assert split_config(built) == ({"access-key": "a"}, {"secret-key": Secret("s")})


# Time


SPANS = st.timedeltas(timedelta(0), timedelta(days=400))


@given(st.lists(SPANS, min_size=3, max_size=3).map(sorted), st.none() | st.timedeltas())
def test_a_lifetime_brings_every_wish_within_its_bounds(bounds: list[timedelta], wish: timedelta | None) -> None:
    minimum, default, maximum = bounds
    got = Lifetime(minimum=minimum, default=default, maximum=maximum).clamp(wish)

    assert minimum <= got <= maximum
    if wish is None:
        assert got == default
    elif minimum <= wish <= maximum:
        assert got == wish
    else:
        assert got in (minimum, maximum)


def test_a_wish_for_no_time_at_all_gets_the_least_not_the_usual() -> None:
    lifetime = Lifetime(minimum=timedelta(minutes=15), default=timedelta(hours=1), maximum=timedelta(hours=12))

    assert lifetime.clamp(timedelta(0)) == timedelta(minutes=15)


ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=ZONES)  # noqa: DTZ001  zones are drawn


@given(MOMENTS)
def test_an_instant_is_the_same_moment_in_utc_from_a_datetime_or_its_text(moment: datetime) -> None:
    for form in (moment, moment.isoformat(), f"  {moment.isoformat()}\n", moment.astimezone(UTC).isoformat()):
        got = instant(form)
        assert got == moment
        assert got.tzinfo is UTC


@given(st.integers(0, 4_102_444_800))
def test_an_instant_is_made_of_unix_seconds(seconds: int) -> None:
    assert instant(seconds).timestamp() == seconds
    assert instant(float(seconds)) == instant(seconds)


def test_an_instant_without_a_zone_is_taken_as_utc() -> None:
    expected = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    assert instant("2026-01-02 03:04:05") == instant(datetime(2026, 1, 2, 3, 4, 5)) == expected  # noqa: DTZ001


@pytest.mark.parametrize(
    "value",
    [
        CANARY,
        "",
        "2026-13-01",
        "2026-01-01T25:00:00Z",
        float("nan"),
        float("inf"),
        1e300,
        -(10**20),
        "0001-01-01T00:00:00+14:00",
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    ],
)
def test_what_is_no_instant_is_refused_without_an_echo(value: Any) -> None:
    with pytest.raises(InvalidConfig, match=r"^not a date and time; write it like ") as caught:
        instant(value)

    assert caught.value.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(caught.value))


NOW = datetime(2026, 1, 2, tzinfo=UTC)


def connector(**changes: Any) -> Connector:
    return Connector(
        **{"id": "i", "name": "n", "type": "t", "auth_method": "a", "created_at": NOW, "updated_at": NOW} | changes
    )


@given(st.timedeltas(timedelta(days=-9), timedelta(days=9)), st.timedeltas(timedelta(0), timedelta(days=9)))
def test_a_connector_expires_its_skew_before_its_credentials_do(left: timedelta, skew: timedelta) -> None:
    assert connector(expires_at=NOW + left, expires_skew=skew).expired(NOW) is (left <= skew)


def test_a_connector_expires_at_the_very_instant_and_not_before() -> None:
    one = connector(expires_at=NOW)

    assert one.expired(NOW)
    assert not one.expired(NOW - timedelta(microseconds=1))


@pytest.mark.parametrize("skew", [timedelta(0), timedelta.max])
def test_a_connector_without_an_end_never_expires(skew: timedelta) -> None:
    assert not connector(expires_skew=skew).expired(NOW)


def test_a_skew_longer_than_the_calendar_is_no_accident() -> None:
    assert connector(expires_at=NOW, expires_skew=timedelta.max).expired(NOW - timedelta(days=1))


def test_the_shape_of_a_connector_holds_no_field_for_a_secret_in_the_clear() -> None:
    assert "Secret" not in str([field.type for field in msgspec.structs.fields(Connector)])


# What a plugin describes


def test_a_connector_type_finds_its_methods_and_resource_types_by_name() -> None:
    described = ConnectorType(
        name="acme",
        auth_methods=(m.AuthMethod(name="key", config=Full), m.AuthMethod(name="other", config=Full)),
        resource_types=(m.ResourceType(name="bucket"),),
    )

    assert described.auth_method("other").name == "other"
    assert described.resource_type("bucket").name == "bucket"
    assert described.auth_method("bucket") is None
    assert described.resource_type("key") is None
