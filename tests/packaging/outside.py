"""The tests, against the built wheels and outside of the workspace: `make test-wheels`.

A fresh environment of this interpreter in a temporary folder gets `mooring[all]` from `dist/`, and the tests run
there, on copies. Left out, by folder, are those that are about the workspace itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = ("architecture", "packaging", "performance", "typing")
COPIED = ("benchmarks", "docs", "pyproject.toml", "*.md")  # what the tests read


def run(*command: str | Path, folder: Path) -> None:
    """A step, with no way for it to see the workspace; it ends everything where it fails."""
    unwanted = {"PYTHONPATH", "PYTHONHOME", "PYTEST_ADDOPTS", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    done = subprocess.run(command, cwd=folder, env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def install(python: Path, wheels: list[Path], folder: Path) -> None:
    """`mooring[all]` must bring every wheel, and each from its file: no index could put another in its place."""
    files = folder / "wheels.txt"
    lines = [f"{wheel.name.partition('-')[0]} @ {wheel.as_uri()}\n" for wheel in wheels]
    files.write_text("".join(lines))
    pip = (python, "-m", "pip")
    quiet = ("--quiet", "--disable-pip-version-check")
    run(*pip, "install", *quiet, "--upgrade", "pip>=25.1", folder=folder)
    constraints = ("--constraint", ROOT / "constraints.txt", "--constraint", files)
    group = ("--group", f"{ROOT / 'pyproject.toml'}:test")
    run(*pip, "install", *quiet, *constraints, "mooring[all]", *group, folder=folder)
    run(*pip, "check", folder=folder)


def copy(folder: Path) -> list[str]:
    """The tests and what they read; gives the folders of tests to run."""
    for pattern in COPIED:
        for path in ROOT.glob(pattern):
            if path.is_dir():
                shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, folder)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__", *LEFT_OUT))
    shutil.copy(Path(__file__).with_name("installed.py"), folder / "tests")
    return sorted(f"tests/{path.name}" for path in (folder / "tests").iterdir())


def main() -> None:
    wheels = sorted((ROOT / "dist").glob("*.whl"))
    if not wheels:
        sys.exit("there are no wheels in dist: run `make wheels`")
    version = ".".join(map(str, sys.version_info[:3]))
    sys.stdout.write(f"Python {version}, outside of the workspace; left out: tests/{{{','.join(LEFT_OUT)}}}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="mooring-outside-") as name:
        home = Path(name).resolve()
        venv.create(home / "venv", with_pip=True)
        python = home / "venv" / "bin" / "python"
        install(python, wheels, home)
        folder = home / "copies"
        folder.mkdir()
        tests = copy(folder)
        packages = [wheel.name.partition("-")[0] for wheel in wheels]
        (folder / "wheels.txt").write_text("\n".join([str(ROOT), *packages]))
        doctests = next((home / "venv" / "lib").glob("python*/site-packages/mooring"))
        settings = ("-c", folder / "pyproject.toml", "--rootdir", folder)
        run(python, "-m", "pytest", *settings, *sys.argv[1:], *tests, doctests, folder=folder)


if __name__ == "__main__":
    main()
