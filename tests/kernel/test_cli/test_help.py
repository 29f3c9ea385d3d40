"""The help of every command: what it does, each option, and examples."""

import click
import pytest

from mooring.cli._app import make_app
from mooring.cli._edge import Run


def commands() -> dict[str, click.Command]:
    """All commands that do something, ours and those of installed plugins, by their path."""
    found: dict[str, click.Command] = {}

    def look(group: click.Group, path: str, context: click.Context) -> None:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                look(command, f"{path}{name} ", context)
            else:
                found[f"{path}{name}"] = command

    app = make_app()
    look(app, "", click.Context(app, info_name="mooring", obj=Run()))
    return found


COMMANDS = commands()


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_has_help_and_examples(path: str) -> None:
    command = COMMANDS[path]
    text = command.get_help(click.Context(command, info_name=f"mooring {path}", obj=Run()))
    assert command.help
    assert command.help.splitlines()[0].endswith((".", ":", ";", ","))
    for option in command.params:
        assert not isinstance(option, click.Option) or option.hidden or option.help, option.name
    if not path.startswith("sandbox "):
        assert command.examples  # type: ignore[attr-defined]
        assert "\nExamples:\n" in text
        for example in command.examples:  # type: ignore[attr-defined]
            assert "mooring" in example
    about, _, _ = text.partition("\nExamples:\n")
    assert all(len(line) <= 100 for line in about.splitlines())


def test_there_are_some() -> None:
    assert {"issue", "connector register", "artifact-store connect", "apply", "stack list"} <= COMMANDS.keys()
