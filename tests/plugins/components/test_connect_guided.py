"""`connect -i` on a real pseudo-terminal, with a vendor and a flavor that are installed for it."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal"),
    pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning"),
]
ACME = Path(__file__).parents[2] / "kernel" / "test_cli" / "acme.py"
FLAVORS = """
import mooring as m
from mooring_components.flavors import Flavor, flavorimpl

class Bucket(m.Config):
    path: str | None = None

class Declares:
    @flavorimpl
    def mooring_flavors(self):
        return [Flavor(name="acme", component_types=("artifact-store",), config=Bucket, resource_type="acme-bucket",
                       resource_id=lambda config: config.path)]

flavors = Declares()
"""
ENTRY_POINTS = "[mooring.connectors]\nacme = mooring_acme:connector\n[mooring.flavors]\nacme = acme_flavors:flavors\n"
CONNECT = ("artifact-store", "connect", "-i")
ALL = [("component", "store"), ("connector", "north"), ("resource", "second"), ("Connect it?", "")]
"""Everything that is asked, with what to answer."""
Mooring = Callable[..., Any]


@pytest.fixture
def mooring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mooring:
    """Call `mooring` in a process of its own, with three connectors, of which one fails; JSON, if it writes some."""
    site = tmp_path / "site"
    about = site / "mooring_acme-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mooring-acme\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    (site / "mooring_acme.py").write_text(ACME.read_text())
    (site / "acme_flavors.py").write_text(FLAVORS)
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), before))))
    monkeypatch.setenv("MOORING_HOME", str(tmp_path / "home"))

    def call(*arguments: str, input: str = "", code: int = 0) -> Any:
        command = [sys.executable, "-m", "mooring", *arguments]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout) if "json" in arguments and not code else done.stderr

    for name, mode in (("broken", "deny"), ("north", "ok"), ("many", "many")):
        call("connector", "register", name, "-t", "acme", "-a", "key", "--token=-", f"--mode={mode}", "--no-verify",
             "--regions=north", input="t0ken")  # fmt: skip
    call("artifact-store", "register", "store", "--flavor=acme")
    call("artifact-store", "register", "fixed", "--flavor=acme", "--path=first")
    monkeypatch.setenv("ACME_MANY", "60")
    return call


def stored(mooring: Mooring, name: str = "store") -> tuple[Any, Any]:
    """What a component is connected to."""
    one = mooring("artifact-store", "describe", name, "-o", "json")
    return one["connector"], one["resource_id"]


def told_command(shown: str) -> list[str]:
    found = re.search(r"The same without questions:\n  mooring (.*)\n", shown)
    assert found, shown
    return shlex.split(found[1])


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
def test_component_connector_and_resource_are_asked_for(mooring: Mooring, terminal, term: str) -> None:
    screen = terminal(*CONNECT, TERM=term)
    assert "2) store  (artifact-store, acme)" in screen.answer("component", "store")
    connectors = screen.answer("connector", "north")
    assert "  (reaches it)\n" in connectors
    assert "3) broken  (acme does not accept the token; give another)\n" in connectors
    assert "1) first\n  2) second\n" in screen.answer("resource", "2")
    assert "resource   acme-bucket second\n" in screen.answer("Connect it?")
    assert screen.end() == 0
    if term == "dumb":
        assert "\x1b" not in screen.shown
    assert stored(mooring) == ("north", "second")
    words = told_command(screen.shown)
    mooring("artifact-store", "disconnect", "store")
    mooring(*words)
    assert stored(mooring) == ("north", "second")


def test_what_was_given_or_the_component_says_is_not_asked_for(mooring: Mooring, terminal) -> None:
    screen = terminal(*CONNECT, "fixed", "--connector=north")
    screen.answer("Connect it?")
    assert screen.end() == 0
    assert told_command(screen.shown) == ["artifact-store", "connect", "fixed", "--connector=north"]
    assert stored(mooring, "fixed") == ("north", "first")


def test_many_resources_are_found_by_a_part_of_their_name(mooring: Mooring, terminal) -> None:
    screen = terminal(*CONNECT, "store", "--connector=many")
    assert "... 1 to 20 of 62\n" in screen.answer("resource (a number, a name or a part of one; + for more) [+]", "+")
    assert "... 21 to 40 of 62\n" in screen.answer("resource", "00005")
    assert screen.answer("resource", "bucket-000055").count(") bucket-") == 11
    screen.answer("Connect it?")
    assert screen.end() == 0
    assert stored(mooring) == ("many", "bucket-000055")


def test_one_that_fails_is_told_and_another_asked_for(mooring: Mooring, terminal) -> None:
    screen = terminal(*CONNECT, "fixed")
    screen.answers([("connector", "broken"), ("Connect it?", "y")])
    assert "Error: acme does not accept the token; give another" in screen.answer("connector", "many")
    screen.answer("Connect it?")
    assert screen.end() == 0
    assert screen.shown.count("component: ") == 0
    assert stored(mooring, "fixed") == ("many", "first")


@pytest.mark.parametrize("stop", range(len(ALL)))
@pytest.mark.parametrize(("key", "code"), [(b"\x03", 130), (b"\x04", 2)])
def test_an_interruption_connects_nothing(mooring: Mooring, terminal, stop: int, key: bytes, code: int) -> None:
    screen = terminal(*CONNECT)
    screen.answers(ALL[:stop])
    screen.asked(ALL[stop][0])
    screen.press(key)
    assert screen.end() == code
    end = "Aborted, nothing was connected.\n" if code == 130 else "was given; nothing was connected\n"
    assert screen.shown.endswith(end), screen.shown
    assert stored(mooring) == (None, None)


def test_answers_may_come_from_a_pipe(mooring: Mooring) -> None:
    assert mooring(*CONNECT, input="store\nnorth\n", code=2).endswith(
        "Error: the input ended before resource was given; nothing was connected\n"
    )
    assert "give a number from 1 to 3, or a name; nothing" in mooring(*CONNECT, input="store\nsouth\nfirst\n", code=2)
    assert stored(mooring) == (None, None)
    mooring(*CONNECT, input="".join(f"{text}\n" for _, text in ALL))
    assert stored(mooring) == ("north", "second")
