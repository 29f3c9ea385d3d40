"""Failures of AWS and botocore, renamed at one edge by the table in `table`.

What AWS says is never quoted as it is, for some of it quotes the request: SignatureDoesNotMatch shows the canonical
request with the session token in it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import mooring as m
from mooring.types import NOT_UNICODE
from mooring_aws.formats import URL
from mooring_aws.table import ANSWERS, CERTIFICATES, DENIALS, EXCEPTIONS, HERE, OTHER, REMARKS, Row

T = TypeVar("T")

BY_CODE: dict[str, Row] = {code: (kind, text) for codes, kind, text in ANSWERS for code in codes.split()}
BY_NAME: dict[str, Row] = {name: (kind, text) for names, kind, text in EXCEPTIONS for name in names.split()}
DENIED = BY_CODE["AccessDenied"]

_ARN = (
    r"arn:aws(?:-cn|-us-gov)?:[a-z0-9-]{2,20}:[a-z0-9-]{0,20}:(?:[0-9]{12})?:[A-Za-z0-9_.,@:/*-]{0,127}[A-Za-z0-9_/*-]"
)
_WHO = re.compile(
    rf"(?:^|\s)User: ({_ARN}) is not authorized to perform: ([a-z0-9-]{{2,32}}:[A-Za-z]{{2,64}})"
    rf"(?: on resource: ({_ARN}))?(?=$|[\s.,;])"
)
_CODE = re.compile(r"[A-Za-z][A-Za-z.]{2,63}")
_SECONDS = re.compile(r"[0-9]+")

LONGEST_PAUSE = 86400
"""Seconds that we believe an endpoint in its `Retry-After`, at most."""
LONGEST_ANSWER = 16 * 1024 * 1024
"""Bytes of an answer that are read, at most."""


class TooLong(Exception):
    """An answer is longer than that."""


class Redirected(Exception):
    """An answer leads to somewhere else; with its status."""


class Wordless(Exception):
    """An error answer that names no code, as gateways give; with its status and its `Retry-After`."""


class Foreign(Exception):
    """An answer that is none of AWS's, as of a portal that wants a login."""


async def translated(
    call: str, work: Callable[[], Awaitable[T]], endpoint: str | None = None, unsaid: Iterable[m.Secret] = ()
) -> T:
    """What `work` gives; a failure of AWS or botocore becomes one of ours, without the original as its cause.

    `endpoint` is the address that was called, if it is not AWS's own; `unsaid` are the secrets that it was sent.

    A function, not a context manager: the error is raised outside of `except`, so that no `__context__` is left from
    which a secret could be read.
    """
    problem: m.MooringError
    try:
        return await work()
    except m.MooringError:
        raise
    except Exception as error:  # noqa: BLE001  (the edge: whatever an SDK raises)
        problem = translate(error, call, endpoint, unsaid)
    raise problem


def translate(
    error: Exception, call: str, endpoint: str | None = None, unsaid: Iterable[m.Secret] = ()
) -> m.MooringError:
    """Our error for one of AWS's, of botocore's or of the connection's."""
    response = getattr(error, "response", None)
    words = {"call": call, **_whose(endpoint)}
    return _answered(response, words, unsaid) if isinstance(response, dict) else _raised(error, words)


def _whose(endpoint: str | None) -> dict[str, str]:
    if endpoint is None:
        return {"who": "AWS", "endpoint": "the endpoint", "place": "the region and the network"}
    place = "that it runs, the connector's endpoint_url, and the network"
    return {"who": "the endpoint", "endpoint": f"the endpoint {plain(endpoint)}".strip(), "place": place}


def given(answer: Any, name: str, call: str, kind: type[T] = str) -> T:  # type: ignore[assignment]  # (a default of T)
    """What an answer has under a name; an endpoint that is not AWS's may leave anything out, or mean something else."""
    found = answer.get(name) if isinstance(answer, Mapping) else None
    if not found or not isinstance(found, kind) or (isinstance(found, str) and NOT_UNICODE.search(found)):
        raise m.Rejected(f"the answer lacks {name} ({call}); check that the endpoint speaks this API")
    return found


def plain(url: str) -> str:
    """A URL without userinfo, query and fragment; "" if it is not a plain one even so.

    >>> plain("http://ann:word@127.0.0.1:8333/?token=x"), plain("http://ann:wo/rd@127.0.0.1")
    ('http://127.0.0.1:8333', '')
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    return shown if URL.fullmatch(shown) else ""


def _answered(response: dict[str, Any], words: dict[str, str], unsaid: Iterable[m.Secret] = ()) -> m.MooringError:
    said, metadata = _part(response, "Error") or response, _part(response, "ResponseMetadata")  # SeaweedFS: not wrapped
    number = metadata.get("HTTPStatusCode")
    status = str(number) if isinstance(number, int) else ""
    code, remark = str(said.get("Code") or status), str(said.get("Message", ""))
    row = next(((kind, text) for of, part, kind, text in REMARKS if of == code and part in remark), None)
    row = row or _redirected(status, words["call"]) or BY_CODE.get(code) or BY_CODE.get(status) or (m.Rejected, OTHER)
    sentence = DENIALS.get(words["call"], row[1]) if row is DENIED else row[1]
    text = sentence.format(**words, code=code if _CODE.fullmatch(code) and not _says(code, unsaid) else status)
    if row is DENIED and (found := _WHO.search(remark)) and not _says(found[0], unsaid):
        identity, action, what = found.groups()
        denial = f"{words['who']} denies {action} to {identity}" + (f" on {what}" if what else "")
        text = f"{denial}; allow it in the policies of the identity and of the resource"
    problem = row[0](text)
    seconds = str(_part(metadata, "HTTPHeaders").get("retry-after", ""))
    if _SECONDS.fullmatch(seconds):
        problem.retry_after = timedelta(seconds=min(int(seconds[:9]), LONGEST_PAUSE))
    return problem


def _part(answer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = answer.get(name)
    return found if isinstance(found, Mapping) else {}


def _says(text: str, unsaid: Iterable[m.Secret]) -> bool:
    """Whether a text has one of these in it, or as much of one as would help to guess it."""
    parts = [text[start : start + TELLING] for start in range(max(1, len(text) - TELLING + 1))]
    return any(
        value and (value in text or any(part in value for part in parts))
        for value in (secret.reveal() for secret in unsaid)
    )


TELLING = 12
"""Signs of a secret that are too many to be there by chance."""


def _redirected(status: str, call: str) -> Row | None:
    """None is followed, for the request that we would send again has the session token in it."""
    if not re.fullmatch("3[0-9]{2}", status):
        return None
    return BY_CODE["301"] if call.startswith("s3:") and status in ("301", "307") else (m.Rejected, REDIRECTED)


REDIRECTED = "{who} answered {call} with a redirect, which is never followed; check the region and endpoint_url"


def _raised(error: Exception, words: dict[str, str]) -> m.MooringError:
    refused = getattr(error, "kwargs", {}).get("error")
    if isinstance(refused, TooLong):
        return m.Rejected(TOO_LONG.format(**words))
    if isinstance(refused, Wordless):
        status, pause = refused.args
        return _answered({"ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {"retry-after": pause}}}, words)
    if isinstance(refused, Foreign) or _raised_in(error) in PARSERS:
        return FOREIGN[0](FOREIGN[1].format(**words))
    certificate = getattr(getattr(refused, "certificate_error", None), "verify_code", None)
    if certificate in CERTIFICATES:
        return m.Unreachable(CERTIFICATES[certificate].format(**words))
    if isinstance(refused, Redirected) and (row := _redirected(str(refused.args[0]), words["call"])):
        return row[0](row[1].format(**words))
    for cause in (getattr(error, "kwargs", {}).get("error"), error.__cause__, error.__context__, error):
        names = [kind.__name__ for kind in type(cause).__mro__]
        wanted = names if cause is error else [name for name in names if name in DEEPER]
        if found := next((BY_NAME[name] for name in wanted if name in BY_NAME), None):
            return found[0](found[1].format(**words))
    return m.Rejected(HERE.format(**words, code=type(error).__name__))


def _raised_in(error: Exception) -> str:
    """The module whose code raised it."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__")) if trace else ""


PARSERS = ("botocore.parsers", "aiobotocore.parsers")
FOREIGN = BY_NAME["ResponseParserError"]
TOO_LONG = "the answer of {endpoint} to {call} is longer than 16 MiB; check that it speaks this API"
DEEPER = {
    "gaierror",
    "ClientConnectorDNSError",
    "ClientConnectorCertificateError",
    "SSLCertVerificationError",
    "SSLError",
    "ClientSSLError",
    "ClientHttpProxyError",
    "ClientResponseError",
}
"""What says more than the exception that botocore has wrapped around it."""
