"""Tensor-train rows in numpy: what `ps.kernels.tensor_train` computes, for any number of cores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def rows(cores: Sequence[Doubles], digits_KN: npt.NDArray[np.int64]) -> Doubles:
    """[n, D]: core k is [p, R, q, S] with R of the first and S of the last 1; digits_KN has, for each core, the slice
    of each row."""
    out_NJS = np.ones((digits_KN.shape[1], 1, 1))
    for core, digit_N in zip(cores, digits_KN, strict=True):
        product = np.einsum("njr,nrqs->njqs", out_NJS, core[digit_N])
        out_NJS = product.reshape(len(digit_N), -1, core.shape[3])
    return out_NJS[:, :, 0]


def digits(index_N: npt.NDArray[np.int64], p_shapes: Sequence[int]) -> npt.NDArray[np.int64]:
    """[K, n]: the mixed-radix digits of row numbers, the first core's the most significant."""
    return np.array(np.unravel_index(index_N, tuple(p_shapes)), np.int64)
