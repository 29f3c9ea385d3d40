"""Runs every benchmark, prints each figure beside its budget, and fails if one is over it.

python benchmarks/compare.py            all of them
python benchmarks/compare.py kernel     those of bench_kernel.py
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from measure import Figure

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    """Print the table; the exit code is the number of figures over their budget."""
    budgets = tomllib.loads((HERE / "budgets.toml").read_text())
    over = 0
    print(f"{'benchmark':<28} {'measured':>10} {'at most':>10}   against")
    for figure in _figures(names):
        budget = budgets[figure.name]
        failed = figure.value > budget["most"]
        over += failed
        unit = budget["unit"]
        against = f"{budget['yardstick']}: {figure.detail}" if "yardstick" in budget else figure.detail
        print(
            f"{figure.name:<28} {figure.value:>7.2f} {unit:<3}{budget['most']:>7.2f} {unit:<3}  {against}"
            + ("   OVER BUDGET" if failed else ""),
            flush=True,
        )
    return over


def _figures(names: list[str]) -> Iterator[Figure]:
    for path in sorted(HERE.glob("bench_*.py")):
        if not names or path.stem.removeprefix("bench_") in names:
            yield from import_module(path.stem).figures()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
