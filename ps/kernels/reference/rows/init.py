"""`ps.kernels.rows.init`, in numpy. Constant and uniform rows are exact; the standard normal is within 1 ulp."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Hashes, Ids
from ps.kernels.reference.index.hashing import mix64
from ps.kernels.rows.init import CONSTANT, UNIFORM

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def init_rows(
    ids_N: Ids, seed: np.uint64, kind: int, a: np.float32, b: np.float32, out_ND: npt.NDArray[np.float32]
) -> None:
    """out[i] = the initial value of ids[i]: its uniforms u, v, made into what `kind` asks for."""
    if kind == CONSTANT:
        out_ND[:] = a
        return
    n, dim = out_ND.shape
    pairs = (dim + 1) // 2
    u, v = _uniforms(mix64(seed ^ mix64(ids_N.view(np.uint64))), pairs)
    if kind == UNIFORM:
        below_b = np.nextafter(b, a)
        x, y = (np.where(below_b < z, below_b, z) for z in (a + (b - a) * u, a + (b - a) * v))
    else:
        radius = np.sqrt(-2.0 * np.log(1.0 - u.astype(np.float64)))
        angle = 2.0 * np.pi * v.astype(np.float64)
        x, y = (a + b * (radius * f(angle)).astype(np.float32) for f in (np.cos, np.sin))
    out_ND[:] = np.stack([x, y], axis=2).reshape(n, 2 * pairs)[:, :dim]


def _uniforms(keys_N: Hashes, pairs: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Two [n, pairs] of multiples of 2**-24 in [0, 1): bits 8..31 and 40..63 of the numbers 1, 2, ... of SplitMix64."""
    numbers = mix64(keys_N[:, None] + np.arange(1, pairs + 1, dtype=np.uint64) * _GOLDEN)
    low = (numbers >> np.uint64(8)) & np.uint64(0xFFFFFF)
    high = numbers >> np.uint64(40)
    return low.astype(np.float32) * np.float32(2.0**-24), high.astype(np.float32) * np.float32(2.0**-24)
