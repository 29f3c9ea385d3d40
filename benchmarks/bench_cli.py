"""Whole commands: what a person, kubectl or the aws CLI waits for."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import anyio

import mooring
from measure import Figure, Run, against, run
from mooring.assembly import Settings

YARDSTICK = (sys.executable, "-c", "import asyncio, click")
BIN = Path(sys.executable).parent
MOORING = (str(BIN / "mooring"),)
HELPER = (str(BIN / "docker-credential-mooring"), "get")

ENTRIES: dict[str, Callable[[tuple[str, ...]], tuple[str, ...]]] = {
    "issue_env_wall": lambda wish: ("issue", *wish, "--format", "env"),
    "issue_credential_process_wall": lambda wish: ("issue", *wish, "--format", "credential-process"),
    "exec_wall": lambda wish: ("exec", *wish, "--", "true"),
}
"""What other programs wait for, of credentials that are in the cache."""
KUBECTL = ("issue", "cluster", "-r", "kubernetes-cluster", "-i", "c", "--access", "read", "--format", "exec-credential")
"""What `mooring login` has kubectl call."""


MANY = 1000
LISTINGS = {
    "list_page_wall": ("connector", "list", "--page", "1"),
    "list_json_wall": ("connector", "list", "-o", "json"),
    "list_table_wall": ("connector", "list"),
    "list_components_wall": ("artifact-store", "list", "-o", "json"),
}
"""With that many connectors, and as many artifact stores."""


def figures() -> Iterator[Figure]:
    """What people wait for, then what programs do."""
    yield from issuing()  # first: the peak of a child is at least what its parent has when it is made
    yield from listings()


def listings() -> Iterator[Figure]:
    """`--help`, and listings of many."""
    with tempfile.TemporaryDirectory() as home:
        anyio.run(_register_many, Path(home))
        environment = {"MOORING_HOME": home}
        for name, command in ({"help_wall": ("--help",)} | LISTINGS).items():
            ratio, ours, theirs = against((*MOORING, *command), YARDSTICK, environment)
            yield Figure(name, ratio, _times(ours, theirs))


async def _register_many(home: Path) -> None:
    config = {"region": "eu-west-1", "aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "s" * 40}
    async with mooring.open_broker(settings=Settings(home=home), system_plugins=[]) as broker:
        for number in range(MANY):
            name = f"account-{number:04}"
            made = await broker.register(name, type="aws", auth_method="secret-key", config=config, verify=False)
            store = {"type": "artifact-store", "flavor": "s3", "config": {"path": f"s3://bucket-{number:04}"}}
            await broker.documents("component").add(name, store | {"connector_id": made.id})


def issuing() -> Iterator[Figure]:
    """`list-types`, and `issue` of credentials that another process left in the cache."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"MOORING_HOME": home, "DOCKER_CONFIG": home}
        ratio, ours, theirs = against((*MOORING, "service-connector", "list-types"), YARDSTICK, environment)
        yield Figure("list_types_wall", ratio, _times(ours, theirs))
        peak = max(one.peak for one in ours)
        yield Figure("list_types_memory", peak, f"largest of {len(ours)} runs")
        anyio.run(_issue_once, Path(home))
        command = (
            *MOORING, "issue", "bench", "--resource-type", "kubernetes-cluster", "--resource-id", "eu-west-1/c",
            "--consumer", "bench",
        )  # fmt: skip
        ratio, ours, theirs = against(command, YARDSTICK, environment)
        yield Figure("cached_issue_process_wall", ratio, _times(ours, theirs))
        for name, entry in ENTRIES.items():
            words = (*MOORING, *entry(("bench", "-r", "aws-generic", "--consumer", "bench")))
            ratio, ours, theirs = against(words, YARDSTICK, environment)
            yield Figure(name, ratio, _times(ours, theirs))
        ratio, ours, theirs = against((*MOORING, *KUBECTL), YARDSTICK, environment)
        yield Figure("exec_credential_wall", ratio, _times(ours, theirs))
        run((*MOORING, "login", "registry", "-r", "docker-registry", "-i", "r.org"), environment)
        ratio, ours, theirs = against(HELPER, YARDSTICK, environment, given=b"r.org")
        yield Figure("docker_credential_wall", ratio, _times(ours, theirs))


async def _issue_once(home: Path) -> None:
    """Put credentials where the next process finds them; they are fake vendors', under the names of real types."""
    from fake_vendors import FakeAws, FakeDocker, FakeKubernetes

    plugins: list[Any] = [FakeAws(), FakeDocker(), FakeKubernetes()]
    async with mooring.open_broker(settings=Settings(home=home), plugins=plugins, system_plugins=[]) as broker:
        config = {"region": "eu-west-1", "aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "s" * 40}
        await broker.register("bench", type="aws", auth_method="secret-key", config=config, verify=False)
        await broker.issue("bench", resource_type="kubernetes-cluster", resource_id="eu-west-1/c", consumer="bench")
        await broker.issue("bench", resource_type="aws-generic", consumer="bench")
        config = {"server": "https://cluster.invalid", "cluster_name": "c", "token": "t" * 900}
        await broker.register("cluster", type="kubernetes", auth_method="token", config=config, verify=False)
        await broker.issue("cluster", resource_type="kubernetes-cluster", resource_id="c")
        config = {"registry": "r.org", "username": "u", "password": "p" * 40}
        await broker.register("registry", type="docker", auth_method="password", config=config, verify=False)
        await broker.issue("registry", resource_type="docker-registry", resource_id="r.org")


def _times(ours: list[Run], theirs: list[Run]) -> str:
    return f"{median(one.wall for one in ours) * 1000:.0f} ms to {median(one.wall for one in theirs) * 1000:.0f} ms"
