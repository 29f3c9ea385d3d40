"""Acme Cloud on this machine, to try the plugin against: `python serve.py`. Refuses whatever is not exactly right."""

import json
import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LONGEST = 12 * 60 * 60


class AcmeCloud(ThreadingHTTPServer):
    """Buckets, behind one API key; tokens are good for one bucket, one access and their time. Loopback alone."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.key = secrets.token_hex(16)
        self.buckets = ("reports", "raw-data")
        self.tokens: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, datetime] = {}
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """`/me`, `/buckets`, `/buckets/NAME` and `/tokens`."""

    server: AcmeCloud

    def do_GET(self) -> None:
        """The key may see everything, a token its bucket."""
        self.server.calls.append(f"GET {self.path}")
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        token = self.server.tokens.get(bearer)
        if bearer != self.server.key and (token is None or self.server.ends[bearer] <= datetime.now(UTC)):
            return self._answer(401)
        if token is not None and self.path != f"/buckets/{token['bucket']}":
            return self._answer(403)
        if self.path == "/me":
            return self._answer(200, {"login": "wile"})
        if self.path == "/buckets":
            return self._answer(200, [{"name": name} for name in self.server.buckets])
        name = self.path.removeprefix("/buckets/")
        return self._answer(200, {"name": name}) if name in self.server.buckets else self._answer(404)

    def do_POST(self) -> None:
        """A token, for the key alone."""
        self.server.calls.append(f"POST {self.path}")
        asked = self._body()
        if self.headers.get("authorization") != f"Bearer {self.server.key}":
            return self._answer(401)
        if self.path != "/tokens":
            return self._answer(404)
        match asked:
            case {"bucket": str(bucket), "access": "list" | "read" | "write", "seconds": int(seconds), **more}:
                if more or isinstance(seconds, bool) or not 0 < seconds <= LONGEST:
                    return self._answer(400)
            case _:
                return self._answer(400)
        if bucket not in self.server.buckets:
            return self._answer(404)
        token, ends = secrets.token_hex(16), datetime.now(UTC) + timedelta(seconds=seconds)
        self.server.ends[token] = ends
        self.server.tokens[token] = asked
        return self._answer(201, {"id": token, "expires": ends.isoformat()})

    def _body(self) -> Any:
        try:
            return json.loads(self.rfile.read(int(self.headers["content-length"])))
        except (TypeError, ValueError):
            return None

    def _answer(self, status: int, body: Any = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until Ctrl-C, after saying where and by which key."""
    with AcmeCloud() as cloud:
        print(f"export ACME_URL={cloud.url}\nexport ACME_KEY={cloud.key}", flush=True)
        with suppress(KeyboardInterrupt):
            cloud.serve_forever()


if __name__ == "__main__":
    main()
