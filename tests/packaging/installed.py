"""What `outside.py` adds to the tests that it runs: that they see installed wheels, and nothing of the workspace."""

import importlib
import json
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))


def workspace_and_packages() -> list[str]:
    return (Path(__file__).parents[1] / "wheels.txt").read_text().splitlines()


def test_each_package_is_imported_from_its_wheel() -> None:
    _, *packages = workspace_and_packages()

    assert sys.prefix != sys.base_prefix
    assert "mooring" in packages
    for package in packages:
        origin = json.loads(distribution(package).read_text("direct_url.json") or "{}")
        assert Path(str(importlib.import_module(package).__file__)) == SITE / package / "__init__.py"
        assert origin["url"].endswith(".whl")
        assert "archive_info" in origin


def test_the_workspace_cannot_be_imported_from() -> None:
    workspace, *_ = workspace_and_packages()

    assert [path for path in sys.path if Path(path).resolve().is_relative_to(workspace)] == []
    assert list(SITE.glob("*mooring*.pth")) == []
