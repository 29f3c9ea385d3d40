"""Foreign libraries: each lives in one room, and none is loaded before it is needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

KERNEL = Path(__file__).parents[2] / "kernel" / "src" / "mooring"

ROOMS = {
    "pluggy": {"hookspecs", "registry"},
    "aiosqlite": {"store"},
    "sqlite3": {"store"},
    "cryptography": {"vault"},
    "keyring": {"vault"},
    "structlog": {"journal"},
    "httpx": {"http"},
    "filelock": {"shelf", "vault", "cli"},  # one process of the command line refreshes at a time
    "platformdirs": {"assembly"},
    "click": {"cli", "testing"},  # the conformance kit shows a plugin's own command
    "rich": {"cli"},
    "pytest": {"testing"},  # the conformance kit is made of tests
    "yaml": {"cli"},
}
EVERYWHERE = {"msgspec", "anyio"}
NOWHERE = {"asyncio", "trio", "sniffio", "requests", "boto3", "botocore", "aioboto3", "kubernetes_asyncio", "aiodocker"}


def imported(tree: ast.AST) -> Iterator[str]:
    """The top-level names of what is imported anywhere at run time, in functions too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        yield from imported(node)


@pytest.fixture(scope="module")
def homes() -> dict[str, set[str]]:
    """From a library to the rooms of the kernel that import it."""
    found: dict[str, set[str]] = {}
    for path in KERNEL.rglob("*.py"):
        room = path.relative_to(KERNEL).parts[0].removesuffix(".py")
        for name in imported(ast.parse(path.read_text())):
            found.setdefault(name, set()).add(room)
    return found


@pytest.mark.parametrize("library", ROOMS)
def test_a_foreign_library_lives_in_its_room(homes: dict[str, set[str]], library: str) -> None:
    assert homes[library] <= ROOMS[library]


def test_every_foreign_library_has_a_room(homes: dict[str, set[str]]) -> None:
    foreign = homes.keys() - sys.stdlib_module_names - {"mooring"}

    assert foreign == ROOMS.keys() - sys.stdlib_module_names | EVERYWHERE


def test_the_kernel_speaks_to_no_event_loop_and_no_vendor_directly(homes: dict[str, set[str]]) -> None:
    assert not NOWHERE & homes.keys()


def loaded_by(code: str) -> set[str]:
    """The modules and packages that a fresh interpreter has loaded after running this."""
    show = "\nimport sys\nprint(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code + show], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


LATE = {
    "click",
    "rich",
    "httpx",
    "structlog",
    "aiosqlite",
    "sqlite3",
    "cryptography",
    "filelock",
    "platformdirs",
    "yaml",
    "keyring",
    "anyio",
    "asyncio",
    "trio",
    "ssl",
}


def test_importing_mooring_loads_nothing_heavy() -> None:
    loaded = loaded_by("import mooring; mooring.Secret, mooring.hookimpl, mooring.BearerToken")

    assert "mooring" in loaded
    assert not loaded & LATE


def test_naming_the_broker_loads_no_library_that_only_some_calls_need() -> None:
    loaded = loaded_by("import mooring; mooring.open_broker")

    assert "anyio" in loaded
    assert not loaded & {"click", "rich", "httpx", "structlog", "cryptography", "trio", "yaml", "keyring"}


VENDORS = {"boto3", "botocore", "aioboto3", "aiobotocore", "aiohttp", "moto", "kubernetes_asyncio", "aiodocker"}
TYPES = sorted(point.name for point in entry_points(group="mooring.connectors"))


@pytest.mark.parametrize("name", TYPES)
def test_describing_a_connector_type_loads_no_vendor_sdk(name: str) -> None:
    loaded = loaded_by(
        "from importlib.metadata import entry_points\n"
        f"(point,) = entry_points(group='mooring.connectors', name={name!r})\n"
        "point.load().describe()"
    )

    assert not loaded & (VENDORS | LATE - {"asyncio", "anyio", "ssl"})
