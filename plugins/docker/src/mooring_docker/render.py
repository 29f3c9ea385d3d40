"""Credentials as docker, podman and their kin read them."""

from __future__ import annotations

import base64
import json
from typing import Any

import mooring as m
from mooring_docker import ids
from mooring_docker.credentials import RegistryToken

CONFIG, HELPER = "docker-config", "docker-credential"
FORMATS = (CONFIG, HELPER)


def keys_of(registry: str) -> tuple[str, ...]:
    """What a registry is called in configuration files: by docker, and where that differs by podman and its kin."""
    return (ids.HUB_KEY, ids.HUB) if registry == ids.HUB else (registry,)


def render(credentials: m.Credentials, form: str) -> str:
    """The credentials in one of the formats, secrets in the clear."""
    if form == CONFIG:
        return json.dumps(_config(credentials), indent=2) + "\n"
    if form != HELPER:
        raise m.InvalidConfig(f"mooring-docker has no format {form!r}; known: {', '.join(FORMATS)}", field="format")
    login = needs_login(credentials)
    values = {"ServerURL": keys_of(login.registry)[0], "Username": login.username, "Secret": login.password.reveal()}
    return json.dumps(values) + "\n"


def needs_login(credentials: m.Credentials) -> m.RegistryLogin:
    """The credentials, if they are a user and password.

    Raises:
        UnsupportedResource: they are not; a credential helper can hand out nothing else.
    """
    if isinstance(credentials, m.RegistryLogin):
        return credentials
    raise m.UnsupportedResource(
        "docker's credential helpers hand out a user and password, and a token for one repository is neither; "
        "issue for the whole registry, or take the format docker-config"
    )


def environment(credentials: m.Credentials) -> m.Environment:
    """Docker reads `config.json` in the folder DOCKER_CONFIG, podman and skopeo the file REGISTRY_AUTH_FILE."""
    content = m.Secret(render(credentials, CONFIG))
    return m.Environment(
        variables={"DOCKER_AUTH_CONFIG": None},
        files=(
            m.EnvironmentFile(variable="DOCKER_CONFIG", name="docker/config.json", content=content, folder=True),
            m.EnvironmentFile(variable="REGISTRY_AUTH_FILE", name="auth.json", content=content),
        ),
    )


def _config(credentials: m.Credentials) -> dict[str, Any]:
    """Source: https://github.com/docker/cli/blob/master/cli/config/types/authconfig.go"""
    if isinstance(credentials, RegistryToken):
        return {"auths": {keys_of(credentials.registry)[0]: {"registrytoken": credentials.token.reveal()}}}
    if isinstance(credentials, m.RegistryLogin):
        pair = f"{credentials.username}:{credentials.password.reveal()}"
        return {"auths": {keys_of(credentials.registry)[0]: {"auth": base64.b64encode(pair.encode()).decode()}}}
    raise m.UnsupportedResource("mooring-docker renders credentials of container registries alone")
