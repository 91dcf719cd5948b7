"""The values of a block in one of the wire's number types; ps/wire/encodings.py has the grammar.

A block's values are a flat run, row by row. `ends()` returns where each row's values end; only 8-bit numbers need it.
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
    """Returns a read-only array of the same values: a copy if the bytes of a foreign sender do not begin at a multiple
    of the item's size."""
    aligned_N = np.require(given_N, requirements="A")
    aligned_N.setflags(write=False)
    return aligned_N


class Numbers(Protocol):
    """A number type on the wire: turns float32 into bytes and back."""

    limit: float
    """The smallest magnitude that the type cannot hold."""

    def size(self, rows: int, values: int) -> int:
        """Returns the bytes of so many values in so many rows, without padding."""
        ...

    def write(self, values_V: Values, ends: Ends, out_B: Bytes) -> None:
        """Writes values into bytes of exactly their size, aligned to 4. Raises NonFiniteGradient for a value that the
        type cannot hold."""
        ...

    def read(self, data_B: Bytes, ends: Ends) -> Values:
        """Returns the values, float32 [values], of read-only bytes of the right size. Raises InvalidArgument."""
        ...


class Fp32:
    """IEEE binary32: values as they are, NaN too. Reading copies nothing if the bytes are aligned."""

    limit = np.inf

    def size(self, rows: int, values: int) -> int:
        """Returns four bytes for each value."""
        return 4 * values

    def write(self, values_V: Values, ends: Ends, out_B: Bytes) -> None:
        """Copies the values."""
        out_B.view(np.float32)[:] = values_V

    def read(self, data_B: Bytes, ends: Ends) -> Values:
        """Returns a read-only view."""
        return _aligned(data_B.view("<f4"))


class Fp16:
    """IEEE binary16, rounded to nearest, ties to even: the error is at most 2**-11 of the value or 2**-25."""

    limit = 65520.0  # from here on it would round to infinity

    def size(self, rows: int, values: int) -> int:
        """Returns two bytes for each value."""
        return 2 * values

    def write(self, values_V: Values, ends: Ends, out_B: Bytes) -> None:
        """Writes rounded values. Raises NonFiniteGradient for magnitudes of 65520 and more."""
        if not packing.all_below(values_V, np.float32(self.limit)):
            raise NonFiniteGradient("a value of NaN or beyond 65504, which fp16 cannot hold: send fp32")
        half.narrow(values_V[None], _SLOT, out_B.view(np.uint16)[None], len(values_V), 0)

    def read(self, data_B: Bytes, ends: Ends) -> Values:
        """Returns exactly the values that were written; infinity and NaN are passed on."""
        items_V = _aligned(data_B.view("<u2"))
        values_V = np.empty(len(items_V), np.float32)
        half.widen(items_V[None], _SLOT, values_V[None], len(items_V), 0)
        return values_V


class Int8:
    """Multiples in [-127, 127] of a scale for each row, rounded to nearest, ties to even.

    The scale is the row's largest magnitude / 127, or 2**-126 if that is more. The error of a value is at most half a
    scale (and 2**-16 of it, for the arithmetic): 0.4 % of the row's largest magnitude.
    """

    limit = 2.0**127

    def size(self, rows: int, values: int) -> int:
        """Returns one byte for each value and four for each row."""
        return 4 * rows + values

    def write(self, values_V: Values, ends: Ends, out_B: Bytes) -> None:
        """Writes scales and rounded values. Raises NonFiniteGradient for magnitudes of 2**127 and more."""
        if not packing.all_below(values_V, np.float32(self.limit)):
            raise NonFiniteGradient("a value of NaN or from 2**127 on, which int8 cannot hold: check the loss")
        ends_R = ends()
        scales = 4 * len(ends_R)
        packing.quantize(values_V, ends_R, out_B[:scales].view(np.float32), out_B[scales:].view(np.int8))

    def read(self, data_B: Bytes, ends: Ends) -> Values:
        """Returns the values. Raises InvalidArgument for a scale or a number that `write` never writes."""
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
