"""Clients of an engine that log in by themselves; the engine is a strict fake that asks the real registry."""

from __future__ import annotations

import base64
import json
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.to_thread
import pytest
from aiodocker.exceptions import DockerError
from docker.errors import APIError

import mooring as m
from mooring_docker import RegistryToken, connector

pytestmark = pytest.mark.anyio


class Engine(ThreadingHTTPServer):
    """An engine's API: what a client sends, kept; a pull or push asks the registry with the login that was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, dict[str, Any] | None]] = []
        self.refused: dict[str, tuple[int, Any]] = {}
        """Passwords, and what the engine answers to them."""


class Handler(BaseHTTPRequestHandler):
    server: Engine
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        assert path.endswith("/version"), path
        self.reply({"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/v1.41")
        asked = parse_qs(parts.query)
        if path == "/images/create":
            verb, image = "pull", asked["fromImage"][0]
        else:
            assert path.endswith("/push"), path
            verb, image = "push", path.removeprefix("/images/").removesuffix("/push")
        header = self.headers.get("x-registry-auth", "")
        auth = None
        if header not in ("", "placeholder"):
            auth = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))) or None
        self.server.seen.append((verb, image, auth))
        refusal = self.server.refused.get((auth or {}).get("password", ""))
        if refusal is None:
            return self.reply({"status": str(pulls(image, auth))})
        status, said = refusal
        return self.reply(*(said if isinstance(said, list) else [{"message": said}]), status=status)

    def reply(self, *values: Any, status: int = 200) -> None:
        body = b"".join(json.dumps(value).encode() + b"\n" for value in values)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def pulls(image: str, auth: dict[str, Any] | None) -> int:
    """What the registry of an image answers."""
    host, _, name = image.partition("/")
    if not host.startswith("127.0.0.1"):
        return 0
    request = urllib.request.Request(f"http://{host}/v2/{name.partition(':')[0]}/tags/list")
    if auth and "registrytoken" in auth:
        request.add_header("Authorization", f"Bearer {auth['registrytoken']}")
    elif auth:
        pair = base64.b64encode(f"{auth['username']}:{auth['password']}".encode()).decode()
        request.add_header("Authorization", f"Basic {pair}")
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    server = Engine()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def login(host: str, *, ends_in: timedelta | None = None, password: str = "pw-alice") -> m.RegistryLogin:
    ends = None if ends_in is None else datetime.now(UTC) + ends_in
    return m.RegistryLogin(
        registry=host, username="alice", password=m.Secret(password), expires_at=ends, narrowed=False
    )


def token(host: str, text: str, repository: str = "team/app") -> RegistryToken:
    ends = datetime.now(UTC) + timedelta(minutes=5)
    return RegistryToken(registry=host, repository=repository, token=m.Secret(text), expires_at=ends, narrowed=True)


class Renewing:
    """Gives these, one after the other."""

    def __init__(self, *credentials: m.Credentials | m.MooringError) -> None:
        self.left = list(credentials)
        self.refused: list[m.Credentials] = []

    def now(self, refused: m.Credentials | None = None) -> m.Credentials:
        if refused is not None:
            self.refused.append(refused)
        got = self.left.pop(0)
        if isinstance(got, m.MooringError):
            raise got
        return got

    async def later(self, refused: m.Credentials | None = None) -> m.Credentials:
        return self.now(refused)


async def used(engine: Engine, first: m.Credentials, renewing: Renewing, work: Callable[[Any], Any]) -> None:
    request = m.ClientRequest(
        credentials=first, renew=renewing.later, resource_type="docker-registry", resource_id="r.org"
    )
    async with connector.client(request) as docker:
        await work(docker)


async def blocking(engine: Engine, first: m.Credentials, renewing: Renewing, work: Callable[[Any], Any]) -> None:
    request = m.BlockingClientRequest(
        credentials=first, renew=renewing.now, resource_type="docker-registry", resource_id="r.org"
    )

    def run() -> None:
        with connector.blocking_client(request) as docker:
            work(docker)

    await anyio.to_thread.run_sync(run)


async def test_a_login_of_any_registry_pulls_and_pushes(engine: Engine, htpasswd: Any, push: Any) -> None:
    host = htpasswd.host
    assert push(f"{host}/team/app:v1", "--dest-creds=alice:pw-alice").returncode == 0
    said: list[Any] = []

    async def work(docker: Any) -> None:
        said.extend(await docker.images.pull(f"{host}/team/app:v1"))
        said.extend(await docker.images.push(f"{host}/team/app", tag="v1"))
        said.extend([part async for part in docker.images.pull(f"{host}/team/app", stream=True)])
        await docker.images.pull("redis")

    await used(engine, login(host), Renewing(), work)

    auth = {"username": "alice", "password": "pw-alice", "serveraddress": host}
    assert said == [{"status": "200"}] * 3
    assert engine.seen == [
        ("pull", f"{host}/team/app:v1", auth),
        ("push", f"{host}/team/app", auth),
        ("pull", f"{host}/team/app", auth),
        ("pull", "docker.io/library/redis", None),
    ]


async def test_the_same_for_synchronous_hosts(engine: Engine, htpasswd: Any, push: Any) -> None:
    host = htpasswd.host
    assert push(f"{host}/team/app:v1", "--dest-creds=alice:pw-alice").returncode == 0

    def work(docker: Any) -> None:
        assert '"200"' in docker.api.pull(f"{host}/team/app", tag="v1")
        assert '"200"' in docker.images.push(f"{host}/team/app", tag="v1")
        docker.api.pull("redis", tag="7")

    await blocking(engine, login(host), Renewing(), work)

    auth = {"username": "alice", "password": "pw-alice", "serveraddress": host}
    assert [(verb, sent) for verb, _, sent in engine.seen] == [("pull", auth), ("push", auth), ("pull", None)]


async def test_a_token_goes_to_its_repository_alone(
    engine: Engine, token_registry: Any, tokens: Any, push: Any
) -> None:
    host = token_registry.host
    assert push(f"{host}/team/app:v1", "--dest-creds=alice:pw-alice").returncode == 0
    text = tokens.token("alice", ["repository:team/app:pull"])
    said: list[Any] = []

    async def work(docker: Any) -> None:
        said.extend(await docker.images.pull(f"{host}/team/app:v1"))
        said.extend(await docker.images.pull(f"{host}/team/other:v1"))

    await used(engine, token(host, text), Renewing(), work)

    assert said == [{"status": "200"}, {"status": "401"}]
    assert [auth for _, _, auth in engine.seen] == [{"registrytoken": text, "serveraddress": host}, None]


@pytest.mark.parametrize("use", [used, blocking])
async def test_credentials_are_renewed_before_they_end(
    engine: Engine, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = Renewing(m.Unreachable("not now"), login("r.org", password="second"))
    began, late = datetime.now(UTC), 0
    monkeypatch.setattr("mooring.held._now", lambda: began + timedelta(seconds=late))

    def pull(docker: Any) -> Any:
        return docker.api.pull("r.org/app", tag="1") if use is blocking else docker.images.pull("r.org/app:1")

    def often(docker: Any) -> None:
        nonlocal late
        for late in SECONDS:  # noqa: B007  (the clock reads it)
            pull(docker)

    async def often_async(docker: Any) -> None:
        nonlocal late
        for late in SECONDS:  # noqa: B007  (the clock reads it)
            await pull(docker)

    first = login("r.org", ends_in=timedelta(minutes=1), password="first")
    await use(engine, first, fresh, often if use is blocking else often_async)

    assert [auth["password"] for _, _, auth in engine.seen if auth] == ["first"] * 3 + ["second"]


SECONDS = (0, 45, 46, 56)


@pytest.mark.parametrize("use", [used, blocking])
@pytest.mark.parametrize("refusal", [(401, "no"), (500, "unauthorized: authentication required")])
async def test_what_the_registry_refuses_is_renewed_and_asked_once_more(engine: Engine, use: Any, refusal: Any) -> None:
    engine.refused = {"first": refusal, "third": refusal, "fourth": refusal}
    words = [login("r.org", password=word) for word in ("first", "second", "third", "fourth")]
    fresh = Renewing(*words[1:2])

    def work(docker: Any) -> None:
        docker.api.pull("r.org/app", tag="1")
        docker.api.push("r.org/app", tag="1")

    async def work_async(docker: Any) -> None:
        await docker.images.pull("r.org/app:1")
        assert [part async for part in docker.images.push("r.org/app", tag="1", stream=True)]

    def fails(docker: Any) -> None:
        with pytest.raises(APIError):
            docker.api.pull("r.org/app", tag="1")

    async def fails_async(docker: Any) -> None:
        with pytest.raises(DockerError):
            await docker.images.pull("r.org/app:1")

    await use(engine, words[0], fresh, work if use is blocking else work_async)
    assert fresh.refused == [words[0]]
    fresh = Renewing(words[3])
    await use(engine, words[2], fresh, fails if use is blocking else fails_async)
    assert fresh.refused == [words[2]]
    sent = [auth["password"] for _, _, auth in engine.seen if auth]
    assert sent == ["first", "second", "second", "third", "fourth"]


DENIED = "errors:\ndenied: requested access to the resource is denied\nunauthorized: authentication required\n"
"""What dockerd 20.10 says of a push with a token to pull."""
NARROW = [(500, DENIED), (401, "push access denied: server message: insufficient_scope: authorization failed")]


@pytest.mark.parametrize("use", [used, blocking])
@pytest.mark.parametrize("refusal", NARROW)
async def test_what_the_credentials_are_not_for_is_no_reason_to_ask_for_others(
    engine: Engine, use: Any, refusal: Any
) -> None:
    engine.refused = {"first": refusal}

    def fails(docker: Any) -> None:
        with pytest.raises(APIError, match="denied"):
            docker.api.pull("r.org/app", tag="1")

    async def fails_async(docker: Any) -> None:
        with pytest.raises(DockerError, match="denied"):
            await docker.images.push("r.org/app", tag="1")

    fresh = Renewing()
    await use(engine, login("r.org", password="first"), fresh, fails if use is blocking else fails_async)
    assert fresh.refused == []
    assert len(engine.seen) == 1


@pytest.mark.parametrize("use", [used, blocking])
async def test_a_refusal_of_what_was_sent_nothing_is_no_reason_either(engine: Engine, use: Any) -> None:
    engine.refused = {"": (401, "unauthorized: authentication required")}

    def fails(docker: Any) -> None:
        with pytest.raises(APIError, match="unauthorized"):
            docker.api.pull("other.org/app", tag="1")

    async def fails_async(docker: Any) -> None:
        with pytest.raises(DockerError, match="unauthorized"):
            await docker.images.pull("other.org/app:1")

    fresh = Renewing()
    await use(engine, login("r.org"), fresh, fails if use is blocking else fails_async)
    assert fresh.refused == []
    assert len(engine.seen) == 1


async def test_a_refusal_in_the_stream_is_renewed_unless_some_of_it_was_given(engine: Engine) -> None:
    error = {"errorDetail": {"message": "unauthorized: authentication required"}, "error": "unauthorized"}
    first, second = login("r.org", password="first"), login("r.org", password="second")

    async def whole(docker: Any) -> None:
        assert await docker.images.push("r.org/app", tag="1") == [{"status": "0"}]

    async def parts(docker: Any) -> None:
        with pytest.raises(DockerError, match="unauthorized"):
            async for _ in docker.images.push("r.org/app", tag="1", stream=True):
                pass

    engine.refused = {"first": (200, [{"status": "The push refers to repository"}, error])}
    await used(engine, first, Renewing(second), whole)
    await used(engine, first, Renewing(), parts)


async def test_fifty_pulls_renew_once(engine: Engine) -> None:
    engine.refused = {"first": (401, "unauthorized")}
    first = login("r.org", password="first")
    fresh = Renewing(login("r.org", password="second"))

    async def work(docker: Any) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(docker.images.pull, "r.org/app:1")

    await used(engine, first, fresh, work)
    assert fresh.refused == [first]


async def test_credentials_that_have_ended_and_cannot_be_renewed(engine: Engine) -> None:
    async def work(docker: Any) -> None:
        await docker.images.pull("r.org/app:1")

    with pytest.raises(m.Unreachable, match="not now"):
        await used(engine, login("r.org", ends_in=timedelta(seconds=-1)), Renewing(m.Unreachable("not now")), work)


async def test_docker_hub_goes_by_its_own_name(engine: Engine) -> None:
    await blocking(engine, login("docker.io"), Renewing(), lambda docker: docker.api.pull("redis", tag="7"))

    assert engine.seen[0][2] is not None
    assert engine.seen[0][2]["serveraddress"] == "https://index.docker.io/v1/"


async def test_other_kinds_are_refused(engine: Engine) -> None:
    bearer = m.BearerToken(token=m.Secret("t"), expires_at=None, narrowed=True)
    with pytest.raises(m.UnsupportedResource):
        await used(engine, bearer, Renewing(), lambda docker: docker)
    with pytest.raises(m.UnsupportedResource):
        await blocking(engine, bearer, Renewing(), lambda docker: docker)


@pytest.mark.parametrize(
    ("use", "place"),  # the docker package leaves its socket open where a path has none
    [(blocking, "tcp://127.0.0.1:9"), (used, "tcp://127.0.0.1:9"), (used, "unix:///nonexistent.sock"), (used, "none")],
)
async def test_no_engine(monkeypatch: pytest.MonkeyPatch, engine: Engine, use: Any, place: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", place)
    with pytest.raises(m.Unreachable, match="no container engine"):
        await use(engine, login("r.org"), Renewing(), lambda docker: docker)


async def test_no_engine_at_its_usual_socket(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setattr("aiodocker.docker._sock_search_paths", [])
    with pytest.raises(m.Unreachable, match="no container engine"):
        await used(engine, login("r.org"), Renewing(), lambda docker: docker)


async def test_the_package_for_synchronous_hosts_is_named(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(m.InvalidConfig, match="pip install 'docker>=7,<8'"):
        await blocking(engine, login("r.org"), Renewing(), lambda docker: docker)
