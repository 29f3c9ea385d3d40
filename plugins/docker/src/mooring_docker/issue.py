"""What is issued: a token for one repository where the registry has a token server, else what the connector has."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import mooring as m
from mooring_docker import ids
from mooring_docker.credentials import RegistryToken
from mooring_docker.grant import Claims, claims_of
from mooring_docker.repositories import scope_of
from mooring_docker.session import RegistrySession
from mooring_docker.settings import PasswordConfig, RegistryConfig, TokenConfig

Actions = tuple[Literal["pull", "push"], ...]
ACTIONS: dict[m.Access, Actions] = {"list": ("pull",), "read": ("pull",), "write": ("pull", "push")}

OPAQUE = "what the registry's tokens are good for cannot be read from them, so this one counts as not narrowed"
WITHOUT = (
    "without a token server the registry knows the password alone, which is neither narrowed nor ends: it is issued "
    "only if the connector allows both (--allow-unnarrowed, --allow-long-lived)"
)
NOBODY = "a registry without a token server issues nothing: pull from it without a login"


async def issue(session: RegistrySession, request: m.CredentialRequest) -> m.Credentials:
    """The credentials, as `explain` says beforehand."""
    config, place = session.config, ids.place_of(request.resource_id or session.host)
    if isinstance(config, TokenConfig):
        return _held(config, request, place, session.context.expires_at)
    if place.repository is None:
        return _login(config, request)
    challenge = await session.greet()
    if challenge is None or challenge.scheme != "bearer":
        return _login(config, request, place.repository)
    actions = ACTIONS[request.access]
    grant = await session.grant(challenge, scope_of(place.repository, actions))
    _granted(grant.claims, place, actions)
    narrowed = grant.claims.confined_to(place.repository, actions)
    _permit(request, narrowed=narrowed, ends=grant.expires_at, why=OPAQUE)
    return RegistryToken(
        registry=place.host,
        repository=place.repository if narrowed else None,
        token=grant.token,
        actions=actions,
        expires_at=grant.expires_at,
        narrowed=narrowed,
        clamped=() if narrowed else (OPAQUE,),
    )


def explain(config: RegistryConfig, request: m.CredentialRequest) -> m.Explanation:
    """What `issue` does, as far as it can be known before the registry is asked."""
    place = ids.place_of(request.resource_id or config.place.host)
    if isinstance(config, TokenConfig):
        held = _held(config, request, place, None)
        return m.Explanation(narrowed=held.narrowed, calls=(), notes=("the connector's own token is issued as it is",))
    if place.repository is None:
        return m.Explanation(
            narrowed=_login(config, request).narrowed,
            calls=(),
            notes=("the connector's own password is issued as it is; for less, name one repository",),
        )
    actions = ACTIONS[request.access]
    return m.Explanation(
        narrowed=True,
        calls=("GET /v2/", f"GET token?scope={scope_of(place.repository, actions)}"),
        policy={"access": [{"type": "repository", "name": place.repository, "actions": list(actions)}]},
        notes=(WITHOUT if isinstance(config, PasswordConfig) else NOBODY,),
    )


def _login(config: RegistryConfig, request: m.CredentialRequest, repository: str | None = None) -> m.RegistryLogin:
    host = config.place.host
    if not isinstance(config, PasswordConfig):
        if repository is not None:
            raise m.UnsupportedResource(
                f"{host} has no token server, so an anonymous connector has nothing to issue for {repository}; "
                "pull without a login"
            )
        raise m.UnsupportedResource(
            f"an anonymous connector has nothing to issue for all of {host}; use it without, or name one repository"
        )
    why = f"{host} has only the connector's password for that, which is good for all that the user may do"
    _permit(request, narrowed=False, ends=None, why=why)
    return m.RegistryLogin(
        registry=host, username=config.username, password=config.password, expires_at=None, narrowed=False
    )


def _held(
    config: TokenConfig,
    request: m.CredentialRequest,
    place: ids.Place,
    ends: datetime | None,
) -> RegistryToken:
    """The connector's own token, with the end that it or the connector has."""
    claims, actions = claims_of(config.token), ACTIONS[request.access]
    if place.repository is not None:
        _granted(claims, place, actions)
    narrowed = place.repository is not None and claims.confined_to(place.repository, actions)
    known = [end for end in (ends, claims.expires_at) if end is not None]
    until = min(known) if known else None
    _permit(request, narrowed=narrowed, ends=until, why="the connector's token is not confined to that")
    return RegistryToken(
        registry=place.host,
        repository=place.repository if narrowed else None,
        token=config.token,
        actions=actions,
        expires_at=until,
        narrowed=narrowed,
    )


def _granted(claims: Claims, place: ids.Place, actions: Actions) -> None:
    for action in actions:
        if claims.allows("repository", place.repository or "", action) is False:
            raise m.AccessDenied(f"{place.host} does not let the connector {action} {place.repository}")


def _permit(request: m.CredentialRequest, *, narrowed: bool, ends: datetime | None, why: str) -> None:
    """Raise unless the connector lets these out; the command that lets them is named, with all that is missing."""
    wide, endless = not narrowed and not request.allow_unnarrowed, ends is None and not request.allow_long_lived
    options = " --allow-unnarrowed" * wide + " --allow-long-lived" * endless
    remedy = f"if that is acceptable: mooring connector update {request.connector}{options}"
    if wide:
        raise m.NotNarrowed(f"{why}{', and has no end' * endless}; {remedy}")
    if endless:
        raise m.LongLived(f"{why}, and has no end; {remedy}")
