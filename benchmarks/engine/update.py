"""Applies gradients with every optimizer: by Table.apply, by the bare kernel, and in numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from benchmarks.harness.data import batches, generator, gradients, random_ids
from benchmarks.harness.measure import Contender, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from ps.arrays import Rows, Slots
from ps.config import Optimizer, TableConfig
from ps.kernels.updates.optim import update_rule
from ps.optimizers.registry import OPTIMIZERS
from ps.runtime.memory import ReservedArray
from ps.table.table import Table

SETTINGS: dict[str, dict[str, float]] = {"ftrl": {"l1": 0.001}}


def run(report: Report, sizes: Sizes) -> None:
    """Measures one optimizer after the other: with its state a table takes up to 1.5 GB, twice."""
    for name, entry in OPTIMIZERS.items():
        _optimizer(report, sizes, name, entry.config.model_validate({"kind": name, **SETTINGS.get(name, {})}))


def _optimizer(report: Report, sizes: Sizes, name: str, optimizer: Optimizer) -> None:
    rng = generator()
    config = TableConfig(name="t", dim=sizes.dim, optimizer=optimizer)
    rule = update_rule(optimizer, sizes.dim)
    in_numpy = NUMPY.get(name) or partial(_reference, optimizer)
    ids_N = random_ids(rng, sizes.rows)
    grads_ND = gradients(rng, sizes.batch, sizes.dim)
    table = Table(config)
    ones_N = np.ones(sizes.batch, np.uint32)
    for start in range(0, sizes.rows, sizes.batch):
        part_N = ids_N[start : start + sizes.batch]
        table.reserve.create_missing(part_N, table.find(part_N))
    arena = ReservedArray((sizes.dim + rule.state_width,), np.float32)
    arena.ensure(sizes.rows)
    rows_SW: Rows = arena.array[: sizes.rows]
    rows_SW[:] = 0.1
    ids = batches(rng, ids_N, sizes.batch)
    slots = batches(rng, np.arange(sizes.rows), sizes.batch)

    def found(turn: int) -> tuple[npt.NDArray[np.int64], Slots]:
        known_N = ids(turn)
        return known_N, table.find(known_N)

    rounds = interleave(
        sizes.rounds,
        {
            "table": Contender(
                lambda known: table.writes.plan_push(known[0], known[1], ones_N, [grads_ND]).carry_out(),
                found,
            ),
            "kernel": Contender(lambda slots_N: rule.update(rows_SW, slots_N, grads_ND, 1), slots),
            "numpy": Contender(lambda slots_N: in_numpy(rows_SW, slots_N, grads_ND, sizes.dim), slots),
        },
    )
    for way in rounds.seconds:
        report.add(name, f"{way}_rows_per_s", rounds.per_second(way, sizes.batch))
    report.add(name, "table_vs_kernel", rounds.speed_ratio("table", "kernel"))
    report.add(name, "table_vs_numpy", rounds.speed_ratio("table", "numpy"))
    table.close()
    arena.close()


# The same arithmetic as ps.kernels.updates.optim, with the constants' values left out: a fair amount of work, not a
# check.


def _reference(optimizer: Optimizer, rows_SW: Rows, slots_N: Slots, grads_ND: Rows, dim: int) -> None:
    """The update of an optimizer that is none of the below."""
    OPTIMIZERS[optimizer.kind].reference()(rows_SW, slots_N, grads_ND, *optimizer.arguments(1))


def _sgd(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, dim: int) -> None:
    rows_SW[slots_N] -= np.float32(0.01) * grads_ND


def _rowwise_adagrad(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, dim: int) -> None:
    row_NW = rows_SW[slots_N]
    row_NW[:, dim] += np.square(grads_ND).mean(axis=1)
    row_NW[:, :dim] -= (np.float32(0.01) / (np.sqrt(row_NW[:, dim]) + np.float32(1e-8)))[:, None] * grads_ND
    rows_SW[slots_N] = row_NW


def _adagrad(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, dim: int) -> None:
    row_NW = rows_SW[slots_N]
    row_NW[:, dim:] += np.square(grads_ND)
    row_NW[:, :dim] -= np.float32(0.01) * grads_ND / (np.sqrt(row_NW[:, dim:]) + np.float32(1e-10))
    rows_SW[slots_N] = row_NW


def _adam(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, dim: int) -> None:
    row_NW = rows_SW[slots_N]
    m_ND, v_ND = row_NW[:, dim : 2 * dim], row_NW[:, 2 * dim :]
    m_ND[:] = np.float32(0.9) * m_ND + np.float32(0.1) * grads_ND
    v_ND[:] = np.float32(0.999) * v_ND + np.float32(0.001) * np.square(grads_ND)
    row_NW[:, :dim] -= np.float32(0.001) * m_ND / (np.sqrt(v_ND) + np.float32(1e-8))
    rows_SW[slots_N] = row_NW


def _ftrl(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, dim: int) -> None:
    alpha, beta, l1 = np.float32(0.05), np.float32(1.0), np.float32(0.001)
    row_NW = rows_SW[slots_N]
    z_ND, n_ND = row_NW[:, dim : 2 * dim], row_NW[:, 2 * dim :]
    after_ND = n_ND + np.square(grads_ND)
    root_ND = np.sqrt(after_ND)
    z_ND += grads_ND - (root_ND - np.sqrt(n_ND)) / alpha * row_NW[:, :dim]
    n_ND[:] = after_ND
    shrunk_ND = np.sign(z_ND) * np.maximum(np.abs(z_ND) - l1, np.float32(0.0))
    row_NW[:, :dim] = -shrunk_ND / ((beta + root_ND) / alpha)
    rows_SW[slots_N] = row_NW


NUMPY: dict[str, Callable[[Rows, Slots, Rows, int], None]] = {
    "sgd": _sgd,
    "rowwise_adagrad": _rowwise_adagrad,
    "adagrad": _adagrad,
    "adam": _adam,
    "ftrl": _ftrl,
}
