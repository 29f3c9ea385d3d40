"""The CLI with a vendor of its own: a distribution that is found on the path, as an installed one is."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mooring.cli._app import make_app

Cli = Callable[..., Result]
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with entry points and modules on the path of this process and of those it starts."""

    def install(name: str, entry_points: str, modules: Mapping[str, str]) -> Path:
        folder = tmp_path / f"site-{name}"
        about = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(entry_points)
        for module, text in modules.items():
            (folder / f"{module}.py").write_text(text)
            monkeypatch.setitem(sys.modules, module, sys)  # so that it is taken out again, whoever imports it meanwhile
            del sys.modules[module]
        monkeypatch.syspath_prepend(folder)
        before = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), before))))
        return folder

    return install


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's mooring keeps its things."""
    for name in ("MOORING_STORE", "MOORING_MASTER_KEY", "MOORING_DEBUG", "MOORING_COLUMNS", "ACME_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MOORING_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def acme(install: Install, home: Path) -> None:
    """The vendor `acme` is installed."""
    source = Path(__file__).with_name("acme.py").read_text()
    install("mooring-acme", "[mooring.connectors]\nacme = mooring_acme:connector\n", {"mooring_acme": source})


@pytest.fixture
def cli(acme: None) -> Cli:
    """Call `mooring` in this process; the exit code is checked."""

    def call(*arguments: str, code: int | None = 0, **options: Any) -> Result:
        result = CliRunner().invoke(make_app(), arguments, **options)
        assert code in (None, result.exit_code), result.output
        return result

    return call


@pytest.fixture
def process(acme: None) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call `mooring` in a process of its own; the exit code is checked."""

    def call(*arguments: str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mooring", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return call


@pytest.fixture
def registered(cli: Cli) -> str:
    """The name of a connector, whose token is `t0ken-registered`."""
    cli("connector", "register", "one", "--type", "acme", "-a", "key", "--token", "-", input="t0ken-registered\n")
    return "one"
