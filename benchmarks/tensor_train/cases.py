"""How `ttquality` makes large tables small: cores, and what else the same bytes could be spent on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import ps
from benchmarks.tensor_train.problems import LargeTable, Problem, Renamed
from ps.kernels.index.hashing import hash_ids
from ps.policy.lifting import MOST
from ps.tensor_train.shape import tt_shape
from worker.data.source import Source

DIM = 16
RANKS = (8, 16, 32, 64)
WHATEVER = 5.0
"""Relative error of a fold: rows that are longer than what is left of them are rare."""


@dataclass(frozen=True)
class Way:
    """Every id has a row of its own, in float32."""

    def source(self, problem: Problem, source: Source) -> Source:
        """What is trained on."""
        return source

    def table(self, large: LargeTable) -> dict[str, Any]:
        """What is different in the configuration of a table."""
        return {}

    def dim(self, large: LargeTable) -> int:
        """Floats of a row that the model sees."""
        return DIM

    def floats(self, large: LargeTable, stats: Mapping[str, Any]) -> float:
        """That the values of a table take at the end. `stats`: the shard's, of the table."""
        return DIM * large.ids


@dataclass(frozen=True)
class Cores(Way):
    """A tensor train with nothing to tune."""

    rank: int

    def table(self, large: LargeTable) -> dict[str, Any]:
        """No rows beside the cores."""
        return {"cold": ps.TensorTrain(rows=large.rows, ranks=self.rank, index=large.index, hot_rows=0)}

    def floats(self, large: LargeTable, stats: Mapping[str, Any]) -> float:
        """Cores, and rows outside of them."""
        return float(stats["tensor_train"]["parameters"] + DIM * sum(stats["rows"].values()))


@dataclass(frozen=True)
class CoresAndHot(Cores):
    """Beside cores of a small rank, as many rows as the bytes of those of `equal_rank` allow."""

    equal_rank: int

    def table(self, large: LargeTable) -> dict[str, Any]:
        """Rows that leave are folded whatever the error, so that their number is bounded."""
        left = max(equal_rows(large, self.equal_rank) * DIM - parameters(large, self.rank), 0)
        return {
            "cold": ps.TensorTrain(
                rows=large.rows,
                ranks=self.rank,
                index=large.index,
                hot_rows=int(left / DIM / MOST),
                fold_tolerance=WHATEVER,
            )
        }


@dataclass(frozen=True)
class Hashed(Way):
    """Ids share fewer rows by their hashes, in the bytes of cores of that rank."""

    equal_rank: int

    def source(self, problem: Problem, source: Source) -> Source:
        """Whose ids are row numbers."""
        rows = {name: equal_rows(large, self.equal_rank) for name, large in problem.large.items()}
        hashed = {spec.name: partial(_hashed, rows=rows[spec.table]) for spec in source.features if spec.table in rows}
        return Renamed(source, hashed)

    def floats(self, large: LargeTable, stats: Mapping[str, Any]) -> float:
        """All rows there could be."""
        return float(DIM * equal_rows(large, self.equal_rank))


@dataclass(frozen=True)
class Evicted(Way):
    """Only the more important ids have rows, in the bytes of cores of that rank; others begin anew when they come."""

    equal_rank: int

    def table(self, large: LargeTable) -> dict[str, Any]:
        """Bounded."""
        return {"max_rows_per_shard": equal_rows(large, self.equal_rank)}

    def floats(self, large: LargeTable, stats: Mapping[str, Any]) -> float:
        """The bound."""
        return float(DIM * equal_rows(large, self.equal_rank))


@dataclass(frozen=True)
class Short(Way):
    """Every id has a row, of fewer floats; a matrix that is learned makes DIM of them (Ginart et al. 2021)."""

    equal_rank: int

    def dim(self, large: LargeTable) -> int:
        """As near to the bytes of cores of that rank as a whole number is."""
        return min(max(round(equal_rows(large, self.equal_rank) * DIM / large.ids), 1), DIM)

    def floats(self, large: LargeTable, stats: Mapping[str, Any]) -> float:
        """Of the short rows."""
        return float(self.dim(large) * large.ids)


@dataclass(frozen=True)
class Half(Way):
    """Every id has a row, in 16 bits: half of the bytes, not those of the others."""

    def table(self, large: LargeTable) -> dict[str, Any]:
        """All rows are cold."""
        return {"cold": ps.Fp16(hot_fraction=0)}

    def floats(self, large: LargeTable, stats: Mapping[str, Any]) -> float:
        """Two halves are one."""
        return DIM * large.ids / 2


WAYS: dict[str, Way] = {
    **{f"rank{rank}": Cores(rank) for rank in RANKS},
    "rank8_hot": CoresAndHot(8, equal_rank=32),
    "hashed_as_rank32": Hashed(32),
    "evicted_as_rank32": Evicted(32),
    "short_as_rank32": Short(32),
    "hashed_as_rank8": Hashed(8),
    "fp16": Half(),
}


class Projected(nn.Module):
    """A model that sees rows of some features through a matrix each, from their first floats."""

    def __init__(self, model: nn.Module, source: Source, dims: Mapping[str, int]) -> None:
        """`dims`: by table, how many."""
        super().__init__()
        self.model = model
        self._short = [(at, spec.table) for at, spec in enumerate(source.features) if dims.get(spec.table, DIM) < DIM]
        tables = {table for _, table in self._short}
        self.matrices = nn.ParameterDict({table: nn.Parameter(torch.eye(dims[table], DIM)) for table in sorted(tables)})

    def forward(self, dense: Tensor, pooled_BFD: Tensor) -> Tensor:
        """As the model's."""
        columns = list(pooled_BFD.unbind(1))
        for at, table in self._short:
            matrix = self.matrices[table]
            columns[at] = columns[at][:, : len(matrix)] @ matrix
        logits: Tensor = self.model(dense, torch.stack(columns, 1))
        return logits


def equal_rows(large: LargeTable, rank: int) -> int:
    """Rows of float32 that take the bytes of cores of this rank; at most one an id."""
    return min(max(parameters(large, rank) // DIM, 1), large.ids)


def parameters(large: LargeTable, rank: int) -> int:
    """Floats of the cores of a table."""
    return tt_shape(large.rows, DIM, rank).parameters


def _hashed(ids_N: np.ndarray, rows: int) -> np.ndarray:
    hashes_N = np.empty(len(ids_N), np.uint64)
    hash_ids(np.ascontiguousarray(ids_N), hashes_N)
    return (hashes_N % np.uint64(rows)).astype(np.int64)
