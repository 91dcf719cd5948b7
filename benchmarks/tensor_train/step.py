"""Compares whole training steps with a table of cores and hot rows with the same steps with a table of dense rows.

All is in RAM, there is no disk, and batches are prepared ahead as by default; see `benchmarks.quality.training`. A part
of `ttspeed`.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

import ps
from benchmarks.harness.measure import Contender, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from benchmarks.quality.training import BATCH, STEPS, TABLE, Training, fill, source_of

CASE = "step"
RANK = 32
HOT_SHARE = 1 / 50
"""The share of the ids that have rows of their own. The most frequent ids of `worker.data.skew`, 136,000 of the
8,000,000, fit."""


def run(report: Report, sizes: Sizes) -> None:
    """Trains 2 * `swap_rows` ids in one table; a round is STEPS batches for each of the two."""
    torch.set_num_threads(1)
    ids = 2 * sizes.swap_rows
    cold = ps.TensorTrain(rows=ids, ranks=RANK, hot_rows=round(ids * HOT_SHARE))
    tables = {
        name: ps.TableConfig(name=TABLE, dim=sizes.dim, swap_fraction=0, cold=kind)
        for name, kind in (("tensor_train", cold), ("dense", None))
    }
    with ExitStack() as stack:
        runs = {
            name: stack.enter_context(
                Training(ps.ServiceConfig(watching=ps.WatchingConfig(metrics=False)), table, source_of(sizes), "auto")
            )
            for name, table in tables.items()
        }
        # The dense table first: it says when enough ids have been seen.
        fill([runs[name].client for name in ("dense", "tensor_train")], source_of(sizes), sizes)
        before = _table(runs["tensor_train"])
        rounds = interleave(sizes.rounds, {name: Contender(run.train) for name, run in runs.items()})
        for name in runs:
            report.add(CASE, f"{name}_samples_per_s", rounds.per_second(name, STEPS * BATCH))
        report.add(CASE, "step_time_vs_dense", rounds.time_share("tensor_train", "dense"))
        report.add(CASE, "share_in_cores", [_share_in_cores(before, _table(runs["tensor_train"]))])
        used = {name: _bytes(run) for name, run in runs.items()}
        report.add(CASE, "ram_bytes_vs_dense", [used["tensor_train"] / used["dense"]])


def _table(run: Training) -> dict[str, Any]:
    found: dict[str, Any] = run.shard()["tables"][TABLE]
    return found


def _share_in_cores(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Returns the share of the batches' unique ids whose gradients went to the cores."""
    cores, rows = (after[name] - before[name] for name in ("rows_in_cores", "rows_updated"))
    return float(cores / (cores + rows))


def _bytes(run: Training) -> float:
    """Returns the bytes of RAM that the table takes, over its tiers."""
    tiers = run.client.memory_usage()["tables"][TABLE]
    return float(sum(sum(purposes.values()) for tier, purposes in tiers.items() if tier != "disk"))
