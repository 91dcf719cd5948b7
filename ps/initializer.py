"""What an id reads as before its first push: f(seed, table, id), a pure function.

The arithmetic is `ps.kernels.rows.init`; this module turns a table's configuration into the kernel's arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from ps.config import Constant, Normal, TableConfig, Uniform
from ps.kernels.rows.init import CONSTANT, NORMAL, UNIFORM, init_rows
from ps.kernels.rows.rows import gather_or_init


@dataclass(frozen=True)
class RowInitializer:
    """The kernel's arguments for one table."""

    seed: np.uint64
    kind: int
    a: np.float32
    b: np.float32

    @classmethod
    def of(cls, config: TableConfig) -> RowInitializer:
        """The table's name is mixed into its seed: two tables of one seed differ."""
        seed = np.uint64(xxhash.xxh3_64_intdigest(config.name.encode(), seed=config.seed))
        match config.initializer:
            case Uniform(low=low, high=high):
                kind, a, b = UNIFORM, low, high
            case Normal(mean=mean, std=std):
                kind, a, b = NORMAL, mean, std
            case Constant(value=value):
                kind, a, b = CONSTANT, value, 0.0
        return cls(seed, kind, np.float32(a), np.float32(b))

    def fill(self, ids_N: npt.NDArray[np.int64], out_ND: npt.NDArray[np.float32]) -> None:
        """Writes the initial value of each id."""
        init_rows(ids_N, self.seed, self.kind, self.a, self.b, out_ND)

    def gather(
        self,
        rows_SW: npt.NDArray[np.float32],
        slots_N: npt.NDArray[np.int64],
        ids_N: npt.NDArray[np.int64],
        out_ND: npt.NDArray[np.float32],
    ) -> None:
        """Copies the value of each slot; where the slot is -1, the initial value of the id."""
        gather_or_init(rows_SW, slots_N, ids_N, self.seed, self.kind, self.a, self.b, out_ND)
