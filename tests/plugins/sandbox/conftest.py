"""The sandbox that the tests here share, and what they look at."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from mooring_sandbox.testing import sandbox  # noqa: F401  (a fixture)


@pytest.fixture
def code_of() -> Callable[..., str]:
    """The vendor's error code of a call, or "ok"."""

    def code(call: Callable[..., Any], **arguments: Any) -> str:
        try:
            call(**arguments)
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "ok"

    return code


@pytest.fixture
def client_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A plain boto3 client led by nothing but a sandbox's variables, and credentials if given."""

    def client(cloud: Any, service: str, credentials: dict[str, str] | None = None, **options: Any) -> Any:
        for name, value in cloud.environment(**options).items():
            monkeypatch.setenv(name, value)
        if credentials is None:
            return boto3.Session().client(service)
        return boto3.Session(
            credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"]
        ).client(service)

    return client


@pytest.fixture
def run_python() -> Callable[..., Any]:
    """What a Python program prints, as JSON, with a given environment."""

    def run(code: str, environment: dict[str, str]) -> Any:
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return run
