"""The sandbox itself: both servers, seeded, and the environment that leads any AWS tool to them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Self

from mooring_sandbox.accounts import ACCOUNT, Role, User
from mooring_sandbox.moto_server import MotoServer
from mooring_sandbox.ports import LOOPBACK
from mooring_sandbox.process import Server
from mooring_sandbox.seaweed import Seaweed
from mooring_sandbox.seed import BUCKETS, CLUSTERS, REGION, REPOSITORIES, caller_arn, seed_buckets, seed_services

START_LIMIT = timedelta(seconds=60)
OWN_PREFIXES = ("AWS_", "MOORING_")


class Sandbox:
    """A small cloud on loopback, there for as long as the context lasts.

    A context manager, and an async one for which the work is done in a thread. Everything is in `folder`, which is
    removed at the end; nothing outlives this process, even if it is killed.

        with Sandbox() as sandbox:
            boto3.client("s3", endpoint_url=sandbox.s3_url, ...)
    """

    account = ACCOUNT
    region = REGION
    buckets = tuple(BUCKETS)
    clusters = CLUSTERS
    repositories = REPOSITORIES

    def __init__(self, *, token_life: timedelta | None = None, start_limit: timedelta = START_LIMIT) -> None:
        """`token_life` is the life of every role session, whatever was asked for; federation tokens keep theirs."""
        self.developer = User(name="developer")
        """May do anything with any bucket; `environment()` holds these keys."""
        self.intern = User(name="intern", buckets=("team-datasets",))
        """May do anything with one bucket and sees no other."""
        self.role = Role(name="pipeline", trusted=self.developer.arn)
        """The developer may assume it."""
        self.forbidden_role = Role(name="release", trusted=self.intern.arn)
        """The developer may not assume it."""
        self._token_life = token_life
        self._start_limit = start_limit
        self._servers: tuple[Server, ...] = ()
        self._cleanup = ExitStack()

    def start(self, pause: Callable[[float], None] = time.sleep) -> None:
        """Start both servers and fill them. Takes some four seconds; whatever `pause` raises ends it, cleanly.

        Raises:
            NoSeaweed: there is no SeaweedFS for this platform, or it is not installed.
            ServerFailed: a server did not start in time.
        """
        deadline = time.monotonic() + self._start_limit.total_seconds()
        users, roles = (self.developer, self.intern), (self.role, self.forbidden_role)
        with ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="mooring-sandbox-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._seaweed = Seaweed(
                self.folder, users=users, roles=roles, token_life=self._token_life, identify=caller_arn
            )
            self._moto = MotoServer(self.folder)
            self._servers = (self._seaweed, self._moto)
            for server in self._servers:
                stack.callback(server.stop)
                server.start()
            self._moto.wait_until_ready(_until(deadline), pause)
            seed_services(self.aws_url, users, roles)
            self._seaweed.wait_until_ready(_until(deadline), pause)
            seed_buckets(self.s3_url, self.developer)
            self._cleanup = stack.pop_all()

    def stop(self) -> None:
        """Kill both servers and remove the folder. May be called again."""
        self._cleanup.close()

    def check(self) -> None:
        """Make sure that both servers still run.

        Raises:
            ServerFailed: one has ended by itself.
        """
        for server in self._servers:
            server.check()

    @property
    def s3_url(self) -> str:
        """Where S3 and STS are served."""
        return self._seaweed.url

    @property
    def aws_url(self) -> str:
        """Where EKS, ECR, IAM and all others are served."""
        return self._moto.url

    @property
    def home(self) -> Path:
        """A home for mooring that goes with the sandbox."""
        return self.folder / "home"

    def environment(self, user: User | None = None) -> dict[str, str]:
        """The variables that lead any AWS tool, and mooring, to the sandbox as that user (the developer).

        The person's own AWS configuration and connectors are neither read nor touched.
        """
        user = user or self.developer
        variables = {
            "AWS_ACCESS_KEY_ID": user.key_id,
            "AWS_SECRET_ACCESS_KEY": user.secret,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.aws_url,
            "AWS_ENDPOINT_URL_S3": self.s3_url,
            "AWS_ENDPOINT_URL_STS": self.s3_url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self.folder / "aws-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "aws-credentials"),
            "MOORING_HOME": str(self.home),
        }
        if any(name.lower() in ("http_proxy", "all_proxy") for name in os.environ):
            others = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
            variables |= dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(filter(None, (others, LOOPBACK))))
        return variables

    def child_environment(self, user: User | None = None) -> dict[str, str]:
        """This process's environment with `environment()` in place of all that it says of AWS and mooring."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN_PREFIXES)}
        return kept | self.environment(user)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        from anyio import to_thread

        await to_thread.run_sync(self.start, _pause_unless_cancelled)
        return self

    async def __aexit__(self, *_: object) -> None:
        from anyio import CancelScope, to_thread

        with CancelScope(shield=True):
            await to_thread.run_sync(self.stop)


def _pause_unless_cancelled(seconds: float) -> None:
    from anyio import from_thread

    from_thread.check_cancelled()
    time.sleep(seconds)


def _until(deadline: float) -> timedelta:
    return timedelta(seconds=max(deadline - time.monotonic(), 0))
