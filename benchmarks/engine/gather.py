"""Reads rows by id, to show what the engine adds to a bare gather of the same rows."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from benchmarks.harness.data import batches, generator, random_ids
from benchmarks.harness.measure import Contender, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from ps.arrays import Rows
from ps.config import RowwiseAdagrad, TableConfig
from ps.kernels.rows import rows
from ps.runtime.memory import ReservedArray
from ps.table.table import Table
from ps.wire.allocator import keep_freed_memory


def run(report: Report, sizes: Sizes) -> None:
    """Reads one batch of random rows with each contender, into the same kind of reused buffer, on one thread."""
    keep_freed_memory()  # as in a shard's process
    rng = generator()
    ids_N = random_ids(rng, sizes.rows)
    table = Table(TableConfig(name="t", dim=sizes.dim, optimizer=RowwiseAdagrad()))
    for start in range(0, sizes.rows, sizes.batch):
        part_N = ids_N[start : start + sizes.batch]
        table.reserve.create_missing(part_N, table.find(part_N))

    arena = ReservedArray((sizes.dim,), np.float32)
    arena.ensure(sizes.rows)
    rows_SD = arena.array[: sizes.rows]
    rows_SD[:] = 1.0
    out_ND = np.ones((sizes.batch, sizes.dim), np.float32)
    ids = batches(rng, ids_N, sizes.batch)
    slots = batches(rng, np.arange(sizes.rows), sizes.batch)

    contenders = {
        "raw": Contender(lambda slots_N: rows.gather(rows_SD, slots_N, out_ND), slots),
        "engine": Contender(lambda part_N: table.lookup(part_N, table.find(part_N), out_ND), ids),
        "engine_find_only": Contender(table.find, ids),
        "engine_slots_known": Contender(
            lambda known: table.lookup(known[0], known[1], out_ND),
            lambda turn: (ids(turn), table.find(ids(turn))),
        ),
        "numpy_fancy": Contender(lambda slots_N: rows_SD[slots_N], slots),
        "numpy_take": Contender(lambda slots_N: np.take(rows_SD, slots_N, axis=0, out=out_ND, mode="clip"), slots),
    }
    if importlib.util.find_spec("torch"):
        contenders["torch_index_select"] = Contender(_torch_select(rows_SD, out_ND), slots)
    rounds = interleave(sizes.rounds, contenders)
    for name in contenders:
        report.add(name, "rows_per_s", rounds.per_second(name, sizes.batch))
    for name in contenders:
        if name not in ("raw", "engine_find_only"):
            kind = "lookup" if name.startswith("engine") else "peer"
            report.add(name, f"{kind}_vs_raw", rounds.speed_ratio(name, "raw"))
    table.close()
    arena.close()


def _torch_select(rows_SD: Rows, out_ND: Rows) -> Callable[[npt.NDArray[np.int64]], object]:
    import torch

    torch.set_num_threads(1)
    source, out = torch.from_numpy(rows_SD), torch.from_numpy(out_ND)
    return lambda slots_N: torch.index_select(source, 0, torch.from_numpy(slots_N), out=out)
