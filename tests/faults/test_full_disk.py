"""A disk that takes no more, and files that may not grow: one line, nothing half stored, and reading goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, os, sys
from pathlib import Path
from click.testing import CliRunner
from mooring.cli._app import make_app

def mooring(*arguments):
    done = CliRunner().invoke(make_app(), arguments)
    told.append({"code": done.exit_code, "out": done.stdout, "err": done.stderr})

told, home = [], Path(os.environ["MOORING_HOME"])
register = ("connector", "register", "--type", "example", "--user", "ann", "--password", "@" + sys.argv[1])
describe = ("connector", "describe", "one", "--show-secrets", "-o", "json")
"""

WITHIN_LIMIT = """
import resource
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
mooring(*register, "one")
print(json.dumps(told))
"""

ON_A_SMALL_DISK = """
mooring(*register, "one")
(home / "ballast").touch()
with suppress(OSError), (home / "ballast").open("wb", 0) as file:
    while True:
        file.write(bytes(1024))
for number in range(9):
    mooring(*register, f"more-{number}", "--description", "x" * 9000)
mooring(*describe)
mooring("issue", "one", "--resource-id", "a", "-o", "json")
(home / "ballast").unlink()
mooring(*register, "last")
mooring("connector", "list", "-o", "json")
print(json.dumps(told))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    about = tmp_path / "site" / "mooring_example-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mooring-example\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mooring.connectors]\nexample = mooring.testing:example\n")
    (tmp_path / "password").write_text("word")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path


def told(folder: Path, text: str, *arguments: str, before: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    command = [*before, sys.executable, "-c", SCRIPT + text, str(folder / "password"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def is_one_line(answer: dict[str, Any]) -> bool:
    return len(answer["err"].strip().splitlines()) == 1 and "; " in answer["err"] and "Traceback" not in answer["err"]


@pytest.mark.parametrize("limit", [16, 2048, 20_000, 30_000, 60_000])
def test_files_that_may_not_grow(folder: Path, limit: int) -> None:
    """Where a file may have so many bytes, nothing is registered; without the limit the next call works at once."""
    pytest.importorskip("resource")
    (failed,) = told(folder, WITHIN_LIMIT, str(limit))
    if failed["code"]:
        assert failed["code"] in (5, 6), failed
        assert is_one_line(failed), failed
    (done,) = told(folder, WITHIN_LIMIT, "0")
    assert done["code"] == (2 if failed["code"] == 0 else 0), done
    assert limit > 20_000 or failed["code"], "nothing was limited"


def test_a_disk_that_is_full(folder: Path) -> None:
    unshare, mount = shutil.which("unshare"), shutil.which("mount")
    small = f'{mount} -t tmpfs -o size=512k,mode=700 none "$MOORING_HOME" && exec "$@"'
    before = (str(unshare), "--user", "--map-root-user", "--mount", "sh", "-c", small, "sh")
    if not (unshare and mount) or subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small tmpfs in a namespace of his own")
    first, *more, described, issued, last, listed = told(
        folder, "from contextlib import suppress\n" + ON_A_SMALL_DISK, before=before
    )
    assert first["code"] == 0, first
    codes = [one["code"] for one in more]
    assert set(codes) <= {0, 5}, more
    assert 5 in codes, "the disk was never full"
    for answer in more:
        if answer["code"]:
            assert is_one_line(answer), answer
            # of the WAL's index SQLite says an error of the disk, where its file cannot grow
            assert "the disk is full; free some space" in answer["err"] or "check the disk" in answer["err"]
    for answer in (described, issued):  # SQLite needs room even to read, unless somebody has the store open
        assert answer["code"] == 0 or (answer["code"] == 5 and is_one_line(answer)), answer
    assert last["code"] == 0, last
    stored = {name for name in json.dumps(json.loads(listed["out"])).split('"') if name.startswith(("more-", "last"))}
    assert stored == {f"more-{number}" for number, code in enumerate(codes) if code == 0} | {"last"}
