"""What the n-th AWS connector costs: a session and its first signed call, beside a fresh aioboto3 client's.

Both call a local endpoint that answers GetCallerIdentity, in a process of its own, so that only our side's CPU counts.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import anyio
import msgspec

import mooring as m
from measure import Figure, cpu
from mooring.testing import example_context
from mooring_aws import connector
from mooring_aws.settings import SecretKeyConfig

SESSIONS = 40
FRESH = 8
KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def figures() -> Iterator[Figure]:
    """CPU of one session after the first, in milliseconds."""
    ours, theirs = anyio.run(_measure)
    yield Figure(
        "aws_session_cpu", ours * 1000, f"session and first call; a fresh aioboto3 client takes {theirs * 1000:.0f} ms"
    )


async def _measure() -> tuple[float, float]:
    server = Path(__file__).with_name("identity_server.py")
    async with _server([sys.executable, str(server)]) as endpoint:
        tools = example_context().tools
        async with connector.lifespan(tools) as shared:

            async def ours(number: int) -> None:
                config = SecretKeyConfig(
                    region="eu-west-1",
                    endpoint_url=endpoint,
                    aws_access_key_id=m.Secret(f"AKIA{number:016}"),
                    aws_secret_access_key=m.Secret(SECRET),
                )
                context = msgspec.structs.replace(
                    example_context(), connector_id=str(number), tools=tools, shared=shared
                )
                async with connector.authenticate(config, context) as session:
                    await connector.verify(session, m.VerifyRequest())

            await ours(0)
            mine = await _each(ours, SESSIONS)

        async def fresh(_: int) -> None:
            import aioboto3

            session = aioboto3.Session(KEY, SECRET, region_name="eu-west-1")
            async with session.client("sts", endpoint_url=endpoint) as client:
                await client.get_caller_identity()

        await fresh(0)
        return mine, await _each(fresh, FRESH)


async def _each(work: Callable[[int], Awaitable[None]], times: int) -> float:
    """The median CPU of one."""
    spent = []
    for number in range(times):
        begin = cpu()
        await work(number + 1)
        spent.append(cpu() - begin)
    return median(spent)


@asynccontextmanager
async def _server(command: list[str]) -> AsyncGenerator[str, None]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220  before the measuring
    try:
        assert process.stdout is not None
        yield await anyio.to_thread.run_sync(lambda: process.stdout.readline().strip())  # type: ignore[union-attr]
    finally:
        process.kill()
        process.communicate()
