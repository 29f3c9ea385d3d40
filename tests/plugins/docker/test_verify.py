"""The handshake, against real registries; what is no registry, and who does not get the password."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import mooring as m
from mooring.http import Tls, open_http
from mooring_docker import connector
from mooring_docker.challenge import Challenge

pytestmark = pytest.mark.anyio
ALICE = {"username": "alice", "password": "pw-alice"}


async def verified(session: Any, resource_id: str | None = None) -> m.Identity:
    return await connector.verify(session, m.VerifyRequest(resource_type="docker-registry", resource_id=resource_id))


async def test_user_and_password_by_htpasswd(opened: Any, htpasswd: Any) -> None:
    async with opened("password", registry=htpasswd.url, **ALICE) as session:
        identity = await verified(session)

    assert identity == m.Identity(subject="alice", account=htpasswd.host)


async def test_user_and_password_by_a_token_server(opened: Any, token_registry: Any, tokens: Any) -> None:
    async with opened("password", registry=token_registry.url, **ALICE) as session:
        identity = await verified(session)

    assert identity.subject == "alice"
    assert [(one["user"], one["service"]) for one in tokens.seen] == [("alice", ["registry-tests"])]


@pytest.mark.parametrize("kind", ["htpasswd", "token_registry"])
async def test_a_wrong_password(opened: Any, kind: str, request: pytest.FixtureRequest) -> None:
    registry = request.getfixturevalue(kind)
    async with opened("password", registry=registry.url, username="alice", password="cAnArY-1") as session:
        with pytest.raises(m.AuthFailed, match="does not accept the credentials") as caught:
            await verified(session)

    assert "cAnArY" not in repr(caught.value) + repr(session)


async def test_a_token_of_the_registry(opened: Any, token_registry: Any, tokens: Any) -> None:
    token = tokens.token("alice", ["repository:team/app:pull"])
    async with opened("token", registry=token_registry.url, token=token) as session:
        identity = await verified(session)

    assert identity.subject == "alice"
    assert identity.expires_at is not None
    assert tokens.seen == []


async def test_a_token_that_is_forged(opened: Any, token_registry: Any, tokens: Any) -> None:
    head, _, signature = tokens.token("alice", []).split(".")
    claims = base64.urlsafe_b64encode(b'{"sub":"alice"}').decode().rstrip("=")
    async with opened("token", registry=token_registry.url, token=f"{head}.{claims}.{signature}") as session:
        with pytest.raises(m.AuthFailed):
            await verified(session)


async def test_nobody_where_nobody_may_ask(opened: Any, htpasswd: Any) -> None:
    async with opened("anonymous", registry=htpasswd.url) as session:
        with pytest.raises(m.AuthFailed, match="use the auth method password"):
            await verified(session)


async def test_nobody_at_an_open_registry(opened: Any, open_registry: Any) -> None:
    async with opened("anonymous", registry=open_registry.url) as session:
        assert (await verified(session)).subject == "anonymous"


async def test_a_repository(opened: Any, token_registry: Any, push: Any) -> None:
    host = token_registry.host
    assert push(f"{host}/bob/app:v1", "--dest-creds=bob:pw-bob").returncode == 0
    async with opened("password", registry=token_registry.url, username="bob", password="pw-bob") as session:
        await verified(session, f"{host}/bob/app")
        with pytest.raises(m.ResourceNotFound, match="bob/none"):
            await verified(session, f"{host}/bob/none")
        with pytest.raises(m.AccessDenied, match="team/app"):
            await verified(session, f"{host}/team/app")


class Fake(ThreadingHTTPServer):
    """Answers with what `replies` has for a path: status, headers, body. Keeps what it saw."""

    daemon_threads = True

    def __init__(self, **replies: tuple[int, dict[str, str], bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = {f"/{name}/" if name == "v2" else f"/{name}": reply for name, reply in replies.items()}
        self.seen: list[tuple[str, str | None]] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def reply(self, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        return self.replies.get(path, (404, {}, b""))


class Handler(BaseHTTPRequestHandler):
    server: Fake
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.seen.append((path, self.headers.get("authorization")))
        status, headers, body = self.server.reply(path, self.headers.get("authorization"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Redirecting(Fake):
    """Redirects those who are logged in from one path."""

    def __init__(self, path: str, to: str, challenge: dict[str, str]) -> None:
        super().__init__()
        self.path, self.to, self.challenge = path, to, challenge

    def reply(self, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        if authorization is None:
            return 401, self.challenge, b""
        return (302, {"Location": self.to}, b"") if path == self.path else (200, {}, b"{}")


def bearer(realm: str) -> tuple[int, dict[str, str], bytes]:
    return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'}, b""


NO_REGISTRIES = {
    "a web site": (200, {"Content-Type": "text/html"}, b"<html>"),
    "a web site without that page": (404, {}, b""),
    "a redirect": (302, {"Location": "https://elsewhere.example.org/v2/"}, b""),
    "an API": (200, {}, b'{"version": 1}'),
    "no challenge": (401, {}, b""),
    "no challenge that can be read": (401, {"WWW-Authenticate": "="}, b""),
}


@pytest.mark.parametrize("reply", NO_REGISTRIES.values(), ids=NO_REGISTRIES)
async def test_what_is_no_registry(opened: Any, served: Callable[[Any], Fake], reply: Any) -> None:
    fake = served(Fake(v2=reply))
    async with opened("password", registry=f"http://{fake.host}", **ALICE) as session:
        with pytest.raises(m.Rejected, match="is no container registry"):
            await verified(session)

    assert fake.seen == [("/v2/", None)]


OTHER_REPLIES = {
    403: m.AccessDenied,
    429: m.Throttled,
    503: m.Unreachable,
}


@pytest.mark.parametrize(("code", "kind"), OTHER_REPLIES.items())
async def test_a_registry_that_does_not_answer_now(
    opened: Any, served: Callable[[Any], Fake], code: int, kind: type[m.MooringError]
) -> None:
    fake = served(Fake(v2=(code, {}, b"")))
    async with opened("password", registry=f"http://{fake.host}", **ALICE) as session:
        with pytest.raises(kind):
            await verified(session)


async def test_a_scheme_that_we_do_not_speak(opened: Any, served: Callable[[Any], Fake]) -> None:
    fake = served(Fake(v2=(401, {"WWW-Authenticate": "Negotiate"}, b"")))
    async with opened("password", registry=f"http://{fake.host}", **ALICE) as session:
        with pytest.raises(m.Rejected, match="neither Basic nor Bearer"):
            await verified(session)


async def test_nobody_listens(opened: Any) -> None:
    async with opened("password", registry="http://127.0.0.1:9", **ALICE) as session:
        with pytest.raises(m.Unreachable, match="refuses the connection"):
            await verified(session)


async def test_http_where_https_is_meant(opened: Any, htpasswd: Any) -> None:
    async with opened("password", registry=htpasswd.host, **ALICE) as session:
        with pytest.raises(m.Unreachable, match=f"no TLS with {htpasswd.host}; .*write http://{htpasswd.host} in"):
            await verified(session)


async def test_http_of_another_machine_where_https_is_meant(
    opened: Any, htpasswd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mooring_docker.ids.is_loopback", lambda host: False)
    async with opened("password", registry=htpasswd.host, **ALICE) as session:
        with pytest.raises(m.Unreachable, match=r"no TLS .* set the field insecure"):
            await verified(session)


async def test_a_certificate_that_nobody_vouches_for(
    opened: Any, settle: Any, context: m.Context, tmp_path: Path, running: Any
) -> None:
    file = certificate(tmp_path / "server.pem")
    tls = {"tls": {"certificate": str(file), "key": str(file)}}
    with running(tmp_path, {}, **tls) as host:
        async with opened("anonymous", registry=host) as session:
            with pytest.raises(m.Unreachable, match="is not trusted"):
                await verified(session)
        trusting = Tls()
        trusting.context = ssl.create_default_context(cafile=str(file))
        async with open_http(trusting) as http:
            trusted = msgspec.structs.replace(context, tools=msgspec.structs.replace(context.tools, http=http))
            async with connector.authenticate(settle("anonymous", registry=host), trusted) as session:
                assert (await verified(session)).account == host


def certificate(path: Path) -> Path:
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = builder.add_extension(alternative, critical=False).sign(key, hashes.SHA256())
    form = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*form))
    return path


async def test_a_token_server_on_another_host_gets_nothing(opened: Any, served: Callable[[Any], Fake]) -> None:
    thief = served(Fake(token=(200, {}, b'{"token": "t"}')))
    fake = served(Fake(v2=bearer(f"http://localhost:{thief.server_port}/token")))
    for method, fields in (("password", ALICE), ("anonymous", {})):
        async with opened(method, registry=f"http://{fake.host}", **fields) as session:
            with pytest.raises(m.InvalidConfig, match="another host, localhost, so nothing was sent there") as caught:
                await verified(session)
            assert caught.value.field == "realm"

    assert thief.seen == []
    assert {authorization for _, authorization in fake.seen} == {None}


async def test_a_token_server_that_the_settings_name_gets_the_password(
    opened: Any, served: Callable[[Any], Fake]
) -> None:
    server = served(Fake(token=(401, {}, b"")))
    realm = f"http://localhost:{server.server_port}/token"
    fake = served(Fake(v2=bearer(realm)))
    async with opened("password", registry=f"http://{fake.host}", realm=realm, **ALICE) as session:
        with pytest.raises(m.AuthFailed):
            await verified(session)

    assert server.seen == [("/token", "Basic " + base64.b64encode(b"alice:pw-alice").decode())]


async def test_a_token_servers_own_query_is_sent_too(opened: Any, token_registry: Any, tokens: Any) -> None:
    challenge = Challenge("bearer", {"realm": f"{tokens.realm}?tenant=a%26b&scope=all", "service": "s"})
    async with opened("anonymous", registry=token_registry.url) as session:
        await session.grant(challenge, "repository:open/app:pull")

    asked = {"tenant": ["a&b"], "scope": ["repository:open/app:pull"], "service": ["s"]}
    assert tokens.seen == [{"user": "", "path": "/token", **asked}]


@pytest.mark.parametrize("name", ["path", "method", "self", "base", "url", "headers"])
async def test_a_query_of_any_name_is_sent(opened: Any, token_registry: Any, tokens: Any, name: str) -> None:
    challenge = Challenge("bearer", {"realm": f"{tokens.realm}?{name}=x"})
    async with opened("anonymous", registry=token_registry.url) as session:
        await session.grant(challenge, None)

    assert {**tokens.seen[0], "path": "/token"} == {"user": "", "path": "/token"} | (
        {name: ["x"]} if name != "path" else {}
    )


async def test_a_token_server_by_http_of_a_registry_by_https(opened: Any) -> None:
    challenge = Challenge("bearer", {"realm": "http://R.org/token"})
    for method, fields in (("password", ALICE), ("anonymous", {})):
        async with opened(method, registry="r.org", **fields) as session:
            with pytest.raises(m.InvalidConfig, match="by http, so nothing was sent there") as caught:
                await session.grant(challenge, None)
            assert caught.value.field == "realm"


async def listed(session: Any, _: str) -> None:
    async for _ in connector.discover(session, m.DiscoverRequest(resource_type="docker-registry")):
        pass


@pytest.mark.parametrize(
    ("path", "verb"), [("/v2/", verified), ("/v2/_catalog", listed), ("/v2/team/app/tags/list", verified)]
)
async def test_a_registry_that_redirects_those_who_logged_in(
    opened: Any, served: Callable[[Any], Any], path: str, verb: Callable[..., Any]
) -> None:
    thief = served(Fake())
    challenge = {"WWW-Authenticate": "Basic realm=x"}
    fake = served(Redirecting(path, f"http://localhost:{thief.server_port}{path}", challenge))
    async with opened("password", registry=f"http://{fake.host}", **ALICE) as session:
        with pytest.raises(m.Rejected, match="302"):
            await verb(session, f"{fake.host}/team/app")

    assert thief.seen == []


SEVERAL = [
    'Basic realm="z", Bearer realm="{}",service="a, b=c"',
    'Negotiate dGVzdA==, Bearer service="a, b=c" , realm="{}"',
    'Bearer realm="{}",service="a, b=c",error="invalid_token", Bearer realm="http://evil.example.org"',
]


@pytest.mark.parametrize("header", SEVERAL)
async def test_several_challenges(opened: Any, served: Callable[[Any], Any], header: str) -> None:
    server = served(Fake(token=(401, {}, b"")))
    fake = served(Fake(v2=(401, {"WWW-Authenticate": header.format(f"http://{server.host}/token")}, b"")))
    async with opened("password", registry=f"http://{fake.host}", **ALICE) as session:
        assert (await session.greet()).parameters["service"] == "a, b=c"
        with pytest.raises(m.AuthFailed):
            await verified(session)

    assert [path for path, _ in server.seen] == ["/token"]


@pytest.mark.parametrize("status", [429, 503])
async def test_how_long_to_wait_is_told(opened: Any, served: Callable[[Any], Any], status: int) -> None:
    server = served(Fake(token=(status, {"Retry-After": "7"}, b"")))
    asking, away = served(Fake(v2=bearer(f"http://{server.host}/token"))), served(Fake(v2=server.replies["/token"]))
    for fake in (asking, away):
        async with opened("password", registry=f"http://{fake.host}", **ALICE) as session:
            with pytest.raises((m.Throttled, m.Unreachable)) as caught:
                await verified(session)
            assert caught.value.retry_after == timedelta(seconds=7)


async def test_a_token_server_that_redirects_is_not_followed(opened: Any, served: Callable[[Any], Fake]) -> None:
    thief = served(Fake())
    server = served(Fake(token=(307, {"Location": f"http://{thief.host}/token"}, b"")))
    fake = served(Fake(v2=bearer(f"http://{server.host}/token")))
    async with opened("password", registry=f"http://{fake.host}", **ALICE) as session:
        with pytest.raises(m.Rejected, match="307"):
            await verified(session)

    assert thief.seen == []


REALMS = ["", "token", "/token", "file:///etc/passwd", "http://127.0.0.1:0/token",
          "//127.0.0.1/token", "ftp://127.0.0.1/token", "http://alice@127.0.0.1/token",
          "http://127.0.0.1:x/token", "http://[::1/token", "http://127.0.0.1\\\\@evil.org/"]  # fmt: skip


@pytest.mark.parametrize("realm", REALMS)
async def test_a_token_server_that_is_no_url(opened: Any, served: Callable[[Any], Fake], realm: str) -> None:
    fake = served(Fake(v2=bearer(realm)))
    async with opened("password", registry=f"http://{fake.host}", **ALICE) as session:
        with pytest.raises(m.Rejected, match="a token server that is no URL"):
            await verified(session)


ANSWERS = [b"", b"[]", b"{}", b'{"token": ""}', b'{"token": 1}', b'{"token": "a b"}', b'{"token": "a\\nb"}', b"<html>"]


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_token_server_that_answers_garbage(opened: Any, served: Callable[[Any], Fake], answer: bytes) -> None:
    server = served(Fake(token=(200, {}, answer)))
    fake = served(Fake(v2=bearer(f"http://{server.host}/token")))
    async with opened("password", registry=f"http://{fake.host}", **ALICE) as session:
        with pytest.raises(m.Rejected):
            await verified(session)


class Wire:
    """The kernel's client as Docker Hub would see it: https alone, its two hosts, its challenge, its tokens."""

    def __init__(self, base: str = "", authorization: str | None = None, seen: list[Any] | None = None) -> None:
        self.base, self.authorization = base, authorization
        self.seen: list[Any] = [] if seen is None else seen

    def at(self, base: str, *, authorization: str | None = None) -> Wire:
        return Wire(base, authorization, self.seen)

    async def ask(self, method: str, path: str, **params: Any) -> Any:
        from mooring.http import Answer

        self.seen.append((self.base + path, self.authorization, params))
        hub = {"docker-distribution-api-version": "registry/2.0"}
        challenge = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
        if (self.base, path) == ("https://auth.docker.io", "/token"):
            assert self.authorization == "Basic " + base64.b64encode(b"alice:pw-alice").decode()
            return Answer("auth.docker.io", 200, {}, json.dumps({"token": "t", "expires_in": 300}).encode())
        assert self.base == "https://registry-1.docker.io"
        if self.authorization != "Bearer t":
            return Answer("registry-1.docker.io", 401, {**hub, "www-authenticate": challenge}, b"")
        return Answer("registry-1.docker.io", 200, hub, b"{}")


async def test_docker_hub_by_its_hosts(settle: Any, context: m.Context) -> None:
    wire: Any = Wire()
    tools = msgspec.structs.replace(context.tools, http=wire)
    config = settle("password", **ALICE)
    async with connector.authenticate(config, msgspec.structs.replace(context, tools=tools)) as session:
        identity = await verified(session)

    assert identity == m.Identity(subject="alice", account="docker.io")
    assert [address for address, _, _ in wire.seen] == [
        "https://registry-1.docker.io/v2/",
        "https://auth.docker.io/token",
        "https://registry-1.docker.io/v2/",
    ]
    assert wire.seen[1][2] == {"service": ["registry.docker.io"], "account": ["alice"]}


class Counting(Fake):
    """Says how many more calls it takes within a minute, and counts them."""

    left = 0

    def reply(self, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        status, _, body = super().reply(path, authorization)
        self.left -= 1
        return status, {"ratelimit-remaining": f"{self.left};w=60"}, body


@pytest.mark.parametrize("left", [0, 1, 2])
async def test_a_registry_that_says_how_many_calls_remain_gets_no_more(
    opened: Any, served: Callable[[Any], Fake], left: int
) -> None:
    fake = served(Counting(v2=(200, {}, b"{}")))
    async with opened("anonymous", registry=f"http://{fake.host}") as session:
        with anyio.fail_after(20):
            fake.left = left + 1
            await session.greet()
            asked = len(fake.seen)
            for _ in range(left):
                await session.whoami()
            with pytest.raises(m.Throttled) as caught:
                await session.whoami()
    assert len(fake.seen) - asked == left
    assert caught.value.retry_after is not None
    assert 50 < caught.value.retry_after.total_seconds() <= 60


async def test_a_registry_that_complains_is_left_alone_and_no_other(opened: Any, served: Callable[[Any], Fake]) -> None:
    fake, other = served(Fake(v2=(429, {"Retry-After": "60"}, b""))), served(Fake(v2=(200, {}, b"{}")))
    with anyio.fail_after(20):
        for _ in range(2):
            async with opened("anonymous", registry=f"http://{fake.host}") as session:
                with pytest.raises(m.Throttled):
                    await session.greet()
        async with opened("anonymous", registry=f"http://{other.host}") as session:
            await session.greet()
    assert len(fake.seen) == 1
