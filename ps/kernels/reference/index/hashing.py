"""`ps.kernels.index.hashing`, in numpy. All integers: exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Hashes, Ids

_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix64(x: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014), on an array: products are modulo 2**64."""
    x = (x ^ (x >> np.uint64(30))) * _M1
    x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))


def hash_ids(ids_N: Ids, out_N: Hashes) -> None:
    """out[i] = mix64 of the bits of ids[i]."""
    out_N[:] = mix64(ids_N.view(np.uint64))


def partitions(ids_N: Ids, out_N: npt.NDArray[np.int32]) -> None:
    """out[i] = the top 12 bits of the hash of ids[i]."""
    out_N[:] = mix64(ids_N.view(np.uint64)) >> np.uint64(52)


def group(labels_N: npt.NDArray[np.int32], n_groups: int) -> tuple[Ids, Ids]:
    """(positions ordered by label, stable; where each label starts in them, and the end)."""
    starts = np.searchsorted(np.sort(labels_N), np.arange(n_groups + 1))
    return np.argsort(labels_N, kind="stable"), starts
