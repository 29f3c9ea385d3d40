"""A secret that a caller, the vault or a vendor gave is in nothing that the library hands out, logs, raises or writes.

By design in the clear: what `reveal()` gives. Beyond us, and so not looked for: what a plugin prints, logs or warns by
itself (it is code in the same process), the message that it writes into an error of ours as its caller gets it (a host
masks that by the `opened` callback, as the CLI does; in events and leases it is masked by default), and names that a
vendor gives its things, such as the subject of an identity and the id of a resource: whoever hands an id back needs it
as it is. In an event the subject is masked, the id is not.
"""

import base64
import copy
import faulthandler
import io
import json
import logging
import pickle
import pprint
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
import rich.console
import rich.pretty

import mooring as m
from mooring.assembly import Settings, open_broker
from mooring.events import Event
from mooring.types import Secret, fields_of
from mooring.vault import Vault, parse_keys

pytestmark = pytest.mark.anyio
BOX = {"resource_type": "hostile-box", "resource_id": "first"}
HOOKS = ("authenticate", "close", "verify", "units", "discover", "issue_credentials", "explain")
HOWS = ("raise", "group", "exit", "base", "caused", "said", "wrong", "bare", "echo", "echo body", "named")
SPOKEN = {
    "said": {"authenticate", "close", "verify", "units", "discover", "issue_credentials", "explain"},
    "named": HOOKS,
}
OFTEN = 6
"""Of one class that many are looked at in every way; of the others, what they say of themselves."""
FORMATS = {"pem": "C4N4RYC4N4RY" + "*" * 40}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Harvest:
    """All that came out, by any door."""

    def __init__(self, told: Callable[[BaseException], str]) -> None:
        self.texts: list[str | bytes] = []
        self.errors: list[BaseException] = []
        self.seen: Counter[type] = Counter()
        self._told = told

    def take(self, thing: Any) -> Any:
        """Look at a value in every way that a host might, on purpose or by mistake."""
        self.seen[type(thing)] += 1
        self.texts += [repr(thing), str(thing)] if self.seen[type(thing)] > OFTEN else list(looks(thing))
        return thing

    async def call(self, work: Any) -> Any:
        """What a call gives or raises."""
        try:
            return self.take(await work)
        except m.MooringError as error:
            self.errors.append(error)
            self.texts.append(self._told(error))
            self.take(error)
            return None


def looks(thing: Any) -> Any:
    yield from (repr(thing), str(thing), f"{thing!s:>9}", pprint.pformat(thing), repr([thing]), repr({"x": thing}))
    console = rich.console.Console(file=io.StringIO(), width=500, force_terminal=True)
    console.print(thing, rich.pretty.Pretty(thing, expand_all=True))
    yield console.file.getvalue()
    with suppress(TypeError):
        yield pprint.pformat(vars(thing))
    for encode in (
        pickle.dumps,
        msgspec.json.encode,
        msgspec.msgpack.encode,
        lambda one: repr(msgspec.to_builtins(one)),
        lambda one: json.dumps(one, default=str),
        lambda one: json.dumps(one, default=vars),
        lambda one: repr(copy.deepcopy(one)),
        lambda one: repr(msgspec.structs.asdict(one)),
    ):
        with suppress(Exception):
            yield encode(thing)


@pytest.fixture
def harvest(told) -> Harvest:
    return Harvest(told)


@pytest.fixture
def issues(canaries, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the vendor issues are canaries too."""
    monkeypatch.setenv("HOSTILE_ISSUES", f"{canaries.plant('password')}\n{canaries.plant('second')}")


@pytest.fixture
def settings(home, canaries) -> Settings:
    raw = canaries.plant("raw master key", "C4N4RYC4N4RY" + "*" * 20)
    canaries.planted["master key"] = base64.b64encode(raw.encode()).decode()
    return Settings(home=home, master_key=Secret(f"canary:{canaries.planted['master key']}"))


@pytest.fixture
def opening(settings, hostile, harvest):
    """A broker on real files, all of whose events are kept."""

    @asynccontextmanager
    async def opening(*plugins: Any):
        options = {"settings": settings, "system_plugins": (), "plugins": plugins or (hostile.connector,)}
        async with open_broker(**options, journal=True) as broker, broker.subscribe(Event, buffer=10_000) as events:

            async def drain() -> None:
                while events.receive.statistics().current_buffer_used:
                    event = harvest.take(await anext(events))
                    harvest.texts += [msgspec.json.encode(event), msgspec.msgpack.encode(event)]
                await anyio.lowlevel.checkpoint()  # the journal writes

            yield broker, drain
            await drain()

    return opening


def planted(method: m.AuthMethod, canaries, number: str) -> dict[str, m.Secret]:
    """A canary in each secret field."""
    names = [field.name for field in fields_of(method.config) if field.secret]
    assert names
    return {name: m.Secret(canaries.plant(f"{number} {method.name} {name}", FORMATS.get(name, ""))) for name in names}


async def every_verb(broker, harvest: Harvest, name: str, method: str, config: dict[str, Any], fresh) -> None:
    call = harvest.call
    await call(broker.register(f"{name}-v", type="hostile", auth_method=method, config=config))
    await call(broker.register(name, type="hostile", auth_method=method, config=config, verify=False))
    await call(broker.get(name))
    await call(broker.list())
    await call(broker.verify(name))
    await call(broker.verify(name, **BOX))
    await call(broker.secrets(name))
    await call(broker.update(name, config=fresh))
    await call(broker.update(name, config=fresh, verify=False))
    await call(broker.issue(name, **BOX))
    await call(broker.issue(name, **BOX, ttl=timedelta(minutes=20), access="write"))
    harvest.take(broker.peek(name, **BOX))
    await call(broker.explain(name, **BOX))
    await call(broker.lift("hostile"))
    async with broker.discover(connectors=[name]) as replies:
        async for reply in replies:
            harvest.take(reply)
            if error := getattr(reply, "error", None):
                harvest.errors.append(error)
                harvest.texts.append(harvest._told(error))
    for box in ("first", "broken"):
        with suppress(m.MooringError):
            async with broker.client(name, resource_type="hostile-box", resource_id=box) as renew:
                harvest.take(await renew())
    await call(broker.register(name, type="hostile", auth_method=method, config=config))  # the name is taken
    await call(broker.register("bad", type="hostile", auth_method=method, config=config | {"how": 3, "nonesuch": ""}))
    await call(broker.register("bad", type="hostile", auth_method=method, config=config | {"how": object()}))
    for one in await broker.list():
        await call(broker.delete(one.id))


async def test_no_door_lets_a_secret_out(
    opening, hostile, canaries, harvest, issues, echo, at_rest, caplog, capfd
) -> None:
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for at in HOOKS:
            async with opening() as (broker, drain):
                for method in hostile.connector.describe().auth_methods[0 if at == "verify" else 1 :]:
                    for how in ("well", *HOWS):
                        name = f"{at}-{method.name}-{how}".replace(" ", "-").replace("_", "-")
                        config = planted(method, canaries, name) | {"how": how, "at": at, "url": echo}
                        fresh = {"spare": m.Secret(canaries.plant(f"{name} fresh"))}
                        before = len(harvest.texts)
                        await every_verb(broker, harvest, name, method.name, config, fresh)
                        await drain()
                        harvest.texts += capfd.readouterr()
                        if how in ("said", "named"):  # by design, and so it shows that the search finds
                            assert canaries(*harvest.texts[before:]) or at not in SPOKEN[how]
                            del harvest.texts[before:]
    assert len(harvest.errors) > 300
    assert "DiscoveryFailed" in "".join(map(str, harvest.texts))  # the journal
    harvest.texts += [str(one.message) for one in warned]
    ours = [one for one in caplog.records if one.name != "hostile.plugin"]
    harvest.texts += [f"{one.getMessage()} {one.exc_info} {one.__dict__}" for one in ours]
    found = canaries(*harvest.texts, at_rest())
    assert not found, "\n".join(found)


async def test_no_object_shows_one(opening, hostile, canaries, settings, issues) -> None:
    async with opening() as (broker, _):
        config = planted(broker.types()[0].auth_method("pair"), canaries, "objects")
        await broker.register("one", type="hostile", auth_method="pair", config=config)
        issued = await broker.issue("one", **BOX)
        key = parse_keys(settings.master_key, "the test")[0]
        desk = broker._desk
        things = [desk.vault, desk.cache, desk.tools, key, Vault([key]), issued.credentials]
        things += [broker.registry, *broker.registry.routes(), *config.values(), hostile.Pair(**config), config]
        shown = [text for thing in things for text in looks(thing)]
        for one in (settings, broker, desk, desk.store):  # which are not for copying, or hold the key for all to take
            shown += [repr(one), str(one), pprint.pformat(one), repr(getattr(one, "__dict__", ""))]
        with pytest.raises(TypeError):
            pickle.dumps(issued)
    assert not canaries(*shown)
    assert canaries(config["pem"].reveal(), key.key.reveal(), issued.credentials.password.reveal())


async def test_a_crash_shows_none(opening, hostile, canaries, settings, issues, tmp_path, capfd) -> None:
    """What Python's own hooks print of an error that nobody caught, and of a process that is stuck."""
    async with opening() as (broker, _):
        config = planted(broker.types()[0].auth_method("pair"), canaries, "crash") | {"how": "raise", "at": "verify"}
        with pytest.raises(m.BrokenPlugin) as caught:
            await broker.register("one", type="hostile", auth_method="pair", config=config)
    sys.__excepthook__(caught.type, caught.value, caught.tb)
    with (tmp_path / "dump").open("w+") as dump:
        faulthandler.dump_traceback(dump, all_threads=True)
    out, err = capfd.readouterr()
    assert "BrokenPlugin" in err
    assert not canaries(out, err, (tmp_path / "dump").read_text())
