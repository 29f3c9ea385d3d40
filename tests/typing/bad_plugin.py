# mypy: ignore-errors
# pyright: ignore
"""Every mistake that the type checkers shall find, marked with the word they shall say; the first two lines hide them.

Nothing of it is ever run.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import mooring as m

if TYPE_CHECKING:
    from good_plugin import Harbour, Token

    class WrongConfig(m.Config):
        other: str

    class Missing:
        @m.hookimpl
        def describe(self) -> m.ConnectorType:
            raise NotImplementedError

    class WrongColour(Harbour):
        @m.hookimpl
        def verify(self, session: m.Http, request: m.VerifyRequest) -> m.Identity:  # override: verify
            raise NotImplementedError

    class WrongArguments(Harbour):
        @m.hookimpl
        def canonical(self, text: str) -> str:  # override: canonical
            return text

    class WrongResult(Harbour):
        @m.hookimpl
        async def issue_credentials(
            self, session: m.Http, request: m.CredentialRequest
        ) -> dict[str, Any]:  # override: issue_credentials
            return {}

    class NotAGenerator(Harbour):
        @m.hookimpl
        async def discover(self, session: m.Http, request: m.DiscoverRequest) -> list[m.Resource]:  # override: discover
            return []

    class OtherSession(Harbour):
        @m.hookimpl
        @asynccontextmanager
        async def authenticate(
            self, config: Token, context: m.Context
        ) -> AsyncGenerator[str, None]:  # override: authenticate
            yield "session"

    missing: m.Connector[Token, m.Http] = Missing()  # assign: canonical
    colour: m.Connector[Token, m.Http] = WrongColour()  # assign: verify
    arguments: m.Connector[Token, m.Http] = WrongArguments()  # assign: canonical
    result: m.Connector[Token, m.Http] = WrongResult()  # assign: issue_credentials
    generator: m.Connector[Token, m.Http] = NotAGenerator()  # assign: discover
    session: m.Connector[Token, m.Http] = OtherSession()  # assign: authenticate
    config: m.Connector[WrongConfig, m.Http] = Harbour()  # assign: authenticate

    token = m.BearerToken(token="secret", expires_at=None, narrowed=True)  # call: token
    method = m.AuthMethod(name="token", config=Harbour)  # call: config
    unit = m.Unit("north")  # call: positional
    resource = m.Resource(type="berth")  # call: id
    resource.id = "x"  # frozen: id
