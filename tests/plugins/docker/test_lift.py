"""Logins of docker's and podman's configuration, and of other people's credential helpers, well-behaved or not."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest

import mooring as m
from mooring_docker import connector, helpers

pytestmark = pytest.mark.anyio
CANARY = "cAnArY-7c11"


def coded(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


def write(path: Path, values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


@pytest.fixture
def config(machine: Path) -> Any:
    """Writes docker's `config.json`."""
    return lambda values: write(machine / ".docker" / "config.json", values)


@pytest.fixture
def helper(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a credential helper on the PATH, as a shell script."""
    folder = machine / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def made(name: str, script: str) -> None:
        path = folder / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return made


async def lifted(**options: Any) -> m.Lifted:
    return await connector.lift(m.LiftRequest(options=options))


async def test_nothing_there() -> None:
    with pytest.raises(m.NothingToLift, match=r"\.docker/config.json, .*containers/auth.json"):
        await lifted()
    with pytest.raises(m.NothingToLift):
        await connector.lift_all(m.LiftRequest())


async def test_docker_hub_by_docker_login(config: Any) -> None:
    file = config({"auths": {"https://index.docker.io/v1/": {"auth": coded("alice", "a:b")}}})

    found = await lifted()

    assert (found.auth_method, found.config.username, found.config.password) == ("password", "alice", m.Secret("a:b"))
    assert (found.config.registry, found.name) == ("docker.io", "docker.io")
    assert found.source == f"the login for docker.io in {file}"


async def test_the_only_one_the_wanted_one_and_too_many(config: Any) -> None:
    auths: dict[str, Any] = {"r.org:5000": {"auth": coded("alice", "pw")}}
    config({"auths": auths})
    assert (await lifted()).config.registry == "r.org:5000"
    auths["https://s.org/v2/"] = {"username": "bob", "password": "pw"}
    auths["empty.org"] = {}
    config({"auths": auths})
    assert (await lifted(registry="https://s.org")).config.username == "bob"
    with pytest.raises(m.NothingToLift, match=r"logins there: r.org:5000, s.org"):
        await lifted()


async def test_podman_after_docker(config: Any, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config({"auths": {"r.org": {"auth": coded("by-docker", "pw")}}})
    auths = {"r.org": {"auth": coded("by-podman", "pw")}, "s.org/team": {"auth": coded("bob", "pw")}}
    write(machine / "run" / "containers" / "auth.json", {"auths": auths})
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(machine / "run"))

    found = await connector.lift_all(m.LiftRequest())

    assert [(one.name, one.config.username) for one in found] == [("r.org", "by-docker"), ("s.org-team", "bob")]
    monkeypatch.setenv("DOCKER_CONFIG", str(machine / "nowhere"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(machine / "run" / "containers" / "auth.json"))
    assert (await lifted(registry="r.org")).config.username == "by-podman"


async def test_one_that_is_unfit_stops_no_other(config: Any) -> None:
    config({"auths": {"q.org": {"auth": CANARY}, "r.org": {"auth": coded("alice", "pw")}}})

    unfit, found = await connector.lift_all(m.LiftRequest())

    assert isinstance(unfit, m.Unlifted)
    assert unfit.name == "q.org"
    assert "holds no user and password" in str(unfit.error)
    assert unfit.error.__traceback__ is None
    assert CANARY not in str(unfit.error)
    assert (found.name, found.config.username) == ("r.org", "alice")
    (only,) = await connector.lift_all(m.LiftRequest(options={"registry": "r.org"}))
    assert only.name == "r.org"


async def test_a_store_that_is_missing_stops_no_login_beside_it(config: Any) -> None:
    config({"credsStore": "missing", "auths": {"r.org": {"auth": coded("alice", "pw")}}})

    found, unfit = await connector.lift_all(m.LiftRequest())

    assert (found.name, found.config.username) == ("r.org", "alice")
    assert isinstance(unfit, m.Unlifted)
    assert unfit.name == "docker-credential-missing"
    assert "docker-credential-missing is not on the PATH" in str(unfit.error)
    assert unfit.error.__traceback__ is None
    config({"credsStore": "missing"})
    with pytest.raises(m.InvalidConfig, match="not on the PATH"):
        await connector.lift_all(m.LiftRequest())


async def test_a_registry_token(config: Any) -> None:
    config({"auths": {"r.org": {"registrytoken": "t.o.k"}}})

    found = await lifted()

    assert (found.auth_method, found.config.token) == ("token", m.Secret("t.o.k"))


@pytest.mark.parametrize(
    "stored",
    [
        {"auth": coded("alice", "pw"), "identitytoken": CANARY},
        {"auth": coded("<token>", CANARY)},
        {"auth": CANARY},
        {"auth": coded("alice", "")},
        {"username": CANARY},
    ],
)
async def test_what_is_no_user_and_password(config: Any, stored: dict[str, str]) -> None:
    config({"auths": {"r.org": stored}})
    with pytest.raises(m.NothingToLift) as caught:
        await lifted()
    assert CANARY not in str(caught.value)


async def test_helpers_for_one_registry_and_for_all(config: Any, helper: Any) -> None:
    helper("one", 'test "$1" = get && test "$(cat)" = r.org && echo \'{"Username": "alice", "Secret": "pw-1"}\'')
    helper("all", """case $1 in
        list) echo '{"https://index.docker.io/v1/": "bob", "r.org": "bob", "not a host": "x"}';;
        get) test "$(cat)" = https://index.docker.io/v1/ && echo '{"Username": "bob", "Secret": "pw-2"}';;
    esac""")  # fmt: skip
    file = config({"credsStore": "all", "credHelpers": {"r.org": "one"}, "auths": {"r.org": {}}})

    found = await connector.lift_all(m.LiftRequest())

    assert [(one.name, one.config.username) for one in found] == [("docker.io", "bob"), ("r.org", "alice")]
    assert found[1].config.password == m.Secret("pw-1")
    assert found[1].source == f"the login for r.org in {file} (by docker-credential-one)"


async def test_our_own_helper_is_not_asked(config: Any) -> None:
    config({"credsStore": "mooring", "credHelpers": {"r.org": "mooring"}})
    with pytest.raises(m.NothingToLift):
        await lifted(registry="r.org")


BAD_HELPERS = {
    "hangs": ("sleep 600", "did not answer within"),
    "hangs, and leaves a child": ("sleep 600 & wait", "did not answer within"),
    "talks for ever": ("cat /dev/zero", "more than 64 KiB"),
    "prints garbage": (f"echo {CANARY}", "no user and password"),
    "prints another shape": ("echo '[1]'", "no user and password"),
    "gives numbers": ('echo \'{"Username": 1, "Secret": 2}\'', "no user and password"),
    "gives nothing": ('echo \'{"Username": "alice", "Secret": ""}\'', "no user and password"),
    "fails": (f"echo {CANARY}; exit 3", "exit code 3"),
    "has none": ("echo credentials not found in native keychain; exit 1", "has no login for r.org"),
}


@pytest.mark.parametrize(("script", "said"), BAD_HELPERS.values(), ids=BAD_HELPERS)
async def test_a_helper_that_misbehaves(
    config: Any, helper: Any, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setattr(helpers, "SECONDS", 0.3 if "sleep" in script else 30)
    helper("bad", script)
    config({"credHelpers": {"r.org": "bad"}})
    with anyio.fail_after(20), pytest.raises(m.ConfigError, match=said) as caught:
        await lifted()
    assert CANARY not in str(caught.value)


async def test_what_a_hanging_helper_has_started_is_ended_with_it(
    config: Any, helper: Any, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helpers, "SECONDS", 1)
    helper("bad", f"sleep 600 & echo $! > {machine}/pid; wait")
    config({"credHelpers": {"r.org": "bad"}})
    with anyio.fail_after(20), pytest.raises(m.InvalidConfig, match="did not answer"):
        await lifted()

    pid = int((machine / "pid").read_text())
    with anyio.fail_after(10):
        while running(pid):  # noqa: ASYNC110
            await anyio.sleep(0.01)


def running(pid: int) -> bool:
    """Whether a process is there, and not as a zombie that nobody collects."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("script", [f"echo {CANARY}", f"echo '[\"{CANARY}\"]'", f"echo '{{\"{CANARY}'"])
async def test_a_list_that_is_none(config: Any, helper: Any, script: str) -> None:
    helper("bad", script)
    config({"credsStore": "bad"})
    for lift in (connector.lift, connector.lift_all):
        with pytest.raises(m.InvalidConfig, match="answered what is no list") as caught:
            await lift(m.LiftRequest())
        assert CANARY not in str(caught.value)


async def test_a_list_of_nothing(config: Any, helper: Any) -> None:
    config({"credsStore": "bad"})
    for script in ("true", "echo {}", "exec >&-"):
        helper("bad", script)
        with pytest.raises(m.NothingToLift):
            await lifted()


async def test_a_helper_that_is_no_program(config: Any, helper: Any, machine: Path) -> None:
    helper("bad", "")
    (machine / "bin" / "docker-credential-bad").write_bytes(b"\x7fELF")
    config({"credHelpers": {"r.org": "bad"}})
    with pytest.raises(m.InvalidConfig, match="docker-credential-bad cannot be run"):
        await lifted()


@pytest.mark.parametrize("name", ["missing", "../../bin/sh", "a b", "", "x" * 65])
async def test_a_helper_that_is_none(config: Any, name: str) -> None:
    config({"credHelpers": {"r.org": name}})
    with pytest.raises(m.InvalidConfig, match="credential helper"):
        await lifted()


@pytest.mark.parametrize("content", ["{", "[]", "[" * 5000, f'{{"auths": "{CANARY}', "\x00"])
async def test_a_broken_file(config: Any, content: str) -> None:
    file = config(content)
    with pytest.raises(m.InvalidConfig, match=f"{file} is broken") as caught:
        await lifted()
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("values", ["", {}, {"auths": []}, {"auths": {"r.org": 1}}, {"credHelpers": {"r.org": 1}}])
async def test_a_file_without_a_login(config: Any, values: Any) -> None:
    config(values)
    with pytest.raises(m.NothingToLift):
        await lifted()


async def test_a_file_that_is_a_folder(machine: Path) -> None:
    (machine / ".docker" / "config.json").mkdir(parents=True)
    with pytest.raises(m.InvalidConfig, match="cannot be read"):
        await lifted()


async def test_an_auth_method_that_does_not_fit(config: Any) -> None:
    config({"auths": {"r.org": {"auth": coded("alice", "pw")}}})
    with pytest.raises(m.NothingToLift, match="is for the auth method password"):
        await connector.lift(m.LiftRequest(auth_method="token"))
    with pytest.raises(m.UnknownAuthMethod, match="password, token, anonymous"):
        await connector.lift(m.LiftRequest(auth_method="nonsense"))
