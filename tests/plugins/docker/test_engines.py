"""Real container engines that log in by mooring: dockerd, by the docker CLI and by our clients, and podman."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import mooring as m
from mooring_docker import connector

pytestmark = pytest.mark.anyio
BIN = Path(sys.executable).parent
ALICE = {"username": "alice", "password": "pw-alice"}
DENIED = "denied|unauthorized"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def engine(engines: Any) -> Iterator[str]:
    with engines.dockerd() as host:
        yield host


@pytest.fixture
def docker(engine: str, engines: Any, machine: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the real docker CLI against the real engine."""
    command = engines.program("docker")
    monkeypatch.setenv("DOCKER_HOST", engine)
    monkeypatch.setenv("PATH", os.pathsep.join([str(BIN), os.environ["PATH"]]))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([command, *words], capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture(scope="session")
def podman_kept(engines: Any) -> Iterator[Any]:
    with engines.podman() as found:
        yield found


@pytest.fixture
def podman(podman_kept: Any, machine: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the real podman, which trusts whoever made the images."""
    policy = machine / ".config" / "containers" / "policy.json"
    policy.parent.mkdir(parents=True)
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    monkeypatch.setenv("PATH", os.pathsep.join([str(BIN), os.environ["PATH"]]))
    return podman_kept


@pytest.fixture
def registered(mooring: Any, token_registry: Any, tokens: Any, push: Any) -> str:
    """The connector `mine` of a registry with a token server, and two images there; gives its host."""
    host = str(token_registry.host)
    for name in ("team/app", "team/other"):
        assert push(f"{host}/{name}:v1", "--dest-creds=alice:pw-alice").returncode == 0
    mooring(
        "connector", "register", "mine", "--type", "docker", "--auth-method", "password",
        f"--registry={token_registry.url}", "--username=alice", "--password", "-",
        "--allow-unnarrowed", "--allow-long-lived", given="pw-alice\n",
    )  # fmt: skip
    return host


def there(tokens: Any, reference: str) -> bool:
    """Whether a registry has an image."""
    host, _, rest = reference.partition("/")
    name, _, tag = rest.partition(":")
    bearer = f"Bearer {tokens.token('alice', [f'repository:{name}:pull'])}"
    request = urllib.request.Request(f"http://{host}/v2/{name}/tags/list", headers={"Authorization": bearer})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return tag in json.load(reply)["tags"]


def held_in(folder: Path) -> str:
    """All that the files of a folder hold."""
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def test_docker_pulls_and_pushes_by_mooring_login(
    docker: Run, mooring: Any, registered: str, machine: Path, tokens: Any
) -> None:
    app, new = f"{registered}/team/app:v1", f"{registered}/team/by-docker:v1"
    assert "denied" in docker("pull", app).stderr

    mooring("login", "mine", "-r", "docker-registry", "-i", registered)

    assert docker("pull", app).returncode == 0
    assert docker("tag", app, new).returncode == 0
    pushed = docker("push", new)
    assert pushed.returncode == 0, pushed.stderr
    assert there(tokens, new)
    assert json.loads((machine / ".docker" / "config.json").read_text()) == {"credHelpers": {registered: "mooring"}}
    assert "pw-alice" not in held_in(machine / ".docker") + held_in(machine / "mooring" / "logins")
    mooring("logout", "mine")
    assert "denied" in docker("pull", app).stderr


def test_docker_login_and_logout_do_not_disturb_it(docker: Run, mooring: Any, registered: str, machine: Path) -> None:
    mooring("login", "mine", "-r", "docker-registry", "-i", registered)
    before = (machine / ".docker" / "config.json").read_text()

    stored = docker("login", "--username=alice", "--password=pw-alice", registered)
    erased = docker("logout", registered)

    assert stored.returncode != 0
    assert "first run: mooring logout" in stored.stderr
    assert (erased.returncode, "to end its logins: mooring logout" in erased.stderr) == (0, True)
    assert (machine / ".docker" / "config.json").read_text() == before
    assert docker("pull", f"{registered}/team/app:v1").returncode == 0


@pytest.mark.parametrize("access", ["read", "write"])
def test_docker_by_exec_is_confined_to_the_repository_and_the_access(
    docker: Run, engines: Any, mooring: Any, registered: str, access: str, machine: Path, tokens: Any
) -> None:
    app, new, other = (f"{registered}/team/{name}" for name in ("app:v1", f"app:{access}", "other:v1"))
    mooring_exec = ("exec", "mine", "-r", "docker-registry", "-i", f"{registered}/team/app", "--access", access, "--")

    def by_exec(*words: str, code: int = 0) -> str:
        return str(mooring(*mooring_exec, engines.program("docker"), *words, code=code).stderr)

    by_exec("pull", app)
    assert docker("tag", app, new).returncode == 0
    assert docker("tag", app, other).returncode == 0
    by_exec("push", new, code=0 if access == "write" else 1)
    assert there(tokens, new) == (access == "write")
    assert "denied" in by_exec("push", other, code=1)
    assert "denied" in by_exec("pull", other, code=1)
    assert list((machine / "mooring" / "run").iterdir()) == []


async def test_our_async_client_with_the_real_engine(
    docker: Run, opened: Any, token_registry: Any, registered: str, tokens: Any
) -> None:
    import aiodocker

    app, other = f"{registered}/team/app", f"{registered}/team/other"
    async with opened("password", registry=token_registry.url, **ALICE) as session:
        for access in ("read", "write"):
            first = await issued(session, app, access)
            request = m.ClientRequest(credentials=first, renew=never, resource_type="docker-registry", resource_id=app)
            async with connector.client(request) as client:
                await client.images.pull(app, tag="v1")
                await client.images.tag(f"{app}:v1", app, tag=f"async-{access}")
                refused = pytest.raises(aiodocker.DockerError, match="denied")
                with nullcontext() if access == "write" else refused:
                    await client.images.push(app, tag=f"async-{access}")
                with refused:
                    await client.images.pull(other, tag="v1")
    assert not there(tokens, f"{app}:async-read")
    assert there(tokens, f"{app}:async-write")


async def test_our_client_for_synchronous_hosts_with_the_real_engine(
    docker: Run, opened: Any, token_registry: Any, registered: str
) -> None:
    errors = pytest.importorskip("docker.errors", reason="no docker package; run: pip install 'docker>=7,<8'")
    app, other = f"{registered}/team/app", f"{registered}/team/other"
    async with opened("password", registry=token_registry.url, **ALICE) as session:
        for access in ("read", "write"):
            request = m.BlockingClientRequest(
                credentials=await issued(session, app, access),
                renew=never_now,
                resource_type="docker-registry",
                resource_id=app,
            )
            with connector.blocking_client(request) as client:
                client.images.pull(app, tag="v1").tag(app, tag=f"sync-{access}")
                said = client.images.push(app, tag=f"sync-{access}")
                assert ("errorDetail" in said) == (access == "read"), said
                with pytest.raises(errors.APIError, match="denied"):
                    client.images.pull(other, tag="v1")


async def issued(session: Any, resource_id: str, access: m.Access) -> m.Credentials:
    return await connector.issue_credentials(
        session,
        m.CredentialRequest(
            resource_type="docker-registry", resource_id=resource_id, access=access, ttl=None, consumer="me"
        ),
    )


async def never(refused: m.Credentials | None = None) -> m.Credentials:
    raise AssertionError("asked for more")


def never_now(refused: m.Credentials | None = None) -> m.Credentials:
    raise AssertionError("asked for more")


@pytest.mark.parametrize("file", ["docker's own", "auth.json"])
def test_podman_pulls_and_pushes_by_mooring_login(
    podman: Any, mooring: Any, registered: str, machine: Path, file: str, tokens: Any
) -> None:
    app, new = f"{registered}/team/app:v1", f"{registered}/team/by-podman:v1"
    named = () if file == "docker's own" else ("--file", str(machine / "auth.json"))
    variables = {"REGISTRY_AUTH_FILE": named[1]} if named else {}
    assert "denied" in podman("pull", app).stderr

    mooring("login", "mine", "-r", "docker-registry", "-i", registered, *named)

    pulled = podman("pull", app, **variables)
    assert pulled.returncode == 0, pulled.stderr
    assert podman("tag", app, new).returncode == 0
    pushed = podman("push", new, **variables)
    assert pushed.returncode == 0, pushed.stderr
    assert there(tokens, new)
    mooring("logout", "mine")
    assert "denied" in podman("pull", app, **variables).stderr


def test_podman_takes_no_token_of_exec_and_nothing_wider_either(podman: Any, mooring: Any, registered: str) -> None:
    """Its files have no place for one; that the user's own login is not taken in its stead is what exec is for."""
    mooring("login", "mine", "-r", "docker-registry", "-i", registered)
    app = f"{registered}/team/app"

    done = mooring(
        "exec", "mine", "-r", "docker-registry", "-i", app, "--", *podman.words("pull"), f"{app}:v1",
        code=125, **podman.variables,
    )  # fmt: skip

    assert "denied" in done.stderr
