"""Every verb that asks AWS, cancelled at spread moments: no task and no socket stays, and the next call works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import mooring as m
from mooring.testing import memory_broker
from mooring_aws import connector

pytestmark = pytest.mark.anyio
DATA = {"resource_type": "s3-bucket", "resource_id": "s3://data"}


async def discover(broker: m.Broker) -> None:
    async with broker.discover(resource_type="aws-generic") as replies:
        assert [reply async for reply in replies]


async def client(broker: m.Broker) -> None:
    async with broker.client("mine", resource_type="aws-generic"):
        await anyio.lowlevel.checkpoint()


VERBS: dict[str, Callable[[m.Broker], Awaitable[object]]] = {
    "verify": lambda broker: broker.verify("mine"),
    "discover": discover,
    "issue": lambda broker: broker.issue("mine", **DATA),
    "client": client,
}


def spread() -> Iterator[int]:
    rounds = 0
    while True:
        yield rounds
        rounds += 1 + rounds // 3


def sockets() -> list[str]:
    folder = Path("/proc/self/fd")
    links = (str(one.readlink()) for one in folder.iterdir() if one.exists()) if folder.exists() else ()
    return sorted(link for link in links if link.startswith("socket:"))


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb(verb: str, fake: Any, fake_key: dict[str, Any], replies: Any) -> None:
    async def answer(asked: Any) -> Any:
        await asyncio.sleep(0)
        operation = asked.parameters.get("Action")
        made = operation in ("GetFederationToken", "GetSessionToken")
        return replies.credentials(operation) if made else await fake.whoami(asked)

    fake.answer = answer
    before, tasks = sockets(), len(asyncio.all_tasks())
    for rounds in spread():
        async with memory_broker(connector) as broker:
            await broker.register(
                "mine", type="aws", auth_method="secret-key", config=fake_key, verify=False, allow_unnarrowed=True
            )
            done = await cancelled_after(rounds, partial(VERBS[verb], broker))
            with anyio.fail_after(10):
                await VERBS[verb](broker)
        deadline = anyio.current_time() + 5
        while (sockets(), len(asyncio.all_tasks())) != (before, tasks) and anyio.current_time() < deadline:  # noqa: ASYNC110
            await anyio.sleep(0.001)  # the fake's own end of the connections
        assert (sockets(), len(asyncio.all_tasks())) == (before, tasks)
        if done:
            break
    assert rounds > 5


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
