"""`agent`: what it answers and to whom, and how it ends."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")
SECRET = "s3cr3t+with/some=more"
FIRST = ("one", "-r", "acme-bucket", "-i", "first")
ENDS = 60

Agent = Callable[..., tuple[subprocess.Popen[str], dict[str, str]]]


@pytest.fixture
def agent(registered, monkeypatch) -> Iterator[Agent]:
    """Start an agent; its process and the variables that it prints."""
    monkeypatch.setenv("ACME_GIVES", SECRET)
    started = []

    def start(*arguments: str, files: int = 1024) -> tuple[subprocess.Popen[str], dict[str, str]]:
        command = [sys.executable, "-m", "mooring", "agent", *(arguments or FIRST), "--format", "json"]
        command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stderr.readline() == "Serving until Ctrl-C.\n"
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline()
        return process, json.loads(text)

    yield start
    for process in started:
        with process:
            process.kill()


def ask(variables: dict[str, str], method: str = "GET", path: str = "", **fields: str | None) -> tuple[int, str]:
    """Ask as a program would; fields replace the right ones, None leaves one out."""
    url = urlsplit(variables["ACME_URL"])
    right = {"Host": url.netloc, "Authorization": variables["ACME_ASK_WITH"]} | fields
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=ENDS)
    connection.putrequest(method, path or url.path, skip_host=True, skip_accept_encoding=True)
    for name, value in right.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    assert answer.getheader("Cache-Control") == "no-store"
    connection.close()
    return answer.status, text


def test_who_has_the_token_gets_what_is_fresh(agent) -> None:
    _, variables = agent()
    assert variables["ACME_OLD"] is None
    assert urlsplit(variables["ACME_URL"]).hostname == "127.0.0.1"
    assert len(variables["ACME_ASK_WITH"]) >= 40
    assert [ask(variables) for _ in range(3)] == [(200, SECRET)] * 3


def test_what_is_in_use_is_renewed_before_it_ends(agent, cli, monkeypatch) -> None:
    """Nobody asks any more, but the first time; a lease comes in the place of that one."""
    monkeypatch.setenv("ACME_LIFE", "6")
    _, variables = agent()
    assert ask(variables) == (200, SECRET)
    command = [sys.executable, "-m", "mooring", "events", "--follow", "--after", "0", "-o", "json"]
    command += ["--type", "CredentialsIssued", "--type", "CredentialsRefreshed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        timer = threading.Timer(ENDS, following.kill)
        timer.start()
        issued, refreshed = (json.loads(following.stdout.readline()) for _ in range(2))
        timer.cancel()
        following.terminate()
    assert (issued["event"], refreshed["event"]) == ("CredentialsIssued", "CredentialsRefreshed")
    assert refreshed["before"] == issued["lease"]
    assert refreshed["at"] < issued["expires_at"]


def test_nobody_else_gets_anything(agent) -> None:
    _, variables = agent()
    token, port = variables["ACME_ASK_WITH"], urlsplit(variables["ACME_URL"]).port
    refused = [
        {"Authorization": None},
        {"Authorization": ""},
        {"Authorization": token[:-1]},
        {"Authorization": f"{token}x"},
        {"Authorization": f"Bearer {token}"},
        {"Authorization": "\xe9"},
        {"Host": None},
        {"Host": "evil.example"},
        {"Host": f"evil.example:{port}"},
        {"Host": f"localhost:{port}"},
        {"Host": "127.0.0.1"},
    ]
    assert [ask(variables, **one) for one in refused] == [(403, "")] * len(refused)
    assert ask(variables, path="/other") == (404, "")
    assert ask(variables, path="/other", Authorization="no") == (403, "")
    for method in ("POST", "PUT", "OPTIONS", "HEAD"):
        assert ask(variables, method=method)[0] == 405
    assert ask(variables) == (200, SECRET)


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n",
        b"GET /0\r\n\r\n",
        b"GET /0 HTTP/2\r\n\r\n",
        b"GET /0 HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /0 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /0 HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET /0 HTTP/1.1\r\n folded: a\r\n\r\n",
        b"x" * 20_000,
        b"\xff\x00" * 100 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_the_next_is_answered(agent, sent) -> None:
    _, variables = agent()
    url = urlsplit(variables["ACME_URL"])
    with socket.create_connection((url.hostname, url.port), timeout=ENDS) as connection:
        connection.sendall(sent)
        answer = b""
        while more := connection.recv(1000):
            answer += more
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    with socket.create_connection((url.hostname, url.port), timeout=ENDS):
        assert ask(variables) == (200, SECRET), "beside one that says nothing"


@pytest.mark.parametrize("files", [64, 1024])
def test_callers_who_ask_nothing_keep_nobody_out(agent, files) -> None:
    """More of them than there are places, and more than the process may have files."""
    _, variables = agent(files=files)
    url = urlsplit(variables["ACME_URL"])
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection((url.hostname, url.port), ENDS))
        assert ask(variables)[0] == 200
    assert ask(variables)[0] == 200


def test_it_listens_on_this_machine_alone(agent) -> None:
    _, variables = agent()
    port = urlsplit(variables["ACME_URL"]).port
    with socket.socket() as other:
        other.settimeout(5)
        assert other.connect_ex(("127.0.0.2", port)) != 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(agent, number) -> None:
    process, variables = agent()
    process.send_signal(number)
    out, err = process.communicate(timeout=ENDS)
    assert (process.returncode, out, err) == (0, "", "")
    with pytest.raises(ConnectionRefusedError):
        ask(variables)


def test_a_vendor_that_refuses_is_told_and_nothing_ends(agent, cli) -> None:
    process, variables = agent()
    cli("connector", "update", "one", "--mode", "leak", "--no-verify")
    import time

    time.sleep(0.6)  # another process's change counts within a second
    status, text = ask(variables)
    assert status == 502
    assert "t0ken-registered" not in text
    cli("connector", "delete", "one", "-y")
    time.sleep(0.6)
    status, text = ask(variables)
    assert (status, text) == (500, "no connector is named 'one'; there are none")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=ENDS)
    assert err.splitlines()[-1] == f"Error: {text}"
    assert "t0ken-registered" not in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*FIRST, "--", "true"), "agent runs no command; use: mooring exec --refresh CONNECTOR -- COMMAND"),
        ((*FIRST, *FIRST), "two of the connectors set ACME_URL"),
        ((), "Missing argument CONNECTOR"),
        (("nobody",), "no connector is named 'nobody'"),
    ],
)
def test_what_is_wrong(cli, registered, arguments, says) -> None:
    result = cli("agent", *arguments, code=2)
    assert result.stdout == ""
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
