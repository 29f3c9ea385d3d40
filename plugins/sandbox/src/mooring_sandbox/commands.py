"""`mooring sandbox up` and `mooring sandbox demo`. What they run is imported in their bodies."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from mooring_sandbox.cloud import Sandbox

ENV_FILE_MARK = "# Written by `mooring sandbox up`, which removes it when it ends."
STRAYS = (
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
    *("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_ENDPOINT_URL_EKS", "AWS_ENDPOINT_URL_ECR", "AWS_ENDPOINT_URL_IAM"),
    *("MOORING_STORE", "MOORING_MASTER_KEY"),
)
"""What would lead a tool away from the sandbox in spite of its variables, or mooring to the person's own connectors."""
CHECK_SECONDS = 0.5


@click.group("sandbox")
def group() -> None:
    """A small real cloud on this machine, for trying mooring and for tests."""


@group.command()
@click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the variables into this file, for `source`, instead of printing them.",
)
def up(env_file: Path | None) -> None:
    """Run the cloud until Ctrl-C.

    S3 and STS (SeaweedFS) and EKS, ECR and IAM (moto) on free ports of 127.0.0.1, with a few buckets, clusters and
    repositories. Prints the variables that lead mooring and every AWS tool there. All of it is gone when it ends.

    S3 and STS check keys and enforce policies; EKS, ECR and IAM check no credentials. STS refuses GetSessionToken: for
    credentials of the whole account (aws-generic) register a connector with the role that is printed.

    Exit status: 130 after Ctrl-C, 0 after SIGTERM.
    """
    from mooring_sandbox.cloud import Sandbox

    with _signals_as_exits():
        _check_env_file(env_file)
        _say("Starting a small cloud on this machine ...")
        with Sandbox() as sandbox, _announced(sandbox, env_file):
            while True:
                sandbox.check()
                time.sleep(CHECK_SECONDS)


@group.command()
def demo() -> None:
    """Tell mooring's story, with real commands.

    From a key in the environment to credentials that read one bucket, and the proof, against a cloud of its own. Takes
    ten seconds or so and leaves nothing behind.

    Exit status: 0 only if everything in it came out as it should.
    """
    from mooring_sandbox.cloud import Sandbox
    from mooring_sandbox.demo import Demo

    with _signals_as_exits():
        _say("Starting a small cloud on this machine: SeaweedFS (S3, STS) and moto (EKS, ECR, IAM) ...")
        with Sandbox() as sandbox:
            Demo(sandbox).run()
        _say("The cloud is gone again; nothing is left behind.")


@contextmanager
def _signals_as_exits() -> Generator[None]:
    """Ctrl-C and SIGTERM end the commands through their cleanup."""

    def stop(number: int, _frame: object) -> NoReturn:
        for one in before:
            signal.signal(one, signal.SIG_IGN)  # the cleanup that follows is short
        sys.exit(130 if number == signal.SIGINT else 0)

    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def _announced(sandbox: Sandbox, env_file: Path | None) -> Generator[None]:
    lines = [f"unset {' '.join(STRAYS)}"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sandbox.environment().items()]
    if env_file is None:
        click.echo("\n".join(lines))
        use = "paste the lines above"
    else:
        _write_env_file(env_file, "\n".join((ENV_FILE_MARK, *lines, "")))
        use = f"source {shlex.quote(str(env_file))}"
    try:
        _say(_explanation(sandbox, use))
        yield
    finally:
        if env_file is not None:
            env_file.unlink(missing_ok=True)
        _say("The sandbox is gone.")


def _check_env_file(path: Path | None) -> None:
    from mooring.errors import InvalidConfig

    if path and path.exists() and not path.read_text(errors="replace").startswith(ENV_FILE_MARK):
        raise InvalidConfig(
            f"--env-file {path} exists and is not ours; name a file that may be overwritten", field="env_file"
        )


def _write_env_file(path: Path, text: str) -> None:
    from mooring.errors import InvalidConfig

    try:
        path.touch(mode=0o600)
        path.write_text(text)
    except OSError as error:
        raise InvalidConfig(f"--env-file {path} cannot be written: {error.strerror}", field="env_file") from None


def _explanation(sandbox: Sandbox, use: str) -> str:
    return f"""
S3, STS         {sandbox.s3_url} (SeaweedFS; enforces policies)
EKS, ECR, IAM   {sandbox.aws_url} (moto; checks no credentials)
buckets         {", ".join(sandbox.buckets)}
clusters        {", ".join(sandbox.clusters)}
repositories    {", ".join(sandbox.repositories)}
role            {sandbox.role.arn}

In another terminal, {use}, and try:
  mooring service-connector register aws-demo --type aws --auto-configure

Credentials for the whole account (aws-generic) need the role here, for SeaweedFS refuses GetSessionToken:
  mooring service-connector register aws-role --type aws --auto-configure \\
      --role-arn {sandbox.role.arn}

Ctrl-C ends the sandbox and removes everything."""


def _say(text: str) -> None:
    click.echo(text, err=True)
