"""Leases of the real cluster: each consumer has a token of its own, and revoking one is deleting its Secret."""

from __future__ import annotations

import base64
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import mooring as m
from mooring.testing import memory_broker
from mooring_kubernetes import connector

pytestmark = pytest.mark.anyio
PATIENCE_SECONDS = 60
"""An API server's cache takes a token for ten seconds after it was last used."""


async def until(happened: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        while not await anyio.to_thread.run_sync(happened):  # noqa: ASYNC110  (a server tells nobody)
            await anyio.sleep(0.2)


def token_of(issued: m.Issued) -> str:
    access = issued.credentials
    assert isinstance(access, m.KubernetesAccess)
    assert access.token is not None
    return access.token.reveal()


async def test_a_consumer_s_token_is_revoked_and_the_others_live_on(cluster: Any, namespace: str, issuer: Any) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/settings"
    async with memory_broker(connector) as broker:
        await broker.register("lab", type="kubernetes", auth_method="token", config={"cluster_name": "lab"} | issuer)
        ann, bob = await broker.issue("lab", consumer="ann"), await broker.issue("lab", consumer="bob")
        assert token_of(ann) != token_of(bob)
        assert token_of(await broker.issue("lab", consumer="ann")) == token_of(ann)
        assert (await broker.lease(ann.lease)).revocation == "real"
        assert cluster.status(path, token_of(bob)) == 200

        (gone,) = await broker.revoke(ann.lease)

        assert gone.state == "revoked"
        assert cluster.status(path, token_of(ann)) == 401  # at once, for no cache has seen it
        assert len(cluster.secrets(namespace)) == 1
        assert token_of(await broker.issue("lab", consumer="bob")) == token_of(bob)
        again = await broker.issue("lab", consumer="ann")
        assert cluster.status(path, token_of(again)) == cluster.status(path, token_of(bob)) == 200

        (gone,) = await broker.revoke(consumer="ann")
        assert (gone.id, gone.state) == (again.lease, "revoked")
        await until(lambda: cluster.status(path, token_of(again)) == 401)
        assert cluster.status(path, token_of(bob)) == 200


async def test_what_the_connector_itself_has_cannot_be_taken_back(cluster: Any, namespace: str) -> None:
    config = {"cluster_name": "lab", "server": cluster.url, "certificate_authority": cluster.ca}
    config |= {"token": m.Secret(cluster.token(namespace, "bot"))}
    async with memory_broker(connector) as broker:
        await broker.register("lab", type="kubernetes", auth_method="token", config=config, allow_unnarrowed=True)
        issued = await broker.issue("lab")
        assert (await broker.lease(issued.lease)).revocation == "none"
        (left,) = await broker.revoke(issued.lease)
        assert (left.state, left.expires_at) == ("released", issued.expires_at)


DYING = """
import os, signal, sys
import anyio
import mooring as m
from mooring.broker import _revoke
from mooring_kubernetes.session import KubernetesSession

def die():
    os.kill(os.getpid(), signal.SIGKILL)

ask, change = KubernetesSession.ask, _revoke.change

async def asked(self, call, method, path, *rest, **names):
    if method == "DELETE" and sys.argv[1] == "before":
        die()
    answer = await ask(self, call, method, path, *rest, **names)
    if method == "DELETE":
        die()
    return answer

async def changed(*arguments, **options):
    if sys.argv[1] == "state":
        die()
    return await change(*arguments, **options)

async def main():
    KubernetesSession.ask, _revoke.change = asked, changed
    async with m.open_broker() as broker:
        await broker.revoke(connector="lab")

anyio.run(main)
"""


@pytest.mark.parametrize(("when", "left"), [("state", 1), ("before", 1), ("after", 0)])
async def test_a_process_killed_while_it_revokes(
    cluster: Any, namespace: str, issuer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, left: int
) -> None:
    """Killed before the lease says so, before the Secret is deleted, and after; the next broker ends it at once."""
    monkeypatch.setenv("MOORING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MOORING_MASTER_KEY", "k1:" + base64.b64encode(bytes(32)).decode())
    async with m.open_broker() as broker:
        await broker.register("lab", type="kubernetes", auth_method="token", config={"cluster_name": "lab"} | issuer)
        issued = await broker.issue("lab")
    done = await anyio.run_process([sys.executable, "-c", DYING, when], check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    assert len(cluster.secrets(namespace)) == left

    async with m.open_broker() as broker:
        with anyio.fail_after(PATIENCE_SECONDS):
            while (await broker.lease(issued.lease)).state != "revoked":  # noqa: ASYNC110  (as above)
                await anyio.sleep(0.1)
        assert cluster.secrets(namespace) == []
        assert cluster.status(f"/api/v1/namespaces/{namespace}/configmaps", token_of(issued)) == 401
