"""Splits the bags of a table in a step by shard: the bags that have ids there, and these ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ps.arrays import Ints
from ps.errors import DtypeMismatch, InvalidArgument, LengthMismatch
from ps.wire.bags import PooledBags, encode_bags
from ps.wire.routing import Split


@dataclass(frozen=True, eq=False)
class ShardBags:
    """The R of a step's B bags that have an id on one shard, ascending."""

    bags_R: Ints
    lengths_R: Ints
    """How many ids each bag has on the shard."""
    positions_P: Ints
    """The positions of those ids in the shard's part of the ids."""

    def __len__(self) -> int:
        return len(self.bags_R)

    def encoded(self, n_ids: int) -> bytes:
        """Returns the bags as bytes for a shard that has n_ids of the ids."""
        return encode_bags(self.lengths_R, self.positions_P, n_ids)


def checked_bags(bags: PooledBags, n_ids: int, table: str) -> PooledBags:
    """Returns a copy in int64. Raises DtypeMismatch, LengthMismatch, and InvalidArgument for a position outside of [0,
    n_ids)."""
    positions_P, lengths_B = np.asarray(bags.positions_P), np.asarray(bags.lengths_B)
    if not (positions_P.dtype.kind in "iu" and lengths_B.dtype.kind in "iu"):
        raise DtypeMismatch(f"bags of table {table!r}: {positions_P.dtype}, {lengths_B.dtype}: give two of integers")
    if positions_P.ndim != 1 or lengths_B.ndim != 1 or (len(lengths_B) and lengths_B.min() < 0):
        raise LengthMismatch(f"bags of table {table!r}: give [P] positions and [B] lengths of 0 and more")
    if lengths_B.sum() != len(positions_P):
        raise LengthMismatch(
            f"bags of table {table!r}: {len(positions_P)} positions, but lengths that sum to {lengths_B.sum()}: "
            "make them agree"
        )
    if len(positions_P) and not (positions_P.min() >= 0 and positions_P.max() < n_ids):
        raise InvalidArgument(f"bags of table {table!r}: positions must be within [0, {n_ids}), those of its ids")
    return PooledBags(positions_P.astype(np.int64), lengths_B.astype(np.int64))


def split_bags(bags: PooledBags, split: Split) -> list[ShardBags]:
    """Returns the bags of each shard. The ids of a bag keep their order."""
    at_P = bags.positions_P
    if split.order_N is not None:
        at_U = np.empty(len(split.ids_N), np.int64)
        at_U[split.order_N] = np.arange(len(at_U))
        at_P = at_U[at_P]
    bag_P = np.repeat(np.arange(len(bags)), bags.lengths_B)
    parts = []
    for shard in range(len(split.starts) - 1):
        ids = split.of(shard)
        here_P = np.flatnonzero((at_P >= ids.start) & (at_P < ids.stop))
        lengths_B = np.bincount(bag_P[here_P], minlength=len(bags))
        bags_R = np.flatnonzero(lengths_B)
        parts.append(ShardBags(bags_R, lengths_B[bags_R], at_P[here_P] - ids.start))
    return parts
