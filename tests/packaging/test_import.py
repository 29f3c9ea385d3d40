"""What `import mooring` costs: every plugin's, and every command line's, first breath."""

import os
import sys
from datetime import timedelta

MOST = timedelta(milliseconds=60)
RUNS = 60


def cpu(code: str) -> timedelta:
    """What a fresh interpreter takes of the CPU, user's and system's time."""
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
    _, status, usage = os.wait4(child, 0)
    assert status == 0
    return timedelta(seconds=usage.ru_utime + usage.ru_stime)


def test_importing_mooring_takes_little_beside_starting_python() -> None:
    """By the least of several runs; a busy machine makes all of them dearer, and needs more of them to find it."""
    bare = min(cpu("pass") for _ in range(10))
    runs = (cpu("import mooring") - bare for _ in range(RUNS))

    assert any(more < MOST for more in runs)
