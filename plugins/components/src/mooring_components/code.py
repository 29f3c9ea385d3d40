"""`mooring plan`, `apply` and `export`: connectors, components and stacks as a document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

import mooring as m
from mooring.cli import toolkit as t
from mooring_components import applying
from mooring_components.documents import Source, read, schema

SIGNS = {"create": "+", "update": "~", "keep": " "}
SHOWN = 10
FILE = click.option(
    "-f", "--file", "file", default="mooring.yaml", show_default=True, metavar="PATH",
    type=click.Path(path_type=Path), help="The document; - is standard input.",
)  # fmt: skip


@t.command("plan", examples=("mooring plan -f mooring.yaml", "mooring plan --check"))
@FILE
@click.option("--check", is_flag=True, help="Exit with 7 if something would change, for checks of drift.")
@t.output_option
@click.pass_obj
def plan(run: t.Run, file: Path, check: bool, output: str) -> None:
    """Show what apply would change, and change nothing. Asks no vendor."""
    source = read(file)

    async def work(broker: m.Broker) -> applying.Plan:
        return await applying.plan(broker, source, _folder(file))

    planned = t.with_broker(run, work)
    _show(planned.steps, output)
    if check and planned.changes:
        raise click.exceptions.Exit(t.FAILED)


@t.command("apply", examples=("mooring apply -f mooring.yaml",))
@FILE
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@t.output_option
@click.pass_obj
def apply(run: t.Run, file: Path, yes: bool, output: str) -> None:
    """Make the store be as the document says. What is not in the document stays.

    All of it is checked before the first change. If a step fails, those before are done, and the next apply goes on.
    Asks first on a terminal.
    """
    source, done, left = read(file), list[applying.Step](), list[applying.Step]()
    agreed = None
    if not yes:
        agreed = t.with_broker(run, lambda broker: applying.plan(broker, source, _folder(file))).steps
        if changes := sum(one.action != "keep" for one in agreed):
            _draw(agreed)
            t.confirm(f"Make {_changes(changes)}?", yes=yes)

    async def work(broker: m.Broker) -> int:
        made = await applying.plan(broker, source, _folder(file))
        if agreed not in (None, made.steps):
            raise m.errors.StoreConflict(
                "the store was changed since the plan was shown; nothing was done, run it again"
            )
        left.extend(made.changes)
        async for step in made.apply():
            done.append(left.pop(0))
            t.say(f"{step.action.capitalize()}d the {step.kind} {step.name!r}.")
        return len(made.steps) - len(done)

    try:
        kept = t.with_broker(run, work)
    except BaseException:
        if left:
            t.say(f"{_changes(len(done))} made, {len(left)} not: {_named(left)}. Apply it again for what is left.")
        raise
    t.emit(output, [_data(one) for one in done])
    t.say(f"{_changes(len(done))}, {kept} unchanged." if done else "Everything is as the document says.")


@t.command("export", examples=("mooring export > mooring.yaml",))
@click.option("--schema", "as_schema", is_flag=True, help="Print the JSON Schema of the document instead, for editors.")
@click.pass_obj
def export(run: t.Run, as_schema: bool) -> None:
    """Print the store as a document for apply; secrets as references to environment variables, never in clear."""
    if as_schema:
        click.echo(json.dumps(schema(), indent=2))
        return
    exported = t.with_broker(run, applying.export, alone=True)
    t.emit("yaml", exported.document)
    if exported.variables:
        t.say(f"To apply it, set: {' '.join(exported.variables)}")
    if exported.secrets:
        t.say(f"Named secrets are no part of it; where it is applied, there are to be: {' '.join(exported.secrets)}")
    for name in exported.lost:
        t.say(f"Warning: the connector of component {name!r} was deleted; the document does not connect it")


def _changes(number: int) -> str:
    return "1 change" if number == 1 else f"{number} changes"


def _named(steps: list[applying.Step]) -> str:
    names = [f"{one.kind} {one.name}" for one in steps[:SHOWN]]
    return ", ".join([*names, *(["..."] if steps[SHOWN:] else [])])


def _folder(file: Path) -> Path:
    return Path.cwd() if str(file) == "-" else file.parent


def _show(steps: list[applying.Step], output: str) -> None:
    if output == "table":
        _draw(steps)
        changes = sum(one.action != "keep" for one in steps)
        t.say(f"{changes} of {len(steps)} would change." if changes else "Everything is as the document says.")
    else:
        t.emit(output, [_data(one) for one in steps])


def _draw(steps: list[applying.Step]) -> None:
    """As a diff: what is made, and what becomes what."""
    for step in steps:
        if step.action == "keep":
            continue
        t.put(f"{SIGNS[step.action]} {step.kind} {step.name}")
        for change in step.changes:
            before = "" if change.before is None else f"{_text(change.before)} -> "
            t.put(t.printable(f"    {change.field}: {before}{_text(change.after)}"))


def _text(value: Any) -> str:
    return "(none)" if value is None else value if isinstance(value, str) else json.dumps(value)


def _data(step: applying.Step) -> dict[str, Any]:
    changes = [{"field": one.field, "before": one.before, "after": one.after} for one in step.changes]
    return {"kind": step.kind, "name": step.name, "action": step.action, "changes": changes}


__all__ = ["Source", "apply", "export", "plan"]
