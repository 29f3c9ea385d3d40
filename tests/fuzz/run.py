"""Drives targets with random bytes: `python tests/fuzz/run.py [TARGET]... [--seconds N]`.

hypothesis makes each input out of the bytes (`fuzz_one_input`). What led somewhere new is kept and changed further; a
failing input is shrunk, and printed as hypothesis reports it. Exit code 1 if any target failed.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.database import InMemoryExampleDatabase
from targets import TARGETS, Target

LONGEST = 2048
"""Bytes of one input to begin with."""
KEPT = 400


def as_test(target: Target, heard: Callable[[str], Any], **options: Any) -> Callable[[], None]:
    """The target as a test of hypothesis; `heard` is told what became of each input."""

    @settings(deadline=None, suppress_health_check=list(HealthCheck), **options)
    @given(target.inputs)
    def test(value: Any) -> None:
        heard(target.check(value))

    return test


def changed(data: bytes, corpus: list[bytes], dice: random.Random) -> bytes:
    """A buffer with some bytes of it changed, taken out, or replaced by a part of another."""
    made = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        start = dice.randrange(len(made) + 1)
        end = min(len(made), start + dice.randint(0, 32))
        other = dice.choice(corpus) if corpus else b""
        cut = dice.randrange(len(other) + 1)
        made[start:end] = dice.choice([dice.randbytes(end - start), other[cut : cut + dice.randint(0, 64)], b"\0", b""])
    return bytes(made)


def fuzz(target: Target, seconds: float, dice: random.Random) -> tuple[int, set[str]]:
    """How many inputs were tried, and what became of them.

    Raises:
        AssertionError, or whatever came out of the parser: shrunk.
    """
    outcomes: set[str] = set()
    test = as_test(target, outcomes.add, database=InMemoryExampleDatabase(), phases=[Phase.reuse, Phase.shrink])
    for seed in target.seeds:
        outcomes.add(target.check(seed))
    one_input = test.hypothesis.fuzz_one_input  # type: ignore[attr-defined]
    corpus: list[bytes] = []
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        fresh = not corpus or dice.random() < 0.5
        data = dice.randbytes(dice.randint(1, LONGEST)) if fresh else changed(dice.choice(corpus), corpus, dice)
        before = len(outcomes)
        used, failed = None, None
        try:
            used = one_input(data)
        except Exception as error:  # noqa: BLE001  whatever a parser raises is what we look for
            failed = error
        if failed is not None:
            test()  # hypothesis has kept the input: this shrinks it, and raises
            raise failed
        count += 1
        if used and (len(outcomes) > before or (len(corpus) < KEPT and dice.random() < 0.02)):
            corpus.append(used)
    return count, outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=10, help="for each target")
    parser.add_argument("--seed", type=int, default=None, help="for the same inputs again")
    given = parser.parse_args()
    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; known: {', '.join(TARGETS)}")
    seed = int.from_bytes(os.urandom(4)) if given.seed is None else given.seed
    failed = []
    for name in given.targets or TARGETS:
        try:
            count, outcomes = fuzz(TARGETS[name], given.seconds, random.Random(f"{seed} {name}"))
        except Exception:  # noqa: BLE001
            failed.append(name)
            traceback.print_exc()
            print(f"{name}: FAILED; again with: --seed {seed} {name}", flush=True)
        else:
            print(f"{name}: {count} inputs, {len(outcomes)} outcomes", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
