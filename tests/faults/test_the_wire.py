"""Each fault between mooring and the cloud, under each verb: typed, in time, counted, and over when it is over."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import botocore.exceptions
import pytest

import mooring as m
from mooring.broker import Budgets, Failed, Finished, Found
from mooring.limits import Limits

pytestmark = pytest.mark.anyio

MODELS = "s3://team-models"
VERBS = ("register", "verify", "discover", "issue", "client")
ISSUING = ("issue", "client")
"""Those whose failures are remembered."""
SLACK = 4.0
"""Seconds beyond its budget in which a verb must have ended, on a busy machine."""
LONG, SHORT = timedelta(seconds=20), timedelta(seconds=2)
CALLS = 3
"""How often a call is made at most that may be made again."""


LONGEST_PAUSE = timedelta(seconds=61)
"""After it a failure is remembered no more, and a breaker lets a call through."""


class Clock:
    """Began with the machine's, and stands still until it is moved."""

    def __init__(self) -> None:
        self._wall, self._monotonic = datetime.now(UTC), time.monotonic()
        self.passed = timedelta(0)

    def now(self) -> datetime:
        return self._wall + self.passed

    def monotonic(self) -> float:
        return self._monotonic + self.passed.total_seconds()


class Case(NamedTuple):
    fault: dict[str, Any]
    kind: type[m.MooringError]
    says: str
    calls: int = CALLS
    """Requests, or where none is read connections, for each verb."""
    budget: timedelta = LONG


def http(status: str, body: str = "", kind: str = "text/xml", **headers: str) -> bytes:
    fields = {"Content-Type": kind, "Content-Length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return "\r\n".join([f"HTTP/1.1 {status}", *(f"{k}: {v}" for k, v in fields.items()), "", body]).encode()


def refusal(code: str) -> str:
    return f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"


OVERDUE = "longer than [23] s; check|no answer within 2 s; try"
PAGE = "<html><body>canary: please log in</body></html>"
UNPARSED = r"not one of AWS's|the endpoint failed \(s3:|does not speak HTTP"
"""The second is botocore's word for a success of S3 that it cannot parse."""
CASES = {
    "reset of the connection": Case({"reset": "connection"}, m.Unreachable, "check|try again"),
    "reset after the request": Case({"reset": "request"}, m.Unreachable, "check|try again"),
    "reset within the reply": Case({"reset": "reply"}, m.Unreachable, "check|try again"),
    "a head that breaks off": Case({"cut": 20}, m.Unreachable, "closed the connection"),
    "a body that breaks off": Case({"cut": -10}, m.Unreachable, "closed the connection"),
    "closed without a word": Case({"answer": b"", "closing": True}, m.Unreachable, "closed the connection"),
    "500 for ever": Case({"answer": http("500 Internal Server Error")}, m.Unreachable, "failed"),
    "503 of a load balancer": Case({"answer": http("503 No", PAGE, "text/html")}, m.Unreachable, "failed"),
    "429 with a long pause": Case(
        {"answer": http("429 Too Many Requests", Retry_After="60")}, m.Throttled, "fewer calls", 1
    ),
    "503 with a long pause": Case(
        {"answer": http("503 Service Unavailable", Retry_After="60")}, m.Unreachable, "failed", 1
    ),
    "SlowDown": Case({"answer": http("503 Slow Down", refusal("SlowDown"))}, m.Throttled, "fewer calls"),
    "Throttling": Case({"answer": http("400 Bad Request", refusal("Throttling"))}, m.Throttled, "fewer calls"),
    "not HTTP": Case({"answer": b"SSH-2.0-OpenSSH_9.6\r\n", "closing": True}, m.Unreachable, "HTTP"),
    "binary": Case({"answer": bytes(range(256)) * 4, "closing": True}, m.Unreachable, "HTTP"),
    "HTML for XML": Case({"answer": http("200 OK", PAGE, "text/html")}, m.Unreachable, "not one of AWS's"),
    "HTML that says it is XML": Case({"answer": http("200 OK", "<html><p>canary")}, m.Unreachable, "not one of AWS's"),
    "JSON for XML": Case({"answer": http("200 OK", '{"a": 1}')}, m.Unreachable, UNPARSED),
    "half of the announced body": Case(
        {"answer": http("200 OK", "<a/>", Content_Length="400"), "closing": True}, m.Unreachable, "closed"
    ),
    "more than the announced body": Case(
        {"answer": http("200 OK", "<a><b></b></a>", Content_Length="6")}, m.Unreachable, UNPARSED
    ),
    "a length that is none": Case(
        {"answer": http("200 OK", "<a/>", Content_Length="-5"), "closing": True}, m.Unreachable, "HTTP"
    ),
    "an endless body": Case(
        {"answer": b"HTTP/1.1 200 OK\r\n\r\n", "endless": b"<a>" * 100_000}, m.Rejected, "16 MiB", 1
    ),
    "an endless head": Case(
        {"answer": b"HTTP/1.1 200 OK\r\n", "endless": b"X-A: " + b"b" * 4000 + b"\r\n"}, m.Unreachable, "HTTP"
    ),
    "a black hole": Case({"black_hole": True}, m.Overdue, OVERDUE, 1, SHORT),
    "a body that never comes": Case(
        {"answer": http("200 OK", "<a/>", Content_Length="400")}, m.Overdue, OVERDUE, 1, SHORT
    ),
    "a byte a second": Case({"rate": 1}, m.Overdue, OVERDUE, 1, SHORT),
    "a reply that is too late": Case({"latency": 9}, m.Overdue, OVERDUE, 1, SHORT),
}


class Outcome(NamedTuple):
    error: m.MooringError | None
    seconds: float
    result: Any = None


class Bench:
    """A broker, and for each verb a connector behind a proxy of its own."""

    def __init__(
        self, broker: m.Broker, proxies: dict[str, Any], arguments: dict[str, Any], clock: Clock, limits: Limits
    ) -> None:
        self.broker, self.proxies, self.arguments, self.clock, self.limits = broker, proxies, arguments, clock, limits
        self.ttl = timedelta(hours=1)

    async def anew(self) -> None:
        """Without faults, without what was registered, and with wishes that no cache has."""
        self.fault()
        self.pauses_end()
        self.ttl += timedelta(minutes=1)
        if "register" in [one.name for one in await self.broker.list()]:
            await self.broker.delete("register")

    def pauses_end(self) -> None:
        """What vendors asked to be left alone for is over: limits go by the loop's clock, which nobody can turn."""
        for gate in self.limits._gates.values():
            gate._paused_until = -math.inf

    async def do(self, verb: str) -> Outcome:
        work: dict[str, Callable[[], Awaitable[Any]]] = {
            "register": lambda: self.broker.register("register", **self.arguments["register"]),
            "verify": lambda: self.broker.verify("verify"),
            "discover": self.discover,
            "issue": lambda: self.broker.issue("issue", resource_id=MODELS, ttl=self.ttl),
            "client": self.client,
        }
        began = time.monotonic()
        try:
            result = await work[verb]()
        except m.MooringError as error:
            return Outcome(error, time.monotonic() - began)
        return Outcome(None, time.monotonic() - began, result)

    async def discover(self) -> set[str]:
        found = set()
        async with self.broker.discover(connectors=["discover"]) as replies:
            async for reply in replies:
                if isinstance(reply, Failed):
                    raise reply.error
                found |= {reply.resource.id} if isinstance(reply, Found) else set()
        return found

    async def client(self) -> bytes:
        async with self.broker.client("client", resource_id=MODELS, ttl=self.ttl) as s3:
            answer = await s3.get_object(Bucket="team-models", Key="README.md")
            return bytes(await answer["Body"].read())

    async def do_all(self) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}

        async def one(verb: str) -> None:
            outcomes[verb] = await self.do(verb)

        async with anyio.create_task_group() as tasks:
            for verb in VERBS:
                tasks.start_soon(one, verb)
        return outcomes

    def asked(self, verb: str) -> int:
        """Requests, or where none is read connections, since the last fault."""
        return len(self.proxies[verb].seen) or int(self.proxies[verb].accepted)

    def fault(self, **fault: Any) -> None:
        for proxy in self.proxies.values():
            proxy.fault(**fault)
            if fault.get("reset") == "connection":
                proxy.drop()


@pytest.fixture
def bench(sandbox: Any, proxies: Any, behind: Any) -> Callable[[timedelta], Any]:
    @asynccontextmanager
    async def made(budget: timedelta) -> Any:
        clock = Clock()
        lanes = {verb: proxies(sandbox.s3_url, verb) for verb in VERBS}
        methods = {"verify": "secret-key", "discover": "secret-key"}
        arguments = {verb: behind(lanes[verb].url, methods.get(verb, "iam-role")) for verb in VERBS}
        budgets = Budgets(verify=budget, discover=budget, issue=budget, lift=budget)
        limits = Limits()
        async with m.open_broker(budgets=budgets, system_plugins=(), clock=clock, limits=limits) as broker:
            for verb in VERBS[1:]:
                await broker.register(verb, **arguments[verb], verify=False)
            yield Bench(broker, lanes, arguments, clock, limits)

    return made


def descriptors() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


@pytest.mark.parametrize("budget", [LONG, SHORT])
async def test_every_verb_fails_as_it_should_and_works_again_when_it_is_over(
    bench: Any, subtests: pytest.Subtests, budget: timedelta
) -> None:
    tasks_before = len(asyncio.all_tasks())
    async with bench(budget) as b:
        for name, case in CASES.items():
            if case.budget == budget:
                with subtests.test(name):
                    await b.anew()
                    await fails_and_works_again(b, case)
        proxies = b.proxies
    assert len(asyncio.all_tasks()) == tasks_before
    await nothing_open(proxies)


async def fails_and_works_again(b: Bench, case: Case) -> None:
    b.fault(**case.fault)
    outcomes = await b.do_all()
    asked = {verb: b.asked(verb) for verb in VERBS}
    for verb, outcome in outcomes.items():
        said = f"{verb}: {outcome.error!r} after {outcome.seconds:.1f} s"
        assert type(outcome.error) is case.kind, said
        assert outcome.seconds < case.budget.total_seconds() + SLACK, said
        one_line(outcome.error, case.says)
        assert outcome.error.where["connector"] == verb
    assert case.calls <= asked.pop("discover") <= 2 * case.calls  # aiohttp itself repeats a GET that was cut off
    if case.kind is m.Rejected:
        asked.pop("verify")  # asks S3 where there is no STS
    assert asked == dict.fromkeys(asked, case.calls)
    assert "register" not in [one.name for one in await b.broker.list()]
    if "Retry-After" in str(case.fault.get("answer")):
        assert {one.error.retry_after for one in outcomes.values()} == {timedelta(minutes=1)}
    explained = await b.broker.explain("issue", resource_id=MODELS)  # asks nobody
    assert explained.calls == ("sts:AssumeRole",)
    b.fault()
    for verb in ISSUING:
        await is_remembered(b, verb, outcomes[verb].error)
    b.pauses_end()
    for verb in VERBS:
        b.clock.passed += LONGEST_PAUSE if verb == ISSUING[0] else timedelta(0)
        assert (again := await b.do(verb)).error is None, f"{verb} afterwards: {again.error}"


async def is_remembered(b: Bench, verb: str, first: m.MooringError | None) -> None:
    """What could not be issued is told again for a while, without a word to the vendor."""
    assert first is not None
    before = b.asked(verb)
    again = (await b.do(verb)).error
    assert again is not None
    assert (type(again), again.message, again.where) == (type(first), first.message, first.where)
    assert b.asked(verb) == before
    assert (again.retry_after is not None) == first.retryable
    if first.retry_after is not None:
        assert again.retry_after == first.retry_after  # the clock stands still


def one_line(error: m.MooringError, says: str) -> None:
    assert re.search(says, error.message), error.message
    assert ";" in error.message
    assert "\n" not in error.message
    assert len(error.message) < 250
    assert "canary" not in error.message
    assert "BrokenPlugin" not in type(error).__name__


async def nothing_open(proxies: dict[str, Any]) -> None:
    with anyio.fail_after(5):
        while any(proxy.open for proxy in proxies.values()):  # noqa: ASYNC110  it is another thread's
            await anyio.sleep(0.02)


async def test_a_slow_line_is_no_fault(bench: Any, subtests: pytest.Subtests) -> None:
    async with bench(LONG) as b:
        for fault in ({"latency": 0.05, "jitter": 0.1}, {"rate": 20_000}, {"latency": 0.02, "rate": 50_000}):
            with subtests.test(**fault):
                await b.anew()
                b.fault(**fault)
                outcomes = await b.do_all()
                assert {verb: one.error for verb, one in outcomes.items()} == dict.fromkeys(VERBS)
                assert "s3://team-models" in outcomes["discover"].result
                assert outcomes["client"].result


PASSING: tuple[dict[str, Any], ...] = (
    {"answer": http("500 Internal Server Error")},
    {"answer": http("503 Slow Down", refusal("SlowDown"))},
    {"answer": http("429 Too Many Requests", Retry_After="0")},
    {"reset": "request"},
)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_fault_that_passes_is_not_noticed(bench: Any, subtests: pytest.Subtests, times: int) -> None:
    once = ("register", "verify", "discover", "issue")
    async with bench(LONG) as b:
        await b.do_all()
        usual = {verb: len(b.proxies[verb].seen) for verb in once}
        for fault in PASSING:
            with subtests.test(fault=fault):
                await b.anew()
                b.fault(**fault, times=times)
                outcomes = await b.do_all()
                assert {verb: one.error for verb, one in outcomes.items()} == dict.fromkeys(VERBS)
                assert {verb: len(b.proxies[verb].seen) - times for verb in once} == usual


async def test_a_short_pause_is_kept(bench: Any) -> None:
    async with bench(LONG) as b:
        b.proxies["issue"].fault(answer=http("429 Too Many Requests", Retry_After="1"), times=1)
        outcome = await b.do("issue")
        assert outcome.error is None
        assert outcome.seconds >= 1
        assert len(b.proxies["issue"].seen) == 2


async def test_a_pause_beyond_the_budget_is_told_and_not_waited_for(bench: Any) -> None:
    """What is asked for is said, where waiting for it could only end in `Overdue`."""
    async with bench(SHORT) as b:
        b.fault(answer=http("429 Too Many Requests", Retry_After="4"))
        outcomes = await b.do_all()
        for verb, outcome in outcomes.items():
            assert type(outcome.error) is m.Throttled, f"{verb}: {outcome.error!r}"
            assert outcome.error.retry_after == timedelta(seconds=4)
            assert outcome.seconds < SHORT.total_seconds()
        assert {len(proxy.seen) for proxy in b.proxies.values()} == {1}


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken"])
async def test_what_asking_again_does_not_help_is_asked_once(bench: Any, code: str) -> None:
    async with bench(LONG) as b:
        b.proxies["issue"].fault(answer=http("403 Forbidden", refusal(code)))
        outcome = await b.do("issue")
        assert isinstance(outcome.error, m.AuthFailed | m.AccessDenied)
        assert not outcome.error.retryable
        assert len(b.proxies["issue"].seen) == 1


async def test_xml_of_something_else_is_no_empty_listing(bench: Any) -> None:
    async with bench(LONG) as b:
        b.fault(answer=http("200 OK", "<a/>"))
        outcomes = await b.do_all()
        assert type(outcomes["discover"].error) is m.Rejected
        assert len(b.proxies["discover"].seen) == 1
        for verb, outcome in outcomes.items():
            assert isinstance(outcome.error, m.Rejected | m.Unreachable), verb
            one_line(outcome.error, "speaks this API")


async def test_idle_connections_that_were_dropped_are_no_fault(bench: Any) -> None:
    async with bench(LONG) as b:
        assert (await b.do("verify")).error is None
        for _ in range(3):
            b.proxies["verify"].drop()
            assert (await b.do("verify")).error is None


async def test_a_black_hole_that_ends_is_only_a_wait(bench: Any) -> None:
    async with bench(LONG) as b:
        b.fault(black_hole=True)
        async with anyio.create_task_group() as tasks:
            outcomes: list[Outcome] = []

            async def verify() -> None:
                outcomes.append(await b.do("verify"))

            tasks.start_soon(verify)
            with anyio.fail_after(5):
                while not b.proxies["verify"].seen:  # noqa: ASYNC110  it is another thread's
                    await anyio.sleep(0.01)
            b.fault()
        assert outcomes[0].error is None


async def test_a_thousand_waiting_callers_are_one_request(bench: Any) -> None:
    """No storm: those who want the same wait for one answer, and are told of its failure without asking each again."""
    async with bench(LONG) as b:
        b.proxies["issue"].fault(latency=0.3)
        outcomes: list[Outcome] = []

        async def ask() -> None:
            outcomes.append(await b.do("issue"))

        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(ask)
        assert {one.error for one in outcomes} == {None}
        assert len(b.proxies["issue"].seen) == 1


@pytest.mark.parametrize(
    "fault", [{"reset": "connection"}, {"black_hole": True}, {"answer": http("503 Slow Down", refusal("SlowDown"))}]
)
async def test_an_outage_fails_nobody_while_credentials_are_valid(bench: Any, fault: dict[str, Any]) -> None:
    async with bench(SHORT) as b:
        began = b.clock.passed
        b.ttl = timedelta(hours=1)
        first = (await b.do("issue")).result
        b.fault(**fault)
        fresh = await b.do("issue")
        assert fresh.result.cached
        assert b.asked("issue") == 0  # not even asked
        for minutes in (50, 57):  # due, which somebody else renews; and so near the end that callers wait
            b.clock.passed = began + timedelta(minutes=minutes)
            for _ in range(100):
                due = await b.do("issue")
                assert due.error is None
                assert due.seconds < SHORT.total_seconds() + SLACK
                assert due.result.credentials == first.credentials
                assert due.result.cached
        assert 1 <= b.asked("issue") <= 2 * CALLS  # the renewal's, and the one caller's that came first
        b.fault()
        assert (await b.do("issue")).result.credentials == first.credentials  # asked for again after the pause
        b.clock.passed += LONGEST_PAUSE
        renewed = await b.do("issue")
        assert renewed.error is None
        assert renewed.result.credentials.access_key_id != first.credentials.access_key_id
        b.clock.passed += timedelta(minutes=61)  # ended
        b.fault(**fault)
        ended = (await b.do("issue")).error
        assert ended.retryable
        await is_remembered(b, "issue", ended)


async def test_an_endpoint_that_does_not_answer_is_left_alone_whatever_is_asked_of_it(bench: Any) -> None:
    async with bench(LONG) as b:
        b.fault(reset="connection")
        for _ in range(5):
            b.ttl += timedelta(minutes=1)  # a wish of its own, of which no failure is remembered
            assert (await b.do("issue")).error.asked
        b.fault()
        b.ttl += timedelta(minutes=1)
        refused = (await b.do("issue")).error
        assert (type(refused), refused.asked, b.asked("issue")) == (m.Unreachable, False, 0)
        one_line(refused, "did not answer 5 times in a row; it is asked again in [1-5] s")
        assert timedelta(0) < refused.retry_after <= timedelta(seconds=5)
        b.clock.passed += refused.retry_after + timedelta(milliseconds=1)
        assert (await b.do("issue")).error is None
        assert b.broker.breakers() == []


async def test_a_vendor_that_asks_for_fewer_calls_is_there(bench: Any) -> None:
    """It is asked no sooner than it says, for whatever; that it does not answer is said of nobody."""
    async with bench(LONG) as b:
        b.fault(answer=http("429 Too Many Requests", Retry_After="60"))
        first = (await b.do("issue")).error
        assert (type(first), first.retry_after, b.asked("issue")) == (m.Throttled, timedelta(minutes=1), 1)
        await is_remembered(b, "issue", first)
        for _ in range(8):
            b.ttl += timedelta(minutes=1)  # a wish of its own, of which no failure is remembered
            other = (await b.do("issue")).error
            assert (type(other), b.asked("issue")) == (m.Throttled, 1)
            assert timedelta(seconds=50) < other.retry_after <= timedelta(minutes=1)
            one_line(other, "the limit service leaves no room")
        assert b.broker.breakers() == []
        b.fault()
        b.pauses_end()
        b.ttl = timedelta(hours=1)
        b.clock.passed += timedelta(seconds=59)
        early = (await b.do("issue")).error
        assert (type(early), early.retry_after, b.asked("issue")) == (m.Throttled, timedelta(seconds=1), 0)
        b.clock.passed += timedelta(seconds=1)
        assert (await b.do("issue")).error is None


async def test_a_native_client_outlives_an_outage(bench: Any) -> None:
    async with bench(LONG) as b, b.broker.client("client", resource_id=MODELS) as s3:
        wish = {"Bucket": "team-models", "Key": "README.md"}
        assert await (await s3.get_object(**wish))["Body"].read()
        b.fault(reset="request")
        with anyio.move_on_after(1):  # botocore asks again and again: the host's affair
            with pytest.raises((botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError)):
                await s3.get_object(**wish)
        assert len(b.proxies["client"].seen) > 0
        b.fault()
        assert await (await s3.get_object(**wish))["Body"].read()


async def test_a_dead_connector_holds_up_no_other(bench: Any, proxies: Any, sandbox: Any, behind: Any) -> None:
    dead = {
        "silent": {"black_hole": True},
        "reset": {"reset": "connection"},
        "garbage": {"answer": b"\0\0\r\n", "closing": True},
        "throttled": {"answer": http("429 Too Many Requests", Retry_After="60")},
    }
    async with bench(timedelta(seconds=5)) as b:
        for name, fault in dead.items():
            proxy = proxies(sandbox.s3_url, name)
            await b.broker.register(name, **behind(proxy.url, "secret-key"), verify=False)
            proxy.fault(**fault)
        began, good, failed = time.monotonic(), {}, {}
        async with b.broker.discover() as replies:
            async for reply in replies:
                if isinstance(reply, Finished):
                    good[reply.connector.name] = time.monotonic() - began
                elif isinstance(reply, Failed):
                    failed[reply.connector.name] = reply.error
    assert set(good) == set(VERBS[1:])
    assert max(good.values()) < 5, "the good ones waited for the dead ones"
    kinds = {name: type(error) for name, error in failed.items()}
    assert kinds == {"silent": m.Overdue, "reset": m.Unreachable, "garbage": m.Unreachable, "throttled": m.Throttled}
    for error in failed.values():
        assert ";" in error.message


async def test_callers_that_give_up_leave_nothing_open(bench: Any) -> None:
    before = descriptors()
    async with bench(LONG) as b:
        b.fault(black_hole=True)
        for _ in range(3):
            with anyio.move_on_after(0.2) as scope:
                await b.do_all()
            assert scope.cancelled_caught
        assert sum(proxy.open for proxy in b.proxies.values()) <= 5
        b.fault()
        assert (await b.do("verify")).error is None
        proxies = b.proxies
    await nothing_open(proxies)
    assert descriptors() <= before + 2
