"""The HTTP client: every answer, and every lack of one, is one of our errors and quotes nothing."""

import json
import logging
import socket
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest

from mooring.errors import (
    AccessDenied,
    AuthFailed,
    InvalidConfig,
    MooringError,
    Rejected,
    ResourceNotFound,
    Throttled,
    Unreachable,
    VendorError,
)
from mooring.http import Http, Tls, open_http

pytestmark = pytest.mark.anyio

CANARY = "cAnArY-5f03"
BEARER = f"Bearer {CANARY}"


class Server(ThreadingHTTPServer):
    """Answers `/status/N` with N, and keeps every request that it saw. What it does not know is 418."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.body = b"{}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append({"method": self.command, "path": self.path, "headers": self.headers, "body": body})
        path, _, _ = self.path.partition("?")
        if path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"half": ')
            self.close_connection = True
        elif path == "/silent":
            self.close_connection = True
        elif path == "/nonsense":
            self.wfile.write(b"nonsense\r\n\r\n")
            self.close_connection = True
        elif path == "/slow":
            threading.Event().wait(5)
        else:
            code = int(path.removeprefix("/status/")) if path.startswith("/status/") else 418
            self.send_response(code)
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            body = b"" if code == 204 else self.server.body
            if code != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815  http.server's names


@contextmanager
def serving(wrap: Callable[[socket.socket], socket.socket] = lambda plain: plain) -> Iterator[Server]:
    server = Server()
    server.socket = wrap(server.socket)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with serving() as server:
        yield server


class NoTls(Tls):
    """For the tests that speak plain HTTP: a context costs 40 ms."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextmanager
def refused(kind: type[MooringError], host: str) -> Iterator[Any]:
    """The body raises exactly this, naming the host and quoting nothing."""
    with pytest.raises(MooringError) as caught:
        yield caught
    error = caught.value
    assert type(error) is kind
    assert host in error.message
    assert error.__cause__ is None
    assert error.__context__ is None
    said = "".join(traceback.format_exception(error))
    assert CANARY not in said + repr(error)


# What is asked and answered


async def test_get_gives_the_json_that_was_answered(server: Server) -> None:
    server.body = json.dumps({"a": [1, "é"]}).encode()
    async with open_http(NoTls()) as http:
        got = await http.at(server.url + "/status/", authorization=BEARER).get_json("/200", q="a b&c", n="1")

    assert got == {"a": [1, "é"]}
    (seen,) = server.seen
    assert (seen["method"], seen["path"]) == ("GET", "/status/200?q=a+b%26c&n=1")
    assert seen["headers"]["authorization"] == BEARER


async def test_post_sends_json_and_gives_what_was_answered(server: Server) -> None:
    server.body = b"[1]"
    async with open_http(NoTls()) as http:
        got = await http.at(server.url).post_json("/status/201", {"a": ["é", None]})

    assert got == [1]
    (seen,) = server.seen
    assert (seen["method"], seen["path"], json.loads(seen["body"])) == ("POST", "/status/201", {"a": ["é", None]})
    assert seen["headers"]["content-type"] == "application/json"
    assert "authorization" not in seen["headers"]


async def test_an_answer_without_a_body_is_none(server: Server) -> None:
    async with open_http(NoTls()) as http:
        assert await http.at(server.url).get_json("/status/204") is None
        await http.at(server.url).delete("/status/204")
        server.body = b""
        assert await http.at(server.url).post_json("/status/200", None) is None

    assert [seen["method"] for seen in server.seen] == ["GET", "DELETE", "POST"]


async def test_sessions_share_connections_but_neither_address_nor_credentials(server: Server) -> None:
    async with open_http(NoTls()) as http:
        one, other = http.at(server.url, authorization="Bearer one"), http.at(server.url + "/status")
        await one.get_json("/status/200")
        await other.get_json("/200")
        await other.at(server.url, authorization="Bearer three").get_json("/status/200")

        assert one._client is other._client

    assert [seen["headers"].get("authorization") for seen in server.seen] == ["Bearer one", None, "Bearer three"]


@pytest.mark.parametrize("code", [200, 307, 401, 404, 503])
async def test_ask_gives_the_answer_whatever_it_is(server: Server, code: int) -> None:
    server.headers = {"WWW-Authenticate": 'Bearer realm="x"', "Link": "</next>; rel=next"}
    server.body = b"not JSON"
    async with open_http(NoTls()) as http:
        answer = await http.at(server.url, authorization=BEARER).ask("GET", f"/status/{code}", a="1", b=["2", "3"])

    assert (answer.host, answer.status, answer.body) == (server.host, code, b"not JSON")
    assert answer.is_success == (code == 200)
    assert answer.headers["www-authenticate"] == 'Bearer realm="x"'
    assert answer.headers["link"] == "</next>; rel=next"
    assert [(one["method"], one["path"]) for one in server.seen] == [("GET", f"/status/{code}?a=1&b=2&b=3")]
    with pytest.raises(VendorError) as caught:
        answer.json()
    assert "not JSON" not in str(caught.value) or code == 200


async def test_headers_that_are_repeated_are_joined(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "headers", Repeated())
    async with open_http(NoTls()) as http:
        answer = await http.at(server.url).ask("GET", "/status/401")

    assert answer.headers["www-authenticate"] == "Negotiate, Basic realm=x"


class Repeated:
    """Headers of which one is sent twice."""

    def items(self) -> list[tuple[str, str]]:
        return [("WWW-Authenticate", "Negotiate"), ("WWW-Authenticate", "Basic realm=x")]


async def test_a_cookie_that_one_session_is_given_is_sent_by_none(server: Server) -> None:
    server.headers = {"Set-Cookie": "session=of-the-first; Path=/"}
    async with open_http(NoTls()) as http:
        await http.at(server.url, authorization="Bearer one").get_json("/status/200")
        await http.at(server.url, authorization="Bearer other").get_json("/status/200")
        assert list(http._client.cookies.jar) == []

    assert [seen["headers"].get("cookie") for seen in server.seen] == [None, None]


async def test_many_calls_at_once_each_get_their_own_answer(server: Server) -> None:
    got = {}
    async with open_http(NoTls()) as http:

        async def call(code: int) -> None:
            try:
                got[code] = await http.at(server.url).get_json(f"/status/{code}")
            except MooringError as error:
                got[code] = type(error)

        async with anyio.create_task_group() as tasks:
            for code in (200, 401, 403, 404, 429, 500, 201, 409):
                tasks.start_soon(call, code)

    assert got == {
        200: {},
        201: {},
        401: AuthFailed,
        403: AccessDenied,
        404: ResourceNotFound,
        409: Rejected,
        429: Throttled,
        500: Unreachable,
    }


# Refusals


STATUSES = [
    (400, Rejected),
    (401, AuthFailed),
    (402, Rejected),
    (403, AccessDenied),
    (404, ResourceNotFound),
    (405, Rejected),
    (409, Rejected),
    (410, Rejected),
    (418, Rejected),
    (422, Rejected),
    (429, Throttled),
    (500, Unreachable),
    (501, Unreachable),
    (502, Unreachable),
    (503, Unreachable),
    (504, Unreachable),
    (599, Unreachable),
]


@pytest.mark.parametrize(("code", "kind"), STATUSES)
async def test_every_status_is_one_of_our_errors(server: Server, code: int, kind: type[MooringError]) -> None:
    server.body = json.dumps({"error": CANARY}).encode()
    server.headers = {"X-Echo": CANARY}
    async with open_http(NoTls()) as http:
        session = http.at(f"{server.url}/status", authorization=BEARER)
        for call in (session.get_json, lambda path: session.post_json(path, {"secret": CANARY}), session.delete):
            with refused(kind, server.host) as caught:
                await call(f"/{code}")
            assert f" {code}: " in caught.value.message

    assert [seen["method"] for seen in server.seen] == ["GET", "POST", "DELETE"], "a refusal is not asked again"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_with_the_credentials(server: Server, code: int) -> None:
    with serving() as other:
        server.headers = {"Location": f"{other.url}/status/200"}
        async with open_http(NoTls()) as http:
            with refused(Rejected, server.host) as caught:
                await http.at(server.url, authorization=BEARER).get_json(f"/status/{code}")

        assert (len(server.seen), other.seen) == (1, [])
    assert str(code) in caught.value.message


DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("9" * 30, None),
        ("9" * 5000, None),
        (format_datetime(DATE + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(DATE - timedelta(seconds=90), usegmt=True), 0),
        ("Mon, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
async def test_the_wait_that_the_server_asks_for_is_handed_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, code: int, value: str | None, seconds: int | None
) -> None:
    server.headers = {} if value is None else {"Retry-After": value}
    monkeypatch.setattr(Handler, "date_time_string", lambda self, timestamp=None: format_datetime(DATE, usegmt=True))
    async with open_http(NoTls()) as http:
        with refused(Throttled if code == 429 else Unreachable, server.host) as caught:
            await http.at(server.url).get_json(f"/status/{code}")

    assert caught.value.retryable
    assert caught.value.retry_after == (None if seconds is None else timedelta(seconds=seconds))


# No answer


@pytest.mark.parametrize("path", ["/cut", "/silent", "/nonsense"])
async def test_an_answer_that_breaks_off_is_unreachable(server: Server, path: str) -> None:
    async with open_http(NoTls()) as http:
        with refused(Unreachable, server.host) as caught:
            await http.at(server.url, authorization=BEARER).get_json(path)

    assert caught.value.retryable


async def test_a_refused_connection_is_unreachable() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening
        host = f"127.0.0.1:{nobody.getsockname()[1]}"
        async with open_http(NoTls()) as http:
            with refused(Unreachable, host) as caught:
                await http.at(f"http://{host}", authorization=BEARER).get_json("/x")

    assert caught.value.message == f"{host} refuses the connection; check that it runs, and its port"


@pytest.mark.parametrize("host", ["x" * 64 + ".example", "a..b"])
async def test_a_name_that_cannot_be_asked_for_is_one_of_our_errors(host: str) -> None:
    """One that no name server is troubled with: asyncio's resolver and trio's each fail in a way of their own."""
    async with open_http(NoTls()) as http:
        with pytest.raises((Unreachable, InvalidConfig), match=r"check the address|is malformed") as caught:
            await http.at(f"http://{host}", authorization=BEARER).get_json("/x")

    assert caught.value.__context__ is None


async def test_a_body_that_is_not_unicode_is_refused_without_an_echo(server: Server) -> None:
    async with open_http(NoTls()) as http:
        with refused(InvalidConfig, "what is sent there"):
            await http.at(server.url).post_json("/status/200", {"secret": CANARY + "\udcff"})

    assert server.seen == []


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b"{", b"\xff\xfe", f'{{"x": {CANARY}'.encode()])
async def test_an_answer_that_is_not_json_is_refused_without_quoting_it(server: Server, body: bytes) -> None:
    server.body = body
    async with open_http(NoTls()) as http:
        with refused(Rejected, server.host) as caught:
            await http.at(server.url).get_json("/status/200")

    assert "not JSON" in caught.value.message


async def test_a_certificate_that_nobody_vouches_for_is_unreachable_and_is_sent_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    monkeypatch.setattr(Server, "handle_error", lambda *arguments: None)
    with serving(lambda plain: context.wrap_socket(plain, server_side=True)) as server:
        async with open_http() as http:
            with refused(Unreachable, server.host):
                await http.at(f"https://{server.host}", authorization=BEARER).get_json("/status/200")

        assert server.seen == []


def self_signed(folder: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(certificate + key.private_bytes(*form))
    return path


def test_the_tls_context_verifies_and_is_made_once() -> None:
    tls = Tls()

    assert (tls.context.verify_mode, tls.context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert tls.context is tls.context


async def test_a_call_ends_when_it_is_cancelled(server: Server) -> None:
    async with open_http(NoTls()) as http:
        with anyio.fail_after(4), anyio.move_on_after(0.1) as scope:
            await http.at(server.url).get_json("/slow")

    assert scope.cancelled_caught


# Addresses and headers that cannot be


@pytest.mark.parametrize(
    "address",
    [
        "",
        CANARY,
        f"//{CANARY}",
        f"ftp://{CANARY}",
        f"https:{CANARY}",
        "https://",
        f"https://[{CANARY}",
        f"https://host:{CANARY}",
        "https://host:99999",
        f"https://user:{CANARY}@:80",
    ],
)
async def test_an_address_that_is_none_is_refused_without_an_echo(address: str) -> None:
    async with open_http(NoTls()) as http:
        with refused(InvalidConfig, "the address is malformed"):
            http.at(address)


@pytest.mark.parametrize("path", [f"/{CANARY}\n", f"/{CANARY}\0", f"/{'x' * 70000}{CANARY}"])
async def test_a_path_that_no_address_can_hold_is_refused_without_an_echo(server: Server, path: str) -> None:
    async with open_http(NoTls()) as http:
        with refused(InvalidConfig, "the address, or what is sent there, is malformed"):
            await http.at(server.url).get_json(path)

    assert server.seen == []


@pytest.mark.parametrize(
    "token", [f"{CANARY}\n", f"{CANARY}\r\nX-Other: 1", f"{CANARY}é", f"{CANARY}\0", f"{CANARY}\t"]
)
async def test_credentials_that_no_header_can_hold_are_refused_without_an_echo(server: Server, token: str) -> None:
    async with open_http(NoTls()) as http:
        with refused(InvalidConfig, "line break"):
            http.at(server.url, authorization=f"Bearer {token}")


async def test_a_password_in_an_address_is_never_said(server: Server) -> None:
    async with open_http(NoTls()) as http:
        session = http.at(f"http://user:{CANARY}@{server.host}/hooks/{CANARY}")
        assert repr(session) == f"Http({server.host!r})"
        with refused(Rejected, server.host):
            await session.get_json("/x")


async def test_nothing_that_is_logged_holds_the_credentials(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with open_http(NoTls()) as http:
            session = http.at(f"{server.url}/status", authorization=BEARER)
            await session.post_json("/200", {"secret": CANARY})
            with refused(Unreachable, server.host):
                await session.at(server.url, authorization=BEARER).get_json("/cut")

    assert caplog.records, "httpx does log"
    assert CANARY not in "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)


# What it costs to have one


async def test_a_client_that_calls_nobody_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tls = Tls()
    async with open_http(tls) as http:
        assert isinstance(http, Http)

    assert "context" not in vars(tls)


LAZY = """
import sys, anyio
from mooring.http import open_http
async def main():
    async with open_http() as http:
        assert "httpx" not in sys.modules
        http.at("https://host")
        assert "httpx" in sys.modules
anyio.run(main)
print("good")
"""


def test_httpx_is_imported_when_a_plugin_asks_for_it_and_not_before() -> None:
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("good\n", "")


async def test_connections_are_closed_with_the_context(server: Server) -> None:
    async with open_http(NoTls()) as http:
        session = http.at(server.url)
        await session.get_json("/status/200")

    assert session._client.is_closed
