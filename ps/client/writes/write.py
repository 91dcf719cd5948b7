"""One write and its outcome on each shard: it is applied once everywhere, whatever the network and the routing do
meanwhile.

A shard recognises a write by its sequence and contents. So a write may be retried as long as every shard is sent the
same contents under the same sequence. To other shards, or with other ids, it may be sent only while no shard can have
applied its part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

from ps.client.batch import Batch
from ps.client.bound import same_split
from ps.errors import (
    InvalidArgument,
    NotFound,
    PsError,
    ResourceExhausted,
    StaleRouting,
    StateLost,
    TableExists,
)
from ps.wire.routing import Routing

T = TypeVar("T")


class Write:
    """One write: its sequence, its batch as it is split, and its outcome on each shard.

    Threads: the parts of one attempt may run on many; attempts come one after the other.
    """

    def __init__(self, sequence: int, batch: Batch, pushes: Mapping[str, int] | None = None) -> None:
        """pushes: for a push that is in no round, by table, which of this worker's pushes it is."""
        self.sequence = sequence
        self.pushes = pushes or {}
        self._batch = batch
        self._fate: dict[int, Literal["applied", "unknown"]] = {}

    def split_by(self, routing: Routing) -> Batch:
        """Returns the batch by this routing table; raises StaleRouting if it is too late for another one."""
        if not same_split(self._batch.routing, routing):
            if self._fate:
                raise StaleRouting(f"the routing table is {routing.epoch} now, and was {self._batch.epoch}")
            self._batch = self._batch.split_by(routing)
        return self._batch

    def attempt(self, shard: int, call: Callable[[], T]) -> T:
        """Sends a shard its part. From then on the part may have been applied, unless the shard says that it refused
        it."""
        before = self._fate.get(shard)
        self._fate.setdefault(shard, "unknown")
        try:
            answer = call()
        except PsError as error:
            if before is None and changed_nothing(error):
                del self._fate[shard]
            raise
        self._fate[shard] = "applied"
        return answer

    @property
    def is_applied(self) -> bool:
        """Whether every shard that has a part of the write, or was sent one, has answered that it applied it."""
        return all(self._fate.get(shard) == "applied" for shard in {*self._batch.shards, *self._fate})

    def fate(self) -> str:
        """Returns in words which write it is, and what has become of it on each shard."""
        tables = ", ".join(table.config.name for table in self._batch.tables)
        return f"write {self.sequence} of {tables}: {self._fates('perhaps applied by') or 'applied by no shard'}"

    def unfinished(self, stale: StaleRouting) -> StaleRouting:
        """Returns the error for a caller whose write can no longer follow the routing table."""
        if not self._fate:
            return StaleRouting(f"{stale}; no shard has applied any of this write")
        what = self._fates("perhaps applied by")
        return StaleRouting(
            f"the routing changed while write {self.sequence} was under way: by routing table {self._batch.epoch} it "
            f"was {what}, and by no other. It is not sent on, since ids that have moved might be applied twice; a new "
            f"write of the same would apply those shards' part again ({stale})"
        )

    def _fates(self, unknown: str) -> str:
        applied = sorted(shard for shard, fate in self._fate.items() if fate == "applied")
        fates = (("applied by", applied), (unknown, sorted(self._fate.keys() - set(applied))))
        return " and ".join(f"{how} shards {shards}" for how, shards in fates if shards)


def changed_nothing(error: PsError) -> bool:
    """Returns whether an error proves that the shard applied nothing. A limit without a hint, a conflict, and errors
    that are not the shard's answer do not prove it."""
    if isinstance(error, ResourceExhausted):
        return error.retry_after_s is not None
    return isinstance(error, (InvalidArgument, NotFound, StaleRouting, StateLost, TableExists))
