"""The example plugin of the documentation does what its pages say."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest

import mooring as m
from mooring.assembly import Settings
from mooring.broker import Found

pytestmark = pytest.mark.filterwarnings("error")


async def registered(broker: m.Broker, cloud: Any) -> m.types.Connector:
    return await broker.register("work", type="acme", config={"url": cloud.url, "key": cloud.key})


def run(cloud: Any, plugin: ModuleType, home: Path, work: Callable[[m.Broker], Any]) -> Any:
    async def main() -> Any:
        settings = Settings(home=home)
        async with m.open_broker(settings=settings, plugins=[plugin.connector], system_plugins=[]) as broker:
            await registered(broker, cloud)
            return await work(broker)

    return anyio.run(main)


def test_discovers_the_buckets(acme_cloud: Any, mooring_acme: ModuleType, tmp_path: Path) -> None:
    async def work(broker: m.Broker) -> list[str]:
        async with broker.discover(connectors=["work"]) as replies:
            return [reply.resource.id async for reply in replies if isinstance(reply, Found)]

    assert run(acme_cloud, mooring_acme, tmp_path, work) == ["reports", "raw-data"]


def test_issues_a_token_for_one_bucket_once(acme_cloud: Any, mooring_acme: ModuleType, tmp_path: Path) -> None:
    async def work(broker: m.Broker) -> tuple[m.Issued, m.Issued]:
        first = await broker.issue("work", resource_id="acme://reports", access="list", ttl=timedelta(minutes=5))
        return first, await broker.issue("work", resource_id="reports", access="list", ttl=timedelta(minutes=5))

    first, second = run(acme_cloud, mooring_acme, tmp_path, work)
    assert isinstance(first.credentials, m.BearerToken)
    assert first.narrowed
    assert not first.clamped
    assert first.expires_at is not None
    assert timedelta(minutes=4) < first.expires_at - datetime.now(UTC) <= timedelta(minutes=5)
    assert second.cached
    assert acme_cloud.calls.count("POST /tokens") == 1

    token = first.credentials.token.reveal()
    assert acme_cloud.tokens[token] == {"bucket": "reports", "access": "list", "seconds": 300}
    headers = {"authorization": f"Bearer {token}"}
    assert httpx.get(f"{acme_cloud.url}/buckets/reports", headers=headers).status_code == 200
    assert httpx.get(f"{acme_cloud.url}/buckets/raw-data", headers=headers).status_code == 403


def test_refusals_are_ours(acme_cloud: Any, mooring_acme: ModuleType, tmp_path: Path) -> None:
    async def work(broker: m.Broker) -> None:
        with pytest.raises(m.AuthFailed):
            await broker.register("other", type="acme", config={"url": acme_cloud.url, "key": "wrong"})
        with pytest.raises(m.ResourceNotFound):
            await broker.issue("work", resource_id="absent")
        with pytest.raises(m.InvalidConfig) as problem:
            await broker.issue("work", resource_id="not a bucket")
        assert problem.value.field == "resource_id"

    run(acme_cloud, mooring_acme, tmp_path, work)


def test_is_found_when_installed(
    acme_path: str, acme_cloud: Any, clean_environment: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    """The entry point is right: the command line finds, registers and issues with the plugin."""
    (tmp_path / "key").write_text(acme_cloud.key)
    environment = clean_environment(PYTHONPATH=acme_path)

    def mooring(*arguments: str) -> Any:
        command = [sys.executable, "-m", "mooring", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert {"name": "acme", "error": None}.items() <= mooring("plugins", "-o", "json")[0].items()
    fields = ("--url", acme_cloud.url, "--key", f"@{tmp_path / 'key'}")
    reply = mooring("connector", "register", "work", "--type", "acme", *fields, "-o", "json")
    assert [one["id"] for one in reply["resources"][0]["resources"]] == ["raw-data", "reports"]
    issued = mooring("issue", "work", "--resource-id", "reports")
    assert issued["credentials"]["token"] in acme_cloud.tokens


def test_the_little_server_says_where_it_is_and_refuses_what_is_not_right(pages: Any) -> None:
    command = [sys.executable, str(pages.docs / "examples" / "mooring_acme" / "serve.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url, key = (server.stdout.readline().strip().partition("=")[2] for _ in range(2))
        headers = {"authorization": f"Bearer {key}"}
        good = {"bucket": "reports", "access": "read", "seconds": 60}
        assert httpx.post(f"{url}/tokens", headers=headers, json=good).status_code == 201
        bad = ({"seconds": "60"}, {"seconds": True}, {"seconds": 0}, {"access": "own"}, {"more": 1}, {"bucket": 1})
        for wrong in bad:
            assert httpx.post(f"{url}/tokens", headers=headers, json=good | wrong).status_code == 400
        assert httpx.post(f"{url}/tokens", headers=headers, content=b"{").status_code == 400
        assert httpx.post(f"{url}/tokens", json=good).status_code == 401
        assert httpx.get(f"{url}/buckets", headers={"authorization": "Bearer x"}).status_code == 401
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 0


def test_type_checks_strictly(pages: Any) -> None:
    pytest.importorskip("mypy")
    plugin = pages.docs / "examples" / "mooring_acme" / "src" / "mooring_acme"
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(plugin)]
    done = subprocess.run(command, cwd=pages.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
