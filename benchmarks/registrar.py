"""One of the processes that `bench_store` counts: registers connectors once it is told to."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

import mooring
from mooring.assembly import Settings
from mooring.testing import example


async def main(home: str, count: str, name: str) -> None:
    """Register so many connectors, named for this process."""
    settings = Settings(home=Path(home))
    async with mooring.open_broker(settings=settings, plugins=[example], system_plugins=[]) as broker:
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        for number in range(int(count)):
            await broker.register(f"c-{name}-{number}", type="example", config={"user": "u"}, verify=False)


anyio.run(main, *sys.argv[1:])
