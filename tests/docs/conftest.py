"""Acme Cloud, the vendor of the example plugin, as its `serve.py` has it; and the plugin as if it were installed."""

import os
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mooring_sandbox.cloud import Sandbox
from mooring_sandbox.testing import sandbox

__all__ = ["sandbox"]

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "docs" / "examples" / "mooring_acme"


def _served() -> ModuleType:
    spec = spec_from_file_location("acme_serve", PLUGIN / "serve.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def acme_cloud() -> Iterator[Any]:
    with _served().AcmeCloud() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def mooring_acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The plugin's module."""
    monkeypatch.syspath_prepend(PLUGIN / "src")
    yield import_module("mooring_acme")
    sys.modules.pop("mooring_acme", None)


@pytest.fixture
def acme_path(tmp_path: Path) -> str:
    """A PYTHONPATH that has the plugin with its entry points, as an installation would."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "site" / f"mooring_acme-{project['version']}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return os.pathsep.join((str(folder.parent), str(PLUGIN / "src")))


@pytest.fixture
def clean_environment(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment without anything of AWS or mooring, with a home of its own and what is given."""

    def make(**more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOORING_"))}
        return kept | {"MOORING_HOME": str(tmp_path / "home"), "PYTHONWARNINGS": "error"} | more

    return make


@pytest.fixture
def acme_variables(acme_cloud: Any, acme_path: str) -> dict[str, str]:
    """What a program needs for the example plugin and its vendor."""
    return {"PYTHONPATH": acme_path, "ACME_URL": acme_cloud.url, "ACME_KEY": acme_cloud.key}


@pytest.fixture
def sandbox_variables(sandbox: Sandbox) -> dict[str, str]:
    """What leads a program to the sandbox, without its home: each test has one of its own."""
    return {name: value for name, value in sandbox.environment().items() if name != "MOORING_HOME"}


@pytest.fixture(scope="session")
def pages() -> SimpleNamespace:
    """Where the documentation is."""
    files = [ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    files = [file for file in files if file.exists()]
    return SimpleNamespace(root=ROOT, docs=ROOT / "docs", files=(*files, *sorted((ROOT / "docs").rglob("*.md"))))
