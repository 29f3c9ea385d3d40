"""The blocking broker: the same methods, from any thread; what is at hand does not cross over."""

import inspect
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

import mooring as m
from mooring import blocking
from mooring.assembly import Settings
from mooring.broker import Broker, Finished, Found
from mooring.errors import AuthFailed, NameTaken, UnknownConnector, UnsupportedResource
from mooring.events import ConnectorRegistered, ConnectorVerified
from mooring.store import MemoryStore
from mooring.testing import Fake, ManualClock, memory_broker, powered
from mooring.vault import Vault, parse_keys

A = {"resource_type": "bucket", "resource_id": "a"}


@contextmanager
def open_blocking(*plugins, **options):
    defaults = {
        "settings": Settings(home=Path("/nonexistent")),
        "plugins": plugins,
        "system_plugins": (),
        "store": MemoryStore(),
        "vault": Vault(parse_keys("k:" + "A" * 43 + "=", "the test")),
        "share_cache": False,
    }
    with blocking.open_broker(**defaults | options) as broker:
        yield broker


@contextmanager
def held(broker):
    """The event loop's thread, kept busy."""
    begun, release = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        release.wait(10)

    future = broker.portal.start_task_soon(hold)
    begun.wait(10)
    try:
        yield
    finally:
        release.set()
        future.result(10)


def test_the_same_methods_with_the_same_arguments():
    def public(kind) -> set[str]:
        return {name for name, value in vars(kind).items() if callable(value) and not name.startswith("_")}

    for_plugins = {"before_delete", "documents", "draft"}
    assert public(Broker) - public(blocking.BlockingBroker) == {
        "close", "figures", "hold", "peek", "refresh", *for_plugins
    }  # fmt: skip
    assert public(blocking.BlockingBroker) <= public(Broker)
    for name in ("register", "update", "issue", "list", "verify", "explain"):
        ours, theirs = getattr(blocking.BlockingBroker, name), getattr(Broker, name)
        assert inspect.signature(ours) == inspect.signature(theirs)
        assert ours.__doc__ == theirs.__doc__


def test_a_life():
    with open_blocking(Fake()) as broker:
        connector = broker.register("mine", type="fake", auth_method="key", config={"key": "k"})
        assert broker.get("mine") == connector
        assert broker.list() == [connector]
        assert broker.secrets("mine") == {"key": m.Secret("k")}
        assert broker.verify("mine").subject == "here"
        assert broker.issue("mine", **A).cached is False
        assert broker.issue("mine", **A).cached is True
        assert broker.update("mine", description="new").description == "new"
        assert [one.name for one in broker.types()] == ["fake"]
        assert [one.name for one in broker.plugins()] == ["fake"]
        broker.delete("mine")
        assert broker.list() == []


def test_leases_and_records():
    with open_blocking(Fake()) as broker:
        broker.register("mine", type="fake", auth_method="key")
        first = broker.issue("mine", **A)
        assert [one.id for one in broker.leases()] == [first.lease]
        assert broker.lease(first.lease).holders[0].count == 1
        second = broker.renew(first.lease)
        assert broker.issue("mine", refused=second.lease, **A).lease not in (first.lease, second.lease)
        assert [one.state for one in broker.revoke(first.lease)] == ["released"]
        assert broker.verify_audit().problems == ()
        assert "issue" in [line.entry.action for line in broker.audit()]
        lines = broker.audit()
        assert next(lines).seq == 1
        lines.close()
        assert [line.entry.lease for line in broker.trace(second.credentials.token)] == [second.lease]
        assert [one.seq for one in broker.logged(after=0)][-1] == broker.last_event()
        assert list(broker.breakers()) == []
        broker.sweep()


def test_lift_and_explain():
    with open_blocking(powered) as broker:
        assert broker.lift("example", options={"user": "u"}).config.user == "u"
        broker.register("mine", type="example", config={"user": "u"})
        assert broker.explain("mine", resource_id="a").policy == {"bucket": "a"}


def test_errors_come_through_as_themselves():
    async def deny(request):
        raise AuthFailed("no")

    fake = Fake()
    with open_blocking(fake) as broker:
        broker.register("mine", type="fake", auth_method="key")
        with pytest.raises(UnknownConnector):
            broker.get("nope")
        with pytest.raises(NameTaken):
            broker.register("mine", type="fake", auth_method="key")
        fake.on["verify"] = deny
        with pytest.raises(AuthFailed) as caught:
            broker.verify("mine")
        assert caught.value.where["connector"] == "mine"


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_what_the_body_raises_comes_through_as_itself(error):
    with pytest.raises(type(error)) as caught, open_blocking(Fake()):
        raise error
    assert caught.value is error


def test_what_is_at_hand_does_not_cross_over():
    with open_blocking(Fake(), clock=ManualClock()) as broker:
        broker.register("mine", type="fake", auth_method="key")
        broker.issue("mine", **A)
        with held(broker):
            issued = [broker.issue("mine", **A) for _ in range(100)]
        assert all(one.cached for one in issued)


def test_what_is_not_at_hand_waits_for_the_loop():
    with open_blocking(Fake(), clock=ManualClock()) as broker:
        broker.register("mine", type="fake", auth_method="key")
        got = []
        with held(broker):
            thread = threading.Thread(target=lambda: got.append(broker.issue("mine", **A)))
            thread.start()
            thread.join(0.02)
            assert got == []
        thread.join(10)
        assert len(got) == 1


def test_a_change_is_seen_though_reads_do_not_cross_over():
    clock = ManualClock()
    with open_blocking(Fake(), clock=clock) as broker:
        broker.register("mine", type="fake", auth_method="key")
        assert broker.issue("mine", **A).credentials.token.reveal() == "here-1"
        broker.update("mine", config={"place": "there"})
        assert broker.issue("mine", **A).credentials.token.reveal() == "there-2"
        clock.advance(timedelta(minutes=55))
        assert broker.issue("mine", **A).credentials.token.reveal() == "there-3"


def test_many_threads():
    fake = Fake()

    async def slow(request):
        await anyio.sleep(0.005)

    fake.on["issue_credentials"] = slow
    with open_blocking(fake) as broker, ThreadPoolExecutor(20) as pool:
        broker.register("mine", type="fake", auth_method="key")

        def call(number: int) -> str:
            resource = f"b{number % 7}"
            for _ in range(20):
                issued = broker.issue("mine", resource_type="bucket", resource_id=resource, consumer=f"c{number}")
                assert (issued.resource_id, issued.consumer) == (resource, f"c{number}")
            return issued.credentials.token.reveal()

        tokens = list(pool.map(call, range(100)))
    assert fake.calls["issue_credentials"] == 7
    assert len(set(tokens)) == 7


def test_twenty_threads_read_four_thousand_times_while_credentials_rotate():
    """Never a mixture of two generations, and one call for each, and one more at most."""
    threads, reads, rotations = 20, 4000, 20
    fake, clock, made, wrong = Fake(), ManualClock(), {}, []

    async def issue(request):
        number = len(made) + 1
        triple = f"t{number}", clock.now() + timedelta(hours=1, microseconds=-number), (f"note {number}",)
        made[triple[0]] = triple
        token, ends, notes = triple
        return m.BearerToken(token=m.Secret(token), expires_at=ends, narrowed=True, clamped=notes)

    fake.on["issue_credentials"] = issue
    with open_blocking(fake, clock=clock) as broker:
        broker.register("mine", type="fake", auth_method="key", verify=False)
        leases, together, read_so_far = {}, threading.Barrier(threads), itertools.count(1)

        def read() -> None:
            together.wait(30)
            for _ in range(reads):
                one = broker.issue("mine", **A)
                token = one.credentials.token.reveal()
                if (token, one.expires_at, one.clamped) != made[token]:
                    wrong.append(one)
                if leases.setdefault(token, one.lease) != one.lease:
                    wrong.append(one)
                if next(read_so_far) % (threads * reads // rotations) == 0:
                    clock.advance(timedelta(minutes=56))

        with ThreadPoolExecutor(threads) as pool:
            for one in [pool.submit(read) for _ in range(threads)]:
                one.result()
    assert wrong == []
    assert rotations - 1 <= len(made) <= rotations + 2, "the first, and one for each rotation"


def test_discover_iterates():
    fake = Fake()
    with open_blocking(fake) as broker:
        broker.register("mine", type="fake", auth_method="key")
        with broker.discover(resource_type="bucket") as replies:
            seen = list(replies)
        assert [type(one) for one in seen] == [Found, Found, Finished]
        with broker.discover() as replies:
            assert isinstance(next(replies), Found)
        with pytest.raises(ValueError, match="mine"), broker.discover() as replies:
            raise ValueError("mine")
        with pytest.raises(UnknownConnector), broker.discover(connectors=["nope"]) as replies:
            pass
    assert fake.opened == fake.closed


def test_subscribe_iterates_and_ends_with_the_context():
    with open_blocking(Fake()) as broker:
        with broker.subscribe(ConnectorVerified, ConnectorRegistered) as events:
            broker.register("mine", type="fake", auth_method="key")
            assert [type(next(events)) for _ in range(2)] == [ConnectorVerified, ConnectorRegistered]
        assert list(events) == []


def test_the_client_is_the_synchronous_one_and_renews():
    clock = ManualClock()
    with open_blocking(Fake(), powered, clock=clock) as broker:
        broker.register("mine", type="fake", auth_method="key")
        with broker.client("mine", **A) as renew:
            assert renew().token.reveal() == "here-1"
            with ThreadPoolExecutor(2) as pool, held(broker):
                assert pool.submit(renew).result(10).token.reveal() == "here-1"
            clock.advance(timedelta(minutes=55))
            assert (second := renew()).token.reveal() == "here-2"
            assert renew(second).token.reveal() == "here-3"
            assert renew(second).token.reveal() == "here-3"


def test_a_client_whose_credentials_were_refused_gets_others_once():
    with open_blocking(fake := Fake(), powered) as broker:
        broker.register("mine", type="fake", auth_method="key")
        with broker.client("mine", **A) as renew:
            first = renew()
            second = renew(refused=first)
            assert (first.token.reveal(), second.token.reveal()) == ("here-1", "here-2")
            assert renew(refused=first) == renew() == second
    assert fake.issued == 2


def test_there_may_be_no_client():
    class Owner(Fake):
        @m.hookimpl
        def describe(self):
            import msgspec

            return msgspec.structs.replace(super().describe(), credentials=(m.BearerToken,))

    with open_blocking(Owner()) as broker:
        broker.register("mine", type="fake", auth_method="key")
        with pytest.raises(UnsupportedResource, match="makes no synchronous clients"), broker.client("mine", **A):
            pass


def test_what_a_client_holds_is_in_use_while_it_is_open():
    class Owner(Fake):
        @m.hookimpl
        def describe(self):
            import msgspec

            return msgspec.structs.replace(super().describe(), credentials=(m.BearerToken,))

        @m.hookimpl
        @contextmanager
        def blocking_client(self, request):
            yield request

    with open_blocking(Owner()) as broker:
        held = broker.broker._desk.cache._held
        broker.register("mine", type="fake", auth_method="key")
        with broker.client("mine", **A) as one, broker.client("mine", **A):
            first = broker.issue("mine", **A).lease
            assert held == {first: 2}
            one.renew(refused=one.credentials)
            assert held == {first: 1, broker.issue("mine", **A).lease: 1}
        assert held == {}


def test_nothing_stays_behind():
    before = threading.active_count()
    with open_blocking(powered) as broker:
        broker.register("mine", type="example", config={"user": "u"})
        assert threading.active_count() > before
    for _ in range(100):
        if threading.active_count() == before:
            break
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.anyio
async def test_the_asynchronous_one_beside_it():
    """A host may have both, over one store."""
    store = MemoryStore()
    async with memory_broker(Fake(), store=store) as broker:
        await broker.register("mine", type="fake", auth_method="key")

        def use() -> list[str]:
            with open_blocking(Fake(), store=store) as other:
                return [one.name for one in other.list()]

        assert await anyio.to_thread.run_sync(use) == ["mine"]
