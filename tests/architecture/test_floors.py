"""The floors of the kernel: imports go down, siblings do not see each other, and the whole stays small."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "kernel" / "src" / "mooring"
TOP = {"cli", "testing", "blocking", "__main__"}
MOST_LINES = 11_200


def contracts() -> dict[str, dict[str, object]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {one["name"]: one for one in settings["tool"]["importlinter"]["contracts"]}


def rooms() -> set[str]:
    """The kernel's modules and packages, by their names below `mooring`."""
    return {path.stem for path in KERNEL.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}


def test_every_contract_on_imports_is_kept() -> None:
    run = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", run], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(contracts())} kept, 0 broken" in done.stdout


def test_every_room_stands_on_a_floor() -> None:
    """One that no contract names could import whatever it likes."""
    (floors,) = [one["layers"] for one in contracts().values() if one["type"] == "layers"]
    placed = [room.strip() for floor in floors for room in floor.split("|")]

    assert sorted(placed) == sorted(f"mooring.{room}" for room in rooms() - {"__init__", "__main__"})


def test_what_is_below_the_top_floor_stays_small() -> None:
    """Floors 0 to 6, in lines that are not blank; what can be a plugin is one."""
    files = [path for path in KERNEL.rglob("*.py") if path.relative_to(KERNEL).parts[0].removesuffix(".py") not in TOP]
    lines = sum(bool(line.strip()) for path in files for line in path.read_text().splitlines())

    assert {"errors.py", "assembly.py", "_sqlite.py"} <= {path.name for path in files}
    assert lines <= MOST_LINES
