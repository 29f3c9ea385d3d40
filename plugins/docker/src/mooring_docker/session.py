"""A registry's API, for one connector: the handshake, and who asks.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md and
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import anyio

import mooring as m
from mooring.http import Answer, Http
from mooring_docker import ids
from mooring_docker.challenge import Challenge, challenges
from mooring_docker.grant import Granted, claims_of, granted
from mooring_docker.settings import PasswordConfig, RegistryConfig, TokenConfig

TOKEN_HOSTS = {ids.HUB_API: "auth.docker.io", "registry.gitlab.com": "gitlab.com"}
"""Registries whose own token server is on another host, by their documentation."""

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_MANY, SERVER_FAILED = 401, 403, 404, 429, 500

EARLY = timedelta(seconds=5)
"""A token that ends so soon is not used again."""

_LEFT = re.compile(r"([0-9]{1,9});w=([0-9]{1,6})", re.ASCII)
"""How many more calls a registry takes, in a window of so many seconds.

Source: https://docs.docker.com/docker-hub/usage/pulls/#view-pull-rate-and-limit
"""
_NETLOC = re.compile(r"[A-Za-z0-9.\[\]:-]{1,259}", re.ASCII)


class RegistrySession:
    """A connector's way into its registry; makes no call before it is asked something."""

    def __init__(self, config: RegistryConfig, context: m.Context) -> None:
        self.config = config
        self.context = context
        self.host = config.place.host
        self._knocking = anyio.Lock()
        self._greeting: tuple[Challenge | None] | None = None
        self._held: dict[str | None, Granted] = {}

    def __repr__(self) -> str:
        return f"RegistrySession({self.host!r})"

    async def greet(self) -> Challenge | None:
        """How the registry wants to know who asks: the Bearer challenge, else the Basic one, or None if not at all.

        Raises:
            Rejected: it is no registry, or wants what we do not speak.
            Unreachable: there is no answer, or no TLS where there should be.
        """
        async with self._knocking:
            if self._greeting is None:
                self._greeting = (self._greeted(await self._knock()),)
        return self._greeting[0]

    async def _knock(self) -> Answer:
        try:
            return await self._get(self._at(None), "/v2/")
        except m.Unreachable as error:
            if not error.message.startswith("there is no TLS with"):
                raise
        own = ids.is_loopback(self.host)
        how = f"write http://{self.host} in the field registry" if own else "set the field insecure"
        raise m.Unreachable(f"there is no TLS with {self.host}; check its port, or if it serves http alone, {how}")

    def _greeted(self, answer: Answer) -> Challenge | None:
        if answer.is_success and speaks(answer):
            return None
        if answer.status == FORBIDDEN:
            answer.json()
        if answer.status != UNAUTHORIZED:
            raise self._no_registry()
        offered = {one.scheme: one for one in reversed(challenges(answer.headers.get("www-authenticate", "")))}
        if not offered:
            raise self._no_registry()
        found = offered.get("bearer") or offered.get("basic")
        if found is None:
            raise m.Rejected(f"{self.host} wants neither Basic nor Bearer authentication, and mooring speaks no other")
        return found

    def _no_registry(self) -> m.Rejected:
        return m.Rejected(f"{self.host} is no container registry, by its answer at /v2/; check the field registry")

    async def whoami(self) -> m.Identity:
        """Whom the registry takes us for; one call, or two where it has a token server.

        Raises:
            AuthFailed: it does not accept the credentials.
        """
        http, by_token_server = await self._way(None)
        answer = await self._get(http, "/v2/")
        if answer.status == UNAUTHORIZED and by_token_server:
            raise m.Rejected(f"{self.host} does not take the token of its token server; check both clocks")
        if not answer.is_success:
            answer.json()
        if not speaks(answer):
            raise self._no_registry()
        config = self.config
        if isinstance(config, PasswordConfig):
            return m.Identity(subject=config.username, account=self.host)
        if isinstance(config, TokenConfig):
            claims = claims_of(config.token)
            return m.Identity(subject=claims.subject or "token", account=self.host, expires_at=claims.expires_at)
        return m.Identity(subject="anonymous", account=self.host)

    async def ask(self, path: str, scope: str, params: Mapping[str, list[str]], *, again: bool = False) -> Answer:
        """What GET answers, whatever it is, with a token for the scope where the registry wants one.

        `again`: with the token of the last such call, for as long as that lives.
        """
        http, _ = await self._way(scope, again=again)
        return await self._get(http, path, params)

    async def _way(self, scope: str | None, *, again: bool = False) -> tuple[Http, bool]:
        """The registry's API with our Authorization, and whether that is of a token server."""
        challenge, config = await self.greet(), self.config
        if isinstance(config, TokenConfig):
            return self._at(f"Bearer {config.token.reveal()}"), False
        if challenge is not None and challenge.scheme == "bearer":
            held = self._held.get(scope) if again else None
            if held is None or held.expires_at - self.context.clock.now() < EARLY:
                held = await self.grant(challenge, scope)
            self._held = {scope: held}
            return self._at(f"Bearer {held.token.reveal()}"), True
        if challenge is not None and not isinstance(config, PasswordConfig):
            raise m.AuthFailed(f"{self.host} lets nobody in without a user and password; use the auth method password")
        return self._at(self._basic()), False

    def _basic(self) -> str | None:
        """Source: https://www.rfc-editor.org/rfc/rfc7617#section-2"""
        if not isinstance(self.config, PasswordConfig):
            return None
        pair = f"{self.config.username}:{self.config.password.reveal()}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    async def grant(self, challenge: Challenge, scope: str | None) -> Granted:
        """A token of the registry's token server, which must be the registry's own.

        Raises:
            InvalidConfig: the registry names a stranger as its token server. Nothing is sent there.
            AuthFailed: the token server does not accept the user and password.
        """
        base, path, params = self._token_server(challenge.parameters.get("realm", ""))
        account = self.config.username if isinstance(self.config, PasswordConfig) else None
        given = {"service": challenge.parameters.get("service"), "scope": scope, "account": account}
        params |= {name: [value] for name, value in given.items() if value}
        server = self.context.http.at(base, authorization=self._basic())
        answer = await self._get(server, path, params)
        return granted(answer.json(), answer.host, self.context.clock.now())

    def _token_server(self, realm: str) -> tuple[str, str, dict[str, list[str]]]:
        """The address, path and query of a realm, if it may have the password."""
        try:
            parts = urlsplit(realm)
            host, scheme, port = parts.hostname or "", parts.scheme, parts.port
        except ValueError:
            host, scheme, port = "", "", None
        if port == 0 or scheme not in ("http", "https") or not _NETLOC.fullmatch(parts.netloc):
            raise m.Rejected(f"{self.host} names a token server that is no URL; check the field registry")
        base = f"{scheme}://{parts.netloc}"
        if not self._is_own(base, host) and self._is_bare(base) and host == urlsplit(self.config.base).hostname:
            raise m.InvalidConfig(
                f"{self.host} names a token server that is spoken to by http, so nothing was sent there; "
                "if that is wanted, set the field realm to its URL, and insecure",
                field="realm",
            )
        if not self._is_own(base, host):
            raise m.InvalidConfig(
                f"{self.host} names a token server on another host, {host}, so nothing was sent there; "
                "if it is the registry's own, set the field realm to its URL",
                field="realm",
            )
        return base, parts.path or "/", parse_qs(parts.query, keep_blank_values=True)

    def _is_own(self, base: str, host: str) -> bool:
        """Whether a token server may have the password: the one in the settings, the same host, or a known one."""
        own = urlsplit(self.config.base)
        if self.config.realm is not None:
            named = urlsplit(self.config.realm)
            if base.lower() == f"{named.scheme}://{named.netloc}".lower():
                return True
        if self._is_bare(base):
            return False
        return host == own.hostname or host == TOKEN_HOSTS.get(own.netloc)

    def _is_bare(self, base: str) -> bool:
        """Whether an address is less private than the registry's own."""
        return base.startswith("http:") and self.config.base.startswith("https:")

    async def _get(self, http: Http, path: str, params: Mapping[str, list[str]] = {}) -> Answer:
        """What GET answers, within the limits of the registry, its token server's calls too.

        Raises:
            Throttled, Unreachable: there is no answer but that there is none now.
        """
        limits, labels = self.context.tools.limits, ("docker", self.host)

        async def work() -> Answer:
            answer = await http.ask("GET", path, **params)
            if answer.status == TOO_MANY or answer.status >= SERVER_FAILED:
                answer.json()
            return answer

        answer = await limits.call(work, *labels)
        if left := _LEFT.fullmatch(answer.headers.get("ratelimit-remaining", "")):
            limits.remaining(int(left[1]), timedelta(seconds=int(left[2])), *labels)
        return answer

    def _at(self, authorization: str | None) -> Http:
        return self.context.http.at(self.config.base, authorization=authorization)


def speaks(answer: Answer) -> bool:
    """Whether a good answer at /v2/ is a registry's: it has the header that registries send, or JSON, or nothing."""
    if answer.headers.get("docker-distribution-api-version", "").startswith("registry/2"):
        return True
    try:
        return answer.json() in (None, {}, True)
    except m.VendorError:
        return False
