"""What goes over the wire: no redirect is followed, no endless answer read, and none that is not AWS's is parsed.

A request carries the session token in a header of its own, which aiohttp would take along to wherever it is redirected.
"""

from __future__ import annotations

from typing import Any

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession

from mooring_aws.errors import LONGEST_ANSWER, Foreign, Redirected, TooLong, Wordless

CODES = (b"<Code>", b'"__type"', b'"code"', b'"Code"')
"""How an answer of AWS names its error: in XML, or in JSON. Others, as of gateways, have their status alone."""
HTML = (b"<!doctype html", b"<html")


class Straight(AIOHTTPSession):  # type: ignore[misc]  # botocore has no types
    """Follows no redirect; for the clients of the host, whose answers may be as long as they are."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        return _Unredirected(await super()._get_session(proxy_url))


class Bounded(AIOHTTPSession):  # type: ignore[misc]  # botocore has no types
    """Follows no redirect, and gives an answer up that is too long."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        return _Read(await super()._get_session(proxy_url))


class _Unredirected:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, method: str, **options: Any) -> Any:
        return await self._session.request(method, **options | {"allow_redirects": False})


class _Read(_Unredirected):
    async def request(self, method: str, **options: Any) -> Any:
        response = await super().request(method, **options)
        try:
            if _leads_away(response):
                raise Redirected(response.status)
            body = await _body(response, sized=method != "HEAD")
            if method != "HEAD":
                _check(response, body)
            return _Answer(response, body)
        except BaseException:
            response.close()
            raise


class _Answer:
    """As much of an aiohttp response as aiobotocore looks at."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.url, self.status, self.raw_headers = response.url, response.status, response.raw_headers
        self._body = body

    async def read(self) -> bytes:
        return self._body


def _leads_away(response: aiohttp.ClientResponse) -> bool:
    """Whether it is a redirect, but for S3's, which names the bucket's region; others, botocore would ask for ever."""
    redirect = response.status // 100 == 3  # noqa: PLR2004  (3xx)
    return redirect and "x-amz-bucket-region" not in response.headers


def _check(response: aiohttp.ClientResponse, body: bytes) -> None:
    """Refuse what botocore's parsers would trip over, or take for an empty listing."""
    failed = response.status >= 400  # noqa: PLR2004  (4xx, 5xx)
    if failed and "x-amzn-errortype" not in response.headers and not any(code in body for code in CODES):
        raise Wordless(response.status, response.headers.get("retry-after", ""))
    if not failed and body.lstrip()[:32].lower().startswith(HTML):
        raise Foreign


async def _body(response: aiohttp.ClientResponse, *, sized: bool) -> bytes:
    if sized and (response.content_length or 0) > LONGEST_ANSWER:
        raise TooLong
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > LONGEST_ANSWER:
            raise TooLong
    return bytes(body)
