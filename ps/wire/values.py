"""The values of a block in one of the wire's number types; ps/wire/encodings.py has the grammar.

A block's values are a flat run, row by row. `ends()` says where each row's end: only 8-bit numbers need to know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ps.arrays import Bytes, Values
from ps.errors import InvalidArgument, NonFiniteGradient
from ps.kernels.packing import packing
from ps.kernels.rows import half

Ends = Callable[[], npt.NDArray[np.int64]]

_SLOT = np.zeros(1, np.int64)  # the kernels of half precision go by slots of an arena: here, one long row


A = TypeVar("A", bound=np.generic)


def _aligned(given_N: npt.NDArray[A]) -> npt.NDArray[A]:
    """Returns the same read-only array: a copy where a foreign sender's bytes do not begin at a multiple of the item's
    size."""
    aligned_N = np.require(given_N, requirements="A")
    aligned_N.setflags(write=False)
    return aligned_N


class Numbers(Protocol):
    """A number type: float32 <-> bytes."""

    limit: float
    """The smallest magnitude that it cannot hold."""

    def size(self, rows: int, values: int) -> int:
        """Returns bytes of so many values in so many rows, without padding."""
        ...

    def write(self, values_V: Values, ends: Ends, out_B: Bytes) -> None:
        """Into bytes of just that size, aligned to 4. Raises NonFiniteGradient for what the type cannot hold."""
        ...

    def read(self, data_B: Bytes, ends: Ends) -> Values:
        """Returns what was written, of read-only bytes of the right size: float32 [values]. Raises InvalidArgument."""
        ...


class Fp32:
    """IEEE binary32, as they are; NaN too. Reading copies nothing where the bytes are aligned."""

    limit = np.inf

    def size(self, rows: int, values: int) -> int:
        """Four each."""
        return 4 * values

    def write(self, values_V: Values, ends: Ends, out_B: Bytes) -> None:
        """A copy."""
        out_B.view(np.float32)[:] = values_V

    def read(self, data_B: Bytes, ends: Ends) -> Values:
        """Returns a view, read-only."""
        return _aligned(data_B.view("<f4"))


class Fp16:
    """IEEE binary16, rounded to nearest, ties to even: off by 2**-11 of the value or 2**-25 at most."""

    limit = 65520.0  # from here on it would round to infinity

    def size(self, rows: int, values: int) -> int:
        """Two each."""
        return 2 * values

    def write(self, values_V: Values, ends: Ends, out_B: Bytes) -> None:
        """Magnitudes must be below 65520."""
        if not packing.all_below(values_V, np.float32(self.limit)):
            raise NonFiniteGradient("a value of NaN or beyond 65504, which fp16 cannot hold: send fp32")
        half.narrow(values_V[None], _SLOT, out_B.view(np.uint16)[None], len(values_V), 0)

    def read(self, data_B: Bytes, ends: Ends) -> Values:
        """Exact; infinity and NaN are passed on."""
        items_V = _aligned(data_B.view("<u2"))
        values_V = np.empty(len(items_V), np.float32)
        half.widen(items_V[None], _SLOT, values_V[None], len(items_V), 0)
        return values_V


class Int8:
    """Multiples in [-127, 127] of a scale a row, rounded to nearest, ties to even.

    The scale is the row's largest magnitude / 127, or 2**-126 if that is more. A value is off by half a scale at most
    (and 2**-16 of it, for the arithmetic): 0.4 % of the largest of its row.
    """

    limit = 2.0**127

    def size(self, rows: int, values: int) -> int:
        """One each and four a row."""
        return 4 * rows + values

    def write(self, values_V: Values, ends: Ends, out_B: Bytes) -> None:
        """Magnitudes must be below 2**127."""
        if not packing.all_below(values_V, np.float32(self.limit)):
            raise NonFiniteGradient("a value of NaN or from 2**127 on, which int8 cannot hold: check the loss")
        ends_R = ends()
        scales = 4 * len(ends_R)
        packing.quantize(values_V, ends_R, out_B[:scales].view(np.float32), out_B[scales:].view(np.int8))

    def read(self, data_B: Bytes, ends: Ends) -> Values:
        """Raises InvalidArgument for a scale or a number that is never written."""
        ends_R = ends()
        scales_R, items_V = _aligned(data_B[: 4 * len(ends_R)].view("<f4")), data_B[4 * len(ends_R) :].view(np.int8)
        values_V = np.empty(len(items_V), np.float32)
        wrong = packing.dequantize(items_V, ends_R, scales_R, values_V)
        if wrong >= 0:
            raise InvalidArgument(
                f"int8: row {wrong} of those sent has the scale {scales_R[wrong]}, or an item of -128: scales are in "
                "[2**-126, 2**121), items in [-127, 127]"
            )
        return values_V
