"""Decides which tables of a batch the shards pool, and pools features from the sums that they send.

Pooled by the trainer, a table's U unique ids cost a row down and a gradient up each. Pooled by the shards, each bag
costs a sum down and a gradient up for every shard that has one of its ids; and once, where its ids are:

    by rows  U (d + u)
    by bags  K (d + u) + (K l + P p) / 8    K = sum over bags of S (1 - (1 - 1/S)**n)

d, u      bytes of a row or sum down, and of a gradient up: dim numbers in the precision that the table is sent in. By
          importance, of rows the share that is important is precise, and all sums
K         of B bags on S shards: how often a bag of n ids has one on a shard, where ids are spread evenly
P, p, l   ids in bags, bits of a position among a shard's U / S ids, bits of the longest bag's length

So pooling by the shards pays with long bags, where there are more unique ids than S B, and never with one id in each
bag. Where only a share of the gradients is sent, u is that much smaller on both sides: it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ps import ByImportance, Client, PooledBags
from ps.errors import InvalidArgument
from ps.nn.batch import Bags
from ps.nn.embedding.dedupe import FeatureOfTable
from ps.nn.feature import Feature

if TYPE_CHECKING:
    from ps.nn.embedding.prepared import PreparedBags


class BagPooling:
    """Where the bags of one collection's tables are pooled, and how."""

    def __init__(self, client: Client, features: Sequence[Feature], dim: int) -> None:
        self._client = client
        self._dim = dim
        self._features = {table: [f for f in features if f.table == table] for table in {f.table for f in features}}
        self._may_be = [table for table, some in self._features.items() if all(f.pooled != "trainer" for f in some)]

    def choose(
        self,
        bags: Mapping[str, Bags],
        ids: Mapping[str, npt.NDArray[np.int64]],
        inverse: Mapping[FeatureOfTable, torch.Tensor],
    ) -> dict[str, PooledBags]:
        """Returns the tables that the shards pool in this batch, with their bags: all bags of one feature, then those
        of the next.

        ids: unique ids by table. inverse: for each feature of a table, the position of each of its ids among the
        table's.
        """
        chosen = {}
        for table in self._may_be:
            features = self._features[table]
            if any(bags[feature.name].weights is not None for feature in features):
                continue
            positions_P = np.concatenate([inverse[feature.name, table].numpy() for feature in features])
            pooled = PooledBags(positions_P, np.concatenate([lengths(bags[feature.name]) for feature in features]))
            if all(feature.pooled == "shard" for feature in features) or self._pays(table, len(ids[table]), pooled):
                chosen[table] = pooled
        return chosen

    def pool(self, feature: Feature, prepared: PreparedBags, rows: torch.Tensor) -> torch.Tensor:
        """Returns float32 [B, D], one feature's pooled rows, from what was pulled for its table: rows [U, D] of the
        unique ids, or sums of bags."""
        bags = prepared.bags[feature.name]
        if feature.pooling == "mean" and bags.weights is not None:
            raise InvalidArgument(
                f"feature {feature.name!r}: per-sample weights are for pooling='sum' only, as in torch"
            )
        if feature.table in prepared.pooled:
            return self._of_sums(feature, bags, rows)
        if not len(rows):
            return rows.sum() + rows.new_zeros((prepared.batch_size, self._dim))  # with a gradient, as in torch
        return nn.functional.embedding_bag(
            prepared.inverse[feature.name, feature.table],
            rows,
            bags.offsets,
            mode=feature.pooling,
            per_sample_weights=bags.weights,
        )

    def _of_sums(self, feature: Feature, bags: Bags, sums_BD: torch.Tensor) -> torch.Tensor:
        """Cuts a feature's part out of the sums of its table's bags, which are in the order that `choose` gave."""
        n = len(bags.offsets)
        number = self._features[feature.table].index(feature)
        part_BD = sums_BD[number * n : (number + 1) * n]
        if feature.pooling == "sum":
            return part_BD
        return part_BD / torch.from_numpy(np.maximum(lengths(bags), 1).astype(np.float32))[:, None]

    def _pays(self, table: str, unique: int, bags: PooledBags) -> bool:
        dtype = self._client.wire_dtype(table)
        if isinstance(dtype, ByImportance):
            important, others, share = dtype.important, dtype.others, dtype.share
        else:
            important, others, share = dtype, dtype, 1.0
        precise, other = row_bytes(important, self._dim), row_bytes(others, self._dim)
        row = share * precise + (1 - share) * other
        return bytes_by_bags(unique, bags, len(self._client.shards()), 2 * precise) < bytes_by_rows(unique, 2 * row)


def row_bytes(precision: str, dim: int) -> int:
    """Returns the bytes of a row on the wire, at one of the precisions that `ps.ByImportance` describes."""
    return {"fp32": 4 * dim, "fp16": 2 * dim, "int8": dim + 4}[precision]


def lengths(bags: Bags) -> npt.NDArray[np.int64]:
    """Returns how many ids each bag has, [B]."""
    return np.diff(bags.offsets.numpy(), append=len(bags.ids))


def bytes_by_rows(unique: int, both: float) -> float:
    """Returns the bytes of one table in one step that is pooled by the trainer, without what both ways have in common.
    both: d + u, as in the module's formulas."""
    return unique * both


def bytes_by_bags(unique: int, bags: PooledBags, shards: int, both: float) -> float:
    """Returns the bytes of one table in one step that is pooled by the shards, without what both ways have in
    common."""
    pairs = shards * float((1 - (1 - 1 / shards) ** bags.lengths_B).sum())
    length_bits = max(1, int(bags.lengths_B.max(initial=1) - 1).bit_length())
    position_bits = max(1, (unique // shards).bit_length())
    return pairs * both + (pairs * length_bits + len(bags.positions_P) * position_bits) / 8
