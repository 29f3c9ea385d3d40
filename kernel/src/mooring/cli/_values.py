"""What is written on the command line and in tables: spans of time, instants, labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import click

from mooring.errors import InvalidConfig
from mooring.globs import checked
from mooring.types import instant

T = TypeVar("T")

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", re.ASCII)


def span(text: str) -> timedelta:
    """A span of time.

    >>> span("1h30m"), span("900"), span("2d")
    (datetime.timedelta(seconds=5400), datetime.timedelta(seconds=900), datetime.timedelta(days=2))

    Raises:
        InvalidConfig: the text is none.
    """
    match = SPAN.fullmatch(text.strip().lower())
    if match and any(match.groups()):
        try:
            return timedelta(**dict(zip(("days", "hours", "minutes", "seconds"), _numbers(match), strict=True)))
        except (OverflowError, ValueError):  # more than a timedelta holds, or than Python reads
            pass
    raise InvalidConfig("not a duration; write it like 15m, 1h30m, 900s or 2d")


def _numbers(match: re.Match[str]) -> list[int]:
    return [int(group or 0) for group in match.groups()]


def written(length: timedelta) -> str:
    """A span as `span` reads it, whole seconds.

    >>> written(timedelta(minutes=90)), written(timedelta(0))
    ('1h30m', '0s')
    """
    left, parts = int(length.total_seconds()), []
    for unit, size in UNITS.items():
        if count := left // size:
            parts.append(f"{count}{unit}")
        left %= size
    return "".join(parts) or "0s"


def counted(count: int, noun: str) -> str:
    """So many of these.

    >>> counted(1, "argument"), counted(0, "argument")
    ('1 argument', '0 arguments')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def remaining(end: datetime | None, skew: timedelta = timedelta(0)) -> str:
    """How long until an instant, for people: the two largest units.

    >>> remaining(None), remaining(datetime(2000, 1, 1, tzinfo=UTC))
    ('', 'expired')
    """
    if end is None:
        return ""
    left = end - datetime.now(UTC) - skew
    if left <= timedelta(0):
        return "expired"
    return "".join(re.findall(r"\d+[dhms]", written(left))[:2])


def age(at: datetime | None, now: datetime) -> str:
    """How long ago something was, for people: the largest unit.

    >>> now = datetime(2000, 1, 1, 12, tzinfo=UTC)
    >>> age(now - timedelta(minutes=3, seconds=10), now), age(None, now)
    ('3m', '0s')
    """
    passed = written(max(timedelta(0), now - at)) if at else "0s"
    return passed[: passed.index(next(unit for unit in UNITS if unit in passed)) + 1]


def labels(given: Iterable[str]) -> dict[str, str]:
    """Labels from `key=value`.

    >>> labels(["team=ml", "empty="])
    {'team': 'ml', 'empty': ''}

    Raises:
        InvalidConfig: one has no `=`.
    """
    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or not key.strip():
            raise InvalidConfig("a label is written key=value", field="labels")
        found[key.strip()] = value.strip()
    return found


def wanted_labels(given: Iterable[str]) -> dict[str, str | None]:
    """Labels to filter by: `key=value`, where the value may be a pattern, or `key` for any value.

    >>> wanted_labels(["team=ml", "env"])
    {'team': 'ml', 'env': None}

    Raises:
        InvalidConfig: a label is there twice: as one alone can count, the other would be lost.
    """
    wanted: dict[str, str | None] = {}
    for one in given:
        key, equals, value = one.partition("=")
        if key.strip() in wanted:
            raise InvalidConfig(f"the label {key.strip()!r} is asked for twice; give one, its value may be a pattern")
        wanted[key.strip()] = value.strip() if equals else None
    return wanted


def _read(read: Callable[[str], T], ctx: click.Context, param: click.Parameter, text: str | None) -> T | None:
    """An option's value; the error names the option and does not repeat the text."""
    if text is None:
        return None
    try:
        return read(text)
    except InvalidConfig as error:
        problem = error.message
    raise click.BadParameter(problem, ctx, param)


def to_span(ctx: click.Context, param: click.Parameter, text: str | None) -> timedelta | None:
    """An option's callback: a span longer than nothing."""

    def longer(text: str) -> timedelta:
        if length := span(text):
            return length
        raise InvalidConfig("a duration here is longer than nothing")

    return _read(longer, ctx, param, text)


def to_skew(ctx: click.Context, param: click.Parameter, text: str | None) -> timedelta | None:
    """An option's callback: a span, which may be nothing."""
    return _read(span, ctx, param, text)


def to_patterns(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    """An option's callback: patterns of ids."""
    return tuple(one for text in texts if (one := _read(checked, ctx, param, text)) is not None)


def to_instant(ctx: click.Context, param: click.Parameter, text: str | None) -> datetime | None:
    """An option's callback: a date and time."""
    return _read(instant, ctx, param, text)


def or_none(read: Callable[[click.Context, click.Parameter, str | None], T | None]) -> Callable[..., T | str | None]:
    """The same callback, where an empty text stands: it takes a value away."""

    def callback(ctx: click.Context, param: click.Parameter, text: str | None) -> T | str | None:
        return "" if text == "" else read(ctx, param, text)

    return callback
