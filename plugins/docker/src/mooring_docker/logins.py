"""Which connector serves which registry's logins: a small file of ours, without a secret. Imports little; see helper.

`login` writes it in its folder; `docker-credential-mooring` finds it below mooring's home.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import mooring as m

OURS = "mooring"
"""What our own helper is called in `credHelpers`."""
NOT_FOUND = "credentials not found in native keychain"
"""What a helper says when it has none, by the protocol."""

NAME = "docker.json"
FOLDER = Path("logins", "docker")
"""Below mooring's home: where `mooring login` lets this plugin keep what it must remember."""


def usual_file() -> Path:
    """Where the file is, unless a caller of `login` has named another folder.

    Raises:
        InvalidConfig: MOORING_HOME names a user who is not known.
    """
    home = os.environ.get("MOORING_HOME")
    if home:
        with suppress(RuntimeError):
            return Path(home).expanduser() / FOLDER / NAME
        raise m.InvalidConfig("the user whom MOORING_HOME names is not known; write its path out", field="MOORING_HOME")
    from platformdirs import user_data_path

    return user_data_path("mooring", appauthor=False) / FOLDER / NAME
