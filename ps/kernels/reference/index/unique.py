"""`ps.kernels.index.unique`, in plain Python and numpy. Exact; sums are float32, in the order of the batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids, Rows


def unique(ids_N: Ids) -> tuple[Ids, Ids, npt.NDArray[np.uint32]]:
    """(ids in order of first occurrence, where each input is in them, how often each occurs)."""
    position: dict[int, int] = {}
    inverse_N = np.array([position.setdefault(id_, len(position)) for id_ in ids_N.tolist()], np.int64)
    counts_U = np.bincount(inverse_N, minlength=len(position)).astype(np.uint32)
    return np.array(list(position), np.int64), inverse_N, counts_U


def has_duplicates(ids_N: Ids) -> bool:
    """Whether an id occurs twice."""
    return len(set(ids_N.tolist())) < len(ids_N)


def segment_sum(grads_ND: Rows, inverse_N: Ids, out_UD: Rows) -> None:
    """out[u] = the sum of grads[i] with inverse[i] = u, from 0 up, in the order of i."""
    out_UD[:] = 0
    for grad_D, u in zip(grads_ND, inverse_N, strict=True):
        out_UD[u] += grad_D
