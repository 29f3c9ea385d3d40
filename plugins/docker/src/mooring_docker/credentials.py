"""What is issued for one repository: a token of the registry's token server."""

from __future__ import annotations

from typing import Literal

import mooring as m


class RegistryToken(m.Credentials, kw_only=True, tag="registry-token"):
    """A bearer token for a container registry, as its token server makes them.

    Clients take it as `registrytoken` of Docker's configuration and of `X-Registry-Auth`, or as skopeo's
    `--registry-token`; it is no password, and what can only log in with one cannot use it.
    """

    registry: str
    """Host, with the port if it has one, as image references begin."""
    repository: str | None
    """The one repository that it is good for, if it is narrowed to one."""
    token: m.Secret
    actions: tuple[Literal["pull", "push"], ...] = ("pull",)
