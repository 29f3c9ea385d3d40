"""What stands between a name and an answer: DNS, the port, TLS; each told apart in one line. And clocks and keys."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import mooring as m
from mooring.broker import Budgets
from mooring.http import Http, Tls

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])


class Authority:
    """A CA for an hour of tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed(self.key.public_key(), NAME, ends=DAY, ca=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: str, begins: timedelta = -2 * DAY, ends: timedelta = DAY) -> ssl.SSLContext:
        """The context of a server with a certificate for these names or addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(key.public_key(), x509.Name([]), begins=begins, ends=ends, names=names)
        file = self.folder / "server.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _signed(
        self,
        key: Any,
        subject: x509.Name,
        *,
        ends: timedelta,
        begins: timedelta = -2 * DAY,
        names: tuple[str, ...] = (),
        ca: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        made = x509.CertificateBuilder(NAME, subject, key, x509.random_serial_number(), now + begins, now + ends)
        made = made.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        made = made.add_extension(issuer, critical=False)
        if ca:  # Python 3.13 verifies with VERIFY_X509_STRICT
            made = made.add_extension(KEY_USAGE, critical=True)
        if names:
            made = made.add_extension(x509.SubjectAlternativeName([general(name) for name in names]), critical=not ca)
        return made.sign(self.key, hashes.SHA256())


KEY_USAGE = x509.KeyUsage(
    digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


def general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def closed_port() -> int:
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


HERE = "127.0.0.1"
PLAIN = "no TLS at a port with"
SERVERS: dict[str, Callable[[Authority], ssl.SSLContext]] = {
    "good": lambda ca: ca.server(HERE),
    "expired": lambda ca: ca.server(HERE, begins=-2 * DAY, ends=-DAY),
    "not yet": lambda ca: ca.server(HERE, begins=DAY, ends=2 * DAY),
    "another name": lambda ca: ca.server("elsewhere.example"),
    "another address": lambda ca: ca.server("192.0.2.1"),
    "untrusted": lambda ca: ca.server(HERE),
}
SAYS = {
    "good": None,
    "expired": "has expired.*clock",
    "not yet": "not valid yet.*clock",
    "another name": "is for another host",
    "another address": "is for another host",
    "untrusted": "is not trusted",
    "no such name": "cannot be resolved",
    "refused": "cannot be reached .*check that it runs",
    "not HTTP": "does not speak HTTP",
    "TLS at a port without": "there is no TLS",
    PLAIN: "does not speak HTTP|closed the connection|cannot be reached",
}


@pytest.fixture
def place(proxies: Any, sandbox: Any, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The URL of a place where that is the matter."""

    def made(matter: str) -> str:
        if matter != "untrusted":
            monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.file))
        if matter in SERVERS:
            return str(proxies(sandbox.s3_url, tls=SERVERS[matter](authority)).url)
        match matter:
            case "no such name":
                return "http://no-such-host.invalid"
            case "refused":
                return f"http://127.0.0.1:{closed_port()}"
            case "TLS at a port without":
                return sandbox.s3_url.replace("http:", "https:")
            case other if other == PLAIN:
                return proxies(sandbox.s3_url, tls=authority.server(HERE)).url.replace("https:", "http:")
        proxy = proxies(sandbox.s3_url)
        proxy.fault(answer=b"220 mail.example ESMTP ready\r\n", closing=True)
        return str(proxy.url)

    return made


@asynccontextmanager
async def opened(seconds: float = 20, **options: Any) -> AsyncGenerator[m.Broker, None]:
    span = timedelta(seconds=seconds)
    budgets = Budgets(verify=span, discover=span, issue=span)
    async with m.open_broker(budgets=budgets, system_plugins=(), **options) as broker:
        yield broker


@pytest.mark.parametrize("matter", SAYS)
async def test_what_is_the_matter_is_told_apart(place: Any, behind: Any, matter: str) -> None:
    says, arguments = SAYS[matter], behind(place(matter))
    async with opened() as broker:
        if says is None:
            await broker.register("aws", **arguments)
            return
        with pytest.raises(m.Unreachable, match=says) as caught:
            await broker.register("aws", **arguments)
        assert await broker.list() == []
    said = caught.value.message
    others = {one for other, one in SAYS.items() if one and PLAIN not in (matter, other)} - {says}
    assert not any(re.search(other, said) for other in others)
    assert "\n" not in said


@pytest.mark.parametrize("matter", ["good", "expired", "not yet", "another name", "untrusted"])
async def test_the_same_by_the_kernels_own_client(authority: Authority, proxies: Any, matter: str) -> None:
    """For plugins that need no SDK."""
    context = ssl.create_default_context(cafile=None if matter == "untrusted" else authority.file)
    tls = Tls()
    tls.__dict__["context"] = context
    proxy = proxies("http://127.0.0.1:1", tls=SERVERS[matter](authority))
    proxy.fault(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    http = Http(tls).at(proxy.url)
    try:
        if matter == "good":
            assert await http.get_json("/") == {}
            return
        with pytest.raises(m.Unreachable, match=str(SAYS[matter])):
            await http.get_json("/")
    finally:
        await http.aclose()


@pytest.mark.parametrize(
    ("url", "says"),
    [("http://no-such-host.invalid", "cannot be resolved"), ("http://127.0.0.1:{port}", "refuses the connection")],
)
async def test_names_and_ports_by_the_kernels_own_client(url: str, says: str) -> None:
    http = Http(Tls()).at(url.format(port=closed_port()))
    try:
        with pytest.raises(m.Unreachable, match=says):
            await http.get_json("/")
    finally:
        await http.aclose()


async def test_an_endless_answer_to_the_kernels_own_client(proxies: Any) -> None:
    proxy = proxies("http://127.0.0.1:1")
    proxy.fault(answer=b"HTTP/1.1 200 OK\r\n\r\n", endless=b"[" * 500_000)
    http = Http(Tls()).at(proxy.url)
    try:
        with anyio.fail_after(30), pytest.raises(m.Rejected, match="longer than 16 MiB"):
            await http.get_json("/")
    finally:
        await http.aclose()
        proxy.clear()


async def test_a_handshake_that_stalls_is_overdue(proxies: Any, sandbox: Any, behind: Any) -> None:
    with closing(socket.socket()) as silent:  # takes connections, by the backlog, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        async with opened(1) as broker:
            with anyio.fail_after(8), pytest.raises(m.Overdue, match="longer than 1 s; check the network"):
                await broker.register("aws", **behind(url))
            assert await broker.list() == []


# -- clocks and keys ------------------------------------------------------------------------------------------------


def refusal(status: str, code: str, message: str) -> bytes:
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    return f"HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


ENDED = "Signature expired: 20260101T000000Z is now earlier than 20260101T010000Z (20260101T011500Z - 15 min.)"
EARLY = "Signature not yet current: 20260101T020000Z is still later than 20260101T011500Z"
REFUSALS = {
    "skewed, S3": ("403 Forbidden", "RequestTimeTooSkewed", "The difference is too large", "set the clock"),
    "behind, STS": ("403 Forbidden", "SignatureDoesNotMatch", ENDED, "set the clock"),
    "ahead, STS": ("403 Forbidden", "SignatureDoesNotMatch", EARLY, "set the clock"),
    "behind, JSON services": ("400 Bad Request", "InvalidSignatureException", ENDED, "set the clock"),
    "expired request": ("400 Bad Request", "RequestExpired", "Request has expired", "set the clock"),
    "wrong secret": (
        "403 Forbidden",
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match",
        "check aws_secret_access_key",
    ),
    "unknown or disabled key": (
        "403 Forbidden",
        "InvalidClientTokenId",
        "The security token included in the request is invalid",
        "does not know the access key, or no longer",
    ),
    "expired token": (
        "403 Forbidden",
        "ExpiredToken",
        "The security token included in the request is expired",
        "have expired .*fresh ones",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_clocks_and_keys_are_told_apart(proxies: Any, sandbox: Any, behind: Any, name: str) -> None:
    status, code, message, says = REFUSALS[name]
    proxy = proxies(sandbox.s3_url, "refusing")
    proxy.fault(answer=refusal(status, code, message))
    async with opened() as broker:
        with pytest.raises(m.AuthFailed, match=says) as caught:
            await broker.register("aws", **behind(proxy.url))
        assert await broker.list() == []
    assert len(proxy.seen) == 1
    others = {one[3] for one in REFUSALS.values()} - {says}
    assert not any(re.search(other, caught.value.message) for other in others)


async def test_wrong_keys_at_a_real_server(sandbox: Any, behind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = behind(sandbox.s3_url)
    async with opened() as broker:
        wrong = arguments | {"config": arguments["config"] | {"aws_secret_access_key": "x" * 40}}
        with pytest.raises(m.AuthFailed, match="check aws_secret_access_key"):
            await broker.register("aws", **wrong)
        unknown = arguments | {"config": arguments["config"] | {"aws_access_key_id": "AKIAUNKNOWNUNKNOWN00"}}
        with pytest.raises(m.AuthFailed, match="does not know the access key"):
            await broker.register("aws", **unknown)
        with pytest.raises(m.ResourceNotFound, match="check its name"):
            await broker.register("aws", **arguments, resource_id="s3://no-such-bucket-here")
        assert await broker.list() == []


@pytest.mark.parametrize(("ahead", "kind"), [(timedelta(hours=2), m.Rejected), (timedelta(0), None)])
async def test_credentials_that_have_ended_when_they_come(
    sandbox: Any, behind: Any, ahead: timedelta, kind: type[m.MooringError] | None
) -> None:
    """A clock of ours that is two hours ahead sees an hour's credentials as ended."""

    class Ahead:
        def now(self) -> datetime:
            return datetime.now(UTC) + ahead

        def monotonic(self) -> float:
            return anyio.current_time()

    async with opened(clock=Ahead()) as broker:
        await broker.register("aws", **behind(sandbox.s3_url), verify=False)
        if kind is None:
            assert not (await broker.issue("aws", resource_id="s3://team-models")).cached
            return
        with pytest.raises(kind, match="clock"):
            await broker.issue("aws", resource_id="s3://team-models")


# -- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def registered(proxies: Any, sandbox: Any, behind: Any) -> Iterator[Any]:
    proxy = proxies(sandbox.s3_url, "cli")

    async def register() -> None:
        async with opened() as broker:
            await broker.register("aws", **behind(proxy.url), verify=False)

    anyio.run(register)
    yield proxy
    proxy.clear()


@pytest.mark.parametrize(
    "fault",
    [{"reset": "request"}, {"answer": b"HTTP/1.1 429 No\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"}],
)
@pytest.mark.parametrize(
    "command",
    [
        ("connector", "verify", "aws"),
        ("issue", "aws", "--resource-id", "s3://team-models"),
        ("connector", "list-resources"),
    ],
)
def test_one_line_on_the_command_line(registered: Any, fault: dict[str, Any], command: tuple[str, ...]) -> None:
    from click.testing import CliRunner

    from mooring.cli._app import make_app

    registered.fault(**fault)
    done = CliRunner().invoke(make_app(), command)
    assert done.exit_code in (4, 7), done.output
    assert "Traceback" not in done.output
    if done.exit_code == 4:
        assert len(done.stderr.strip().splitlines()) == 1
        assert "try again" in done.stderr or "check" in done.stderr
