"""Refuses numbers that the wire cannot carry before anything is sent, because a shard that refuses its part cannot undo
what the others have applied."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Flags, Rows
from ps.errors import NonFiniteGradient
from ps.kernels.packing.packing import all_below
from ps.wire.encodings import NUMBERS
from ps.wire.formats import TableFormat

EXACT = TableFormat()


def check_finite(
    rows_RD: Rows,
    ids_R: npt.NDArray[np.int64],
    what: str,
    form: TableFormat = EXACT,
    important_R: Flags | None = None,
    whose: str = "the row of id",
) -> None:
    """Raises NonFiniteGradient for the first number that its row's precision cannot hold. important_R: bool [R]; None:
    all rows are sent as important ones. whose: what `ids_R` are called in the message."""
    important = NUMBERS[form.important].limit
    others = important if important_R is None else NUMBERS[form.others].limit
    if all_below(rows_RD.reshape(-1), np.float32(min(important, others))):
        return
    limits_R = np.full(len(rows_RD), important)
    if important_R is not None:
        limits_R[~important_R] = others
    beyond = np.argwhere(~(np.abs(rows_RD) < limits_R[:, None]))  # "not below" is true of NaN
    if not len(beyond):
        return
    row, element = beyond[0]
    value, precision = rows_RD[row, element], form.important if limits_R[row] == important else form.others
    remedy = f"{precision} cannot hold it: send fp32" if np.isfinite(value) else "check the loss, clip the gradients"
    raise NonFiniteGradient(f"{what}: {value} in {whose} {ids_R[row]}; nothing was sent ({remedy})")
