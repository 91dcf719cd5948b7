"""The cores of a tensor-train table: they give the value of every id without a row of its own, and take its gradient.

It is not a store of rows: ids share slices of the cores (`ps.tensor_train`), so one write moves the neighbours. Every
id has a value here. Used by the engine thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids, Rows, Slots
from ps.config import Constant, Normal, TableConfig, TensorTrain, Uniform
from ps.initializer import RowInitializer
from ps.kept import KeptState, joined, restored
from ps.kernels.index.hashing import hash_ids
from ps.kernels.rows.rows import gather
from ps.kernels.updates.optim import UpdateRule, update_rule
from ps.policy import lifting
from ps.storage.budget.budget import RamBudget
from ps.storage.budget.slots import SLOT_BYTES
from ps.tensor_train.contract import Share
from ps.tensor_train.cores import Cores
from ps.tensor_train.fold import fold
from ps.tensor_train.initial import initial_cores
from ps.tensor_train.rates import core_rules
from ps.tensor_train.shape import TTShape, tt_shape

FOLD_WORK = 1 << 24
"""How many multiplications folding may take in one go: some milliseconds."""
PASSES = 16
"""How many passes through the cores folding a row takes, forward and backward."""


class ColdCores:
    """The cores of one table on one shard. Room is reserved for them at once; they can be used when they are drawn."""

    def __init__(
        self, config: TableConfig, cold: TensorTrain, state_width: int, share: Share, budget: RamBudget
    ) -> None:
        """state_width: of rows of their own. Raises ResourceExhausted if such rows and the cores do not fit into
        RAM."""
        self._config = config
        self.shape = shape_of(config.dim, cold)
        self._name, self._cold, self._share, self._budget = config.name, cold, share, budget
        self._held = cores_bytes(config, cold)
        own = int(lifting.MOST * cold.hot_rows) * (4 * (config.dim + state_width) + SLOT_BYTES)
        what = f"the cores of table {config.name} and its hot_rows"
        budget.hold(self._held, own, what, "raise it, or lower hot_rows or ranks")
        self._drawn: Cores | None = None

    def draw(self) -> None:
        """Makes the cores, which takes a tenth of a microsecond for each of their numbers. Any thread; once."""
        seed = int(RowInitializer.of(self._config).seed)
        arrays = initial_cores(self.shape, _variance(self._config), self._cold.initializer, seed)
        self._drawn = Cores(self.shape, arrays, _rules(self._config))

    @property
    def _cores(self) -> Cores:
        assert self._drawn is not None, "they are drawn first"
        return self._drawn

    @property
    def nbytes(self) -> int:
        """Bytes of cores, state and buffers."""
        return self._cores.nbytes

    @property
    def rows_at_once(self) -> int:
        """How many rows may be folded in one go."""
        before, r, b, s = self._widths
        return max(FOLD_WORK // (PASSES * (before * r * b * s + self.shape.dim * s)), 16)

    def check(self, ids_N: Ids) -> None:
        """Raises InvalidArgument for ids for which the cores have no row."""
        if len(ids_N):
            self._cold.check_ids(self._name, int(ids_N.min()), int(ids_N.max()))

    def fill(self, ids_N: Ids, out_ND: Rows) -> None:
        """Writes the values of the ids. `out` may be part of wider rows."""
        found_ND = np.empty(out_ND.shape, np.float32)
        self._cores.lookup(self._index(ids_N), found_ND, self._share)
        out_ND[:] = found_ND

    def gather(
        self, rows_SW: npt.NDArray[np.float32], slots_N: Slots, ids_N: Ids, out_ND: npt.NDArray[np.float32]
    ) -> None:
        """Copies the value of each slot; where the slot is -1, the cores' value of the id."""
        gather(rows_SW, slots_N, out_ND)
        cold_N = np.flatnonzero(slots_N < 0)
        if len(cold_N) == len(ids_N):
            self._cores.lookup(self._index(ids_N), out_ND, self._share)
        elif len(cold_N):
            found_ND = np.empty((len(cold_N), out_ND.shape[1]), np.float32)
            self._cores.lookup(self._index(ids_N[cold_N]), found_ND, self._share)
            out_ND[cold_N] = found_ND

    def apply(self, ids_N: Ids, grads_ND: Rows, step: int) -> int:
        """Trains the cores by the gradients of these ids; `step` is the optimizer's. Returns how many slices of them
        may not be finite afterwards."""
        return self._cores.apply(self._index(ids_N), grads_ND, self._share, step)

    def plan_optimizer(self, config: TableConfig) -> Callable[[], None]:
        """Plans to train the cores as this configuration says."""
        return partial(self._cores.train_with, _rules(config))

    def fold(self, ids_N: Ids, rows_ND: Rows) -> npt.NDArray[np.float64]:
        """Moves the cores towards values of these ids; returns the error of each after that, relative to its length."""
        return fold(self._cores, self._index(ids_N), rows_ND, self._cold.fold_tolerance)

    def state(self) -> KeptState:
        """See `ps.kept`."""
        return joined({"drawn": self._cores})

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        restored({"drawn": self._cores}, state)

    def stats(self) -> dict[str, object]:
        """Returns how many rows the cores have, and how they are factored."""
        return {
            "rows": self.shape.rows,
            "padding": self.shape.padding,
            "p": self.shape.p,
            "q": self.shape.q,
            "ranks": self.shape.ranks,
            "parameters": self.shape.parameters,
            "compression": self.shape.compression,
        }

    def close(self) -> None:
        """Gives the memory back."""
        self._budget.let_go(self._held)
        self._drawn = None

    @property
    def _widths(self) -> tuple[int, int, int, int]:
        (_, r, b, s), (_, _, c, _) = self.shape.cores[-2:]
        return self.shape.dim // (b * c), r, b, s

    def _index(self, ids_N: Ids) -> Ids:
        """Returns the row numbers of ids. They do not use the hash's top bits, which decide an id's partition."""
        if self._cold.index == "dense":
            return ids_N
        hashes_N = np.empty(len(ids_N), np.uint64)
        hash_ids(ids_N, hashes_N)
        return (hashes_N % np.uint64(self._cold.rows)).astype(np.int64)


def cores_of(config: TableConfig, share: Share, budget: RamBudget) -> ColdCores:
    """Returns a tensor-train table's cores, which must still be drawn. Raises ResourceExhausted, and holds nothing
    then."""
    assert isinstance(config.cold, TensorTrain)
    state_width = update_rule(config.optimizer, config.dim).state_width
    return ColdCores(config, config.cold, state_width, share, budget)


def cores_bytes(config: TableConfig, cold: TensorTrain) -> int:
    """Returns the bytes that the cores of a table take on one shard: slices with their state, and as much twice for
    gradients under way."""
    shape = shape_of(config.dim, cold)
    parts = zip(shape.p, shape.slice_sizes, _rules(config), strict=True)
    return sum(4 * (3 * p * (size + rule.state_width)) for p, size, rule in parts)


def _rules(config: TableConfig) -> list[UpdateRule]:
    """Returns the update rule for the slices of each core."""
    cold = config.cold
    assert isinstance(cold, TensorTrain), "only such tables have cores"
    optimizer = cold.optimizer or config.optimizer
    return core_rules(optimizer, shape_of(config.dim, cold))


def shape_of(dim: int, cold: TensorTrain) -> TTShape:
    """Returns how a table's cores are factored."""
    return tt_shape(cold.rows, dim, cold.ranks, cold.cores, cold.p_shapes, cold.q_shapes)


def _variance(config: TableConfig) -> float:
    """Returns the variance of the rows that a table without cores would begin with."""
    match config.initializer:
        case Uniform(low=low, high=high):
            return (high - low) ** 2 / 12
        case Normal(std=std):
            return std**2
        case Constant():
            raise AssertionError("refused by TableConfig")
