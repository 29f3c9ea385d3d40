"""The conformance kit: inherit, name what to try, and the contract is tested.

    import pytest
    from mooring.testing import ConnectorConformance, Subject

    class TestAcme(ConnectorConformance):
        @pytest.fixture
        def subject(self) -> Subject:
            return Subject(plugin=acme, auth_method="key", config={"key": "..."}, resource_type="bucket", ...)

It needs pytest with anyio's plugin, and calls the vendor that the configuration leads to: a real service, or a strict
fake at the edge of the network.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from glob import escape
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import mooring as m
from mooring.credentials import reveal
from mooring.globs import matches
from mooring.registry import bind
from mooring.testing._fake import memory_broker
from mooring.types import Connector, Struct, fields_of

DESCRIBE_SECONDS = 0.05
"""More than anything takes that makes no call and imports nothing."""
CALLERS = 20
HOSTILE = (
    "",
    " ",
    "\x00",
    "a\nb",
    "../..",
    "//",
    "s3://",
    "arn:",
    "https://",
    "\ud800",
    "é" * 300,
    "a" * 10_000,
    "{}",
    "%s",
)

PLUGIN = """
import importlib, json, sys
kind = importlib.import_module({module!r})
for name in {name!r}.split("."):
    kind = getattr(kind, name)
plugin = kind()
def modules():
    return sorted({{name.partition(".")[0] for name in sys.modules}})
"""
DESCRIBE = PLUGIN + "plugin.describe(); print(json.dumps(modules()))"
ENDPOINT = (
    PLUGIN
    + """
from mooring.types import build_config
config = build_config(plugin.describe().auth_method({method!r}).config, json.load(sys.stdin))
def refuse(event, _):
    if event.startswith("socket.") or event == "subprocess.Popen":
        raise RuntimeError("endpoint() makes a call: " + event)
sys.addaudithook(refuse)
print(json.dumps([plugin.endpoint(config), plugin.endpoint(config), modules()]))
"""
)


class Subject(Struct):
    """What the kit tries."""

    plugin: Any
    auth_method: str
    config: Mapping[str, Any]
    """Fields that the vendor accepts; secrets as `Secret`."""
    resource_type: str
    resource_id: str
    """One that there is, in any accepted form."""
    elsewhere: str | None = None
    """Another of the same type that there is, and that credentials for the first must not reach."""
    reaches: Callable[[m.Issued, str], Awaitable[bool]] | None = None
    """Whether these credentials open that resource, tried at the vendor; without it narrowing is taken on trust."""
    refused: Mapping[str, Any] | None = None
    """Fields that are well-formed, and that the vendor does not accept."""
    sdks: tuple[str, ...] = ()
    """Top-level modules that describing the type must not load."""
    forgets_within: float = 0.0
    """Seconds for which the vendor's caches may take credentials that were taken back."""
    options: Mapping[str, Any] = {}
    """More for `register`, such as `allow_long_lived`."""


@pytest.mark.anyio
class ConnectorConformance:
    """The contract, as tests. A subclass has the fixture `subject`; a name that begins with Test has pytest find it."""

    @pytest.fixture
    def subject(self) -> Subject:
        """What to try; a subclass says it."""
        raise NotImplementedError("give the fixture `subject`")

    def test_describing_is_pure_and_fast(self, subject: Subject) -> None:
        """The same each time, within `DESCRIBE_SECONDS`, and it binds."""
        route = bind(subject.plugin)
        begun = time.perf_counter()
        again = subject.plugin.describe()
        assert time.perf_counter() - begun < DESCRIBE_SECONDS, "describe() takes long; it must make no call"
        assert again == route.type, "describe() gives something else each time"
        assert route.type.auth_method(subject.auth_method), "the subject's auth method is not the type's"
        for method in route.type.auth_methods:
            assert fields_of(method.config) is not None

    def test_describing_loads_no_sdk(self, subject: Subject) -> None:
        """In a fresh interpreter, the module of the plugin is imported and described."""
        code = DESCRIBE.format(**_names(subject))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
        loaded = set(json.loads(done.stdout)) & set(subject.sdks)
        assert not loaded, f"describing loads {', '.join(sorted(loaded))}; import it where a session is opened"

    def test_the_endpoint_is_pure(self, subject: Subject) -> None:
        """In a fresh interpreter: some host, the same twice, without a call, and no SDK is loaded for it."""
        if not hasattr(subject.plugin, "endpoint"):
            pytest.skip("the plugin names no endpoint")
        values = {name: _plain(value) for name, value in subject.config.items()}
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", ENDPOINT.format(**_names(subject), method=subject.auth_method)],
            input=json.dumps(values),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"endpoint() fails where nothing can be called:\n{done.stderr}"
        first, again, modules = json.loads(done.stdout)
        assert first, "endpoint() gives nothing"
        assert first == again, "endpoint() gives something else each time"
        assert not _shown(subject.config, first), "endpoint() shows a secret"
        loaded = set(modules) & set(subject.sdks)
        assert not loaded, f"endpoint() loads {', '.join(sorted(loaded))}; say the host without"

    @pytest.mark.parametrize("text", HOSTILE)
    def test_an_id_is_canonical_or_refused(self, subject: Subject, text: str) -> None:
        """Whatever the text; and the error never says more than our own words."""
        try:
            once = subject.plugin.canonical(subject.resource_type, text)
        except m.ConfigError:
            return
        assert subject.plugin.canonical(subject.resource_type, once) == once, "canonical() changes its own result"

    def test_the_canonical_form_is_one(self, subject: Subject) -> None:
        """Of the resource that the subject names."""
        once = subject.plugin.canonical(subject.resource_type, subject.resource_id)
        assert subject.plugin.canonical(subject.resource_type, once) == once, "canonical() changes its own result"

    async def test_it_verifies(self, subject: Subject) -> None:
        """The vendor says who we are, and that the resource is reached."""
        async with self._registered(subject) as broker:
            assert (await broker.verify("subject")).subject
            target = {"resource_type": subject.resource_type, "resource_id": subject.resource_id}
            assert (await broker.verify("subject", **target)).subject

    async def test_what_the_vendor_refuses_is_an_error_of_ours(self, subject: Subject) -> None:
        """Nothing is stored, and no secret is said."""
        if subject.refused is None:
            pytest.skip("the subject names no refused configuration")
        async with memory_broker(subject.plugin) as broker:
            with pytest.raises(m.VendorError) as caught:
                await self._register(broker, subject, subject.refused)
            shown = "".join(traceback.format_exception(caught.value))
            assert not _shown(subject.refused, shown), "an error shows a secret"
            assert await broker.list() == []

    async def test_discovery_gives_declared_types_and_canonical_ids_once(self, subject: Subject) -> None:
        """And the resource that the subject names is among them."""
        async with self._registered(subject) as broker:
            route = broker.registry.route(bind(subject.plugin).type.name)
            seen: list[tuple[str, str]] = []
            async with broker.discover(resource_type=subject.resource_type) as replies:
                async for reply in replies:
                    if isinstance(reply, m.Failed):
                        raise reply.error
                    if isinstance(reply, m.Found):
                        seen.append((reply.resource.type, reply.resource.id))
            settings = (await broker.get("subject")).settings
            wanted = self._canonical(subject, subject.resource_id, settings)
            assert {kind for kind, _ in seen} <= {kind.name for kind in route.type.resource_types}
            assert len(seen) == len(set(seen)), "discover() gives a resource twice"
            for _, name in seen:
                assert self._canonical(subject, name, settings) == name, f"discover() gives {name!r}, not canonical"
            assert (subject.resource_type, wanted) in seen

    async def test_what_is_discovered_is_found_again_by_its_id(self, subject: Subject) -> None:
        """The patterns `ids`, of the resource type and of units, rule nothing out that is there."""
        async with self._registered(subject) as broker:
            kind = bind(subject.plugin).type.resource_type(subject.resource_type)
            assert kind is not None
            names = [one.resource.id for one in await _found(broker, subject.resource_type)]
            for name in names:
                assert matches(name, [kind.ids]), (
                    f"discover() gives {name!r}, which is none of the type's ids {kind.ids!r}"
                )
            for name in {*names[:1], *names[-1:]}:
                again = [one.resource.id for one in await _found(broker, subject.resource_type, escape(name))]
                assert again == [name], f"{name!r} is not found where it is looked for: see the `ids` of its unit"

    async def test_credentials_end_as_asked(self, subject: Subject) -> None:
        """Within the auth method's bounds, or the reply says why not."""
        async with self._registered(subject) as broker:
            method = bind(subject.plugin).auth_method(subject.auth_method)
            issued = await self._issue(broker, subject)
            if issued.expires_at is None:
                assert (await broker.get("subject")).allow_long_lived
                return
            assert issued.expires_at > issued.issued_at
            if method.lifetime is not None:
                shortest = await self._issue(broker, subject, ttl=method.lifetime.minimum)
                assert shortest.expires_at is not None
                life = shortest.expires_at - shortest.issued_at
                assert life <= method.lifetime.minimum * 1.1 or shortest.clamped, "a shorter ttl is not honoured"

    async def test_credentials_open_their_resource_and_no_other(self, subject: Subject) -> None:
        """Tried at the vendor."""
        if subject.reaches is None:
            pytest.skip("the subject cannot try credentials")
        async with self._registered(subject) as broker:
            issued = await self._issue(broker, subject)
            assert await subject.reaches(issued, subject.resource_id), "they do not open what they are for"
            if issued.narrowed and subject.elsewhere is not None:
                assert not await subject.reaches(issued, subject.elsewhere), (
                    "narrowed credentials open another resource"
                )

    async def test_what_is_revocable_is_revoked(self, subject: Subject) -> None:
        """From one consumer, tried at the vendor; what another consumer has stays good."""
        if not bind(subject.plugin).auth_method(subject.auth_method).revocable:
            pytest.skip("the auth method is not revocable")
        async with self._registered(subject) as broker:
            ours, theirs = [await self._issue(broker, subject, consumer=name) for name in ("ours", "theirs")]
            assert ours.lease != theirs.lease, "two consumers share what is revocable"
            lease = await broker.lease(ours.lease)
            assert lease.revocation == "real", "nothing is kept in the undo log, so that nothing can be taken back"
            (gone,) = await broker.revoke(ours.lease)
            assert gone.state == "revoked", f"the lease is {gone.state}: {gone.error}"
            if subject.reaches is not None:
                with anyio.move_on_after(subject.forgets_within):
                    while await subject.reaches(ours, subject.resource_id):  # noqa: ASYNC110  (a vendor tells nobody)
                        await anyio.sleep(0.1)
                assert not await subject.reaches(ours, subject.resource_id), "a revoked lease's credentials still work"
                assert await subject.reaches(theirs, subject.resource_id), "another consumer's credentials are gone too"

    async def test_no_secret_shows(self, subject: Subject, caplog: pytest.LogCaptureFixture) -> None:
        """Not in logs of any level, nor in what the hooks give that is shown."""
        with caplog.at_level(logging.DEBUG):
            async with self._registered(subject) as broker:
                identity = await broker.verify("subject")
                issued = await self._issue(broker, subject)
                shown = f"{identity!r} {issued!r} {await broker.get('subject')!r} {caplog.text}"
        assert not _shown(subject.config, shown), "a secret of the connector shows"
        plain = {str(value) for value in reveal(issued.credentials).values() if isinstance(value, str)}
        secret = {
            value.reveal()
            for name in issued.credentials.__struct_fields__
            if isinstance(value := getattr(issued.credentials, name), m.Secret)
        }
        assert secret & plain == secret
        assert not any(value in shown for value in secret), "an issued secret shows"

    async def test_cancelled_anywhere_it_leaves_nothing(self, subject: Subject) -> None:
        """Verify, discover and issue, cancelled at ever later moments: no task stays, and the next call works."""
        async with self._registered(subject) as broker:
            await broker.verify("subject")
            await self._issue(broker, subject)
            before = len(anyio.get_running_tasks())
            for verb in (self._verify, self._discover, self._issue_anew):
                for rounds in _spread():
                    done = await _cancelled_after(rounds, partial(verb, broker, subject))
                    if done:
                        break
                with anyio.fail_after(30):
                    await verb(broker, subject)
            await anyio.lowlevel.checkpoint()
            assert len(anyio.get_running_tasks()) <= before, "a cancelled call leaves a task behind"

    async def test_many_callers_at_once(self, subject: Subject) -> None:
        """One session serves several tasks, and none gets what is another's."""
        async with self._registered(subject) as broker, anyio.create_task_group() as tasks:
            for _ in range(CALLERS):
                tasks.start_soon(self._verify, broker, subject)
                tasks.start_soon(self._discover, broker, subject)
                tasks.start_soon(self._issue, broker, subject)

    @asynccontextmanager
    async def _registered(self, subject: Subject) -> AsyncGenerator[m.Broker, None]:
        async with memory_broker(subject.plugin, **self.broker_options()) as broker:
            await self._register(broker, subject, subject.config)
            yield broker

    def broker_options(self) -> dict[str, Any]:
        """What `open_broker` is given beside the plugin."""
        return {}

    async def _register(self, broker: m.Broker, subject: Subject, config: Mapping[str, Any]) -> Connector:
        kind = bind(subject.plugin).type.name
        return await broker.register(
            "subject", type=kind, auth_method=subject.auth_method, config=config, **subject.options
        )

    async def _verify(self, broker: m.Broker, subject: Subject) -> None:
        await broker.verify("subject")

    async def _discover(self, broker: m.Broker, subject: Subject) -> None:
        async with broker.discover(resource_type=subject.resource_type) as replies:
            async for _ in replies:
                pass

    async def _issue(self, broker: m.Broker, subject: Subject, **wish: Any) -> m.Issued:
        kind, name = subject.resource_type, subject.resource_id
        return await broker.issue("subject", resource_type=kind, resource_id=name, **wish)

    async def _issue_anew(self, broker: m.Broker, subject: Subject) -> None:
        """Past the cache: the connector was changed."""
        connector = await broker.get("subject")
        await broker.update("subject", allow_unnarrowed=not connector.allow_unnarrowed, verify=False)
        await self._issue(broker, subject)
        await broker.update("subject", allow_unnarrowed=connector.allow_unnarrowed, verify=False)

    def _canonical(self, subject: Subject, text: str, settings: Mapping[str, Any]) -> str:
        canonical: str = subject.plugin.canonical(subject.resource_type, text)
        qualify = getattr(subject.plugin, "qualify", None)
        return canonical if qualify is None else str(qualify(subject.resource_type, canonical, settings))


async def _found(broker: m.Broker, resource_type: str, *match: str) -> list[m.Found]:
    async with broker.discover(resource_type=resource_type, match=match) as replies:
        return [reply async for reply in replies if isinstance(reply, m.Found)]


def _names(subject: Subject) -> dict[str, str]:
    """Where the plugin's class is found."""
    kind = type(subject.plugin)
    return {"module": kind.__module__, "name": kind.__qualname__}


def _plain(value: Any) -> Any:
    return value.reveal() if isinstance(value, m.Secret) else value


def _shown(config: Mapping[str, Any], text: str) -> bool:
    return any(isinstance(value, m.Secret) and value.reveal() in text for value in config.values())


def _spread() -> Iterator[int]:
    rounds = 0
    while True:
        yield rounds
        rounds += 1 + rounds // 2


async def _cancelled_after(rounds: int, work: Callable[[], Awaitable[object]]) -> bool:
    """Do the work, and cancel it after so many rounds of the event loop; whether it was done before."""
    done = False

    async def run() -> None:
        nonlocal done
        await work()
        done = True
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        for _ in range(rounds):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    return done


__all__ = ["ConnectorConformance", "Subject"]
