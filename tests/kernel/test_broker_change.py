"""Verify, list, update, delete: connectors after they were registered."""

from datetime import UTC, datetime, timedelta
from functools import partial

import anyio
import pytest

import mooring as m
from mooring.errors import (
    AccessDenied,
    ConnectorExpired,
    InvalidConfig,
    NameTaken,
    StoreConflict,
    UnknownAuthMethod,
    UnknownConnector,
    UnsupportedResource,
    WrongKey,
)
from mooring.events import ConnectorDeleted, ConnectorUpdated, ConnectorVerified, VerificationFailed
from mooring.store import MemoryStore
from mooring.testing import Fake, ManualClock, example, memory_broker
from mooring.vault import Vault, parse_keys

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)


def key(fill: int) -> Vault:
    import base64

    return Vault(parse_keys(f"k:{base64.b64encode(bytes([fill] * 32)).decode()}", "the test"))


# -- verify


async def test_verify_and_its_event():
    fake = Fake()
    async with memory_broker(fake) as broker:
        await broker.register("mine", type="fake", auth_method="key", config={"place": "there"}, verify=False)
        async with broker.subscribe() as events:
            assert (await broker.verify("mine")).subject == "there"
            assert isinstance(verified := await anext(events), ConnectorVerified)
    assert (verified.connector, verified.subject) == ("mine", "there")
    assert fake.requests[-2] == m.VerifyRequest()


async def test_verify_within_the_scope():
    fake = Fake()
    async with memory_broker(fake) as broker:
        await broker.register("mine", type="fake", auth_method="key", resource_type="bucket", resource_id="a")
        await broker.verify("mine", resource_id="fake://a/logs/")
        assert fake.requests[-2] == m.VerifyRequest(resource_type="bucket", resource_id="a/logs")
        await broker.verify("mine")
        assert fake.requests[-2] == m.VerifyRequest(resource_type="bucket", resource_id="a")
        before = fake.calls.copy()
        async with broker.subscribe(VerificationFailed) as events:
            with pytest.raises(UnsupportedResource, match="is scoped to 'a' and does not reach 'b'"):
                await broker.verify("mine", resource_id="b")
            with pytest.raises(UnsupportedResource, match="is scoped to 'bucket' and does not reach 'cluster'"):
                await broker.verify("mine", resource_type="cluster")
            assert [(await anext(events)).error for _ in range(2)] == ["UnsupportedResource"] * 2
        assert fake.calls == before


async def test_what_the_vendor_says_comes_with_where_it_happened():
    async def deny(request):
        raise AccessDenied("not you")

    fake = Fake()
    fake.on["verify"] = deny
    async with memory_broker(fake) as broker:
        await broker.register("mine", type="fake", auth_method="key", verify=False)
        with pytest.raises(AccessDenied) as caught:
            await broker.verify("mine", resource_type="bucket", resource_id="a")
    assert caught.value.where == {"verb": "verify", "connector": "mine", "type": "fake", "resource": "a"}


async def test_an_expired_connector_is_refused_before_the_vendor_is_asked():
    fake, clock = Fake(), ManualClock()
    ends = clock.now() + HOUR
    async with memory_broker(fake, clock=clock) as broker:
        skew = timedelta(minutes=5)
        await broker.register(
            "mine", type="fake", auth_method="key", config={"key": "old"}, expires_at=ends, expires_skew=skew
        )
        clock.advance(timedelta(minutes=55) - timedelta(microseconds=1))
        await broker.verify("mine")
        clock.advance(timedelta(microseconds=1))
        before = fake.calls.copy()
        says = "expired at 2026-01-01 01:00:00Z; renew them: mooring connector update mine --key @FILE$"
        with pytest.raises(ConnectorExpired, match=says):
            await broker.verify("mine")
        with pytest.raises(ConnectorExpired):
            await broker.issue("mine", resource_type="bucket", resource_id="a")
        async with broker.discover() as replies:
            assert [type(one.error) async for one in replies] == [ConnectorExpired]
        assert fake.calls == before


async def test_new_secrets_end_when_the_vendor_says_not_when_the_old_ones_did():
    fake, clock = Fake(), ManualClock()
    async with memory_broker(fake, clock=clock) as broker:
        ends = clock.now() + HOUR
        await broker.register("mine", type="fake", auth_method="key", config={"key": "old"}, expires_at=ends)
        clock.advance(2 * HOUR)
        with pytest.raises(ConnectorExpired):
            await broker.update("mine", config={"place": "there"})  # still the old secret
        assert (await broker.update("mine", config={"key": "new"})).expires_at is None
        await broker.verify("mine")

        async def verify(request):
            return m.Identity(subject="me", expires_at=ends + 9 * HOUR)

        fake.on["verify"] = verify
        assert (await broker.update("mine", config={"key": "newer"})).expires_at == ends + 9 * HOUR


# -- list


async def fleet(broker: m.Broker) -> None:
    async def register(name: str, **more) -> None:
        await broker.register(name, **{"type": "fake", "auth_method": "key", "verify": False, **more})

    await register("all", labels={"team": "a", "env": "prod"})
    await register("fixed", auth_method="fixed", labels={"team": "b"})
    await register("buckets", resource_type="bucket", labels={"team": "a"})
    await register("cluster", resource_type="cluster", resource_id="x")
    await register("one", resource_type="bucket", resource_id="a")
    await register("below", resource_type="bucket", resource_id="a/logs")
    await register("other", type="example", auth_method="password", config={"user": "u"})


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, "all below buckets cluster fixed one other"),
        ({"type": "example"}, "other"),
        ({"type": "nope"}, ""),
        ({"auth_method": "fixed"}, "fixed"),
        ({"labels": {"team": "a"}}, "all buckets"),
        ({"labels": {"team": None}}, "all buckets fixed"),
        ({"labels": {"team": "a", "env": None}}, "all"),
        ({"resource_type": "cluster"}, "all cluster"),  # the fixed method does not serve clusters
        ({"resource_type": "bucket"}, "all below buckets fixed one"),
        ({"resource_type": "example-bucket"}, "other"),
        ({"resource_type": "nope"}, ""),
        ({"resource_type": "bucket", "resource_id": "a"}, "all buckets fixed one"),
        ({"resource_type": "bucket", "resource_id": "fake://a/"}, "all buckets fixed one"),
        ({"resource_type": "bucket", "resource_id": "fake://a/logs/"}, "all below buckets fixed one"),
        ({"resource_type": "bucket", "resource_id": "b"}, "all buckets fixed"),
        ({"resource_id": "x"}, "all buckets cluster fixed other"),
        ({"resource_id": "fake://x", "type": "fake", "auth_method": "key", "labels": {"team": "a"}}, "all buckets"),
        ({"resource_id": "not an identifier!", "type": "example"}, ""),
    ],
)
async def test_list(filters, names):
    async with memory_broker(Fake(), example) as broker:
        await fleet(broker)
        assert [one.name for one in await broker.list(**filters)] == names.split()


async def test_a_connector_whose_plugin_is_missing_is_listed_by_its_scope():
    store = MemoryStore()
    async with memory_broker(Fake(), example, store=store) as broker:
        await fleet(broker)
    async with memory_broker(example, store=store) as broker:
        assert len(await broker.list()) == 7
        assert [one.name for one in await broker.list(resource_type="cluster")] == ["cluster"]
        assert [one.name for one in await broker.list(resource_id="a")] == ["other"]


# -- update


async def test_update_merges_labels_and_leaves_the_rest():
    clock = ManualClock()
    async with memory_broker(Fake(), clock=clock) as broker:
        labels = {"team": "a", "env": "prod"}
        before = await broker.register(
            "mine", type="fake", auth_method="key", config={"place": "there", "key": "k"}, labels=labels
        )
        clock.advance(HOUR)
        async with broker.subscribe(ConnectorUpdated) as events:
            after = await broker.update("mine", labels={"env": None, "tier": "1"}, description="new")
            assert (await anext(events)).version == 2
        assert after.labels == {"team": "a", "tier": "1"}
        assert (after.description, after.version, after.updated_at) == ("new", 2, clock.now())
        assert (after.id, after.created_at, after.sealed, after.settings) == (
            before.id,
            before.created_at,
            before.sealed,
            before.settings,
        )
        assert await broker.get("mine") == after


async def test_update_sets_and_removes_fields():
    async with memory_broker(Fake()) as broker:
        await broker.register("mine", type="fake", auth_method="key", config={"place": "there", "key": "k"})
        updated = await broker.update("mine", config={"size": 5})
        assert (updated.settings, await broker.secrets("mine")) == (
            {"place": "there", "size": 5},
            {"key": m.Secret("k")},
        )
        updated = await broker.update("mine", config={"key": None, "place": None})
        assert (updated.settings, await broker.secrets("mine")) == ({"size": 5}, {})
        with pytest.raises(InvalidConfig, match="unknown field 'sise'"):
            await broker.update("mine", config={"sise": 5})


async def test_another_method_takes_a_whole_configuration():
    async with memory_broker(Fake()) as broker:
        await broker.register("mine", type="fake", auth_method="key", config={"place": "there", "key": "k"})
        updated = await broker.update("mine", auth_method="fixed", config={"place": "elsewhere"})
        assert (updated.auth_method, updated.settings) == ("fixed", {"place": "elsewhere"})
        assert await broker.secrets("mine") == {}
        with pytest.raises(UnknownAuthMethod):
            await broker.update("mine", auth_method="nope")


async def test_scope_rename_and_the_rest():
    async with memory_broker(Fake()) as broker:
        await broker.register("mine", type="fake", auth_method="key")
        updated = await broker.update(
            "mine", name="yours", resource_type="bucket", resource_id="fake://a", ttl=HOUR / 2, allow_unnarrowed=True
        )
        assert (updated.name, updated.resource_id, updated.ttl, updated.allow_unnarrowed) == (
            "yours",
            "a",
            HOUR / 2,
            True,
        )
        with pytest.raises(UnknownConnector):
            await broker.get("mine")
        updated = await broker.update("yours", resource_type=None, resource_id=None)
        assert (updated.resource_type, updated.resource_id) == (None, None)


async def test_an_end_without_a_zone_is_taken_as_utc():
    async with memory_broker(Fake()) as broker:
        await broker.register("mine", type="fake", auth_method="key")
        updated = await broker.update("mine", expires_at=datetime(2099, 1, 1))  # noqa: DTZ001
        assert updated.expires_at == datetime(2099, 1, 1, tzinfo=UTC)
        await broker.verify("mine")
        assert (await broker.update("mine", expires_at=None)).expires_at is None


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "a b"}, InvalidConfig),
        ({"labels": {"": "x"}}, InvalidConfig),
        ({"resource_type": "nope"}, UnsupportedResource),
        ({"resource_type": "cluster", "auth_method": "fixed"}, UnsupportedResource),
        ({"name": "taken"}, NameTaken),
        ({"id": "x"}, TypeError),
        ({"version": 9}, TypeError),
        ({"type": "example"}, TypeError),
        ({"sealed": None}, TypeError),
    ],
)
async def test_a_refused_update_changes_nothing(changes, error):
    async with memory_broker(Fake()) as broker:
        await broker.register("taken", type="fake", auth_method="key")
        before = await broker.register("mine", type="fake", auth_method="key")
        with pytest.raises(error):
            await broker.update("mine", **changes)
        assert await broker.get("mine") == before


async def test_when_the_vendor_refuses_an_update_nothing_is_changed():
    async def deny(request):
        raise AccessDenied("not you")

    fake = Fake()
    async with memory_broker(fake) as broker:
        before = await broker.register("mine", type="fake", auth_method="key")
        fake.on["verify"] = deny
        with pytest.raises(AccessDenied):
            await broker.update("mine", config={"place": "there"})
        assert await broker.get("mine") == before
        await broker.update("mine", config={"place": "there"}, verify=False)


async def test_of_two_updates_at_once_one_is_refused():
    fake = Fake()
    async with memory_broker(fake) as broker:
        await broker.register("mine", type="fake", auth_method="key")

        async def slow(request):
            await anyio.sleep(0.001)

        fake.on["verify"] = slow
        results, told = [], []

        async def update(number: int) -> None:
            try:
                results.append((await broker.update("mine", config={"size": number})).settings["size"])
            except StoreConflict as error:
                results.append("conflict")
                told.append((error.message, error.where["verb"]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(update, 2)
            tasks.start_soon(update, 3)
        assert sorted(results, key=str) in ([2, "conflict"], [3, "conflict"])
        assert (await broker.get("mine")).settings["size"] in results
    assert "changed or deleted by somebody else" in told[0][0]
    assert told[0][1] == "update"


async def test_secrets_under_another_master_key():
    store = MemoryStore()
    async with memory_broker(Fake(), store=store, vault=key(1)) as broker:
        await broker.register("mine", type="fake", auth_method="key", config={"key": "k"})
    async with memory_broker(Fake(), store=store, vault=key(2)) as broker:
        for verb in (broker.secrets, broker.verify):
            with pytest.raises(WrongKey):
                await verb("mine")
        await broker.delete("mine")  # which needs no secret


# -- delete


async def test_delete_and_its_event():
    async with memory_broker(Fake()) as broker:
        connector = await broker.register("mine", type="fake", auth_method="key")
        await broker.issue("mine", resource_type="bucket", resource_id="a")
        async with broker.subscribe(ConnectorDeleted) as events:
            assert await broker.delete(connector.id) == connector
            assert (await anext(events)).connector == "mine"
        assert await broker.list() == []
        assert broker.peek("mine", resource_type="bucket", resource_id="a") is None
        with pytest.raises(UnknownConnector):
            await broker.issue("mine", resource_type="bucket", resource_id="a")
        with pytest.raises(UnknownConnector):
            await broker.delete("mine")


async def test_a_connector_whose_plugin_is_missing_can_be_deleted():
    store = MemoryStore()
    async with memory_broker(Fake(), store=store) as broker:
        await broker.register("mine", type="fake", auth_method="key")
    async with memory_broker(store=store) as broker:
        await broker.delete("mine")
        assert await broker.list() == []


async def test_a_change_that_was_made_from_what_was_read_is_refused_if_somebody_was_faster():
    async with memory_broker(Fake()) as broker:
        read = await broker.register("mine", type="fake", auth_method="key", labels={"count": "1"})
        for verb in (partial(broker.update, description="mine now"), broker.delete):
            await broker.update("mine", labels={"count": "2"})
            with pytest.raises(StoreConflict, match="'mine' was changed since it was read; read it again"):
                await verb(read)
            assert (await broker.get("mine")).labels == {"count": "2"}

        read = await broker.get("mine")
        assert (await broker.update(read, labels={"count": "3"})).labels == {"count": "3"}
        await broker.delete(await broker.get("mine"))
        assert await broker.list() == []
