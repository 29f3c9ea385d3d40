"""Writes the reference from the code: `python docs/generate.py`. A test fails when what is there is stale."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from mooring import assembly, credentials, errors, events, hookspecs, limits, registry, types
from mooring.cli._app import make_app
from mooring.cli._edge import CODES, EXIT_CODES
from mooring.cli._shells import formats_of
from mooring.cli._values import written

DOCS = Path(__file__).parent
MARK = "<!-- Written by docs/generate.py; do not edit. -->"
PAGES: dict[str, Callable[[], Iterator[str]]] = {}


def page(path: str) -> Callable[[Callable[[], Iterator[str]]], Callable[[], Iterator[str]]]:
    """Say which page a function writes, block by block."""

    def enter(write: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
        PAGES[f"reference/{path}"] = write
        return write

    return enter


def text_of(path: str) -> str:
    """What the page should say."""
    blocks = [block.strip("\n") for block in PAGES[path]()]
    return "\n\n".join([MARK, *(block for block in blocks if block)]) + "\n"


# -- pieces -----------------------------------------------------------------------------------------------------------


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table, unless it would have no rows."""
    if not rows:
        return ""
    cells = [header, tuple("---" for _ in header), *rows]
    return "\n".join(
        "| " + " | ".join(one.replace("|", "\\|").replace("\n", " ") for one in row) + " |" for row in cells
    )


def code(text: str, language: str = "python") -> str:
    """A block of code."""
    return f"```{language}\n{text.strip(chr(10))}\n```"


def items(names: Any) -> str:
    """Names as code, with commas."""
    return ", ".join(f"`{name}`" for name in names)


def prose(docstring: str | None) -> Iterator[str]:
    """A docstring as Markdown: sections become bold words with a list, examples blocks of code."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring or "")):
        if paragraph.startswith(">>> "):
            yield code(paragraph, "text")  # ruff would format it, and differently from its source
        elif (section := re.match(r"(Args|Returns|Raises|Cancellation|Source):\s*", paragraph)) and "\n" in paragraph:
            yield f"**{section[1]}**"
            yield "\n".join(f"- {one}" for one in _entries(inspect.cleandoc("\n" + paragraph[section.end() - 1 :])))
        else:
            yield paragraph


def _entries(text: str) -> list[str]:
    entries: list[str] = []
    for line in text.strip("\n").splitlines():
        if line.startswith(" ") and entries:
            entries[-1] += " " + line.strip()
        else:
            entries.append(re.sub(r"^([\w, ]+):", r"`\1`:", line.strip()))
    return entries


class Source:
    """A module's classes as they are written."""

    def __init__(self, module: ModuleType) -> None:
        text = inspect.getsource(module)
        self._lines = text.splitlines()
        self.classes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}

    def signature(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
        """The line or lines of a `def`, without its body."""
        lines = self._lines[function.lineno - 1 : function.body[0].lineno - 1]
        return inspect.cleandoc("\n".join(lines)).removesuffix(":")

    def hooks(self, name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """The hooks of a specification."""
        for node in self.classes[name].body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def fields(self, name: str) -> list[tuple[str, str, str]]:
        """Name, type and meaning of a value's own fields; a default is shown after the type."""
        found: list[tuple[str, str, str]] = []
        for node in self.classes[name].body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                default = f" = {ast.unparse(node.value)}" if node.value else ""
                found.append((f"`{node.target.id}`", f"`{ast.unparse(node.annotation)}{default}`", ""))
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and found:
                found[-1] = (*found[-1][:2], inspect.cleandoc(str(node.value.value)))
        return found

    def value(self, name: str) -> Iterator[str]:
        """A value: what it is, and its fields."""
        yield f"### {name}"
        yield from prose(ast.get_docstring(self.classes[name]))
        yield table(("Field", "Type", "Meaning"), self.fields(name))


# -- pages ------------------------------------------------------------------------------------------------------------


@page("cli.md")
def cli() -> Iterator[str]:
    """Every command and option."""
    yield "# Commands"
    yield (
        "Data goes to stdout, everything else to stderr. Options are accepted with dashes and underscores. `--debug`, "
        "before or after the command's name, shows what was being done when an error came, and its traceback, with "
        "secrets masked."
    )
    app = make_app()
    context = click.Context(app, info_name="mooring", obj=None)
    yield code(EXIT_CODES.removeprefix("\b\n"), "text")
    yield from _commands(app, context, "mooring")


def _commands(group: click.Group, context: click.Context, path: str) -> Iterator[str]:
    seen: dict[int, str] = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        full = f"{path} {name}"
        if id(command) in seen:
            yield f"## {full}"
            yield f"The same as `{seen[id(command)]}`."
            continue
        seen[id(command)] = full
        inner = click.Context(command, info_name=name, parent=context)
        yield f"## {full}"
        yield from _command(command, inner, full)
        if isinstance(command, click.Group):
            yield from _commands(command, inner, full)


def _command(command: click.Command, context: click.Context, full: str) -> Iterator[str]:
    arguments = [str(one.make_metavar(context)) for one in command.params if isinstance(one, click.Argument)]
    if not isinstance(command, click.Group):
        yield code(" ".join((full, "[OPTIONS]", *arguments)), "text")
    yield inspect.cleandoc(command.help or "").replace("\b\n", "")
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    yield table(("Option", "Meaning"), [_option(one, context) for one in options])
    if examples := getattr(command, "examples", ()):
        yield code("\n".join(examples), "sh")


def _option(option: click.Option, context: click.Context) -> tuple[str, str]:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    value = "" if option.is_flag else f" `{option.make_metavar(context)}`"
    meaning = option.help or ""
    default = option.default
    if isinstance(default, str) and default and not option.is_flag:
        meaning += f" Default: `{default}`."
    return names + value, meaning


@page("components.md")
def components() -> Iterator[str]:
    """Component types, their flavors, and the hook that adds some."""
    from mooring_components import documents, flavors

    known = flavors.Flavors(plugins=())
    yield "# Components"
    yield (
        "Component types and flavors of `mooring-components`; packages add others ([how](../how-to/components.md"
        "#flavors-of-your-own)). `mooring component flavors` lists what is installed."
    )
    for kind, title in known.types().items():
        yield f"## {kind}"
        yield f"{title}."
        rows = [
            (
                f"`{one.name}`",
                one.title,
                f"`{one.resource_type}`" if one.resource_type else "",
                ", ".join(f"`{key}`" for key in one.secret_keys),
                _fields(one.config),
            )
            for one in known.of(kind)
        ]
        yield table(("Flavor", "Title", "Needs", "Or a secret with", "Fields (* required)"), rows)
    source = Source(flavors)
    yield "## Values that flavors are made of"
    for name in ("Flavor", "Opening"):
        yield from source.value(name)
    yield "## mooring.yaml"
    for name in ("Desired", "ConnectorEntry", "ComponentEntry", "FromEnvironment", "FromFile"):
        yield from Source(documents).value(name)


def _fields(config: type[types.Config]) -> str:
    return ", ".join(f"`{one.name}`{'*' if one.required else ''}" for one in types.fields_of(config))


@page("hooks.md")
def hooks() -> Iterator[str]:
    """Every hook with its signature and docstring."""
    source = Source(hookspecs)
    yield "# Hooks"
    yield from prose(hookspecs.__doc__)
    yield "See [write a plugin](../how-to/write-a-plugin.md) for a whole one."
    yield "## What every connector does"
    yield from _hooks(source, "Connector")
    yield "## Optional powers"
    yield (
        "Each is a specification of its own with one hook, present or absent; "
        "`mooring service-connector describe-type` shows which."
    )
    for power in hookspecs.POWERS:
        yield from _hooks(source, power.__name__)
    yield "## What a system plugin may do"
    yield from _hooks(source, "SystemPlugin")
    yield "## Values that hooks get and give"
    for name, node in source.classes.items():
        if any(isinstance(base, ast.Name) and base.id == "Struct" for base in node.bases):
            yield from source.value(name)
    for name in ("ConnectorType", "AuthMethod", "Lifetime", "ResourceType", "Limit", "Resource", "Unit", "Identity"):
        yield from Source(types).value(name)
    for name in ("Credentials", "BearerToken", "KubernetesAccess", "RegistryLogin"):
        yield from Source(credentials).value(name)


def _hooks(source: Source, specification: str) -> Iterator[str]:
    yield from prose(ast.get_docstring(source.classes[specification]))
    for hook in source.hooks(specification):
        name = f"{hook.name}" if specification != "SystemPlugin" else f"{hook.name} (system)"
        yield f"### {name}"
        yield code(source.signature(hook))
        yield from prose(ast.get_docstring(hook))


@page("errors.md")
def failures() -> Iterator[str]:
    """The tree of errors, and exit codes."""
    yield "# Errors and exit codes"
    yield (
        "Every error that mooring raises is a `MooringError`. Two things can be asked of one: whose fault it is (its "
        "branch), and whether the same call may succeed later (`retryable`, and `retry_after` where the "
        "vendor says when). `where` says what was being done: any of `connector`, `type`, `verb`, `resource`. A "
        "message is one sentence and never holds a secret or the value of a field."
    )
    yield "## Exit codes"
    yield "The command line ends in the code of the branch."
    yield code(EXIT_CODES.removeprefix("\b\n"), "text")
    yield "## The tree"
    exits = dict(CODES)
    rows = []
    for kind, depth in _tree(errors.MooringError, 0):
        ends = next((str(code) for branch, code in exits.items() if issubclass(kind, branch)), "1")
        name = "&nbsp;" * 4 * depth + f"`{kind.__name__}`"
        meaning = " ".join(next(prose(kind.__doc__)).split())
        rows.append((name, meaning, "yes" if kind.retryable else "", ends))
    yield table(("Error", "Meaning", "Retryable", "Exit code"), rows)


def _tree(kind: type[errors.MooringError], depth: int) -> Iterator[tuple[type[errors.MooringError], int]]:
    yield kind, depth
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _tree(below, depth + 1)


@page("events.md")
def happenings() -> Iterator[str]:
    """Every event with its fields."""
    yield "# Events"
    yield from prose(events.__doc__)
    yield (
        "Subscribe with `async with broker.subscribe(CredentialsIssued) as events`; a base class stands for all events "
        "below it, no class for all. `open_broker(journal=True)` makes each a line of structlog, named by its class."
    )
    source = Source(events)
    for name in source.classes:
        yield from source.value(name)
        bases = [ast.unparse(base) for base in source.classes[name].bases]
        if bases not in (["Struct"], ["Event"]):
            yield f"And the fields of `{bases[0]}`."


@page("settings.md")
def settings() -> Iterator[str]:
    """Environment variables."""
    yield "# Settings"
    yield (
        "Everything that the environment decides. A program may hand in the same as "
        "`open_broker(settings=mooring.assembly.Settings(...))`, and then no variable is read."
    )
    rows = []
    for name, kind, meaning in Source(assembly).fields("Settings"):
        found = re.search(r"MOORING_\w+", meaning)
        variable = f"`{found[0]}`" if found else ""
        said = re.sub(r"(: |)\bMOORING_\w+(: |, or )", lambda found: "; by default " if found[1] else "", meaning)
        rows.append((variable, said[:1].upper() + said[1:], f"{name} {kind}"))
    yield table(("Variable", "Meaning", "Field of Settings"), rows)
    debug = next(one for one in make_app().params if isinstance(one, click.Option) and one.envvar)
    yield "For the command line alone:"
    more = [(f"`{debug.envvar}`", "The same as `--debug`."), ("`NO_COLOR`", "No colour, whatever its value.")]
    wide = (
        "How wide tables are, in a pipe too. Unset, a pipe gets them as wide as they need to be, with nothing cut or "
        "wrapped, and a terminal in its own width."
    )
    more.append(("`MOORING_COLUMNS`", wide))
    where = "Where a broker that lasts serves [metrics](../how-to/telemetry.md), with `mooring-telemetry`."
    more.append(("`MOORING_METRICS_PORT`, `MOORING_METRICS_HOST`", where))
    more.append(("`COLUMNS`", "How wide a terminal is. Counts on a terminal alone."))
    yield table(("Variable", "Meaning"), more)
    yield "## Limits of every vendor"
    yield (
        "Beside what each connector type declares (see its page); "
        "how they work, and how `MOORING_LIMITS` changes them: [limits](../how-to/limits.md)."
    )
    yield _limits(limits.DEFAULTS)
    yield "## Files"
    yield "The home folder is `MOORING_HOME`, or if that is unset:"
    yield table(("System", "Home folder"), [
        ("Linux", "`~/.local/share/mooring`; with `XDG_DATA_HOME`, the folder `mooring` in that"),
        ("macOS", "`~/Library/Application Support/mooring`"),
        ("Windows", "`%LOCALAPPDATA%\\mooring`"),
    ])  # fmt: skip
    yield "`mooring doctor` names it. It is made for its owner alone (mode 0700), and holds:"
    yield table(("File", "What it is"), [
        ("`mooring.db`", "Connectors, their secrets sealed; leases, audit log, events (SQLite, at times two more)"),
        ("`master.key`", "The master keys, where `MOORING_MASTER_KEY` is not set. Made with the first secret."),
        ("`cache/`", "Issued credentials, sealed. May be deleted at any time."),
    ])  # fmt: skip


@page("benchmarks.md")
def benchmarks() -> Iterator[str]:
    """The budgets."""
    yield "# Benchmarks"
    yield (
        "`make bench` measures each of these, beside its yardstick in the same run, prints it, and fails if it is over "
        "its budget. A ratio (x) holds on any machine; figures in other units are promises of the product."
    )
    budgets = tomllib.loads((DOCS.parent / "benchmarks" / "budgets.toml").read_text())
    rows = [
        (f"`{name}`", f"{one['most']:g} {one['unit']}", f"`{one['yardstick']}`" if "yardstick" in one else "")
        for name, one in budgets.items()
    ]
    yield table(("Benchmark", "At most", "Yardstick"), rows)


@page("connector-types/kubernetes.md")
def kubernetes() -> Iterator[str]:
    """The Kubernetes connector type."""
    import mooring_kubernetes

    yield from _connector_type(mooring_kubernetes.connector)


@page("connector-types/aws.md")
def aws() -> Iterator[str]:
    """The AWS connector type."""
    import mooring_aws

    yield from _connector_type(mooring_aws.connector)
    yield "## What each access allows"
    yield "The actions of the session policy, as `mooring explain` shows it whole."
    bucket, registry = "s3://bucket", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/repository"
    for kind, resource in (("s3-bucket", bucket), ("docker-registry", registry)):
        rows = [
            (f"`{access}`", items(_actions(mooring_aws.connector, kind, resource, access))) for access in types.ACCESSES
        ]
        yield table((f"Access to a `{kind}`", "Actions"), rows)


@page("connector-types/docker.md")
def docker() -> Iterator[str]:
    """The Docker connector type."""
    import mooring_docker

    yield from _connector_type(mooring_docker.connector)


def _actions(plugin: Any, resource_type: str, resource_id: str, access: types.Access) -> list[str]:
    from mooring.types import Secret
    from mooring_aws.settings import SecretKeyConfig

    config = SecretKeyConfig(
        region="eu-west-1",
        aws_access_key_id=Secret("AKIA" + "A" * 16),
        aws_secret_access_key=Secret("a" * 40),
    )
    request = hookspecs.CredentialRequest(
        resource_type=resource_type, resource_id=resource_id, access=access, ttl=None, consumer="docs"
    )
    policy = plugin.explain(config, request).policy
    return sorted({action for statement in policy["Statement"] for action in statement["Action"]})


def _limits(rules: Sequence[types.Limit]) -> str:
    rows = []
    for rule in rules:
        where = items(f"{label}={pattern}" for label, pattern in rule.where.items())
        rate = "" if rule.rate is None else f"{rule.rate:g}, {rule.burst} at a time"
        rows.append((f"`{rule.name}`", ", ".join(rule.per), where, str(rule.at_once or ""), rate))
    return table(("Limit", "For each", "Of calls with", "At once", "A second"), rows)


def _connector_type(plugin: Any) -> Iterator[str]:
    kind = plugin.describe()
    yield f"# {kind.title or kind.name}"
    yield f"Connector type `{kind.name}`. {kind.description}"
    if kind.limits:
        yield "Its [limits](../../how-to/limits.md) on calls:"
        yield _limits(kind.limits)
    yield f"Output formats of `mooring issue`: {items(('json', 'yaml', *formats_of(registry.bind(plugin))))}."
    yield "## Resource types"
    for reached in kind.resource_types:
        yield f"### {reached.name}"
        yield f"{reached.title}. {reached.description}"
        yield "Ids, the canonical form first:\n\n" + "\n".join(f"- `{form}`" for form in reached.formats)
        yield f"Permissions that a connector needs for all of it: {items(reached.permissions)}."
        yield table(("", ""), [
            ("One connector can reach many", "yes" if reached.instances else "no"),
            ("Credentials can be narrowed to one", "yes" if reached.narrowable else "no: it is all that there is"),
            ("Auth methods", items(reached.auth_methods) if reached.auth_methods else "all"),
        ])  # fmt: skip
    yield "## Auth methods"
    wide = hasattr(plugin, "revoke_all")
    yield table(("Auth method", "Temporary", "Shortest", "Usual", "Longest", "Taken back", "Off by default"), [
        (
            f"[`{one.name}`](#{one.name})", _yes(one.temporary), *_life(one.lifetime),
            _revocation(one, wide=wide), _yes(one.implicit),
        )
        for one in kind.auth_methods
    ])  # fmt: skip
    yield (
        "A lifetime outside of the bounds is brought within them, and the reply says so. Without bounds it is not the "
        "caller's to choose."
    )
    for one in kind.auth_methods:
        yield f"### {one.name}"
        yield f"{one.title}. {one.description}"
        yield table(("Field", "Type", "", "Meaning"), [_field(field) for field in types.fields_of(one.config)])


def _yes(value: bool) -> str:
    return "yes" if value else ""


def _revocation(method: types.AuthMethod, *, wide: bool) -> str:
    if method.revocable:
        return "where something was made for it"
    if not wide or method.role_wide == ():
        return ""
    return "role-wide" + (f": {items(method.role_wide)}" if method.role_wide else "")


def _life(lifetime: types.Lifetime | None) -> tuple[str, str, str]:
    def said(span: timedelta | None) -> str:
        return written(span) if span else ""

    return (said(lifetime.minimum), said(lifetime.default), said(lifetime.maximum)) if lifetime else ("", "", "")


def _field(field: types.ConfigField) -> tuple[str, str, str, str]:
    kind = {"str": "text", "vartuple": "list", "dict": "map", "bool": "flag"}.get(field.type, field.type)
    return f"`{field.name}`", kind, "required" if field.required else "", field.description


SOURCE = re.compile(r"<!-- source: (\S+) -->\n```(\w+)\n.*?```", re.DOTALL)


def with_sources(text: str) -> str:
    """A hand-written page with the files that it shows."""

    def shown(found: re.Match[str]) -> str:
        content = (DOCS / found[1]).read_text(encoding="utf-8")
        return f"<!-- source: {found[1]} -->\n{code(content, found[2])}"

    return SOURCE.sub(shown, text)


def main() -> None:
    """Write every page, and the files that others show."""
    for file in DOCS.rglob("*.md"):
        text = file.read_text(encoding="utf-8")
        if (shown := with_sources(text)) != text:
            file.write_text(shown, encoding="utf-8")
    for path in PAGES:
        target = DOCS / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text_of(path), encoding="utf-8")


if __name__ == "__main__":
    main()
