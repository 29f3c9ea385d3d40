"""The whole thing: the real broker, the installed plugins, the sandbox's real S3 and STS."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

import mooring
from mooring.assembly import Settings
from mooring_sandbox.testing import sandbox  # noqa: F401  (a fixture)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture(autouse=True)
def environment(sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:  # noqa: F811
    """The sandbox's environment but for its keys: whoever wants those says so."""
    variables: dict[str, str] = sandbox.environment()
    for name, value in variables.items():
        if name not in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def keys(sandbox: Any) -> dict[str, str]:  # noqa: F811
    """The fields of a connector with the developer's long-lived key."""
    return {
        "region": sandbox.region,
        "aws_access_key_id": sandbox.developer.key_id,
        "aws_secret_access_key": sandbox.developer.secret,
    }


@pytest.fixture
async def broker(settings: Settings) -> AsyncGenerator[mooring.Broker, None]:
    async with mooring.open_broker(settings=settings, consumer="ann@laptop") as opened:
        yield opened
