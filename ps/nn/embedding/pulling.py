"""Pulls a prepared batch's rows, with what the next push needs to know of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ps.arrays import Flags
from ps.nn.embedding.ahead import PulledRows
from ps.nn.embedding.prepared import PreparedBags
from ps.nn.embedding.pushes import Pushes
from ps.nn.sparsify.sum_masks import SumMasks


class Puller:
    """Pulls rows for one collection. Threads: any, one at a time."""

    def __init__(self, pushes: Pushes, sum_masks: SumMasks) -> None:
        self._pushes = pushes
        self._sum_masks = sum_masks

    def masks(self) -> dict[str, Any]:
        """Returns the state of the masks by table, for `load_masks`."""
        return self._sum_masks.state()

    def load_masks(self, state: Mapping[str, Any]) -> None:
        """Takes up a saved state of the masks. Raises InvalidArgument if it is of other tables."""
        self._sum_masks.load(state)

    def pull(self, prepared: PreparedBags, training: bool) -> PulledRows:
        """Pulls a batch's rows. training: whether sums are masked, and thresholds of masks learn from them."""
        exists: dict[str, Flags] = {}
        important: dict[str, Flags] = {}
        masks = self._sum_masks.next(prepared.pooled) if training else {}
        if self._pushes.wants_exists:
            asked = {name: s for name, s in self._pushes.important_shares.items() if name not in prepared.pooled}
            pulled = prepared.step.pull_rows(important=asked, mask_below=masks)
            exists = {name: np.asarray(part.exists) for name, part in pulled.items()}
            important = {
                name: np.asarray(part.important) for name, part in pulled.items() if part.important is not None
            }
            rows = {name: part.rows for name, part in pulled.items()}
        else:
            rows = prepared.step.pull(mask_below=masks)
        found = {name: torch.as_tensor(part) for name, part in rows.items()}
        if training:
            self._sum_masks.observe(prepared.pooled, found)
        return PulledRows(found, exists, important)
