"""Sends the parts of a write to their shards: with retries, by a new routing table where that is safe; and notes the
outcome of a write whose caller does not wait any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ps.client.batch import Batch
from ps.client.connection.connection import Connection
from ps.client.connection.pool import current_task
from ps.client.connection.retry import Deadline
from ps.client.writes import leaving
from ps.client.writes.write import Write
from ps.errors import StaleRouting
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec
from ps.wire.blocks import EncodedBlock

T = TypeVar("T")


class Delivery:
    """Sends the writes of one worker. Threads: any, one at a time for the same Write."""

    def __init__(self, connection: Connection, worker_id: int) -> None:
        self.connection = connection
        self._worker_id = worker_id

    def header(self, batch: Batch) -> pb.Header:
        """Returns the header of a request that is made of this batch."""
        return pb.Header(routing_epoch=batch.epoch, worker_id=self._worker_id)

    def routed(self, write: Write, run: Callable[[Batch], T], deadline: Deadline) -> T:
        """Returns run(the write's batch). Raises StaleRouting if the routing has changed and it is too late to follow
        it."""
        if (task := current_task()) is not None:
            task.outcome.write = write
        try:
            answer = self.connection.routed(write.split_by, run, deadline)
        except StaleRouting as stale:
            raise write.unfinished(stale) from stale
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C: nobody else will say what became of it
                leaving.interrupted(write)
            raise
        leaving.ended(write)
        return answer

    def send(self, write: Write, batch: Batch, shard: int, call: Callable[[str], bytes], deadline: Deadline) -> bytes:
        """Returns call(the shard's address), with retries; the write notes the outcome of its part."""

        def attempt(address: str) -> bytes:
            shards = self.connection.routing.shards
            asked = shards[shard] if shard < len(shards) else None
            answer = write.attempt(shard, lambda: call(address))
            if (
                asked is not None and asked.address == address
            ):  # else it came back just now, and who answered is not known
                version = codec.parse(pb.PushResponse, answer).version  # the first field of every write's answer
                self.connection.incarnations.acknowledged(asked.shard_id, asked.incarnation, version)
            return answer

        return self.connection.on_shard(batch.routing, shard, attempt, deadline)


def messages(head: pb.PushChunk | pb.WriteChunk, body: Sequence[EncodedBlock]) -> Iterator[bytes]:
    """Yields the messages of a stream: the head, then the body in chunks."""
    yield head.SerializeToString()
    for payload in codec.pieces((block.data, block.unit) for block in body):
        yield codec.payload_message(payload)
