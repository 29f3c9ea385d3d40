"""Every verb, cancelled at every checkpoint: nothing stays open, nothing stays locked, and the next call works."""

import gc
import inspect
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio
import msgspec
import pytest

import mooring as m
from mooring import blocking
from mooring.assembly import Settings
from mooring.broker import Found, _findings
from mooring.broker._desk import DOCUMENT
from mooring.cache import Cache, Due, Key
from mooring.events import Event
from mooring.http import open_http
from mooring.store import Findings, Ledger, MemoryStore, open_sqlite
from mooring.testing import ExampleSystem, Fake, FakeConfig, ManualClock, memory_broker
from mooring.vault import Vault, parse_keys

pytestmark = pytest.mark.anyio
A = {"resource_type": "bucket", "resource_id": "a"}
pause = anyio.lowlevel.checkpoint


class PausingStore(MemoryStore):
    """A store that gives way before and after it does something, so that a cancelled write may have happened."""

    def __getattribute__(self, name):
        method = super().__getattribute__(name)
        if name in ("ledger", "findings"):
            return PausingPart(method)
        if name not in ("add", "find", "list", "replace", "delete", "changes", "put_undo", "drop_undo", "undos"):
            return method

        async def pausing(*args, **kwargs):
            await pause()
            result = await method(*args, **kwargs)
            await pause()
            return result

        return pausing


class PausingPart:
    """The same of what is written down, and of what was found."""

    def __init__(self, part: Ledger | Findings) -> None:
        self._part = part

    def __getattr__(self, name):
        async def pausing(*args, **kwargs):
            await pause()
            result = await getattr(self._part, name)(*args, **kwargs)
            await pause()
            return result

        return pausing


class Pausing(Fake):
    """Every hook that may wait does, every power is there, and what is entered is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.clients = self.lives = 0

        async def step(request):
            await pause()
            await pause()

        self.on = dict.fromkeys(["authenticate", "verify", "discover", "issue_credentials"], step)

        async def close(context):
            with anyio.CancelScope(shield=True):
                await pause()

        self.on["close"] = close

    @m.hookimpl
    def describe(self):
        return msgspec.structs.replace(super().describe(), credentials=(m.BearerToken,))

    @m.hookimpl
    async def units(self, session, resource_type):
        await pause()
        return (m.Unit(name="north"), m.Unit(name="south"))

    @m.hookimpl
    async def lift(self, request):
        await pause()
        return m.Lifted(auth_method="key", config=FakeConfig(), source="here")

    @m.hookimpl
    async def lift_all(self, request):
        return (msgspec.structs.replace(await self.lift(request), name="here"),)

    @m.hookimpl
    def explain(self, config, request):
        return m.Explanation(narrowed=True, calls=())

    @m.hookimpl
    @asynccontextmanager
    async def client(self, request):
        self.clients += 1
        try:
            await pause()
            yield request.renew
        finally:
            self.clients -= 1

    @m.hookimpl
    @asynccontextmanager
    async def lifespan(self, tools):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            await pause()
            self.lives += 1
            try:
                yield "pool"
            finally:
                self.lives -= 1
                tasks.cancel_scope.cancel()


async def discover(broker: m.Broker) -> None:
    async with broker.discover() as replies:
        async for _ in replies:
            await pause()


async def discover_cached(broker: m.Broker) -> None:
    """Asked, answered from the store, and answered while it is asked again; how many there are is always the same."""
    for _ in range(3):
        found = 0
        async with broker.discover(cached=True) as replies:
            async for one in replies:
                found += isinstance(one, Found)
                await pause()
        assert found == 8
        if isinstance(broker._desk.clock, ManualClock):
            broker._desk.clock.advance(timedelta(minutes=11))
    while broker._desk.refreshing:
        await pause()
    assert not broker._desk.runs


async def client(broker: m.Broker) -> None:
    async with broker.client("mine", **A) as renew:
        await renew()
        await pause()


async def subscribe(broker: m.Broker) -> None:
    async with broker.subscribe(Event) as events:
        await broker.verify("mine")
        await anext(events)


async def delete(broker: m.Broker) -> None:
    name = f"c{next(numbers)}"
    await broker.register(name, type="fake", auth_method="key", verify=False)
    await broker.delete(name)


async def lease(broker: m.Broker) -> None:
    await broker.lease((await broker.issue("mine", **A)).lease)


async def renew(broker: m.Broker) -> None:
    await broker.renew((await broker.issue("mine", **A)).lease)


async def revoke(broker: m.Broker) -> None:
    await broker.issue("mine", **A)
    await broker.revoke(connector="mine")


async def refresh(broker: m.Broker) -> None:
    await broker.issue("mine", **A)
    for key, entry in list(broker._desk.cache._entries.items()):
        await broker.refresh(Due(key, entry))


async def note(broker: m.Broker) -> None:
    await broker.note("login", await broker.issue("mine", **A))


async def audit(broker: m.Broker) -> None:
    async for _ in broker.audit():
        pass


async def draft(broker: m.Broker) -> None:
    stored = await broker.get("mine")
    await broker.draft(stored, await broker.secrets("mine"))


async def resolve(broker: m.Broker) -> None:
    name = f"s{next(numbers)}"
    secrets = broker.named_secrets
    await secrets.create(name, {"key": "a"})
    await secrets.update(name, {"key": "b", "other": f"{{{{{name}.key}}}}"})
    found = await broker.resolve({"field": f"{{{{{name}.other}}}}"})
    assert found == {"field": "b"}
    await secrets.delete(name)


numbers = itertools.count()
VERBS: dict[str, Callable[[m.Broker], Awaitable[object]]] = {
    "register": lambda broker: broker.register(f"c{next(numbers)}", type="fake", auth_method="key"),
    "register by lift": lambda broker: broker.register(f"c{next(numbers)}", type="fake", lift=True),
    "lift": lambda broker: broker.lift("fake"),
    "lift_all": lambda broker: broker.lift_all("fake"),
    "draft": draft,
    "get": lambda broker: broker.get("mine"),
    "secrets": lambda broker: broker.secrets("mine"),
    "list": lambda broker: broker.list(resource_type="bucket"),
    "update": lambda broker: broker.update("mine", config={"size": next(numbers)}),
    "delete": delete,
    "verify": lambda broker: broker.verify("mine"),
    "discover": discover,
    "discover cached": discover_cached,
    "recall": lambda broker: broker.recall("mine"),
    "issue": lambda broker: broker.issue("mine", **A),
    "explain": lambda broker: broker.explain("mine", **A),
    "resolve": resolve,
    "sweep": lambda broker: broker.sweep(),
    "unremoved": lambda broker: broker.unremoved(),
    "client": client,
    "subscribe": subscribe,
    "lease": lease,
    "leases": lambda broker: broker.leases(connector="mine", states=None),
    "renew": renew,
    "revoke": revoke,
    "refresh": refresh,
    "note": note,
    "audit": audit,
    "verify_audit": lambda broker: broker.verify_audit(),
    "trace": lambda broker: broker.trace(m.Secret("here-1")),
    "logged": lambda broker: broker.logged(after=0),
    "last_event": lambda broker: broker.last_event(),
}


async def back_up(broker: m.Broker) -> None:
    await broker.back_up(broker._desk.store.path.with_name(f"b{next(numbers)}"))


UPKEEP: dict[str, Callable[[m.Broker], Awaitable[object]]] = {
    "keys": lambda broker: broker.keys(),
    "rotate_keys": lambda broker: broker.rotate_keys(),
    "prune_keys": lambda broker: broker.prune_keys(),
    "discard": lambda broker: broker.discard("mine"),
    "check": lambda broker: broker.check(),
    "back_up": back_up,
    "restore": lambda broker: broker.restore(broker._desk.store.path.with_name("backup"), replace=True),
}
"""What needs a key ring, or a store that is a file."""
OF_FILES = ("back_up", "restore")


def test_every_verb_that_waits_has_a_case():
    """Here and in the blocking broker, which has the same ones."""
    methods = {name: method for name, method in vars(m.Broker).items() if not name.startswith("_")}
    waiting = {name for name, method in methods.items() if waits(method)}
    assert waiting == {verb.split()[0] for verb in VERBS} | UPKEEP.keys()
    assert waiting - {"refresh", "draft"} <= set(vars(blocking.BlockingBroker))  # which the refresher or plugins call


def waits(method) -> bool:
    gives = str(getattr(method, "__annotations__", {}).get("return"))
    return inspect.iscoroutinefunction(method) or gives.startswith(("AsyncGenerator", "AbstractAsync"))


async def cancelled_after(checkpoints: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Run the work and cancel it after so many rounds of the event loop; whether it was done before."""
    done = False

    async def run() -> None:
        nonlocal done
        await work()
        done = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        for _ in range(checkpoints):
            await pause()
        tasks.cancel_scope.cancel()
    return done


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb(verb, warm, count_tasks):
    """Cold: with a broker on which nothing was called yet, so that the lifespan is entered within the verb."""
    work = VERBS[verb]
    for checkpoints in itertools.count():
        plugin, store, clock = Pausing(), PausingStore(), ManualClock()
        outside = count_tasks()
        async with memory_broker(plugin, store=store, clock=clock) as broker:
            await broker.register("mine", type="fake", auth_method="key", verify=warm, config={"key": "k"})
            before = count_tasks()
            done = await cancelled_after(checkpoints, partial(work, broker))
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(5):  # what the broker does beside the verb may be on its way still
                while plugin.opened != plugin.closed:  # noqa: ASYNC110  nobody tells of it
                    await anyio.sleep(0.001)
            assert plugin.opened == plugin.closed
            assert plugin.clients == 0
            assert count_tasks() <= before + (0 if warm else 2)  # the lifespan that was entered meanwhile, and its own
            assert not any(lock.locked() for lock in broker._desk.cache._locks.values())
            assert not broker._desk.bus._subscriptions
            with anyio.fail_after(5):
                await work(broker)
            assert plugin.opened == plugin.closed
            assert plugin.lives <= 1
        assert plugin.lives == 0
        assert count_tasks() == outside
        if done:
            break
    assert checkpoints >= 2


async def test_a_cancelled_update_that_was_stored_takes_effect():
    for checkpoints in itertools.count():
        async with memory_broker(Pausing(), store=PausingStore(), clock=ManualClock()) as broker:
            await broker.register("mine", type="fake", auth_method="key")
            await broker.issue("mine", **A)
            done = await cancelled_after(checkpoints, partial(broker.update, "mine", config={"place": "there"}))
            stored = (await broker.get("mine")).settings.get("place", "here")
            issued = await broker.issue("mine", **A)
            assert issued.credentials.token.reveal().startswith(stored)
        if done:
            assert stored == "there"
            break


async def test_waiting_callers_when_the_first_is_cancelled_anywhere():
    for checkpoints in itertools.count():
        plugin = Pausing()
        async with memory_broker(plugin, store=PausingStore(), clock=ManualClock()) as broker:
            await broker.register("mine", type="fake", auth_method="key")
            got = []

            async def call(broker=broker, got=got) -> None:
                got.append(await broker.issue("mine", **A))

            async with anyio.create_task_group() as tasks:
                done = await cancelled_after(checkpoints, call)
                for _ in range(5):
                    tasks.start_soon(call)
            assert len(got) == 5 + done
            assert plugin.issued in (1, 2)  # 2 where the first was cancelled after its call
            assert plugin.opened == plugin.closed
        if done:
            break


async def test_a_look_that_is_cut_short_anywhere_is_none(monkeypatch):
    """What was found before stays, what is new is told of once, and who asks meanwhile gets all of it."""
    monkeypatch.setattr(_findings, "BATCH", 1)
    for checkpoints in itertools.count():
        plugin, store = Pausing(), PausingStore()
        async with memory_broker(plugin, store=store, clock=ManualClock()) as broker:
            await broker.register("mine", type="fake", auth_method="key", resource_type="bucket")
            await discover(broker)
            plugin.resources["bucket"] = ("b", "c", "d")
            got: list[int] = []

            async def ask(broker=broker, got=got) -> None:
                async with broker.discover() as replies:
                    got.append(len([one async for one in replies if isinstance(one, Found)]))

            done = await cancelled_after(checkpoints, partial(discover, broker))
            async with broker.discover(cached=True) as replies:
                known = sorted([one.resource.id async for one in replies if isinstance(one, Found) and one.at])
            assert sorted(set(known)) in (["a", "b"], ["a", "b", "c", "d"], ["b", "c", "d"])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                tasks.start_soon(cancelled_after, checkpoints, ask)
                tasks.start_soon(ask)
            assert set(got) == {6}
            await broker._desk.books.flush()
            events = [one for one in await broker.logged(after=0) if one.event in ("ResourceFound", "ResourceGone")]
            assert sorted(one.body["resource_id"] for one in events) == ["a", "a", "c", "c", "d", "d"]
            assert not broker._desk.runs
        if done:
            break
    assert checkpoints > 20


async def test_the_whole_broker(count_tasks):
    plugin, before = Pausing(), count_tasks()

    async def whole() -> None:
        async with memory_broker(
            plugin, store=PausingStore(), system_plugins=[ExampleSystem()], journal=True
        ) as broker:
            await broker.register("mine", type="fake", auth_method="key")
            await broker.issue("mine", **A)
            await discover(broker)

    for checkpoints in itertools.count():
        done = await cancelled_after(checkpoints, whole)
        assert (plugin.opened - plugin.closed, plugin.lives, count_tasks()) == (0, 0, before)
        if done:
            break
    assert checkpoints > 20


async def test_the_caches_lock():
    key = Key(connector_id="c", fingerprint="f1", resource_type="t", resource_id=None, access="read", ttl=timedelta(1))
    cache = Cache(ManualClock())

    async def make():
        await pause()
        raise AssertionError

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(cache.get, key, make)
        await pause()
        tasks.cancel_scope.cancel()
    gc.collect()  # the tracebacks of what was cancelled
    assert len(cache._locks) == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancelled_update_of_a_file_takes_effect_once_it_is_written(tmp_path):
    """The write goes on in SQLite's thread when the caller has gone; nobody else tells the broker of it."""
    async with open_sqlite(tmp_path / "mooring.db") as store, memory_broker(Fake(), store=store) as broker:
        for checkpoints in itertools.count():
            name = f"c{checkpoints}"
            await broker.register(name, type="fake", auth_method="key")
            await broker.issue(name, **A)
            update = partial(broker.update, name, config={"place": "there"}, verify=False)
            done = await cancelled_after(checkpoints, update)
            stored = (await broker.get(name)).settings.get("place", "here")
            issued = await broker.issue(name, **A)
            assert issued.credentials.token.reveal().startswith(stored)
            if done:
                break


def spread():
    """How many rounds of the event loop to wait: where a thread works, most of them are the same moment."""
    rounds = 0
    while True:
        yield rounds
        rounds += 1 + rounds // 3


def open_files() -> list[str]:
    """What this process has open: files and sockets."""
    folder = Path("/proc/self/fd")
    links = (str(one.readlink()) for one in folder.iterdir() if one.exists()) if folder.exists() else ()
    return sorted(link for link in links if not link.startswith(("/proc", "pipe:", "anon_inode:")))


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_on_real_files(verb, store, tmp_path, count_tasks, anyio_backend):
    """The sealed shelf, and on asyncio the SQLite file: no draft stays, no lock is held, and both are whole."""
    if (store, anyio_backend) == ("sqlite", "trio"):
        pytest.skip("aiosqlite is asyncio's alone")
    home, cache = tmp_path / "home", tmp_path / "home" / "cache"
    work, before, threads = VERBS[verb], open_files(), threading.active_count()
    options = {"settings": Settings(home=home), "share_cache": True} | ({"store": None} if store == "sqlite" else {})
    async with memory_broker(Pausing(), **options) as broker:
        await broker.register("mine", type="fake", auth_method="key", verify=False, config={"key": "k"})
        await broker.verify("mine")
        await discover(broker)  # the store opens what keeps findings when it is first used
        opened, tasks = open_files(), count_tasks()
        for rounds in spread():
            await broker.update("mine", config={"size": next(numbers)}, verify=False)  # so that nothing is at hand
            done = await cancelled_after(rounds, partial(work, broker))
            await pause()
            with anyio.fail_after(5):
                await broker.issue("mine", **A)
            assert not [one for one in cache.iterdir() if one.suffix == ".new"]
            assert not any(held(lock) for lock in cache.glob("*.lock"))
            if done:
                break
        with anyio.fail_after(5):
            await work(broker)
        assert count_tasks() == tasks
        assert open_files() == opened
        known = {one.id: one for one in await broker.list()}
    assert open_files() == before
    if store == "sqlite":
        assert threading.active_count() <= threads + 3  # anyio's own worker threads go with the event loop
        async with open_sqlite(home / "mooring.db") as again:
            stored = [one for one in await again.list() if not one.type.startswith(DOCUMENT)]
            assert {one.id: one for one in stored} == known


def held(file: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True


async def test_the_http_client(count_tasks):
    """Against a server that answers in pieces: no socket stays once the client is closed, and it works until then."""

    async def answer(stream) -> None:
        async with stream:
            while b"\r\n\r\n" not in await stream.receive():
                pass
            for part in (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n", b"\r\n", b"{", b"}"):
                await pause()
                await stream.send(part)

    async def serve(stream) -> None:
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream):  # the client has gone
            await answer(stream)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as server:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        server.start_soon(listener.serve, serve)
        await anyio.wait_all_tasks_blocked()
        before, tasks = open_files(), count_tasks()
        for rounds in itertools.count():
            async with open_http() as http:
                place = http.at(f"http://127.0.0.1:{port}")
                done = await cancelled_after(rounds, partial(place.get_json, "/"))
                assert await place.get_json("/") == {}
            await anyio.wait_all_tasks_blocked()
            assert (open_files(), count_tasks()) == (before, tasks)
            if done:
                break
        assert rounds > 5
        server.cancel_scope.cancel()


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("verb", UPKEEP)
async def test_a_verb_of_upkeep(verb, store, tmp_path, count_tasks, anyio_backend):
    """Whatever is cut short: every connector opens, no scratch file stays, and the verb works again."""
    if (store, anyio_backend) == ("sqlite", "trio"):
        pytest.skip("aiosqlite is asyncio's alone")
    if verb in OF_FILES and store == "memory":
        pytest.skip("a store in memory is no file")
    options = {"settings": Settings(home=tmp_path), "vault": None} | ({"store": None} if store == "sqlite" else {})
    async with memory_broker(Pausing(), **options) as broker:
        await broker.register("mine", type="fake", auth_method="key", verify=False, config={"key": "k"})
        if verb in OF_FILES:
            await broker.back_up(tmp_path / "backup")
        await broker.rotate_keys()
        tasks, opened = count_tasks(), open_files()
        for rounds in spread():
            done = await cancelled_after(rounds, partial(UPKEEP[verb], broker))
            await pause()
            assert (await broker.secrets("mine"))["key"].reveal() == "k"
            with anyio.fail_after(10):
                await UPKEEP[verb](broker)
            assert (await broker.secrets("mine"))["key"].reveal() == "k"
            assert not [one.name for one in tmp_path.iterdir() if one.name.startswith(".")]
            # SQLite keeps a descriptor of a second connection until the first has no lock (unixClose in os_unix.c)
            assert (count_tasks(), set(open_files())) == (tasks, set(opened))
            if done:
                break
        states = [key.state for key in await broker.keys()]
        assert states.count("active") == 1


@pytest.mark.parametrize("hook", ["authenticate", "verify", "discover", "issue_credentials"])
def test_a_blocking_call_that_is_interrupted_ends_and_leaves_nothing(hook):
    plugin, threads = Fake(), threading.active_count()

    async def hang(request):
        if plugin.on.pop(hook, None):  # once: a second Ctrl-C would end the cleaning up
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            await anyio.sleep_forever()

    options = {"settings": Settings(home=Path("/nonexistent")), "plugins": [plugin], "system_plugins": ()}
    with blocking.open_broker(
        **options, store=MemoryStore(), vault=Vault(parse_keys("k:" + "A" * 43 + "=", "the test")), share_cache=False
    ) as broker:
        broker.register("mine", type="fake", auth_method="key")
        calls = {"discover": lambda: list_all(broker), "issue_credentials": lambda: broker.issue("mine", **A)}
        call = calls.get(hook, lambda: broker.verify("mine"))
        for number in range(2):
            broker.update("mine", config={"size": number}, verify=False)  # so that nothing is at hand
            plugin.on[hook] = hang
            with pytest.raises(KeyboardInterrupt):
                call()
            call()
            deadline = time.monotonic() + 5
            while plugin.opened != plugin.closed and time.monotonic() < deadline:
                time.sleep(0.001)  # the interrupted one ends in a thread of its own
            assert plugin.opened == plugin.closed
    assert threading.active_count() <= threads


def list_all(broker) -> None:
    with broker.discover() as replies:
        assert list(replies)


STEPPING = """
import os, time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
import anyio
import mooring as m

def step(name):
    Path(os.environ["STEPS"], name).touch()
    return name == os.environ["STOP_AT"]

if step("import"):
    time.sleep(60)

class Config(m.Config):
    key: m.Secret

class Stepping:
    @m.hookimpl
    def describe(self):
        method = m.AuthMethod(name="key", config=Config)
        return m.ConnectorType(name="step", auth_methods=(method,), resource_types=(m.ResourceType(name="box"),))

    @m.hookimpl
    def canonical(self, resource_type, text):
        return text

    @m.hookimpl
    @asynccontextmanager
    async def authenticate(self, config, context):
        await anyio.sleep(60 * step("authenticate"))
        yield config
        await anyio.sleep(60 * step("close"))

    @m.hookimpl
    async def verify(self, session, request):
        await anyio.sleep(60 * step("verify"))
        return m.Identity(subject="robot")

    @m.hookimpl
    async def discover(self, session, request):
        yield m.Resource(type="box", id="a")
        await anyio.sleep(60 * step("discover"))

    @m.hookimpl
    async def issue_credentials(self, session, request):
        await anyio.sleep(60 * step("issue"))
        ends = datetime.now(UTC) + timedelta(hours=1)
        return m.BearerToken(token=m.Secret("t"), expires_at=ends, narrowed=True)

plugin = Stepping()
"""
REGISTER = ("connector", "register", "new", "-t", "step", "--key", "k")
MOMENTS = [
    (REGISTER, "import"),
    (REGISTER, "verify"),
    (REGISTER, "discover"),
    (("connector", "update", "mine", "--key", "x"), "authenticate"),
    (("connector", "verify", "mine"), "close"),
    (("connector", "list-resources"), "discover"),
    (("issue", "mine", "-r", "box", "-i", "a"), "issue"),
    (("doctor",), "verify"),
]


@pytest.fixture
def stepping(tmp_path, monkeypatch) -> Callable[..., subprocess.Popen[str]]:
    """Start `mooring` with a vendor that stops at a step, and wait until it is there."""
    about = tmp_path / "site" / "stepping-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stepping\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mooring.connectors]\nstep = stepping:plugin\n")
    (tmp_path / "site" / "stepping.py").write_text(STEPPING)
    (tmp_path / "steps").mkdir()
    for name, value in {"PYTHONPATH": "site", "MOORING_HOME": "home", "STEPS": "steps"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))

    def start(*arguments: str, at: str = "") -> subprocess.Popen[str]:
        for file in (tmp_path / "steps").iterdir():
            file.unlink()
        running = subprocess.Popen(
            [sys.executable, "-m", "mooring", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"STOP_AT": at}, stdin=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  no fork of ours
        )  # fmt: skip
        while at and not (tmp_path / "steps" / at).exists() and running.poll() is None:
            time.sleep(0.01)
        return running

    return start


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_command_that_is_interrupted(stepping, tmp_path, number):
    """One line and 130, or the end that SIGTERM has for every program; nothing half-written, and the next one works."""
    with stepping("connector", "register", "mine", "-t", "step", "--key", "k", "--no-verify") as running:
        assert running.wait(60) == 0
    for arguments, at in MOMENTS:
        with stepping(*arguments, at=at) as running:
            running.send_signal(number)
            out, err = running.communicate(timeout=60)
        said = [line for line in err.splitlines() if line.startswith("Interrupted")]
        shown = (arguments, at, running.returncode, out, err)
        if number == signal.SIGINT:
            assert (running.returncode, len(said)) == (130, 1), shown
        else:
            assert running.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM), shown
        assert "Traceback" not in err, shown
        home = tmp_path / "home"
        left = {file.name for folder in (home, home / "cache") if folder.exists() for file in folder.iterdir()}
        assert not [name for name in left if name.endswith(".new") or name.startswith(".")], shown
        stored = at == "discover" and arguments == REGISTER
        if stored:  # it had been stored, and said so
            with stepping("connector", "delete", "new") as running:
                assert running.wait(60) == 0
    with stepping("connector", "list", "-o", "json") as running:
        out, err = running.communicate(timeout=60)
    assert out.count('"name": "') == 1, out
