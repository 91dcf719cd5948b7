"""A selection: what of one table's gradients of a step is sent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Selected:
    """Of gradients grads_UD float32 [U, D], in the order of the step's unique ids: rows, or elements of rows.

    A row that is not in `rows_R` is not sent and its id sees no push. One that is in it is pushed, even where all its
    elements are 0: so a new id comes to have a row.
    """

    rows_R: npt.NDArray[np.int64]
    """Positions in [0, U) of the rows that are sent at all, ascending."""
    grads_RD: npt.NDArray[np.float32]
    """Their gradients; elements not selected are 0."""
    elements: bool
    """Whether single elements were selected: then zeros in `grads_RD` need not be sent."""

    def __len__(self) -> int:
        return len(self.rows_R)
