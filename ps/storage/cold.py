"""The cold tier of kind fp16: rows in RAM, 16 bits an element, trained in place.

An arena of uint16, laid out by `ps.storage.half_layout`. An update widens rows block by block into float32, runs the
optimizer's own kernel there, and rounds back stochastically (`ps.kernels.half`). What comes out depends on the row, its
gradient, seed, push and id alone: not on the slot, the order, or how a push is cut into updates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.kernels.half import gather_half, narrow, narrow_stochastic, widen
from ps.optim import UpdateRule
from ps.storage.arena import Arena, Slots
from ps.storage.half_layout import HalfLayout
from ps.storage.tier import Ids

BLOCK_BYTES = 256 << 10
"""Rows widened at a time: with their gradients they stay in a core's second cache."""

Rows = npt.NDArray[np.float32]


class ColdTier(Arena):
    """Rows by id, in half precision."""

    def __init__(self, layout: HalfLayout) -> None:
        super().__init__(layout.items, np.uint16)
        self.layout = layout

    def gather(self, slots_N: Slots, out_ND: Rows) -> None:
        """out[i] = the value in slot slots[i]; slot -1 leaves out[i] as it is."""
        gather_half(self.rows_SW, slots_N, out_ND)

    def assign(self, slots_N: Slots, values_ND: Rows) -> None:
        """Sets values, rounded to nearest; slot -1 is skipped. State stays."""
        narrow(values_ND, slots_N, self.rows_SW, self.layout.dim, 0)

    def update(
        self, slots_N: Slots, ids_N: Ids, grads_ND: Rows, step: int, push: int, rule: UpdateRule, seed: np.uint64
    ) -> None:
        """One push's gradients for rows in unique slots, `ids_N` being theirs.

        `rule` is that of `cold_config`, `step` what it counts; `push` and `seed` make the randomness. Threads: two may
        update different slots at the same time.
        """
        layout, n = self.layout, len(slots_N)
        rows = max(min(n, BLOCK_BYTES // (4 * layout.width)), 1)
        block_RW = np.empty((rows, layout.width), np.float32)  # each call its own: 64 pages are nothing to a long one
        places_R = np.arange(rows)
        for start in range(0, n, rows):
            end = min(start + rows, n)
            part_N, part_RW = slots_N[start:end], block_RW[: end - start]
            widen(self.rows_SW, part_N, part_RW, layout.half, layout.brain)
            rule.update(part_RW, places_R[: end - start], grads_ND[start:end], step)
            narrow_stochastic(
                part_RW, part_N, self.rows_SW, layout.half, layout.brain, seed, np.uint64(push), ids_N[start:end]
            )
