"""The ways in which `ttquality` makes large tables small: cores, and other uses of the same bytes."""

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
"""A relative error that nearly every fold keeps below: rows that are longer than what is left of them are rare."""


@dataclass(frozen=True)
class Way:
    """The way in which every id has a row of its own, in float32."""

    def source(self, problem: Problem, source: Source) -> Source:
        """Returns the stream to train on."""
        return source

    def table(self, large: LargeTable) -> dict[str, Any]:
        """Returns what is different in the configuration of a table."""
        return {}

    def dim(self, large: LargeTable) -> int:
        """Returns the floats of a row that the model sees."""
        return DIM

    def floats(self, large: LargeTable, stats: Mapping[str, Any]) -> float:
        """Returns the floats that the values of a table take at the end. `stats` are the shard's, for the table."""
        return DIM * large.ids


@dataclass(frozen=True)
class Cores(Way):
    """A tensor train with nothing to tune."""

    rank: int

    def table(self, large: LargeTable) -> dict[str, Any]:
        """Configures no rows beside the cores."""
        return {"cold": ps.TensorTrain(rows=large.rows, ranks=self.rank, index=large.index, hot_rows=0)}

    def floats(self, large: LargeTable, stats: Mapping[str, Any]) -> float:
        """Counts the cores, and the rows outside of them."""
        return float(stats["tensor_train"]["parameters"] + DIM * sum(stats["rows"].values()))


@dataclass(frozen=True)
class CoresAndHot(Cores):
    """Cores of a small rank, and beside them as many rows as fit into the bytes of the cores of `equal_rank`."""

    equal_rank: int

    def table(self, large: LargeTable) -> dict[str, Any]:
        """Folds rows that leave whatever the error, so that their number is bounded."""
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
    """Fewer rows, which ids share by their hashes, in the bytes of cores of the same rank."""

    equal_rank: int

    def source(self, problem: Problem, source: Source) -> Source:
        """Returns a stream whose ids are row numbers."""
        rows = {name: equal_rows(large, self.equal_rank) for name, large in problem.large.items()}
        hashed = {spec.name: partial(_hashed, rows=rows[spec.table]) for spec in source.features if spec.table in rows}
        return Renamed(source, hashed)

    def floats(self, large: LargeTable, stats: Mapping[str, Any]) -> float:
        """Counts all rows there could be."""
        return float(DIM * equal_rows(large, self.equal_rank))


@dataclass(frozen=True)
class Evicted(Way):
    """Rows for the more important ids only, in the bytes of cores of the same rank; other ids start again from their
    initial value when they come."""

    equal_rank: int

    def table(self, large: LargeTable) -> dict[str, Any]:
        """Bounds the number of rows."""
        return {"max_rows_per_shard": equal_rows(large, self.equal_rank)}

    def floats(self, large: LargeTable, stats: Mapping[str, Any]) -> float:
        """Counts the rows at the bound."""
        return float(DIM * equal_rows(large, self.equal_rank))


@dataclass(frozen=True)
class Short(Way):
    """A row of fewer floats for every id, and a learned matrix that makes DIM floats of it (Ginart et al. 2021)."""

    equal_rank: int

    def dim(self, large: LargeTable) -> int:
        """Returns the dim whose bytes are nearest to those of the cores of this rank."""
        return min(max(round(equal_rows(large, self.equal_rank) * DIM / large.ids), 1), DIM)

    def floats(self, large: LargeTable, stats: Mapping[str, Any]) -> float:
        """Counts the short rows."""
        return float(self.dim(large) * large.ids)


@dataclass(frozen=True)
class Half(Way):
    """A row of 16-bit floats for every id: half of the bytes, not as few as in the other ways."""

    def table(self, large: LargeTable) -> dict[str, Any]:
        """Makes all rows cold."""
        return {"cold": ps.Fp16(hot_fraction=0)}

    def floats(self, large: LargeTable, stats: Mapping[str, Any]) -> float:
        """Counts two halves as one float."""
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
    """A model that sees the rows of some features through a matrix each, from their first floats."""

    def __init__(self, model: nn.Module, source: Source, dims: Mapping[str, int]) -> None:
        """`dims` gives the number of floats by table."""
        super().__init__()
        self.model = model
        self._short = [(at, spec.table) for at, spec in enumerate(source.features) if dims.get(spec.table, DIM) < DIM]
        tables = {table for _, table in self._short}
        self.matrices = nn.ParameterDict({table: nn.Parameter(torch.eye(dims[table], DIM)) for table in sorted(tables)})

    def forward(self, dense: Tensor, pooled_BFD: Tensor) -> Tensor:
        """Projects the rows, then runs the model."""
        columns = list(pooled_BFD.unbind(1))
        for at, table in self._short:
            matrix = self.matrices[table]
            columns[at] = columns[at][:, : len(matrix)] @ matrix
        logits: Tensor = self.model(dense, torch.stack(columns, 1))
        return logits


def equal_rows(large: LargeTable, rank: int) -> int:
    """Returns how many float32 rows fit into the bytes of cores of this rank; at most one an id."""
    return min(max(parameters(large, rank) // DIM, 1), large.ids)


def parameters(large: LargeTable, rank: int) -> int:
    """Counts the floats of the cores of a table."""
    return tt_shape(large.rows, DIM, rank).parameters


def _hashed(ids_N: np.ndarray, rows: int) -> np.ndarray:
    hashes_N = np.empty(len(ids_N), np.uint64)
    hash_ids(np.ascontiguousarray(ids_N), hashes_N)
    return (hashes_N % np.uint64(rows)).astype(np.int64)
