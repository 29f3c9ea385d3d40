"""Events: past tense, told apart on the wire, and without room for a secret."""

import inspect
import re
import typing
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from mooring import events
from mooring.events import ConnectorRegistered, CredentialsIssued, Event, Lagged
from mooring.types import Secret

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BASES = {events.Event, events.ConnectorEvent, events.LeaseEvent}
EVENTS = [one for one in vars(events).values() if inspect.isclass(one) and issubclass(one, Event) and one not in BASES]
SAMPLES = {str: "x", int: 3, bool: True, datetime: NOW, timedelta: timedelta(seconds=2), type(None): None}


def sample(event: type[Event]) -> Event:
    values = {}
    for field in msgspec.structs.fields(event):
        kind = next(iter(typing.get_args(field.type)), field.type)
        values[field.name] = kind if isinstance(kind, str) else SAMPLES[kind]
    return event(**values)


def test_there_are_events() -> None:
    assert len(EVENTS) >= 12


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_named_for_what_has_happened(event: type[Event]) -> None:
    assert re.fullmatch(r"[A-Z]\w+(ed|Found|Gone)", event.__name__)


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_comes_back_from_the_wire_as_itself(event: type[Event]) -> None:
    one = sample(event)
    wire = msgspec.json.encode(one)

    assert msgspec.json.decode(wire)["event"] == event.__name__
    assert msgspec.json.decode(wire, type=typing.Union[tuple(EVENTS)]) == one  # noqa: UP007  made at run time


@pytest.mark.parametrize("event", [*EVENTS, Lagged])
def test_no_field_of_an_event_could_hold_a_secret(event: type) -> None:
    """Only texts, numbers, flags, instants and spans: no Secret, no Any, no mapping that anything could be put in."""
    plain = {str, int, bool, datetime, timedelta, type(None)}
    for field in msgspec.structs.fields(event):
        parts = set(typing.get_args(field.type)) or {field.type}
        assert all(part in plain or isinstance(part, str) for part in parts), field.name


def test_an_event_cannot_be_made_with_a_secret_on_the_wire() -> None:
    event = ConnectorRegistered(at=NOW, connector_id=Secret("canary"), connector="c", connector_type="t")

    with pytest.raises(TypeError):
        msgspec.json.encode(event)
    assert "canary" not in repr(event)


def test_events_are_values() -> None:
    one = sample(CredentialsIssued)

    assert one == sample(CredentialsIssued)
    assert hash(one) == hash(sample(CredentialsIssued))
    with pytest.raises(AttributeError):
        one.at = NOW
