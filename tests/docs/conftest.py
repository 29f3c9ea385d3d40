"""Acme Cloud, the vendor of the example plugin: a small strict HTTP server; and the plugin as if it were installed."""

import json
import os
import secrets
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mooring_sandbox.cloud import Sandbox
from mooring_sandbox.testing import sandbox

__all__ = ["sandbox"]

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "docs" / "examples" / "mooring_acme"


class AcmeCloud(ThreadingHTTPServer):
    """Buckets, behind one API key; tokens are good for one bucket, one access and their time."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.key = secrets.token_urlsafe(16)
        self.buckets = ("reports", "raw-data")
        self.tokens: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Refuses whatever is not exactly right."""

    server: AcmeCloud

    def do_GET(self) -> None:
        self.server.calls.append(f"GET {self.path}")
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        token = self.server.tokens.get(bearer)
        if bearer != self.server.key and token is None:
            return self._answer(401)
        if token is not None and self.path != f"/buckets/{token['bucket']}":
            return self._answer(403)
        if self.path == "/me":
            return self._answer(200, {"login": "wile"})
        if self.path == "/buckets":
            return self._answer(200, [{"name": name} for name in self.server.buckets])
        name = self.path.removeprefix("/buckets/")
        return self._answer(200, {"name": name}) if name in self.server.buckets else self._answer(404)

    def do_POST(self) -> None:
        self.server.calls.append(f"POST {self.path}")
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers.get("authorization") != f"Bearer {self.server.key}":
            return self._answer(401)
        if self.path != "/tokens" or set(body) != {"bucket", "access", "seconds"} or type(body["seconds"]) is not int:
            return self._answer(400)
        if body["bucket"] not in self.server.buckets:
            return self._answer(404)
        token = secrets.token_urlsafe(16)
        self.server.tokens[token] = body
        ends = datetime.now(UTC) + timedelta(seconds=body["seconds"])
        return self._answer(201, {"id": token, "expires": ends.isoformat()})

    def _answer(self, status: int, body: Any = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def acme_cloud() -> Iterator[AcmeCloud]:
    with AcmeCloud() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def mooring_acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The plugin's module."""
    monkeypatch.syspath_prepend(PLUGIN / "src")
    yield import_module("mooring_acme")
    sys.modules.pop("mooring_acme", None)


@pytest.fixture
def acme_path(tmp_path: Path) -> str:
    """A PYTHONPATH that has the plugin with its entry points, as an installation would."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "site" / f"mooring_acme-{project['version']}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return os.pathsep.join((str(folder.parent), str(PLUGIN / "src")))


@pytest.fixture
def clean_environment(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment without anything of AWS or mooring, with a home of its own and what is given."""

    def make(**more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOORING_"))}
        return kept | {"MOORING_HOME": str(tmp_path / "home"), "PYTHONWARNINGS": "error"} | more

    return make


@pytest.fixture
def acme_variables(acme_cloud: AcmeCloud, acme_path: str) -> dict[str, str]:
    """What a program needs for the example plugin and its vendor."""
    return {"PYTHONPATH": acme_path, "ACME_URL": acme_cloud.url, "ACME_KEY": acme_cloud.key}


@pytest.fixture
def sandbox_variables(sandbox: Sandbox) -> dict[str, str]:
    """What leads a program to the sandbox, without its home: each test has one of its own."""
    return {name: value for name, value in sandbox.environment().items() if name != "MOORING_HOME"}


@pytest.fixture(scope="session")
def pages() -> SimpleNamespace:
    """Where the documentation is."""
    files = [ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    files = [file for file in files if file.exists()]
    return SimpleNamespace(root=ROOT, docs=ROOT / "docs", files=(*files, *sorted((ROOT / "docs").rglob("*.md"))))
