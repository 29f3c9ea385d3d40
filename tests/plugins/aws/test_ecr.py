"""Registry logins."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import mooring as m
from mooring_aws import connector

pytestmark = pytest.mark.anyio

HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.fixture
def registry(fake: Any, replies: Any) -> Any:
    """Answers GetAuthorizationToken for the keys that it has made itself, and no others."""
    fake.secrets["ASIAEXAMPLEEXAMPLE00"] = "made"
    fake.ends = datetime.now(UTC) + timedelta(hours=12)

    async def answer(asked: Any) -> Any:
        if "Action" in asked.parameters:
            return replies.credentials(asked.parameters["Action"])
        assert asked.headers["X-Amz-Target"].endswith(".GetAuthorizationToken")
        token = base64.b64encode(b"AWS:pass:word").decode()
        data = {"authorizationToken": token, "expiresAt": fake.ends.timestamp(), "proxyEndpoint": f"https://{HOST}"}
        return replies.json({"authorizationData": [data]}, content_type="application/x-amz-json-1.1")

    fake.answer = answer
    return fake


async def test_a_login_for_one_repository(opened: Any, ask: Any, registry: Any, fake_key: Any) -> None:
    async with opened("secret-key", **fake_key) as session:
        found = await connector.issue_credentials(session, ask("docker-registry", f"{HOST}/team/app"))
    assert isinstance(found, m.RegistryLogin)
    assert (found.registry, found.username, found.password.reveal()) == (HOST, "AWS", "pass:word")
    assert (found.repository, found.narrowed, found.clamped) == ("team/app", True, ())
    assert found.expires_at == registry.ends
    assert [asked.signer for asked in registry.asked] == ["AKIAEXAMPLEEXAMPLE00", "ASIAEXAMPLEEXAMPLE00"]
    policy = json.loads(registry.asked[0].parameters["Policy"])
    assert policy["Statement"][1]["Resource"] == ["arn:aws:ecr:eu-west-1:123456789012:repository/team/app"]


async def test_a_login_for_all_of_the_registry(opened: Any, ask: Any, registry: Any, fake_key: Any) -> None:
    async with opened("federation-token", **fake_key) as session:
        request = ask("docker-registry", HOST, ttl=timedelta(minutes=30))
        found = await connector.issue_credentials(session, request)
    assert isinstance(found, m.RegistryLogin)
    assert (found.repository, found.narrowed) == (None, True)
    assert "asked for 0:30:00" in found.clamped[0]


async def test_a_login_that_cannot_be_narrowed(opened: Any, ask: Any, registry: Any, fake_key: Any) -> None:
    async with opened("session-token", **fake_key) as session:
        with pytest.raises(m.NotNarrowed):
            await connector.issue_credentials(session, ask("docker-registry", f"{HOST}/team/app"))
        request = ask("docker-registry", f"{HOST}/team/app", allow_unnarrowed=True)
        found = await connector.issue_credentials(session, request)
    assert isinstance(found, m.RegistryLogin)
    assert (found.repository, found.narrowed) == (None, False)


async def test_a_login_that_has_ended_already_is_said_to(opened: Any, ask: Any, registry: Any, fake_key: Any) -> None:
    registry.ends = datetime(2015, 1, 1, tzinfo=UTC)
    async with opened("secret-key", **fake_key) as session:
        found = await connector.issue_credentials(session, ask("docker-registry", HOST))
    assert found.expires_at == registry.ends
    assert "ended already" in found.clamped[0]


async def test_against_the_sandbox(opened: Any, ask: Any, place: Any, keys: Any, sandbox: Any) -> None:
    host = f"{sandbox.account}.dkr.ecr.us-east-1.amazonaws.com"
    async with opened("iam-role", role_arn=sandbox.role.arn, **place, **keys) as session:
        found = await connector.issue_credentials(session, ask("docker-registry", f"{host}/team/trainer"))
    assert isinstance(found, m.RegistryLogin)
    assert (found.registry, found.username, found.repository) == (host, "AWS", "team/trainer")
