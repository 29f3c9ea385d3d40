"""Refreshing, side by side with what people use: how often the vendor is asked, who fails, and how long it takes.

Each library is given a source of its own kind that counts, takes 10 ms and may be down. Three moments: cold, with 50
threads or 100 tasks; five minutes before the end of an hour with the vendor down; and credentials of 15 minutes, used
100 times after 10 of them. What is not installed is left out, and said.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import anyio

import mooring as m
from measure import Figure, in_memory
from mooring import blocking
from mooring.testing import Fake, ManualClock

THREADS, TASKS, USES = 50, 100, 100
LATENCY = 0.01
HOUR, SHORT = timedelta(hours=1), timedelta(minutes=15)
MOMENTS = {"cold": (HOUR, None), "vendor down": (HOUR, timedelta(minutes=55)), "15 minutes": (SHORT, SHORT * 2 / 3)}
"""The life of credentials, and how old those at hand are."""


class Source:
    """A vendor: counts, takes its time, and may be down."""

    def __init__(self, moment: str) -> None:
        self.life, self.age = MOMENTS[moment]
        self.down = moment == "vendor down"
        self.calls = 0

    @property
    def ends(self) -> datetime:
        """Of what it gives now."""
        return datetime.now(UTC) + self.life

    @property
    def left(self) -> datetime | None:
        """When what is at hand ends, if anything is."""
        return None if self.age is None else datetime.now(UTC) + self.life - self.age

    def ask(self) -> datetime:
        """The end of new credentials."""
        self.calls += 1
        time.sleep(LATENCY)
        if self.down:
            raise ConnectionError
        return self.ends

    async def ask_async(self) -> datetime:
        """The same, in an event loop."""
        self.calls += 1
        await anyio.sleep(LATENCY)
        if self.down:
            raise ConnectionError
        return self.ends


@dataclass
class Row:
    """What one library did."""

    name: str
    calls: int
    failures: int
    seconds: float


def figures() -> Iterator[Figure]:
    """Prints the table; mooring's vendor calls, the blocking and the asynchronous together."""
    logging.disable()  # the libraries tell of each failure
    tables = {moment: [row for side in SIDES if (row := _measured(side, moment))] for moment in MOMENTS}
    print(f"\n{'':<22}" + "".join(f"{moment:^26}" for moment in MOMENTS))
    print(f"{'':<22}" + f"{'calls  failed   ms':^26}" * len(MOMENTS))
    logging.disable(logging.NOTSET)
    for number in range(len(tables["cold"])):
        rows = [table[number] for table in tables.values()]
        cells = (f"{row.calls:>8} {row.failures:>7} {row.seconds * 1000:>7.0f}   " for row in rows)
        print(f"{rows[0].name:<22}" + "".join(cells))
    for moment, table in tables.items():
        ours = [row for row in table if row.name.startswith("mooring")]
        others = ", ".join(f"{row.name} {row.calls}" for row in table if row not in ours)
        yield Figure(f"calls_{moment.replace(' ', '_')}", max(row.calls for row in ours), others)
    yield Figure("failures", sum(row.failures for table in tables.values() for row in table if row in ours), "")


def _measured(side: Callable[[str], Row], moment: str) -> Row | None:
    try:
        return side(moment)
    except ImportError as error:
        if moment == "cold":
            print(f"left out: {side.__name__}, as {error.name} is not installed (pip install --group rivals)")
        return None


def _threads(name: str, source: Source, use: Callable[[], object], *, moment: str) -> Row:
    """Fifty threads at once; in the third moment one, a hundred times."""
    number = 1 if moment == "15 minutes" else THREADS
    together = Barrier(number)

    def one() -> int:
        together.wait()
        return sum(_failed(use) for _ in range(USES if number == 1 else 1))

    begin = time.perf_counter()
    with ThreadPoolExecutor(number) as pool:
        failures = sum(future.result() for future in [pool.submit(one) for _ in range(number)])
    return Row(name, source.calls, failures, time.perf_counter() - begin)


def _failed(use: Callable[[], object]) -> bool:
    try:
        use()
    except Exception:  # noqa: BLE001  whatever a library raises
        return True
    return False


async def _tasks(name: str, source: Source, use: Callable[[], Awaitable[object]], *, moment: str) -> Row:
    """A hundred tasks at once; in the third moment one after the other."""
    failures = 0

    async def one() -> None:
        nonlocal failures
        try:
            await use()
        except Exception:  # noqa: BLE001  as above
            failures += 1

    begin = time.perf_counter()
    if moment == "15 minutes":
        for _ in range(USES):
            await one()
    else:
        async with anyio.create_task_group() as tasks:
            for _ in range(TASKS):
                tasks.start_soon(one)
    return Row(name, source.calls, failures, time.perf_counter() - begin)


# -- the sides


def _vendor(source: Source) -> Fake:
    fake = Fake()

    async def issue(_: Any) -> None:
        try:
            await source.ask_async()
        except ConnectionError:
            raise m.Unreachable("no answer") from None

    fake.on["issue_credentials"] = issue
    return fake


def _wish(source: Source) -> dict[str, Any]:
    return {"connector": "bench", "resource_type": "bucket", "resource_id": "a", "ttl": source.life}


def _options(source: Source, clock: ManualClock) -> dict[str, Any]:
    return {"plugins": [_vendor(source)], "clock": clock, **in_memory()}


def threads_of_mooring(moment: str) -> Row:
    """`mooring.blocking`."""
    source, clock = Source(moment), ManualClock()
    with blocking.open_broker(**_options(source, clock)) as broker:
        broker.register("bench", type="fake", auth_method="key", verify=False)
        if source.age is not None:
            down, source.down = source.down, False
            broker.issue(**_wish(source))
            clock.advance(source.age)
            source.down, source.calls = down, 0
        return _threads("mooring.blocking", source, lambda: broker.issue(**_wish(source)), moment=moment)


def tasks_of_mooring(moment: str) -> Row:
    """`mooring`."""

    async def run() -> Row:
        source, clock = Source(moment), ManualClock()
        async with m.open_broker(**_options(source, clock)) as broker:
            await broker.register("bench", type="fake", auth_method="key", verify=False)
            if source.age is not None:
                down, source.down = source.down, False
                await broker.issue(**_wish(source))
                clock.advance(source.age)
                source.down, source.calls = down, 0
            return await _tasks("mooring", source, lambda: broker.issue(**_wish(source)), moment=moment)

    return anyio.run(run)


def _keys(ends: datetime) -> dict[str, str]:
    names = {"access_key": "a", "secret_key": "s", "token": "t"}
    return {**names, "expiry_time": ends.isoformat()}


def threads_of_botocore(moment: str) -> Row:
    """botocore: a credential process where it is cold, then refreshable credentials."""
    from botocore.credentials import ProcessProvider, RefreshableCredentials

    source = Source(moment)
    if source.left is None:

        class Process:
            returncode = 0

            def __init__(self, *_: object, **__: object) -> None: ...

            def communicate(self) -> tuple[bytes, bytes]:
                keys = {"AccessKeyId": "a", "SecretAccessKey": "s", "SessionToken": "t"}
                return json.dumps({"Version": 1, **keys, "Expiration": source.ask().isoformat()}).encode(), b""

        config = {"profiles": {"bench": {"credential_process": "vendor"}}}
        provider = ProcessProvider("bench", lambda: config, popen=Process)
        return _threads("botocore", source, lambda: provider.load().get_frozen_credentials(), moment=moment)
    held = RefreshableCredentials("a", "s", "t", source.left, lambda: _keys(source.ask()), "bench")
    return _threads("botocore", source, held.get_frozen_credentials, moment=moment)


def tasks_of_aiobotocore(moment: str) -> Row:
    """aiobotocore's refreshable credentials."""
    from aiobotocore.credentials import AioDeferredRefreshableCredentials, AioRefreshableCredentials

    source = Source(moment)

    async def fresh() -> dict[str, str]:
        return _keys(await source.ask_async())

    if source.left is None:
        held = AioDeferredRefreshableCredentials(fresh, "bench")
    else:
        held = AioRefreshableCredentials("a", "s", "t", source.left, fresh, "bench")
    return anyio.run(lambda: _tasks("aiobotocore", source, held.get_frozen_credentials, moment=moment))


def threads_of_google_auth(moment: str) -> Row:
    """google-auth: credentials that many threads share."""
    from google.auth.credentials import Credentials

    source = Source(moment)

    class Held(Credentials):
        def refresh(self, request: object) -> None:
            self.expiry, self.token = source.ask().replace(tzinfo=None), "t"

    held = Held()
    if source.left is not None:
        held.expiry, held.token = source.left.replace(tzinfo=None), "t"
    return _threads("google-auth", source, lambda: held.before_request(None, "GET", "https://x", {}), moment=moment)


def tasks_of_azure_identity(moment: str) -> Row:
    """azure-identity: a client's secret, and a transport that answers by itself."""
    from azure.core.pipeline.transport import AsyncHttpResponse, AsyncHttpTransport
    from azure.identity.aio import ClientSecretCredential

    source, down = Source(moment), moment == "vendor down"

    class Answer(AsyncHttpResponse):
        def __init__(self, request: Any, life: timedelta) -> None:
            super().__init__(request, None)
            self.status_code, self.reason = 200, "OK"
            self.headers, self.content_type = {"Content-Type": "application/json"}, "application/json"
            self.life = life

        def body(self) -> bytes:
            answer = {"access_token": "t", "token_type": "Bearer", "expires_in": int(self.life.total_seconds())}
            return json.dumps(answer).encode()

    class Transport(AsyncHttpTransport):  # type: ignore[type-arg]
        life = source.life

        async def send(self, request: Any, **_: object) -> Answer:
            await source.ask_async()
            return Answer(request, self.life)

        async def open(self) -> None: ...

        async def close(self) -> None: ...

        async def __aexit__(self, *_: object) -> None: ...

    async def run() -> Row:
        transport = Transport()
        options: dict[str, Any] = {"transport": transport, "disable_instance_discovery": True, "retry_total": 0}
        held = ClientSecretCredential("tenant", "client", "secret", **options)
        if source.age is not None:
            source.down, transport.life = False, source.life - source.age
            await held.get_token("https://x/.default")
            source.down, source.calls, transport.life = down, 0, source.life
        return await _tasks("azure-identity", source, lambda: held.get_token("https://x/.default"), moment=moment)

    return anyio.run(run)


SIDES = (
    threads_of_mooring,
    tasks_of_mooring,
    threads_of_botocore,
    tasks_of_aiobotocore,
    threads_of_google_auth,
    tasks_of_azure_identity,
)
