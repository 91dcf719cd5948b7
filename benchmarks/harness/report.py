"""Reports figures as text or JSON, and says where and with what they were measured."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.harness.sizes import Sizes

REPOSITORY = Path(__file__).resolve().parents[2]


class Report:
    """Prints one line for each figure as soon as it is known."""

    def __init__(self, bench: str, as_json: bool) -> None:
        self._bench = bench
        self._as_json = as_json

    def add(self, case: str, metric: str, values: float | Sequence[float]) -> None:
        """Adds the median of the values; in the text form also the smallest and the largest."""
        several = [values] if isinstance(values, int | float) else list(values)
        median = statistics.median(several)
        if self._as_json:
            line = json.dumps({"bench": self._bench, "case": case, "metric": metric, "value": _rounded(median)})
        else:
            span = f"  {_shown(min(several))} .. {_shown(max(several))}" if len(several) > 1 else ""
            line = f"{self._bench:8} {case:26} {metric:34} {_shown(median):>14}{span}"
        print(line, flush=True)


def header(sizes: Sizes) -> dict[str, Any]:
    """Says where and with what the figures were measured."""
    return {
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "numba", "grpcio")},
        "sizes": asdict(sizes),
    }


def print_header(sizes: Sizes, as_json: bool) -> None:
    """Prints the header as text above the figures; with JSON it goes to stderr, so that every line of stdout is a
    figure."""
    found = header(sizes)
    if as_json:
        print(json.dumps(found), file=sys.stderr, flush=True)
        return
    for name, value in found.items():
        print(f"# {name}: {value}")
    print(f"# {'bench':6} {'case':26} {'metric':34} {'median':>14}  min .. max", flush=True)


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    found = git("rev-parse", "--short", "HEAD")
    return (found or "unknown") + (" with changes" if git("status", "--porcelain", "--", "ps") else "")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
