"""The registry, and its repositories where it lists them for us."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

import mooring as m
from mooring.http import Answer
from mooring_docker import connector

pytestmark = pytest.mark.anyio
ALICE = {"username": "alice", "password": "pw-alice"}
BOB = {"username": "bob", "password": "pw-bob"}


async def found(session: Any, resource_id: str | None = None) -> list[str]:
    request = m.DiscoverRequest(resource_type="docker-registry", resource_id=resource_id)
    async with aclosing(connector.discover(session, request)) as resources:
        return [resource.id async for resource in resources]


async def test_every_repository_of_a_catalog(opened: Any, htpasswd: Any, push: Any) -> None:
    names = ["team/app", "team/more", "teams", "zoo"]
    for name in names:
        assert push(f"{htpasswd.host}/{name}:v1", "--dest-creds=alice:pw-alice").returncode == 0
    async with opened("password", registry=htpasswd.url, **ALICE) as session:
        assert await found(session) == [htpasswd.host, *(f"{htpasswd.host}/{name}" for name in names)]
        assert await found(session, f"{htpasswd.host}/zoo") == [f"{htpasswd.host}/zoo"]
        assert await found(session, htpasswd.host) == [htpasswd.host]
    async with opened("password", registry=f"{htpasswd.url}/team", **ALICE) as session:
        assert await found(session) == [
            htpasswd.host,
            f"{htpasswd.host}/team/app",
            f"{htpasswd.host}/team/more",
        ]


async def test_page_by_page(opened: Any, token_registry: Any, push: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("alice/a", "alice/b", "alice/c"):
        assert push(f"{token_registry.host}/{name}:v1", "--dest-creds=alice:pw-alice").returncode == 0
    monkeypatch.setattr("mooring_docker.repositories.PAGE", "1")
    async with opened("password", registry=f"{token_registry.url}/alice", **ALICE) as session:
        assert await found(session) == [
            token_registry.host,
            *(f"{token_registry.host}/alice/{name}" for name in "abc"),
        ]


async def test_only_the_scoped_one_where_we_may_see_no_catalog(opened: Any, token_registry: Any, push: Any) -> None:
    host = token_registry.host
    assert push(f"{host}/bob/app:v1", "--dest-creds=bob:pw-bob").returncode == 0
    async with opened("password", registry=token_registry.url, **BOB) as session:
        assert await found(session) == [host]
        assert await found(session, f"{host}/bob/app") == [f"{host}/bob/app"]


async def test_a_wrong_password_is_no_empty_catalog(opened: Any, token_registry: Any) -> None:
    async with opened("password", registry=token_registry.url, username="bob", password="no") as session:
        with pytest.raises(m.AuthFailed):
            await found(session)


class Pages:
    """A registry whose catalog answers one after the other."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, list[str]]] = []

    def at(self, base: str, *, authorization: str | None = None) -> Pages:
        return self

    async def ask(self, method: str, path: str, /, **params: list[str]) -> Answer:
        if path == "/v2/":
            return Answer("r.org", 200, {}, b"{}")
        self.asked.append(params)
        return self.answers.pop(0)


def page(body: bytes, link: str = "", status: int = 200) -> Answer:
    return Answer("r.org", status, {"link": link} if link else {}, body)


@pytest.fixture
def listed(settle: Any, context: m.Context) -> Any:
    async def ids(pages: Any) -> list[str]:
        tools = msgspec.structs.replace(context.tools, http=pages)
        config = settle("anonymous", registry="r.org")
        async with connector.authenticate(config, msgspec.structs.replace(context, tools=tools)) as session:
            return await found(session)

    return ids


async def test_a_link_leads_nowhere_but_on(listed: Any) -> None:
    pages = Pages(
        page(b'{"repositories": ["a", "a", "B", "../x", "", 1]}', '<https://evil.org/steal?last=a>; rel="next"'),
        page(b'{"repositories": ["b"]}', '</v2/_catalog?last=b>; rel="prev"'),
    )

    assert await listed(pages) == ["r.org", "r.org/a", "r.org/b"]
    assert pages.asked == [{"n": ["1000"]}, {"last": ["a"]}]


async def test_what_marks_the_next_page_is_the_registrys_affair(listed: Any) -> None:
    pages = Pages(
        page(b'{"repositories": ["a"]}', '</v2/_catalog?n=9&next_page=gA%3D%3D&path=x&method=y>; rel="next"'),
        page(b'{"repositories": ["b"]}'),
    )

    assert await listed(pages) == ["r.org", "r.org/a", "r.org/b"]
    assert pages.asked[1] == {"n": ["9"], "next_page": ["gA=="], "path": ["x"], "method": ["y"]}


async def test_a_registry_that_wants_shorter_pages(listed: Any) -> None:
    pages = Pages(page(b"", status=400), page(b'{"repositories": ["a"]}'))

    assert await listed(pages) == ["r.org", "r.org/a"]
    assert pages.asked == [{"n": ["1000"]}, {}]


async def test_a_catalog_without_end(listed: Any) -> None:
    same = page(b'{"repositories": ["a"]}', "</v2/_catalog?last=a>; rel=next")
    with pytest.raises(m.Rejected, match="for ever"):
        await listed(Pages(same, same, same))


async def test_a_catalog_that_goes_in_circles(listed: Any) -> None:
    links = ("</v2/_catalog?last=a>; rel=next", "</v2/_catalog?last=b>; rel=next")
    pages = Pages(*(page(b'{"repositories": ["a"]}', links[number % 2]) for number in range(9)))
    with pytest.raises(m.Rejected, match="for ever"):
        await listed(pages)

    assert len(pages.asked) == 3


async def test_a_link_to_the_first_page(listed: Any) -> None:
    same = page(b'{"repositories": ["a"]}', "</v2/_catalog>; rel=next")
    with pytest.raises(m.Rejected, match="for ever"):
        await listed(Pages(same, same, same))


async def test_a_hundred_thousand_names(listed: Any) -> None:
    def names(start: int) -> Answer:
        found = [f"team-{number}/app" for number in range(start, start + 1000)]
        further = f"</v2/_catalog?n=1000&last={found[-1]}>; rel=next" if start < 99_000 else ""
        return page(json.dumps({"repositories": found}).encode(), further)

    pages = Pages(*map(names, range(0, 100_000, 1000)))

    assert len(await listed(pages)) == 100_001
    assert len(pages.asked) == 100


async def test_one_token_for_all_pages(
    opened: Any, token_registry: Any, tokens: Any, push: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("alice/a", "alice/b", "alice/c"):
        assert push(f"{token_registry.host}/{name}:v1", "--dest-creds=alice:pw-alice").returncode == 0
    monkeypatch.setattr("mooring_docker.repositories.PAGE", "1")
    async with opened("password", registry=token_registry.url, **ALICE) as session:
        for life, most in ((300, 1), (1, 99)):
            tokens.answer = {"expires_in": life}
            tokens.seen.clear()
            await found(session)
            asked = [one for one in tokens.seen if one.get("scope") == ["registry:catalog:*"]]
            assert 1 <= len(asked) <= most
            assert (len(asked) == 1) == (life == 300), "one that ends at once is not used twice"


async def test_a_catalog_that_stops_half_way(listed: Any) -> None:
    with pytest.raises(m.Rejected, match="half-way"):
        await listed(Pages(page(b'{"repositories": ["a"]}', "</v2/_catalog?last=a>; rel=next"), page(b"", status=404)))


@pytest.mark.parametrize("body", [b"[]", b"1", b"<html>", b'{"repositories": "a"}', b'{"repositories": {}}'])
async def test_a_catalog_of_garbage(listed: Any, body: bytes) -> None:
    with pytest.raises(m.Rejected):
        await listed(Pages(page(body)))


async def test_an_empty_catalog(listed: Any) -> None:
    assert await listed(Pages(page(b'{"repositories": null}'))) == ["r.org"]
