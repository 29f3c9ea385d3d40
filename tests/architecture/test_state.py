"""No module of the kernel keeps state: what changes belongs to an object that somebody was handed."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

KERNEL = Path(__file__).parents[2] / "kernel" / "src" / "mooring"

UNCHANGING = {
    "Final", "HookimplMarker", "HookspecMarker", "MappingProxyType", "ParamSpec", "Path", "TypeVar", "compile",
    "datetime", "frozenset", "hasattr", "timedelta", "tuple", "vars",
}  # fmt: skip
"""What may be called at module level: it makes a value that cannot change, or only looks."""

ALLOWED = {
    ("testing.__init__", "_LAZY"): "a table of names that nothing writes",
    ("bus", "_scope"): "a variable of each task, which its own job sets",
    ("registry", "_COLOURS"): "a table of rules that nothing writes",
    ("cli._app", "OURS"): "a table of commands that nothing writes",
    ("cli._connectors", "PLACES"): "a table of commands that nothing writes",
    ("cli._connectors", "group"): "click's groups are objects of modules",
    ("cli._connectors", "short"): "click's groups are objects of modules",
    ("cli._vault", "group"): "click's groups are objects of modules",
    ("cli._backup", "group"): "click's groups are objects of modules",
    ("cli._leases", "group"): "click's groups are objects of modules",
    ("cli._audit", "group"): "click's groups are objects of modules",
    ("cli._secret", "group"): "click's groups are objects of modules",
    ("cli._secret", "VALUES"): "a parameter of two commands, which nothing writes",
    ("cli._secret", "INTERACTIVE"): "a parameter of two commands, which nothing writes",
    ("cli._lazy", "CONTEXT"): "a table of settings that nothing writes",
    ("cli._shells", "SHELLS"): "a table of formats that nothing writes",
    ("cli._types", "NAMES"): "a table of words that nothing writes",
    ("cli._values", "UNITS"): "a table of numbers that nothing writes",
    ("store._sqlite", "SETTINGS"): "a decoder, which keeps nothing",
    ("store._sqlite", "LABELS"): "a decoder, which keeps nothing",
    ("store._schema", "SEALED"): "a decoder, which keeps nothing",
    ("store._ledger", "HOLDERS"): "a decoder, which keeps nothing",
    ("limits", "_asker"): "a context variable: each task sees its own",
    ("limits", "_spent"): "a context variable: each task sees its own",
    ("limits", "DEFAULTS"): "limits, which are frozen",
    ("limits", "_FIELDS"): "a table that nothing writes",
    ("store._ledger", "NEW_HOLDER"): "a string: `format` makes no other",
    ("testing._example", "example"): "an object without state, for the examples in docstrings",
    ("testing._powered", "powered"): "an object without state, for the examples in docstrings",
    ("testing._powered", "system"): "an object without state, for the examples in docstrings",
    ("testing._fake", "contract"): "an object for mypy to check, that nothing uses",
}

WRITERS = {
    "add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update",
    "__setitem__", "__delitem__",
}  # fmt: skip


@pytest.fixture(scope="module")
def modules() -> dict[str, ast.Module]:
    return {
        ".".join(path.relative_to(KERNEL).with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted(KERNEL.rglob("*.py"))
    }


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those that run when the module is imported, in its ifs and tries too."""
    for node in body:
        yield node
        for inner in ("body", "orelse", "finalbody", "handlers"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from statements(getattr(node, inner, []))


def may_change(value: ast.expr | None) -> bool:
    """Whether an expression makes something that could be changed later, as far as its form tells."""
    if value is None or isinstance(value, ast.GeneratorExp):
        return False
    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp | ast.Await):
        return True
    if isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return name not in UNCHANGING
    if isinstance(value, ast.Lambda | ast.Subscript | ast.Name | ast.Attribute | ast.Constant | ast.JoinedStr):
        return False
    return any(may_change(part) for part in ast.iter_child_nodes(value) if isinstance(part, ast.expr))


def changeable(module: ast.Module) -> set[str]:
    """The names that a module binds, when it is imported, to what could be changed."""
    names: set[str] = set()
    for node in statements(module.body):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and may_change(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {ast.unparse(target) for target in targets}
    return names - {"__all__"}


def test_no_module_keeps_what_could_be_changed_but_those_that_are_listed(
    modules: dict[str, ast.Module],
) -> None:
    found = {(name, bound) for name, module in modules.items() for bound in changeable(module)}

    assert found - ALLOWED.keys() == set(), "hand it in, make it a tuple or a frozenset, or list it with its reason"
    assert ALLOWED.keys() - found == set(), "no longer there"


def test_nothing_writes_the_tables(modules: dict[str, ast.Module]) -> None:
    tables = {name for _, name in ALLOWED if name.isupper()}
    assert tables
    for node in (node for tree in modules.values() for node in ast.walk(tree)):
        if isinstance(node, ast.Subscript | ast.Attribute):
            holder = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", None)
            if holder in tables:
                assert isinstance(node.ctx, ast.Load), ast.unparse(node)
                assert getattr(node, "attr", None) not in WRITERS, ast.unparse(node)


def test_no_function_rebinds_a_name_of_its_module_or_remembers_for_the_whole_process(
    modules: dict[str, ast.Module],
) -> None:
    for name, module in modules.items():
        for node in ast.walk(module):
            assert not isinstance(node, ast.Global), f"{name}: global {node.names}"
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                decorators = {ast.unparse(one).partition("(")[0].rpartition(".")[2] for one in node.decorator_list}
                assert not decorators & {"cache", "lru_cache"}, f"{name}: {node.name}"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("A = {}", {"A"}),
        ("A: dict = {}", {"A"}),
        ("A = B = []", {"A", "B"}),
        ("if x:\n    A = {1}", {"A"}),
        ("try:\n    A = 1\nexcept E:\n    A = [y for y in z]", {"A"}),
        ("A = (1, [2])", {"A"}),
        ("A = x or {}", {"A"}),
        ("A = weakref.WeakValueDictionary()", {"A"}),
        ("A = ContextVar('a')", {"A"}),
        ("A = 1, 'x', frozenset({1}), (2,), timedelta(1)", set()),
        ("A = tuple(x for x in y)", set()),
        ("def f():\n    A = {}", set()),
        ("class C:\n    A: int = 1", set()),
    ],
)
def test_the_rule_sees_what_it_should(source: str, names: set[str]) -> None:
    assert changeable(ast.parse(source)) == names
