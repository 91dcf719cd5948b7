"""Deduplication of a batch and the sum of its gradients by id."""

from __future__ import annotations

import numpy as np

from ps.arrays import Counts, Ids, Rows
from ps.kernels.index.hashing import mix64
from ps.kernels.index.secret import SECRET
from ps.kernels.kernel import helper, kernel


@helper()
def _table_mask(n: int) -> np.uint64:
    """Buckets - 1: a power of two, at least twice the ids, so that probes stay short."""
    size = 16
    while size < 2 * n:
        size *= 2
    return np.uint64(size - 1)


def unique(ids_N: Ids) -> tuple[Ids, Ids, Counts]:
    """(unique int64 [u] in order of first occurrence, inverse int64 [n], counts uint32 [u])."""
    found: tuple[Ids, Ids, Counts] = _unique(ids_N, SECRET)
    return found


def has_duplicates(ids_N: Ids) -> bool:
    """Whether an id occurs twice."""
    return bool(_has_duplicates(ids_N, SECRET))


@kernel(either="ids_N")
def _unique(ids_N: Ids, secret: np.uint64) -> tuple[Ids, Ids, Counts]:
    n = len(ids_N)
    mask, one = _table_mask(n), np.uint64(1)
    buckets = np.zeros(int(mask) + 1, np.int32)  # position in unique_U, plus one; 0 is empty
    unique_U = np.empty(n, np.int64)
    inverse_N = np.empty(n, np.int64)
    counts_U = np.zeros(n, np.uint32)
    found = 0
    for i in range(n):
        bucket = mix64(np.uint64(ids_N[i]) ^ secret) & mask
        while True:
            at = buckets[bucket] - 1
            if at < 0:
                at = found
                unique_U[at] = ids_N[i]
                found += 1
                buckets[bucket] = found
                break
            if unique_U[at] == ids_N[i]:
                break
            bucket = (bucket + one) & mask
        inverse_N[i] = at
        counts_U[at] += np.uint32(1)
    return unique_U[:found].copy(), inverse_N, counts_U[:found].copy()


@kernel(either="ids_N")
def _has_duplicates(ids_N: Ids, secret: np.uint64) -> bool:
    n, ascending = len(ids_N), 1
    while ascending < n and ids_N[ascending - 1] < ids_N[ascending]:
        ascending += 1
    if ascending >= n:
        return False  # sorted ids, as they often come, need no table
    mask, one = _table_mask(n), np.uint64(1)
    buckets = np.zeros(int(mask) + 1, np.int32)
    for i in range(n):
        bucket = mix64(np.uint64(ids_N[i]) ^ secret) & mask
        while buckets[bucket]:
            if ids_N[buckets[bucket] - 1] == ids_N[i]:
                return True
            bucket = (bucket + one) & mask
        buckets[bucket] = np.int32(i + 1)
    return False


@kernel(either="grads_ND")
def segment_sum(grads_ND: Rows, inverse_N: Ids, out_UD: Rows) -> None:
    """out[inverse[i]] += grads[i] for i = 0, 1, ...: the batch's order decides the bytes. out is zeroed first.

    grads float32 [n, d], inverse int64 [n] with values in [0, u), out float32 [u, d].
    """
    out_UD[:] = np.float32(0.0)
    for i in range(len(inverse_N)):
        u = inverse_N[i]
        for j in range(grads_ND.shape[1]):
            out_UD[u, j] += grads_ND[i, j]
