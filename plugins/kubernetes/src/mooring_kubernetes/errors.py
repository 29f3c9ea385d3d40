"""Failures of API servers and of the way to them, as ours. What a server says is not quoted: it may quote us."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import aiohttp

import mooring as m
from mooring.types import NOT_UNICODE

LONGEST_PAUSE = 86400
"""Seconds that we believe a server in its `Retry-After`, at most."""

ANSWERS: dict[int, tuple[type[m.MooringError], str]] = {
    400: (m.Rejected, "{server} takes the request for malformed ({call}); check that it is a Kubernetes API server"),
    401: (m.AuthFailed, "{server} does not accept the credentials ({call}); check them, and whether they have ended"),
    403: (m.AccessDenied, "{server} denies {call}; grant it to the connector's identity (RBAC)"),
    404: (m.ResourceNotFound, "{server} has no such thing ({call}); check the names, and the cluster's version"),
    407: (m.Unreachable, "the proxy wants a sign-in ({call}); check proxy_url or HTTPS_PROXY"),
    409: (m.Rejected, "there is one of that name already ({call}); try again"),
    422: (m.Rejected, "{server} takes a value for invalid ({call}); check service_account, audiences and the ttl"),
    429: (m.Throttled, "{server} asks for fewer calls ({call}); try again later"),
}
CERTIFICATES = {
    9: "the certificate of {server} is not valid yet ({call}); check this machine's clock",
    10: "the certificate of {server} has expired ({call}); have it renewed, or check this machine's clock",
    62: "the certificate of {server} is for another host ({call}); check the address, or set tls_server_name",
    64: "the certificate of {server} is for another host ({call}); check the address, or set tls_server_name",
}
"""Codes of OpenSSL's verification that say more than that a certificate is not trusted (X509_STORE_CTX_get_error)."""
RAISED: tuple[tuple[type[BaseException], str], ...] = (
    (
        aiohttp.ClientConnectorCertificateError,
        "the certificate of {server} is not trusted ({call}); give the cluster's CA in certificate_authority",
    ),
    (aiohttp.ClientConnectorDNSError, "the name of {server} cannot be resolved ({call}); check the address and DNS"),
    (aiohttp.ClientHttpProxyError, "the proxy refuses to lead to {server} ({call}); check proxy_url or HTTPS_PROXY"),
    (aiohttp.ClientProxyConnectionError, "the proxy cannot be reached ({call}); check proxy_url or HTTPS_PROXY"),
    (
        aiohttp.ClientSSLError,
        "there is no TLS with {server} ({call}); check that it serves https at that port, and the client certificate",
    ),
    (aiohttp.ClientConnectorError, "{server} cannot be reached ({call}); check the address, that it runs, and the way"),
    (aiohttp.ClientResponseError, "{server} does not speak HTTP ({call}); check its port, and http or https"),
    (aiohttp.InvalidURL, "the address of {server} is malformed ({call}); write https://HOST:PORT"),
    (aiohttp.ClientError, "{server} closed the connection ({call}); try again later"),
    (OSError, "{server} cannot be reached ({call}); check the address, that it runs, and the way"),
)
FOREIGN = "{server} does not answer as a Kubernetes API server does ({call}); check the address"
REDIRECTED = "{server} answered with a redirect, which is never followed ({call}); check the address"
TOO_LONG = "the answer of {server} is longer than 16 MiB ({call}); check the address"
OTHER = "{server} refused {call} with the status {status}; see the API server's log"
FAILING = "{server} fails with the status {status} ({call}); try again later"

_SECONDS = re.compile(r"[0-9]{1,9}")
_WHO = re.compile(r'User "([A-Za-z0-9][A-Za-z0-9._:/@+=-]{0,252})" cannot')


def refusal(status: int, headers: Mapping[str, str], call: str, server: str) -> m.MooringError:
    """Our error for a status that is no success."""
    kind, text = ANSWERS.get(status, (m.Rejected, OTHER))
    if status // 100 == 3:  # noqa: PLR2004  (3xx)
        text = REDIRECTED
    elif status // 100 == 5:  # noqa: PLR2004  (5xx)
        kind, text = m.Unreachable, FAILING
    problem = kind(text.format(server=server, call=call, status=status))
    if isinstance(problem, m.Throttled | m.Unreachable) and _SECONDS.fullmatch(headers.get("Retry-After", "")):
        problem.retry_after = timedelta(seconds=min(int(headers["Retry-After"]), LONGEST_PAUSE))
    return problem


def failure(error: Exception, call: str, server: str) -> m.MooringError:
    """Our error for one of aiohttp's, or of the connection's."""
    words = {"server": server, "call": call}
    code = getattr(getattr(error, "certificate_error", None), "verify_code", None)
    if code in CERTIFICATES:
        return m.Unreachable(CERTIFICATES[code].format(**words))
    text = next((text for kind, text in RAISED if isinstance(error, kind)), None)
    if text is not None:
        return m.Unreachable(text.format(**words))
    return m.Rejected(FOREIGN.format(**words))


def foreign(call: str, server: str) -> m.MooringError:
    """For an answer that is not Kubernetes's."""
    return m.Rejected(FOREIGN.format(server=server, call=call))


def too_long(call: str, server: str) -> m.MooringError:
    """For an answer without an end."""
    return m.Rejected(TOO_LONG.format(server=server, call=call))


def denied_user(document: Any) -> str | None:
    """The user that a denial (403) names."""
    found = _WHO.search(str(document.get("message", ""))) if isinstance(document, Mapping) else None
    return found[1] if found else None


def given(answer: Any, call: str, server: str, *names: str) -> str:
    """What an answer has under a path of names, a text."""
    found = answer
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, str) or not found or NOT_UNICODE.search(found):
        raise m.Rejected(
            f"the answer of {server} lacks {'.'.join(names)} ({call}); check that it is a Kubernetes API server"
        )
    return found
