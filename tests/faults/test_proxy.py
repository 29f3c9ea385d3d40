"""The proxy itself does to HTTP what it says."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

BODY = b"x" * 1000


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3e8\r\n" + BODY + b"\r\n0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)


@pytest.fixture
def proxy(proxies: Any) -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield proxies(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


@pytest.fixture
def client(proxy: Any) -> Iterator[http.client.HTTPConnection]:
    host, port = proxy.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    yield connection
    connection.close()


def post(client: http.client.HTTPConnection, path: str = "/") -> bytes:
    client.request("POST", path, b"Action=Test&x=1")
    return client.getresponse().read()


def test_it_passes_on_and_counts(proxy: Any, client: Any) -> None:
    assert [post(client), post(client, "/chunked"), post(client)] == [BODY] * 3
    assert [tuple(one) for one in proxy.seen] == [("POST", path, "Test") for path in ("/", "/chunked", "/")]
    assert (proxy.accepted, proxy.open) == (1, 1)


@pytest.mark.parametrize(("fault", "least"), [({"latency": 0.3}, 0.3), ({"rate": 4000}, 0.25)])
def test_it_delays(proxy: Any, client: Any, fault: dict[str, Any], least: float) -> None:
    proxy.fault(**fault)
    began = time.monotonic()
    assert post(client) == BODY
    assert time.monotonic() - began >= least


@pytest.mark.parametrize("reset", ["connection", "request", "reply"])
def test_it_resets(proxy: Any, client: Any, reset: str) -> None:
    proxy.fault(reset=reset)
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        post(client)


def test_it_resets_idle_connections(proxy: Any, client: Any) -> None:
    post(client)
    proxy.drop()
    with pytest.raises(ConnectionError):
        post(client)


def test_it_cuts(proxy: Any, client: Any) -> None:
    proxy.fault(cut=-10)
    with pytest.raises(http.client.IncompleteRead):
        post(client)


def test_it_answers_so_many_times_and_then_passes_on(proxy: Any, client: Any) -> None:
    proxy.fault(answer=b"HTTP/1.1 503 No\r\nContent-Length: 1\r\n\r\n!", times=2)
    assert [post(client) for _ in range(3)] == [b"!", b"!", BODY]


def test_it_takes_and_never_answers_until_it_is_told_to(proxy: Any, client: Any) -> None:
    proxy.fault(black_hole=True)
    client.timeout = 0.3
    with pytest.raises(socket.timeout):
        post(client)
    client.close()
    proxy.clear()
    client.timeout = 5
    assert post(client) == BODY


def test_it_never_ends(proxy: Any, client: Any) -> None:
    proxy.fault(answer=b"HTTP/1.1 200 OK\r\n\r\n", endless=b"y" * 1000)
    client.request("POST", "/", b"")
    assert client.getresponse().read(3_000_000) == b"y" * 3_000_000
