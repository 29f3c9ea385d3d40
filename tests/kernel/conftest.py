"""What the tests of every room share: both event loops, and property tests that give the same result every time."""

import asyncio
from collections.abc import Callable

import hypothesis
import pytest
import sniffio
import trio

hypothesis.settings.register_profile("mooring", derandomize=True, deadline=None, database=None, max_examples=100)
hypothesis.settings.load_profile("mooring")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def count_tasks() -> Callable[[], int]:
    """How many tasks live in the running event loop."""

    def count() -> int:
        if sniffio.current_async_library() == "asyncio":
            return len(asyncio.all_tasks())
        return trio.lowlevel.current_statistics().tasks_living

    return count
