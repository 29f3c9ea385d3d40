"""The kit on container registries, against the real docker-registry with a token server."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

import mooring as m
from mooring.testing import ConnectorConformance, Subject
from mooring_docker import RegistryToken, connector


def _beside() -> Any:
    """The fixtures of the plugin's own tests: under pytest's importlib mode they cannot be imported by name."""
    path = Path(__file__).parents[1] / "plugins" / "docker" / "conftest.py"
    spec = importlib.util.spec_from_file_location("mooring_conformance_docker", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_fixtures = _beside()
anyio_backend, machine = _fixtures.anyio_backend, _fixtures.machine
token_registry, image, push = _fixtures.token_registry, _fixtures.image, _fixtures.push
skopeo, skopeo_program = _fixtures.skopeo, _fixtures.skopeo_program


async def pulls(registry: Any, issued: m.Issued, resource_id: str) -> bool:
    """Whether the registry shows them the repository's tags."""
    token = issued.credentials
    assert isinstance(token, RegistryToken)
    repository = resource_id.removeprefix(f"{registry.host}/")
    url = f"{registry.url}/v2/{repository}/tags/list"
    status = await anyio.to_thread.run_sync(_fixtures.status_of, url, f"Bearer {token.token.reveal()}")
    assert status in (200, 401)
    return bool(status == 200)


class TestPassword(ConnectorConformance):
    @pytest.fixture
    def subject(self, token_registry: Any, push: Any) -> Subject:
        host = token_registry.host
        here, elsewhere = f"{host}/team/app", f"{host}/team/other"
        for name in (here, elsewhere):
            pushed = push(f"{name}:v1", f"--dest-creds=alice:{_fixtures.PASSWORD}")
            assert pushed.returncode == 0, pushed.stderr
        user = {"registry": token_registry.url, "username": "alice"}
        return Subject(
            plugin=connector,
            auth_method="password",
            config={**user, "password": m.Secret(_fixtures.PASSWORD)},
            refused={**user, "password": m.Secret("wrongwrongwrongwrong")},
            resource_type="docker-registry",
            resource_id=here,
            elsewhere=elsewhere,
            reaches=partial(pulls, token_registry),
            sdks=("aiodocker", "docker", "aiohttp", "requests"),
        )
