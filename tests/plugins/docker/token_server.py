"""A token server for docker-registry, as its specification has them: test equipment, RS256.

Source: https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER, SERVICE = "mooring-tests", "registry-tests"


class TokenServer(ThreadingHTTPServer):
    """Knows `users`; `bob` may use what is below `bob/` alone, all others everything, and nobody pull `open/`."""

    daemon_threads = True

    def __init__(self, users: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.users = users
        self.seen: list[dict[str, Any]] = []
        self.answer: dict[str, Any] = {}
        """Put over every answer."""
        self._key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "token signer")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(name, name, self._key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        certified = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = certified.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        spki = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        coded = base64.b32encode(hashlib.sha256(spki).digest()[:30]).decode()
        self._kid = ":".join(coded[at : at + 4] for at in range(0, len(coded), 4))  # libtrust's id of a key

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is nobody's concern."""

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/token"

    def write_certificate(self, path: Path) -> Path:
        path.write_bytes(self.certificate)
        return path

    def sign(self, claims: dict[str, Any]) -> str:
        parts = ({"alg": "RS256", "typ": "JWT", "kid": self._kid}, claims)
        text = b".".join(coded(json.dumps(part).encode()) for part in parts)
        return (text + b"." + coded(self._key.sign(text, padding.PKCS1v15(), hashes.SHA256()))).decode()

    def token(self, user: str, scopes: list[str], life: int = 300) -> str:
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            held = [action for action in actions.split(",") if allowed(user, kind, name, action)]
            access.append({"type": kind, "name": name, "actions": held})
        now = int(time.time())
        return self.sign({"iss": ISSUER, "sub": user, "aud": SERVICE, "iat": now, "nbf": now - 5, "exp": now + life,
                          "jti": uuid.uuid4().hex, "access": access})  # fmt: skip


def coded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def allowed(user: str, kind: str, name: str, action: str) -> bool:
    if not user:
        return kind == "repository" and name.startswith("open/") and action == "pull"
    return user != "bob" or (kind == "repository" and name.startswith("bob/") and action in ("pull", "push"))


class Handler(BaseHTTPRequestHandler):
    server: TokenServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        asked = parse_qs(parts.query)
        header = self.headers.get("authorization", "")
        user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        self.server.seen.append({"user": user, "path": parts.path, **asked})
        if user and self.server.users.get(user) != password:
            self.reply(401, {"errors": [{"code": "UNAUTHORIZED"}]})
            return
        token = self.server.token(user, asked.get("scope", []))
        self.reply(200, {"token": token, "access_token": token, "expires_in": 300} | self.server.answer)

    def reply(self, status: int, values: Any) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
