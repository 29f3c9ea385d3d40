"""The story that `make demo` tells: from a key in the environment to credentials for one bucket, and the proof."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mooring.errors import MooringError
from mooring.types import MASK, instant
from mooring_sandbox.cloud import Sandbox

NAME = "aws-demo"
BUCKET, OTHER_BUCKET, KEY = "team-models", "team-datasets", "churn/model.json"
SCOPE = ("--resource-type", "s3-bucket", "--resource-id", f"s3://{BUCKET}", "--access", "read")
LONG_LIVED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
SECRETS = ("secretaccesskey", "sessiontoken")
COMMAND_SECONDS = 60
WIDEST = 120
INDENT = "  "

ATTEMPTS = (
    (f's3.get_object(Bucket="{BUCKET}", Key="{KEY}")', "Read from the bucket they are for", True),
    (f's3.put_object(Bucket="{BUCKET}", Key="new.txt", Body=b"x")', "Write to it", False),
    (f's3.get_object(Bucket="{OTHER_BUCKET}", Key="README.md")', "Read from another bucket", False),
)
PROBE = """
import boto3, botocore.exceptions, json, sys
s3, answers = boto3.client("s3"), []
for attempt in json.load(sys.stdin):
    try:
        answer = eval(attempt, {"s3": s3})
        answers.append([True, answer["Body"].read().decode().strip() if "Body" in answer else "done"])
    except botocore.exceptions.ClientError as error:
        answers.append([False, error.response["Error"]["Code"]])
json.dump(answers, sys.stdout)
"""


class DemoFailed(MooringError):
    """Raised when a step of the demo does not come out as it should."""


class Demo:
    """The steps, each shown as it is done and checked."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        width = min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)
        self._environment = sandbox.child_environment() | {"MOORING_COLUMNS": str(width - len(INDENT)), "NO_COLOR": "1"}

    def run(self) -> None:
        """Tell it all.

        Raises:
            DemoFailed: a step did not come out as it should.
        """
        began = time.monotonic()
        self._look()
        self._register()
        credentials = self._issue()
        self._try(credentials)
        self._explain()
        self._delete()
        self._tell(f"Every step came out as it should, in {time.monotonic() - began:.0f} seconds.")

    def _look(self) -> None:
        self._tell("What can be connected?")
        self._mooring("service-connector", "list-types", saying=("aws",))

    def _register(self) -> None:
        self._tell("There is an AWS key in the environment. Make a connector of it: verified, and sealed at rest.")
        self._mooring("service-connector", "register", NAME, "--type", "aws", "--auto-configure")
        for name in LONG_LIVED:
            del self._environment[name]
        self._tell("The key is out of the environment now; only the connector has it. Which buckets does it reach?")
        self._mooring("service-connector", "list-resources", "--resource-type", "s3-bucket")
        names = (NAME, *self._sandbox.buckets, *self._sandbox.clusters, *self._sandbox.repositories)
        self._ask("service-connector", "list-resources", "-o", "json", saying=names)  # a table may break its words

    def _issue(self) -> dict[str, str]:
        self._tell(f"A job needs to read {BUCKET}. Give it credentials for that, and no more.")
        arguments = ("issue", NAME, *SCOPE, "--format", "json")
        output = self._mooring(*arguments, show=False)
        try:
            reply = json.loads(output)
        except ValueError:
            raise DemoFailed(f"`{_shown(arguments)}` did not print JSON alone") from None
        self._show(json.dumps(_masked(reply), indent=2))
        facts = _flat(reply)
        wanted = ("accesskeyid", "secretaccesskey", "sessiontoken", "expiresat")
        if missing := [name for name in wanted if not isinstance(facts.get(name), str)]:
            raise DemoFailed(f"the reply of `mooring issue` lacks {', '.join(missing)}")
        if facts.get("narrowed") is not True:
            raise DemoFailed("the credentials are not narrowed to the bucket")
        if facts["accesskeyid"] == self._sandbox.developer.key_id:
            raise DemoFailed("the credentials are the long-lived key itself")
        minutes = round((instant(facts["expiresat"]) - datetime.now(UTC)).total_seconds() / 60)
        if minutes <= 0:
            raise DemoFailed("the credentials have expired already")
        life = f"{minutes} minutes" if minutes < 2 * 60 else f"{minutes / 60:.0f} hours"
        self._tell(f"Good for that bucket alone, and over by itself in {life}. (Only this display hides the secrets.)")
        return {
            "AWS_ACCESS_KEY_ID": facts["accesskeyid"],
            "AWS_SECRET_ACCESS_KEY": facts["secretaccesskey"],
            "AWS_SESSION_TOKEN": facts["sessiontoken"],
        }

    def _try(self, credentials: dict[str, str]) -> None:
        self._tell("The proof, in a process that has these credentials and nothing else: plain boto3.")
        clean = {name: value for name, value in self._environment.items() if not name.startswith("MOORING_")}
        attempts = json.dumps([attempt for attempt, _, _ in ATTEMPTS])
        answers = json.loads(self._process([sys.executable, "-c", PROBE], clean | credentials, stdin=attempts))
        for (attempt, meaning, allowed), (done, answer) in zip(ATTEMPTS, answers, strict=True):
            click.echo(INDENT + self._style(f">>> {attempt}", bold=True))
            click.echo(INDENT + self._style(answer, fg="green" if done else "red"))
            if done != allowed or (not done and answer != "AccessDenied"):
                expected = "is allowed" if allowed else "is refused with AccessDenied"
                raise DemoFailed(f"{meaning.lower()} {expected} with narrowed credentials; the answer was: {answer}")

    def _explain(self) -> None:
        self._tell("Why so? The exact policy, without a call to anybody.")
        output = self._mooring("explain", NAME, *SCOPE, saying=("s3:GetObject", f"arn:aws:s3:::{BUCKET}"))
        if "s3:PutObject" in output or OTHER_BUCKET in output:
            raise DemoFailed("the policy allows more than reading the one bucket")

    def _delete(self) -> None:
        self._tell("Clean up.")
        self._mooring("service-connector", "delete", NAME)
        if NAME in self._ask("service-connector", "list", "-o", "json"):
            raise DemoFailed(f"{NAME} is still there after `mooring service-connector delete`")

    def _mooring(self, *arguments: str, show: bool = True, saying: tuple[str, ...] = ()) -> str:
        """What the real CLI prints to stdout, shown with all else that it prints."""
        click.echo(self._style(f"$ {_shown(arguments)}", bold=True))
        output = self._process([*_program(), *arguments], self._environment, name=_shown(arguments), show=True)
        if show:
            self._show(output)
        _expect(saying, output, arguments)
        return output

    def _ask(self, *arguments: str, saying: tuple[str, ...] = ()) -> str:
        """What the real CLI prints to stdout; a check that is no part of the story."""
        output = self._process([*_program(), *arguments], self._environment, name=_shown(arguments))
        _expect(saying, output, arguments)
        return output

    def _process(
        self, command: list[str], environment: dict[str, str], *, name: str = "", show: bool = False, stdin: str = ""
    ) -> str:
        name = name or Path(command[0]).name
        try:
            done = subprocess.run(  # noqa: S603
                command,
                env=environment,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"`{name}` took longer than {COMMAND_SECONDS} s") from None
        if (show or done.returncode) and done.stderr.strip():
            self._show(done.stderr)
        if done.returncode:
            raise DemoFailed(f"`{name}` ended with status {done.returncode}")
        return done.stdout

    def _tell(self, text: str) -> None:
        click.echo("\n" + self._style(text, fg="cyan"))

    def _show(self, text: str) -> None:
        if shown := "\n".join(f"{INDENT}{line}".rstrip() for line in text.splitlines()).strip("\n"):
            click.echo(shown)

    def _style(self, text: str, **style: Any) -> str:
        return click.style(text, **style) if self._colour else text


def _program() -> list[str]:
    script = shutil.which("mooring", path=sysconfig.get_path("scripts"))
    return [script] if script else [sys.executable, "-m", "mooring"]


def _shown(arguments: tuple[str, ...]) -> str:
    return shlex.join(("mooring", *arguments))


def _expect(texts: tuple[str, ...], output: str, arguments: tuple[str, ...]) -> None:
    if missing := [text for text in texts if text not in output]:
        raise DemoFailed(f"`{_shown(arguments)}` should say {', '.join(missing)}")


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _flat(value: Any) -> dict[str, Any]:
    """All leaves of a JSON value by their names, however deep."""
    facts: dict[str, Any] = {}
    if isinstance(value, dict):
        for name, inner in value.items():
            facts |= _flat(inner) if isinstance(inner, dict) else {_plain(name): inner}
    return facts


def _masked(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: MASK if _plain(name) in SECRETS else _masked(inner) for name, inner in value.items()}
