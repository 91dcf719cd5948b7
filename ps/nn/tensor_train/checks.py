"""Refuses bad arguments of a TensorTrainEmbeddingBag before torch or a kernel would fail on them, or read beyond an
array."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ps.config import SGD, CoreOptimizer
from ps.config.optimizers import CORE_NAMES, CORE_OPTIMIZERS
from ps.errors import DtypeMismatch, InvalidArgument, LengthMismatch
from ps.nn.offsets import check_offsets
from ps.tensor_train.shape import TTShape, tt_shape

MODES = ("sum", "mean")
INITIALIZERS = ("approximate_uniform", "gaussian", "uniform")


def checked_shape(
    rows: int, dim: int, ranks: Sequence[int], p: Sequence[int] | None, q: Sequence[int] | None
) -> TTShape:
    """Returns how the table is factored. Raises InvalidArgument where that is not possible."""
    if rows < 1 or dim < 1:
        raise InvalidArgument(f"a table of {rows} rows x {dim}: both must be 1 or more")
    if not 1 <= len(ranks) <= 3:
        raise InvalidArgument(f"tt_ranks {list(ranks)}: 2 to 4 cores have 1 to 3 ranks between them")
    try:
        return tt_shape(rows, dim, ranks, len(ranks) + 1, p, q)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error


def check_settings(mode: str, initializer: str, seed: int) -> None:
    """Raises InvalidArgument unless mode, initializer and seed are valid."""
    if mode not in MODES:
        raise InvalidArgument(f"mode {mode!r}: it says how the rows of a bag become one: give one of {MODES}")
    if initializer not in INITIALIZERS:
        raise InvalidArgument(f"initializer {initializer!r}: give one of {INITIALIZERS}")
    if seed < 0:
        raise InvalidArgument(f"seed {seed}: must be 0 or more")


def check_optimizer(optimizer: object, sparse: bool) -> CoreOptimizer | None:
    """Returns the optimizer that runs in backward; None: none does. Raises InvalidArgument for one that cannot."""
    if not sparse:
        if optimizer is not None:
            raise InvalidArgument(
                f"optimizer {optimizer!r} would not be used: with sparse=False a torch optimizer trains the parameters"
            )
        return None
    if optimizer is None:
        return SGD(lr=0.1)
    if not isinstance(optimizer, CORE_OPTIMIZERS):
        raise InvalidArgument(
            f"optimizer {optimizer!r}: cores are trained here by {CORE_NAMES}; for others take sparse=False and "
            "one of torch's"
        )
    return optimizer


def check_cache(use_cache: bool, cache_size: int, refresh_every: int, fold_tolerance: float) -> None:
    """Raises InvalidArgument unless the settings of the cache fit together."""
    if use_cache and cache_size < 1:
        raise InvalidArgument(f"use_cache with a cache_size of {cache_size}: say how many rows, 1 or more")
    if not use_cache and (cache_size or refresh_every):
        raise InvalidArgument(
            f"cache_size {cache_size} and refresh_every {refresh_every} are of a cache: say use_cache=True"
        )
    if refresh_every < 0:
        raise InvalidArgument(f"refresh_every {refresh_every}: must be 0 (never by itself) or more")
    if not fold_tolerance >= 0:
        raise InvalidArgument(f"fold_tolerance {fold_tolerance}: must be 0 or more, a relative error")


def check_index(indices: Tensor, rows: int, device: torch.device) -> None:
    """Raises DtypeMismatch or InvalidArgument unless indices are integers in [0, rows) on the device of the table."""
    if indices.dtype not in (torch.int64, torch.int32):
        raise DtypeMismatch(f"indices are {indices.dtype}: they must be int64 or int32")
    if indices.device != device:
        raise InvalidArgument(f"indices are on {indices.device}, the cores on {device}: move one of them")
    if indices.numel():
        lowest, highest = (int(end) for end in indices.aminmax())
        if lowest < 0 or highest >= rows:
            wrong = lowest if lowest < 0 else highest
            raise InvalidArgument(
                f"index {wrong} is not in [0, {rows}), the rows of this table: hash or drop it before"
            )


def check_bags(
    indices: Tensor, offsets: Tensor | None, weights: Tensor | None, mode: str, include_last_offset: bool
) -> None:
    """Raises InvalidArgument or LengthMismatch unless the bags lie within the indices, and weights are given for all
    indices or none."""
    if offsets is None:
        if indices.dim() != 2:
            raise InvalidArgument(f"indices of shape {tuple(indices.shape)} without offsets: give [B, n], or offsets")
    else:
        _check_offsets(indices, offsets, include_last_offset)
    if weights is not None:
        if mode != "sum":
            raise InvalidArgument(f"per_sample_weights with mode {mode!r}: they are for 'sum', as in torch")
        if weights.shape != indices.shape:
            raise LengthMismatch(
                f"per_sample_weights of shape {tuple(weights.shape)} for indices of shape {tuple(indices.shape)}"
            )


def _check_offsets(indices: Tensor, offsets: Tensor, include_last_offset: bool) -> None:
    if indices.dim() != 1 or offsets.dim() != 1:
        shapes = tuple(indices.shape), tuple(offsets.shape)
        raise InvalidArgument(f"indices and offsets of shapes {shapes}: both must have one dimension")
    if offsets.dtype not in (torch.int64, torch.int32):
        raise DtypeMismatch(f"offsets are {offsets.dtype}: they must be int64 or int32")
    if include_last_offset and not len(offsets):
        raise InvalidArgument("no offsets, and include_last_offset wants one at least: the number of indices")
    check_offsets(offsets[:-1] if include_last_offset else offsets, len(indices))
    if include_last_offset and (last := int(offsets[-1])) != (n := len(indices)):
        raise InvalidArgument(
            f"the last offset is {last}, with include_last_offset it must be {n}, the number of indices"
        )
