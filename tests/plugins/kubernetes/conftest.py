"""The plugin's hooks, called by hand against a real kube-apiserver, or a strict fake at the HTTP edge."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import ssl
import tempfile
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

import mooring as m
from mooring.testing import example_context
from mooring_kubernetes import connector


def _equipment(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / "equipment" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kube = _equipment("kube")


@pytest.fixture(scope="session")
def equipment() -> tuple[Any, Any]:
    """The modules that run clusters and the webhook of EKS; a module here cannot import from another."""
    return kube, _equipment("eks")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without a kubeconfig, and not a pod; gives its home."""
    for name in (
        "MOORING_HOME",
        "KUBECONFIG",
        "KUBERNETES_SERVICE_HOST",
        "KUBERNETES_SERVICE_PORT",
        "KUBERNETES_EXEC_INFO",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A real cluster, for all tests of the session."""
    if why := kube.missing():
        pytest.skip(why)
    with tempfile.TemporaryDirectory() as folder, kube.running(Path(folder)) as running:
        yield running


@pytest.fixture
def namespace(cluster: Any) -> str:
    """A namespace of the test's own."""
    return str(cluster.namespace(f"test-{uuid.uuid4().hex[:8]}"))


@pytest.fixture
def settle() -> Callable[..., m.Config]:
    """A configuration of an auth method from plain fields."""

    def made(method: str, **fields: Any) -> m.Config:
        found = connector.describe().auth_method(method)
        assert found is not None
        return m.build_config(found.config, {"cluster_name": "lab"} | fields)

    return made


class Log:
    """An undo log that remembers."""

    def __init__(self) -> None:
        self.steps: dict[str, Any] = {}
        self.kept: dict[str, Any] = {}

    async def begin(self, step: Any) -> str:
        entry = str(len(self.steps))
        self.steps[entry] = dict(step)
        return entry

    async def keep(self, entry: str, until: Any) -> None:
        self.kept[entry] = until

    async def done(self, entry: str) -> None:
        del self.steps[entry]


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def context(log: Log) -> m.Context:
    return msgspec.structs.replace(example_context(), connector="prod", consumer="ann@host", undo=log)


Opened = Callable[..., contextlib.AbstractAsyncContextManager[Any]]


@pytest.fixture
def opened(settle: Any, context: m.Context) -> Opened:
    """A session of an auth method from plain fields."""

    def made(method: str, **fields: Any) -> Any:
        return connector.authenticate(settle(method, **fields), context)

    return made


@pytest.fixture
def admin(cluster: Any) -> dict[str, Any]:
    """The fields of the administrator's client certificate."""
    certificate, key = cluster.admin
    return {
        "server": cluster.url,
        "certificate_authority": cluster.ca,
        "client_certificate": certificate,
        "client_key": key,
    }


@pytest.fixture
def issuer(cluster: Any, namespace: str) -> dict[str, Any]:
    """The fields of one who may issue tokens of the namespace's service account `bot`, and nothing else."""
    return {
        "server": cluster.url,
        "certificate_authority": cluster.ca,
        "token": cluster.token(namespace, "issuer"),
        "service_account": f"{namespace}/bot",
    }


@pytest.fixture
def ask() -> Callable[..., m.CredentialRequest]:
    def made(access: m.Access = "read", **more: Any) -> m.CredentialRequest:
        fields = {"resource_id": "lab", "ttl": timedelta(hours=1), "consumer": "ann@host", "connector": "prod"} | more
        return m.CredentialRequest(resource_type="kubernetes-cluster", access=access, **fields)

    return made


class FakeServer:
    """An API server that answers as the test says, by method and path; else 404. Takes one token alone."""

    token = "good-token"

    def __init__(self, url: str, ca: str) -> None:
        self.authorization = f"Bearer {self.token}"
        self.url = url
        self.ca = ca
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: dict[tuple[str, str], Any] = {("GET", "/version"): {"gitVersion": "v1.33.1"}}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((request.method, request.path, json.loads(body) if body else None))
        if request.headers.get("Authorization") != self.authorization:
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        answer = self.answers.get((request.method, request.path))
        if isinstance(answer, web.Response):
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)  # one is sent once
        if callable(answer):
            answer = answer(self.asked[-1][2])
        if answer is None:
            return web.json_response({"kind": "Status", "code": 404, "details": {}}, status=404)
        return web.json_response(answer)


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncGenerator[FakeServer, None]:
    authority = kube.Authority()
    certificate, key = authority.server("127.0.0.1")
    (tmp_path / "fake.pem").write_text(certificate + key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "fake.pem")
    application = web.Application()
    runner = web.AppRunner(application, access_log=None)
    server = FakeServer("", authority.pem)
    application.router.add_route("*", "/{tail:.*}", server.handle)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    server.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest.fixture
def at_fake(fake: FakeServer) -> dict[str, Any]:
    """The fields that lead to the fake, with its token."""
    return {"server": fake.url, "certificate_authority": fake.ca, "token": fake.token}


@pytest.fixture
def authority() -> Any:
    """A certificate authority that no server knows."""
    return kube.Authority("stranger")
