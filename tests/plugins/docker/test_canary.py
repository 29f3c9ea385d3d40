"""A secret shows in no repr, error, traceback, log or local variable of ours, at a registry that sends all back."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import mooring as m
from mooring_docker import connector

pytestmark = pytest.mark.anyio

CANARY = "CANARYcanaryCANARYcanary"
CODED = base64.b64encode(f"alice:{CANARY}".encode()).decode()


class Echo(ThreadingHTTPServer):
    """Wants a token of its own token server, and answers everything else with `status` and all that it was sent."""

    daemon_threads = True

    def __init__(self, status: int, token_status: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.token_status = status, token_status
        self.heard = False


class Handler(BaseHTTPRequestHandler):
    server: Echo
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        sent = self.headers.get("authorization", "")
        self.server.heard |= CODED in sent or CANARY in sent
        token = self.path.startswith("/token")
        status = self.server.token_status if token else self.server.status if sent else 401
        values = {"said": sent} | ({"token": CANARY} if token else {})
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("WWW-Authenticate", f'Bearer realm="http://127.0.0.1:{self.server.server_port}/token"')
        self.send_header("X-Said", sent)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def text_of(error: BaseException) -> str:
    """All that a crash reporter could take: messages, and the local variables of every frame of ours."""
    own = error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)
    shown = "".join(traceback.TracebackException.from_exception(own, capture_locals=True).format())
    return shown + repr(error.__cause__) + repr(error.__context__) + repr(vars(error))


async def found(session: Any) -> None:
    request = m.DiscoverRequest(resource_type="docker-registry")
    assert not [one async for one in connector.discover(session, request)]


async def issued(session: Any) -> None:
    request = m.CredentialRequest(
        resource_type="docker-registry", resource_id=f"{session.host}/app", access="read", ttl=None, consumer="me"
    )
    await connector.issue_credentials(session, request)


VERBS: dict[str, Callable[[Any], Any]] = {
    "verify": lambda session: connector.verify(session, m.VerifyRequest(resource_id=f"{session.host}/app")),
    "discover": found,
    "issue": issued,
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("status", "token_status"), [(200, 200), (401, 200), (403, 200), (500, 200), (200, 401), (200, 302)]
)
@pytest.mark.parametrize("method", ["password", "token"])
async def test_errors(
    opened: Any, served: Any, verb: str, status: int, token_status: int, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    echo = served(Echo(status, token_status))
    fields = {"token": CANARY} if method == "token" else {"username": "alice", "password": CANARY}
    async with opened(method, registry=f"http://127.0.0.1:{echo.server_port}", **fields) as session:
        with pytest.raises(m.MooringError) as caught:
            await VERBS[verb](session)
        shown = repr(session) + repr(session.config) + text_of(caught.value) + caplog.text

    assert echo.heard or (method, verb) == ("token", "issue")
    assert "CANARY" not in shown
    assert CODED not in shown


@pytest.mark.parametrize("broken", ['{"auths": {"s.org": ', '{"credHelpers": {"s.org": "not-on-this-machine"}}'])
async def test_what_the_machine_has(machine: Path, broken: str) -> None:
    folder, other = machine / ".docker", machine / ".config" / "containers"
    folder.mkdir()
    other.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"auths": {"r.org": {"auth": CODED}, "t.org": {"auth": "no"}}}))
    (other / "auth.json").write_text(broken)
    for lift in (connector.lift, connector.lift_all):
        with pytest.raises(m.MooringError) as caught:
            await lift(m.LiftRequest(options={"registry": "t.org"}))
        assert "CANARY" not in text_of(caught.value)
        assert CODED not in text_of(caught.value)


async def test_a_file_that_login_cannot_change(machine: Path) -> None:
    folder = machine / ".docker"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"auths": {"s.org": {"auth": CODED}}, "credHelpers": []}))
    login = m.RegistryLogin(
        registry="r.org", username="alice", password=m.Secret(CANARY), expires_at=None, narrowed=False
    )
    request = m.LoginRequest(
        credentials=login, connector="mine", resource_type="docker-registry", resource_id="r.org", access="read",
        command=("mooring",), folder=machine / "logins",
    )  # fmt: skip
    with pytest.raises(m.InvalidConfig) as caught:
        connector.login(request)
    assert "CANARY" not in text_of(caught.value)
    assert CODED not in text_of(caught.value)
