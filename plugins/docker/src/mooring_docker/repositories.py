"""Finding and verifying what is in a registry."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import mooring as m
from mooring_docker import ids
from mooring_docker.session import FORBIDDEN, NOT_FOUND, UNAUTHORIZED, RegistrySession

PAGE = "100"
CATALOG = "/v2/_catalog"
CATALOG_SCOPE = "registry:catalog:*"
NOT_SUPPORTED = 405

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
    answer = await session.ask(f"/v2/{place.repository}/tags/list", scope, n="1")
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
    last: str | None = None
    while True:
        names, further = await _page(session, last)
        for name in names:
            id = f"{session.host}/{name}"
            if id not in seen and ids.is_canonical(id) and ids.within(session.config.place.repository, name):
                seen.add(id)
                yield _resource(id)
        if further is None:
            return
        last = further


async def _page(session: RegistrySession, last: str | None) -> tuple[tuple[str, ...], str | None]:
    """The names of a page, and after which the next one begins; nothing where the registry does not list them."""
    wanted = {"n": PAGE} | ({"last": last} if last is not None else {})
    try:
        answer = await session.ask(CATALOG, CATALOG_SCOPE, **wanted)
    except (m.AccessDenied, m.AuthFailed):
        answer = None
    if answer is None or answer.status in (UNAUTHORIZED, FORBIDDEN, NOT_FOUND, NOT_SUPPORTED):
        if last is None:
            return (), None
        raise m.Rejected(f"{session.host} stopped listing its repositories half-way; try again later")
    names = tuple(_names(answer.json(), session.host))
    further = _last_of(answer.headers.get("link", ""), session.config.base)
    if further is not None and further == last:
        raise m.Rejected(f"{session.host} lists the same page of repositories for ever")
    return names, further


def _names(answer: Any, host: str) -> Iterator[str]:
    names = answer.get("repositories") if isinstance(answer, dict) else ()
    if not isinstance(names, list | None) or not isinstance(answer, dict):
        raise m.Rejected(f"the answer of {host} is no list of repositories; check the field registry")
    yield from (name for name in names or () if isinstance(name, str))


def _last_of(link: str, base: str) -> str | None:
    """Where the next page begins, as `Link` says (RFC 8288); only the mark is taken of it, so it leads nowhere else."""
    found = _NEXT.search(link[:8192])
    if found is None:
        return None
    try:
        marks = parse_qs(urlsplit(urljoin(base, found[1])).query).get("last")
    except ValueError:
        return None
    return marks[0] if marks else None


def _resource(id: str) -> m.Resource:
    return m.Resource(type=ids.REGISTRY, id=id, attributes={"kind": "repository" if "/" in id else "registry"})
