"""What a client has seen of each shard: so it notices a shard that came back without what it had acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ps.errors import RolledBack
from ps.wire.routing import ShardInfo


class Incarnations:
    """The shards of one service by number: which start of each was seen, and the highest version that a write was
    acknowledged with. What a read shows does not count: a crash may take it back, and nobody was told that it would
    not. Threads: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starts: dict[int, int] = {}
        self._acknowledged: dict[int, int] = {}
        self._lost: dict[int, str] = {}

    def see(self, shards: Sequence[ShardInfo]) -> None:
        """Notes the shards of a routing table."""
        with self._lock:
            for shard in shards:
                if not shard.incarnation:
                    continue
                if self._starts.get(shard.shard_id, 0) >= shard.incarnation:
                    continue  # known, or told by whoever knows less
                self._starts[shard.shard_id] = shard.incarnation
                had = self._acknowledged.get(shard.shard_id, 0)
                self._acknowledged[shard.shard_id] = min(had, shard.came_back_at)
                if 0 < shard.came_back_at < had:  # at 0 it is new, or says itself that its rows are gone
                    self._lost[shard.shard_id] = (
                        f"shard {shard.shard_id} came back at version {shard.came_back_at:,}, and had acknowledged "
                        f"version {had:,}: what came between is gone there, and on no other shard. Restore the whole "
                        "service from its newest checkpoint (psctl checkpoint ls, psctl restore), and rewind the "
                        "trainer to it; or go on, and the rows of this shard are older than those of the others"
                    )

    def acknowledged(self, shard: int, incarnation: int, version: int) -> None:
        """Notes that a write was acknowledged with this version by that start of a shard."""
        with self._lock:
            if self._starts.get(shard, 0) == incarnation and version > self._acknowledged.get(shard, 0):
                self._acknowledged[shard] = version

    def check(self, shard: int) -> None:
        """Raises RolledBack, once, if the shard came back without what it had acknowledged."""
        if shard in self._lost:
            with self._lock:
                lost = self._lost.pop(shard, None)
            if lost is not None:
                raise RolledBack(lost)
