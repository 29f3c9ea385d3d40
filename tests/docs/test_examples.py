"""What the pages show is so: programs print what they say, commands parse, the tutorial's transcript is real."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from mooring.cli._app import make_app
from mooring.cli._edge import Run
from mooring.cli._fields import Fields, fields_for, split
from mooring.errors import MooringError
from mooring.registry import Registry
from mooring.types import fields_of
from mooring_components.flavors import Flavors

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
PROGRAM = re.compile(r"<!-- run: (\w+) -->\n```python\n(.*?)```(?:\n\n<!-- output -->\n```text\n(.*?)```)?", re.DOTALL)
BLOCK = re.compile(r"^```(console|sh|ini|text)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(mooring [^`]+)`")


class Program(NamedTuple):
    """A Python block that says how to run it, and what it prints."""

    kind: str
    code: str
    output: str | None


def programs(page: Path) -> list[Program]:
    return [Program(*found) for found in PROGRAM.findall(page.read_text(encoding="utf-8"))]


WITH_PROGRAMS = [page for page in PAGES if programs(page)]


# -- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=lambda page: str(page.relative_to(ROOT)))
def test_programs_run_and_print_what_the_page_says(
    page: Path, request: pytest.FixtureRequest, clean_environment: Callable[..., dict[str, str]]
) -> None:
    """The programs of a page run in its order, each in a process of its own, with one home for all."""
    more: dict[str, dict[str, str]] = {"memory": {}}
    for program in programs(page):
        if program.kind not in more:
            more[program.kind] = request.getfixturevalue(f"{program.kind}_variables")
        command = [sys.executable, "-c", program.code]
        environment = clean_environment(**more[program.kind])
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if program.output:
            assert done.stdout == program.output


# -- commands ---------------------------------------------------------------------------------------------------------


class Command(NamedTuple):
    """A command as a page shows it."""

    page: str
    text: str
    whole: bool
    """Whether it would run as it is; a mention may leave things out."""


def commands() -> Iterator[Command]:
    for page in PAGES:
        name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
        for kind, block in BLOCK.findall(text):
            for line in lines(kind, block):
                yield from (Command(name, one, whole=True) for one in mooring_in(line))
        prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        for found in INLINE.findall(prose):
            yield Command(name, " ".join(found.split()), whole=False)


def lines(kind: str, block: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", " ", block)
    if kind == "ini":
        return re.findall(r"credential_process = \S*?(mooring .*)", joined)
    if kind == "sh":
        return re.sub(r"<<(\w+)\n.*?^\1$", "", joined, flags=re.DOTALL | re.MULTILINE).splitlines()
    return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def mooring_in(line: str) -> Iterator[str]:
    """The mooring commands in a line of shell."""
    if not re.search(r"(^|[\s(|])mooring ", line):
        return
    line = line.replace('"$(', " $( ").replace(')"', " ) ")
    line = line.replace("$(", " ( ")
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if (word and set(word) <= set("();<>|&")) or word == "eval":
            if words and words[0] == "mooring":
                yield shlex.join(words)
            words = []
        elif words or not re.fullmatch(r"\w+=.*", word):
            words.append(word)


ALL = sorted(set(commands()))


def test_there_are_commands() -> None:
    assert len(ALL) > 50


@pytest.mark.parametrize("command", ALL, ids=lambda command: f"{command.page}: {command.text}"[:100])
def test_commands_parse(command: Command) -> None:
    words = [word for word in shlex.split(command.text)[1:] if word != "..."]
    app = make_app()
    with app.make_context("mooring", [], obj=Run(), resilient_parsing=True) as root:
        root.obj = Run()
        parse(app, root, words, whole=command.whole)


def parse(group: click.Group, context: click.Context, words: list[str], *, whole: bool) -> None:
    """Find the command, and let it take its words apart, without running it."""
    if not words or words[0] in ("--help", "--version"):
        assert not whole or words
        return
    name = words[0].replace("_", "-")
    found = group.get_command(context, name)
    assert found is not None, f"there is no command {words[0]!r}"
    inner = context
    if isinstance(found, click.Group):
        parse(found, click.Context(found, info_name=name, parent=inner), words[1:], whole=whole)
        return
    try:
        made = found.make_context(name, list(words[1:]), parent=inner)
    except click.MissingParameter:
        if whole:
            raise
        return
    except click.exceptions.Exit:
        return
    if "arguments" in made.params:
        check_fields(found, made)


def check_fields(command: click.Command, context: click.Context) -> None:
    """`register` and `update` take an auth method's fields as options, or a flavor's."""
    options = [option for param in command.params for option in param.opts]
    group = context.parent.info_name if context.parent else None
    if group not in ("connector", "service-connector"):
        if flavor := context.params.get("flavor"):
            kind = context.params.get("type_") or group
            found = Flavors().find(str(kind), flavor)
            fields = Fields({one.name: one for one in fields_of(found.config)}, {}, about="")
            positional, _ = split(context.params["arguments"], fields, options)
            assert len(positional) <= 1
        return
    registry = Registry()
    kind = context.params.get("type_") or "aws"
    if kind not in registry.names():
        return  # a plugin that is not installed
    route = registry.route(kind)
    named = context.params.get("auth_method")
    methods = [route.auth_method(named)] if named else list(route.type.auth_methods)
    try:
        positional, _ = split(context.params["arguments"], fields_for(route, methods), options)
    except MooringError as error:
        pytest.fail(error.message)
    assert len(positional) <= 1


# -- transcripts ------------------------------------------------------------------------------------------------------

MARK = "--8<--"
SAME = (
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z", "INSTANT"),
    (r"127\.0\.0\.1:\d+", "LOOPBACK"),
    (r'"(access_key_id|secret_access_key|session_token|consumer)": "[^"]*"', r'"\1": "..."'),
    (r"\d+\.\d{3}s +\d+ +\d+ +\d+\.\d{3}s", "COST"),
    (r"in \d+\.\d{3}s: \d+ calls?, ", "in SECONDS: SOME calls, "),
    (r"(?<=  )\d+[smh]  ", "AGE "),
)


def normal(text: str) -> str:
    for pattern, instead in SAME:
        text = re.sub(pattern, instead, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def with_scripts(path: str) -> str:
    return os.pathsep.join((str(Path(sys.executable).parent), path))


@pytest.mark.parametrize(
    ("page", "begins", "ends"),
    [
        ("tutorial/first-connector.md", "## On your own machine", "## On a real AWS account"),
        ("how-to/find-resources.md", "# Looking", "the whole of it"),
        ("tutorial/whole-workflow.md", "# From", "the whole of it"),
        ("how-to/components.md", "# Components", "the whole of it"),
        ("how-to/secrets.md", "# Named", "the whole of it"),
        ("how-to/configuration-as-code.md", "# Configuration", "the whole of it"),
        ("explanation/coming-from-zenml.md", "# Coming", "the whole of it"),
    ],
)
def test_the_transcript_is_real(
    page: str,
    begins: str,
    ends: str,
    sandbox_variables: dict[str, str],
    clean_environment: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    """Every console block of that part, in one shell against a sandbox, prints what the page shows."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    part = text.partition(begins)[2].partition(ends)[0]
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", part, re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = step.partition("\n")
            if not command.startswith(("mooring sandbox up", "source ")):
                steps.append((command, output))
    assert len(steps) > 6
    script = "".join(f"{command}\necho '{MARK}'\n" for command, _ in steps)
    variables = sandbox_variables | {"LOGNAME": "ann", "USER": "ann", "PATH": with_scripts(os.environ["PATH"])}
    command = ["bash", "-c", f"exec 2>&1\n{script}"]
    environment = clean_environment(**variables)
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    answers = done.stdout.split(f"{MARK}\n")
    assert len(answers) == len(steps) + 1
    for (command_text, shown), answer in zip(steps, answers, strict=False):
        assert normal(answer) == normal(shown), command_text


# -- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda page: page.name)
def test_links_of_the_root_pages_lead_somewhere(page: Path) -> None:
    """mkdocs checks those of docs/."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target
