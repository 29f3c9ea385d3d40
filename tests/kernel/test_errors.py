"""The tree of errors: its shape, its two axes, its messages."""

import copy
import inspect
import pickle
import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mooring
from mooring import errors
from mooring.errors import InvalidConfig, MooringError, suggest

CLASSES = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, MooringError)]
LEAVES = [one for one in CLASSES if not any(one in other.__bases__ for other in CLASSES)]
BRANCHES = (errors.ConfigError, errors.PluginError, errors.VendorError, errors.StoreError, errors.VaultError)


def test_the_tree_drawn_at_the_head_of_the_module_is_the_tree() -> None:
    drawing = errors.__doc__.partition("MooringError\n")[2].partition("\n\n")[0]
    drawn: dict[str, set[str]] = {}
    for line in drawing.splitlines():
        if branch := re.match(r" +[|`]- (\w+)", line):
            current = drawn.setdefault(branch[1], set())
            line = line[branch.end() :]  # noqa: PLW2901  the rest of the line
        current |= {name for name in re.findall(r"\b[A-Z]\w+", line) if hasattr(errors, name)}

    assert drawn == {
        branch.__name__: {leaf.__name__ for leaf in LEAVES if branch in leaf.__bases__} for branch in BRANCHES
    }


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_error_lies_on_one_branch(leaf: type[MooringError]) -> None:
    assert sum(issubclass(leaf, branch) for branch in BRANCHES) == 1


def test_what_may_pass_by_itself_is_retryable_and_nothing_else() -> None:
    assert {one for one in CLASSES if one.retryable} == {errors.Throttled, errors.Unreachable, errors.Overdue}


@pytest.mark.parametrize("one", CLASSES)
def test_every_error_is_to_be_had_from_the_top(one: type[MooringError]) -> None:
    if one in LEAVES or one is MooringError:
        assert getattr(mooring, one.__name__) is one
        assert one.__name__ in mooring.__all__


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_error_says_when_it_is_raised(leaf: type[MooringError]) -> None:
    assert leaf.__doc__.startswith("Raised when ")


def test_an_error_is_its_message() -> None:
    error = errors.Throttled("slow down", retry_after=timedelta(seconds=3))

    assert (str(error), error.message, error.retry_after) == ("slow down", "slow down", timedelta(seconds=3))
    assert errors.Throttled("slow down").retry_after is None


def test_stamping_adds_and_never_overwrites_what_an_inner_room_said() -> None:
    error = MooringError("x").stamp(verb="issue", resource=None).stamp(verb="verify", connector="c")

    assert error.where == {"verb": "issue", "connector": "c"}


def test_one_errors_whereabouts_are_not_anothers() -> None:
    MooringError("x").stamp(verb="issue")

    assert MooringError("y").where == {}


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_an_error_travels_whole_between_processes(again) -> None:
    invalid = again(InvalidConfig("no", field="port").stamp(verb="register"))
    throttled = again(errors.Throttled("slow", retry_after=timedelta(seconds=1)))

    assert (invalid.message, invalid.field, invalid.where) == ("no", "port", {"verb": "register"})
    assert (throttled.message, throttled.retry_after) == ("slow", timedelta(seconds=1))


NAMES = st.text(min_size=1, max_size=12)


@given(NAMES, st.lists(NAMES, max_size=5))
def test_a_suggestion_names_only_what_there_is(name: str, known: list[str]) -> None:
    said = suggest(name, known)

    if not known:
        assert said == "there are none"
    elif said.startswith("known: "):
        assert said == "known: " + ", ".join(sorted(known))
    else:
        assert said in {f"did you mean {one!r}?" for one in known}


@given(NAMES, st.lists(NAMES, max_size=5))
def test_a_name_that_is_known_suggests_itself(name: str, others: list[str]) -> None:
    assert suggest(name, [*others, name]) == f"did you mean {name!r}?"
