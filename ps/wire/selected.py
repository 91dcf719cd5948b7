"""What of one table's gradients of a step is sent: a selection, of its rows or of its bags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Selected:
    """A selection of gradients grads_UD float32 [U, D], in the order of the step's unique ids: rows, or elements of
    rows.

    An id that is not in it is used by the push and not updated; it gets no row. One that is in it is updated, even
    where all its elements are 0: so a new id comes to have a row.
    """

    rows_R: npt.NDArray[np.int64] | None
    """Positions in [0, U) of the rows that are sent at all, ascending; None: all."""
    grads_RD: npt.NDArray[np.float32]
    """The gradients of those rows; elements that are not selected are 0."""
    elements: bool = False
    """Whether single elements were selected: then zeros in `grads_RD` are not sent."""

    def __len__(self) -> int:
        return len(self.grads_RD)


@dataclass(frozen=True)
class PooledGradients:
    """Gradients of a table that was prepared with bags: those of the bags, and besides some of rows. A row's gradient
    is the sum of those of its bags, as often as it is in each, and of its own."""

    bags: Selected
    """Gradients of the B bags: of all, of some, or of some of their elements."""
    rows: Selected
    """Gradients of some of the U rows."""
