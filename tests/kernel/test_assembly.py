"""Assembly: the environment's settings, and that each part handed in is the one in use."""

import base64
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

import mooring as m
from mooring.assembly import Settings, open_broker, settings_from
from mooring.broker import Budgets
from mooring.errors import BrokenPlugin, InvalidConfig, NoMasterKey, Overdue, StoreUnavailable
from mooring.events import TaskFailed
from mooring.limits import Limits
from mooring.store import MemoryStore
from mooring.testing import ExampleSystem, Fake, ManualClock, example, memory_broker
from mooring.types import Secret
from mooring.vault import Vault, parse_keys

NOWHERE = Path("/nonexistent")
A = {"resource_type": "bucket", "resource_id": "a"}
KEY = base64.b64encode(bytes(range(32))).decode()


# -- settings


def test_settings_from_nothing():
    settings = settings_from({})
    assert settings.home.name == "mooring"
    assert settings.home.is_absolute()
    assert (settings.store, settings.master_key, settings.allow_implicit) == (None, None, False)


def test_settings_from_the_environment():
    settings = settings_from(
        {
            "MOORING_HOME": "~/there",
            "MOORING_STORE": "pg://x",
            "MOORING_MASTER_KEY": "a:b",
            "MOORING_ALLOW_IMPLICIT": "1",
        }
    )
    assert settings == Settings(
        home=Path("~/there").expanduser(), store="pg://x", master_key=Secret("a:b"), allow_implicit=True
    )
    assert settings.store_file == settings.home / "mooring.db"
    assert settings.key_file == settings.home / "master.key"
    assert settings.cache_folder == settings.home / "cache"


def test_empty_variables_count_as_absent():
    assert settings_from(dict.fromkeys(["MOORING_HOME", "MOORING_STORE", "MOORING_MASTER_KEY"], "")) == settings_from(
        {}
    )


@pytest.mark.parametrize(
    ("text", "allowed"),
    [("", False), ("0", False), ("1", True), ("true", True), ("False", False), ("YES", True), ("no", False)],
)
def test_allow_implicit(text, allowed):
    assert settings_from({"MOORING_ALLOW_IMPLICIT": text}).allow_implicit is allowed


@pytest.mark.parametrize("text", ["2", "on", "yes please", " 1"])
def test_allow_implicit_malformed(text):
    with pytest.raises(InvalidConfig, match="neither 1 nor 0") as caught:
        settings_from({"MOORING_ALLOW_IMPLICIT": text})
    assert caught.value.field == "MOORING_ALLOW_IMPLICIT"


# -- the parts


@pytest.mark.anyio
async def test_the_store_that_was_handed_in():
    store = MemoryStore()
    async with memory_broker(Fake(), store=store) as broker:
        await broker.register("mine", type="fake", auth_method="key")
    assert [one.name for one in await store.list()] == ["mine"]


@pytest.mark.anyio
async def test_the_vault_that_was_handed_in():
    vault = Vault(parse_keys(f"mykey:{KEY}", "the test"))
    async with memory_broker(Fake(), vault=vault) as broker:
        connector = await broker.register("mine", type="fake", auth_method="key", config={"key": "k"})
        assert connector.sealed.key_id == "mykey"
        assert await broker.secrets("mine") == {"key": m.Secret("k")}


@pytest.mark.anyio
async def test_the_clock_limits_consumer_and_budgets_that_were_handed_in():
    async def hang(request):
        await anyio.sleep_forever()

    fake, clock, limits = Fake(), ManualClock(), Limits()
    budgets = Budgets(verify=timedelta(seconds=0.001))
    async with memory_broker(fake, clock=clock, limits=limits, consumer="me", budgets=budgets) as broker:
        connector = await broker.register("mine", type="fake", auth_method="key", verify=False)
        assert connector.created_at == clock.now()
        issued = await broker.issue("mine", **A)
        assert (issued.issued_at, issued.consumer) == (clock.now(), "me")
        tools = fake.requests[0].tools
        assert (tools.clock, tools.limits) == (clock, limits)
        fake.on["verify"] = hang
        with pytest.raises(Overdue):
            await broker.verify("mine")


@pytest.mark.anyio
async def test_two_brokers_share_nothing():
    async with memory_broker(Fake()) as one, memory_broker(Fake()) as other:
        await one.register("mine", type="fake", auth_method="key")
        assert await other.list() == []


@pytest.mark.anyio
async def test_a_broken_plugin_that_is_handed_in_is_refused():
    class Broken(Fake):
        discover = None

    with pytest.raises(BrokenPlugin, match="lacks the hook 'discover'"):
        async with memory_broker(Broken()):
            pass


def test_by_default_everything_is_in_the_home_folder(tmp_path, monkeypatch):
    for name in ("MOORING_STORE", "MOORING_MASTER_KEY", "MOORING_ALLOW_IMPLICIT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MOORING_HOME", str(tmp_path / "home"))

    async def run() -> None:
        async with open_broker(plugins=[example], system_plugins=[]) as broker:
            await broker.register("mine", type="example", config={"user": "u", "password": "p"})
            await broker.issue("mine", resource_id="a")
        async with open_broker(plugins=[example], system_plugins=[]) as broker:
            assert (await broker.secrets("mine"))["password"].reveal() == "p"
            assert (await broker.issue("mine", resource_id="a")).cached

    anyio.run(run)
    assert {path.name for path in (tmp_path / "home").iterdir()} >= {"mooring.db", "master.key", "cache"}


# -- what comes in by a URL


@pytest.mark.anyio
async def test_a_store_by_url():
    settings = Settings(home=NOWHERE, store="example:")
    async with memory_broker(Fake(), store=None, settings=settings, system_plugins=[ExampleSystem()]) as broker:
        await broker.register("mine", type="fake", auth_method="key")
        assert len(await broker.list()) == 1


@pytest.mark.anyio
async def test_a_store_by_url_is_closed_with_the_broker():
    closed = []

    class System:
        @m.hookimpl
        def open_store(self, url):
            @asynccontextmanager
            async def store():
                yield MemoryStore()
                closed.append(url)

            return store()

    settings = Settings(home=NOWHERE, store="mine:x")
    async with memory_broker(Fake(), store=None, settings=settings, system_plugins=[System()]):
        assert not closed
    assert closed == ["mine:x"]


@pytest.mark.anyio
@pytest.mark.parametrize("system", [[], [ExampleSystem()]])
async def test_a_store_by_url_that_nobody_serves(system):
    settings = Settings(home=NOWHERE, store="postgresql://user:password@host/db")
    with pytest.raises(StoreUnavailable) as caught:
        async with memory_broker(store=None, settings=settings, system_plugins=system):
            pass
    assert caught.value.message == (
        "no installed plugin serves a store of the scheme 'postgresql'; check MOORING_STORE"
    )


@pytest.mark.anyio
async def test_a_master_key_by_url():
    settings = Settings(home=NOWHERE, master_key=Secret("example://vault/key"))
    async with memory_broker(Fake(), vault=None, settings=settings, system_plugins=[ExampleSystem()]) as broker:
        connector = await broker.register("mine", type="fake", auth_method="key", config={"key": "k"})
        assert connector.sealed.key_id == "external"
        assert (await broker.secrets("mine"))["key"].reveal() == "k"


@pytest.mark.anyio
async def test_a_master_key_by_url_of_a_wrong_length():
    class System:
        @m.hookimpl
        def master_key(self, url):
            return b"short"

    settings = Settings(home=NOWHERE, master_key=Secret("short://vault"))
    async with memory_broker(Fake(), vault=None, settings=settings, system_plugins=[System()]) as broker:
        with pytest.raises(NoMasterKey, match="in MOORING_MASTER_KEY is not 32 bytes"):
            await broker.register("mine", type="fake", auth_method="key", config={"key": "k"})


@pytest.mark.anyio
async def test_a_master_key_by_url_that_nobody_serves():
    settings = Settings(home=NOWHERE, master_key=Secret("vault://secret"))
    async with memory_broker(Fake(), vault=None, settings=settings) as broker:
        with pytest.raises(NoMasterKey, match="no installed plugin serves the scheme of MOORING_MASTER_KEY"):
            await broker.register("mine", type="fake", auth_method="key", config={"key": "k"})
        with pytest.raises(NoMasterKey):  # without secrets too: the seal binds the settings
            await broker.register("mine", type="fake", auth_method="key")
        assert await broker.list() == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    "key", [KEY, base64.b64encode(b"\xff" * 32).decode(), base64.urlsafe_b64encode(b"\xff" * 32).decode()]
)
async def test_a_master_key_in_the_environment(key):
    """Also one whose base64 begins with two slashes, so that `id:key` looks like a URL."""
    settings = Settings(home=NOWHERE, master_key=Secret(f"mine:{key}"))
    async with memory_broker(Fake(), vault=None, settings=settings) as broker:
        connector = await broker.register("mine", type="fake", auth_method="key", config={"key": "k"})
    assert connector.sealed.key_id == "mine"


@pytest.mark.anyio
async def test_a_malformed_master_key_is_never_shown():
    settings = Settings(home=NOWHERE, master_key=Secret("mine:c4n4ry"))
    async with memory_broker(Fake(), vault=None, settings=settings) as broker:
        with pytest.raises(NoMasterKey) as caught:
            await broker.register("mine", type="fake", auth_method="key", config={"key": "k"})
    assert "c4n4ry" not in str(caught.value)


# -- system plugins


@pytest.mark.anyio
async def test_system_plugins_live_with_the_broker_and_miss_no_event():
    system = ExampleSystem()
    async with memory_broker(Fake(), system_plugins=[system]) as broker:
        assert system.running
        await broker.register("mine", type="fake", auth_method="key", verify=False)
        await broker.delete("mine")
    assert not system.running
    assert system.seen == ["ConnectorRegistered", "ConnectorDeleted"]


@pytest.mark.anyio
async def test_system_lifespans_are_left_in_reverse_order_and_can_use_the_broker():
    log = []

    class System:
        def __init__(self, name: str) -> None:
            self.name = name

        @m.hookimpl
        @asynccontextmanager
        async def lifespan(self, broker):
            log.append(f"{self.name} with {len(await broker.list())}")
            yield
            log.append(f"{self.name} left with {len(await broker.list())}")

    async with memory_broker(Fake(), system_plugins=[System("one"), System("two")]) as broker:
        first, second = (line.split()[0] for line in log)
        await broker.register("mine", type="fake", auth_method="key")
    assert log[2:] == [f"{second} left with 1", f"{first} left with 1"]


@pytest.mark.anyio
async def test_a_system_plugin_that_fails_stops_neither_the_broker_nor_the_others(count_tasks):
    told = []

    class Watcher:
        @m.hookimpl
        def subscribe(self, bus):
            async def watch():
                async with bus.subscribe(TaskFailed) as events:
                    told.extend([(event.task.rpartition(" ")[0], event.error) async for event in events])

            bus.spawn("watch", watch)

    class Failing:
        @m.hookimpl
        def subscribe(self, bus):
            raise KeyError("canary")

        @m.hookimpl
        @asynccontextmanager
        async def lifespan(self, broker):
            raise ValueError("canary")
            yield

    before = count_tasks()
    async with memory_broker(Fake(), system_plugins=[Failing(), Watcher()]) as broker:
        await broker.register("mine", type="fake", auth_method="key")
        await anyio.lowlevel.checkpoint()
    assert ("lifespan of the system plugin", "ValueError") in told
    assert "canary" not in str(told)
    assert count_tasks() == before


@pytest.mark.anyio
@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3)])
async def test_what_the_body_raises_is_not_wrapped(error):
    with pytest.raises(type(error)) as caught:
        async with memory_broker(Fake(), system_plugins=[ExampleSystem()]):
            raise error
    assert caught.value is error
