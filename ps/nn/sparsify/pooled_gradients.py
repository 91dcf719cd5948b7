"""Selects which gradients of bags are sent as such, and turns the others into gradients of the bags' rows.

A bag's gradient belongs to one sample, so it cannot be held for the next gradient of the same bag, as a row's can. But
it is also the gradient of each of the bag's rows, and these come again. So the largest are sent, one for all the ids of
the bag; and the others are added up by row here, and go through the table's `Sparsifier` as gradients of rows do: sent
and held make the sum of all gradients, as without bags (to the bit with integers).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ps import PooledBags, Selected
from ps.arrays import Flags, Rows
from ps.errors import NonFiniteGradient
from ps.kernels.rows.bags import spread
from ps.kernels.rows.rows import all_finite
from ps.nn.sparsify.estimator import Estimator
from ps.nn.sparsify.thresholds import Sparsify


class BagSelector:
    """Selects gradients of the bags of one table. Its threshold is estimated from these gradients, for the same share
    of them that `config` has for rows."""

    def __init__(self, config: Sparsify, seed: int = 0) -> None:
        self._by = config.by
        self._estimator = Estimator(config, seed)

    def select(self, bags: PooledBags, unique: int, grads_BD: Rows) -> tuple[Selected, Rows, Flags]:
        """Returns (what is sent of the bags' gradients; the rest by row, float32 [U, D]; which rows the push creates
        even if nothing of the rest is sent, bool [U]: the rows of bags that are sent). Raises NonFiniteGradient, and
        then nothing has changed."""
        empty_B = bags.lengths_B == 0
        grads_BD = np.where(empty_B[:, None], np.float32(0), grads_BD)
        if not all_finite(grads_BD.reshape(-1)):
            where = int(np.flatnonzero(~np.isfinite(grads_BD).all(axis=1))[0])
            raise NonFiniteGradient(
                f"the gradient of bag {where} is not finite: held back, it would spoil all later ones; check the loss"
            )
        sizes_BD = np.einsum("bd,bd->b", grads_BD, grads_BD)[:, None] if self._by == "rows" else np.abs(grads_BD)
        threshold = self._estimator.next(empty_B, lambda places_N: sizes_BD.reshape(-1)[places_N], sizes_BD.shape[1])
        picked_BD = sizes_BD >= threshold
        sent_B = picked_BD.any(axis=1) & ~empty_B
        self._estimator.observe(picked_BD.sum(axis=1), empty_B, picked_BD.shape[1])
        bags_R = np.flatnonzero(sent_B)
        sent_RD = np.where(picked_BD[bags_R], grads_BD[bags_R], np.float32(0))
        rest_UD, in_bag_U = np.zeros((unique, grads_BD.shape[1]), np.float32), np.zeros(unique, np.bool_)
        starts_K = np.concatenate(([0], np.cumsum(bags.lengths_B)))
        rest_BD = np.where(picked_BD, np.float32(0), grads_BD)
        spread(rest_BD, starts_K, bags.positions_P.astype(np.int32), np.arange(len(bags)), rest_UD, in_bag_U)
        made_U = np.zeros(unique, np.bool_)
        made_U[bags.positions_P[np.repeat(sent_B, bags.lengths_B)]] = True
        return Selected(bags_R, sent_RD, self._by == "elements"), rest_UD, made_U

    def state(self) -> dict[str, Any]:
        """Returns the state as plain numbers, for `load`."""
        return self._estimator.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up a saved state."""
        self._estimator.load(state)
