"""What users pass in and get back: numpy or torch, any shape; int64 ids and float32 rows inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ps.errors import DimensionMismatch, DtypeMismatch, InvalidArgument, LengthMismatch

ArrayLike = Any
"""numpy array, torch tensor (any device), or a sequence of numbers."""


def is_torch(value: ArrayLike) -> bool:
    """Whether the value is a torch tensor; torch is not imported to find out."""
    return type(value).__module__.partition(".")[0] == "torch"


def to_numpy(value: ArrayLike) -> npt.NDArray[Any]:
    """As a numpy array, without a copy where it is one already. A ragged list is none: DtypeMismatch."""
    try:
        return value.detach().cpu().numpy() if is_torch(value) else np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DtypeMismatch(f"no array of numbers: {error}") from None


def as_ids(value: ArrayLike) -> npt.NDArray[np.int64]:
    """Int64 of the same shape, a copy: a step outlives the call, and the caller may reuse the array. Floats and
    unsigned ids beyond int64 are DtypeMismatch, never cut."""
    ids = to_numpy(value)
    if ids.size == 0 and not isinstance(value, np.ndarray):
        return np.zeros(ids.shape, np.int64)  # an empty list has no type of its own
    if ids.dtype.kind not in "iu":
        raise DtypeMismatch(f"ids of dtype {ids.dtype}: expected integers (int64); convert them explicitly")
    if ids.dtype == np.uint64 and ids.size and int(ids.max()) > np.iinfo(np.int64).max:
        raise DtypeMismatch(f"id {int(ids.max())} does not fit int64; use ids.view(np.int64) to keep all 64 bits")
    return np.array(ids, dtype=np.int64, order="C")


def as_rows(value: ArrayLike, ids_shape: tuple[int, ...], dim: int, what: str) -> npt.NDArray[np.float32]:
    """Float32 [n, dim] for ids of `ids_shape`; raises DtypeMismatch, DimensionMismatch or LengthMismatch."""
    if is_torch(value):
        value = value.detach().float()  # numpy has no bfloat16
    rows = to_numpy(value)
    if rows.dtype.kind != "f":
        raise DtypeMismatch(f"{what} of dtype {rows.dtype}: expected floats")
    n = int(np.prod(ids_shape, dtype=np.int64))
    if rows.ndim == 0 or ((rows.ndim > 1 or n != 1) and rows.shape[-1] != dim):
        raise DimensionMismatch(f"{what} of shape {rows.shape}: the last dimension must be {dim}")
    if rows.shape not in ((*ids_shape, dim), (n, dim)) and not (n == 1 and rows.shape == (dim,)):
        raise LengthMismatch(f"{what} of shape {rows.shape} for ids of shape {ids_shape}: expected {(*ids_shape, dim)}")
    with np.errstate(over="ignore"):  # too large a double becomes infinite, which is refused by name
        return np.ascontiguousarray(rows, dtype=np.float32).reshape(n, dim)


def as_counts(value: ArrayLike, ids_shape: tuple[int, ...]) -> npt.NDArray[np.uint32]:
    """Contiguous uint32 [n]; raises DtypeMismatch or LengthMismatch."""
    counts = to_numpy(value)
    if counts.dtype.kind not in "iu" or (counts.size and int(counts.min()) < 0):
        raise DtypeMismatch(f"counts of dtype {counts.dtype}: expected non-negative integers")
    if counts.shape != ids_shape:
        raise LengthMismatch(f"counts of shape {counts.shape} for ids of shape {ids_shape}")
    counts_N: npt.NDArray[np.uint32] = np.minimum(counts, np.iinfo(np.uint32).max).astype(np.uint32).reshape(-1)
    return counts_N


def as_scores(value: ArrayLike, ids_shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Contiguous float32 [n], finite and not negative; raises DtypeMismatch, LengthMismatch or InvalidArgument."""
    scores = to_numpy(value.detach().float() if is_torch(value) else value)
    if scores.dtype.kind not in "iuf":
        raise DtypeMismatch(f"scores of dtype {scores.dtype}: expected numbers")
    if scores.shape != ids_shape:
        raise LengthMismatch(f"scores of shape {scores.shape} for ids of shape {ids_shape}")
    with np.errstate(over="ignore"):
        scores_N = np.ascontiguousarray(scores, dtype=np.float32).reshape(-1)
    if not (np.isfinite(scores_N) & (scores_N >= 0)).all():
        raise InvalidArgument("scores must be finite and not negative")
    return scores_N


def like(result: npt.NDArray[Any], given: ArrayLike) -> Any:
    """The result as the caller speaks: a torch tensor (CPU, sharing memory) if the ids were one."""
    if not is_torch(given):
        return result
    import torch

    return torch.from_numpy(result).to(given.device)
