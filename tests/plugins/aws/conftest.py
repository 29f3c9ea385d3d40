"""The plugin's hooks, called by hand against the sandbox (real S3, STS, EKS, ECR) or a strict fake at the HTTP edge."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import msgspec
import pytest
from aiohttp import web

import mooring as m
from mooring.testing import example_context
from mooring.types import build_config
from mooring_aws import connector
from mooring_sandbox.testing import sandbox  # noqa: F401  (a fixture)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    """A machine without AWS configuration; gives its home."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    return tmp_path


Opened = Callable[..., contextlib.AbstractAsyncContextManager[Any]]


@pytest.fixture
def settle() -> Callable[..., m.Config]:
    """A configuration of an auth method from plain fields."""

    def made(method: str, **fields: Any) -> m.Config:
        found = connector.describe().auth_method(method)
        assert found is not None
        return build_config(found.config, fields)

    return made


@pytest.fixture
async def cloud() -> AsyncGenerator[Any, None]:
    async with connector.lifespan(example_context().tools) as shared:
        yield shared


@pytest.fixture
def context(cloud: Any) -> m.Context:
    return msgspec.structs.replace(example_context(), connector="prod", consumer="ann@host", shared=cloud)


@pytest.fixture
def opened(settle: Any, context: m.Context) -> Opened:
    """A session of an auth method from plain fields."""

    def made(method: str, **fields: Any) -> Any:
        return connector.authenticate(settle(method, **fields), context)

    return made


@pytest.fixture
def ask() -> Callable[..., m.CredentialRequest]:
    def made(
        resource_type: str, resource_id: str | None, access: m.Access = "read", **more: Any
    ) -> m.CredentialRequest:
        fields = {"ttl": timedelta(hours=1), "consumer": "ann@host"} | more
        return m.CredentialRequest(resource_type=resource_type, resource_id=resource_id, access=access, **fields)

    return made


@pytest.fixture
def place(sandbox: Any) -> dict[str, Any]:  # noqa: F811
    """The fields that lead to the sandbox."""
    return {
        "region": sandbox.region,
        "endpoint_url": sandbox.aws_url,
        "endpoint_urls": {"s3": sandbox.s3_url, "sts": sandbox.s3_url},
    }


@pytest.fixture
def keys(sandbox: Any) -> dict[str, str]:  # noqa: F811
    return {"aws_access_key_id": sandbox.developer.key_id, "aws_secret_access_key": sandbox.developer.secret}


Answer = Callable[["Asked"], Awaitable[web.Response]]


class Asked:
    """One request that reached the fake, with the key that signed it (None: unsigned)."""

    def __init__(self, request: web.Request, body: bytes, signer: str | None) -> None:
        self.path = request.path
        self.headers = dict(request.headers)
        self.signer = signer
        form = parse_qsl(body.decode(errors="replace")) if "form" in request.content_type else []
        self.parameters = dict(form) | dict(request.query)


class FakeAws:
    """A server that recomputes each signature from the specification, and answers as the test says.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.asked: list[Asked] = []
        self.answer: Answer = self.whoami
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        asked = Asked(request, body, self.signer(request, body))
        self.asked.append(asked)
        return await self.answer(asked)

    def signer(self, request: web.Request, body: bytes) -> str | None:
        header = request.headers.get("Authorization")
        if header is None:
            return None
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]{64})", header
        )
        assert found, "no signature of version 4"
        key, *scope = found[1].split("/")
        canonical = "\n".join(
            [
                request.method,
                quote(unquote(request.raw_path.partition("?")[0]), safe="/-_.~"),
                "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in sorted(request.query.items())),
                *(f"{name}:{' '.join(request.headers[name].split())}" for name in found[2].split(";")),
                "",
                found[2],
                hashlib.sha256(body).hexdigest(),
            ]
        )
        digest = signature(self.secrets[key], request.headers["X-Amz-Date"], scope, canonical)
        assert hmac.compare_digest(digest, found[3]), "a wrong signature"
        return key

    async def whoami(self, asked: Asked) -> web.Response:
        return identity(f"arn:aws:iam::123456789012:user/{asked.signer}")


def signature(secret: str, moment: str, scope: list[str], canonical: str) -> str:
    text = "\n".join(["AWS4-HMAC-SHA256", moment, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + secret.encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def identity(arn: str) -> web.Response:
    return xml(
        f"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{arn}</Arn><Account>123456789012</Account>"
        "<UserId>u</UserId></GetCallerIdentityResult></GetCallerIdentityResponse>"
    )


def credentials(
    operation: str, key: str = "ASIAEXAMPLEEXAMPLE00", life: timedelta = timedelta(hours=1)
) -> web.Response:
    ends = (datetime.now(UTC) + life).strftime("%Y-%m-%dT%H:%M:%SZ")
    return xml(
        f"<{operation}Response><{operation}Result><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>made"
        f"</SecretAccessKey><SessionToken>token</SessionToken><Expiration>{ends}</Expiration></Credentials>"
        f"</{operation}Result></{operation}Response>"
    )


def refusal(code: str, message: str = "no", status: int = 400, **headers: str) -> web.Response:
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    return web.Response(text=body, status=status, content_type="text/xml", headers=headers)


def xml(body: str) -> web.Response:
    return web.Response(text=body, content_type="text/xml")


@pytest.fixture
async def fake() -> AsyncGenerator[FakeAws, None]:
    server = FakeAws()
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    server.secrets["AKIAEXAMPLEEXAMPLE00"] = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest.fixture
def fake_key(fake: FakeAws) -> dict[str, Any]:
    """The fields of a key that the fake knows, at the fake."""
    key, secret = next(iter(fake.secrets.items()))
    return {"region": "eu-west-1", "endpoint_url": fake.url, "aws_access_key_id": key, "aws_secret_access_key": secret}


class Replies:
    """The answers of the fake, for tests; a module here cannot import from another."""

    identity = staticmethod(identity)
    credentials = staticmethod(credentials)
    refusal = staticmethod(refusal)
    signature = staticmethod(signature)
    json = staticmethod(web.json_response)
    xml = staticmethod(xml)


@pytest.fixture
def replies() -> type[Replies]:
    return Replies
