"""The TLS context that everything shares, and an HTTP client for plugins that need no SDK (httpx, at first use)."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

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

if TYPE_CHECKING:
    import httpx


LONGEST_ANSWER = 16 * 1024 * 1024
"""Bytes of an answer that are read, at most."""


class Tls:
    """One TLS context for the process: making one costs some 40 ms of CPU, so it is made once and shared."""

    @cached_property
    def context(self) -> ssl.SSLContext:
        """A client context that verifies certificates against the system's trust store."""
        return ssl.create_default_context()


class Answer(NamedTuple):
    """What a server answered, whatever its status; no part of it is fit to be quoted."""

    host: str
    status: int
    headers: Mapping[str, str]
    """By name in lower case; repeated ones are joined by commas (RFC 9110 section 5.3)."""
    body: bytes | None
    """None if it is longer than `LONGEST_ANSWER`."""

    def __repr__(self) -> str:
        return f"Answer({self.host!r}, {self.status})"

    @property
    def is_success(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status < 300  # noqa: PLR2004  RFC 9110 section 15.3

    def json(self) -> Any:
        """The value that a successful answer holds, None if it is empty.

        Raises:
            VendorError: it was no success, or is not JSON; as `Http` says.
        """
        if not self.is_success:
            raise _refusal(self)
        if self.body is None:
            raise Rejected(f"the answer of {self.host} is longer than 16 MiB; check the address")
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            pass
        raise Rejected(f"{self.host} answered what is not JSON; check the address")


class Http:
    """Calls to JSON APIs below one address, over connections that all sessions share.

    Every failure is one of ours: 401 `AuthFailed`, 403 `AccessDenied`, 404 `ResourceNotFound`, 429 `Throttled`, 5xx
    and no answer `Unreachable` (both with `retry_after` from the Retry-After header, RFC 9110 section 10.2.3), what
    else is not JSON or not a success `Rejected`. Messages name the host and the status, never a header or a body.
    Redirects are not followed and cookies not kept: both would carry one connector's session to others.
    """

    def __init__(self, client: httpx.AsyncClient | Tls, base: str = "", headers: dict[str, str] | None = None) -> None:
        self._client = client
        self._base = base
        self._headers = headers or {}

    def __repr__(self) -> str:
        return f"Http({_host(self._base)!r})"

    def at(self, base: str, *, authorization: str | None = None) -> Http:
        """The same connections, below another address and with another Authorization header.

        Raises:
            InvalidConfig: the address is not one, or the header cannot be sent. Never says it.
        """
        if not _host(base):
            raise InvalidConfig("the address is malformed; write it like https://host/path")
        if authorization and not (authorization.isascii() and authorization.isprintable()):
            raise InvalidConfig("the credentials hold what an HTTP header cannot; look for a line break at their end")
        return Http(self._connected(), base.rstrip("/"), {"authorization": authorization} if authorization else {})

    def _connected(self) -> httpx.AsyncClient:
        if isinstance(self._client, Tls):
            from http.cookiejar import CookieJar, DefaultCookiePolicy

            import httpx

            self._client = httpx.AsyncClient(
                verify=self._client.context,
                timeout=None,  # noqa: S113  budgets bound the time
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            )
        return self._client

    async def get_json(self, path: str, **params: str) -> Any:
        """What GET answers."""
        return await self._call("GET", path, params=params)

    async def post_json(self, path: str, body: Any) -> Any:
        """What POST of a JSON body answers."""
        return await self._call("POST", path, json=body)

    async def delete(self, path: str) -> None:
        """Send DELETE."""
        await self._call("DELETE", path)

    async def ask(self, method: str, path: str, /, **params: str | list[str]) -> Answer:
        """The answer itself, for protocols in which a refusal says more than that (such as a challenge).

        The query is `params` alone; one of the path's own is not sent.
        """
        return await self._ask(method, path, params=params)

    async def _call(self, method: str, path: str, **arguments: Any) -> Any:
        return (await self._ask(method, path, **arguments)).json()

    async def _ask(self, method: str, path: str, **arguments: Any) -> Answer:
        import httpx

        problem: MooringError
        host = _host(self._base + path)
        try:
            url, client = self._base + path, self._connected()
            async with client.stream(method, url, headers=self._headers, **arguments) as response:
                body = await _body(response)
                names = dict.fromkeys(response.headers)
                headers = {name: ", ".join(response.headers.get_list(name)) for name in names}
                return Answer(host, response.status_code, headers, body)
        except httpx.HTTPError as error:
            problem = Unreachable(_why_not(host, error))
        except (httpx.InvalidURL, UnicodeError):
            problem = InvalidConfig("the address, or what is sent there, is malformed; write it like https://host/path")
        raise problem  # outside the except: the foreign error may quote the request, or the reply

    async def aclose(self) -> None:
        """Close the connections."""
        if not isinstance(self._client, Tls):
            await self._client.aclose()


def _host(address: str) -> str:
    """The host, and the port if there is one, of an address; empty if it is none."""
    try:
        parts = urlsplit(address)
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
            return parts.netloc.rpartition("@")[2]
    except ValueError:
        pass
    return ""


async def _body(response: httpx.Response) -> bytes | None:
    """The body; None if it is too long."""
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > LONGEST_ANSWER:
            return None
    return bytes(body)


def _why_not(host: str, error: Exception) -> str:
    """Why no answer came, as far as the foreign error's causes tell (of certificates: X509_STORE_CTX_get_error)."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case BaseExceptionGroup():
                cause = cause.exceptions[0]
                continue
            case socket.gaierror():
                return f"the name of {host} cannot be resolved; check the address and DNS"
            case ConnectionRefusedError():
                return f"{host} refuses the connection; check that it runs, and its port"
            case ssl.SSLCertVerificationError(verify_code=9):
                return f"the certificate of {host} is not valid yet; check this machine's clock"
            case ssl.SSLCertVerificationError(verify_code=10):
                return f"the certificate of {host} has expired; have it renewed, or check this machine's clock"
            case ssl.SSLCertVerificationError(verify_code=62 | 64):
                return f"the certificate of {host} is for another host; check the name in the address"
            case ssl.SSLCertVerificationError():
                return f"the certificate of {host} is not trusted; check the address, or set SSL_CERT_FILE"
            case ssl.SSLError():
                return f"there is no TLS with {host}; check that it serves https at that port"
        cause = cause.__cause__ or cause.__context__
    return f"no answer from {host}: {type(error).__name__}; check the address and the network"


def _refusal(answer: Answer) -> VendorError:
    said = f"{answer.host} answered {answer.status}"
    match answer.status:
        case 401:
            return AuthFailed(f"{said}: it does not accept the credentials")
        case 403:
            return AccessDenied(f"{said}: the credentials are not allowed to do this")
        case 404:
            return ResourceNotFound(f"{said}: there is no such resource")
        case 429:
            return Throttled(f"{said}: too many calls; try again later", retry_after=_retry_after(answer))
        case status if status >= 500:  # noqa: PLR2004  RFC 9110 section 15.6
            return Unreachable(f"{said}: its server failed; try again later", retry_after=_retry_after(answer))
    return Rejected(f"{said}: it refused the request")


def _retry_after(answer: Answer) -> timedelta | None:
    """The wait that the server asks for: seconds, or a date, read against the server's own clock."""
    from email.utils import parsedate_to_datetime

    value = answer.headers.get("retry-after", "")
    try:
        if value.isdigit():
            return timedelta(seconds=int(value))
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(answer.headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return None
    return max(wait, timedelta(0))


@asynccontextmanager
async def open_http(tls: Tls | None = None) -> AsyncGenerator[Http, None]:
    """The HTTP client of a broker; no library is loaded and no connection made before the first call."""
    http = Http(tls or Tls())
    try:
        yield http
    finally:
        await http.aclose()
