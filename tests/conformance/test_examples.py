"""The kit on the plugins that the kernel brings: they keep the contract."""

from __future__ import annotations

from datetime import timedelta

import pytest

import mooring as m
from mooring.testing import ConnectorConformance, Fake, PoweredExample, Subject


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


async def opens(issued: m.Issued, resource_id: str) -> bool:
    assert isinstance(issued.credentials, m.BearerToken)
    return issued.credentials.token.reveal().endswith(f":{resource_id}")


class TestExample(ConnectorConformance):
    @pytest.fixture
    def subject(self) -> Subject:
        return Subject(
            plugin=PoweredExample(),
            auth_method="password",
            config={"user": "u", "password": m.Secret("c4n4ry-of-the-kit")},
            resource_type="example-bucket",
            resource_id="a",
            elsewhere="b",
            reaches=opens,
            sdks=("aiohttp", "botocore"),
        )


class Refusing(Fake):
    """Its vendor knows one key."""

    @m.hookimpl
    async def verify(self, session, request):
        if session.config.key.reveal() != "c4n4ry-of-the-kit":
            raise m.AuthFailed("the vendor does not know this key; set another")
        return await super().verify(session, request)

    @m.hookimpl
    def describe(self):
        return super().describe()


class TestFake(ConnectorConformance):
    @pytest.fixture
    def subject(self) -> Subject:
        return Subject(
            plugin=Refusing(),
            auth_method="key",
            config={"key": m.Secret("c4n4ry-of-the-kit")},
            refused={"key": m.Secret("c4n4ry-of-nobody")},
            resource_type="bucket",
            resource_id="fake://a/",
            options={"ttl": timedelta(hours=1)},
        )
