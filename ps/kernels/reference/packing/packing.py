"""Selected rows and elements as bits, in plain numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Positions, Values, Words
from ps.kernels.packing.packing import Items


def set_bits(rows_R: Positions, n: int, words: Words) -> bool:
    """Bit rows[i] of words is set; False if rows do not ascend strictly within [0, n)."""
    if not np.array_equal(np.unique(rows_R[(rows_R >= 0) & (rows_R < n)]), rows_R):
        return False
    flags_N = np.zeros(len(words) * 64, np.bool_)
    flags_N[rows_R] = True
    words[:] = _words(flags_N)
    return True


def find_bits(words: Words, out_R: Positions) -> None:
    """Which bits are set."""
    out_R[:] = np.flatnonzero(_flags(words))


def count_nonzero(values_N: Values) -> int:
    """How many are neither 0 nor -0."""
    return int(np.count_nonzero(values_N))


def all_below(values_N: Values, limit: np.float32) -> bool:
    """Whether the magnitude of each is less than `limit`."""
    return bool((np.abs(values_N) < limit).all())


def mask(values_N: Values, least: np.float32, out_N: Values) -> None:
    """out = values, but 0 where the magnitude is less than `least`; NaN stays."""
    out_N[:] = np.where(np.abs(values_N) < least, np.float32(0), values_N)


def pack(values_N: Values, words: Words, out_N: Values) -> int:
    """Which values are not zero, those values, and how many they are."""
    flags_N = np.zeros(len(words) * 64, np.bool_)
    flags_N[: len(values_N)] = values_N != 0
    words[:] = _words(flags_N)
    packed_V = values_N[values_N != 0]
    out_N[: len(packed_V)] = packed_V
    return len(packed_V)


def unpack(words: Words, values_V: Values, out_N: Values) -> None:
    """out[i] = the next of the values where bit i is set."""
    out_N[np.flatnonzero(_flags(words))] = values_V


def ends_of_rows(words: Words, dim: int, out_R: Positions) -> None:
    """out[i] = how many bits are set before bit (i + 1) * dim."""
    sums_N = np.concatenate([[0], np.cumsum(_flags(words))])
    out_R[:] = sums_N[(np.arange(len(out_R)) + 1) * dim]


def quantize(values_V: Values, ends_R: Positions, scales_R: Values, out_V: Items) -> None:
    """scale = max(largest magnitude / 127, 2**-126); out = values / scale, rounded to nearest, ties to even."""
    start = 0
    for i, end in enumerate(ends_R):
        row = values_V[start:end]
        scales_R[i] = max(np.abs(row).max(initial=np.float32(0)) / np.float32(127), np.float32(2.0**-126))
        out_V[start:end] = np.rint(row * (np.float32(1) / scales_R[i])).astype(np.int8)
        start = end


def dequantize(items_V: Items, ends_R: Positions, scales_R: Values, out_V: Values) -> int:
    """out = items * scale; the first row that `quantize` cannot have made, -1 if there is none."""
    start, wrong = 0, []
    for i, end in enumerate(ends_R):
        out_V[start:end] = items_V[start:end].astype(np.float32) * scales_R[i]
        if not 2.0**-126 <= scales_R[i] < 2.0**121 or (items_V[start:end] == -128).any():
            wrong.append(i)
        start = end
    return wrong[0] if wrong else -1


def _flags(words: Words) -> npt.NDArray[np.bool_]:
    return np.unpackbits(words.view(np.uint8), bitorder="little").view(np.bool_)


def _words(flags_N: npt.NDArray[np.bool_]) -> Words:
    return np.packbits(flags_N, bitorder="little").view(np.uint64)
