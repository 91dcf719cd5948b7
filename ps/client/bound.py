"""Values that hold under one routing table only: step handles and versions. They are kept by shard number, and under
another table the same number is another shard, or the same shard with other ids. So callers pass the routing table that
they use, and under any other than its own a value says that nothing is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ps.wire.routing import Routing


def same_split(one: Routing, other: Routing) -> bool:
    """Returns whether both routing tables send every id to the same shard. Addresses may differ: a restarted shard has
    a new one.

    For the tables of one service, the epoch would be enough. But another service at the same address may have the same
    epoch.
    """
    return one is other or (
        one.epoch == other.epoch
        and len(one.shards) == len(other.shards)
        and np.array_equal(one.shard_of_partition, other.shard_of_partition)
    )


@dataclass(frozen=True)
class Handle:
    """A prepared step: its number, and the shards that hold it."""

    step: int = 0
    routing: Routing | None = None
    shards: frozenset[int] = frozenset()

    def on(self, shard: int, routing: Routing) -> int:
        """Returns the step's number on a shard that holds exactly the ids that this routing table gives it; 0 for
        others, which must be sent the ids."""
        known = self.routing is not None and shard in self.shards and same_split(self.routing, routing)
        return self.step if known else 0


@dataclass(frozen=True)
class Versions:
    """Each shard's version at a read."""

    routing: Routing | None = None
    by_shard: Mapping[int, int] = field(default_factory=dict)

    def of(self, shard: int, routing: Routing) -> int:
        """Returns the version that a shard's gradients were computed from; 0 if it is not known."""
        known = self.routing is not None and same_split(self.routing, routing)
        return self.by_shard.get(shard, 0) if known else 0

    def oldest(self, other: Versions) -> Versions:
        """Returns the lower version for each shard, for gradients that were computed from both reads. If the routing
        tables differ, or one is not known, no version is known."""
        if self.routing is None or other.routing is None or not same_split(self.routing, other.routing):
            return UNKNOWN_VERSIONS
        both = {**self.by_shard, **other.by_shard}
        return Versions(self.routing, {shard: min(self.by_shard.get(shard, v), v) for shard, v in both.items()})


NO_HANDLE = Handle()
UNKNOWN_VERSIONS = Versions()
