"""Components on the sandbox: registered, connected, opened; by the commands, and by fsspec with real S3 behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

import mooring as m
import mooring_components
from mooring.assembly import Settings
from mooring_components import Components

pytestmark = pytest.mark.anyio
MODELS = {"type": "artifact-store", "flavor": "s3", "config": {"path": "s3://team-models"}}


@pytest.fixture
async def connected(broker: m.Broker, keys: dict[str, str]) -> m.Broker:
    await broker.register("data", type="aws", auth_method="secret-key", config=keys)
    await Components(broker).register("models", **MODELS, connector="data")
    return broker


async def test_a_file_system_reads_and_writes_its_bucket_and_no_other(connected: m.Broker) -> None:
    async with mooring_components.open(connected, "models") as store:
        run = anyio.to_thread.run_sync
        assert await run(lambda: sorted(store.ls("team-models"))) == ["team-models/README.md", "team-models/churn"]
        try:
            await run(lambda: store.pipe("team-models/made/one.txt", b"one"))
            assert await run(lambda: store.cat("team-models/made/one.txt")) == b"one"
        finally:
            await run(lambda: store.rm("team-models/made/one.txt"))
        with pytest.raises(PermissionError):
            await run(lambda: store.ls("team-datasets"))


async def test_it_may_only_read_if_it_is_opened_for_that(connected: m.Broker) -> None:
    async with mooring_components.open(connected, "models", access="read") as store:
        run = anyio.to_thread.run_sync
        assert await run(lambda: store.cat("team-models/README.md"))
        with pytest.raises(PermissionError):
            await run(lambda: store.pipe("team-models/made/two.txt", b"two"))


class Ahead:
    """The machine's clocks, moved ahead."""

    passed = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.passed

    def monotonic(self) -> float:
        return time.monotonic() + self.passed.total_seconds()


async def test_it_renews_while_it_is_open(
    settings: Settings, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Ahead()
    monkeypatch.setattr("mooring.held._now", clock.now)
    async with m.open_broker(settings=settings, clock=clock) as broker:
        await broker.register("data", type="aws", auth_method="secret-key", config=keys)
        await Components(broker).register("models", **MODELS, connector="data")
        async with mooring_components.open(broker, "models") as store:
            used = []
            (lease,) = await broker.leases(connector="data")
            assert lease.expires_at is not None
            life = lease.expires_at - lease.issued_at
            for passed in (timedelta(0), life / 3, life * 0.97):
                clock.passed = passed
                assert await anyio.to_thread.run_sync(lambda: store.exists("team-models/README.md"))
                used.append(store._s3._request_signer._credentials.access_key)
    assert used[0] == used[1] != used[2]


async def test_a_secret_opens_it_too(broker: m.Broker, sandbox: Any) -> None:
    await broker.named_secrets.create(
        "keys",
        {
            "aws_access_key_id": sandbox.developer.key_id,
            "aws_secret_access_key": sandbox.developer.secret,
        },
    )
    more = {"endpoint_url": sandbox.s3_url, "region": sandbox.region}
    config = MODELS["config"] | more  # type: ignore[operator]
    await Components(broker).register("models", **MODELS | {"config": config}, secret="keys")
    async with mooring_components.open(broker, "models") as store:
        assert await anyio.to_thread.run_sync(lambda: store.exists("team-models/README.md"))


Mooring = Callable[..., Any]


@pytest.fixture
def mooring(tmp_path: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch, environment: Any) -> Mooring:
    """`mooring` in processes of its own: what it writes as JSON, or what it says where it fails."""
    monkeypatch.setenv("MOORING_HOME", str(tmp_path / "home"))

    def call(*arguments: str, code: int = 0) -> Any:
        words = [sys.executable, "-m", "mooring", *arguments]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, env=os.environ)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout) if "json" in arguments and not code else done.stderr

    fields = [word for name, value in keys.items() for word in (f"--{name}", value)]
    call("connector", "register", "data", "-t", "aws", "-a", "secret-key", *fields)
    return call


def test_the_whole_workflow_by_commands(mooring: Mooring) -> None:
    register = ("artifact-store", "register")
    said = mooring(*register, "lost", "--flavor", "s3", "--path", "s3://nowhere-at-all", "--connector", "data", code=4)
    assert "no such resource" in said
    assert mooring("artifact-store", "list", "-o", "json") == []

    said = mooring(*register, "models", "--flavor", "s3", "--path=s3://team-models")
    assert "To connect it: mooring artifact-store connect models" in said
    (found,) = mooring("artifact-store", "list", "-o", "json")
    assert (found["connector"], found["resource_id"]) == (None, None)

    made = mooring("artifact-store", "connect", "models", "-o", "json")
    assert (made["connector"], made["resource_id"]) == ("data", "s3://team-models")
    assert mooring("component", "describe", made["id"][:8], "-o", "json") == made

    said = mooring("connector", "delete", "data", "--yes", code=2)
    assert "used by artifact-store models" in said
    changed = mooring("artifact-store", "update", "models", "--path", "s3://team-models/churn/", "-o", "json")
    assert changed["resource_id"] == "s3://team-models/churn/"
    said = mooring("artifact-store", "update", "models", "--path", "s3://nowhere-at-all", code=4)
    assert mooring("artifact-store", "describe", "models", "-o", "json") == changed

    stack = mooring("stack", "register", "prod", "models", "-o", "json")
    assert stack["components"] == [made["id"]]
    assert "in use by stack prod" in mooring("artifact-store", "delete", "models", "--yes", code=2)
    mooring("stack", "delete", "prod", "--yes")
    mooring("artifact-store", "disconnect", "models")
    mooring("connector", "delete", "data", "--yes")
    mooring("artifact-store", "delete", "models", "--yes")
    assert mooring("component", "list", "-o", "json") == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("artifact-store", "register", "a", "--flavor", "s4"),
            "there is no flavor 's4' of artifact-store; known: ",
        ),
        (("artifact-store", "register", "a", "--flavor", "s3"), "path"),
        (("artifact-store", "register", "a", "--flavor", "s3", "--path", "gs://a"), "path"),
        (("artifact-store", "register", "a", "--flavor", "s3", "--pth", "s3://a"), "did you mean"),
        (("artifact-store", "connect", "nobody"), "no component is named 'nobody'"),
        (("artifact-store", "connect"), "name the component, or give -i"),
        (("artifact-store", "update", "--path", "s3://a"), "write the NAME before its fields"),
        (("component", "register", "a", "--flavor", "s3"), "name the component type with --type"),
        (("stack", "register", "s", "nobody"), "no component is named 'nobody'"),
        (("orchestrator", "register", "a", "--flavor", "local", "--connector", "data"), "needs no connector"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(mooring: Mooring, arguments: tuple[str, ...], says: str) -> None:
    said = mooring(*arguments, code=2)
    assert says in said
    assert len(said.splitlines()) == 1
