"""Failures of AWS and botocore, renamed at one edge by the table in `table`.

What AWS says is never quoted as it is, for some of it quotes the request: SignatureDoesNotMatch shows the canonical
request with the session token in it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import mooring as m
from mooring_aws.table import ANSWERS, EXCEPTIONS, HERE, OTHER, REMARKS, Row

T = TypeVar("T")

BY_CODE: dict[str, Row] = {code: (kind, text) for codes, kind, text in ANSWERS for code in codes.split()}
BY_NAME: dict[str, Row] = {name: (kind, text) for names, kind, text in EXCEPTIONS for name in names.split()}
DENIED = BY_CODE["AccessDenied"]

_WHO = re.compile(
    r"User: (arn:[\w:/+=,.@-]+) is not authorized to perform: ([\w:]+)(?: on resource: (arn:[\w:/+=,.@*-]+))?"
)
_CODE = re.compile(r"[A-Za-z0-9.:_-]{1,64}")


async def translated(call: str, work: Callable[[], Awaitable[T]]) -> T:
    """What `work` gives; a failure of AWS or botocore becomes one of ours, without the original as its cause.

    A function, not a context manager: the error is raised outside of `except`, so that no `__context__` is left from
    which a secret could be read.
    """
    problem: m.MooringError
    try:
        return await work()
    except m.MooringError:
        raise
    except Exception as error:  # noqa: BLE001  (the edge: whatever an SDK raises)
        problem = translate(error, call)
    raise problem


def translate(error: Exception, call: str) -> m.MooringError:
    """Our error for one of AWS's, of botocore's or of the connection's."""
    response = getattr(error, "response", None)
    return _answered(response, call) if isinstance(response, dict) else _raised(error, call)


def _answered(response: dict[str, Any], call: str) -> m.MooringError:
    said, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    status = str(metadata.get("HTTPStatusCode", ""))
    code, remark = str(said.get("Code") or status), str(said.get("Message", ""))
    row = next(((kind, text) for of, part, kind, text in REMARKS if of == code and part in remark), None)
    row = row or BY_CODE.get(code) or BY_CODE.get(status) or (m.Rejected, OTHER)
    text = row[1].format(call=call, code=code if _CODE.fullmatch(code) else status)
    if row is DENIED and (found := _WHO.search(remark)):
        who, action, what = found.groups()
        where = f" on {what}" if what else ""
        text = f"AWS denies {action} to {who}{where}; allow it in the policies of the identity and of the resource"
    problem = row[0](text)
    seconds = str(metadata.get("HTTPHeaders", {}).get("retry-after", ""))
    problem.retry_after = timedelta(seconds=int(seconds)) if seconds.isdecimal() else None
    return problem


def _raised(error: Exception, call: str) -> m.MooringError:
    for cause in (getattr(error, "kwargs", {}).get("error"), error.__cause__, error.__context__, error):
        names = [kind.__name__ for kind in type(cause).__mro__]
        wanted = names if cause is error else [name for name in names if name in DEEPER]
        if found := next((BY_NAME[name] for name in wanted if name in BY_NAME), None):
            return found[0](found[1].format(call=call))
    return m.Rejected(HERE.format(call=call, code=type(error).__name__))


DEEPER = {"gaierror", "ClientConnectorDNSError", "SSLError", "ClientSSLError", "SSLCertVerificationError"}
"""What says more than the exception that botocore has wrapped around it."""
