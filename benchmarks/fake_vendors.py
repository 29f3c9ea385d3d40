"""Plugins with their one network call replaced, so that a benchmark needs no vendor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import mooring as m
from mooring_aws import AwsCredentials
from mooring_aws import connector as aws
from mooring_docker import connector as docker
from mooring_kubernetes import connector as kubernetes

LIFE = timedelta(hours=12)


class FakeAws:
    """Everything as the AWS plugin has it, but what is issued."""

    describe = aws.describe
    canonical = aws.canonical
    qualify = aws.qualify
    authenticate = aws.authenticate
    verify = aws.verify
    discover = aws.discover
    lifespan = aws.lifespan

    @m.hookimpl
    async def issue_credentials(self, session: Any, request: m.CredentialRequest) -> m.Credentials:
        ends = datetime.now(UTC) + LIFE
        if request.resource_type == "aws-generic":
            return AwsCredentials(
                access_key_id="ASIAEXAMPLE",
                secret_access_key=m.Secret("s" * 40),
                session_token=m.Secret("t" * 900),
                expires_at=ends,
                narrowed=True,
            )
        return m.KubernetesAccess(
            server="https://cluster.invalid", cluster="c", token=m.Secret("t" * 900), expires_at=ends, narrowed=True
        )


class FakeKubernetes:
    """Everything as the Kubernetes plugin has it, but what is issued."""

    describe = kubernetes.describe
    canonical = kubernetes.canonical
    authenticate = kubernetes.authenticate
    verify = kubernetes.verify
    discover = kubernetes.discover

    @m.hookimpl
    async def issue_credentials(self, session: Any, request: m.CredentialRequest) -> m.Credentials:
        ends = datetime.now(UTC) + LIFE
        return m.KubernetesAccess(
            server="https://cluster.invalid", cluster="c", token=m.Secret("t" * 900), expires_at=ends, narrowed=True
        )


class FakeDocker:
    """Everything as the plugin of container registries has it, but what is issued."""

    describe = docker.describe
    canonical = docker.canonical
    authenticate = docker.authenticate
    verify = docker.verify
    discover = docker.discover

    @m.hookimpl
    async def issue_credentials(self, session: Any, request: m.CredentialRequest) -> m.Credentials:
        ends = datetime.now(UTC) + LIFE
        return m.RegistryLogin(
            registry="r.org", username="u", password=m.Secret("p" * 40), expires_at=ends, narrowed=True
        )
