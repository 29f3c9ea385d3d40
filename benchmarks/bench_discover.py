"""Discovery across a fleet: AWS connectors against a local AWS of 100 ms, and the kernel alone with a synthetic plugin.

The upstream is a process of its own. What 1,000 connectors cost is measured in a fresh process too, so that its peak of
memory is theirs.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
import urllib.request
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import anyio

import mooring as m
from measure import Figure, cpu, in_memory
from mooring.assembly import Settings
from mooring.broker import Failed, Finished, Found
from mooring.cli._process import collect_rarely
from mooring.testing import Fake
from mooring_aws import connector as aws
from upstream import LATENCY

HERE = Path(__file__).parent
FLEET, ROUNDS = 1000, 3
SOME = 20
HUNDRED, ILL, PAIRS = 100, (3, 4), 20
SIZES = {10: 20, 100: 4, 1000: 2, 10_000: 1}
"""How many connectors, and how often they are asked in each of `TURNS`."""
TURNS, FIRSTS = 2, 8
RESOURCES = 100_000
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SEQUENTIAL = (
    *(("sts", "get_caller_identity"),) * 6,
    *(("s3", "list_buckets"), ("eks", "list_clusters"), ("ecr", "describe_repositories")),
)
"""The nine calls of one key where whoever lists a type asks twice whose key it is, on a new connection each time."""


def figures() -> Iterator[Figure]:
    """The issue's own figures, but for the walls: see `_fleet`."""
    yield from _of_the_fleet()
    with _upstream() as url:
        yield from anyio.run(_all_types, url)
        yield anyio.run(_among_ill, url)
    yield from anyio.run(_growth)
    yield anyio.run(_one_with_many)


# -- 1,000 connectors


def _of_the_fleet() -> Iterator[Figure]:
    with _upstream() as url:
        told = subprocess.run([sys.executable, __file__, url], stdout=subprocess.PIPE, check=True)
    found = json.loads(told.stdout)
    ours, theirs = found["ours"], found["theirs"]
    calls = f"{theirs['cpu'] * 1000 / FLEET:.2f} ms of CPU and {theirs['wall']:.2f} s for the same calls"
    strict = ours["wall"] / max(2 * LATENCY, theirs["cpu"])
    detail = f"{calls}; ours {ours['wall']:.2f} s, which is {strict:.2f} x to its CPU alone"
    yield Figure("discover_1000_wall", found["ratio"], detail)
    detail = f"a connector, {found['calls']:g} calls each; the least of {ROUNDS} rounds"
    yield Figure("discover_1000_cpu", found["least"] * 1000 / FLEET, detail)
    yield Figure("discover_1000_memory", found["peak"] / FLEET, "a connector: growth of the peak RSS, imports included")


async def _fleet(url: str) -> dict[str, Any]:
    """What buckets of the fleet take, and the same calls of one raw client, in turn.

    The best round counts. The bound is the raw client's wall, where that is not the latency's: on a machine that does
    nothing else it is little more than its CPU, and on others both sides wait for theirs.

    The collector of cycles looks as often as in a command of mooring's, for both sides.
    """
    async with _broker(url, range(FLEET)) as broker, _raw(url) as raw:
        gc.collect()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await _asked(broker, FLEET)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        await raw()
        _calls(url)
        rounds = []
        for _ in range(ROUNDS):
            theirs, ours = await _timed(raw), await _timed(lambda: _asked(broker, FLEET))
            rounds.append((ours["wall"] / max(2 * LATENCY, theirs["wall"]), ours, theirs))
        calls = _calls(url)
    ratio, ours, theirs = min(rounds, key=lambda one: one[0])
    mine = sum(calls.values()) / ROUNDS / FLEET - 2  # the others are the raw client's
    least = min(one["cpu"] for _, one, _ in rounds)
    return {"ratio": ratio, "ours": ours, "theirs": theirs, "least": least, "peak": peak, "calls": mine}


async def _asked(broker: m.Broker, resources: int) -> None:
    async with broker.discover(resource_type="s3-bucket") as replies:
        found = [one async for one in replies if not isinstance(one, Finished)]
    if sum(isinstance(one, Found) for one in found) != resources:
        sys.exit(f"not everything was found: {next(one for one in found if isinstance(one, Failed)).error}")


@asynccontextmanager
async def _raw(url: str) -> AsyncGenerator[Any, None]:
    """The two calls of each connector, by two shared clients."""
    async with AsyncExitStack() as stack:
        sts, s3 = [await stack.enter_async_context(_client(url, service)) for service in ("sts", "s3")]

        async def one(number: int) -> None:
            role = f"arn:aws:iam::{number:012}:role/bench"
            await sts.assume_role(RoleArn=role, RoleSessionName=f"c{number}.bench", DurationSeconds=900)
            await s3.list_buckets(MaxBuckets=1000)

        async def all_of_them() -> None:
            async with anyio.create_task_group() as tasks:
                for number in range(FLEET):
                    tasks.start_soon(one, number)

        yield all_of_them


def _client(url: str, service: str) -> Any:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession

    keys = {"aws_access_key_id": f"AKIA{FLEET:016}", "aws_secret_access_key": SECRET}
    config = AioConfig(max_pool_connections=500)
    return AioSession().create_client(service, region_name="eu-west-1", endpoint_url=url, config=config, **keys)


async def _timed(work: Any) -> dict[str, float]:
    gc.collect()
    begin, used = time.perf_counter(), cpu()
    await work()
    return {"wall": time.perf_counter() - begin, "cpu": cpu() - used}


# -- all types


async def _all_types(url: str) -> list[Figure]:
    """Twenty connectors; and two of them as if each call waited for the one before."""
    async with _broker(url, range(SOME), "secret-key") as broker:
        walls = []
        for _ in range(5):
            _calls(url)
            begin = time.perf_counter()
            async with broker.discover() as replies:
                failures = [one.error async for one in replies if isinstance(one, Failed)]
            walls.append(time.perf_counter() - begin)
            if failures:
                sys.exit(f"not everything was found: {failures[0]}")
            most = max(_calls(url).values())
    begin = time.perf_counter()
    for _ in range(2):
        for service, operation in SEQUENTIAL:
            async with _client(url, service) as client:
                await getattr(client, operation)()
    alone = (time.perf_counter() - begin) * SOME / 2
    detail = f"one after the other, {len(SEQUENTIAL)} calls each, {alone:.1f} s (done for 2 of {SOME}, scaled); "
    detail += f"the first run, which opens the clients, {walls[0]:.2f} s"
    return [
        Figure("discover_all_types_wall", min(walls), detail),
        Figure("discover_all_types_calls", most, "a connector, counted at the upstream"),
    ]


# -- one dead and one throttled


async def _among_ill(url: str) -> Figure:
    """When the last of 98 healthy connectors has finished, with a dead and a throttled one beside them, to without."""
    healthy = {f"c{number}" for number in range(HUNDRED) if number not in ILL}
    async with _broker(url, range(HUNDRED)) as broker:

        async def until_healthy(names: list[str] | None) -> float:
            left, begin = set(healthy), time.perf_counter()
            async with broker.discover(connectors=names, resource_type="s3-bucket") as replies:
                async for one in replies:
                    if isinstance(one, Finished):
                        left.discard(one.connector.name)
                    if not left:
                        return time.perf_counter() - begin
            sys.exit("a healthy connector did not finish")

        await until_healthy(sorted(healthy))
        _get(f"{url}/ill?dead={ILL[0]}&throttled={ILL[1]}")
        pairs = [(await until_healthy(None), await until_healthy(sorted(healthy))) for _ in range(PAIRS)]
        _get(f"{url}/ill")
    ours, theirs = (min(each) for each in zip(*pairs, strict=True))
    return Figure("discover_among_ill", ours / theirs, f"{ours:.2f} s to {theirs:.2f} s")


# -- the kernel alone


async def _growth() -> list[Figure]:
    """CPU per connector as their number grows, and when the first result is there."""
    runs: dict[int, list[float]] = {size: [] for size in SIZES}
    async with AsyncExitStack() as stack:
        brokers = {size: await stack.enter_async_context(_synthetic(size)) for size in SIZES}
        stack.enter_context(_collected_rarely())
        small, large = min(SIZES), max(SIZES)
        for _ in range(TURNS):
            for size, broker in brokers.items():
                runs[size] += [await _spent(broker) for _ in range(SIZES[size])]
        firsts = [await _first(brokers[large]) for _ in range(FIRSTS)]
    own = {size: median(taken) / size * 1000 for size, taken in runs.items()}
    each = ", ".join(f"{own[size]:.2f} ms of {size:,}" for size in SIZES)
    return [
        Figure("discover_growth", own[large] / own[small], f"CPU of a connector: {each}"),
        Figure("discover_first", median(firsts) / LATENCY, f"of {large:,}; at best {min(firsts) / LATENCY:.2f}"),
    ]


@asynccontextmanager
async def _synthetic(size: int) -> AsyncGenerator[m.Broker, None]:
    async with m.open_broker(plugins=[_slow()], **in_memory()) as broker:
        for number in range(size):
            config = {"key": f"key-{number}"}
            await broker.register(f"c{number}", type="fake", auth_method="key", verify=False, config=config)
        yield broker


def _slow() -> Fake:
    fake = Fake(resources={"bucket": ("a",)})

    async def answer(_: object) -> None:
        await anyio.sleep(LATENCY)

    fake.on["discover"] = answer
    return fake


async def _spent(broker: m.Broker) -> float:
    """Seconds of CPU for all."""
    gc.collect()
    used = cpu()
    async with broker.discover(resource_type="bucket") as replies:
        async for _ in replies:
            pass
    return cpu() - used


async def _first(broker: m.Broker) -> float:
    """Seconds until the first reply."""
    gc.collect()
    begin = time.perf_counter()
    async with broker.discover(resource_type="bucket") as replies:
        await anext(aiter(replies))
        return time.perf_counter() - begin


@contextmanager
def _collected_rarely() -> Generator[None, None, None]:
    """The collector of cycles looks as often as in a command of mooring's."""
    before = gc.get_threshold()
    collect_rarely()
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _one_with_many() -> Figure:
    """Peak of traced memory while somebody reads 100,000 resources of one connector and keeps none."""

    class Many(Fake):
        @m.hookimpl
        async def discover(self, session: Any, request: m.DiscoverRequest) -> AsyncGenerator[m.Resource, None]:
            for number in range(RESOURCES):
                yield m.Resource(type="bucket", id=f"bucket-{number}", attributes={"created": f"day {number}"})

    with tempfile.TemporaryDirectory() as home:  # a store in memory would keep them all
        rooms = in_memory() | {"store": None, "settings": Settings(home=Path(home))}
        async with m.open_broker(plugins=[Many()], **rooms) as broker:
            await broker.register("one", type="fake", auth_method="key", verify=False)
            count, peak = await _read(broker)
    return Figure("discover_100000", peak / 2**20, f"peak of traced memory, {count:,} resources of one connector")


async def _read(broker: m.Broker) -> tuple[int, int]:
    gc.collect()
    tracemalloc.start()
    try:
        async with broker.discover(resource_type="bucket") as replies:
            count = sum([1 async for one in replies if isinstance(one, Found)])
        return count, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# -- the local AWS


@asynccontextmanager
async def _broker(url: str, numbers: range, method: str = "iam-role") -> AsyncGenerator[m.Broker, None]:
    """One with a connector for each number; roles are in accounts of their own."""
    async with m.open_broker(plugins=[aws], **in_memory()) as broker:
        for number in numbers:
            config = {"region": "eu-west-1", "endpoint_url": url}
            config |= {"aws_access_key_id": f"AKIA{number:016}", "aws_secret_access_key": SECRET}
            if method == "iam-role":
                config["role_arn"] = f"arn:aws:iam::{number:012}:role/bench"
            await broker.register(f"c{number}", type="aws", auth_method=method, verify=False, config=config)
        yield broker


@contextmanager
def _upstream() -> Generator[str, None, None]:
    command = [sys.executable, str(HERE / "upstream.py")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def _calls(url: str) -> dict[str, int]:
    """How often each caller has called since this was last asked."""
    found: dict[str, int] = json.loads(_get(f"{url}/calls"))
    return found


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        read: bytes = answer.read()
    return read


if __name__ == "__main__":
    collect_rarely()
    print(json.dumps(anyio.run(_fleet, sys.argv[1])))
