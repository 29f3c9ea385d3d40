"""A pytest fixture for tests that need a cloud.

In the topmost conftest.py `pytest_plugins = ["mooring_sandbox.testing"]`, or in any conftest.py
`from mooring_sandbox.testing import sandbox`; however often, there is one sandbox in a test run.
"""

from __future__ import annotations

import pytest

from mooring_sandbox.cloud import Sandbox
from mooring_sandbox.seaweed import NoSeaweed

RUNNING = pytest.StashKey[Sandbox]()


@pytest.fixture(scope="session")
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """A sandbox for the whole run. Tests that change what is in it clean up after themselves."""
    stash = request.config.stash
    if RUNNING not in stash:
        cloud = Sandbox()
        try:
            cloud.start()
        except NoSeaweed as error:
            pytest.skip(str(error))
        request.config.add_cleanup(cloud.stop)
        stash[RUNNING] = cloud
    return stash[RUNNING]
