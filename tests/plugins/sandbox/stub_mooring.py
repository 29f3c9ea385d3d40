"""The commands that the demo runs, as a program that misbehaves on demand (STUB=...): the demo must notice.

That the real CLI behaves is what the demo itself shows.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import boto3

MISBEHAVIOUR = os.environ.get("STUB", "")
KEPT = Path(os.environ.get("MOORING_HOME", "")) / "kept.json"


def policy(*actions):
    resources = ["*"] if MISBEHAVIOUR == "wide" else ["arn:aws:s3:::team-models", "arn:aws:s3:::team-models/*"]
    allowed = [*actions, "s3:PutObject"] if MISBEHAVIOUR in ("write", "explains-write") else list(actions)
    statement = {"Effect": "Allow", "Action": allowed, "Resource": resources}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def issue():
    key_id, secret = json.loads(KEPT.read_text())
    sts = boto3.client("sts", aws_access_key_id=key_id, aws_secret_access_key=secret)
    answer = sts.get_federation_token(Name="demo", Policy=policy("s3:GetObject", "s3:ListBucket"))["Credentials"]
    credentials = {
        "type": "aws",
        "expires_at": answer["Expiration"].isoformat(),
        "narrowed": MISBEHAVIOUR != "unnarrowed",
        "access_key_id": key_id if MISBEHAVIOUR == "long-lived" else answer["AccessKeyId"],
        "secret_access_key": answer["SecretAccessKey"],
        "session_token": answer["SessionToken"],
    }
    return json.dumps({"connector": "aws-demo", "credentials": credentials})


def main(*arguments):
    match arguments:
        case ("service-connector", "list-types"):
            return "aws"
        case ("service-connector", "register", name, *_):
            KEPT.parent.mkdir()
            KEPT.write_text(json.dumps([os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]]))
            return f"Registered {name}"
        case ("service-connector", "list-resources", *_):
            assert "AWS_SECRET_ACCESS_KEY" not in os.environ
            found = "aws-demo team-models team-datasets public-logs staging team/trainer team/server"
            return found + " production" * (MISBEHAVIOUR != "lists-less")
        case ("issue", *_):
            return issue() if MISBEHAVIOUR != "crash" else sys.exit("Error: no such thing")
        case ("explain", *_):
            return policy("s3:GetObject", "s3:ListBucket")
        case ("service-connector", "delete", *_):
            if MISBEHAVIOUR != "keeps":
                KEPT.unlink()
            return ""
        case ("service-connector", "list", *_):
            return "aws-demo" if KEPT.exists() else ""


if __name__ == "__main__":
    sys.stdout.write(main(*sys.argv[1:]) + "\n")
