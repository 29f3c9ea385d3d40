"""Ready native clients: aiodocker for async hosts, the `docker` package for synchronous ones.

They are clients of this machine's engine (DOCKER_HOST, else its usual socket), which pull from and push to the registry
with the credentials; `mooring.held` says when others are asked for. Images of other registries get none of them. Where
the registry refuses them, others are asked for at once, and the pull or push is done once more, unless something of it
was given to the caller already.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import mooring as m
from mooring.held import BlockingHeld, Held
from mooring_docker import ids
from mooring_docker.credentials import RegistryToken
from mooring_docker.render import keys_of

NO_ENGINE = "no container engine answers; start it, or set DOCKER_HOST"

Login = m.RegistryLogin | RegistryToken

UNAUTHORIZED = 401
REFUSALS = ("unauthorized", "authentication required")
"""How an engine passes a registry's 401 on, often with a status of its own.

Source: https://distribution.github.io/distribution/spec/api/#errors-2
"""
TOO_NARROW = re.compile(r"^denied: |insufficient_scope", re.MULTILINE)
"""How it passes on that they are good, but not for this: others would be no wider.

A push says this first and `unauthorized` after it, as the registry's answer is a 401 all the same.
Source: https://github.com/distribution/distribution/blob/v2.8.3/registry/client/errors.go
"""


def auth_for(credentials: Login, image: str) -> dict[str, str] | None:
    """What the engine takes as `X-Registry-Auth` for an image; None if it is of another registry or repository.

    Source: https://docs.docker.com/reference/api/engine/version/v1.41/#section/Authentication
    """
    place, _ = ids.image(image)
    if place.host != credentials.registry or credentials.repository not in (None, place.repository):
        return None
    server = {"serveraddress": keys_of(place.host)[0]}
    if isinstance(credentials, RegistryToken):
        return {"registrytoken": credentials.token.reveal(), **server}
    return {"username": credentials.username, "password": credentials.password.reveal(), **server}


def _checked(credentials: m.Credentials) -> Login:
    if not isinstance(credentials, m.RegistryLogin | RegistryToken):
        raise m.UnsupportedResource("mooring-docker makes clients of credentials of container registries alone")
    return credentials


def _refused(status: int | None, message: object) -> bool:
    """Whether an engine's error is that the registry does not accept the credentials."""
    said = str(message).lower()
    return not TOO_NARROW.search(said) and (status == UNAUTHORIZED or any(sign in said for sign in REFUSALS))


def _full(image: str) -> str:
    """The name with its registry, which aiodocker wants; tag and digest as they are."""
    place, end = ids.image(image)
    return f"{place}{end}"


@asynccontextmanager
async def client(request: m.ClientRequest) -> AsyncGenerator[Any, None]:
    """An `aiodocker.Docker` whose `images.pull` and `images.push` log in by themselves."""
    import aiodocker

    held = Held(_checked(request.credentials), request.renew, _checked)
    try:
        engine = aiodocker.Docker()
    except (AssertionError, ValueError, aiodocker.DockerError):
        engine = None
    if engine is None:
        raise m.Unreachable(NO_ENGINE)
    async with engine as docker:
        if not await _answers(docker):
            raise m.Unreachable(NO_ENGINE)
        docker.images = _images(held)(docker)
        yield docker


async def _answers(docker: Any) -> bool:
    """Whether there is an engine: one call, as the `docker` package makes too."""
    from aiodocker import DockerError
    from aiohttp import ClientError

    try:
        await docker.version()
    except (DockerError, ClientError, OSError, ValueError):
        return False
    return True


def _images(held: Held[Login]) -> Any:
    """A class of aiodocker's whose pulls and pushes log in, unless they are told how."""
    from aiodocker.images import DockerImages

    class Images(DockerImages):
        def pull(self, from_image: str, *, auth: Any = None, stream: bool = False, **options: Any) -> Any:
            return self._logged_in(super().pull, _full(from_image), auth, {"stream": stream, **options})

        def push(self, name: str, *, auth: Any = None, stream: bool = False, **options: Any) -> Any:
            return self._logged_in(super().push, _full(name), auth, {"stream": stream, **options})

        def _logged_in(self, verb: Any, name: str, auth: Any, options: dict[str, Any]) -> Any:
            if auth:
                return verb(name, auth=auth, **options)
            call = partial(verb, name, **options)
            return _parts(held, call, name) if options["stream"] else _whole(held, call, name)

    return Images


async def _whole(held: Held[Login], call: Callable[..., Any], name: str) -> Any:
    from aiodocker.exceptions import DockerError

    used = await held.fresh()
    try:
        return await call(auth=auth_for(used, name))
    except DockerError as error:
        other = await _instead_of(held, used, name, error)
        if other is None:
            raise
    return await call(auth=auth_for(other, name))


async def _parts(held: Held[Login], call: Callable[..., Any], name: str) -> AsyncIterator[Any]:
    from aiodocker.exceptions import DockerError

    used, other, begun = await held.fresh(), None, False
    try:
        async for part in call(auth=auth_for(used, name)):
            begun = True
            yield part
    except DockerError as error:
        other = None if begun else await _instead_of(held, used, name, error)
        if other is None:
            raise
    if other is not None:
        async for part in call(auth=auth_for(other, name)):
            yield part


async def _instead_of(held: Held[Login], used: Login, name: str, error: Any) -> Login | None:
    """Other credentials, if these were sent and refused, and there are others."""
    if auth_for(used, name) is None or not _refused(error.status, error.message):
        return None
    other = await held.instead_of(used)
    return None if other is used else other


@contextmanager
def blocking_client(request: m.BlockingClientRequest) -> Generator[Any, None, None]:
    """A `docker.DockerClient` whose pulls and pushes log in by themselves."""
    try:
        import docker
    except ImportError:
        raise m.InvalidConfig(
            "a client for synchronous hosts needs the docker package; run: pip install 'docker>=7,<8'"
        ) from None
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    held = BlockingHeld(_checked(request.credentials), request.renew, _checked)

    class Client(docker.APIClient):  # type: ignore[misc]  # docker has no types
        def pull(self, repository: str, *arguments: Any, auth_config: Any = None, **options: Any) -> Any:
            return _logged_in(held, partial(super().pull, repository, *arguments, **options), repository, auth_config)

        def push(self, repository: str, *arguments: Any, auth_config: Any = None, **options: Any) -> Any:
            return _logged_in(held, partial(super().push, repository, *arguments, **options), repository, auth_config)

    opened = docker.DockerClient.__new__(docker.DockerClient)
    try:
        opened.api = Client(**kwargs_from_env())
    except DockerException:
        opened = None
    if opened is None:
        raise m.Unreachable(NO_ENGINE)
    try:
        yield opened
    finally:
        opened.close()


def _logged_in(held: BlockingHeld[Login], call: Callable[..., Any], name: str, auth: Any) -> Any:
    from docker.errors import APIError

    if auth:
        return call(auth_config=auth)
    used = held.fresh()
    login = auth_for(used, name)
    try:
        return call(auth_config=login or {})
    except APIError as error:
        if login is None or not _refused(error.status_code, error.explanation):
            raise
        other = held.instead_of(used)
        if other is used:
            raise
    return call(auth_config=auth_for(other, name) or {})
