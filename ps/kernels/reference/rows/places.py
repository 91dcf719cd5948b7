"""What `ps.kernels.rows.places` computes, in plain numpy."""

from __future__ import annotations

import numpy as np

from ps.arrays import Slots
from ps.kernels.rows.places import HALF, Places


def split(places_S: Places, slots_N: Slots, full_N: Slots, half_N: Slots) -> int:
    """The place of each slot in the pool that it is in, -1 elsewhere; how many are half."""
    place_N = places_S[slots_N]
    is_half_N = (place_N & HALF) != 0
    index_N = (place_N & ~HALF).astype(np.int64)
    full_N[:] = np.where((slots_N >= 0) & ~is_half_N, index_N, -1)
    half_N[:] = np.where((slots_N >= 0) & is_half_N, index_N, -1)
    return int(((slots_N >= 0) & is_half_N).sum())


def move(places_S: Places, end: int, half: np.uint32, first: int, moved_P: Places) -> None:
    """Slots below `end` of that pool find their rows where they have moved."""
    index_S = (places_S[:end] & ~HALF).astype(np.int64) - first
    moves_S = ((places_S[:end] & HALF) == half) & (index_S >= 0) & (index_S < len(moved_P))
    places_S[:end][moves_S] = moved_P[index_S[moves_S]] | half
