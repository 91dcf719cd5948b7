"""torchrec's KeyedJaggedTensor as bags. torchrec itself is never imported: its interface is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ps.array_like import as_ids, to_numpy
from ps.arrays import Ints
from ps.errors import DtypeMismatch, InvalidArgument, LengthMismatch
from ps.nn.batch import Bags


def bags_of(sparse: Mapping[str, Bags] | Any) -> dict[str, Bags]:
    """Returns {feature: Bags} of a mapping, or of anything with the interface of a KeyedJaggedTensor (keys, values,
    lengths).

    Values may be integers of any width; features may have a batch size each, with `inverse_indices`: their bags are
    then repeated for the samples, as torchrec does it with the pooled rows. Raises DtypeMismatch, LengthMismatch and
    InvalidArgument for what does not fit together.
    """
    if isinstance(sparse, Mapping):
        return _checked(sparse)
    if not all(hasattr(sparse, name) for name in ("keys", "values", "lengths")):
        raise InvalidArgument(f"sparse input of type {type(sparse).__name__}: pass a mapping or a KeyedJaggedTensor")
    keys = list(sparse.keys())
    if repeated := sorted({key for key in keys if keys.count(key) > 1}):
        raise InvalidArgument(f"KeyedJaggedTensor with several features named {repeated}: names must differ")
    values_N = _flat("values", as_ids(sparse.values()))
    lengths_L = _lengths(sparse, len(values_N))
    weights_N = _weights(sparse, len(values_N))
    first_bags = np.cumsum([0, *_strides(sparse, keys, len(lengths_L))])
    starts_L = np.cumsum(lengths_L) - lengths_L
    samples = _samples(sparse, keys)
    bags = {}
    for key, (first, end) in zip(keys, pairwise(first_bags.tolist()), strict=True):
        bags_K = _bags_of_samples(key, samples[key], end - first) if samples else np.arange(end - first)
        bags[key] = _select(values_N, weights_N, starts_L[first:end][bags_K], lengths_L[first:end][bags_K])
    return bags


def _checked(sparse: Mapping[str, Bags]) -> dict[str, Bags]:
    for name, bags in sparse.items():
        if not isinstance(bags, Bags):
            raise InvalidArgument(f"feature {name!r} is of type {type(bags).__name__}: give ps.nn.Bags(ids, offsets)")
    return dict(sparse)


def _flat(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.ndim != 1:
        raise LengthMismatch(f"{name} of a KeyedJaggedTensor have shape {array.shape}: they must have one dimension")
    return array


def _lengths(sparse: Any, n: int) -> Ints:
    """Returns the lengths of all bags, feature by feature: int64 [L]."""
    lengths_L = to_numpy(sparse.lengths())
    if lengths_L.size and lengths_L.dtype.kind not in "iu":
        raise DtypeMismatch(f"lengths of a KeyedJaggedTensor are {lengths_L.dtype}: they must be integers")
    lengths_L = lengths_L.reshape(-1).astype(np.int64)  # some give [features, batch]
    if lengths_L.size and lengths_L.min() < 0:
        raise InvalidArgument(
            f"a bag of {lengths_L.min()} ids in a KeyedJaggedTensor: lengths are 0 or more, and offsets never decrease"
        )
    if lengths_L.sum() != n:
        raise LengthMismatch(
            f"lengths of a KeyedJaggedTensor sum to {lengths_L.sum()}, but it has {n} values: they must be as many"
        )
    return lengths_L


def _weights(sparse: Any, n: int) -> npt.NDArray[np.float32] | None:
    weights = sparse.weights_or_none() if hasattr(sparse, "weights_or_none") else None
    if weights is None:
        return None
    if isinstance(weights, torch.Tensor) and weights.is_floating_point():
        weights = weights.detach().float()  # numpy has no bfloat16
    weights_N = _flat("weights", to_numpy(weights))
    if len(weights_N) != n:
        raise LengthMismatch(
            f"{len(weights_N)} weights for {n} values of a KeyedJaggedTensor; give one weight for each id"
        )
    if n and weights_N.dtype.kind != "f":
        raise DtypeMismatch(f"weights of a KeyedJaggedTensor are {weights_N.dtype}: they must be floats")
    return weights_N.astype(np.float32)


def _strides(sparse: Any, keys: Sequence[str], bags: int) -> list[int]:
    """Returns how many bags each feature has."""
    if hasattr(sparse, "variable_stride_per_key") and sparse.variable_stride_per_key():
        strides = [int(stride) for stride in sparse.stride_per_key()]
    else:
        strides = [bags // max(1, len(keys))] * len(keys)
    if len(strides) != len(keys) or sum(strides) != bags:
        raise LengthMismatch(
            f"a KeyedJaggedTensor with {bags} lengths for {len(keys)} features of {strides} bags: the bags of all "
            "features must be as many as the lengths"
        )
    return strides


def _samples(sparse: Any, keys: Sequence[str]) -> dict[str, Ints]:
    """Returns for each feature the bag of each sample, int64 [B], if the batch says it (`inverse_indices`): in a batch
    whose features were deduplicated one by one."""
    given = sparse.inverse_indices_or_none() if hasattr(sparse, "inverse_indices_or_none") else None
    if given is None:
        return {}
    names, indices = given
    indices_FB = to_numpy(indices)
    if indices_FB.size and indices_FB.dtype.kind not in "iu":
        raise DtypeMismatch(f"inverse_indices are {indices_FB.dtype}: they must be integers")
    if indices_FB.ndim != 2 or len(names) != len(indices_FB):
        raise LengthMismatch(f"inverse_indices of shape {indices_FB.shape} for {len(names)} features: give [F, B]")
    if lacking := sorted(set(keys) - set(names)):
        raise InvalidArgument(f"inverse_indices lack the features {lacking}; they are of {sorted(names)}")
    return {name: row_B.astype(np.int64) for name, row_B in zip(names, indices_FB, strict=True)}


def _bags_of_samples(key: str, samples_B: Ints, bags: int) -> Ints:
    if len(samples_B) and not (samples_B.min() >= 0 and samples_B.max() < bags):
        wrong = samples_B.min() if samples_B.min() < 0 else samples_B.max()
        raise InvalidArgument(f"inverse_indices of feature {key!r} name bag {wrong}: it has {bags} bags, from 0")
    return samples_B


def _select(values_N: Ints, weights_N: npt.NDArray[np.float32] | None, starts_B: Ints, lengths_B: Ints) -> Bags:
    """Returns the bags that begin at these positions of the values, one after the other."""
    offsets_B = np.cumsum(lengths_B) - lengths_B
    at_P = np.arange(lengths_B.sum()) + np.repeat(starts_B - offsets_B, lengths_B)
    weights = None if weights_N is None else torch.from_numpy(weights_N[at_P])
    return Bags(torch.from_numpy(values_N[at_P]), torch.from_numpy(offsets_B), weights)
