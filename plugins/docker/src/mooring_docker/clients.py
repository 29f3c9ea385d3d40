"""Ready native clients: aiodocker for async hosts, the `docker` package for synchronous ones.

They are clients of this machine's engine (DOCKER_HOST, else its usual socket), which pull from and push to the registry
with the credentials, renewed where they are about to end. Images of other registries get none of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import mooring as m
from mooring_docker import ids
from mooring_docker.credentials import RegistryToken
from mooring_docker.render import keys_of

EARLY = timedelta(seconds=20)
"""With less life than this left, fresh credentials are asked for; the registry's tokens may live for a minute."""
NO_ENGINE = "no container engine answers; start it, or set DOCKER_HOST"


def auth_for(credentials: m.RegistryLogin | RegistryToken, image: str) -> dict[str, str] | None:
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


def _checked(credentials: m.Credentials) -> m.RegistryLogin | RegistryToken:
    if not isinstance(credentials, m.RegistryLogin | RegistryToken):
        raise m.UnsupportedResource("mooring-docker makes clients of credentials of container registries alone")
    return credentials


def _due(credentials: m.Credentials, within: timedelta = EARLY) -> bool:
    return credentials.expires_at is not None and credentials.expires_at - datetime.now(UTC) < within


def _full(image: str) -> str:
    """The name with its registry, which aiodocker wants; tag and digest as they are."""
    place, end = ids.image(image)
    return f"{place}{end}"


@asynccontextmanager
async def client(request: m.ClientRequest) -> AsyncGenerator[Any, None]:
    """An `aiodocker.Docker` whose `images.pull` and `images.push` log in by themselves."""
    import aiodocker

    held = _checked(request.credentials)

    async def login_for(image: str) -> dict[str, str] | None:
        nonlocal held
        if _due(held):
            try:
                held = _checked(await request.renew())
            except m.MooringError:
                if _due(held, timedelta(0)):
                    raise
        return auth_for(held, image)

    try:
        engine = aiodocker.Docker()
    except (AssertionError, ValueError, aiodocker.DockerError):
        engine = None
    if engine is None:
        raise m.Unreachable(NO_ENGINE)
    async with engine as docker:
        if not await _answers(docker):
            raise m.Unreachable(NO_ENGINE)
        docker.images = _images(login_for)(docker)
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


def _images(login_for: Callable[[str], Awaitable[dict[str, str] | None]]) -> Any:
    """A class of aiodocker's whose pulls and pushes log in, unless they are told how."""
    from aiodocker.images import DockerImages

    class Images(DockerImages):
        def pull(self, from_image: str, *, auth: Any = None, stream: bool = False, **options: Any) -> Any:
            return self._logged_in(super().pull, _full(from_image), auth, stream, options)

        def push(self, name: str, *, auth: Any = None, stream: bool = False, **options: Any) -> Any:
            return self._logged_in(super().push, _full(name), auth, stream, options)

        def _logged_in(self, verb: Any, name: str, auth: Any, stream: bool, options: dict[str, Any]) -> Any:
            async def whole() -> Any:
                return await verb(name, auth=auth or await login_for(name), **options)

            async def parts() -> AsyncIterator[Any]:
                async for part in verb(name, auth=auth or await login_for(name), stream=True, **options):
                    yield part

            return parts() if stream else whole()

    return Images


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

    held = _checked(request.credentials)

    def login_for(image: str) -> dict[str, str] | None:
        nonlocal held
        if _due(held):
            try:
                held = _checked(request.renew())
            except m.MooringError:
                if _due(held, timedelta(0)):
                    raise
        return auth_for(held, image)

    class Client(docker.APIClient):  # type: ignore[misc]  # docker has no types
        def pull(self, repository: str, *arguments: Any, auth_config: Any = None, **options: Any) -> Any:
            return super().pull(
                repository, *arguments, auth_config=auth_config or login_for(repository) or {}, **options
            )

        def push(self, repository: str, *arguments: Any, auth_config: Any = None, **options: Any) -> Any:
            return super().push(
                repository, *arguments, auth_config=auth_config or login_for(repository) or {}, **options
            )

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
