"""What real programs find, each by its own way: variables, an address to ask at, a profile; boto3 and the aws CLI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODELS = ("-r", "s3-bucket", "-i", "s3://team-models")
BOTO3 = """
import boto3, sys
session = boto3.Session()
s3 = session.client("s3")
print(*[one["Key"] for one in s3.list_objects_v2(Bucket="team-models")["Contents"]])
try:
    s3.list_objects_v2(Bucket="team-datasets")
except s3.exceptions.ClientError as error:
    print(error.response["Error"]["Code"])
print(session.get_credentials().method)
"""
LISTED = "README.md churn/model.json\nAccessDenied\n"

Mooring = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def mooring(tmp_path: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch, environment: Any) -> Mooring:
    """`mooring` in processes of its own, with a connector `data`, on a machine whose own keys are of no use."""
    monkeypatch.setenv("MOORING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE", raising=False)
    monkeypatch.delenv("AWS_CONFIG_FILE", raising=False)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = AKIANOT\naws_secret_access_key = x\n"
    )

    def call(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mooring", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, **options)

    fields = [word for name, value in keys.items() for word in (f"--{name}", value)]
    call("connector", "register", "data", "-t", "aws", "-a", "secret-key", *fields)
    return call


def test_exec_with_boto3(mooring: Mooring) -> None:
    assert mooring("exec", "data", *MODELS, "--", sys.executable, "-c", BOTO3).stdout == f"{LISTED}env\n"


def test_exec_with_boto3_that_asks_again(mooring: Mooring) -> None:
    done = mooring("exec", "--refresh", "data", *MODELS, "--", sys.executable, "-c", BOTO3)
    assert done.stdout == f"{LISTED}container-role\n"


def test_boto3_asks_again_before_its_credentials_end(mooring: Mooring) -> None:
    """With a life of 15 minutes they are always due by botocore's rules: each call asks, and gets what is fresh."""
    script = (
        "import boto3\n"
        "found = boto3.Session().get_credentials()\n"
        "first = found.get_frozen_credentials()\n"
        "assert found.refresh_needed()\n"
        "assert found.get_frozen_credentials() == first\n"
        "print('asked twice')\n"
    )
    done = mooring("exec", "--refresh", "data", *MODELS, "--ttl", "15m", "--", sys.executable, "-c", script)
    assert done.stdout == "asked twice\n"


@pytest.fixture
def aws() -> str:
    found = shutil.which("aws")
    if found is None:
        pytest.skip("needs the aws CLI on the path; get it with: pip install awscli")
    return found


@pytest.mark.parametrize("refresh", [(), ("--refresh",)])
def test_exec_with_the_aws_cli(mooring: Mooring, aws: str, refresh: tuple[str, ...]) -> None:
    done = mooring("exec", *refresh, "data", *MODELS, "--", aws, "s3", "ls", "s3://team-models", "--recursive")
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["README.md", "churn/model.json"]


def test_login_with_the_aws_cli_and_logout(mooring: Mooring, aws: str, tmp_path: Path) -> None:
    config = tmp_path / ".aws" / "config"
    config.write_text("# mine\n[profile mine]\nregion = x")
    done = mooring("login", "data", *MODELS, "--name", "models")
    assert done.stderr.startswith(f"Wrote models to {config}. What it was before is in {config}.before-mooring.\n")
    listing = [aws, "s3", "ls", "s3://team-models", "--recursive", "--profile", "models"]
    found = subprocess.run(listing, capture_output=True, text=True, timeout=120, check=True, env=os.environ)
    assert [line.split()[-1] for line in found.stdout.splitlines()] == ["README.md", "churn/model.json"]
    other = [aws, "s3", "ls", "s3://team-datasets", "--profile", "models"]
    refused = subprocess.run(other, capture_output=True, text=True, timeout=120, check=False)
    assert "AccessDenied" in refused.stderr
    assert mooring("logout", "data").stderr.startswith(f"Removed models from {config}.")
    assert config.read_text() == "# mine\n[profile mine]\nregion = x"
    assert mooring("logout", "data").stderr.startswith(f"There was nothing to remove in {config};")


def test_login_of_docker_with_a_registry_of_ecr_and_logout(mooring: Mooring, sandbox: Any, tmp_path: Path) -> None:
    host = f"{sandbox.account}.dkr.ecr.{sandbox.region}.amazonaws.com"
    helper = Path(sys.executable).with_name("docker-credential-mooring")

    def asked() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [helper, "get"], input=f"{host}\n", capture_output=True, text=True, timeout=120, check=False
        )

    mooring("login", "data", "-r", "docker-registry", "-i", host)

    assert json.loads((tmp_path / ".docker" / "config.json").read_text()) == {"credHelpers": {host: "mooring"}}
    answer = json.loads(asked().stdout)
    assert (answer.pop("Secret") != "", answer) == (True, {"ServerURL": host, "Username": "AWS"})
    script = 'grep -o "[^\\"]*amazonaws.com" "$DOCKER_CONFIG/config.json" "$REGISTRY_AUTH_FILE"'
    found = mooring("exec", "data", "-r", "docker-registry", "-i", f"{host}/team/server", "--", "sh", "-c", script)
    assert found.stdout.count(host) == 2
    mooring("logout", "data")
    assert asked().stdout == "credentials not found in native keychain\n"
