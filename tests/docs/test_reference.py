"""The reference is what docs/generate.py writes of the code as it is, and nothing is missing in it."""

import ast
import inspect
import re
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from mooring import errors, events, hookspecs, types
from mooring.cli._app import make_app

DOCS = Path(__file__).parents[2] / "docs"


def load(path: Path) -> ModuleType:
    spec = spec_from_file_location("docs_generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load(DOCS / "generate.py")
AGAIN = "run: .venv/bin/python docs/generate.py"


def text(path: str) -> str:
    return (DOCS / "reference" / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", generate.PAGES)
def test_page_is_up_to_date(path: str) -> None:
    assert (DOCS / path).exists(), AGAIN
    assert (DOCS / path).read_text(encoding="utf-8") == generate.text_of(path), AGAIN


def test_shown_files_are_up_to_date(pages: Any) -> None:
    for file in pages.files:
        content = file.read_text(encoding="utf-8")
        assert generate.with_sources(content) == content, f"{file.relative_to(pages.root)}: {AGAIN}"


@pytest.mark.parametrize("specification", [hookspecs.Connector, *hookspecs.POWERS, hookspecs.SystemPlugin])
def test_hooks_page_shows_every_hook_with_its_signature(specification: type) -> None:
    shown = text("hooks.md")
    hooks = [name for name, hook in vars(specification).items() if hasattr(hook, "mooring_spec")]
    assert hooks
    for name in hooks:
        source = inspect.cleandoc("\n" + inspect.getsource(vars(specification)[name]))
        function = ast.parse(source).body[0]
        assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        assert f"### {name}" in shown
        function.decorator_list = []
        function.body = [ast.Expr(ast.Constant(...))]
        wanted = ast.unparse(function)
        blocks = re.findall(r"```python\n(.*?)```", shown, re.DOTALL)
        found = [
            ast.unparse(ast.parse(f"{block.strip()}: ...")) for block in blocks if re.match(r"(async )?def ", block)
        ]
        assert wanted in found
        assert next(iter(inspect.cleandoc(vars(specification)[name].__doc__).splitlines())) in shown


def test_errors_page_shows_every_error() -> None:
    shown = text("errors.md")
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.MooringError):
            assert f"`{name}`" in shown


def test_events_page_shows_every_event() -> None:
    shown = text("events.md")
    for name, kind in vars(events).items():
        if isinstance(kind, type) and issubclass(kind, events.Event):
            assert f"### {name}" in shown


@pytest.mark.parametrize("name", ["aws", "docker"])
def test_a_connector_types_page_shows_every_method_field_and_resource_type(name: str) -> None:
    (point,) = entry_points(group="mooring.connectors", name=name)
    shown = text(f"connector-types/{name}.md")
    described = point.load().describe()
    for method in described.auth_methods:
        _, _, section = shown.partition(f"### {method.name}\n")
        section = section.partition("\n### ")[0]
        for field in types.fields_of(method.config):
            assert f"`{field.name}`" in section
            assert field.description, f"{method.name}: {field.name} has no description"
    for kind in described.resource_types:
        assert f"### {kind.name}" in shown
        assert all(form in shown for form in kind.formats)


def test_commands_page_shows_every_command_and_option() -> None:
    shown = text("cli.md")

    def check(group: click.Group, context: click.Context, path: str) -> None:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            assert f"## {path} {name}\n" in shown
            for option in command.params:
                if isinstance(option, click.Option) and not option.hidden:
                    assert f"`{option.opts[0]}`" in shown
            if isinstance(command, click.Group) and name != "connector":
                check(command, click.Context(command, parent=context), f"{path} {name}")

    app = make_app()
    check(app, click.Context(app, info_name="mooring"), "mooring")


def test_settings_page_shows_every_variable() -> None:
    from mooring import assembly

    variables = set(re.findall(r"MOORING_[A-Z_]+", inspect.getsource(assembly)))
    assert variables
    assert all(f"`{name}`" in text("settings.md") for name in variables)
