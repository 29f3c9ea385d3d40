"""The kit on Kubernetes, against a real kube-apiserver that makes tokens of a service account."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

import mooring as m
from mooring.testing import ConnectorConformance, Subject
from mooring_kubernetes import connector


def _beside() -> Any:
    """The fixtures of the plugin's own tests: under pytest's importlib mode they cannot be imported by name."""
    path = Path(__file__).parents[1] / "plugins" / "kubernetes" / "conftest.py"
    spec = importlib.util.spec_from_file_location("mooring_conformance_kubernetes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_fixtures = _beside()
anyio_backend, machine = _fixtures.anyio_backend, _fixtures.machine
cluster, namespace = _fixtures.cluster, _fixtures.namespace


async def reads(cluster: Any, namespace: str, issued: m.Issued, resource_id: str) -> bool:
    """Whether the API server shows them what the service account may read."""
    access = issued.credentials
    assert isinstance(access, m.KubernetesAccess)
    assert (access.cluster, access.server) == (resource_id, cluster.url)
    assert access.token is not None
    path = f"/api/v1/namespaces/{namespace}/configmaps/settings"
    status = await anyio.to_thread.run_sync(cluster.status, path, access.token.reveal())
    assert status in (200, 401, 403)
    return bool(status == 200)


class TestToken(ConnectorConformance):
    @pytest.fixture
    def subject(self, cluster: Any, namespace: str) -> Subject:
        place = {"cluster_name": "lab", "server": cluster.url, "certificate_authority": cluster.ca}
        place |= {"service_account": f"{namespace}/bot", "namespace": namespace}
        return Subject(
            plugin=connector,
            auth_method="token",
            config={**place, "token": m.Secret(cluster.token(namespace, "issuer"))},
            refused={**place, "token": m.Secret("wrongwrongwrongwrong")},
            resource_type="kubernetes-cluster",
            resource_id="lab",
            reaches=partial(reads, cluster, namespace),
            forgets_within=60,  # an API server's cache takes a token for ten seconds
            sdks=("kubernetes", "kubernetes_asyncio", "aiohttp", "yaml"),
        )
