"""The commands, as processes."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("sandbox")  # skips where there is no SeaweedFS

MAIN = "from mooring_sandbox.commands import group; group()"


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until(stream, text):
    lines = []
    for line in stream:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def test_importing_the_plugin_is_cheap(run_python, sandbox):
    code = "import mooring_sandbox, sys, json; print(json.dumps(sorted(sys.modules)))"
    heavy = {"click", "boto3", "botocore", "moto", "subprocess", "rich", "mooring_sandbox.cloud"}
    assert heavy.isdisjoint(run_python(code, sandbox.child_environment()))


def test_adding_the_commands_is_cheap(run_python, sandbox):
    code = (
        "import click, json, sys; from mooring.registry import SystemPlugins\n"
        "from mooring_sandbox import plugin\n"
        "cli = click.Group(); SystemPlugins([plugin]).hook.commands(cli=cli)\n"
        "print(json.dumps([sorted(cli.commands['sandbox'].commands), sorted(sys.modules)]))"
    )
    names, modules = run_python(code, sandbox.child_environment())
    assert names == ["demo", "up"]
    assert {"boto3", "botocore", "moto", "mooring_sandbox.cloud", "mooring_sandbox.demo"}.isdisjoint(modules)


def test_up_prints_what_a_shell_needs_until_ctrl_c():
    with start("up") as up:
        explanation = until(up.stderr, "Ctrl-C")
        assert "mooring service-connector register aws-demo --type aws --auto-configure" in explanation
        up.send_signal(signal.SIGINT)
        output, rest = up.communicate(timeout=20)
    assert up.returncode == 130
    assert rest == "The sandbox is gone.\n"
    lines = [shlex.split(line) for line in output.splitlines()]
    assert [line[0] for line in lines] == ["unset", *["export"] * (len(lines) - 1)]
    variables = dict(line[1].split("=", 1) for line in lines[1:])
    assert variables["AWS_ENDPOINT_URL_S3"] == variables["AWS_ENDPOINT_URL_STS"] != variables["AWS_ENDPOINT_URL"]
    assert variables["AWS_ACCESS_KEY_ID"].startswith("AKIA")
    assert not Path(variables["MOORING_HOME"]).parent.exists()


def test_up_writes_a_file_that_a_shell_can_source_until_sigterm(tmp_path):
    path = tmp_path / "sandbox.env"
    with start("up", "--env-file", str(path)) as up:
        assert f"source {path}" in until(up.stderr, "Ctrl-C")
        assert path.stat().st_mode & 0o777 == 0o600
        script = f'. {path}; printf "%s" "$AWS_ENDPOINT_URL_S3"'
        shell = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
        assert shell.stdout.startswith("http://127.0.0.1:")
        up.send_signal(signal.SIGTERM)
        output, _ = up.communicate(timeout=20)
    assert up.returncode == 0
    assert output == ""
    assert not path.exists()


def test_up_overwrites_no_file_of_somebody_elses(tmp_path):
    path = tmp_path / ".env"
    path.write_text("MINE=1\n")
    with start("up", "--env-file", str(path)) as up:
        _, errors = up.communicate(timeout=60)
    assert up.returncode not in (0, 130)
    assert "is not ours" in errors
    assert path.read_text() == "MINE=1\n"


def test_up_can_be_interrupted_while_it_starts():
    with start("up") as up:
        until(up.stderr, "Starting")
        time.sleep(1)
        up.send_signal(signal.SIGINT)
        output, _ = up.communicate(timeout=20)
    assert up.returncode == 130
    assert output == ""
