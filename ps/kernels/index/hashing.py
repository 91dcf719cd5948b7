"""Hashing of ids. One 64-bit hash serves all that others see: its top 12 bits choose the partition.

A shard owns whole partitions, so within a shard the top bits are biased: what is a shard's uses the low 52. Where ids
that collide cost time they are mixed with a secret first (`ps.kernels.index.secret`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids
from ps.kernels.kernel import helper, kernel

_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S52 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(52)


@helper()
def mix64(x: np.uint64) -> np.uint64:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): a bijection on 64 bits, no two ids share all of it."""
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


@kernel(either="ids_N")
def hash_ids(ids_N: Ids, out_N: npt.NDArray[np.uint64]) -> None:
    """out[i] = mix64(ids[i])."""
    for i in range(len(ids_N)):
        out_N[i] = mix64(np.uint64(ids_N[i]))


@kernel(either="ids_N")
def partitions(ids_N: Ids, out_N: npt.NDArray[np.int32]) -> None:
    """out[i] = the partition of ids[i], in [0, 4096)."""
    for i in range(len(ids_N)):
        out_N[i] = np.int32(mix64(np.uint64(ids_N[i])) >> _S52)


@kernel()
def group(labels_N: npt.NDArray[np.int32], n_groups: int) -> tuple[Ids, Ids]:
    """Positions grouped by label, stable: (order int64 [n], starts int64 [n_groups + 1]). Labels in [0, n_groups)."""
    starts = np.zeros(n_groups + 1, np.int64)
    for i in range(len(labels_N)):
        starts[labels_N[i] + 1] += 1
    for g in range(n_groups):
        starts[g + 1] += starts[g]
    cursor = starts.copy()
    order_N = np.empty(len(labels_N), np.int64)
    for i in range(len(labels_N)):
        g = labels_N[i]
        order_N[cursor[g]] = i
        cursor[g] += 1
    return order_N, starts
