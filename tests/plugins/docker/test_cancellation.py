"""Every verb that asks somebody, cancelled at spread moments: nothing stays behind, and the next call works."""

from __future__ import annotations

import asyncio
import gc
import os
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import mooring as m
from mooring.testing import memory_broker
from mooring_docker import connector, helpers

pytestmark = pytest.mark.anyio


async def discover(broker: m.Broker, host: str) -> None:
    async with broker.discover(resource_type="docker-registry") as replies:
        assert [reply async for reply in replies]


VERBS: dict[str, Callable[[m.Broker, str], Awaitable[object]]] = {
    "verify": lambda broker, host: broker.verify("mine"),
    "discover": discover,
    "issue": lambda broker, host: broker.issue("mine", resource_id=f"{host}/team/app"),
}


def spread() -> Iterator[int]:
    rounds = 0
    while True:
        yield rounds
        rounds += 1 + rounds // 3


def sockets() -> list[str]:
    folder = Path("/proc/self/fd")
    found = []
    for one in folder.iterdir() if folder.exists() else ():
        with suppress(FileNotFoundError):  # the token server, a thread of this process, closes some meanwhile
            found.append(str(one.readlink()))
    return sorted(link for link in found if link.startswith("socket:"))


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb(verb: str, token_registry: Any) -> None:
    config = {"registry": token_registry.url, "username": "alice", "password": "pw-alice"}
    before, tasks = sockets(), len(asyncio.all_tasks())
    for rounds in spread():
        async with memory_broker(connector) as broker:
            await broker.register("mine", type="docker", auth_method="password", config=config, verify=False)
            done = await cancelled_after(rounds, partial(VERBS[verb], broker, token_registry.host))
            with anyio.fail_after(10):
                await VERBS[verb](broker, token_registry.host)
        deadline = anyio.current_time() + 5
        while (sockets(), len(asyncio.all_tasks())) != (before, tasks) and anyio.current_time() < deadline:  # noqa: ASYNC110
            await anyio.sleep(0.001)  # the token server's own end of the connections
        assert (sockets(), len(asyncio.all_tasks())) == (before, tasks)
        if done:
            break
    assert rounds > 5


async def test_many_at_once(token_registry: Any, tokens: Any) -> None:
    config = {"registry": token_registry.url, "username": "alice", "password": "pw-alice"}
    got: dict[str, Any] = {}
    async with memory_broker(connector) as broker:
        await broker.register("mine", type="docker", auth_method="password", config=config, verify=False)

        async def issue(name: str) -> None:
            got[name] = await broker.issue("mine", resource_id=f"{token_registry.host}/team/{name}")

        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(issue, f"app-{number}")

    assert {name: one.credentials.repository for name, one in got.items()} == {
        f"app-{number}": f"team/app-{number}" for number in range(30)
    }


async def test_a_helper_that_is_left_is_ended(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = machine / "bin"
    folder.mkdir()
    program = folder / "docker-credential-slow"
    program.write_text(f"#!/bin/sh\necho $$ > {folder}/pid\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (machine / ".docker").mkdir()
    (machine / ".docker" / "config.json").write_text('{"credHelpers": {"r.org": "slow"}}')

    async with anyio.create_task_group() as group:
        group.start_soon(connector.lift, m.LiftRequest())
        with anyio.fail_after(20):
            while not (folder / "pid").exists() or not (folder / "pid").read_text().strip():  # noqa: ASYNC110
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()

    pid = int((folder / "pid").read_text())
    with anyio.fail_after(10):
        while there(pid):  # noqa: ASYNC110
            await anyio.sleep(0.01)  # asyncio collects it in a moment, if it was left while it began


@pytest.mark.parametrize("rounds", range(12))
def test_a_helper_that_is_left_while_it_starts_is_closed(
    rounds: int, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = machine / "docker-credential-slow"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{machine}:{os.environ['PATH']}")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always", ResourceWarning)
        assert not anyio.run(cancelled_after, rounds, partial(helpers.get, "slow", "r.org"))
        gc.collect()
    assert [str(one.message) for one in shown] == []


def there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def cancelled_after(rounds: int, work: Callable[[], Awaitable[object]]) -> bool:
    done = False

    async def run() -> None:
        nonlocal done
        await work()
        done = True

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        for _ in range(rounds):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    return done
