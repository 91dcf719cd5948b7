"""Decides which ids get a row. At a push it is asked about the ids without a row; it has no rows itself.

A decision depends on logged state alone: what was pushed before, and by how many pushes. `admits` changes nothing, and
`refuse` cannot fail, so a push that fails in between leaves no trace.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ps.arrays import Counts, Flags, Ids
from ps.config import Always, CountThreshold, Probability, TableConfig
from ps.kept import KeepsNothing, Kept, KeptState, overwrite
from ps.kernels.ranking import admission, score


class Gate(Kept, Protocol):
    """One table's admission. Every table has one."""

    nbytes: int
    """Bytes of RAM that the gate takes."""

    def admits(self, ids_N: Ids, counts_N: Counts, push: int) -> Flags:
        """Returns which ids get a row with push number `push` of the table, bool [N]. counts_N: how often each id
        occurs in it."""

    def refuse(self, ids_N: Ids, counts_N: Counts) -> None:
        """Notes that the push was applied and that these ids got no row."""

    def tick(self, now: int) -> None:
        """Tells the gate that the table's clock shows `now`."""


def gate_of(config: TableConfig, seed: int) -> Gate:
    """Returns the gate that the configuration asks for. seed: that of the table's rows."""
    match config.admission:
        case CountThreshold(min_count=min_count, cells=cells):
            return SketchGate(min_count, cells)
        case Probability(p=p):
            return LotteryGate(p, seed)
        case Always():
            return OpenGate()


def sketch_bytes(cells: int) -> int:
    """Returns the bytes of a sketch of at least so many cells."""
    return 2 * int(np.prod(_sketch_shape(cells)))


def gate_bytes(config: TableConfig) -> int:
    """Returns the bytes of the gate that the configuration asks for."""
    return sketch_bytes(config.admission.cells) if isinstance(config.admission, CountThreshold) else 0


def _sketch_shape(cells: int) -> tuple[int, int, int]:
    """Returns the shape of a sketch: blocks that are halved one after the other, each with rows of cells."""
    return score.HALF_LIFE, admission.ROWS, 1 << (-(-cells // score.HALF_LIFE) - 1).bit_length()


class OpenGate(KeepsNothing):
    """Admits every id."""

    nbytes = 0

    def admits(self, ids_N: Ids, counts_N: Counts, push: int) -> Flags:
        """Returns True for each id."""
        return np.ones(len(ids_N), np.bool_)

    def refuse(self, ids_N: Ids, counts_N: Counts) -> None:
        """Does nothing: the only ids that get no row are those that came without a gradient."""

    def tick(self, now: int) -> None:
        """Does nothing: this gate has no counts."""


class SketchGate:
    """Admits ids that have occurred often enough."""

    def __init__(self, min_count: int, cells: int) -> None:
        self._min_count = min_count
        self._cells_BRC = np.full(_sketch_shape(cells), 0, np.uint16)  # written: taken now, not when ids come
        self._now = 0
        self.nbytes = self._cells_BRC.nbytes

    def admits(self, ids_N: Ids, counts_N: Counts, push: int) -> Flags:
        """Returns which ids have occurred `min_count` times with this push."""
        return self.counts(ids_N).astype(np.int64) + counts_N >= self._min_count

    def counts(self, ids_N: Ids) -> Counts:
        """Returns about how often each id has occurred before."""
        before_N = np.empty(len(ids_N), np.uint32)
        admission.estimate(self._cells_BRC, ids_N, before_N)
        return before_N

    def refuse(self, ids_N: Ids, counts_N: Counts) -> None:
        """Counts these ids."""
        admission.add(self._cells_BRC, ids_N, counts_N)

    def tick(self, now: int) -> None:
        """Halves one block of cells at a tick: each block once in a half-life, never all at the same time."""
        for tick in range(self._now, now):
            self._cells_BRC[tick % len(self._cells_BRC)] >>= 1
        self._now = now

    def state(self) -> KeptState:
        """See `ps.kept`."""
        return {"cells_BRC": self._cells_BRC, "now": self._now}

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        overwrite(self._cells_BRC, state["cells_BRC"])
        self._now = state["now"]


class LotteryGate(KeepsNothing):
    """Admits ids at random: by f(seed, push, id)."""

    nbytes = 0

    def __init__(self, p: float, seed: int) -> None:
        self._p = p
        self._seed = seed

    def admits(self, ids_N: Ids, counts_N: Counts, push: int) -> Flags:
        """Returns which ids are drawn: a share p, however often they occur."""
        drawn_N = np.empty(len(ids_N), np.uint64)
        key_1 = np.empty(1, np.uint64)
        admission.draw(np.uint64(self._seed), np.array([push]), key_1)
        admission.draw(key_1[0], ids_N, drawn_N)
        return (drawn_N >> np.uint64(11)).astype(np.float64) * 2.0**-53 < self._p

    def refuse(self, ids_N: Ids, counts_N: Counts) -> None:
        """Does nothing: ids that were refused are not remembered."""

    def tick(self, now: int) -> None:
        """Does nothing: this gate has no counts."""
