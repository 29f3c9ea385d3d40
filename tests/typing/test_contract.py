# pyright: basic
"""The contract as the type checkers see it: the ideal plugin passes, and each mistake of the bad one is told."""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYRIGHT = {"include": ["."], "typeCheckingMode": "strict", "pythonVersion": "3.11"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Both plugins, the bad one without the line that hides its mistakes (one empty in its place)."""
    (tmp_path / "good_plugin.py").write_text((HERE / "good_plugin.py").read_text())
    _, _, bad = (HERE / "bad_plugin.py").read_text().partition("\n")
    (tmp_path / "bad_plugin.py").write_text("\n" + bad)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    return tmp_path


def pyright(folder: Path) -> dict[tuple[str, int], str]:
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {(Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"] for one in found}


def mypy(folder: Path) -> dict[tuple[str, int], str]:
    cache = ["--cache-dir", str(ROOT / ".mypy_cache" / "typing"), "--config-file", str(ROOT / "pyproject.toml")]
    command = [sys.executable, "-m", "mypy", *cache, "--output", "json", "good_plugin.py", "bad_plugin.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found: dict[tuple[str, int], str] = defaultdict(str)
    for one in map(json.loads, done.stdout.splitlines()):
        found[one["file"], one["line"]] += f"{one['message']} {one['hint'] or ''}\n"
    return found


@pytest.mark.parametrize("checker", [pyright, mypy])
def test_the_good_plugin_passes_and_each_mistake_of_the_bad_one_is_told(checker, folder):
    found = checker(folder)
    assert {place: said for place, said in found.items() if place[0] == "good_plugin.py"} == {}
    marks = r"# (?:says|pyright says): (.+)" if checker is pyright else r"# says: (.+)"
    told = {}
    for number, line in enumerate((folder / "bad_plugin.py").read_text().splitlines(), 1):
        if mark := re.search(marks, line):
            told["bad_plugin.py", number] = mark[1]
    assert len(told) > 15
    assert set(found) == set(told)
    for place, word in told.items():
        assert word in found[place], place


def test_the_good_plugin_works():
    """What the checkers accept is what the registry accepts."""
    import importlib.util

    from mooring.registry import POWERS, bind

    spec = importlib.util.spec_from_file_location("good_plugin", HERE / "good_plugin.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    route = bind(module.connector)
    assert set(route.powers) == set(POWERS)
    assert route.canonical("berth", "harbour://north/07") == "north/7"
