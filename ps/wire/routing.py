"""Routes ids: id -> partition -> shard. Pure: a routing table is a value, and splitting ids by it has no side
effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ps.config import PARTITIONS
from ps.errors import InvalidArgument
from ps.runtime.clock import Clock
from ps.v1 import control_pb2 as pb


@dataclass(frozen=True)
class ShardInfo:
    """Where a shard is, and its state."""

    shard_id: int
    address: str
    metrics_address: str = ""
    state: str = "SERVING"
    incarnation: int = 0
    """Another at each start of the shard; 0: it does not say."""
    came_back_at: int = 0
    """The version with which this start began to serve."""
    epoch: int = 0
    """The epoch of the routing table that its log knows, 0: none. It is not sent to clients."""

    def to_proto(self) -> pb.ShardInfo:
        """Returns it as a message."""
        return pb.ShardInfo(
            shard_id=self.shard_id,
            address=self.address,
            metrics_address=self.metrics_address,
            state=self.state,
            incarnation=self.incarnation,
            came_back_at=self.came_back_at,
        )

    @classmethod
    def from_proto(cls, message: pb.ShardInfo) -> ShardInfo:
        """Returns what a message says."""
        where = (message.shard_id, message.address, message.metrics_address, message.state)
        return cls(*where, message.incarnation, message.came_back_at)


@dataclass(frozen=True)
class Routing:
    """Which shard owns which partition. A table without shards is not known yet.

    Every start of a service has an `epoch` of its own, which rises when partitions move; a shard refuses requests of
    any other epoch. Addresses and states may change under one epoch.
    """

    epoch: int
    shards: tuple[ShardInfo, ...]
    shard_of_partition: npt.NDArray[np.int32]
    """Positions in `shards`, [PARTITIONS]."""
    coordinator: str = ""
    """The address at which tables are created."""

    @classmethod
    def even(cls, epoch: int, shards: Sequence[ShardInfo], coordinator: str = "") -> Routing:
        """Returns a table that gives the shards equal, contiguous runs of partitions."""
        owners = np.arange(PARTITIONS, dtype=np.int64) * len(shards) // PARTITIONS
        return cls(epoch, tuple(shards), owners.astype(np.int32), coordinator)

    def to_proto(self) -> pb.Routing:
        """Returns the table as a message."""
        return pb.Routing(
            epoch=self.epoch,
            shards=[shard.to_proto() for shard in self.shards],
            shard_of_partition=self.shard_of_partition.astype("<u2").tobytes(),
            coordinator=self.coordinator,
        )

    @classmethod
    def from_proto(cls, message: pb.Routing) -> Routing:
        """Returns the table of a message; raises InvalidArgument if it does not cover every partition."""
        size, shards = len(message.shard_of_partition), len(message.shards)
        if size != 2 * PARTITIONS:
            raise InvalidArgument(f"routing table of {size} bytes; {PARTITIONS} partitions take {2 * PARTITIONS}")
        owners = np.frombuffer(message.shard_of_partition, dtype="<u2").astype(np.int32)
        if owners.max() >= shards:
            raise InvalidArgument(f"routing table gives a partition to shard {owners.max()} of {shards}")
        infos = tuple(map(ShardInfo.from_proto, message.shards))
        return cls(message.epoch, infos, owners, message.coordinator)


UNKNOWN = Routing.even(0, [])
"""The routing table of a client that has not been told one yet."""


def new_epoch(clock: Clock) -> int:
    """Returns the milliseconds since 1970, an epoch that no earlier service on the same ports had."""
    return int(clock.wall() * 1000)


@dataclass(frozen=True)
class Split:
    """Ids grouped by shard: shard s has `ids_N[starts[s]:starts[s + 1]]`; `order_N` says where each came from."""

    ids_N: npt.NDArray[np.int64]
    order_N: npt.NDArray[np.int64] | None
    """The positions of the ids in the unsplit ids; None if the order did not change (one shard)."""
    starts: list[int]

    def of(self, shard: int) -> slice:
        """Returns the ids of one shard."""
        return slice(self.starts[shard], self.starts[shard + 1])


def split_by_shard(ids_N: npt.NDArray[np.int64], routing: Routing) -> Split:
    """Groups ids by their shard; the order within a shard stays."""
    n_shards = len(routing.shards)
    if n_shards == 1:
        return Split(ids_N, None, [0, len(ids_N)])
    from ps.kernels.index.hashing import group, partitions  # numba is loaded by the first call, not by the import

    partition_N = np.empty(len(ids_N), dtype=np.int32)
    partitions(ids_N, partition_N)
    order_N, starts_S = group(routing.shard_of_partition[partition_N], n_shards)
    return Split(ids_N[order_N], order_N, starts_S.tolist())
