"""Counts which rows of a tensor-train table are frequent, and finds the slots of those that are cached outside of the
cores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FEWEST = 4096
"""How many ids are counted at the same time; COUNTED times the cached ones if that is more."""
COUNTED = 16
EMPTY = -1
"""In `ids_C`: the slot is free."""


class Frequencies:
    """Counts the uses of the ids that come often, in 32 bytes each.

    Uses are noted batch by batch and added up when as many are noted as are counted; then the rarest are forgotten. So
    an id that comes often is always counted; its count lacks only the uses from before it was last forgotten as rare.
    """

    def __init__(self, cached: int) -> None:
        """cached: how many frequent ids are asked for."""
        self._room = max(COUNTED * cached, FEWEST)
        self._ids_C = self._counts_C = torch.zeros(0, dtype=torch.int64)
        self._noted: list[tuple[Tensor, Tensor]] = []
        self._noted_ids = 0

    def note(self, ids_U: Tensor, counts_U: Tensor) -> None:
        """Notes a batch's unique ids and how often each comes in it."""
        self._noted.append((ids_U, counts_U))
        self._noted_ids += len(ids_U)
        if self._noted_ids >= self._room:
            self._add_up()

    def rank(self, cached_S: Tensor) -> Tensor:
        """Returns all ids that are counted or cached, the most frequent first. Of equally frequent ones the cached come
        first, then they are in the order of ids."""
        self._add_up()
        ids_M = torch.cat([self._ids_C.to(cached_S.device), cached_S])
        weights_M = torch.cat([2 * self._counts_C.to(cached_S.device), torch.ones_like(cached_S)])
        ids_U, weights_U = _summed(ids_M, weights_M)
        return ids_U[weights_U.argsort(descending=True, stable=True)]

    def halve(self) -> None:
        """Halves all counts; ids whose count becomes 0 are forgotten."""
        self._add_up()
        halved_C = self._counts_C // 2
        self._ids_C, self._counts_C = self._ids_C[halved_C > 0], halved_C[halved_C > 0]

    def state(self) -> dict[str, Any]:
        """Returns the counts as tensors, for `load`."""
        noted = [torch.cat(part) for part in zip(*self._noted, strict=True)] if self._noted else [self._ids_C[:0]] * 2
        return {"ids": self._ids_C, "counts": self._counts_C, "noted_ids": noted[0], "noted_counts": noted[1]}

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Takes up the counts that `state` returned."""
        self._ids_C, self._counts_C = state["ids"].to(device), state["counts"].to(device)
        self._noted = [(state["noted_ids"].to(device), state["noted_counts"].to(device))]
        self._noted_ids = len(state["noted_ids"])

    def _add_up(self) -> None:
        if not self._noted:
            return
        device = self._noted[-1][0].device
        parts = [(self._ids_C, self._counts_C), *self._noted]
        ids_M, counts_M = (torch.cat([part.to(device) for part in side]) for side in zip(*parts, strict=True))
        ids_U, counts_U = _summed(ids_M, counts_M)
        if len(ids_U) > self._room:
            kept_C = counts_U.argsort(descending=True, stable=True)[: self._room].sort().values
            ids_U, counts_U = ids_U[kept_C], counts_U[kept_C]
        self._ids_C, self._counts_C = ids_U, counts_U
        self._noted, self._noted_ids = [], 0


def _summed(ids_M: Tensor, counts_M: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (unique ids [u], rising; sums of their counts). These are integers, so the order of addition does not
    matter."""
    ids_U, inverse_M = torch.unique(ids_M, return_inverse=True)
    return ids_U, torch.zeros_like(ids_U).index_add_(0, inverse_M, counts_M)


class Places:
    """Finds the slot of an id in `ids_C`, which is EMPTY for free slots, by bisection, on any device."""

    def __init__(self, ids_C: Tensor) -> None:
        self._sorted_C, self._slot_C = ids_C.sort()

    def find(self, index_U: Tensor) -> Tensor:
        """Returns the slot of each id, or -1."""
        at_U = torch.searchsorted(self._sorted_C, index_U).clamp_(max=len(self._sorted_C) - 1)
        return self._slot_C[at_U].masked_fill_(self._sorted_C[at_U] != index_U, -1)
