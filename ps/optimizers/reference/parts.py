"""Helpers that the reference updates share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ps.arrays import Rows, Slots


def parts(rows_SW: Rows, slots_N: Slots, grads_ND: Rows) -> list[Rows]:
    """Returns the rows of the slots, divided into pieces of D floats: the value, then the state."""
    dim = grads_ND.shape[1]
    rows_NW = rows_SW[slots_N]
    return [rows_NW[:, start : start + dim] for start in range(0, rows_NW.shape[1], dim)]


def broken(numbers_NX: npt.NDArray[np.floating[Any]]) -> int:
    """Returns how many rows have infinity or NaN."""
    return int((~np.isfinite(numbers_NX)).any(axis=1).sum())
