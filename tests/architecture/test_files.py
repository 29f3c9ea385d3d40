"""What no file of the repository holds: a package registry's host, or a path of somebody's machine."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# In parts, so that this file is clean too.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("pypi", "python", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("anaconda", "org"),
        ("rubygems", "org"),
        ("repo1", "maven", "org"),
    )
]


def machine_paths() -> list[str]:
    """Where this checkout and this user's home are (unless in a place that every machine has), and wont to be."""
    here = [path for path in (ROOT, ROOT.parent, Path.home()) if path != Path(tempfile.gettempdir())]
    wont = [Path("/", name) for name in ("work", "root", "Users")]
    return sorted({f"{path.as_posix()}/" for path in (*here, *wont) if len(path.parts) > 1})


def tracked() -> list[Path]:
    """The files under version control, and those that would be if they were added now."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        [git, "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, text=True, check=True
    )
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def holding(words: list[str]) -> list[str]:
    found = []
    for path in tracked():
        content = path.read_bytes().lower()
        found += [f"{path.relative_to(ROOT)}: {word}" for word in words if word.lower().encode() in content]
    return found


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the business of whoever installs them: pip and uv are configured outside."""
    assert holding(REGISTRIES) == []


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    assert holding(machine_paths()) == []


def test_the_search_finds_what_is_there() -> None:
    assert f"{Path(__file__).relative_to(ROOT)}: def holding(" in holding(["def holding("])
