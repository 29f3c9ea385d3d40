"""Registering: what is accepted, what is refused before the vendor hears of it, and what is stored."""

import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

import mooring as m
from mooring.assembly import Settings
from mooring.broker import Budgets
from mooring.errors import (
    AuthFailed,
    BrokenPlugin,
    InvalidConfig,
    NameTaken,
    NothingToLift,
    NotPermitted,
    Overdue,
    Rejected,
    UnknownAuthMethod,
    UnknownConnector,
    UnknownConnectorType,
    UnsupportedResource,
)
from mooring.events import ConnectorEvent, ConnectorRegistered, ConnectorVerified, VerificationFailed
from mooring.store import MemoryStore
from mooring.testing import ExampleConfig, Fake, FakeConfig, ManualClock, example, memory_broker, powered

pytestmark = pytest.mark.anyio
CANARY = "c4n4ry"


def permissive(**more):
    return {"settings": Settings(home=Path("/nonexistent"), allow_implicit=True), **more}


async def test_a_multi_type_connector():
    fake, clock = Fake(), ManualClock()
    async with memory_broker(fake, clock=clock, consumer="tester") as broker:
        connector = await broker.register(
            "mine",
            type="fake",
            auth_method="key",
            config={"place": "there", "key": CANARY, "size": "3"},
            labels={"team": "a"},
            description="for tests",
            ttl=timedelta(minutes=20),
        )
        assert (
            await broker.get("mine")
            == connector
            == await broker.get(connector.id)
            == await broker.get(connector.id[:8])
        )
        secrets = await broker.secrets("mine")
    assert (connector.resource_type, connector.resource_id) == (None, None)
    assert connector.settings == {"place": "there", "size": 3}
    assert CANARY not in repr(connector)
    assert secrets == {"key": m.Secret(CANARY)}
    assert (connector.owner, connector.labels, connector.description) == (connector.owner, {"team": "a"}, "for tests")
    assert connector.owner
    assert (connector.created_at, connector.updated_at, connector.version) == (clock.now(), clock.now(), 1)
    assert fake.calls == {"authenticate": 1, "verify": 1, "close": 1}


async def test_a_single_type_connector():
    async with memory_broker(Fake()) as broker:
        connector = await broker.register("mine", type="fake", auth_method="key", resource_type="bucket")
    assert (connector.resource_type, connector.resource_id) == ("bucket", None)


async def test_a_single_instance_is_stored_canonical_and_verified():
    fake = Fake()
    async with memory_broker(fake) as broker:
        connector = await broker.register(
            "mine", type="fake", auth_method="key", resource_type="bucket", resource_id="fake://a/"
        )
    assert (connector.resource_type, connector.resource_id) == ("bucket", "a")
    assert fake.requests[1] == m.VerifyRequest(resource_type="bucket", resource_id="a")


async def test_the_only_type_and_method_need_no_name():
    async with memory_broker(example) as broker:
        connector = await broker.register("mine", type="example", config={"user": "u"}, resource_id="example://a")
    assert (connector.auth_method, connector.resource_type, connector.resource_id) == (
        "password",
        "example-bucket",
        "a",
    )


async def test_ids_are_completed_from_the_settings():
    async with memory_broker(powered) as broker:
        connector = await broker.register("mine", type="example", config={"user": "u"}, resource_id="_")
    assert connector.resource_id == "u"


@pytest.mark.parametrize(
    "name", ["", ".a", "-a", "a b", "a/b", "a" * 129, "ä", "a\n", "a\x00"], ids=lambda name: repr(name)[:8]
)
async def test_bad_names(name):
    fake = Fake()
    async with memory_broker(fake) as broker:
        with pytest.raises(InvalidConfig, match="a connector's name is") as caught:
            await broker.register(name, type="fake", auth_method="key")
    assert caught.value.field == "name"
    assert not fake.calls


@pytest.mark.parametrize("name", ["a", "A9", "0", "a.b-c_d", "a" * 128])
async def test_good_names(name):
    async with memory_broker(Fake()) as broker:
        assert (await broker.register(name, type="fake", auth_method="key")).name == name


@pytest.mark.parametrize("labels", [{"": "x"}, {"a\n": "x"}, {"a": "\x1b[31m"}, {"a" * 257: ""}, {"a": "b" * 257}])
async def test_bad_labels(labels):
    fake = Fake()
    async with memory_broker(fake) as broker:
        with pytest.raises(InvalidConfig) as caught:
            await broker.register("mine", type="fake", auth_method="key", labels=labels)
    assert caught.value.field == "labels"
    assert not fake.calls


async def test_a_name_that_is_taken_is_refused_before_the_vendor_is_asked():
    fake = Fake()
    async with memory_broker(fake) as broker:
        await broker.register("mine", type="fake", auth_method="key")
        before = fake.calls.copy()
        with pytest.raises(NameTaken, match="'mine' exists already"):
            await broker.register("mine", type="fake", auth_method="key")
        assert fake.calls == before
        assert len(await broker.list()) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"type": "aws"}, UnknownConnectorType, "install the plugin that does"),
        ({"type": "fake", "auth_method": "kye"}, UnknownAuthMethod, "did you mean 'key'"),
        ({"type": "fake"}, UnknownAuthMethod, "one of: key, fixed, implicit"),
        ({"auth_method": "key", "config": {"plcae": CANARY}}, InvalidConfig, "unknown field 'plcae'"),
        ({"auth_method": "key", "config": {"size": CANARY}}, InvalidConfig, "field 'size' is malformed"),
        ({"auth_method": "key", "config": ExampleConfig(user=CANARY)}, InvalidConfig, "by a FakeConfig, not by a Ex"),
        ({"auth_method": "key", "resource_type": "bukket"}, UnsupportedResource, "did you mean 'bucket'"),
        ({"auth_method": "key", "resource_id": "a"}, InvalidConfig, "name the resource type too"),
        ({"auth_method": "fixed", "resource_type": "cluster"}, UnsupportedResource, "use one of: key, implicit"),
        ({"auth_method": "key", "resource_type": "bucket", "resource_id": "//"}, InvalidConfig, "not a bucket"),
        ({"auth_method": "implicit"}, NotPermitted, "MOORING_ALLOW_IMPLICIT=1"),
    ],
)
async def test_what_is_refused_before_the_vendor_is_asked(arguments, error, words):
    fake = Fake()
    async with memory_broker(fake) as broker:
        with pytest.raises(error, match=words) as caught:
            await broker.register("mine", **{"type": "fake", **arguments})
        assert await broker.list() == []
    assert not fake.calls
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert caught.value.where["connector"] == "mine"


async def test_a_configuration_may_be_an_object():
    async with memory_broker(Fake()) as broker:
        config = FakeConfig(place="there", key=m.Secret("k"))
        connector = await broker.register("mine", type="fake", auth_method="key", config=config)
        assert connector.settings == {"place": "there"}
        assert (await broker.secrets("mine"))["key"].reveal() == "k"


async def test_implicit_authentication_where_it_is_allowed():
    async with memory_broker(Fake(), **permissive()) as broker:
        assert (await broker.register("mine", type="fake", auth_method="implicit")).auth_method == "implicit"


async def test_an_implicit_connector_is_refused_once_it_is_allowed_no_more():
    store = MemoryStore()
    async with memory_broker(Fake(), **permissive(store=store)) as broker:
        await broker.register("mine", type="fake", auth_method="implicit")
    fake = Fake()
    async with memory_broker(fake, store=store) as broker:
        for verb in (broker.verify("mine"), broker.issue("mine", resource_type="bucket", resource_id="a")):
            with pytest.raises(NotPermitted):
                await verb
        async with broker.discover() as replies:
            assert [type(one.error) async for one in replies] == [NotPermitted]
    assert not fake.calls


async def test_when_verification_fails_nothing_is_stored():
    async def deny(request):
        raise AuthFailed("the vendor says no")

    fake = Fake()
    fake.on["verify"] = deny
    async with memory_broker(fake) as broker, broker.subscribe(ConnectorEvent) as events:
        with pytest.raises(AuthFailed) as caught:
            await broker.register("mine", type="fake", auth_method="key")
        assert await broker.list() == []
        failed = await anext(events)
    assert caught.value.where == {"verb": "verify", "connector": "mine", "type": "fake"}
    assert isinstance(failed, VerificationFailed)
    assert (failed.connector, failed.error, failed.message) == ("mine", "AuthFailed", "the vendor says no")
    assert fake.opened == fake.closed == 1


async def test_without_verification_nothing_is_called():
    fake = Fake()
    async with memory_broker(fake) as broker, broker.subscribe() as events:
        connector = await broker.register("mine", type="fake", auth_method="key", verify=False)
        assert isinstance(registered := await anext(events), ConnectorRegistered)
    assert (registered.connector_id, registered.connector, registered.connector_type) == (connector.id, "mine", "fake")
    assert not fake.calls


async def test_what_happened_in_order():
    async with memory_broker(Fake()) as broker, broker.subscribe() as events:
        await broker.register("mine", type="fake", auth_method="key", config={"place": "there"})
        verified, registered = await anext(events), await anext(events)
    assert (type(verified), type(registered)) == (ConnectorVerified, ConnectorRegistered)
    assert verified.subject == "there"


async def test_the_end_that_the_vendor_tells_is_kept_unless_one_was_given():
    ends, given = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 5, 1)  # noqa: DTZ001

    async def verify(request):
        return m.Identity(subject="me", expires_at=ends)

    fake = Fake()
    fake.on["verify"] = verify
    async with memory_broker(fake, clock=ManualClock()) as broker:
        assert (await broker.register("told", type="fake", auth_method="key")).expires_at == ends
        kept = await broker.register("given", type="fake", auth_method="key", expires_at=given)
    assert kept.expires_at == given.replace(tzinfo=UTC)


@pytest.mark.parametrize("hook", ["authenticate", "verify", "close"])
async def test_foreign_errors_name_the_plugin_and_the_place_and_say_nothing_else(hook):
    async def fail(request):
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            raise RuntimeError(f"password {CANARY}") from error

    fake = Fake()
    fake.on[hook] = fail
    async with memory_broker(fake) as broker:
        with pytest.raises(BrokenPlugin) as caught:
            await broker.register("mine", type="fake", auth_method="key")
        assert await broker.list() == []
    error = caught.value
    where = "authenticate" if hook == "close" else hook
    assert f"the plugin 'fake' of (given) failed in {where}: RuntimeError at " in error.message
    assert error.message.endswith("report it to its author")
    assert __name__.rpartition(".")[2] in error.message
    assert CANARY not in "".join(traceback.format_exception(error))


async def test_a_plugin_that_changes_what_passes_through_it_does_not_change_our_errors():
    class Wrapping(Fake):
        @m.hookimpl
        def authenticate(self, config, context):
            from contextlib import asynccontextmanager

            @asynccontextmanager
            async def session():
                async with anyio.create_task_group(), super(Wrapping, self).authenticate(config, context) as one:
                    yield one

            return session()

    async def refuse(request):
        raise Rejected("no")

    fake = Wrapping()
    fake.on["verify"] = refuse
    async with memory_broker(fake) as broker:
        with pytest.raises(Rejected):
            await broker.register("mine", type="fake", auth_method="key")
    assert fake.opened == fake.closed == 1


async def test_an_answer_that_is_not_in_the_contract():
    async def verify(request):
        return "me"

    fake = Fake()
    fake.on["verify"] = verify
    async with memory_broker(fake) as broker:
        with pytest.raises(BrokenPlugin, match="gave a str from verify, not a Identity"):
            await broker.register("mine", type="fake", auth_method="key")


@pytest.mark.parametrize("answer", [None, 7])
async def test_an_id_that_is_no_text(answer):
    class Bad(Fake):
        @m.hookimpl
        def canonical(self, resource_type, text):
            return answer

    async with memory_broker(Bad()) as broker:
        with pytest.raises(BrokenPlugin, match="from canonical, not a str"):
            await broker.register("mine", type="fake", auth_method="key", resource_type="bucket", resource_id="a")


async def test_the_budget():
    async def hang(request):
        await anyio.sleep_forever()

    fake = Fake()
    fake.on["verify"] = hang
    async with memory_broker(fake, budgets=Budgets(verify=timedelta(seconds=0.01))) as broker:
        with pytest.raises(Overdue, match=r"took longer than 0.01 s"):
            await broker.register("mine", type="fake", auth_method="key")
    assert fake.opened == fake.closed == 1


# -- lift


async def test_lift():
    async with memory_broker(powered) as broker:
        lifted = await broker.lift("example", options={"user": "u"})
        assert (lifted.auth_method, lifted.source) == ("password", "the options")
        connector = await broker.register("mine", type="example", lift=True, config={"user": "u"})
    assert (connector.auth_method, connector.settings) == ("password", {"user": "u"})


async def test_lift_by_an_object_with_a_secret():
    async with memory_broker(powered) as broker:
        options = ExampleConfig(user="u", password=m.Secret(CANARY))
        connector = await broker.register("mine", type="example", lift=True, config=options)
        assert connector.settings == {"user": "u"}
        again = await broker.register("other", type="example", lift=True, config={"user": "u", "p": m.Secret("s")})
        assert again.settings == {"user": "u"}


class Many(Fake):
    """What `found` says is on the machine."""

    found: object = ()

    @m.hookimpl
    async def lift_all(self, request):
        return self.found


def thing(name: str) -> m.Lifted:
    return m.Lifted(auth_method="key", config=FakeConfig(place="there"), source="a file", name=name)


async def test_lift_all():
    async with memory_broker(powered) as broker:
        (one,) = await broker.lift_all("example", prefix="work", options={"user": "u u"})
        assert isinstance(one, m.Lifted)
        assert (one.name, one.auth_method) == ("work-u-u", "password")
        await broker.register(one.name, type="example", auth_method=one.auth_method, config=one.config)
        with pytest.raises(InvalidConfig, match="name is 1 to 128"):
            await broker.lift_all("example", prefix="-", options={"user": "u"})
        with pytest.raises(NothingToLift, match="no user was named"):
            await broker.lift_all("example")


async def test_names_of_what_is_lifted_are_valid_and_differ():
    many = Many()
    unfit = m.Unlifted(name="a/b", error=InvalidConfig("no"))
    many.found = (*map(thing, ("a:b", "a//b", "/", "x" * 300, "x" * 301)), unfit)
    async with memory_broker(many) as broker:
        found = await broker.lift_all("fake")
    assert [one.name for one in found] == ["a-b", "a-b-2", "fake", "x" * 128, "x" * 126 + "-2", "a-b-3"]


@pytest.mark.parametrize("given", [None, [], (None,), (CANARY,)])
async def test_a_plugin_that_lifts_what_is_not_in_the_contract(given: object):
    many = Many()
    many.found = given
    async with memory_broker(many) as broker:
        with pytest.raises(BrokenPlugin, match="from lift_all") as caught:
            await broker.lift_all("fake")
    assert CANARY not in str(caught.value)


async def test_there_is_nothing_to_lift_at_all():
    async with memory_broker(powered, Many()) as broker:
        with pytest.raises(NothingToLift, match="nothing on this machine"):
            await broker.lift_all("fake")
    async with memory_broker(powered, Fake()) as broker:
        with pytest.raises(NothingToLift, match=r"'fake' cannot find everything .* types that can: example;"):
            await broker.lift_all("fake")


async def test_there_is_nothing_to_lift():
    async with memory_broker(powered, Fake()) as broker:
        with pytest.raises(NothingToLift, match="no user was named"):
            await broker.register("mine", type="example", lift=True)
        with pytest.raises(NothingToLift, match="'fake' cannot be configured from this machine"):
            await broker.lift("fake")
        with pytest.raises(UnknownAuthMethod):
            await broker.lift("example", auth_method="nope")
        assert await broker.list() == []


class Lifting(Fake):
    answer: object = None

    @m.hookimpl
    async def lift(self, request):
        self.request = request
        return self.answer


@pytest.mark.parametrize("allowed", [True, False])
async def test_what_is_lifted_must_be_allowed(allowed):
    fake = Lifting()
    ends = datetime(2027, 1, 1, tzinfo=UTC)
    fake.answer = m.Lifted(auth_method="implicit", config=FakeConfig(), source="here", expires_at=ends)
    async with memory_broker(fake, clock=ManualClock(), **(permissive() if allowed else {})) as broker:
        if allowed:
            connector = await broker.register("mine", type="fake", lift=True)
            assert (connector.auth_method, connector.expires_at) == ("implicit", ends)
        else:
            with pytest.raises(NotPermitted):
                await broker.lift("fake", auth_method="implicit")
            with pytest.raises(NotPermitted):
                await broker.register("mine", type="fake", lift=True)
    assert fake.request.allow_implicit is allowed


async def test_a_lift_that_gives_something_else():
    async with memory_broker(Lifting()) as broker:
        with pytest.raises(BrokenPlugin, match="gave a NoneType from lift"):
            await broker.lift("fake")


# -- names


async def test_an_unknown_connector_names_the_nearest():
    async with memory_broker(Fake()) as broker:
        await broker.register("production", type="fake", auth_method="key")
        with pytest.raises(UnknownConnector, match="did you mean 'production'"):
            await broker.get("prodution")


async def test_types_and_plugins():
    async with memory_broker(Fake(), example) as broker:
        assert [one.name for one in broker.types()] == ["example", "fake"]
        assert [one.name for one in broker.plugins()] == ["example", "fake"]
        assert broker.registry.names() == ("example", "fake")
