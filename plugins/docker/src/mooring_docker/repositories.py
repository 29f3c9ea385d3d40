"""Finding and verifying what is in a registry."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import mooring as m
from mooring.http import Answer
from mooring_docker import ids
from mooring_docker.session import FORBIDDEN, NOT_FOUND, UNAUTHORIZED, RegistrySession

PAGE = "1000"
"""As many names as registries give at once, by their settings as they come."""
CATALOG = "/v2/_catalog"
CATALOG_SCOPE = "registry:catalog:*"
TOO_LARGE, NOT_SUPPORTED = 400, 405

Query = dict[str, list[str]]

_NEXT = re.compile(r'<([^>]{1,4096})>[^,<]*;\s*rel="?next"?', re.IGNORECASE)


def scope_of(repository: str, actions: tuple[str, ...]) -> str:
    """Source: https://distribution.github.io/distribution/spec/auth/scope/"""
    return f"repository:{repository}:{','.join(actions)}"


async def verify(session: RegistrySession, resource_id: str) -> None:
    """The repository is there, and we may pull it; nothing more is asked of a registry as a whole.

    Raises:
        AccessDenied, ResourceNotFound.
    """
    place = ids.place_of(resource_id)
    if place.repository is None:
        return
    scope = scope_of(place.repository, ("pull",))
    answer = await session.ask(f"/v2/{place.repository}/tags/list", scope, {"n": ["1"]})
    if answer.status in (UNAUTHORIZED, FORBIDDEN):
        raise m.AccessDenied(f"{session.host} does not let the connector pull {place}")
    if answer.status == NOT_FOUND:
        raise m.ResourceNotFound(f"{session.host} has no repository {place.repository}, or shows us none")
    answer.json()


async def discover(session: RegistrySession, resource_id: str | None) -> AsyncGenerator[m.Resource, None]:
    """The registry, then its repositories, if it lists them for us; or the one that is wanted."""
    if resource_id is not None:
        if resource_id == session.host:
            await session.whoami()
        await verify(session, resource_id)
        yield _resource(resource_id)
        return
    await session.whoami()
    yield _resource(session.host)
    seen: set[str] = set()
    async with aclosing(_pages(session)) as pages:
        async for names in pages:
            for name in names:
                id = f"{session.host}/{name}"
                if id not in seen and ids.is_canonical(id) and ids.within(session.config.place.repository, name):
                    seen.add(id)
                    yield _resource(id)


async def _pages(session: RegistrySession) -> AsyncGenerator[tuple[str, ...], None]:
    """The names, page by page; no page where the registry does not list them for us."""
    query: Query | None = {"n": [PAGE]}
    asked: set[str] = set()
    while query is not None:
        if (mark := urlencode(query, doseq=True)) in asked:
            raise m.Rejected(f"{session.host} lists the same page of repositories for ever")
        answer = await _page(session, query, first=not asked)
        if answer is None and not asked:
            return
        if answer is None:
            raise m.Rejected(f"{session.host} stopped listing its repositories half-way; try again later")
        asked.add(mark)
        yield tuple(_names(answer.json(), session.host))
        query = _next_of(answer.headers.get("link", ""), session.config.base)


async def _page(session: RegistrySession, query: Query, *, first: bool) -> Answer | None:
    """One page, None if it is not for us."""
    try:
        answer = await session.ask(CATALOG, CATALOG_SCOPE, query, again=not first)
        if first and answer.status == TOO_LARGE:  # for pages that are as long as the registry likes
            answer = await session.ask(CATALOG, CATALOG_SCOPE, {}, again=True)
    except (m.AccessDenied, m.AuthFailed):
        return None
    return None if answer.status in (UNAUTHORIZED, FORBIDDEN, NOT_FOUND, NOT_SUPPORTED) else answer


def _names(answer: Any, host: str) -> Iterator[str]:
    names = answer.get("repositories") if isinstance(answer, dict) else ()
    if not isinstance(names, list | None) or not isinstance(answer, dict):
        raise m.Rejected(f"the answer of {host} is no list of repositories; check the field registry")
    yield from (name for name in names or () if isinstance(name, str))


def _next_of(link: str, base: str) -> Query | None:
    """How the next page is asked for, as `Link` says (RFC 8288), None if there is none.

    Only the query is taken of it, so it leads nowhere else; registries do not agree on what marks a page there.
    """
    found = _NEXT.search(link[:8192])
    if found is None:
        return None
    try:
        return parse_qs(urlsplit(urljoin(base, found[1])).query)
    except ValueError:
        return None


def _resource(id: str) -> m.Resource:
    return m.Resource(type=ids.REGISTRY, id=id, attributes={"kind": "repository" if "/" in id else "registry"})
