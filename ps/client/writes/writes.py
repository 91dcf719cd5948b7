"""What writes: pushes, upserts, assigns and removals, each shard's part of them, concurrently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ps.arrays import Counts, Flags, Rows
from ps.client.batch import Batch
from ps.client.bound import NO_HANDLE, UNKNOWN_VERSIONS, Handle, Versions
from ps.client.connection.connection import Connection
from ps.client.connection.pool import current_task
from ps.client.connection.retry import Deadline
from ps.client.reads.exchange import by_step_or_ids
from ps.client.reads.pulled import put_flags
from ps.client.writes import leaving
from ps.client.writes.outgoing import Outgoing
from ps.client.writes.write import Write
from ps.errors import StaleRouting
from ps.round import Round
from ps.v1 import embedding_pb2 as pb
from ps.wire import blocks, codec, methods
from ps.wire.blocks import EncodedBlock
from ps.wire.methods import Method

T = TypeVar("T")

ROUND_SHARE, ROUND_SPARE_S = 0.9, 0.2
"""Of the time left, for which a shard may wait for the other ranks of a round; and what is kept for its answer, of half
of the time at most."""

NO_POSITIVES: Mapping[str, Counts] = {}


class Writes:
    """One worker's writes. Threads: any, one at a time for the same Write."""

    def __init__(self, connection: Connection, worker_id: int) -> None:
        self.connection = connection
        self.worker_id = worker_id

    def push(
        self,
        write: Write,
        parts: Sequence[Outgoing],
        deadline: Deadline,
        handle: Handle = NO_HANDLE,
        versions: Versions = UNKNOWN_VERSIONS,
        positives: Mapping[str, Counts] = NO_POSITIVES,
        place: Round | None = None,
    ) -> None:
        """Gradients of each table, and occurrences in positive samples, to every shard; of a round also to those that
        have none of the ids."""

        def run(batch: Batch) -> None:
            grouped = [part.by_shard(table) for table, part in zip(batch.tables, parts, strict=True)]

            def one(shard: int) -> Callable[[], bytes]:
                shapes, body = [], []
                for table, part in zip(batch.tables, grouped, strict=True):
                    of_bags, encoded = part.bag_blocks(table, shard), part.blocks(table, shard)
                    shape = table.shape_of(shard, encoded, positives.get(table.config.name), of_bags)
                    shape.pushes = write.pushes.get(table.config.name, 0)
                    shapes.append(shape)
                    body += [*of_bags, *encoded]

                def by(step: int) -> bytes:
                    head = self._push_head(write, batch, shard, step, shapes)
                    head.pulled_version = versions.of(shard, batch.routing)

                    def send(address: str) -> bytes:
                        if place is not None:
                            _put_round(head, place, deadline)
                        # A part that nobody waits for any more is not to wait for the others.
                        begun = None if place is None else deadline.when_ended
                        messages = _messages(pb.PushChunk(head=head), body)
                        return self.connection.stream_in(address, methods.PUSH, head, messages, deadline, begun)

                    return self._send(write, batch, shard, send, deadline)

                return lambda: by_step_or_ids(handle.on(shard, batch.routing), by)

            shards = batch.shards if place is None else range(len(batch.routing.shards))
            self.connection.each_to_its_end([one(shard) for shard in shards], deadline)

        self._routed(write, run, deadline)

    def set_rows(self, mode: pb.WriteMode, write: Write, values_UD: Rows, deadline: Deadline) -> Flags:
        """Sets values of the batch's one table; True where a row existed."""

        def run(batch: Batch) -> Flags:
            (table,) = batch.tables
            grouped_UD = table.by_shard(values_UD)

            def part(shard: int, address: str) -> bytes:
                rows = blocks.whole(grouped_UD[table.split.of(shard)])
                head = pb.WriteHead(
                    header=self._header(batch),
                    sequence=write.sequence,
                    mode=mode,
                    ids=table.part(shard),
                    shape=table.shape_of(shard, rows),
                )
                return self.connection.stream_in(
                    address, methods.WRITE, head, _messages(pb.WriteChunk(head=head), rows), deadline
                )

            return self._flags(write, batch, part, methods.WRITE, pb.WriteResponse, deadline)

        return self._routed(write, run, deadline)

    def remove(self, write: Write, deadline: Deadline, statistics_U2: npt.NDArray[np.uint32] | None = None) -> Flags:
        """Drops rows of the batch's one table; True where a row existed. With statistics, as exported: and still had
        them; the others stay."""

        def run(batch: Batch) -> Flags:
            (table,) = batch.tables

            def part(shard: int, address: str) -> bytes:
                ids = table.part(shard)
                request = pb.RemoveRequest(header=self._header(batch), sequence=write.sequence, ids=ids)
                if statistics_U2 is not None:
                    request.statistics = codec.encode_statistics(statistics_U2[table.positions(shard)])
                return self.connection.unary(address, methods.REMOVE, request, deadline)

            return self._flags(write, batch, part, methods.REMOVE, pb.RemoveResponse, deadline)

        return self._routed(write, run, deadline)

    def report_importance(self, write: Write, scores_U: Rows, deadline: Deadline) -> Flags:
        """Adds to the scores of the batch's one table; True where a row existed."""

        def run(batch: Batch) -> Flags:
            (table,) = batch.tables

            def part(shard: int, address: str) -> bytes:
                request = pb.ReportImportanceRequest(
                    header=self._header(batch),
                    sequence=write.sequence,
                    ids=table.part(shard),
                    scores=scores_U[table.positions(shard)].astype("<f4", copy=False).tobytes(),
                )
                return self.connection.unary(address, methods.REPORT_IMPORTANCE, request, deadline)

            return self._flags(write, batch, part, methods.REPORT_IMPORTANCE, pb.ReportImportanceResponse, deadline)

        return self._routed(write, run, deadline)

    def _routed(self, write: Write, run: Callable[[Batch], T], deadline: Deadline) -> T:
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

    def _send(self, write: Write, batch: Batch, shard: int, call: Callable[[str], bytes], deadline: Deadline) -> bytes:
        def attempt(address: str) -> bytes:
            return write.attempt(shard, lambda: call(address))

        return self.connection.on_shard(batch.routing, shard, attempt, deadline)

    def _flags(
        self,
        write: Write,
        batch: Batch,
        part: Callable[[int, str], bytes],
        method: Method,
        kind: type[pb.WriteResponse] | type[pb.RemoveResponse] | type[pb.ReportImportanceResponse],
        deadline: Deadline,
    ) -> Flags:
        """Every shard's answer to its part, in the order of the unique ids."""
        (table,) = batch.tables
        flags_U = np.zeros(len(table.unique_U), np.bool_)

        def one(shard: int) -> Callable[[], None]:
            def fill() -> None:
                answer = self._send(write, batch, shard, lambda address: part(shard, address), deadline)
                message = codec.parse(kind, answer)
                self.connection.traffic.answered(method, message)
                put_flags(flags_U, table.positions(shard), message.existed)

            return fill

        self.connection.each_to_its_end([one(shard) for shard in batch.shards], deadline)
        return flags_U

    def _push_head(
        self, write: Write, batch: Batch, shard: int, step: int, shapes: Sequence[pb.PushedTable]
    ) -> pb.PushHead:
        head = pb.PushHead(
            header=self._header(batch),
            sequence=write.sequence,
            tables=shapes,
        )
        ids = batch.ids(shard)
        if step:
            head.step.step = step
            head.ids_digest = codec.digest_ids(ids)
        else:
            head.ids.CopyFrom(ids)
        return head

    def _header(self, batch: Batch) -> pb.Header:
        return pb.Header(routing_epoch=batch.epoch, worker_id=self.worker_id)


def _put_round(head: pb.PushHead, place: Round, deadline: Deadline) -> None:
    """The shard gives up before the client does: its error says which ranks are missing."""
    head.round.group, head.round.number, head.round.rank, head.round.ranks = astuple(place)
    left_s = deadline.remaining_s()
    head.wait_ms = int(1000 * min(ROUND_SHARE * left_s, max(left_s - ROUND_SPARE_S, left_s / 2)))


def _messages(head: pb.PushChunk | pb.WriteChunk, body: Sequence[EncodedBlock]) -> Iterator[bytes]:
    yield head.SerializeToString()
    for payload in codec.pieces((block.data, block.unit) for block in body):
        yield codec.payload_message(payload)
