"""mooring and the sandbox's real S3 and STS, with a proxy between them that breaks what passes."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mooring_sandbox.testing import sandbox  # noqa: F401  (a fixture)


def module(name: str) -> Any:
    """A module beside this one: under pytest's importlib mode none can be imported by name."""
    known = f"mooring_tests_faults_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without AWS configuration; gives its home."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "MOORING_"))]:
        monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("MOORING_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture(scope="session")
def proxies() -> Iterator[Callable[..., Any]]:
    """Makes a proxy before an address; with a name, the same one each time, without fault."""
    made: dict[str, Any] = {}
    with ExitStack() as stack:

        def proxy(upstream: str, name: str | None = None, tls: Any = None) -> Any:
            found = made.get(name or "") or stack.enter_context(module("proxy").Proxy(upstream, tls=tls))
            if name:
                made[name] = found
            found.clear()
            return found

        yield proxy


@pytest.fixture
def keys(sandbox: Any) -> dict[str, str]:  # noqa: F811
    """The fields of a connector with the developer's long-lived key."""
    return {
        "region": sandbox.region,
        "aws_access_key_id": sandbox.developer.key_id,
        "aws_secret_access_key": sandbox.developer.secret,
    }


@pytest.fixture
def behind(keys: dict[str, str], sandbox: Any) -> Callable[..., dict[str, Any]]:  # noqa: F811
    """The arguments of `register` for a connector that reaches S3 and STS at an address."""

    def made(url: str, method: str = "iam-role", **more: Any) -> dict[str, Any]:
        role = {"role_arn": sandbox.role.arn} if method == "iam-role" else {}
        fields = keys | role | {"endpoint_url": sandbox.aws_url, "endpoint_urls": {"s3": url, "sts": url}}
        return {"type": "aws", "auth_method": method, "config": fields, "resource_type": "s3-bucket"} | more

    return made
