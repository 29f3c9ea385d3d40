"""The demo: told whole when all is well, and not one expectation is decoration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mooring_sandbox import demo
from mooring_sandbox.demo import Demo, DemoFailed


@pytest.fixture
def tell(sandbox, client_with, monkeypatch, capsys):
    def told(misbehaviour=""):
        monkeypatch.setattr(
            demo, "_program", lambda: [sys.executable, str(Path(__file__).with_name("stub_mooring.py"))]
        )
        monkeypatch.setenv("STUB", misbehaviour)
        try:
            Demo(sandbox).run()
        finally:
            shutil.rmtree(sandbox.home, ignore_errors=True)
        return capsys.readouterr().out

    yield told
    client_with(sandbox, "s3").delete_object(Bucket=demo.BUCKET, Key="new.txt")  # what credentials too wide could write


def test_tells_the_whole_story_without_a_secret(tell, sandbox):
    story = tell()
    commands = [line for line in story.splitlines() if line.startswith("$ ")]
    assert [" ".join(line.split()[2:4]) for line in commands] == [
        "service-connector list-types",
        "service-connector register",
        "service-connector list-resources",
        "issue aws-demo",
        "explain aws-demo",
        "service-connector delete",
    ]
    assert '{"auc": 0.91}' in story
    assert story.count("\n  AccessDenied\n") == 2
    assert '"secret_access_key": "********"' in story
    assert '"session_token": "********"' in story
    assert sandbox.developer.secret not in story
    assert "\x1b" not in story


@pytest.mark.parametrize(
    ("misbehaviour", "complaint"),
    [
        ("lists-less", "`mooring service-connector list-resources -o json` should say production"),
        ("unnarrowed", "the credentials are not narrowed to the bucket"),
        ("long-lived", "the credentials are the long-lived key itself"),
        ("wide", "read from another bucket is refused with AccessDenied with narrowed credentials; the answer was: "),
        ("write", "write to it is refused with AccessDenied with narrowed credentials; the answer was: done"),
        ("crash", "`mooring issue aws-demo .*` ended with status 1"),
        ("keeps", "aws-demo is still there after `mooring service-connector delete`"),
    ],
)
def test_notices_what_is_not_so(tell, misbehaviour, complaint):
    with pytest.raises(DemoFailed, match=f"^{complaint}"):
        tell(misbehaviour)


def test_the_real_cli_tells_it_too(sandbox):
    environment = {"COLUMNS": "80"} | {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOORING_"))
    }
    command = [*demo._program(), "sandbox", "demo"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every step came out as it should" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout.count("\n  AccessDenied\n") == 2
