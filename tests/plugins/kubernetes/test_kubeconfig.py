"""Contexts of kubeconfigs as connectors: files, programs, merging; against the real cluster where it answers."""

from __future__ import annotations

import base64
import gc
import json
import os
import stat
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import yaml

import mooring as m
from mooring_kubernetes import connector
from mooring_kubernetes.program import run
from mooring_kubernetes.session import FRESH
from mooring_kubernetes.way import ExecPlugin, Way

pytestmark = pytest.mark.anyio
VERIFY = m.VerifyRequest()


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def document(users: dict[str, Any], server: str, ca: str | None = None, current: str | None = None) -> dict[str, Any]:
    """One context, cluster and user of each name."""
    cluster = {"server": server} | ({"certificate-authority-data": encoded(ca)} if ca else {})
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": f"{name}-cluster", "cluster": cluster} for name in users],
        "users": [{"name": f"{name}-user", "user": user} for name, user in users.items()],
        "contexts": [
            {"name": name, "context": {"cluster": f"{name}-cluster", "user": f"{name}-user", "namespace": "apps"}}
            for name in users
        ],
        "current-context": current or next(iter(users)),
    }


def program(folder: Path, status: dict[str, Any], name: str = "printer") -> str:
    """A program that prints credentials, and writes down what it was told."""
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    path = folder / name
    told = f'echo "$KUBERNETES_EXEC_INFO" >> {folder}/told'
    path.write_text(f"#!/bin/sh\n{told}\ncat <<'X'\n{json.dumps(answer)}\nX\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def exec_block(command: str, **more: Any) -> dict[str, Any]:
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": command} | more}


def answer(version: str, **status: Any) -> str:
    """A line of a shell that prints an ExecCredential."""
    kind = {"apiVersion": f"client.authentication.k8s.io/{version}", "kind": "ExecCredential"}
    return f"cat <<'END'\n{json.dumps(kind | {'status': status})}\nEND"


async def test_each_kind_of_user_gets_in(opened: Any, cluster: Any, tmp_path: Path) -> None:
    certificate, key = cluster.admin
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "token").write_text(cluster.viewer_token + "\n")
    users = {
        "token": {"token": cluster.viewer_token},
        "file": {"tokenFile": "sub/token"},
        "pair": {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)},
        "run": exec_block(program(tmp_path, {"token": cluster.viewer_token}), provideClusterInfo=True),
        "run-pair": exec_block(
            program(tmp_path, {"clientCertificateData": certificate, "clientKeyData": key}, "pairs")
        ),
    }
    (tmp_path / "config").write_text(yaml.safe_dump(document(users, cluster.url, cluster.ca)))
    allowed = {"allow_exec": True, "exec_commands": [str(tmp_path / "printer"), str(tmp_path / "pairs")]}
    config = str(tmp_path / "config")
    for context in users:
        async with opened("kubeconfig", kubeconfig_file=config, context=context, **allowed) as session:
            subject = (await connector.verify(session, VERIFY)).subject
        assert subject == ("admin" if "pair" in context else "viewer"), context
    told = yaml.safe_load((tmp_path / "told").read_text().splitlines()[0])
    assert told["spec"]["cluster"]["server"] == cluster.url
    assert (
        base64.b64decode(told["spec"]["cluster"]["certificate-authority-data"]).decode().strip() == cluster.ca.strip()
    )
    assert len((tmp_path / "told").read_text().splitlines()) == 2


async def test_a_program_runs_once_a_session_unless_it_says_that_it_must_again(
    opened: Any, fake: Any, tmp_path: Path
) -> None:
    soon = (datetime.now(UTC) + FRESH - timedelta(seconds=5)).isoformat()
    for ends, times in ((None, 1), ("2100-01-01T00:00:00Z", 1), (soon, 2)):
        (tmp_path / "told").write_text("")
        status = {"token": fake.token} | ({"expirationTimestamp": ends} if ends else {})
        text = yaml.safe_dump(document({"x": exec_block(program(tmp_path, status))}, fake.url, fake.ca))
        command = str(tmp_path / "printer")
        async with opened("kubeconfig", kubeconfig=text, allow_exec=True, exec_commands=[command]) as session:
            await connector.verify(session, VERIFY)
        assert min(len((tmp_path / "told").read_text().splitlines()), 2) == times


@pytest.mark.parametrize(
    "script",
    [
        "exit 3",
        "echo hello",
        "echo '{}'",
        'echo \'{"kind": "ExecCredential", "status": 1}\'',
        "kill -9 $$",
        "exec cat /dev/zero",
        answer("v1beta1", token="t"),
        answer("v1", token="t\nu"),
        answer("v1", token="t", expirationTimestamp="soon"),
        answer("v1", token="t", expirationTimestamp="2020-01-01T00:00:00Z"),
        answer("v1", clientCertificateData="x", clientKeyData="y"),
        answer("v1", clientCertificateData=["x"], clientKeyData={}),
    ],
)
async def test_a_program_that_fails(opened: Any, fake: Any, tmp_path: Path, script: str) -> None:
    path = tmp_path / "bad"
    path.write_text(f"#!/bin/sh\necho canary >&2\n{script}\n")
    path.chmod(0o700)
    text = yaml.safe_dump(document({"x": exec_block(str(path))}, fake.url, fake.ca))
    async with opened("kubeconfig", kubeconfig=text, allow_exec=True, exec_commands=[str(path)]) as session:
        with pytest.raises(m.AuthFailed, match="bad") as caught:
            await connector.verify(session, VERIFY)
    assert "canary" not in str(caught.value)
    assert fake.asked == []


async def test_a_program_that_is_not_there(opened: Any, fake: Any) -> None:
    text = yaml.safe_dump(document({"x": exec_block("no-such-program")}, fake.url, fake.ca))
    async with opened("kubeconfig", kubeconfig=text, allow_exec=True, exec_commands=["no-such-program"]) as session:
        with pytest.raises(m.InvalidConfig, match="not on this machine"):
            await connector.verify(session, VERIFY)


async def test_a_program_is_killed_with_the_call(opened: Any, fake: Any, tmp_path: Path) -> None:
    path = tmp_path / "slow"
    path.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    path.chmod(0o700)
    text = yaml.safe_dump(document({"x": exec_block(str(path))}, fake.url, fake.ca))
    session_of = opened("kubeconfig", kubeconfig=text, allow_exec=True, exec_commands=[str(path)])
    async with session_of as session, anyio.create_task_group() as tasks:
        tasks.start_soon(connector.verify, session, VERIFY)
        with anyio.fail_after(30):
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():  # noqa: ASYNC110
                await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_a_program_dies_with_what_it_has_started(opened: Any, fake: Any, tmp_path: Path) -> None:
    """A child that holds the output open is waited for by nobody."""
    path = tmp_path / "forking"
    path.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/new\nmv {tmp_path}/new {tmp_path}/pid\nwait\n")
    path.chmod(0o700)
    text = yaml.safe_dump(document({"x": exec_block(str(path))}, fake.url, fake.ca))
    session_of = opened("kubeconfig", kubeconfig=text, allow_exec=True, exec_commands=[str(path)])
    async with session_of as session, anyio.create_task_group() as tasks:
        tasks.start_soon(connector.verify, session, VERIFY)
        with anyio.fail_after(30):
            while not (tmp_path / "pid").exists():  # noqa: ASYNC110
                await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    child = Path("/proc") / (tmp_path / "pid").read_text().strip() / "stat"
    with anyio.fail_after(30):
        while child.exists() and child.read_text().split()[2] != "Z":  # noqa: ASYNC110  (nobody tells when it is gone)
            await anyio.sleep(0.05)


@pytest.mark.parametrize(
    "more",
    [
        {"env": [{"name": "A=B", "value": "c"}]},
        {"env": [{"name": "A", "value": "\0"}]},
        {"args": ["a\0b"]},
        {"args": ["x" * 1_000_000]},
    ],
)
async def test_a_program_that_cannot_be_given_what_is_wanted(
    opened: Any, fake: Any, tmp_path: Path, more: dict[str, Any]
) -> None:
    command = str(tmp_path / "printer")
    text = yaml.safe_dump(document({"x": exec_block(program(tmp_path, {"token": "t"}), **more)}, fake.url, fake.ca))
    async with opened("kubeconfig", kubeconfig=text, allow_exec=True, exec_commands=[command]) as session:
        with pytest.raises(m.InvalidConfig, match="does not start"):
            await connector.verify(session, VERIFY)


@pytest.mark.parametrize("rounds", range(12))
def test_a_program_that_is_left_while_it_starts_is_closed(rounds: int, tmp_path: Path) -> None:
    path = tmp_path / "slow"
    path.write_text("#!/bin/sh\nexec sleep 600\n")
    path.chmod(0o700)

    async def leave() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, ExecPlugin(command=str(path)), Way(server="https://127.0.0.1"), datetime.now(UTC))
            for _ in range(rounds):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always", ResourceWarning)
        anyio.run(leave)
        gc.collect()
    assert [str(one.message) for one in shown] == []


async def lifted(**options: Any) -> m.Lifted:
    return await connector.lift(m.LiftRequest(options=options))


async def test_lifting_the_current_context_and_each(machine: Path, authority: Any) -> None:
    certificate, key = authority.client("ann")
    (machine / ".kube").mkdir()
    users = {
        "dev": {"token": "t"},
        "old": {"auth-provider": {"name": "gcp"}},
        "pair": {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)},
        "basic": {"username": "ann", "password": "pw"},
        "run": exec_block("aws"),
    }
    (machine / ".kube" / "config").write_text(
        yaml.safe_dump(document(users, "https://k8s.example.org", authority.pem, current="pair"))
    )
    found = await lifted()
    assert (found.auth_method, found.name, found.config.cluster_name) == ("client-certificate", "pair", "pair-cluster")
    assert found.config.namespace == "apps"
    assert found.expires_at is not None
    assert found.config.certificate_authority.strip() == authority.pem.strip()
    with pytest.raises(m.InvalidConfig, match="gke-gcloud-auth-plugin"):
        await lifted(context="old")
    with pytest.raises(m.NotPermitted, match="'aws'"):
        await lifted(context="run")
    with pytest.raises(m.NothingToLift, match="has no client-certificate"):
        await connector.lift(m.LiftRequest(auth_method="client-certificate", options={"context": "dev"}))
    allowed = {"allow_exec": True, "exec_commands": ["aws"]}
    ran = await lifted(context="run", **allowed)
    assert ran.auth_method == "kubeconfig"
    assert (await lifted(context="dev", cluster_name="mine")).config.cluster_name == "mine"

    every = await connector.lift_all(m.LiftRequest(options=allowed))
    assert [(one.name, one.auth_method) for one in every] == [
        ("dev", "token"), ("old", ""), ("pair", "client-certificate"), ("basic", "password"), ("run", "kubeconfig"),
    ]  # fmt: skip
    assert isinstance(every[1], m.Unlifted)
    assert "gke-gcloud-auth-plugin" in every[1].error.message
    assert every[1].error.__traceback__ is None
    assert every[1].source == every[0].source.replace("'dev'", "'old'") != ""
    assert every[1].auth_method == ""
    *_, program = await connector.lift_all(m.LiftRequest())
    assert isinstance(program, m.Unlifted)
    assert (program.auth_method, program.source) == ("kubeconfig", every[4].source)
    assert "the context 'run' of " in program.source
    (only,) = await connector.lift_all(m.LiftRequest(options={"context": "pair"}))
    assert only.name == "pair"


async def test_files_of_kubeconfig_are_merged_as_kubectl_does(
    machine: Path, monkeypatch: pytest.MonkeyPatch, authority: Any
) -> None:
    first = document({"a": {"token": "first"}}, "https://a.example.org")
    del first["current-context"]
    second = document({"a": {"token": "second"}, "b": {"tokenFile": "b-token"}}, "https://b.example.org", current="a")
    (machine / "one").write_text(yaml.safe_dump(first))
    (machine / "two").write_text(yaml.safe_dump(second))
    (machine / "b-token").write_text("b")
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(machine / n) for n in ("none", "one", "two")] + [""]))
    found = await lifted()
    assert (found.config.token.reveal(), found.config.server) == ("first", "https://a.example.org")
    other = await lifted(context="b")
    assert (other.auth_method, other.config.kubeconfig_file) == ("kubeconfig", str(machine / "two"))


async def test_nothing_to_lift(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(m.NothingToLift, match="config"):
        await lifted()
    with pytest.raises(m.NothingToLift):
        await connector.lift_all(m.LiftRequest())
    with pytest.raises(m.InvalidConfig, match="cannot be read"):
        await lifted(kubeconfig_file="nowhere")
    with pytest.raises(m.NotPermitted):
        await connector.lift(m.LiftRequest(auth_method="service-account"))
    with pytest.raises(m.NothingToLift, match="no pod"):
        await connector.lift(m.LiftRequest(auth_method="service-account", allow_implicit=True))
    with pytest.raises(m.UnknownAuthMethod):
        await connector.lift(m.LiftRequest(auth_method="magic"))
    (machine / "token").write_text("t")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    request = m.LiftRequest(
        auth_method="service-account", allow_implicit=True, options={"token_file": str(machine / "token")}
    )
    assert (await connector.lift(request)).config.cluster_name == "in-cluster"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    for name in ("x" * 5000, "nowhere\udcff"):
        monkeypatch.setenv("KUBECONFIG", name)
        with pytest.raises(m.NothingToLift):
            await lifted()
    monkeypatch.setenv("KUBECONFIG", "~nobody-there/config")
    with pytest.raises(m.InvalidConfig, match="'KUBECONFIG' begins with the home"):
        await lifted()
    monkeypatch.delenv("KUBECONFIG")
    for where in ("gone", "."):  # neither is a file
        held = document({"x": {"token": "t"}}, "https://k8s.example.org")
        held["clusters"][0]["cluster"]["certificate-authority"] = where
        (machine / "without").write_text(yaml.safe_dump(held))
        with pytest.raises(m.InvalidConfig, match="the file of 'certificate-authority' cannot be read"):
            await lifted(kubeconfig_file=str(machine / "without"))
    (machine / "broken").write_text("a: [")
    with pytest.raises(m.InvalidConfig, match="no YAML"):
        await connector.lift_all(m.LiftRequest(options={"kubeconfig_file": str(machine / "broken")}))
