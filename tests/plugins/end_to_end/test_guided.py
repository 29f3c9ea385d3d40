"""`register -i` of a real AWS connector, on a pseudo-terminal, against the sandbox."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal"),
    pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without AWS configuration but for where the sandbox is."""
    monkeypatch.setenv("MOORING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


def mooring(*arguments: str) -> Any:
    """The JSON that a command writes."""
    command = [sys.executable, "-m", "mooring", *arguments, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def told_command(shown: str) -> list[str]:
    found = re.search(r"The same without questions:\n  mooring (.*)\n", shown)
    assert found, shown
    return shlex.split(found[1])


def test_a_key_is_asked_for_and_a_wrong_part_of_it_again(
    terminal: Any, keys: dict[str, str], environment: dict[str, str]
) -> None:
    screen = terminal("connector", "register", "-i", "models", "-t", "aws", TERM="dumb")
    screen.answer("auth method", "secret-key")
    screen.answer("aws_access_key_id", "no key")
    screen.answer("aws_secret_access_key", keys["aws_secret_access_key"][::-1])
    screen.answer("region", "nowhere at all")
    assert "Error: field 'region'" in screen.answer("region", keys["region"])
    assert "Error: field 'aws_access_key_id'" in screen.answer("aws_access_key_id", keys["aws_access_key_id"])
    before = "AWS_ENDPOINT_URL"
    screen.answers([("field to set", "endpoint_url"), ("endpoint_url", environment[before])])
    screen.answer("field to set", "endpoint_urls")
    for name, value in environment.items():
        if name.startswith(f"{before}_"):
            screen.answer("endpoint_urls", f"{name.removeprefix(f'{before}_').lower()}={value}")
    screen.answer("endpoint_urls")
    screen.answers([("field to set", ""), ("resource type", "s3-bucket"), ("resource id", "s3://team-models")])
    screen.answer("Register it?")
    refused = screen.answer("aws_secret_access_key", keys["aws_secret_access_key"])
    assert "Error: the secret access key does not fit the access key" in refused
    assert screen.end() == 0, screen.shown
    assert "s3://team-models" in screen.shown
    assert keys["aws_secret_access_key"] not in screen.shown


def test_what_the_environment_has_is_offered(
    terminal: Any, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, environment[name])
    screen = terminal("connector", "register", "-i", "models", "-t", "aws", TERM="dumb")
    found = screen.answer("Take it?")
    assert "the auth method 'secret-key', from the environment (AWS_ACCESS_KEY_ID)" in found
    screen.answers([("resource type", "s3-bucket"), ("resource id", "no-such-bucket"), ("Register it?", "")])
    assert "Error: the endpoint finds no such resource" in screen.answer("what to change [the scope]")
    screen.answer("resource type", "all")
    assert screen.end() == 0, screen.shown
    assert environment["AWS_SECRET_ACCESS_KEY"] not in screen.shown
    words = told_command(screen.shown)
    assert words == ["connector", "register", "models", "--type=aws", "--auto-configure"]
    first = mooring("connector", "describe", "models")["configuration"]
    again = [word if word != "models" else "again" for word in words]
    assert mooring(*again)["configuration"] == first
