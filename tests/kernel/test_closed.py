"""A broker that was closed, or belongs to another process or event loop, says so at once."""

import inspect
import os
import subprocess
import sys
import threading
import time
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path

import anyio
import pytest

from mooring import blocking
from mooring.assembly import Settings, open_broker
from mooring.broker import Broker
from mooring.errors import BrokerClosed, StoreUnavailable
from mooring.store import open_sqlite
from mooring.testing import Fake, memory_broker
from mooring.types import Secret

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
ONE = {"name": "mine", "connector": "mine", "type": "fake", "path": Path("nowhere")}
ONE |= {"lease": "12345678", "secret": Secret("s"), "after": 0, "due": None, "action": "login", "issued": None}
ONE |= {"values": {}, "kind": "thing", "users": None, "config": {}}


def public(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_")]


def arguments(method) -> dict:
    """One for each that has no default."""
    found = inspect.signature(method).parameters.values()
    return {one.name: ONE[one.name] for one in found if one.default is one.empty and one.kind not in (2, 4)}


async def used(broker: Broker, name: str) -> None:
    if isinstance(inspect.getattr_static(broker, name), property):
        getattr(broker, name)
        return
    method = getattr(broker, name)
    result = method(**arguments(method))
    if isinstance(result, AbstractAsyncContextManager):
        async with result:
            pass
    elif inspect.isasyncgen(result):
        await anext(result)
    elif inspect.isawaitable(result):
        await result


def used_blocking(broker: blocking.BlockingBroker, name: str) -> None:
    if name == "broker":
        broker.broker.types()
        return
    if isinstance(inspect.getattr_static(broker, name), property):
        getattr(broker, name)
        return
    method = getattr(broker, name)
    if name in ("discover", "client", "subscribe"):
        with method("mine") if name == "client" else method():
            pass
        return
    result = method(**arguments(method))
    assert not isinstance(result, AbstractContextManager)


VERBS = [name for name in public(Broker) if name != "close"]
BLOCKING_VERBS = public(blocking.BlockingBroker)


def test_there_are_verbs_to_try() -> None:
    assert {"issue", "peek", "register", "subscribe", "discover", "client", "registry", "back_up"} <= set(VERBS)
    assert {"issue", "register", "subscribe", "discover", "client", "back_up"} <= set(BLOCKING_VERBS)


@pytest.mark.anyio
async def test_every_method_says_that_the_broker_was_closed() -> None:
    async with memory_broker(Fake()) as broker:
        await broker.register("mine", type="fake", auth_method="key")
    for name in VERBS:
        with anyio.fail_after(10), pytest.raises(BrokerClosed) as caught:
            await used(broker, name)
        assert caught.value.message == "this broker was closed; open another with open_broker()", name
    broker.close()  # once more is nothing


@pytest.mark.anyio
async def test_an_old_subscription_and_an_old_discovery_end() -> None:
    async with memory_broker(Fake()) as broker:
        await broker.register("mine", type="fake", auth_method="key")
        async with broker.subscribe() as events, broker.discover() as replies:
            await anext(replies)
    with anyio.fail_after(10):
        assert [one async for one in events] == []
        assert [one async for one in replies] == []


@pytest.mark.anyio
async def test_a_subscription_that_is_still_read_ends_with_the_broker() -> None:
    seen = []

    async def read(broker: Broker, begun: anyio.Event) -> None:
        async with broker.subscribe() as events:
            begun.set()
            async for event in events:
                seen.append(event)  # noqa: PERF401  it is told of while it goes on

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks, memory_broker(Fake()) as broker:
            begun = anyio.Event()
            tasks.start_soon(read, broker, begun)
            await begun.wait()
            await broker.register("mine", type="fake", auth_method="key")
    assert [type(one).__name__ for one in seen][-1] == "ConnectorRegistered"


def blocking_broker(folder: Path) -> AbstractContextManager[blocking.BlockingBroker]:
    return blocking.open_broker(settings=Settings(home=folder), plugins=[Fake()], system_plugins=(), share_cache=False)


def test_every_method_of_the_blocking_broker_says_so_too(tmp_path: Path) -> None:
    with blocking_broker(tmp_path) as broker:
        broker.register("mine", type="fake", auth_method="key")
        with broker.subscribe() as events:
            pass
    for name in BLOCKING_VERBS:
        with pytest.raises(BrokerClosed, match="was closed; open another"):
            used_blocking(broker, name)
    assert list(events) == []
    assert threading.active_count() == 1 or not [one for one in threading.enumerate() if one.name == "mooring"]


def in_child(work) -> str:
    """What the work says in a forked process; it is ended if it hangs."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            said = work()
        except BaseException as error:  # noqa: BLE001  the parent shall see it
            said = f"{type(error).__name__}: {error}"
        os.write(writing, str(said).encode())
        os._exit(0)
    os.close(writing)
    until = time.monotonic() + 30
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            break
        time.sleep(0.005)
    with os.fdopen(reading) as pipe:
        return pipe.read()


REFUSAL = "this broker belongs to the process that this one was forked from; open another with open_broker()"
FORKED = """
import inspect, os, sys, threading
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import anyio
import test_closed as t
from mooring.errors import BrokerClosed
home = Path(sys.argv[2])

def each(names, use):
    said = set()
    for name in names:
        try:
            use(name)
            said.add(f"{name} was served")
        except BrokerClosed as error:
            said.add(error.message)
    return "; ".join(said)
"""


def forked(script: str, folder: Path) -> list[str]:
    """Forking beside threads needs a process without pytest's."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED + script, Path(__file__).parent, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@FORKS
def test_a_forked_child_is_refused_and_the_parent_goes_on(tmp_path: Path) -> None:
    said = forked(
        """
async def main():
    async with t.open_broker(settings=t.Settings(home=home), plugins=[t.Fake()], system_plugins=()) as broker:
        await broker.register("mine", type="fake", auth_method="key")
        before = t.files(home)
        print(t.in_child(lambda: each(t.VERBS, lambda name: t.used(broker, name).send(None))))
        print(t.in_child(lambda: broker.close() or "closed"))
        print(t.files(home) == before)
        await broker.register("other", type="fake", auth_method="key")
        print([one.name for one in await broker.list()])
anyio.run(main)
""",
        tmp_path / "home",
    )
    assert said == [REFUSAL, "closed", "True", "['mine', 'other']"]


@FORKS
def test_a_forked_child_of_the_blocking_broker_is_refused_and_may_leave(tmp_path: Path) -> None:
    said = forked(
        """
def leave(manager):
    manager.__exit__(None, None, None)
    import gc
    gc.collect()
    return "left"

manager = t.blocking_broker(home)
broker = manager.__enter__()
broker.register("mine", type="fake", auth_method="key")
before = t.files(home)
print(t.in_child(lambda: each(t.BLOCKING_VERBS, lambda name: t.used_blocking(broker, name))))
with broker.subscribe() as events:
    print(t.in_child(lambda: list(events)))
subscription = broker.subscribe()
subscription.__enter__()
print(t.in_child(lambda: leave(subscription)))
subscription.__exit__(None, None, None)
print(t.in_child(lambda: leave(manager)))
pid = os.fork()
if not pid:
    leave(manager)
    sys.exit(0)  # and the interpreter ends as usual
print(os.waitpid(pid, 0)[1])
print(t.files(home) == before)
broker.register("other", type="fake", auth_method="key")
print([one.name for one in broker.list()])
manager.__exit__(None, None, None)
print(sorted(one.name for one in home.iterdir()))
""",
        tmp_path / "home",
    )
    names = "['master.key', 'mooring.db']"
    assert said == [REFUSAL, "[]", "left", "left", "0", "True", "['mine', 'other']", names]


def files(home: Path) -> dict[str, bytes]:
    """All that lies there, but the shared memory, in which SQLite keeps its locks."""
    return {one.name: one.read_bytes() for one in home.iterdir() if not one.name.endswith("-shm") and one.is_file()}


def test_the_sqlite_store_says_under_trio_that_it_needs_asyncio(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_broker(settings=Settings(home=tmp_path / "home"), plugins=(), system_plugins=()):
            pytest.fail("it was opened")

    async def store() -> None:
        async with open_sqlite(tmp_path / "home" / "mooring.db"):
            pytest.fail("it was opened")

    for work in (main, store):
        with pytest.raises(StoreUnavailable, match="needs asyncio; run mooring in an asyncio event loop"):
            anyio.run(work, backend="trio")
    assert not (tmp_path / "home").exists()
