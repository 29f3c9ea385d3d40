"""What is built: a wheel and a source archive of every distribution, whole, and with nothing else in them."""

import configparser
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import mooring

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / "kernel", *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
PYTHONS = ("3.11", "3.12", "3.13")
ABOUT = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


class Built(NamedTuple):
    """A distribution: its folder, what its `pyproject.toml` says, and both archives' files by their names within."""

    folder: Path
    project: dict[str, object]
    metadata: Metadata
    wheel: dict[str, bytes]
    wheel_name: str
    sdist: dict[str, bytes]

    @property
    def package(self) -> str:
        return str(self.project["name"]).replace("-", "_")

    @property
    def info(self) -> str:
        return f"{self.package}-{self.project['version']}.dist-info/"

    @property
    def sources(self) -> dict[str, bytes]:
        """The files of the package as they are in the workspace, without caches."""
        source = self.folder / "src"
        files = [path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        return {path.relative_to(source).as_posix(): path.read_bytes() for path in files}


def unpacked(path: Path) -> dict[str, bytes]:
    if path.suffix == ".whl":
        with ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(path) as archive:
        members = [(member, archive.extractfile(member)) for member in archive.getmembers()]
        return {member.name.partition("/")[2]: file.read() for member, file in members if file}


def build(folder: Path, target: Path) -> Built:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", target, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    files = unpacked(wheel)
    (metadata,) = [content for name, content in files.items() if name.endswith(".dist-info/METADATA")]
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return Built(folder, project, Metadata.from_email(metadata), files, wheel.name, unpacked(sdist))


@pytest.fixture(scope="module")
def all_built(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Built]:
    return {folder: build(folder, tmp_path_factory.mktemp(folder.name)) for folder in FOLDERS}


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def built(request: pytest.FixtureRequest, all_built: dict[Path, Built]) -> Built:
    return all_built[request.param]


def test_the_wheel_holds_the_package_and_what_is_said_about_it(built: Built) -> None:
    held = {name: content for name, content in built.wheel.items() if not name.startswith(built.info)}

    assert held == built.sources
    assert f"{built.package}/__init__.py" in held
    assert f"{built.package}/py.typed" in held
    assert built.wheel.keys() - held.keys() == {built.info + name for name in ABOUT}
    assert built.wheel_name == f"{built.package}-{built.project['version']}-py3-none-any.whl"


def test_the_sdist_holds_what_builds_the_wheel(built: Built) -> None:
    sources = {f"src/{name}": content for name, content in built.sources.items()}

    assert sources.items() <= built.sdist.items()
    assert built.sdist.keys() - sources.keys() == {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO", ".gitignore"}


def test_nothing_but_the_package_is_in_its_folder(built: Built) -> None:
    """What lies in `src` is shipped: no test, no copy that an editor left."""
    assert {name.partition("/")[0] for name in built.sources} == {built.package}
    stray = [name for name in built.sources if not name.endswith((".py", "/py.typed")) or "/test_" in name]

    assert stray == []


def test_what_an_index_shows_is_complete(built: Built) -> None:
    metadata, project = built.metadata, built.project

    assert metadata.summary == project["description"]
    assert metadata.description == (built.folder / "README.md").read_text()
    assert metadata.description_content_type == "text/markdown"
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.author
    assert metadata.keywords
    assert str(metadata.requires_python) == ">=3.11"
    classifiers = set(metadata.classifiers or ())
    assert {"Typing :: Typed", *(f"Programming Language :: Python :: {one}" for one in PYTHONS)} <= classifiers


def test_the_licence_goes_along(built: Built) -> None:
    licence = (ROOT / "LICENSE").read_bytes()

    assert built.wheel[f"{built.info}licenses/LICENSE"] == licence
    assert built.sdist["LICENSE"] == licence
    assert built.metadata.license_files == ["LICENSE"]


def test_its_entry_points_lead_into_the_wheel(built: Built) -> None:
    parser = configparser.ConfigParser(delimiters="=")
    parser.read_string(built.wheel[f"{built.info}entry_points.txt"].decode())
    targets = [target for group in parser.sections() for target in parser[group].values()]

    assert targets
    for target in targets:
        module = target.partition(":")[0].replace(".", "/")
        assert {f"{module}.py", f"{module}/__init__.py"} & built.wheel.keys(), target


def test_all_have_one_version_and_a_plugin_wants_the_kernel_of_its_own(all_built: dict[Path, Built]) -> None:
    kernel, *plugins = all_built.values()

    assert {one.metadata.version for one in all_built.values()} == {Version(mooring.__version__)}
    assert kernel.metadata.name == "mooring"
    for plugin in plugins:
        (wanted,) = [one for one in requirements(plugin) if one.name == "mooring"]
        assert wanted.specifier.contains(kernel.metadata.version)


def test_all_brings_every_plugin_and_every_extra(all_built: dict[Path, Built]) -> None:
    kernel, *plugins = all_built.values()
    extras = kernel.metadata.provides_extra or []
    rest = [one.name for extra in extras if extra != "all" for one in requirements(kernel, extra)]

    assert plugins
    assert {one.name for one in requirements(kernel, "all")} == {*rest, *(one.metadata.name for one in plugins)}


def requirements(built: Built, extra: str = "") -> list[Requirement]:
    """What it asks for by itself, or what an extra adds to that."""
    by_itself, asked = (
        [
            one
            for one in built.metadata.requires_dist or []
            if one.marker is None or one.marker.evaluate({"extra": name})
        ]
        for name in ("", extra)
    )
    return [one for one in asked if one not in by_itself] if extra else by_itself


def test_the_constraints_pin_what_is_asked_for(built: Built, all_built: dict[Path, Built]) -> None:
    """Each requirement, by a version that it accepts; those of ours come from here."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    pins = {canonicalize_name(one.name): next(iter(one.specifier)).version for one in pinned}
    ours = {one.metadata.name for one in all_built.values()}

    for one in built.metadata.requires_dist or []:
        if one.name not in ours:
            assert one.specifier.contains(pins[canonicalize_name(one.name)]), str(one)
