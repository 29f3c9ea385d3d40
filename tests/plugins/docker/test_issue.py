"""What is issued, and what the real registry lets it do."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import mooring as m
from mooring.testing import memory_broker
from mooring_docker import RegistryToken, connector

pytestmark = pytest.mark.anyio
ALICE = {"username": "alice", "password": "pw-alice"}


def wish(resource_id: str, access: m.Access = "read", **allowed: bool) -> m.CredentialRequest:
    return m.CredentialRequest(
        resource_type="docker-registry", resource_id=resource_id, access=access, ttl=None, consumer="tests", **allowed
    )


async def issued(session: Any, *arguments: Any, **allowed: bool) -> Any:
    return await connector.issue_credentials(session, wish(*arguments, **allowed))


async def test_a_token_pulls_one_repository_and_nothing_else(
    opened: Any, token_registry: Any, push: Any, status: Any
) -> None:
    host, base = token_registry.host, token_registry.url
    for name in ("team/app", "team/other"):
        assert push(f"{host}/{name}:v1", "--dest-creds=alice:pw-alice").returncode == 0
    async with opened("password", registry=base, **ALICE) as session:
        got = await issued(session, f"{host}/team/app")

    assert (got.registry, got.repository, got.actions, got.narrowed) == (host, "team/app", ("pull",), True)
    assert timedelta(minutes=4) < got.expires_at - datetime.now(UTC) <= timedelta(minutes=5)
    bearer = f"Bearer {got.token.reveal()}"
    assert status(f"{base}/v2/team/app/tags/list", bearer) == 200
    assert status(f"{base}/v2/team/other/tags/list", bearer) == 401
    assert status(f"{base}/v2/team/app/blobs/uploads/", bearer, "POST") == 401
    assert status(f"{base}/v2/_catalog", bearer) == 401


async def test_write_pushes_that_repository_and_no_other(opened: Any, token_registry: Any, push: Any) -> None:
    host = token_registry.host
    async with opened("password", registry=token_registry.url, **ALICE) as session:
        write = (await issued(session, f"{host}/team/app", "write")).token.reveal()
        read = (await issued(session, f"{host}/team/app", "read")).token.reveal()

    assert push(f"{host}/team/app:v2", f"--dest-registry-token={write}").returncode == 0
    assert push(f"{host}/team/other:v2", f"--dest-registry-token={write}").returncode != 0
    refused = push(f"{host}/team/app:v3", f"--dest-registry-token={read}")
    assert refused.returncode != 0
    assert "unauthorized" in refused.stderr + refused.stdout


async def test_what_the_user_may_not_do_is_not_issued(opened: Any, token_registry: Any) -> None:
    host = token_registry.host
    async with opened("password", registry=token_registry.url, username="bob", password="pw-bob") as session:
        with pytest.raises(m.AccessDenied, match="pull team/app"):
            await issued(session, f"{host}/team/app")
    async with opened("anonymous", registry=token_registry.url) as session:
        got = await issued(session, f"{host}/open/app")
        assert got.narrowed
        with pytest.raises(m.AccessDenied, match="push open/app"):
            await issued(session, f"{host}/open/app", "write")


async def test_a_token_that_does_not_say_what_it_is_good_for_is_not_narrowed(
    opened: Any, token_registry: Any, tokens: Any
) -> None:
    host = token_registry.host
    tokens.answer = {"token": "b3BhcXVl", "access_token": "b3BhcXVl"}
    async with opened("password", registry=token_registry.url, **ALICE) as session:
        with pytest.raises(m.NotNarrowed, match="cannot be read"):
            await issued(session, f"{host}/team/app")
        got = await issued(session, f"{host}/team/app", allow_unnarrowed=True)

    assert (got.narrowed, got.repository) == (False, None)
    assert "not narrowed" in got.clamped[0]


async def test_a_token_that_is_good_for_more_is_not_narrowed(opened: Any, token_registry: Any, tokens: Any) -> None:
    host = token_registry.host
    wide = tokens.token("alice", ["repository:team/app:pull,push"])
    tokens.answer = {"token": wide}
    async with opened("password", registry=token_registry.url, **ALICE) as session:
        with pytest.raises(m.NotNarrowed):
            await issued(session, f"{host}/team/app", "read")


LIVES: list[tuple[dict[str, Any], float]] = [
    ({"expires_in": None}, 60),
    ({"expires_in": "soon"}, 60),
    ({"expires_in": -1}, 60),
    ({"expires_in": 1e308}, 60),
    ({"expires_in": 120}, 120),
    ({"expires_in": 120, "issued_at": "1999-12-31T00:00:00Z"}, -1),
    ({"expires_in": 120, "issued_at": "2999-12-31T00:00:00Z"}, 120),
    ({"expires_in": 9999}, 300),
]


@pytest.mark.parametrize(("answer", "seconds"), LIVES)
async def test_the_end_is_the_earliest_that_anybody_says(
    opened: Any, token_registry: Any, tokens: Any, answer: dict[str, Any], seconds: float
) -> None:
    tokens.answer = answer
    async with opened("password", registry=token_registry.url, **ALICE) as session:
        got = await issued(session, f"{token_registry.host}/team/app")

    left = (got.expires_at - datetime.now(UTC)).total_seconds()
    assert left <= 0 if seconds < 0 else seconds - 30 < left <= seconds


async def test_the_password_leaves_only_if_that_is_allowed(opened: Any, htpasswd: Any) -> None:
    repository = f"{htpasswd.host}/team/app"
    async with opened("password", registry=htpasswd.url, **ALICE) as session:
        for wanted in (repository, htpasswd.host):
            with pytest.raises(m.NotNarrowed, match=r"update CONNECTOR --allow-unnarrowed --allow-long-lived$"):
                await issued(session, wanted)
            with pytest.raises(m.NotNarrowed, match=r"update CONNECTOR --allow-unnarrowed$"):
                await issued(session, wanted, allow_long_lived=True)
            with pytest.raises(m.LongLived, match=r"update CONNECTOR --allow-long-lived$"):
                await issued(session, wanted, allow_unnarrowed=True)
        got = await issued(session, repository, allow_unnarrowed=True, allow_long_lived=True)

    assert got == m.RegistryLogin(
        registry=htpasswd.host, username="alice", password=m.Secret("pw-alice"), expires_at=None, narrowed=False
    )


async def test_the_connectors_own_token(opened: Any, token_registry: Any, tokens: Any) -> None:
    host = token_registry.host
    token = tokens.token("alice", ["repository:team/app:pull"])
    async with opened("token", registry=token_registry.url, token=token) as session:
        got = await issued(session, f"{host}/team/app")
        assert (got.narrowed, got.repository, got.token) == (True, "team/app", m.Secret(token))
        with pytest.raises(m.AccessDenied, match="push team/app"):
            await issued(session, f"{host}/team/app", "write")
        with pytest.raises(m.NotNarrowed):
            await issued(session, host)
    async with opened("token", registry=token_registry.url, token="opaque") as session:
        with pytest.raises(m.LongLived):
            await issued(session, host, allow_unnarrowed=True)


async def test_nothing_to_issue_at_an_open_registry(opened: Any, open_registry: Any) -> None:
    async with opened("anonymous", registry=open_registry.url) as session:
        with pytest.raises(m.UnsupportedResource, match="nothing to issue for app; pull without a login"):
            await issued(session, f"{open_registry.host}/app")
        with pytest.raises(m.UnsupportedResource, match="or name one repository"):
            await issued(session, open_registry.host)


async def test_explain_says_it_beforehand(settle: Any) -> None:
    config = settle("password", registry="r.org", **ALICE)

    said = connector.explain(config, wish("r.org/team/app", "write"))
    assert said.narrowed
    assert said.calls == ("GET /v2/", "GET token?scope=repository:team/app:pull,push")
    assert said.policy == {"access": [{"type": "repository", "name": "team/app", "actions": ["pull", "push"]}]}
    assert "the password alone" in said.notes[0]
    with pytest.raises(m.NotNarrowed, match=r"update CONNECTOR --allow-unnarrowed --allow-long-lived$"):
        connector.explain(config, wish("r.org"))
    whole = connector.explain(config, wish("r.org", allow_unnarrowed=True, allow_long_lived=True))
    assert (whole.narrowed, whole.calls) == (False, ())
    held = settle("token", registry="r.org", token="opaque")
    assert not connector.explain(held, wish("r.org/app", allow_unnarrowed=True, allow_long_lived=True)).narrowed
    nobody = connector.explain(settle("anonymous"), wish("docker.io/library/redis"))
    assert nobody.narrowed
    assert "without a login" in nobody.notes[0]


async def test_by_the_broker(token_registry: Any) -> None:
    async with memory_broker(connector) as broker:
        await broker.register(
            "mine", type="docker", auth_method="password", config={"registry": token_registry.url, **ALICE}
        )
        got = await broker.issue("mine", resource_id=f"{token_registry.host}/team/app:v1")

    assert isinstance(got.credentials, RegistryToken)
    assert got.resource_id == f"{token_registry.host}/team/app"
    claims = json.loads(base64.urlsafe_b64decode(got.credentials.token.reveal().split(".")[1] + "=="))
    assert claims["access"] == [{"type": "repository", "name": "team/app", "actions": ["pull"]}]
