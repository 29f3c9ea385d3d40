"""What lets the tokens of EKS into a cluster: a webhook that recomputes their signatures from the specification.

Source: https://github.com/kubernetes-sigs/aws-iam-authenticator#api-authorization-from-outside-a-cluster,
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

LIFE_SECONDS = 900
PREFIX = "k8s-aws-v1."


def caller(token: str, cluster: str, secrets: dict[str, str]) -> str:
    """The id of the key that signed a token for a cluster; ValueError if none of ours did, or too long ago."""
    encoded = token.removeprefix(PREFIX)
    if encoded == token:
        raise ValueError("no token of EKS")
    url = urlsplit(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode())
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    signature = query.pop("X-Amz-Signature")
    key, date, region, service, end = query["X-Amz-Credential"].split("/")
    signed_at = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    fine = (
        url.scheme == "https"
        and url.netloc == f"sts.{region}.amazonaws.com"
        and query["Action"] == "GetCallerIdentity"
        and query["X-Amz-SignedHeaders"] == "host;x-k8s-aws-id"
        and -60 < (datetime.now(UTC) - signed_at).total_seconds() < LIFE_SECONDS
        and key in secrets
    )
    if not fine:
        raise ValueError("not for us")
    pairs = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
    headers = f"host:{url.netloc}\nx-k8s-aws-id:{cluster}\n"
    request = "\n".join(["GET", "/", pairs, headers, "host;x-k8s-aws-id", hashlib.sha256(b"").hexdigest()])
    scope = f"{date}/{region}/{service}/{end}"
    text = f"AWS4-HMAC-SHA256\n{query['X-Amz-Date']}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    secret = b"AWS4" + secrets[key].encode()
    for part in (date, region, service, end):
        secret = hmac.digest(secret, part.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(secret, text.encode(), "sha256").hex(), signature):
        raise ValueError("a wrong signature")
    return key


@contextlib.contextmanager
def webhook(folder: Path, authority: Any, cluster: str, secrets: dict[str, str]) -> Iterator[list[str]]:
    """Serve TokenReviews; gives the flags with which kube-apiserver asks for them. Users are named by their key ids."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status: dict[str, Any] = {"authenticated": False}
            with contextlib.suppress(ValueError, LookupError):
                key = caller(review["spec"]["token"], cluster, secrets)
                status = {"authenticated": True, "user": {"username": f"aws:{key}", "groups": ["eks-devs"]}}
            body = json.dumps({"apiVersion": review["apiVersion"], "kind": "TokenReview", "status": status}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    certificate, key = authority.server("127.0.0.1")
    (folder / "webhook.pem").write_text(certificate + key)
    (folder / "webhook-ca.crt").write_text(authority.pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "webhook.pem")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    place = {
        "server": f"https://127.0.0.1:{server.server_address[1]}/",
        "certificate-authority": str(folder / "webhook-ca.crt"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "w", "cluster": place}],
        "users": [{"name": "w", "user": {}}],
        "contexts": [{"name": "w", "context": {"cluster": "w", "user": "w"}}],
        "current-context": "w",
    }
    (folder / "webhook.kubeconfig").write_text(json.dumps(config))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield [
            f"--authentication-token-webhook-config-file={folder / 'webhook.kubeconfig'}",
            "--authentication-token-webhook-version=v1",
        ]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
