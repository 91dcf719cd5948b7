"""Pushes: sends the gradients of each table to every shard that has a part of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from functools import partial

from ps.arrays import Counts
from ps.client.batch import Batch
from ps.client.bound import NO_HANDLE, UNKNOWN_VERSIONS, Handle, Versions
from ps.client.connection.retry import Deadline
from ps.client.writes.delivery import Delivery, messages
from ps.client.writes.outgoing import Outgoing
from ps.client.writes.write import Write
from ps.errors import StepNotFound
from ps.round import Round
from ps.v1 import embedding_pb2 as pb
from ps.wire import methods
from ps.wire.blocks import EncodedBlock

ROUND_SHARE, ROUND_SPARE_S = 0.9, 0.2
"""The share of the remaining time that a shard may wait for the other ranks of a round, and the seconds kept for its
answer, at most half of that time."""


@dataclass(frozen=True)
class Push:
    """The contents of a push, beside the ids of its batch."""

    parts: Sequence[Outgoing]
    """The gradients of each table of the batch."""
    positives: Mapping[str, Counts] = field(default_factory=dict)
    """By table, how often each unique id occurs in positive samples."""
    versions: Versions = UNKNOWN_VERSIONS
    """The versions of the shards that the gradients were computed from."""
    in_round: Round | None = None
    """The round that the push is part of; then shards that have none of its ids get it too."""


class Pushes:
    """Makes the pushes of one worker. Threads: any, one at a time for the same Write."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def push(self, write: Write, push: Push, deadline: Deadline, handle: Handle = NO_HANDLE) -> None:
        """Sends every shard its part, by the step's handle if the shard holds the step, otherwise with the ids."""
        self._delivery.routed(write, partial(self._push, write, push, deadline, handle), deadline)

    def _push(self, write: Write, push: Push, deadline: Deadline, handle: Handle, batch: Batch) -> None:
        grouped = [part.by_shard(table) for table, part in zip(batch.tables, push.parts, strict=True)]
        shards = batch.shards if push.in_round is None else range(len(batch.routing.shards))
        part = partial(self._part, write, push, deadline, handle, batch, grouped)
        self._delivery.connection.tasks.each([partial(part, shard) for shard in shards], deadline, writes=True)

    def _part(
        self,
        write: Write,
        push: Push,
        deadline: Deadline,
        handle: Handle,
        batch: Batch,
        grouped: Sequence[Outgoing],
        shard: int,
    ) -> bytes:
        """Writes one shard's part and sends it: by the step, then with the ids if the shard does not hold the step."""
        shapes: list[pb.PushedTable] = []
        body: list[EncodedBlock] = []
        for table, part in zip(batch.tables, grouped, strict=True):
            of_bags, encoded = part.bag_blocks(table, shard), part.blocks(table, shard)
            shape = table.shape_of(shard, encoded, push.positives.get(table.config.name), of_bags)
            shape.pushes = write.pushes.get(table.config.name, 0)
            shapes.append(shape)
            body += [*of_bags, *encoded]
        version = push.versions.of(shard, batch.routing)

        def send(step: int) -> bytes:
            head = pb.PushHead(
                header=self._delivery.header(batch), sequence=write.sequence, tables=shapes, pulled_version=version
            )
            if step:
                head.step.step = step
                head.ids_digest = batch.ids_digest(shard)
            else:
                head.ids.CopyFrom(batch.ids(shard))
            call = partial(self._call, head, body, push.in_round, deadline)
            return self._delivery.send(write, batch, shard, call, deadline)

        if step := handle.on(shard, batch.routing):
            with suppress(StepNotFound):
                return send(step)
        return send(0)

    def _call(
        self, head: pb.PushHead, body: Sequence[EncodedBlock], in_round: Round | None, deadline: Deadline, address: str
    ) -> bytes:
        if in_round is not None:
            _put_round(head, in_round, deadline)
        # A part that nobody waits for any more is not to wait for the others.
        begun = None if in_round is None else deadline.when_ended
        chunks = messages(pb.PushChunk(head=head), body)
        return self._delivery.connection.calls.stream_in(address, methods.PUSH, head, chunks, deadline, begun)


def _put_round(head: pb.PushHead, place: Round, deadline: Deadline) -> None:
    """Writes into a request which round it belongs to and how long the shard may wait: less than the client does, so
    that the shard can say which ranks are missing."""
    head.round.group, head.round.number, head.round.rank, head.round.ranks = astuple(place)
    left_s = deadline.remaining_s()
    head.wait_ms = int(1000 * min(ROUND_SHARE * left_s, max(left_s - ROUND_SPARE_S, left_s / 2)))
