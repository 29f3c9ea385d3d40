"""Ready clients that renew their own credentials, of any KubernetesAccess."""

from __future__ import annotations

import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib.metadata import requires
from typing import Any

import anyio
import anyio.to_thread
import kubernetes.client
import kubernetes_asyncio.client
import pytest

import mooring as m
from mooring_kubernetes import connector

pytestmark = pytest.mark.anyio
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def access(server: Any, token: str | None, life: timedelta | None, **more: Any) -> m.KubernetesAccess:
    return m.KubernetesAccess(
        server=server.url,
        cluster="any",
        certificate_authority=server.ca,
        token=m.Secret(token) if token is not None else None,
        expires_at=datetime.now(UTC) + life if life is not None else None,
        narrowed=True,
        **more,
    )


def request(first: m.Credentials, renew: Any, kind: Any = m.ClientRequest) -> Any:
    return kind(credentials=first, renew=renew, resource_type="kubernetes-cluster", resource_id=None)


def blocking(first: m.Credentials, renew: Any) -> Any:
    return connector.blocking_client(request(first, renew, m.BlockingClientRequest))


def never() -> Any:
    raise AssertionError


async def test_a_client_renews_before_its_credentials_end_once_for_many(fake: Any) -> None:
    asked = []

    async def renew() -> m.Credentials:
        asked.append(1)
        await anyio.sleep(0.01)
        return access(fake, fake.token, HOUR)

    async with connector.client(request(access(fake, "stale", -MINUTE), renew)) as api:
        version = kubernetes_asyncio.client.VersionApi(api)
        fake.answers["GET", "/version/"] = VERSION
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(version.get_code)
        assert (await version.get_code()).git_version == "v1.33.1"
    assert len(asked) == 1


VERSION = dict.fromkeys(
    ("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion", "major", "minor", "platform"), "x"
) | {"gitVersion": "v1.33.1"}


async def test_a_blocking_client_renews_once_for_many_threads(fake: Any) -> None:
    fake.answers["GET", "/version/"] = VERSION
    asked = []

    def renew() -> m.Credentials:
        asked.append(threading.get_ident())
        return access(fake, fake.token, HOUR)

    def work() -> list[str]:
        with blocking(access(fake, "stale", -MINUTE), renew) as api, ThreadPoolExecutor(8) as pool:
            version = kubernetes.client.VersionApi(api)
            return [one.git_version for one in pool.map(lambda _: version.get_code(), range(24))]

    assert await anyio.to_thread.run_sync(work) == ["v1.33.1"] * 24
    assert len(asked) == 1


async def test_without_the_official_library_its_name_is_said(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (wanted,) = (one.partition(";")[0] for one in requires("mooring-kubernetes") or () if "blocking" in one)
    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    with (
        pytest.raises(m.InvalidConfig, match=r"pip install 'kubernetes[<>=]") as caught,
        blocking(access(fake, fake.token, HOUR), lambda: access(fake, fake.token, HOUR)),
    ):
        pass
    bounds = re.compile(r"[<>=]+\d+")
    assert set(bounds.findall(caught.value.message)) == set(bounds.findall(wanted))


async def test_a_client_lives_on_with_what_it_has_while_renewing_fails(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def renew() -> m.Credentials:
        asked.append(1)
        raise m.Unreachable("no answer")

    fake.answers["GET", "/version/"] = VERSION
    async with connector.client(request(access(fake, fake.token, MINUTE), renew)) as api:
        monkeypatch.setattr("mooring.held._now", lambda: datetime.now(UTC) + MINUTE * 5 / 6)
        assert await kubernetes_asyncio.client.VersionApi(api).get_code()
        assert asked
    async with connector.client(request(access(fake, fake.token, -MINUTE), renew)) as api:
        with pytest.raises(m.Unreachable):
            await kubernetes_asyncio.client.VersionApi(api).get_code()


async def test_what_the_server_refuses_is_renewed_once_for_fifty_callers(fake: Any) -> None:
    fake.answers["GET", "/version/"] = VERSION
    asked, first = [], access(fake, "stale", HOUR)

    async def renew(refused: m.Credentials | None = None) -> m.Credentials:
        asked.append(refused)
        return access(fake, fake.token, HOUR)

    async with connector.client(request(first, renew)) as api, anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(kubernetes_asyncio.client.VersionApi(api).get_code)
    assert asked == [first]

    async def another(refused: m.Credentials | None = None) -> m.Credentials:
        asked.append(refused)
        return access(fake, f"stale too {len(asked)}", HOUR)

    fake.asked.clear()
    async with connector.client(request(first, another)) as api:
        with pytest.raises(kubernetes_asyncio.client.ApiException, match="Unauthorized"):
            await kubernetes_asyncio.client.VersionApi(api).get_code()
    assert asked == [first, first]
    assert len(fake.asked) == 2

    async def same(refused: m.Credentials | None = None) -> m.Credentials:
        return access(fake, "stale", None)

    async with connector.client(request(access(fake, "stale", None), same)) as api:
        with pytest.raises(kubernetes_asyncio.client.ApiException, match="Unauthorized"):
            await kubernetes_asyncio.client.VersionApi(api).get_code()
    assert len(fake.asked) == 3


async def test_a_body_is_sent_once_more_too(fake: Any) -> None:
    fake.answers["POST", "/api/v1/namespaces"] = lambda body: body

    async def renew(refused: m.Credentials | None = None) -> m.Credentials:
        return access(fake, fake.token, HOUR)

    def work() -> None:
        with blocking(access(fake, "stale", HOUR), lambda refused=None: access(fake, fake.token, HOUR)) as api:
            assert kubernetes.client.CoreV1Api(api).create_namespace({"metadata": {"name": "n"}}).metadata.name == "n"

    async with connector.client(request(access(fake, "stale", HOUR), renew)) as api:
        made = await kubernetes_asyncio.client.CoreV1Api(api).create_namespace({"metadata": {"name": "n"}})
    assert made.metadata.name == "n"
    await anyio.to_thread.run_sync(work)


async def test_what_the_server_refuses_is_renewed_once_for_fifty_threads(fake: Any) -> None:
    fake.answers["GET", "/version/"] = VERSION
    asked, first = [], access(fake, "stale", HOUR)

    def renew(refused: m.Credentials | None = None) -> m.Credentials:
        asked.append(refused)
        return access(fake, fake.token, HOUR)

    def another(refused: m.Credentials | None = None) -> m.Credentials:
        asked.append(refused)
        return access(fake, "stale too", HOUR)

    def work() -> None:
        with blocking(first, renew) as api, ThreadPoolExecutor(50) as pool:
            version = kubernetes.client.VersionApi(api)
            assert {one.git_version for one in pool.map(lambda _: version.get_code(), range(50))} == {"v1.33.1"}
        assert asked == [first]
        fake.asked.clear()
        with blocking(first, another) as api, pytest.raises(kubernetes.client.ApiException, match="Unauthorized"):
            kubernetes.client.VersionApi(api).get_code()
        assert asked == [first, first]
        assert len(fake.asked) == 2

    await anyio.to_thread.run_sync(work)


async def test_a_certificate_is_renewed_too(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is of nobody that may see anything, the second the administrator's."""
    pairs = [cluster.authority.client("nobody"), cluster.admin]
    old, new = (
        access(cluster, None, life, client_certificate=certificate, client_key=m.Secret(key))
        for (certificate, key), life in zip(pairs, (MINUTE, HOUR), strict=True)
    )
    late = timedelta(0)
    monkeypatch.setattr("mooring.held._now", lambda: datetime.now(UTC) + late)

    async def renew() -> m.Credentials:
        return new

    async with connector.client(request(old, renew)) as api:
        core = kubernetes_asyncio.client.CoreV1Api(api)
        with pytest.raises(kubernetes_asyncio.client.ApiException, match="Forbidden"):
            await core.list_namespace()
        late = MINUTE * 5 / 6
        assert (await core.list_namespace()).items
    late = timedelta(0)

    def work() -> None:
        nonlocal late
        with blocking(old, lambda: new) as api:
            core = kubernetes.client.CoreV1Api(api)
            with pytest.raises(kubernetes.client.ApiException, match="Forbidden"):
                core.list_namespace()
            late = MINUTE * 5 / 6
            assert core.list_namespace().items

    await anyio.to_thread.run_sync(work)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
async def test_the_server_s_name_and_no_check(cluster: Any) -> None:
    for more in (
        {"tls_server_name": "kubernetes.default.svc"},
        {"certificate_authority": None, "insecure_skip_tls_verify": True},
    ):
        first = access(cluster, cluster.viewer_token, HOUR)
        values = {name: getattr(first, name) for name in first.__struct_fields__} | more
        changed = m.KubernetesAccess(**values)
        async with connector.client(request(changed, never)) as api:
            assert (await kubernetes_asyncio.client.VersionApi(api).get_code()).git_version == "v1.20.2"

        def work(changed: m.KubernetesAccess = changed) -> str:
            with blocking(changed, never) as api:
                return str(kubernetes.client.VersionApi(api).get_code().git_version)

        assert await anyio.to_thread.run_sync(work) == "v1.20.2"


async def test_a_stranger_is_not_trusted(cluster: Any, authority: Any) -> None:
    first = access(cluster, cluster.viewer_token, HOUR)
    values = {name: getattr(first, name) for name in first.__struct_fields__}
    stranger = m.KubernetesAccess(**values | {"certificate_authority": authority.pem})
    elsewhere = m.KubernetesAccess(**values | {"tls_server_name": "elsewhere.example.org"})
    for one in (stranger, elsewhere):
        async with connector.client(request(one, never)) as api:
            with pytest.raises(Exception, match="certificate"):
                await kubernetes_asyncio.client.VersionApi(api).get_code()

        def work(one: m.KubernetesAccess = one) -> None:
            with blocking(one, never) as api, pytest.raises(Exception, match=r"certificate|doesn't match"):
                kubernetes.client.VersionApi(api).get_code()

        await anyio.to_thread.run_sync(work)


async def test_another_kind_of_credentials() -> None:
    token = m.BearerToken(token=m.Secret("t"), expires_at=None, narrowed=True)
    with pytest.raises(m.UnsupportedResource):
        async with connector.client(request(token, None)):
            pass
    with pytest.raises(m.UnsupportedResource), blocking(token, None):
        pass
