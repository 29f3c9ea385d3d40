"""Tokens of the real cluster: within RBAC and not beyond, revoked with their Secret, swept up after a death."""

from __future__ import annotations

import base64
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import kubernetes_asyncio.client
import pytest

import mooring as m
from mooring.testing import memory_broker
from mooring_kubernetes import connector

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)
PATIENCE_SECONDS = 60
"""For what happens soon: an API server's cache takes a token for ten seconds more."""


async def until(happened: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        while not await anyio.to_thread.run_sync(happened):  # noqa: ASYNC110  (a server tells nobody)
            await anyio.sleep(0.2)


async def test_a_token_works_within_rbac_and_not_beyond_and_ends_with_its_secret(
    opened: Any, cluster: Any, namespace: str, issuer: Any, ask: Any, log: Any
) -> None:
    async with opened("token", **issuer) as session:
        access = await connector.issue_credentials(session, ask())
        assert isinstance(access, m.KubernetesAccess)
        assert (access.narrowed, access.cluster, access.namespace) == (True, "lab", namespace)
        assert access.expires_at is not None
        ends = access.expires_at - session.context.clock.now()
        assert HOUR - timedelta(minutes=1) < ends <= HOUR + timedelta(minutes=1)
        token = access.token.reveal()  # type: ignore[union-attr]
        base = f"/api/v1/namespaces/{namespace}"
        assert cluster.status(f"{base}/configmaps/settings", token) == 200
        assert cluster.status(f"{base}/secrets", token) == 403
        assert cluster.status("/api/v1/namespaces/default/configmaps", token) == 403

        (secret,) = cluster.secrets(namespace)
        assert log.steps == {"0": {"namespace": namespace, "secret": secret}}
        assert log.kept == {"0": access.expires_at}
        held = cluster.call("GET", f"{base}/secrets/{secret}")
        assert held.get("data") is None
        assert held["metadata"]["annotations"] == {"mooring/connector": "prod", "mooring/consumer": "ann@host"}

        await connector.undo(session, log.steps["0"])
        await connector.undo(session, log.steps["0"])
    assert cluster.secrets(namespace) == []
    await until(lambda: cluster.status(f"{base}/configmaps/settings", token) == 401)


@pytest.mark.parametrize("name", ["theirs", "mooring-theirs", ""])
async def test_only_what_is_named_as_mooring_names_it_is_undone(
    opened: Any, cluster: Any, namespace: str, issuer: Any, name: str
) -> None:
    """Whoever can write the store, but has no master key, has no Secret of the cluster deleted."""
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    if name:
        cluster.call("POST", secrets, {"metadata": {"name": name}})
    async with opened("token", **issuer) as session:
        with pytest.raises(m.InvalidConfig, match="left alone"):
            await connector.undo(session, {"namespace": namespace, "secret": name})
    if name:
        assert cluster.call("DELETE", f"{secrets}/{name}")["status"] == "Success"


async def test_the_ttl_is_what_the_cluster_gives(opened: Any, issuer: Any, ask: Any) -> None:
    async with opened("token", **issuer) as session:
        access = await connector.issue_credentials(session, ask(ttl=timedelta(minutes=10)))
        assert access.expires_at is not None
        assert access.expires_at - session.context.clock.now() < timedelta(minutes=11)
        with pytest.raises(m.Rejected, match="ttl"):
            await connector.issue_credentials(session, ask(ttl=timedelta(minutes=5)))


async def test_a_token_for_somebody_else_alone(
    opened: Any, cluster: Any, namespace: str, issuer: Any, ask: Any
) -> None:
    async with opened("token", **issuer, audiences=["vault"]) as session:
        access = await connector.issue_credentials(session, ask())
    assert cluster.status(f"/api/v1/namespaces/{namespace}/configmaps", access.token.reveal()) == 401  # type: ignore[union-attr]


async def test_who_may_not_issue_leaves_nothing_that_is_kept(
    opened: Any, cluster: Any, namespace: str, issuer: Any, admin: Any, ask: Any, log: Any
) -> None:
    async with opened("token", **issuer | {"service_account": f"{namespace}/nobody"}) as session:
        with pytest.raises(m.ResourceNotFound, match=f"no service account {namespace}/nobody"):
            await connector.issue_credentials(session, ask())
    async with opened("token", **issuer | {"token": cluster.viewer_token}) as session:
        with pytest.raises(m.AccessDenied, match=f"create secrets in namespace {namespace}"):
            await connector.issue_credentials(session, ask())
    maker = {"kind": "ServiceAccount", "name": "maker", "namespace": namespace}
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "delete"]}]
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles"
    cluster.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "maker"}})
    cluster.call("POST", roles, {"metadata": {"name": "maker"}, "rules": rules})
    cluster.bind(namespace, "maker", maker)
    async with opened("token", **issuer | {"token": cluster.token(namespace, "maker")}) as session:
        with pytest.raises(m.AccessDenied, match=f"create serviceaccounts/token in namespace {namespace}"):
            await connector.issue_credentials(session, ask())
    async with opened("client-certificate", **admin, service_account="nowhere/bot") as session:
        with pytest.raises(m.ResourceNotFound, match="no namespace nowhere"):
            await connector.issue_credentials(session, ask())
    assert log.kept == {}
    assert len(log.steps) == 4


async def test_without_a_service_account_only_what_is_allowed(
    opened: Any, cluster: Any, namespace: str, admin: Any, ask: Any
) -> None:
    place = {"server": cluster.url, "certificate_authority": cluster.ca}
    async with opened("token", **place, token=cluster.viewer_token) as session:
        with pytest.raises(m.NotNarrowed, match="service_account"):
            await connector.issue_credentials(session, ask())
        with pytest.raises(m.LongLived, match="no end"):
            await connector.issue_credentials(session, ask(allow_unnarrowed=True))
        access = await connector.issue_credentials(session, ask(allow_unnarrowed=True, allow_long_lived=True))
        assert (access.expires_at, access.narrowed) == (None, False)
    async with opened("token", **place, token=cluster.token(namespace, "bot")) as session:
        access = await connector.issue_credentials(session, ask(allow_unnarrowed=True))
        assert access.expires_at is not None
        assert access.expires_at - session.context.clock.now() <= HOUR
    async with opened("client-certificate", **admin) as session:
        access = await connector.issue_credentials(session, ask(allow_unnarrowed=True))
        assert isinstance(access, m.KubernetesAccess)
        assert access.client_key is not None
        assert access.expires_at is not None
    async with opened("password", **place, username="ann", password="pw") as session:
        with pytest.raises(m.NotNarrowed, match="never handed out"):
            await connector.issue_credentials(session, ask(allow_unnarrowed=True, allow_long_lived=True))


async def test_a_refusal_names_the_command_with_both_allowances(
    opened: Any, cluster: Any, namespace: str, admin: Any, settle: Any, ask: Any
) -> None:
    place, update = {"server": cluster.url, "certificate_authority": cluster.ca}, "mooring connector update prod"
    account = f"issue for a service account: {update} --service-account NAMESPACE/NAME"
    own = {
        "the endless": (("token", place | {"token": cluster.viewer_token}), " --allow-long-lived"),
        "a token": (("token", place | {"token": cluster.token(namespace, "bot")}), ""),
        "a certificate": (("client-certificate", admin), ""),
    }
    for (method, fields), more in own.values():
        async with opened(method, **fields) as session:
            with pytest.raises(m.NotNarrowed) as caught:
                await connector.issue_credentials(session, ask())
        said = f"{account}; or let its own credentials out: {update} --allow-unnarrowed{more}"
        assert caught.value.message == f"the connector has no service_account to issue for; {said}"
    async with opened("token", **place, token=cluster.viewer_token) as session:
        with pytest.raises(m.LongLived) as endless:
            await connector.issue_credentials(session, ask(allow_unnarrowed=True))
    assert endless.value.message.endswith(f"{account}; or let them out: {update} --allow-long-lived")
    with pytest.raises(m.NotNarrowed, match="mooring connector update prod --service-account"):
        connector.explain(settle("token", server="https://k8s.example.org", token="t"), ask())


async def test_a_cluster_without_token_request(opened: Any, fake: Any, at_fake: Any, ask: Any, log: Any) -> None:
    fake.answers["POST", "/api/v1/namespaces/apps/secrets"] = {"metadata": {"uid": "1"}}
    async with opened("token", **at_fake, service_account="apps/bot") as session:
        with pytest.raises(m.NotNarrowed, match="TokenRequest"):
            await connector.issue_credentials(session, ask())
        access = await connector.issue_credentials(session, ask(allow_unnarrowed=True, allow_long_lived=True))
    assert not access.narrowed
    assert log.kept == {}


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"token": 1},
        {"token": "t"},
        {"token": "t", "expirationTimestamp": "soon"},
        {"token": "", "expirationTimestamp": "2100-01-01T00:00:00Z"},
        {"token": "t\nu: v", "expirationTimestamp": "2100-01-01T00:00:00Z"},
        {"token": "t", "expirationTimestamp": None},
    ],
)
async def test_a_cluster_that_answers_nonsense(
    opened: Any, fake: Any, at_fake: Any, ask: Any, log: Any, status: Any
) -> None:
    fake.answers["POST", "/api/v1/namespaces/apps/secrets"] = {"metadata": {"uid": "1"}}
    fake.answers["POST", "/api/v1/namespaces/apps/serviceaccounts/bot/token"] = {"status": status}
    async with opened("token", **at_fake, service_account="apps/bot") as session:
        with pytest.raises(m.Rejected):
            await connector.issue_credentials(session, ask())
    assert log.kept == {}


def test_what_issuing_would_do(settle: Any, ask: Any) -> None:
    place = {"server": "https://k8s.example.org", "token": "t"}
    said = connector.explain(settle("token", **place, service_account="apps/bot"), ask())
    assert said.narrowed
    assert said.calls == ("create secrets (apps)", "create serviceaccounts/token (apps/bot)")
    with pytest.raises(m.NotNarrowed):
        connector.explain(settle("token", **place), ask())
    assert not connector.explain(settle("token", **place), ask(allow_unnarrowed=True)).narrowed


DYING = """
import os, signal, sys
import anyio
import anyio.to_thread
import mooring as m
from mooring_kubernetes import issue
from mooring_kubernetes.session import KubernetesSession

real = KubernetesSession.ask

async def ask(self, call, method, path, *rest, **names):
    if path == {"secret": issue.SECRETS, "token": issue.TOKENS}.get(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    answer = await real(self, call, method, path, *rest, **names)
    if path == issue.TOKENS:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

async def main():
    KubernetesSession.ask = ask
    async with m.open_broker() as broker:
        await broker.issue("lab")

anyio.run(main)
"""


@pytest.mark.parametrize(("before", "made"), [("secret", 0), ("token", 1), ("keep", 1)])
async def test_what_a_killed_process_has_made_is_swept_by_the_next_broker(
    cluster: Any, namespace: str, issuer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, made: int
) -> None:
    """Killed before the Secret is made, between it and the token, and before the token is written down."""
    monkeypatch.setenv("MOORING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MOORING_MASTER_KEY", "k1:" + base64.b64encode(bytes(32)).decode())
    async with m.open_broker() as broker:
        await broker.register("lab", type="kubernetes", auth_method="token", config={"cluster_name": "lab"} | issuer)
    done = await anyio.run_process([sys.executable, "-c", DYING, before], check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    assert len(cluster.secrets(namespace)) == made

    async with m.open_broker():  # the entry is not due yet: somebody might still be at it
        await anyio.sleep(0.5)
    assert len(cluster.secrets(namespace)) == made

    class Later:
        def now(self) -> datetime:
            return datetime.now(UTC) + timedelta(minutes=10)

        def monotonic(self) -> float:
            return time.monotonic()

    async with m.open_broker(clock=Later()):
        await until(lambda: not cluster.secrets(namespace))


async def test_a_broker_removes_at_once_what_a_failed_request_has_made(
    cluster: Any, namespace: str, issuer: Any
) -> None:
    async with memory_broker(connector) as broker:
        config = {"cluster_name": "lab"} | issuer | {"service_account": f"{namespace}/nobody"}
        await broker.register("lab", type="kubernetes", auth_method="token", config=config)
        with pytest.raises(m.ResourceNotFound, match="nobody"):
            await broker.issue("lab")
        assert cluster.secrets(namespace) == []


@pytest.mark.parametrize(
    ("ends", "said"), [(timedelta(minutes=-5), "have ended"), (timedelta(days=400), "long-lived"), (HOUR / 12, None)]
)
async def test_a_cluster_that_gives_another_life(fake: Any, at_fake: Any, ends: timedelta, said: str | None) -> None:
    """What is not let out is revoked; what is shorter says so."""
    gone = []
    stamp = (datetime.now(UTC) + ends).isoformat()

    def made(body: Any) -> Any:
        name = f"/api/v1/namespaces/apps/secrets/{body['metadata']['name']}"
        fake.answers["DELETE", name] = lambda _: gone.append(name) or {}
        return {"metadata": {"uid": "1"}}

    fake.answers["POST", "/api/v1/namespaces/apps/secrets"] = made
    status = {"token": "t", "expirationTimestamp": stamp}
    fake.answers["POST", "/api/v1/namespaces/apps/serviceaccounts/bot/token"] = {"status": status}
    async with memory_broker(connector) as broker:
        config = {"cluster_name": "lab", "service_account": "apps/bot"} | at_fake
        await broker.register("lab", type="kubernetes", auth_method="token", config=config, verify=False)
        if said is None:
            (note,) = (await broker.issue("lab", ttl=HOUR)).credentials.clamped
            assert "asked for 1:00:00" in note
        else:
            with pytest.raises(m.MooringError, match=said):
                await broker.issue("lab")
    assert len(gone) == (said is not None)


async def test_a_broker_issues_once_for_many_and_makes_a_client(
    cluster: Any, namespace: str, issuer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOORING_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MOORING_MASTER_KEY", "k1:" + base64.b64encode(bytes(32)).decode())
    async with m.open_broker() as broker:
        await broker.register("lab", type="kubernetes", auth_method="token", config={"cluster_name": "lab"} | issuer)
        assert not (await broker.issue("lab")).cached
        named = await broker.issue("lab", resource_id=cluster.url.upper().replace("HTTPS", "https"))
        assert (named.resource_id, named.cached) == ("lab", False)
        assert (await broker.issue("lab", resource_id="lab")).cached
        with pytest.raises(m.UnsupportedResource, match="'lab' alone"):
            await broker.issue("lab", resource_id="other")
        async with broker.client("lab") as api:
            core = kubernetes_asyncio.client.CoreV1Api(api)
            found = await core.read_namespaced_config_map("settings", namespace)
            assert found.data == {"colour": "blue"}
    assert len(cluster.secrets(namespace)) == 2  # for the cluster that was named, and for the only one
