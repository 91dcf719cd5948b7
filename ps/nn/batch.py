"""What a data source hands to a trainer: batches of dense numbers, bags of ids and labels.

This module has the types and no arithmetic. A value is checked once, when it is made, and never changes afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ps.errors import DtypeMismatch, InvalidArgument, LengthMismatch
from ps.nn.offsets import check_offsets


@dataclass(frozen=True)
class FeatureSpec:
    """A field of the input and the table its ids live in; several features may share one table."""

    name: str
    table: str


@dataclass(frozen=True)
class Bags:
    """The ids of one feature for a batch, in the form of `torch.nn.EmbeddingBag`.

    ids: int64 [n], all bags one after the other.
    offsets: int64 [B], where each bag starts; the first at 0, the last bag ends at n. One id in each bag: `arange(B)`.
    weights: float32 [n] or None, a factor for each id.
    All are CPU tensors. A feature that no sample of a batch has is `Bags.empty(B)`.
    Raises `DtypeMismatch`, `LengthMismatch` and `InvalidArgument` where these do not fit together.
    """

    ids: torch.Tensor
    offsets: torch.Tensor
    weights: torch.Tensor | None = None

    def __post_init__(self) -> None:
        _expect("ids", self.ids, torch.int64, 1)
        _expect("offsets", self.offsets, torch.int64, 1)
        if self.weights is not None:
            _expect("weights", self.weights, torch.float32, 1)
            if len(self.weights) != len(self.ids):
                raise LengthMismatch(
                    f"{len(self.weights)} weights for {len(self.ids)} ids; give one weight for each id"
                )
        check_offsets(self.offsets, len(self.ids))

    @classmethod
    def empty(cls, batch_size: int) -> Bags:
        """Returns one bag without ids for each of `batch_size` samples; each is pooled to zeros."""
        return cls(torch.empty(0, dtype=torch.int64), torch.zeros(batch_size, dtype=torch.int64))


@dataclass(frozen=True)
class Batch:
    """B samples. dense: float32 [B, n_dense]. sparse: feature name -> its bags, B of them. labels: float32 [B], 0 or 1.

    Raises `DtypeMismatch` and `LengthMismatch` where these do not fit together.
    """

    dense: torch.Tensor
    sparse: Mapping[str, Bags]
    labels: torch.Tensor

    def __post_init__(self) -> None:
        _expect("dense", self.dense, torch.float32, 2)
        _expect("labels", self.labels, torch.float32, 1)
        lengths = {"dense": len(self.dense)} | {name: len(bags.offsets) for name, bags in self.sparse.items()}
        for name, length in lengths.items():
            if length != len(self):
                raise LengthMismatch(f"{name!r} has {length} samples, labels has {len(self)}")

    def __len__(self) -> int:
        return len(self.labels)


def _expect(name: str, tensor: torch.Tensor, dtype: torch.dtype, ndim: int) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise DtypeMismatch(f"{name} is a {type(tensor).__name__}, not a torch tensor of {dtype}")
    if tensor.dtype != dtype:
        raise DtypeMismatch(f"{name} is {tensor.dtype}, not {dtype}; convert it where nothing can be lost")
    if tensor.device.type != "cpu":
        raise InvalidArgument(f"{name} is on {tensor.device}: batches are CPU tensors, give {name}.cpu()")
    if tensor.ndim != ndim:
        raise LengthMismatch(f"{name} has {tensor.ndim} dimensions, not {ndim}")
