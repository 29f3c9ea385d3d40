from datetime import UTC, datetime, timedelta

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.cli._values import (
    age,
    labels,
    or_none,
    remaining,
    span,
    to_instant,
    to_skew,
    to_span,
    wanted_labels,
    written,
)
from mooring.errors import InvalidConfig
from mooring.globs import checked, labelled


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15m", 900),
        ("1h30m", 5400),
        ("900", 900),
        ("900s", 900),
        ("12h", 43200),
        ("2d", 172800),
        (" 1H ", 3600),
        ("0", 0),
    ],
)
def test_spans(text: str, seconds: int) -> None:
    assert span(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "m", "1w", "-5m", "1.5h", "30m1h", "ten", "٣m", "99999999999999999999d"])
def test_what_is_no_span_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(InvalidConfig, match="not a duration") as caught:
        span(text)
    assert text in {"", "m"} or text not in caught.value.message


def test_a_number_that_is_longer_than_python_reads_is_no_duration() -> None:
    with pytest.raises(InvalidConfig, match="not a duration"):
        span("9" * 5000)


@given(st.integers(0, 10**9))
def test_a_span_that_was_written_is_read_again(seconds: int) -> None:
    assert span(written(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


def test_what_remains_is_told_in_two_units() -> None:
    now = datetime.now(UTC)
    assert remaining(None) == ""
    assert remaining(now - timedelta(seconds=1)) == "expired"
    assert remaining(now + timedelta(minutes=10), timedelta(minutes=10)) == "expired"
    assert remaining(now + timedelta(days=3, hours=2, minutes=5)) == "3d2h"


def test_labels() -> None:
    assert labels(["a=b=c", " k = v "]) == {"a": "b=c", "k": "v"}
    assert wanted_labels(["a", "b="]) == {"a": None, "b": ""}
    for wrong in ("a", "=v"):
        with pytest.raises(InvalidConfig, match="key=value"):
            labels([wrong])


def test_options() -> None:
    option = click.Option(["--ttl"])
    ctx = click.Context(click.Command("x"))
    assert to_span(ctx, option, None) is None
    assert to_skew(ctx, option, "0") == timedelta(0)
    assert to_instant(ctx, option, "2027-01-01") == datetime(2027, 1, 1, tzinfo=UTC)
    assert or_none(to_span)(ctx, option, "") == ""
    for wrong in ("0", "soon"):
        with pytest.raises(click.BadParameter) as caught:
            to_span(ctx, option, wrong)
        assert "soon" not in str(caught.value)


@pytest.mark.parametrize(
    ("has", "wants", "fits"),
    [
        ({"team": "data"}, "team=da*", True),
        ({"team": "data"}, "team=d?t[a-b]", True),
        ({"team": "data"}, "team=DA*", False),
        ({"team": "data"}, "team=dat", False),
        ({"team": "a[1]"}, "team=a[1]", True),
        ({"team": "a1"}, "team=a[1]", True),
        ({"team": ""}, "team=", True),
        ({"team": "data"}, "team=", False),
        ({"env": "data"}, "team=*", False),
        ({"env": "data"}, "env", True),
    ],
)
def test_labels_fit_exactly_or_as_a_pattern(has: dict[str, str], wants: str, fits: bool) -> None:
    wanted = wanted_labels([wants])
    assert labelled(has, wanted) is fits


def test_patterns() -> None:
    for good in ("s3://prod-*", "a?c", "[a-z]x", "[[]x]", "x]", "[!a]", "[]]", " ", "[z]-[a]"):
        assert checked(good) == good
    for bad, says in (("", "empty"), ("a[b", "no ]"), ("[", "no ]"), ("[]", "no ]"), ("[z-a]", "backwards")):
        with pytest.raises(InvalidConfig, match=says):
            checked(bad)


def test_ages() -> None:
    now = datetime(2000, 1, 2, tzinfo=UTC)
    for seconds, shown in ((0, "0s"), (59.9, "59s"), (190, "3m"), (7199, "1h"), (200_000, "2d"), (-5, "0s")):
        assert age(now - timedelta(seconds=seconds), now) == shown
