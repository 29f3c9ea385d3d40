"""The machine's own credentials, by botocore's chain: blocking work, in a thread left behind on cancellation."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.to_thread

import mooring as m
from mooring_aws.credentials import Keys
from mooring_aws.errors import translated
from mooring_aws.quiet import quiet


async def keys(profile: str | None) -> Keys:
    """The keys that the chain finds: environment, profile, SSO, container, instance."""

    def find() -> Keys:
        with quiet():
            return found_by(open_session(profile))[0]

    async def work() -> Keys:
        return await anyio.to_thread.run_sync(find, abandon_on_cancel=True)

    return await translated("finding the machine's credentials", work)


def open_session(profile: str | None) -> Any:
    """A botocore session of a profile, or of the machine's default."""
    import botocore.session

    return botocore.session.Session(profile=profile)


def found_by(session: Any) -> tuple[Keys, str]:
    """The keys that a session's chain finds, and the name of the provider that had them. Blocks."""
    from botocore.exceptions import NoCredentialsError

    # without this, botocore asks for an MFA code on the terminal, and waits
    session.get_component("credential_provider").get_provider("assume-role")._prompter = _unprompted  # noqa: SLF001
    found = session.get_credentials()
    if found is None:
        raise NoCredentialsError
    frozen = found.get_frozen_credentials()
    ends = getattr(
        found, "_expiry_time", None
    )  # botocore knows it where it would refresh them, and has no public name for it
    made = Keys(
        access_key_id=frozen.access_key,
        secret_access_key=m.Secret(frozen.secret_key),
        session_token=m.Secret(frozen.token) if frozen.token else None,
        expires_at=m.instant(ends) if ends is not None else None,
    )
    return made, str(found.method)


def _unprompted(_: str) -> str:
    from botocore.exceptions import RefreshWithMFAUnsupportedError

    raise RefreshWithMFAUnsupportedError
