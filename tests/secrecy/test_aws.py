"""A canary in every secret field of every auth method of every installed connector, at a vendor that sends all back."""

import logging
from contextlib import suppress
from typing import Any

import pytest

import mooring as m
from mooring.assembly import Settings, open_broker
from mooring.events import Event
from mooring.registry import Registry
from mooring.types import fields_of

pytestmark = pytest.mark.anyio
ROLE = {"role_arn": "arn:aws:iam::123456789012:role/deploy"}
MFA = {"mfa_serial": "arn:aws:iam::123456789012:mfa/ann"}
PLAIN = {
    ("aws", "implicit"): {},
    ("aws", "secret-key"): {},
    ("aws", "sts-token"): {},
    ("aws", "iam-role"): ROLE | MFA | {"external_id": "ours-123"},
    ("aws", "session-token"): MFA,
    ("aws", "federation-token"): {},
    ("aws", "web-identity"): ROLE,
}
"""What else each auth method needs. A new one without an entry fails the test."""
HARD = "C4N4RYC4N4RY/+=&\"'<>%\\~" + "*" * 20
PATTERNS = {
    "aws_access_key_id": "AKIAC4N4RYC4N4RY****",
    "aws_secret_access_key": HARD,
    "aws_session_token": HARD,
    "mfa_code": "000000",
    "web_identity_token": "C4N4RYC4N4RY****.****************.****************",
}
RESOURCES = {
    "s3-bucket": "s3://data",
    "kubernetes-cluster": "eu-west-1/prod",
    "docker-registry": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app",
    "aws-generic": None,
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def installed() -> list[tuple[str, str]]:
    return [(route.type.name, method.name) for route in Registry().routes() for method in route.type.auth_methods]


def test_every_installed_auth_method_is_here() -> None:
    assert {one for one in installed() if one[0] == "aws"} == set(PLAIN)


@pytest.mark.parametrize(("type", "method"), PLAIN)
async def test_a_vendor_that_sends_all_back(  # noqa: C901  one verb after the other
    type: str, method: str, canaries, echo, home, told, at_rest, caplog, capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("mooring.limits.DELAYS", ())
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    config = Registry().route(type).auth_method(method).config
    secret = {one.name: canaries.plant(one.name, PATTERNS[one.name]) for one in fields_of(config) if one.secret}
    if method in ("sts-token", "iam-role"):
        secret["aws_access_key_id"] = canaries.plant("aws_access_key_id", "ASIAC4N4RYC4N4RY****")
    if method == "implicit":
        for name in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"):
            monkeypatch.setenv(name.upper(), canaries.plant(name, PATTERNS[name]))
    sealed = {name: m.Secret(value) for name, value in secret.items()}
    fields: dict[str, Any] = {"region": "eu-west-1", "endpoint_url": echo, **PLAIN[type, method], **sealed}
    texts: list[Any] = []
    errors: list[m.MooringError] = []
    settings = Settings(home=home, allow_implicit=True)
    async with (
        open_broker(settings=settings, system_plugins=(), journal=True) as broker,
        broker.subscribe(Event) as seen,
    ):

        async def call(work: Any) -> None:
            try:
                got = await work
                known = got.credentials.access_key_id if isinstance(got, m.Issued) else "\0"
                texts.append(repr(got).replace(known, ""))  # the id of an issued key is no secret
            except m.MooringError as error:
                errors.append(error)

        allowed = {"allow_unnarrowed": True, "allow_long_lived": True, "config": fields, "auth_method": method}
        for _ in range(9):  # what the echo answers changes
            await call(broker.register("verified", type=type, **allowed))
        await call(broker.register("one", type=type, verify=False, **allowed))
        await call(broker.update("one", config={"region": "eu-west-2"}))
        for kind, resource in RESOURCES.items():
            for _ in range(2):
                await call(broker.verify("one", resource_type=kind, resource_id=resource))
                with suppress(m.UnsupportedResource):
                    await call(broker.issue("one", resource_type=kind, resource_id=resource))
            await call(broker.explain("one", resource_type=kind, resource_id=resource))
        async with broker.discover() as replies:
            async for reply in replies:
                texts.append(reply)
                if error := getattr(reply, "error", None):
                    errors.append(error)
        await call(broker.register("bad", type=type, **allowed | {"config": fields | {"regionn": "x"}}))
        await call(broker.get("one"))
        assert len(errors) > 15
        while seen.receive.statistics().current_buffer_used:
            texts.append(await anext(seen))
        texts += [broker, *map(told, errors)]
    texts += [f"LOG {one.name} {one.getMessage()} {one.exc_info} {one.args}" for one in caplog.records]
    found = canaries(*texts, *capfd.readouterr(), at_rest())
    assert not found, "\n".join(found[:6])
