"""EKS end to end: a token of the AWS plugin, a webhook that verifies its signature, RBAC, and our clients on top."""

from __future__ import annotations

import base64
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import kubernetes_asyncio.client
import pytest
from aiohttp import web

import mooring as m
from mooring.testing import memory_broker
from mooring_aws import connector as aws
from mooring_kubernetes import connector

pytestmark = pytest.mark.anyio
KEY, SECRET = "AKIAEXAMPLEEXAMPLE00", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture(scope="module")
def eks_cluster(equipment: Any) -> Iterator[Any]:
    """A cluster that knows the key for the cluster `c1` of EKS."""
    kube, eks = equipment
    if why := kube.missing():
        pytest.skip(why)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        flags = stack.enter_context(eks.webhook(folder, kube.Authority(), "c1", {KEY: SECRET}))
        cluster = stack.enter_context(kube.running(folder, *flags))
        cluster.namespace("team")
        cluster.bind("team", "bot", {"kind": "Group", "name": "eks-devs", "apiGroup": "rbac.authorization.k8s.io"})
        yield cluster


@pytest.fixture
async def endpoint(eks_cluster: Any) -> AsyncGenerator[str, None]:
    """DescribeCluster, for two names of the one cluster."""

    async def describe(request: web.Request) -> web.Response:
        assert request.headers["Authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={KEY}/")
        name = request.match_info["name"]
        data = base64.b64encode(eks_cluster.ca.encode()).decode()
        found = {"name": name, "endpoint": eks_cluster.url, "certificateAuthority": {"data": data}, "status": "ACTIVE"}
        return web.json_response({"cluster": found})

    application = web.Application()
    application.router.add_get("/clusters/{name}", describe)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def broker(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[m.Broker, None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with memory_broker(aws, connector) as broker:
        for name, secret in (("good", SECRET), ("wrong", SECRET[::-1])):
            await broker.register(
                name,
                type="aws",
                auth_method="secret-key",
                config={
                    "region": "eu-west-1",
                    "endpoint_urls": {"eks": endpoint},
                    "aws_access_key_id": KEY,
                    "aws_secret_access_key": secret,
                },
                verify=False,
            )
        yield broker


async def colour(broker: m.Broker, name: str, cluster: str) -> Any:
    where = {"resource_type": "kubernetes-cluster", "resource_id": f"eu-west-1/{cluster}"}
    async with broker.client(name, **where) as api:
        core = kubernetes_asyncio.client.CoreV1Api(api)
        assert (await core.read_namespaced_config_map("settings", "team")).data == {"colour": "blue"}
        with pytest.raises(kubernetes_asyncio.client.ApiException) as denied:
            await core.list_namespaced_secret("team")
        return denied.value.status


async def test_the_same_client_code_runs_on_eks_within_rbac(broker: m.Broker) -> None:
    assert await colour(broker, "good", "c1") == 403


@pytest.mark.parametrize(("name", "cluster"), [("wrong", "c1"), ("good", "c2")])
async def test_a_wrong_key_and_a_token_for_another_cluster_stay_outside(
    broker: m.Broker, name: str, cluster: str
) -> None:
    with pytest.raises(kubernetes_asyncio.client.ApiException) as refused:
        await colour(broker, name, cluster)
    assert refused.value.status == 401
