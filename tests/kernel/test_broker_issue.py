"""Issuing: what is asked of the plugin, what is enforced, what is said, and what is served again."""

import itertools
import traceback
from datetime import datetime, timedelta
from pathlib import Path

import anyio
import msgspec
import pytest

import mooring as m
from mooring.assembly import Settings
from mooring.broker import Budgets
from mooring.broker._issue import fingerprint
from mooring.credentials import BearerToken
from mooring.errors import (
    AccessDenied,
    BrokenPlugin,
    ConfigError,
    InvalidConfig,
    LongLived,
    NotNarrowed,
    Overdue,
    Rejected,
    Throttled,
    UnknownConnectorType,
    UnsupportedResource,
)
from mooring.events import CredentialsIssued, IssueFailed
from mooring.store import MemoryStore
from mooring.testing import Fake, ManualClock, example, memory_broker, powered
from mooring.vault import Vault, parse_keys

pytestmark = pytest.mark.anyio
FIRST_PAUSE = timedelta(seconds=2)
"""The longest that a first failure is remembered."""
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
CANARY = "c4n4ry"
A = {"resource_type": "bucket", "resource_id": "a"}


def token(issued: m.Issued) -> str:
    return issued.credentials.token.reveal()


def credentials(**more) -> m.BearerToken:
    return m.BearerToken(**{"token": m.Secret("t"), "expires_at": None, "narrowed": True, **more})


async def register(broker: m.Broker, name: str = "mine", **more) -> m.types.Connector:
    return await broker.register(name, **{"type": "fake", "auth_method": "key", "verify": False, **more})


# -- the request and the reply


async def test_what_the_plugin_is_asked_and_the_caller_is_told():
    fake, clock = Fake(), ManualClock()
    async with memory_broker(fake, clock=clock, consumer="me@here") as broker:
        connector = await register(broker, allow_unnarrowed=True)
        async with broker.subscribe() as events:
            issued = await broker.issue("mine", resource_type="bucket", resource_id="fake://a/", access="write")
            assert isinstance(event := await anext(events), CredentialsIssued)
    request = next(one for one in fake.requests if isinstance(one, m.CredentialRequest))
    assert request == m.CredentialRequest(
        resource_type="bucket",
        resource_id="a",
        access="write",
        ttl=HOUR,
        consumer="me@here",
        allow_unnarrowed=True,
        allow_long_lived=False,
        connector="mine",
    )
    assert (issued.connector_id, issued.connector, issued.connector_type) == (connector.id, "mine", "fake")
    assert (issued.resource_type, issued.resource_id, issued.access) == ("bucket", "a", "write")
    assert (issued.consumer, issued.issued_at, issued.expires_at) == ("me@here", clock.now(), clock.now() + HOUR)
    assert (issued.narrowed, issued.clamped, issued.cached) == (True, (), False)
    assert (event.consumer, event.resource_id, event.expires_at, event.narrowed) == (
        "me@here",
        "a",
        issued.expires_at,
        True,
    )
    assert fake.opened == fake.closed == 1


async def test_the_context_of_the_session():
    fake = Fake()
    async with memory_broker(fake) as broker:
        connector = await register(broker, config={"key": "k"})
        await broker.issue("mine", consumer="job-7", **A)
    context = fake.requests[0]
    assert (context.connector_id, context.connector, context.consumer) == (connector.id, "mine", "job-7")
    assert context.shared is None
    assert context.http is context.tools.http


async def test_the_consumer_is_user_and_host_unless_named():
    import getpass
    import socket

    async with memory_broker(example) as broker:
        await broker.register("mine", type="example", config={"user": "u"})
        issued = await broker.issue("mine", resource_id="a")
        named = await broker.issue("mine", resource_id="a", consumer="job-7")
    assert issued.consumer == f"{getpass.getuser()}@{socket.gethostname()}"
    assert (named.consumer, named.cached) == ("job-7", True)


async def test_the_connectors_scope_stands_for_what_is_not_named():
    async with memory_broker(Fake()) as broker:
        await register(broker, resource_type="bucket", resource_id="a")
        assert (await broker.issue("mine")).resource_id == "a"
        assert (await broker.issue("mine", resource_id="fake://a/logs")).resource_id == "a/logs"
        with pytest.raises(UnsupportedResource, match="is scoped to 'a' and does not reach 'ab'"):
            await broker.issue("mine", resource_id="ab")


async def test_a_type_with_one_instance_needs_no_id():
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker)
        issued = await broker.issue("mine", resource_type="generic")
    assert (issued.resource_type, issued.resource_id) == ("generic", None)


@pytest.mark.parametrize(
    ("wish", "error", "words"),
    [
        ({}, InvalidConfig, "reaches several resource types; name one of: bucket, cluster, generic"),
        ({"resource_type": "bucket"}, InvalidConfig, "reaches several resources; name one with --resource-id"),
        ({"resource_id": "a"}, InvalidConfig, "name the resource type too"),
        ({"resource_type": "nope"}, UnsupportedResource, "does not reach 'nope'"),
        ({**A, "access": "admin"}, InvalidConfig, "access is one of: list, read, write"),
        ({**A, "ttl": timedelta(0)}, InvalidConfig, "longer than nothing"),
        ({**A, "ttl": -HOUR}, InvalidConfig, "longer than nothing"),
        ({"resource_type": "bucket", "resource_id": "/"}, InvalidConfig, "not a bucket"),
    ],
)
async def test_a_wish_that_makes_no_sense(wish, error, words):
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker)
        with pytest.raises(error, match=words) as caught:
            await broker.issue("mine", **wish)
    assert caught.value.where["verb"] == "issue"
    assert not fake.calls


# -- ttl


@pytest.mark.parametrize(
    ("wish", "asked", "note"),
    [
        (None, HOUR, ()),
        (2 * HOUR, 2 * HOUR, ()),
        (15 * MINUTE, 15 * MINUTE, ()),
        (24 * HOUR, 12 * HOUR, ("the ttl of 24h was shortened to 12h, the bound of key",)),
        (90 * MINUTE + 12 * HOUR, 12 * HOUR, ("the ttl of 810m was shortened to 12h, the bound of key",)),
        (timedelta(seconds=50), 15 * MINUTE, ("the ttl of 50s was raised to 15m, the bound of key",)),
    ],
)
async def test_the_ttl_is_brought_within_the_bounds_and_the_reply_says_so(wish, asked, note):
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker)
        issued = await broker.issue("mine", ttl=wish, **A)
    assert fake.requests[1].ttl == asked
    assert issued.clamped == note


async def test_the_connectors_ttl_stands_for_none():
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker, ttl=24 * HOUR)
        assert (await broker.issue("mine", **A)).clamped == ("the ttl of 24h was shortened to 12h, the bound of key",)
        assert (await broker.issue("mine", ttl=HOUR, **A)).clamped == ()
    assert [one.ttl for one in fake.requests if isinstance(one, m.CredentialRequest)] == [12 * HOUR, HOUR]


async def test_a_method_without_a_lifetime_takes_no_ttl():
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker, auth_method="fixed")
        issued = await broker.issue("mine", ttl=HOUR, **A)
    assert fake.requests[1].ttl is None
    assert issued.clamped == ("the ttl of fixed credentials is not for the caller to choose",)


async def test_each_reply_says_what_became_of_its_own_wish():
    """The same credentials serve the wish that was clamped and the one that was not."""
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker)
        clamped = await broker.issue("mine", ttl=24 * HOUR, **A)
        exact = await broker.issue("mine", ttl=12 * HOUR, **A)
        other = await broker.issue("mine", ttl=36 * HOUR, **A)
        again = await broker.issue("mine", ttl=24 * HOUR, **A)
        peeked = broker.peek("mine", ttl=24 * HOUR, **A)
    assert fake.calls["issue_credentials"] == 1
    assert exact.clamped == ()
    assert [one.clamped for one in (clamped, again, peeked)] == [
        ("the ttl of 24h was shortened to 12h, the bound of key",)
    ] * 3
    assert other.clamped == ("the ttl of 36h was shortened to 12h, the bound of key",)


async def test_what_the_plugin_clamped_is_said_too():
    async def issue(request):
        return credentials(clamped=("15 minutes is all there is",), expires_at=m.instant("2026-01-01T01:00:00Z"))

    fake = Fake()
    fake.on["issue_credentials"] = issue
    async with memory_broker(fake, clock=ManualClock()) as broker:
        await register(broker)
        issued = await broker.issue("mine", ttl=24 * HOUR, **A)
    assert issued.clamped == (
        "the ttl of 24h was shortened to 12h, the bound of key",
        "15 minutes is all there is",
    )


# -- what is enforced, whatever the plugin did


@pytest.mark.parametrize(
    ("given", "allowed", "kind", "refused"),
    [
        ({"narrowed": False, "ends": True}, {}, "bucket", NotNarrowed),
        ({"narrowed": False, "ends": True}, {"allow_unnarrowed": True}, "bucket", None),
        ({"narrowed": False, "ends": True}, {"allow_long_lived": True}, "bucket", NotNarrowed),
        ({"narrowed": False, "ends": True}, {}, "generic", None),
        ({"narrowed": True, "ends": False}, {}, "bucket", LongLived),
        ({"narrowed": True, "ends": False}, {}, "generic", LongLived),
        ({"narrowed": True, "ends": False}, {"allow_unnarrowed": True}, "bucket", LongLived),
        ({"narrowed": True, "ends": False}, {"allow_long_lived": True}, "bucket", None),
        ({"narrowed": False, "ends": False}, {}, "bucket", NotNarrowed),  # the milder permission is named first
        ({"narrowed": False, "ends": False}, {"allow_long_lived": True}, "bucket", NotNarrowed),
        ({"narrowed": False, "ends": False}, {"allow_unnarrowed": True}, "bucket", LongLived),
        ({"narrowed": False, "ends": False}, {"allow_unnarrowed": True, "allow_long_lived": True}, "bucket", None),
    ],
)
async def test_nothing_wider_or_longer_leaves_than_is_allowed(given, allowed, kind, refused):
    async def issue(request):
        ends = clock.now() + HOUR if given["ends"] else None
        return credentials(narrowed=given["narrowed"], expires_at=ends)

    fake, clock = Fake(), ManualClock()
    fake.on["issue_credentials"] = issue
    async with memory_broker(fake, clock=clock) as broker:
        await register(broker, **allowed)
        wish = {"resource_type": kind, "resource_id": "a" if kind == "bucket" else None}
        if refused is None:
            issued = await broker.issue("mine", **wish)
            assert (issued.narrowed, issued.expires_at is not None) == (given["narrowed"], given["ends"])
        else:
            with pytest.raises(refused, match="mooring connector update mine --allow-"):
                await broker.issue("mine", **wish)
            assert broker.peek("mine", **wish) is None


async def test_something_that_is_not_credentials():
    async def issue(request):
        return {"token": CANARY}

    fake = Fake()
    fake.on["issue_credentials"] = issue
    async with memory_broker(fake) as broker:
        await register(broker)
        with pytest.raises(BrokenPlugin, match="gave a dict from issue_credentials, not a Credentials"):
            await broker.issue("mine", **A)


@pytest.mark.parametrize("hook", ["authenticate", "issue_credentials", "close"])
async def test_foreign_errors_name_the_plugin_and_the_place_and_say_nothing_else(hook):
    async def fail(request):
        raise RuntimeError(f"password {CANARY}")

    fake = Fake()
    fake.on[hook] = fail
    async with memory_broker(fake) as broker, broker.subscribe(IssueFailed) as events:
        await register(broker)
        with pytest.raises(
            BrokenPlugin, match=r"the plugin 'fake' of \(given\) failed in .*: RuntimeError at "
        ) as caught:
            await broker.issue("mine", **A)
        event = await anext(events)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert CANARY not in repr(event)
    assert (event.error, event.resource_id, event.message) == ("BrokenPlugin", "a", caught.value.message)
    assert caught.value.where == {"verb": "issue", "connector": "mine", "type": "fake", "resource": "a"}


@pytest.mark.parametrize("hook", ["authenticate", "issue_credentials"])
async def test_the_budget(hook):
    async def hang(request):
        await anyio.sleep_forever()

    fake, clock = Fake(), ManualClock()
    fake.on[hook] = hang
    async with memory_broker(fake, clock=clock, budgets=Budgets(issue=timedelta(seconds=0.01))) as broker:
        await register(broker)
        with pytest.raises(Overdue, match=r"took longer than 0.01 s"):
            await broker.issue("mine", **A)
        del fake.on[hook]
        clock.advance(FIRST_PAUSE)
        await broker.issue("mine", **A)
    assert fake.opened == fake.closed


# -- what is served again


async def test_what_is_fresh_is_served_again_without_a_call():
    fake, clock = Fake(), ManualClock()
    async with memory_broker(fake, clock=clock, refresh=False) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        clock.advance(45 * MINUTE)
        assert token(await broker.issue("mine", **A)) == "here-2", "who asks then renews, where nobody else does"
    fake, clock = Fake(), ManualClock()
    async with memory_broker(fake, clock=clock) as broker:
        await register(broker)
        first = await broker.issue("mine", **A)
        again = await broker.issue("mine", **A)
        assert (first.cached, again.cached, token(first)) == (False, True, token(again))
        clock.advance(55 * MINUTE - timedelta(microseconds=1))
        assert token(await broker.issue("mine", **A)) == "here-1"
        clock.advance(timedelta(microseconds=1))
        renewed = await broker.issue("mine", **A)
        assert (token(renewed), renewed.cached) == ("here-2", False)
    assert fake.opened == fake.closed == 2


async def test_other_forms_of_the_same_id_are_the_same_credentials():
    fake = Fake()
    async with memory_broker(fake) as broker:
        connector = await register(broker)
        for name, text in itertools.product(["mine", connector.id, connector.id[:8]], ["a", "/a/", "fake://a"]):
            await broker.issue(name, resource_type="bucket", resource_id=text)
    assert fake.calls["issue_credentials"] == 1


async def test_access_ttl_and_resource_are_part_of_the_key():
    fake = Fake()
    async with memory_broker(fake) as broker:
        await register(broker)
        wishes = [
            {**A, "access": "list"},
            {**A, "access": "read"},
            {**A, "access": "write"},
            {**A, "ttl": 2 * HOUR},
            {**A, "resource_id": "b"},
            {"resource_type": "cluster", "resource_id": "a"},
        ]
        tokens = [token(await broker.issue("mine", **wish)) for wish in wishes]
        assert len(set(tokens)) == len(wishes)
        assert token(await broker.issue("mine", ttl=HOUR, **A)) == tokens[1]  # the default, spelt out


async def test_of_many_callers_one_makes_and_the_others_are_told_it_was_at_hand():
    fake = Fake()
    replies = []

    async def slow(request):
        await anyio.sleep(0.001)

    fake.on["issue_credentials"] = slow
    async with memory_broker(fake) as broker:
        await register(broker)

        async def call(number: int) -> None:
            replies.append(await broker.issue("mine", consumer=f"c{number % 2}", **A))

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(call, number)
    assert fake.calls["issue_credentials"] == 1
    assert sorted(one.cached for one in replies) == [False] + [True] * 99
    assert {one.consumer for one in replies} == {"c0", "c1"}


async def test_a_failure_is_kept_for_a_moment_and_older_credentials_bridge_one_that_may_pass():
    async def fail(request):
        raise error

    fake, clock = Fake(), ManualClock()
    async with memory_broker(fake, clock=clock) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        clock.advance(56 * MINUTE)
        fake.on["issue_credentials"] = fail
        error = Throttled("slow down", retry_after=timedelta(seconds=30))
        for _ in range(3):
            bridged = await broker.issue("mine", **A)
            assert (token(bridged), bridged.cached) == ("here-1", True)
        assert fake.calls["issue_credentials"] == 2
        clock.advance(timedelta(seconds=30))
        error = AccessDenied("no more")
        for _ in range(3):
            with pytest.raises(AccessDenied, match="no more"):
                await broker.issue("mine", **A)
        assert fake.calls["issue_credentials"] <= 2 + 3
        del fake.on["issue_credentials"]
        clock.advance(timedelta(seconds=5))
        assert token(await broker.issue("mine", **A)) == "here-2"


async def test_issue_after_an_update_is_by_the_new_configuration():
    async with memory_broker(Fake()) as broker:
        await register(broker)
        assert token(await broker.issue("mine", **A)) == "here-1"
        await broker.update("mine", config={"place": "there"})
        assert broker.peek("mine", **A) is None
        assert token(await broker.issue("mine", **A)) == "there-2"


@pytest.mark.parametrize("change", ["update", "delete"])
async def test_another_brokers_change_takes_effect_within_a_second(change):
    store, clock = MemoryStore(), ManualClock()
    vault = Vault(parse_keys("k:" + "A" * 43 + "=", "the test"))
    shared = {"store": store, "clock": clock, "vault": vault}
    async with memory_broker(Fake(), **shared) as one, memory_broker(Fake(), **shared) as other:
        await register(one)
        await one.issue("mine", **A)
        if change == "update":
            await other.update("mine", config={"place": "there"})
        else:
            await other.delete("mine")
        clock.advance(timedelta(seconds=1))
        assert one.peek("mine", **A) is None
        if change == "update":
            assert token(await one.issue("mine", **A)) == "there-2"
        else:
            with pytest.raises(m.UnknownConnector):
                await one.issue("mine", **A)


async def test_brokers_of_one_machine_share_what_is_sealed(tmp_path: Path):
    fake, store = Fake(), MemoryStore()
    vault = Vault(parse_keys("k:" + "A" * 43 + "=", "the test"))
    shared = {"store": store, "vault": vault, "share_cache": True, "settings": Settings(home=tmp_path)}
    async with memory_broker(fake, **shared) as broker:
        await register(broker)
        first = await broker.issue("mine", ttl=24 * HOUR, consumer="one", **A)
    async with memory_broker(fake, **shared) as broker:
        again = await broker.issue("mine", ttl=12 * HOUR, consumer="two", **A)
        await broker.update("mine", config={"place": "there"})
        assert token(await broker.issue("mine", ttl=12 * HOUR, **A)) == "there-2"
    assert (token(again), again.cached, again.consumer, again.clamped) == (token(first), True, "two", ())
    assert again.expires_at == first.expires_at


def on_disk(tmp_path: Path, **more) -> dict:
    vault = Vault(parse_keys("k:" + "A" * 43 + "=", "the test"))
    settings = Settings(home=tmp_path, allow_implicit=True)
    return {"store": MemoryStore(), "vault": vault, "share_cache": True, "settings": settings, **more}


def sealed_files(tmp_path: Path) -> int:
    return len(list((tmp_path / "cache").glob("*.sealed")))


@pytest.mark.parametrize("place", ["missing", "a file", "a link", "a link to nowhere", "below a file"])
async def test_whatever_lies_where_the_shelf_should_be_each_issue_succeeds(tmp_path: Path, place: str):
    home, fake = tmp_path / "home", Fake()
    home.mkdir()
    if place == "a file":
        (home / "cache").write_text("x")
    elif place.startswith("a link"):
        (home / "cache").symlink_to(tmp_path if place == "a link" else tmp_path / "nowhere")
    elif place == "below a file":
        home.rmdir()
        home.write_text("x")
    shared = on_disk(home)
    with anyio.fail_after(20):
        async with memory_broker(fake, **shared) as broker, memory_broker(fake, **shared) as other:
            await register(broker)
            tokens = [token(await one.issue("mine", **A)) for one in (broker, broker, other)]
            await broker.delete("mine")
    assert tokens == ["here-1", "here-1", "here-1" if place == "missing" else "here-2"]


TRIVIAL = {
    "labels": {"labels": {"a": "b"}},
    "description": {"description": "d"},
    "owner": {"owner": "o"},
    "expires_at": {"expires_at": m.instant("2030-01-01")},
    "ttl": {"ttl": HOUR},
    "name": {"name": "other"},
}
REAL = {
    "a setting": {"config": {"place": "there"}},
    "a secret": {"config": {"key": "k2"}},
    "the auth method": {"auth_method": "fixed", "config": {"key": "k"}},
    "the scope": {"resource_type": "bucket"},
    "allow_unnarrowed": {"allow_unnarrowed": True},
    "allow_long_lived": {"allow_long_lived": True},
}


@pytest.mark.parametrize("change", TRIVIAL.values(), ids=TRIVIAL)
async def test_a_change_that_credentials_do_not_depend_on_empties_nothing(tmp_path: Path, change):
    fake, shared = Fake(), on_disk(tmp_path, clock=ManualClock())
    async with memory_broker(fake, **shared) as broker:
        connector = await register(broker, config={"key": "k"})
        await broker.issue("mine", **A)
        changed = await broker.update("mine", **change)
        again = await broker.issue(connector.id, **A)
        async with memory_broker(fake, **shared) as other:
            shelved = await other.issue(connector.id, **A)
    assert fake.calls["issue_credentials"] == 1
    assert (again.cached, shelved.cached) == (True, True)
    assert again.connector == shelved.connector == changed.name


@pytest.mark.parametrize("change", REAL.values(), ids=REAL)
async def test_a_change_that_credentials_depend_on_empties_memory_and_shelf(tmp_path: Path, change):
    fake = Fake()
    async with memory_broker(fake, **on_disk(tmp_path)) as broker:
        await register(broker, config={"key": "k"})
        await register(broker, name="other", config={"key": "k"})
        for name in ("mine", "other"):
            await broker.issue(name, **A)
        assert sealed_files(tmp_path) == 2
        await broker.update("mine", **change)
        assert sealed_files(tmp_path) == 1
        assert broker.peek("mine", **A) is None
        assert (await broker.issue("mine", **A)).cached is False
        assert (await broker.issue("other", **A)).cached is True
    assert fake.calls["issue_credentials"] == 3


async def test_what_one_process_takes_back_no_other_finds_on_the_shelf(tmp_path: Path):
    """As three commands one after the other: issue, lease revoke, issue."""
    fake, shared = Fake(), on_disk(tmp_path, refresh=False)
    async with memory_broker(fake, **shared) as broker:
        await register(broker)
        first = await broker.issue("mine", **A)
    async with memory_broker(fake, **shared) as broker:
        assert [one.state for one in await broker.revoke(first.lease)] == ["released"]
    async with memory_broker(fake, **shared) as broker:
        again = await broker.issue("mine", **A)
    assert (again.lease != first.lease, token(again)) == (True, "here-2")


async def test_a_deleted_connector_leaves_nothing_on_the_shelf(tmp_path: Path):
    async with memory_broker(Fake(), **on_disk(tmp_path)) as broker:
        await register(broker)
        await broker.issue("mine", **A)
        await broker.issue("mine", access="write", **A)
        assert sealed_files(tmp_path) == 2
        await broker.delete("mine")
    assert list((tmp_path / "cache").iterdir()) == []


async def test_another_wrapping_of_the_same_secrets_is_the_same_fingerprint():
    """As the master key's rotation writes it."""
    async with memory_broker(Fake()) as broker:
        connector = await register(broker, config={"key": "k"})
        other = await register(broker, name="other", config={"key": "k"})
    rewrapped = msgspec.structs.replace(connector.sealed, key_id="new", check=b"new", wrapped=b"new")
    assert fingerprint(msgspec.structs.replace(connector, sealed=rewrapped)) == fingerprint(connector)
    resealed = msgspec.structs.replace(connector.sealed, fields={"key": b"new"})
    assert fingerprint(msgspec.structs.replace(connector, sealed=resealed)) != fingerprint(connector)
    assert fingerprint(msgspec.structs.replace(connector, sealed=None)) != fingerprint(connector)
    assert fingerprint(msgspec.structs.replace(connector, settings={"b": 1, "a": 2})) == fingerprint(
        msgspec.structs.replace(connector, settings={"a": 2, "b": 1})
    )
    assert fingerprint(other) != fingerprint(connector)


async def test_the_machines_own_identity_is_not_shared_between_processes(tmp_path: Path):
    """What it is depends on a process's environment."""
    fake, shared = Fake(), on_disk(tmp_path)
    wish = {"resource_type": "cluster", "resource_id": "x"}
    async with memory_broker(fake, **shared) as broker:
        await register(broker, auth_method="implicit")
        first = await broker.issue("mine", **wish)
        assert token(await broker.issue("mine", **wish)) == token(first)
        async with memory_broker(fake, **shared) as other:
            assert token(await other.issue("mine", **wish)) == "here-2"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("skew", [timedelta(0), 5 * MINUTE])
async def test_nothing_is_served_once_the_connectors_own_credentials_have_ended(tmp_path: Path, skew):
    clock, fake = ManualClock(), Fake()
    shared = on_disk(tmp_path, clock=clock)
    ends = clock.now() + 20 * MINUTE
    async with memory_broker(fake, **shared) as broker, memory_broker(fake, **shared) as other:
        await register(broker, expires_at=ends, expires_skew=skew)
        await broker.issue("mine", **A)
        clock.advance(20 * MINUTE - skew - timedelta(microseconds=1))
        await broker.issue("mine", **A)
        await other.issue("mine", resource_type="bucket", resource_id="b")
        assert broker.peek("mine", **A) is not None
        clock.advance(timedelta(microseconds=1))
        assert broker.peek("mine", **A) is None
        async with broker.subscribe(IssueFailed) as events:
            for one in (broker, other):  # what one has in memory, and what the other finds on the shelf
                with pytest.raises(m.errors.ConnectorExpired, match="mooring connector update mine") as caught:
                    await one.issue("mine", **A)
                assert caught.value.where["verb"] == "issue"
            assert (await anext(events)).error == "ConnectorExpired"
        assert fake.calls["issue_credentials"] == 2
        await broker.update("mine", expires_at=None)
        assert (await broker.issue("mine", **A)).cached is True


# -- peek, explain, client


async def test_peek():
    clock = ManualClock()
    async with memory_broker(Fake(), clock=clock) as broker:
        await register(broker)
        assert broker.peek("mine", **A) is None
        await broker.issue("mine", **A)
        assert broker.peek("mine", consumer="job", **A) is None  # a first hand-out is on record before it is made
        await broker.issue("mine", consumer="job", **A)
        peeked = broker.peek("mine", consumer="job", **A)
        assert broker.peek("mine", consumer="job", refused=peeked.lease, **A) is None
        assert (peeked.cached, peeked.consumer, token(peeked)) == (True, "job", "here-1")
        assert broker.peek("mine", access="write", **A) is None
        assert broker.peek("nope", **A) is None
        clock.advance(timedelta(seconds=0.5))
        assert broker.peek("mine", **A) is None  # somebody may have changed the connector
        await broker.issue("mine", **A)
        assert broker.peek("mine", **A) is not None


async def test_explain():
    async with memory_broker(powered, Fake()) as broker:
        await broker.register("mine", type="example", config={"user": "u"})
        explanation = await broker.explain("mine", resource_id="example://a")
        assert (explanation.policy, explanation.calls) == ({"bucket": "a"}, ("example:GetToken",))
        with pytest.raises(InvalidConfig):
            await broker.explain("mine", resource_id="no such form")
        await broker.register("other", type="fake", auth_method="key")
        with pytest.raises(ConfigError, match="'fake' cannot explain"):
            await broker.explain("other", **A)


async def test_a_client_renews_its_credentials():
    class Owner(Fake):
        @m.hookimpl
        def describe(self):
            return msgspec.structs.replace(super().describe(), credentials=(m.BearerToken,))

        @m.hookimpl
        def client(self, request):
            return powered.client(request)

    fake, clock = Owner(), ManualClock()
    async with memory_broker(fake, clock=clock) as broker:
        await register(broker)
        async with broker.client("mine", **A) as renew:
            assert (first := await renew()).token.reveal() == "here-1"
            clock.advance(55 * MINUTE)
            assert (second := await renew()).token.reveal() == "here-2"
            assert (await renew(first)).token.reveal() == "here-2", "that one was refused long ago"
            assert (await renew(second)).token.reveal() == "here-3"
            assert (await renew(second)).token.reveal() == "here-3"


async def test_the_client_comes_from_the_plugin_that_owns_the_kind():
    async with memory_broker(Fake(), powered) as broker:
        await register(broker)
        async with broker.client("mine", **A) as renew:
            assert (await renew()).token.reveal() == "here-1"
        with pytest.raises(ValueError, match="mine"):
            async with broker.client("mine", **A):
                raise ValueError("mine")


async def test_there_may_be_no_client():
    class Owner(Fake):
        @m.hookimpl
        def describe(self):
            return msgspec.structs.replace(super().describe(), credentials=(m.BearerToken,))

    async with memory_broker(Fake()) as broker:
        await register(broker)
        with pytest.raises(UnknownConnectorType, match="no installed plugin makes clients of 'bearer-token'"):
            async with broker.client("mine", **A):
                pass
    async with memory_broker(Owner()) as broker:
        await register(broker)
        with pytest.raises(UnsupportedResource, match="'fake' makes no asynchronous clients"):
            async with broker.client("mine", **A):
                pass


async def test_a_client_that_fails_to_open_is_the_plugins_fault():
    class Owner(type(powered)):
        @m.hookimpl
        def client(self, request):
            raise RuntimeError(CANARY)

    async with memory_broker(Owner()) as broker:
        await broker.register("mine", type="example", config={"user": "u"})
        with pytest.raises(BrokenPlugin, match="failed in client: RuntimeError at") as caught:
            async with broker.client("mine", resource_id="a"):
                pass
    assert CANARY not in "".join(traceback.format_exception(caught.value))


# -- what a plugin gets wrong, and what it must not get through


def faking(**on) -> Fake:
    fake = Fake()
    fake.on.update(on)
    return fake


@pytest.mark.parametrize(
    "wrong",
    [
        {"narrowed": "yes"},
        {"expires_at": 5},
        {"expires_at": "2030-01-01T00:00:00Z"},
        {"expires_at": datetime(2030, 1, 1)},  # noqa: DTZ001  naive on purpose
        {"token": 5},
    ],
)
async def test_credentials_with_fields_of_other_types_are_the_plugins_fault(wrong):
    async def issue(request):
        right = {"token": m.Secret("canary"), "expires_at": ManualClock().now() + HOUR, "narrowed": True}
        return BearerToken(**right | wrong)

    async with memory_broker(faking(issue_credentials=issue), clock=ManualClock()) as broker:
        await broker.register("mine", type="fake", auth_method="key")
        for _ in range(2):
            with pytest.raises(BrokenPlugin, match="not of its type") as caught:
                await broker.issue("mine", resource_type="bucket", resource_id="a")
            assert "canary" not in str(caught.value)


async def test_what_has_ended_or_hardly_ends_is_not_handed_out():
    clock, ends = ManualClock(), [-HOUR]

    async def issue(request):
        return BearerToken(token=m.Secret("t"), expires_at=clock.now() + ends[0], narrowed=True)

    async with memory_broker(faking(issue_credentials=issue), clock=clock) as broker:
        await broker.register("mine", type="fake", auth_method="key")
        with pytest.raises(Rejected, match="have ended"):
            await broker.issue("mine", resource_type="bucket", resource_id="a")
        clock.advance(FIRST_PAUSE)
        ends[0] = 100_000 * HOUR
        with pytest.raises(LongLived):
            await broker.issue("mine", resource_type="bucket", resource_id="a")
        await broker.update("mine", allow_long_lived=True)
        assert (await broker.issue("mine", resource_type="bucket", resource_id="a")).expires_at == clock.now() + ends[0]


@pytest.mark.parametrize("error", [SystemExit("canary"), type("Panic", (BaseException,), {})("canary")])
async def test_whatever_a_plugin_raises_is_its_own_fault(error):
    async def fail(request):
        raise error

    async with memory_broker(faking(issue_credentials=fail, verify=fail)) as broker:
        await broker.register("mine", type="fake", auth_method="key", verify=False)
        for call in (broker.verify("mine"), broker.issue("mine", resource_type="bucket", resource_id="a")):
            with pytest.raises(BrokenPlugin) as caught:
                await call
            assert "canary" not in "".join(traceback.format_exception(caught.value))


async def test_callers_of_a_vendor_that_hangs_do_not_queue_up():
    async def hang(request):
        await anyio.sleep_forever()

    took = []
    async with memory_broker(faking(issue_credentials=hang), budgets=Budgets(issue=timedelta(seconds=0.05))) as broker:
        await broker.register("mine", type="fake", auth_method="key")

        async def ask():
            begin = anyio.current_time()
            with pytest.raises(Overdue):
                await broker.issue("mine", resource_type="bucket", resource_id="a")
            took.append(anyio.current_time() - begin)

        async with anyio.create_task_group() as tasks:
            for _ in range(60):
                tasks.start_soon(ask)
    assert max(took) < 2, "not 60 times the budget"


async def test_a_host_hears_of_secrets_before_a_plugin_gets_them():
    heard = []
    async with memory_broker(Fake(), opened=heard.extend) as broker:
        await broker.register("mine", type="fake", auth_method="key", config={"key": "k"}, verify=False)
        assert heard == []
        await broker.issue("mine", resource_type="bucket", resource_id="a")
    assert [one.reveal() for one in heard] == ["k"]
