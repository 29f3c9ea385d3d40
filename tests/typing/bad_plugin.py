# type: ignore  # noqa: PGH003  every mistake is meant; test_contract.py takes this line away
"""Every mistake that the type checkers shall find, marked with a word of what they say. Nothing of it is ever run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import mooring as m

if TYPE_CHECKING:
    from good_plugin import Harbour, Token

    class OtherConfig(m.Config):
        other: str

    class Missing:
        @m.hookimpl
        def describe(self) -> m.ConnectorType:
            raise NotImplementedError

    class WrongColour(Harbour):
        @m.hookimpl
        def verify(self, session: m.Http, request: m.VerifyRequest) -> m.Identity:  # says: verify
            raise NotImplementedError

    class WrongArguments(Harbour):
        @m.hookimpl
        def canonical(self, text: str) -> str:  # says: canonical
            return text

    class WrongResult(Harbour):
        @m.hookimpl
        async def issue_credentials(  # says: issue_credentials
            self, session: m.Http, request: m.CredentialRequest
        ) -> dict[str, Any]:
            return {}

    class NoGenerator(Harbour):
        @m.hookimpl
        async def discover(  # says: discover
            self, session: m.Http, request: m.DiscoverRequest
        ) -> list[m.Resource]:
            return []

    class OtherSession(Harbour):
        @m.hookimpl
        @asynccontextmanager
        async def authenticate(  # says: authenticate
            self, config: Token, context: m.Context
        ) -> AsyncGenerator[str, None]:
            yield "session"

    missing: m.Connector[Token, m.Http] = Missing()  # says: Missing
    colour: m.Connector[Token, m.Http] = WrongColour()  # says: verify
    arguments: m.Connector[Token, m.Http] = WrongArguments()  # says: canonical
    result: m.Connector[Token, m.Http] = WrongResult()  # says: issue_credentials
    generator: m.Connector[Token, m.Http] = NoGenerator()  # says: discover
    session: m.Connector[Token, m.Http] = OtherSession()  # says: authenticate
    config: m.Connector[OtherConfig, m.Http] = Harbour()  # says: OtherConfig
    power: m.Covers = Missing()  # says: Covers

    token = m.BearerToken(token="secret", expires_at=None, narrowed=True)  # says: Secret
    method = m.AuthMethod(name="token", config=Harbour)  # says: type[Config]
    resource = m.Resource(type="berth")  # says: "id"
    unit = m.Unit("north")  # pyright says: positional
    resource.id = "x"  # pyright says: read-only
