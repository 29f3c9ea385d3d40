"""A vendor, and a plugin for it, that tell each secret they are given in every way but the ones that nobody can stop.

`how` says in which way, `at` in which hook. What it makes up is in `made`, for the tests to plant as canaries.
"""

import asyncio
import base64
import html
import json
import logging
import os
import threading
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import anyio.lowlevel
import msgspec

import mooring as m

LOG = logging.getLogger("hostile.plugin")
SEQUENCES = "\x1b]0;PWNED\x07\x1b[2J\x1b[31m\x9b5m\x9d0;x\x9c\r\x08\x7f\u202e\u2066evil"
"""A title, a cleared screen, colours, C1 controls, overwriting, and a text direction: nothing for a terminal."""
kept: list[Any] = []
"""What outlives the run of a command, until the interpreter goes."""


class Key(m.Config):
    token: m.Secret
    spare: m.Secret | None = None
    how: str = "well"
    at: str = "verify"
    url: str = "http://127.0.0.1:1"
    wait: str = ""


class Pair(Key):
    pem: m.Secret


class Blob(m.Credentials, tag="hostile-blob"):
    user: str
    password: m.Secret
    second: m.Secret | None = None


class Session:
    def __init__(self, config: Key, http: m.Http) -> None:
        self.config = config
        self.http = http


def secrets_of(config: Key) -> str:
    return " ".join(one.reveal() for one in (config.token, config.spare, getattr(config, "pem", None)) if one)


def quoting(secret: str) -> str:
    raw = secret.encode()
    shapes = (
        secret, repr(secret), repr(f"'\"{secret}"), repr(raw),
        json.dumps(secret), json.dumps(secret, ensure_ascii=False),
        json.dumps(json.dumps(secret)), quote(secret), quote(secret, safe=""), quote(secret, safe="").lower(),
        html.escape(secret), html.escape(secret, quote=False), raw.hex(), raw.hex().upper(),
        *(base64.b64encode(bytes(shift) + raw).decode() for shift in range(3)),
        *(base64.urlsafe_b64encode(bytes(shift) + raw).decode() for shift in range(3)),
    )  # fmt: skip
    return f"{SEQUENCES} no: {', '.join(shapes)}"


class Teller(Exception):
    """Quotes in every place that an exception has."""

    def __init__(self, secret: str) -> None:
        super().__init__(quoting(secret))
        self.secret = secret
        self.add_note(f"the note says {secret}")


def told(secret: str, kind: type[Exception] = Teller) -> Exception:
    """An exception with a cause that has a context that has a note, all quoting."""
    error = kind("the vendor refused; see the cause") if issubclass(kind, m.MooringError) else kind(secret)
    cause = Teller(secret)
    cause.__context__ = ExceptionGroup(secret, [Teller(secret), KeyError(secret)])
    error.__cause__ = cause
    error.add_note(secret)
    return error


class Dying:
    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __del__(self) -> None:
        raise Teller(self.secret)


async def tell(config: Key, at: str, http: m.Http) -> None:
    """Do it, if it is to be done here."""
    if config.at == at:
        await act(config.how, secrets_of(config), config, http)


async def act(how: str, secret: str, config: Key, http: m.Http) -> None:  # noqa: C901, PLR0912  a list of ways
    match how:
        case "raise":
            raise told(secret)
        case "group":
            raise ExceptionGroup(secret, [told(secret), told(secret)])
        case "exit":
            raise SystemExit(secret)
        case "base":
            raise BaseExceptionGroup(secret, [SystemExit(secret), told(secret)])
        case "caused":
            raise told(secret, m.AuthFailed)
        case "said":
            raise m.Rejected(quoting(secret)) from Teller(secret)
        case "log":
            for level in (10, 20, 30, 40, 50):
                LOG.log(level, "sent %s%s", secret, SEQUENCES, exc_info=told(secret))
        case "warn":
            warnings.warn(quoting(secret), UserWarning, stacklevel=1)
        case "task":
            kept.append(asyncio.create_task(failing(secret), name=f"with {secret}"))
            await anyio.lowlevel.checkpoint()
        case "thread":
            threading.Thread(target=fail, args=(secret,), name=f"with {secret}").start()
        case "dying":
            Dying(secret)
            kept.append(Dying(secret))
        case "echo":
            vendor = http.at(config.url, authorization=f"Bearer {config.token.reveal()}")
            await vendor.get_json(f"/{quote(secret, safe='')}", token=secret)
        case "echo body":
            vendor = http.at(config.url, authorization=f"Bearer {config.token.reveal()}")
            await vendor.post_json("/login", {"token": secret})


async def failing(secret: str) -> None:
    raise told(secret)


def fail(secret: str) -> None:
    raise told(secret)


def made() -> tuple[str, str]:
    """The secrets that it issues, as the tests have planted them."""
    first, second = os.environ["HOSTILE_ISSUES"].split("\n")
    return first, second


class Hostile:
    @m.hookimpl
    def describe(self) -> m.ConnectorType:
        hour = timedelta(hours=1)
        life = m.Lifetime(minimum=hour / 4, default=hour, maximum=12 * hour)
        return m.ConnectorType(
            name="hostile",
            auth_methods=(
                m.AuthMethod(name="key", config=Key, temporary=True, lifetime=life),
                m.AuthMethod(name="pair", config=Pair, temporary=True, lifetime=life),
            ),
            resource_types=(m.ResourceType(name="hostile-box", formats=("NAME",)),),
            credentials=(Blob,),
            formats=("env", "raise"),
        )

    @m.hookimpl
    def canonical(self, resource_type: str, text: str) -> str:
        return text.strip("/")

    @m.hookimpl
    @asynccontextmanager
    async def authenticate(self, config: Key, context: m.Context) -> AsyncGenerator[Session]:
        await tell(config, "authenticate", context.http)
        if config.wait:
            Path(config.wait).touch()  # noqa: ASYNC240
            await anyio.sleep(60)
        yield Session(config, context.http)
        await tell(config, "close", context.http)

    @m.hookimpl
    async def verify(self, session: Session, request: m.VerifyRequest) -> m.Identity:
        await tell(session.config, "verify", session.http)
        if session.config.how == "wrong":
            return secrets_of(session.config)
        if session.config.how == "named":
            return m.Identity(subject=f"user {secrets_of(session.config)}{SEQUENCES}", account=SEQUENCES)
        return m.Identity(subject="robot", account="4711")

    @m.hookimpl
    async def units(self, session: Session, resource_type: str) -> tuple[m.Unit, ...]:
        await tell(session.config, "units", session.http)
        return (m.Unit(name="north"),)

    @m.hookimpl
    async def discover(self, session: Session, request: m.DiscoverRequest) -> AsyncGenerator[m.Resource]:
        yield m.Resource(type="hostile-box", id="first", region="north")
        await tell(session.config, "discover", session.http)
        if session.config.how == "wrong":
            yield "a box"
        if session.config.how == "named":
            name = f"box {secrets_of(session.config)}{SEQUENCES}"
            yield m.Resource(type="hostile-box", id=name, region=SEQUENCES, attributes={"colour": SEQUENCES})

    @m.hookimpl
    async def issue_credentials(self, session: Session, request: m.CredentialRequest) -> m.Credentials:
        await tell(session.config, "issue_credentials", session.http)
        password, second = made()
        if session.config.how == "wrong":
            return msgspec.structs.replace(blob(password, second), second=secrets_of(session.config))
        if session.config.how == "bare":
            return secrets_of(session.config)
        return blob(password, second)

    @m.hookimpl
    def explain(self, config: Key, request: m.CredentialRequest) -> m.Explanation:
        if config.at == "explain" and config.how in ("raise", "caused", "said"):
            kind = {"raise": Teller, "caused": m.AuthFailed, "said": m.Rejected}[config.how]
            raise told(secrets_of(config), kind) if config.how != "said" else m.Rejected(quoting(secrets_of(config)))
        policy = {"on": f"{request.resource_id}{SEQUENCES}"} if config.how == "named" else None
        return m.Explanation(narrowed=True, calls=("hostile:Make",), policy=policy)

    @m.hookimpl
    def render(self, request: m.RenderRequest) -> str:
        password, _ = made()
        if request.format == "raise":
            raise told(password)
        return f"PASSWORD={password}\n"

    @m.hookimpl
    @asynccontextmanager
    async def client(self, request: m.ClientRequest) -> AsyncGenerator[Any]:
        password, _ = made()
        if request.resource_id == "broken":
            raise told(password)
        yield request.renew


def blob(password: str, second: str) -> Blob:
    ends = datetime.now(UTC) + timedelta(hours=1)
    return Blob(user="robot", password=m.Secret(password), second=m.Secret(second), expires_at=ends, narrowed=True)


connector = Hostile()
