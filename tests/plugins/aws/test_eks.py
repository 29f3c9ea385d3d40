"""The way into a cluster, with its signature recomputed from the specification."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mooring as m
from mooring_aws import connector, eks
from mooring_aws.credentials import Keys

PARAMETERS = {
    "Action", "Version", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders",
    "X-Amz-Signature", "X-Amz-Security-Token",
}  # fmt: skip


def signer(token: str, cluster: str, secret: str, sign: Any) -> tuple[str, str]:
    """The access key and host of a token, checked as a cluster's authenticator does."""
    assert token.startswith("k8s-aws-v1.")
    raw = token.removeprefix("k8s-aws-v1.")
    assert "=" not in raw
    url = urlsplit(base64.b64decode(raw + "=" * (-len(raw) % 4), altchars=b"-_", validate=True).decode())
    pairs = parse_qsl(url.query, keep_blank_values=True, strict_parsing=True)
    query = dict(pairs)
    assert len(query) == len(pairs)
    assert set(query) <= PARAMETERS
    assert (url.scheme, url.path, query["Action"], query["X-Amz-Expires"]) == ("https", "/", "GetCallerIdentity", "60")
    assert query["X-Amz-SignedHeaders"] == "host;x-k8s-aws-id"
    made = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)
    given_signature = query.pop("X-Amz-Signature")
    canonical = "\n".join(
        [
            "GET",
            "/",
            "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in sorted(query.items())),
            f"host:{url.netloc}",
            f"x-k8s-aws-id:{cluster}",
            "",
            "host;x-k8s-aws-id",
            hashlib.sha256(b"").hexdigest(),
        ]
    )
    key, *scope = query["X-Amz-Credential"].split("/")
    assert scope[1:] == [url.netloc.split(".")[1], "sts", "aws4_request"]
    assert hmac.compare_digest(sign(secret, query["X-Amz-Date"], scope, canonical), given_signature)
    return key, url.netloc


@given(
    st.from_regex(r"[A-Za-z0-9+/]{40}", fullmatch=True),
    st.none() | st.from_regex(r"[A-Za-z0-9+/=]{8,400}", fullmatch=True),
    st.from_regex(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}", fullmatch=True),
    st.sampled_from(["eu-west-1", "us-gov-west-1", "cn-north-1"]),
)
def test_the_token(secret: str, session_token: str | None, name: str, region: str) -> None:
    from hashlib import sha256

    def sign(secret: str, moment: str, scope: list[str], canonical: str) -> str:
        text = "\n".join(["AWS4-HMAC-SHA256", moment, "/".join(scope), sha256(canonical.encode()).hexdigest()])
        key = b"AWS4" + secret.encode()
        for part in scope:
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.digest(key, text.encode(), "sha256").hex()

    token = m.Secret(session_token) if session_token else None
    keys = Keys(access_key_id="AKIAEXAMPLEEXAMPLE00", secret_access_key=m.Secret(secret), session_token=token)
    host = f"sts.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")
    assert signer(eks.token(keys, region, name), name, secret, sign) == (keys.access_key_id, host)
    with pytest.raises(AssertionError):
        signer(eks.token(keys, region, name), name + "x", secret, sign)


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["secret-key", "federation-token", "iam-role"])
async def test_the_way_into_a_cluster(
    opened: Any, ask: Any, place: Any, keys: Any, sandbox: Any, replies: Any, method: str
) -> None:
    fields = place | keys | ({"role_arn": sandbox.role.arn} if method == "iam-role" else {})
    async with opened(method, **fields) as session:
        found = await connector.issue_credentials(
            session, ask("kubernetes-cluster", "us-east-1/staging", ttl=timedelta(hours=2))
        )
    assert isinstance(found, m.KubernetesAccess)
    assert found.narrowed
    assert found.server.startswith("https://")
    assert found.cluster == f"arn:aws:eks:us-east-1:{sandbox.account}:cluster/staging"
    assert found.certificate_authority is not None
    assert found.certificate_authority.startswith("-----BEGIN CERTIFICATE")
    assert found.expires_at is not None
    left = found.expires_at - datetime.now(UTC)
    assert timedelta(minutes=13) < left <= timedelta(minutes=14)
    assert found.clamped == ("asked for 2:00:00; a token of EKS lives 15 minutes",)
    assert found.token is not None
    if method != "iam-role":
        assert (
            signer(found.token.reveal(), "staging", keys["aws_secret_access_key"], replies.signature)[0]
            == keys["aws_access_key_id"]
        )


@pytest.mark.anyio
async def test_a_token_ends_with_the_keys_that_signed_it(
    settle: Any, ask: Any, fake: Any, context: m.Context, replies: Any
) -> None:
    import msgspec

    async def answer(asked: Any) -> Any:
        return replies.json({"cluster": {"name": "prod", "endpoint": "https://prod", "arn": "arn:prod"}})

    fake.answer = answer
    fake.secrets["ASIAEXAMPLEEXAMPLE00"] = "secret"
    ends = datetime.now(UTC) + timedelta(minutes=5)
    config = settle(
        "sts-token", region="eu-west-1", endpoint_url=fake.url, aws_access_key_id="ASIAEXAMPLEEXAMPLE00",
        aws_secret_access_key="secret", aws_session_token="token",
    )  # fmt: skip
    async with connector.authenticate(config, msgspec.structs.replace(context, expires_at=ends)) as session:
        found = await connector.issue_credentials(session, ask("kubernetes-cluster", "eu-west-1/prod", ttl=None))
    assert found.expires_at == ends
    assert found.clamped == ()


@pytest.mark.anyio
async def test_a_cluster_that_is_not_ready(opened: Any, ask: Any, fake: Any, fake_key: Any, replies: Any) -> None:
    async def answer(asked: Any) -> Any:
        return replies.json({"cluster": {"name": "prod", "status": "CREATING"}})

    fake.answer = answer
    async with opened("secret-key", **fake_key) as session:
        with pytest.raises(m.ResourceNotFound, match="prod"):
            await connector.issue_credentials(session, ask("kubernetes-cluster", "eu-west-1/prod"))
