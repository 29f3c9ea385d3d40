"""A role assumed with an OIDC token, where the token, its audience, trust and session policies are really checked."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Generator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import mooring as m
from mooring_aws import connector
from mooring_sandbox.accounts import ACCOUNT, User
from mooring_sandbox.seaweed import NoSeaweed, Seaweed
from mooring_sandbox.seed import REGION, caller_arn, seed_buckets

pytestmark = pytest.mark.anyio

ROLE = f"arn:aws:iam::{ACCOUNT}:role/for-the-pipeline"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Issuer:
    """An OIDC issuer with one key."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self.key.public_key().public_numbers()
        parts = {
            name: b64(value.to_bytes((value.bit_length() + 7) // 8))
            for name, value in (("n", numbers.n), ("e", numbers.e))
        }
        keys = json.dumps({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", **parts}]}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(keys)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, *, subject: str = "pipeline", audience: str = "sts.amazonaws.com", life: int = 600) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "sub": subject, "aud": audience, "iat": now - 5, "exp": now + life}
        head = {"alg": "RS256", "kid": "1", "typ": "JWT"}
        text = ".".join(b64(json.dumps(part).encode()) for part in (head, claims))
        return f"{text}.{b64(self.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def trusting(seaweed: Seaweed, issuer: Issuer) -> None:
    """Add the issuer, and a role for one of its subjects, to what the server will read."""
    path = seaweed.folder / "iam.json"
    iam = json.loads(path.read_text())
    config = {"issuer": issuer.url, "clientId": "sts.amazonaws.com", "jwksUri": issuer.url + "/keys"}
    iam["providers"] = [{"name": "ci", "type": "oidc", "enabled": True, "config": config}]
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": "ci"},
        "Action": ["sts:AssumeRoleWithWebIdentity"],
        "Condition": {"StringEquals": {"oidc:sub": "pipeline"}},
    }
    trust = {"Version": "2012-10-17", "Statement": [statement]}
    role = {"roleName": ROLE.split("/")[1], "roleArn": ROLE, "attachedPolicies": ["everything"], "trustPolicy": trust}
    iam["roles"].append(role)
    path.write_text(json.dumps(iam))


@pytest.fixture(scope="module")
def issuer() -> Generator[Issuer, None, None]:
    made = Issuer()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def store(issuer: Issuer) -> Generator[str, None, None]:
    """The URL of a server that trusts the issuer."""
    folder, owner = Path(tempfile.mkdtemp(prefix="mooring-oidc-")), User(name="owner")
    try:
        try:
            seaweed = Seaweed(folder, users=(owner,), roles=(), token_life=None, identify=caller_arn)
        except NoSeaweed as error:
            pytest.skip(str(error))
        trusting(seaweed, issuer)
        seaweed.start()
        try:
            seaweed.wait_until_ready(timedelta(seconds=60))
            seed_buckets(seaweed.url, owner)
            yield seaweed.url
        finally:
            seaweed.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def test_an_oidc_token_becomes_credentials_for_one_prefix(
    opened: Any, ask: Any, store: str, issuer: Issuer, machine: Path
) -> None:
    (machine / "token").write_text(issuer.token())
    where = {"region": REGION, "endpoint_url": store, "role_arn": ROLE}
    async with opened("web-identity", web_identity_token_file=str(machine / "token"), **where) as session:
        identity = await connector.verify(
            session, m.VerifyRequest(resource_type="s3-bucket", resource_id="s3://team-models")
        )
        assert ":assumed-role/for-the-pipeline/prod." in identity.subject
        issued = await connector.issue_credentials(session, ask("s3-bucket", "s3://team-models/churn/"))
    assert issued.narrowed

    async def renew() -> m.Credentials:
        raise AssertionError

    request = m.ClientRequest(credentials=issued, renew=renew, resource_type="s3-bucket", resource_id=None)
    async with connector.client(request) as s3:
        await s3.get_object(Bucket="team-models", Key="churn/model.json")
        for refused in (
            s3.get_object(Bucket="team-models", Key="README.md"),
            s3.list_objects_v2(Bucket="public-logs"),
            s3.put_object(Bucket="team-models", Key="churn/x", Body=b""),
        ):
            with pytest.raises(ClientError, match="AccessDenied"):
                await refused


@pytest.mark.parametrize("wrong", [{"subject": "other"}, {"audience": "other"}, {"life": -60}, None])
async def test_a_token_that_does_not_do(
    opened: Any, ask: Any, store: str, issuer: Issuer, wrong: dict[str, Any] | None
) -> None:
    token = issuer.token(**wrong) if wrong else issuer.token()[:-8] + "AAAAAAAA"
    fields = {"region": REGION, "endpoint_url": store, "role_arn": ROLE, "web_identity_token": token}
    async with opened("web-identity", **fields) as session:
        with pytest.raises((m.AuthFailed, m.AccessDenied, m.Rejected)) as caught:
            await connector.issue_credentials(session, ask("s3-bucket", "s3://team-models"))
    assert token not in str(caught.value)
