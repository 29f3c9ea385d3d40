"""The plugin's hooks against the real docker-registry, with htpasswd and with tokens; skopeo as a real client."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import mooring as m
from mooring.http import open_http
from mooring.testing import example_context
from mooring.types import build_config
from mooring_docker import connector
from mooring_sandbox.ports import reserved_ports

PASSWORD = "pw-alice"
HASHED = "$2b$05$B345D/K5GY9bmwUUTJUYPu9iM4lsyIciRrZF6MFJBoqN314E/ON8O"
USERS = {"alice": PASSWORD, "bob": "pw-bob"}

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mooring-tests" / "registry"
HOW = "run: make registry-assets"


def module(name: str) -> Any:
    """A module beside this one: under pytest's importlib mode none can be imported by name."""
    known = f"mooring_tests_docker_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


def program(name: str, variable: str) -> str:
    """The program, or a skip that says how to get it."""
    cached = CACHE / "usr" / "bin" / name
    found = os.environ.get(variable) or shutil.which(name) or (str(cached) if cached.exists() else None)
    if not found:
        pytest.skip(f"no {name} on the PATH, in {variable} or in {CACHE}; {HOW}")
    return found


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without a login anywhere; gives its home."""
    for name in [name for name in os.environ if name.startswith(("DOCKER_", "REGISTRY_", "XDG_", "MOORING_"))]:
        monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MOORING_HOME", str(home / "mooring"))
    return home


@pytest.fixture(scope="session")
def engines() -> Any:
    """Real container engines."""
    return module("engines")


class Registry(NamedTuple):
    """A running docker-registry."""

    host: str
    tokens: Any = None

    @property
    def url(self) -> str:
        return f"http://{self.host}"


@contextmanager
def run_registry(folder: Path, auth: dict[str, Any], **http: Any) -> Iterator[str]:
    """docker-registry with that kind of authentication; gives its host."""
    command = program("docker-registry", "MOORING_DOCKER_REGISTRY")
    with reserved_ports(1) as (port,):
        host = f"127.0.0.1:{port}"
        settings: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
            "http": {"addr": host, **http},
        }
        if auth:
            settings["auth"] = auth
        file = folder / "registry.json"  # JSON is YAML
        file.write_bytes(msgspec.json.encode(settings))
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen([command, "serve", str(file)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_for(child, host, folder / "log")
            yield host
        finally:
            child.kill()
            child.wait()


def wait_for(child: subprocess.Popen[bytes], host: str, log: Path) -> None:
    name, _, port = host.partition(":")
    for _ in range(600):
        if child.poll() is not None:
            pytest.fail(f"docker-registry ended; its log: {log.read_text()[-500:]}")
        with socket.socket() as probe:
            if probe.connect_ex((name, int(port))) == 0:
                return
        time.sleep(0.05)
    pytest.fail("docker-registry does not listen after 30 s")


@pytest.fixture
def running() -> Callable[..., Any]:
    """Runs a registry of one's own."""
    return run_registry


@pytest.fixture(scope="session")
def htpasswd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that knows alice and her password, and has no token server."""
    folder = tmp_path_factory.mktemp("htpasswd")
    (folder / "htpasswd").write_text(f"alice:{HASHED}\n")
    with run_registry(folder, {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}) as host:
        yield Registry(host)


@pytest.fixture(scope="session")
def token_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with a token server: alice may do all, bob what is below bob/, nobody pull what is below open/."""
    folder = tmp_path_factory.mktemp("token")
    tokens = module("token_server")
    with serving(tokens.TokenServer(USERS)) as server:
        bundle = server.write_certificate(folder / "signer.pem")
        auth = {
            "realm": server.realm,
            "service": tokens.SERVICE,
            "issuer": tokens.ISSUER,
            "rootcertbundle": str(bundle),
        }
        with run_registry(folder, {"token": auth}) as host:
            yield Registry(host, server)


@pytest.fixture
def tokens(token_registry: Registry) -> Any:
    """The token server, with nothing seen yet."""
    token_registry.tokens.seen.clear()
    token_registry.tokens.answer = {}
    return token_registry.tokens


@pytest.fixture(scope="session")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that asks nobody who they are."""
    with run_registry(tmp_path_factory.mktemp("open"), {}) as host:
        yield Registry(host)


@contextmanager
def serving(server: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def served() -> Iterator[Callable[[Any], Any]]:
    """Serves until the test ends."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(serving(server))


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(module("images").write_image(tmp_path_factory.mktemp("image") / "oci"))


Skopeo = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def skopeo_program() -> tuple[str, dict[str, str]]:
    """The real skopeo, and the variables that it needs."""
    command = program("skopeo", "MOORING_SKOPEO")
    libraries = CACHE / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
    return command, {"LD_LIBRARY_PATH": str(libraries)} if command.startswith(str(CACHE)) else {}


@pytest.fixture(scope="session")
def skopeo(skopeo_program: tuple[str, dict[str, str]]) -> Skopeo:
    """Runs it."""
    command, needed = skopeo_program

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, "--insecure-policy", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=dict(os.environ) | needed | variables,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def push(skopeo: Skopeo, image: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Pushes the image with credentials such as `--dest-creds=alice:pw`."""

    def pushed(reference: str, *credentials: str) -> subprocess.CompletedProcess[str]:
        insecure = "--dest-tls-verify=false"
        return skopeo("copy", "-q", insecure, *credentials, f"oci:{image}:latest", f"docker://{reference}")

    return pushed


@pytest.fixture
def powerless() -> Sequence[str]:
    """Words before a command, so that modes bind it even where root runs it."""
    if os.geteuid() != 0:
        return ()
    command = shutil.which("setpriv")
    if command is None:
        pytest.skip("modes do not bind root, and there is no setpriv; run: apt-get install util-linux")
    return (command, "--bounding-set=-dac_override,-dac_read_search")


Mooring = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def mooring(machine: Path) -> Mooring:
    """Runs the real CLI, on that machine; a command that fails fails the test, unless its exit code is wanted."""
    program = Path(sys.executable).with_name("mooring")

    def run(
        *words: str, given: str = "", code: int = 0, before: Sequence[str] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*before, program, *words],
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            env=dict(os.environ) | variables,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done

    return run


Opened = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def settle() -> Callable[..., m.Config]:
    """A configuration of an auth method from plain fields."""

    def made(method: str, **fields: Any) -> m.Config:
        found = connector.describe().auth_method(method)
        assert found is not None
        return build_config(found.config, fields)

    return made


@pytest.fixture
async def context() -> AsyncGenerator[m.Context, None]:
    async with open_http() as http:
        made = example_context()
        made.tools.limits.learn(connector.describe().limits)  # as a broker does
        yield msgspec.structs.replace(made, tools=msgspec.structs.replace(made.tools, http=http))


@pytest.fixture
def opened(settle: Callable[..., m.Config], context: m.Context) -> Opened:
    """A session of an auth method."""

    @asynccontextmanager
    async def made(method: str, **fields: Any) -> AsyncGenerator[Any, None]:
        async with connector.authenticate(settle(method, **fields), context) as session:
            yield session

    return made


def status_of(url: str, authorization: str | None = None, method: str = "GET") -> int:
    """What a registry answers to a bare request."""
    request = urllib.request.Request(url, method=method, data=b"" if method == "POST" else None)
    if authorization:
        request.add_header("Authorization", authorization)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture
def status() -> Callable[..., int]:
    return status_of
