"""Initial rows: f(seed, id, j), counter-based. Element j of a row depends on nothing else: any shard computes the same.

The stream of a row is SplitMix64 (Steele, Lea and Flood 2014) keyed by mix64(seed ^ mix64(id)); each of its 64-bit
numbers gives two elements, the low half first. Constant and uniform rows are the same bytes on every machine; normal
ones go through the C library's log, cos and sin, whose last bit may differ.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ps.kernels.index.hashing import mix64
from ps.kernels.kernel import helper, kernel

CONSTANT, UNIFORM, NORMAL = 0, 1, 2

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_S8, _S32, _S40 = np.uint64(8), np.uint64(32), np.uint64(40)
_LOW24 = np.uint64(0xFFFFFF)
_ULP = np.float32(2.0**-24)


@helper()
def row_key(seed: np.uint64, id_: np.int64) -> np.uint64:
    """Where the row's stream starts."""
    key: np.uint64 = mix64(seed ^ mix64(np.uint64(id_)))
    return key


@helper()
def _two_uniforms(key: np.uint64, pair: int) -> tuple[np.float32, np.float32]:
    """Multiples of 2**-24 in [0, 1): every float32 of that kind is exact, so rounding cannot reach 1."""
    bits = mix64(key + np.uint64(pair + 1) * _GOLDEN)
    low = np.float32(np.int64((bits >> _S8) & _LOW24)) * _ULP
    high = np.float32(np.int64(bits >> _S40)) * _ULP
    return low, high


@helper(inline=False)
def init_row(key: np.uint64, kind: int, a: np.float32, b: np.float32, out_D: npt.NDArray[np.float32]) -> None:
    """One row. CONSTANT: a. UNIFORM in [a, b): a + (b - a) * u. NORMAL: a + b * z, z by Box and Muller (1958).

    a <= b for UNIFORM, and b - a must be finite.
    """
    dim = len(out_D)
    if kind == CONSTANT:
        out_D[:] = a
        return
    span = b - a
    below_b = np.nextafter(b, a)  # u < 1, but a + span * u is rounded and may come out as b
    for pair in range((dim + 1) // 2):
        u, v = _two_uniforms(key, pair)
        if kind == UNIFORM:
            x, y = min(a + span * u, below_b), min(a + span * v, below_b)
        else:
            radius = math.sqrt(-2.0 * math.log(1.0 - np.float64(u)))  # 1 - u is in (0, 1]: the logarithm is finite
            angle = 2.0 * math.pi * np.float64(v)
            x = a + b * np.float32(radius * math.cos(angle))
            y = a + b * np.float32(radius * math.sin(angle))
        out_D[2 * pair] = x
        if 2 * pair + 1 < dim:
            out_D[2 * pair + 1] = y


@kernel(either="ids_N", strided="out_ND")
def init_rows(
    ids_N: npt.NDArray[np.int64],
    seed: np.uint64,
    kind: int,
    a: np.float32,
    b: np.float32,
    out_ND: npt.NDArray[np.float32],
) -> None:
    """out[i] = the initial value of ids[i]. `seed` is the table's."""
    for i in range(len(ids_N)):
        init_row(row_key(seed, ids_N[i]), kind, a, b, out_ND[i])
