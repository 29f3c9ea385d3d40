"""Reaching a cluster, and whom it takes us for: against a real one, and fakes for what it cannot be."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import socket
import ssl
import tempfile
import traceback
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import pytest
from aiohttp import web

import mooring as m
from mooring_kubernetes import connector

pytestmark = pytest.mark.anyio
VERIFY = m.VerifyRequest(resource_type="kubernetes-cluster", resource_id="lab")


async def test_who_the_real_cluster_takes_each_for(
    opened: Any, cluster: Any, namespace: str, admin: Any, issuer: Any
) -> None:
    place = {"server": cluster.url, "certificate_authority": cluster.ca}
    async with opened("client-certificate", **admin) as session:
        assert (await connector.verify(session, VERIFY)).subject == "admin"
    async with opened("token", **place, token=cluster.viewer_token) as session:
        assert (await connector.verify(session, VERIFY)).subject == "viewer"
    async with opened("token", **issuer) as session:
        found = await connector.verify(session, VERIFY)
    assert found.subject == f"system:serviceaccount:{namespace}:issuer"


async def test_the_connector_that_lacks_rights_is_told_which(opened: Any, cluster: Any, namespace: str) -> None:
    place = {"server": cluster.url, "certificate_authority": cluster.ca}
    async with opened("token", **place, token=cluster.viewer_token, service_account=f"{namespace}/bot") as session:
        with pytest.raises(m.AccessDenied, match="create serviceaccounts/token, create secrets, delete secrets in"):
            await connector.verify(session, VERIFY)


async def test_a_service_account_that_is_not_there(
    opened: Any, cluster: Any, namespace: str, admin: Any, issuer: Any
) -> None:
    async with opened("client-certificate", **admin, service_account=f"{namespace}/bot") as session:
        assert (await connector.verify(session, VERIFY)).subject == "admin"
    async with opened("client-certificate", **admin, service_account=f"{namespace}/nobody") as session:
        with pytest.raises(m.ResourceNotFound, match=f"no service account {namespace}/nobody in the cluster; make it"):
            await connector.verify(session, VERIFY)
    async with opened("token", **issuer | {"service_account": f"{namespace}/nobody"}) as session:
        await connector.verify(session, VERIFY)  # who may only issue may not look


async def test_the_one_cluster_is_found(opened: Any, cluster: Any, issuer: Any) -> None:
    request = m.DiscoverRequest(resource_type="kubernetes-cluster")
    async with opened("token", **issuer) as session:
        found = [one async for one in connector.discover(session, request)]
    assert [(one.id, one.attributes) for one in found] == [("lab", {"server": cluster.url, "version": "v1.20.2"})]


async def test_a_ca_in_base64_a_server_name_and_no_check_at_all(opened: Any, cluster: Any) -> None:
    place = {"server": cluster.url, "token": cluster.viewer_token}
    encoded = base64.b64encode(cluster.ca.encode()).decode()
    named = {"tls_server_name": "kubernetes.default.svc"}
    for fields in ({"certificate_authority": encoded, **named}, {"insecure_skip_tls_verify": True}):
        async with opened("token", **place, **fields) as session:
            assert (await connector.verify(session, VERIFY)).subject == "viewer"


async def test_a_token_that_rotates_is_read_again(opened: Any, cluster: Any, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "ca").write_text(cluster.ca)
    (tmp_path / "token").write_text(cluster.token(namespace, "issuer") + "\n")
    files = {"token_file": str(tmp_path / "token"), "certificate_authority_file": str(tmp_path / "ca")}
    async with opened("service-account", server=cluster.url, **files) as session:
        assert (await connector.verify(session, VERIFY)).subject.endswith(":issuer")
        (tmp_path / "token").write_text(cluster.token(namespace, "bot") + "\n")
        assert (await connector.verify(session, VERIFY)).subject.endswith(":bot")


async def test_the_pod_is_told_where_its_cluster_is(
    opened: Any, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca").write_text(cluster.ca)
    (tmp_path / "token").write_text(cluster.viewer_token)
    files = {"token_file": str(tmp_path / "token"), "certificate_authority_file": str(tmp_path / "ca")}
    async with opened("service-account", **files) as session:
        with pytest.raises(m.InvalidConfig, match="KUBERNETES_SERVICE_HOST"):
            await connector.verify(session, VERIFY)
    host, _, port = cluster.url.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    async with opened("service-account", **files) as session:
        assert (await connector.verify(session, VERIFY)).subject == "viewer"


async def refused(opened: Any, method: str = "token", **fields: Any) -> m.MooringError:
    async with opened(method, **fields) as session:
        with pytest.raises(m.MooringError) as caught:
            await connector.verify(session, VERIFY)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


async def test_what_goes_wrong_is_told_apart(opened: Any, cluster: Any, authority: Any) -> None:
    place = {"server": cluster.url, "certificate_authority": cluster.ca, "token": "wrong"}
    assert isinstance(await refused(opened, **place), m.AuthFailed)
    stranger = await refused(opened, **place | {"certificate_authority": authority.pem})
    assert isinstance(stranger, m.Unreachable)
    assert "is not trusted" in stranger.message
    other = await refused(opened, **place | {"tls_server_name": "elsewhere.example.org"})
    assert "for another host" in other.message
    gone = await refused(opened, **place | {"server": "https://127.0.0.1:1"})
    assert isinstance(gone, m.Unreachable)
    assert "cannot be reached" in gone.message
    certificate, key = authority.client("admin", "system:masters")
    pair = {"client_certificate": certificate, "client_key": key}
    unknown = {name: value for name, value in place.items() if name != "token"}
    assert isinstance(await refused(opened, "client-certificate", **unknown, **pair), m.AuthFailed)
    http = cluster.url.replace("https", "http")
    assert isinstance(await refused(opened, server=http, token="t"), m.Rejected)


async def test_a_certificate_and_the_key_of_another(opened: Any, cluster: Any, admin: Any) -> None:
    other = cluster.authority.client("admin")[1]
    problem = await refused(opened, "client-certificate", **admin | {"client_key": other})
    assert isinstance(problem, m.InvalidConfig)
    assert "do not go together" in problem.message


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha1"])
async def test_a_newer_cluster_says_itself_who_we_are(opened: Any, fake: Any, at_fake: Any, version: str) -> None:
    def review(body: Any) -> Any:
        assert body == {"apiVersion": f"authentication.k8s.io/{version}", "kind": "SelfSubjectReview"}
        return body | {"status": {"userInfo": {"username": "ann@example.org", "groups": ["system:authenticated"]}}}

    fake.answers["POST", f"/apis/authentication.k8s.io/{version}/selfsubjectreviews"] = review
    async with opened("token", **at_fake) as session:
        assert (await connector.verify(session, VERIFY)).subject == "ann@example.org"
    assert ("GET", "/mooring/whoami") not in {(method, path) for method, path, _ in fake.asked}


async def test_who_is_nobody_to_the_cluster_is_not_signed_in(opened: Any, fake: Any, at_fake: Any) -> None:
    status = {"userInfo": {"username": "system:anonymous"}}
    fake.answers["POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews"] = {"status": status}
    problem = await refused(opened, **at_fake)
    assert isinstance(problem, m.AuthFailed)
    assert "for nobody" in problem.message


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (web.Response(text="<html>sign in</html>"), m.Rejected),
        (web.Response(text="[1]"), m.Rejected),
        (web.Response(text="{}"), m.Rejected),
        (web.Response(text='{"gitVersion": ["x"]}'), m.Rejected),
        (web.Response(text="[" * 100_000), m.Rejected),
        (web.Response(body=b"\xff\xfe"), m.Rejected),
        (web.Response(status=302, headers={"Location": "https://127.0.0.1:1/"}), m.Rejected),
        (web.Response(status=403, text="no"), m.AccessDenied),
        (web.Response(status=429, headers={"Retry-After": "7"}), m.Throttled),
        (web.Response(status=503, headers={"Retry-After": "7"}), m.Unreachable),
        (web.Response(status=418), m.Rejected),
    ],
)
async def test_garbage_and_refusals(opened: Any, fake: Any, at_fake: Any, answer: Any, kind: type[Exception]) -> None:
    fake.answers["GET", "/version"] = answer
    problem = await refused(opened, **at_fake)
    assert type(problem) is kind
    if answer.status in (429, 503):
        assert problem.retry_after is not None
        assert problem.retry_after.total_seconds() == 7


async def test_an_answer_without_an_end_and_one_to_everything(opened: Any, fake: Any, at_fake: Any) -> None:
    fake.answers["GET", "/mooring/whoami"] = {"kind": "Anything"}
    problem = await refused(opened, **at_fake)
    assert isinstance(problem, m.Rejected)
    assert "does not answer as a Kubernetes API server" in problem.message
    fake.answers["GET", "/version"] = web.Response(body=b" " * (17 * 1024 * 1024))
    problem = await refused(opened, **at_fake)
    assert isinstance(problem, m.Rejected)
    assert "longer than 16 MiB" in problem.message


async def test_the_cluster_of_another_name(opened: Any, fake: Any, at_fake: Any) -> None:
    async with opened("token", **at_fake) as session:
        with pytest.raises(m.ResourceNotFound):
            await connector.verify(session, m.VerifyRequest(resource_id="other"))
    assert fake.asked == []


@contextlib.asynccontextmanager
async def proxy() -> AsyncGenerator[tuple[str, list[str]], None]:
    """A proxy that knows CONNECT alone; gives its address, and the places that it was asked for."""
    asked: list[str] = []

    async def pipe(source: anyio.abc.ByteReceiveStream, sink: anyio.abc.ByteSendStream) -> None:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for part in source:
                await sink.send(part)

    async def handle(client: anyio.abc.SocketStream) -> None:
        async with client:
            place = (await client.receive()).split()[1].decode()
            asked.append(place)
            host, _, port = place.rpartition(":")
            async with await anyio.connect_tcp(host, int(port)) as server, anyio.create_task_group() as both:
                await client.send(b"HTTP/1.1 200 OK\r\n\r\n")
                both.start_soon(pipe, server, client)
                await pipe(client, server)
                both.cancel_scope.cancel()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}", asked
        tasks.cancel_scope.cancel()


async def test_a_proxy_on_the_way(opened: Any, cluster: Any) -> None:
    place = {"server": cluster.url, "certificate_authority": cluster.ca, "token": cluster.viewer_token}
    async with proxy() as (url, asked):
        async with opened("token", **place, proxy_url=url) as session:
            assert (await connector.verify(session, VERIFY)).subject == "viewer"
        assert set(asked) == {cluster.url.removeprefix("https://")}
        assert isinstance(await refused(opened, **place, proxy_url="http://127.0.0.1:1"), m.Unreachable)


async def test_the_environment_s_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    from mooring_kubernetes.tls import proxy_of

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example.org")
    assert proxy_of("https://k8s.example.org", None) == "http://proxy.example.org:3128"
    assert proxy_of("https://inside.example.org:6443", None) is None
    assert proxy_of("https://127.0.0.1:6443", None) is None
    assert proxy_of("https://k8s.example.org", "http://other:1") == "http://other:1"


async def test_no_secret_is_logged_or_shown(
    opened: Any, cluster: Any, issuer: Any, ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with opened("token", **issuer) as session:
            await connector.verify(session, VERIFY)
            access = await connector.issue_credentials(session, ask())
            shown = f"{session!r} {await session.way()!r} {access!r} {session._api!r}"
    assert isinstance(access, m.KubernetesAccess)
    assert access.token is not None
    for secret in (access.token.reveal(), issuer["token"]):
        assert secret not in caplog.text
        assert secret not in shown
    wrong = {"server": cluster.url, "certificate_authority": cluster.ca, "token": "canary-0123456789"}
    problem = await refused(opened, **wrong)
    trace = traceback.TracebackException.from_exception(problem, capture_locals=True)
    assert "canary" not in "".join(line for line in trace.format() if "test_session" not in line)


async def test_no_key_is_left_in_a_file(
    opened: Any, cluster: Any, admin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are files in memory, and where there are none."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for in_memory in (True, False):
        if not in_memory:
            monkeypatch.delattr(os, "memfd_create", raising=False)
        async with opened("client-certificate", **admin) as session:
            assert (await connector.verify(session, VERIFY)).subject == "admin"
            assert list((tmp_path / "temporary").iterdir()) == []


async def test_a_password_goes_as_basic_authentication(opened: Any, fake: Any, at_fake: Any) -> None:
    fields = {name: value for name, value in at_fake.items() if name != "token"}
    assert isinstance(await refused(opened, "password", **fields, username="ann", password="pw"), m.AuthFailed)
    fake.authorization = "Basic " + base64.b64encode(b"ann:pw").decode()
    async with opened("password", **fields, username="ann", password="pw") as session:
        assert (await connector.verify(session, VERIFY)).subject == "ann"


async def test_a_server_that_wants_a_client_certificate(opened: Any, authority: Any, tmp_path: Path) -> None:
    """In the handshake, as proxies do; Kubernetes itself does it afterwards."""
    certificate, key = authority.server("127.0.0.1")
    (tmp_path / "both.pem").write_text(certificate + key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "both.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.load_verify_locations(cadata=authority.pem)

    def serve(listener: socket.socket) -> None:
        for _ in range(3):  # attempts
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ssl.SSLError):  # which it tells the other side by itself
                tls.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, serve, listener)
            url = f"https://127.0.0.1:{listener.getsockname()[1]}"
            problem = await refused(opened, server=url, certificate_authority=authority.pem, token="t")
    assert isinstance(problem, m.Unreachable)
    assert "and the client certificate" in problem.message


async def test_reads_and_reviews_are_tried_again_and_what_makes_something_is_not(
    opened: Any, fake: Any, at_fake: Any
) -> None:
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    for method, place, times in (("GET", "/version", 3), ("POST", path, 3), ("POST", "/api/v1/secrets", 1)):
        fake.answers[method, place] = web.Response(status=503)
        fake.asked.clear()
        async with opened("token", **at_fake) as session:
            with pytest.raises(m.Unreachable, match="503"):
                await session.ask("a call", method, place)
        assert len(fake.asked) == times
