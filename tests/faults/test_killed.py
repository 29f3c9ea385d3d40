"""SIGKILL in the middle of a command, at every step and at any moment: all of it has happened or nothing has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import mooring
from mooring.assembly import Settings
from mooring.testing import example

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

OLD, NEW = {"user": "ann", "password": "old"}, {"user": "bob", "password": "new"}
OTHER = {"user": "eve", "password": "word"}
FIELDS = ("--user", "bob", "--password", "@{folder}/password")

COMMANDS: dict[str, tuple[str, ...]] = {
    "first register": ("connector", "register", "new", "--type", "example", *FIELDS),
    "register": ("connector", "register", "new", "--type", "example", *FIELDS),
    "update": ("connector", "update", "old", *FIELDS),
    "delete": ("connector", "delete", "old", "--yes"),
    "issue": ("issue", "old", "--resource-id", "b"),
}
"""A verb more is a line more: it must leave the connectors as they were, or as it leaves them when nobody kills it."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the connector type `example` installed on the path, and a password in a file."""
    about = tmp_path / "site" / "mooring_example-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mooring-example\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mooring.connectors]\nexample = mooring.testing:example\n")
    (tmp_path / "password").write_text("new")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return tmp_path


def prepare(folder: Path) -> None:
    async def main() -> None:
        async with mooring.open_broker(
            settings=Settings(home=folder / "template"), plugins=[example], system_plugins=()
        ) as broker:
            await broker.register("old", type="example", config=OLD)
            await broker.register("other", type="example", config=OTHER)
            await broker.issue("other", resource_id="b")

    anyio.run(main)


def plain(found: dict[str, Any]) -> dict[str, Any]:
    return {name: {"user": one["settings"]["user"], **one["secrets"]} for name, one in found.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_has_happened_or_not(folder: Path, name: str) -> None:
    before: dict[str, Any] = {}
    if name != "first register":
        prepare(folder)
        before = {"old": OLD, "other": OTHER}
    command = [part.format(folder=folder) for part in COMMANDS[name]]
    script = str(Path(__file__).with_name("killing.py"))
    done = subprocess.run(
        [sys.executable, script, str(folder), *command], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["clean"]["code"] == 0, seen["clean"]["said"]
    after = plain(seen["after"]["found"])
    assert (after != before) == (name != "issue")
    results = seen["results"]
    assert sum(one["dead"] for one in results) >= 15
    for one in results:
        when = f"killed at step {one['last']} or after {one['delay']} s: {one.get('problem', '')}"
        assert "problem" not in one, when
        assert plain(one["found"]) in (before, after), when
        assert one["seconds"] < 10, when
        happened = name != "issue" and plain(one["found"]) == after
        wanted = (0, 2) if happened and name != "update" else (0,)
        assert one["again"] in wanted, f"{when}{one['said']}"
        assert "Traceback" not in one["said"]
        assert [file for file in one["left"] if not file.startswith(".master.key.")] == [], when
    assert len({json.dumps(one.get("found"), sort_keys=True) for one in results}) == (1 if name == "issue" else 2)
