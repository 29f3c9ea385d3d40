"""What is in the sandbox's account from the start."""

from __future__ import annotations

import json
import os
from typing import Any

from mooring_sandbox.accounts import ACCOUNT, Role, User

REGION = "us-east-1"

BUCKETS = {
    "team-models": {"churn/model.json": '{"auc": 0.91}\n', "README.md": "The team's models.\n"},
    "team-datasets": {"customers/2026.csv": "id,plan\n1,free\n", "README.md": "The team's datasets.\n"},
    "public-logs": {"2026/01/01.log": "GET / 200\n"},
}
CLUSTERS = ("staging", "production")
REPOSITORIES = ("team/trainer", "team/server")


def client(service: str, url: str, user: User) -> Any:
    """A botocore client for an endpoint on loopback, deaf to the person's own configuration and proxies."""
    import botocore.session
    from botocore.config import Config

    session = botocore.session.get_session()
    for variable, value in {"config_file": os.devnull, "credentials_file": os.devnull, "profile": None}.items():
        session.set_config_variable(variable, value)
    return session.create_client(
        service,
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id=user.key_id,
        aws_secret_access_key=user.secret,
        config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}, proxies={}),
    )


def caller_arn(url: str, user: User) -> str | None:
    """Whom STS takes a user's keys for; None as long as it does not say."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return str(client("sts", url, user).get_caller_identity()["Arn"])
    except (BotoCoreError, ClientError):
        return None


def seed_buckets(url: str, user: User) -> None:
    """Make the buckets and their objects."""
    s3 = client("s3", url, user)
    for bucket, objects in BUCKETS.items():
        s3.create_bucket(Bucket=bucket)
        for key, text in objects.items():
            s3.put_object(Bucket=bucket, Key=key, Body=text.encode())


def seed_services(url: str, users: tuple[User, ...], roles: tuple[Role, ...]) -> None:
    """Make the clusters and repositories, and the users and roles in IAM."""
    eks, ecr, iam = (client(service, url, users[0]) for service in ("eks", "ecr", "iam"))
    for user in users:
        iam.create_user(UserName=user.name)
    for role in roles:
        iam.create_role(RoleName=role.name, AssumeRolePolicyDocument=json.dumps(role.trust_policy))
    for name in CLUSTERS:
        eks.create_cluster(
            name=name,
            version="1.34",
            roleArn=f"arn:aws:iam::{ACCOUNT}:role/eks",
            resourcesVpcConfig={"subnetIds": ["subnet-1", "subnet-2"]},
        )
    for name in REPOSITORIES:
        ecr.create_repository(repositoryName=name)
