"""The contract's own shape: every hook is documented by example, and every power is known everywhere."""

import doctest
import inspect

import pytest

import mooring
from mooring import hookspecs
from mooring.registry import POWERS, Route

SPECIFICATIONS = [
    value
    for value in vars(hookspecs).values()
    if inspect.isclass(value) and getattr(value, "_is_protocol", False) and value.__module__ == hookspecs.__name__
]
HOOKS = [
    (specification, name)
    for specification in SPECIFICATIONS
    for name, value in vars(specification).items()
    if hasattr(value, "mooring_spec")
]


@pytest.mark.parametrize(("specification", "name"), HOOKS, ids=lambda value: getattr(value, "__name__", value))
def test_every_hooks_docstring_holds_an_example(specification, name):
    text = vars(specification)[name].__doc__ or ""
    assert text.split("\n")[0].rstrip().endswith("."), "the first line says what it gives"
    assert any(example.want for example in doctest.DocTestParser().get_examples(text))


def test_powers_are_complete():
    others = {hookspecs.Connector, hookspecs.SystemPlugin, hookspecs.UndoLog}
    assert set(hookspecs.POWERS) == set(SPECIFICATIONS) - others
    assert len(hookspecs.POWERS) == len(set(hookspecs.POWERS)) == 17


def test_a_power_is_one_hook_and_a_field_of_the_route():
    for power in hookspecs.POWERS:
        assert len([name for specification, name in HOOKS if specification is power]) == 1
    optional = {field for field in Route.__struct_fields__ if field in POWERS}
    assert optional == set(POWERS)
    required = {name for specification, name in HOOKS if specification is hookspecs.Connector}
    assert required - {"describe"} == set(Route.__struct_fields__) - optional - {"type", "distribution", "builders"}


def test_the_contract_can_be_had_from_the_package():
    names = {value.__name__ for value in SPECIFICATIONS}
    names |= {name for name, value in vars(hookspecs).items() if name.endswith("Request") and inspect.isclass(value)}
    assert names <= set(mooring.__all__)


def test_requests_are_values():
    request = hookspecs.VerifyRequest(resource_type="bucket")
    with pytest.raises(AttributeError):
        request.resource_type = "other"
    with pytest.raises(TypeError):
        hookspecs.VerifyRequest("bucket")
