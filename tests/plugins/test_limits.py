"""The limits and patterns that the shipped connector types declare, together."""

from __future__ import annotations

import pytest

import mooring_aws
import mooring_docker
import mooring_kubernetes
from mooring.globs import overlap
from mooring.limits import DEFAULTS, Limits

TYPES = [plugin.connector.describe() for plugin in (mooring_aws, mooring_docker, mooring_kubernetes)]
SERVICE = ("aws", "123456789012", "eu-west-1")


def test_each_has_a_name_of_its_own_that_says_whose_it_is() -> None:
    names = [limit.name for limit in DEFAULTS] + [limit.name for kind in TYPES for limit in kind.limits]
    assert len(names) == len(set(names))
    for kind in TYPES:
        assert kind.limits
        for limit in kind.limits:
            assert limit.name.startswith(f"{kind.name}-")
            assert limit.where["vendor"] == kind.name


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ((*SERVICE, "sts", "AssumeRole"), ["service", "aws-sts", "vendor"]),
        ((*SERVICE, "ecr", "DescribeRepositories"), ["aws-ecr", "service", "vendor"]),
        ((*SERVICE, "eks", "ListClusters"), ["aws-eks", "service", "vendor"]),
        ((*SERVICE, "s3", "ListBuckets"), ["service", "vendor"]),
        (("docker", "docker.io"), ["docker-registry", "docker-hub", "vendor"]),
        (("docker", "ghcr.io"), ["docker-registry", "vendor"]),
        (("kubernetes", "k8s.example.org:6443"), ["kubernetes-server", "vendor"]),
    ],
)
def test_which_apply_to_a_call_the_narrowest_first(labels: tuple[str, ...], names: list[str]) -> None:
    """What a vendor complains of narrows the first: never the whole vendor."""
    limits = Limits()
    for kind in TYPES:
        limits.learn(kind.limits)
    assert [gate.limit.name for gate in limits._gates_of(labels)] == names


@pytest.mark.parametrize(("name", "quota"), [("aws-sts", 600), ("aws-ecr", 500)])
def test_a_rate_and_its_burst_are_what_aws_documents_for_a_second(name: str, quota: int) -> None:
    (limit,) = [limit for limit in TYPES[0].limits if limit.name == name]
    assert limit.rate is not None
    assert limit.rate + limit.burst == quota


def test_the_ids_of_one_type_of_aws_are_none_of_another() -> None:
    by_name = {kind.name: kind.ids for kind in TYPES[0].resource_types}
    for id in ("s3://data/raw/", "123456789012"):
        assert sum(overlap(id, ids) for name, ids in by_name.items() if name != "kubernetes-cluster") == 1
