"""How long a start takes. Kernels are compiled already: the first start on a machine takes half a minute more."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

import ps
from benchmarks.harness.report import REPOSITORY, Report
from benchmarks.harness.service import one_shard
from benchmarks.harness.sizes import Sizes

IMPORTS = {"import_ps": "import ps", "import_connect": "from ps import connect"}
TIMED = "import time; started = time.perf_counter(); {}; print(time.perf_counter() - started)"


def run(report: Report, sizes: Sizes) -> None:
    """Measures fresh interpreters and fresh servers."""
    for case, statement in IMPORTS.items():
        report.add(case, "seconds", [_import_s(statement) for _ in range(sizes.starts + 1)][1:])
    _first_pull_s()  # kernels may have to be compiled
    report.add("to_first_pull", "seconds", [_first_pull_s() for _ in range(sizes.starts)])


def _import_s(statement: str) -> float:
    command = [sys.executable, "-c", TIMED.format(statement)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _first_pull_s() -> float:
    """Starts a process with a shard, connects, creates a table and pulls rows. This process has loaded the client
    already."""
    started = time.perf_counter()
    with one_shard() as (client, _):
        client.create_table(ps.TableConfig(name="t", dim=16))
        client.pull("t", np.arange(1_000))
        return time.perf_counter() - started
