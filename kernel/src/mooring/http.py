"""The TLS context that everything shares, and an HTTP client for plugins that need no SDK (httpx, at first use)."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mooring.errors import AccessDenied, AuthFailed, Rejected, ResourceNotFound, Throttled, Unreachable, VendorError

if TYPE_CHECKING:
    import httpx


class Tls:
    """One TLS context for the process: making one costs some 40 ms of CPU, so it is made once and shared."""

    @cached_property
    def context(self) -> ssl.SSLContext:
        """A client context that verifies certificates against the system's trust store."""
        return ssl.create_default_context()


class Http:
    """Calls to JSON APIs below one address, over connections that all sessions share.

    Every failure is one of ours: 401 `AuthFailed`, 403 `AccessDenied`, 404 `ResourceNotFound`, 429 `Throttled` (with
    `retry_after` from the Retry-After header, RFC 9110 section 10.2.3), any other 4xx `Rejected`, 5xx and no answer
    `Unreachable`. Messages name the host and the status, never a header or a body.
    """

    def __init__(self, client: httpx.AsyncClient | Tls, base: str = "", headers: dict[str, str] | None = None) -> None:
        self._client = client
        self._base = base
        self._headers = headers or {}

    def __repr__(self) -> str:
        return f"Http({self._base!r})"

    def at(self, base: str, *, authorization: str | None = None) -> Http:
        """The same connections, below another address and with another Authorization header."""
        return Http(self._connected(), base.rstrip("/"), {"authorization": authorization} if authorization else {})

    def _connected(self) -> httpx.AsyncClient:
        if isinstance(self._client, Tls):
            import httpx

            self._client = httpx.AsyncClient(verify=self._client.context, timeout=None, follow_redirects=False)  # noqa: S113  budgets bound the time
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

    async def _call(self, method: str, path: str, **arguments: Any) -> Any:
        import httpx

        problem: VendorError
        try:
            response = await self._connected().request(method, self._base + path, headers=self._headers, **arguments)
        except httpx.HTTPError as error:
            problem = Unreachable(
                f"no answer from {self._base}: {type(error).__name__}; check the address and the network"
            )
        else:
            if response.is_success:
                return response.json() if response.content else None
            problem = self._refusal(response)
        raise problem  # outside the except: the foreign error may quote the request

    def _refusal(self, response: httpx.Response) -> VendorError:
        said = f"{self._base} answered {response.status_code}"
        match response.status_code:
            case 401:
                return AuthFailed(f"{said}: it does not accept the credentials")
            case 403:
                return AccessDenied(f"{said}: the credentials are not allowed to do this")
            case 404:
                return ResourceNotFound(f"{said}: there is no such resource")
            case 429:
                seconds = response.headers.get("retry-after", "")
                after = timedelta(seconds=int(seconds)) if seconds.isdigit() else None
                return Throttled(f"{said}: too many calls; try again later", retry_after=after)
            case status if status >= 500:  # noqa: PLR2004  RFC 9110 section 15.6
                return Unreachable(f"{said}: its server failed; try again later")
        return Rejected(f"{said}: it refused the request")

    async def aclose(self) -> None:
        """Close the connections."""
        if not isinstance(self._client, Tls):
            await self._client.aclose()


@asynccontextmanager
async def open_http(tls: Tls | None = None) -> AsyncGenerator[Http, None]:
    """The HTTP client of a broker; no library is loaded and no connection made before the first call."""
    http = Http(tls or Tls())
    try:
        yield http
    finally:
        await http.aclose()
