"""Measuring: whole processes and functions, always in turn with their yardstick, so that a slow moment hits both."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

UNCOMPILED = "PYTHONDONTWRITEBYTECODE"
"""With it, a source that was changed is compiled by every process; what is installed was compiled once."""


@dataclass(frozen=True)
class Figure:
    """One result: `value` in the budget's unit, and what it was computed from."""

    name: str
    value: float
    detail: str


@dataclass(frozen=True)
class Run:
    """One finished process."""

    wall: float
    """Seconds."""
    peak: float
    """MiB."""


def run(command: Sequence[str], environment: Mapping[str, str], given: bytes = b"") -> Run:
    """Run a command to its end, with these few bytes on stdin; it must succeed."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={name: value for name, value in os.environ.items() if name != UNCOMPILED} | dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    with suppress(BrokenPipeError):
        process.stdin.write(given)
        process.stdin.close()
    complaint = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with {process.returncode}: {complaint.decode()}")
    return Run(wall=wall, peak=usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2))


def against(
    command: Sequence[str],
    yardstick: Sequence[str],
    environment: Mapping[str, str],
    *,
    given: bytes = b"",
    runs: int = 15,
) -> tuple[float, list[Run], list[Run]]:
    """The median of the ratios of wall times, run by run in turn after one warm-up each; and all the runs."""
    run(command, environment, given)
    run(yardstick, environment)
    pairs = [(run(command, environment, given), run(yardstick, environment)) for _ in range(runs)]
    ours, theirs = [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
    return median(ours.wall / theirs.wall for ours, theirs in pairs), ours, theirs


def in_memory() -> dict[str, Any]:
    """What `open_broker` needs to leave nothing behind."""
    from mooring.assembly import Settings
    from mooring.store import MemoryStore
    from mooring.vault import Vault, parse_keys

    vault = Vault(parse_keys("bench:" + "A" * 43 + "=", "the benchmark"))
    settings = Settings(home=Path("/nonexistent"))
    return {"system_plugins": [], "store": MemoryStore(), "share_cache": False, "vault": vault, "settings": settings}


def cpu() -> float:
    """Seconds of CPU that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
