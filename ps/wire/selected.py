"""Selections: which of one table's gradients of a step are sent, of its rows or of its bags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Selected:
    """A selection of gradients grads_UD float32 [U, D], in the order of the step's unique ids: rows, or elements of
    rows.

    An id that is not selected counts as used by the push, but is not updated and gets no row. An id that is selected is
    updated, even if all its elements are 0, so a new id gets a row.
    """

    rows_R: npt.NDArray[np.int64] | None
    """Positions in [0, U) of the rows that are sent, ascending; None: all."""
    grads_RD: npt.NDArray[np.float32]
    """The gradients of those rows; elements that are not selected are 0."""
    elements: bool = False
    """Whether single elements were selected; then zeros in `grads_RD` are not sent."""

    def __len__(self) -> int:
        return len(self.grads_RD)


@dataclass(frozen=True)
class PooledGradients:
    """Gradients of a table that was prepared with bags: those of bags, and of some rows. A row's gradient is the sum of
    the gradients of its bags, once for each time that it is in a bag, and of its own."""

    bags: Selected
    """Gradients of the B bags: of all bags, of some, or of some of their elements."""
    rows: Selected
    """Gradients of some of the U rows."""
