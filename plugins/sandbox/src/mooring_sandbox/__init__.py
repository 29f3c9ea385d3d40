"""A small real cloud on loopback: SeaweedFS (S3 and STS, enforcing session policies) and moto (EKS, ECR, IAM).

`plugin` adds the commands `mooring sandbox up` and `mooring sandbox demo`. In tests and tools:

    from mooring_sandbox.cloud import Sandbox

    with Sandbox() as sandbox:
        subprocess.run(["aws", "s3", "ls"], env=sandbox.child_environment())

The pytest fixture `sandbox` is in `mooring_sandbox.testing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mooring.hookspecs import hookimpl

if TYPE_CHECKING:
    import click


class SandboxPlugin:
    """The system plugin; what runs is imported when a command runs."""

    @hookimpl
    def commands(self, cli: click.Group) -> None:
        """Add the group `sandbox`."""
        from mooring_sandbox.commands import group

        cli.add_command(group)


plugin = SandboxPlugin()
