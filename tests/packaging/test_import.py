"""What `import mooring` costs: every plugin's, and every command line's, first breath."""

import os
import sys
from datetime import timedelta

MOST = timedelta(milliseconds=60)
RUNS = 15


def cpu(code: str) -> timedelta:
    """What a fresh interpreter takes, user's and system's time: the least of several runs, disturbed least."""

    def once() -> float:
        child = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
        _, status, usage = os.wait4(child, 0)
        assert status == 0
        return usage.ru_utime + usage.ru_stime

    return timedelta(seconds=min(once() for _ in range(RUNS)))


def test_importing_mooring_takes_little_beside_starting_python() -> None:
    assert cpu("import mooring") - cpu("pass") < MOST
