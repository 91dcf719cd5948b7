"""Writes of single rows: upserts, assigns, removals, reported importance. Each shard gets its part, side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from ps.arrays import Flags, Rows
from ps.client.batch import Batch
from ps.client.connection.retry import Deadline
from ps.client.reads.pulled import put_flags
from ps.client.writes.delivery import Delivery, messages
from ps.client.writes.write import Write
from ps.v1 import embedding_pb2 as pb
from ps.wire import blocks, codec, methods
from ps.wire.methods import Method

Answer = pb.WriteResponse | pb.RemoveResponse | pb.ReportImportanceResponse
SendPart = Callable[[Batch, int, str], bytes]
"""A function that sends one shard of a batch its part, at an address, and returns the answer."""


class Writes:
    """Makes the writes of single rows of one worker. Threads: any, one at a time for the same Write."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._calls = delivery.connection.calls

    def set_rows(self, mode: pb.WriteMode, write: Write, values_UD: Rows, deadline: Deadline) -> Flags:
        """Sets the values of rows; returns which rows existed, bool [N]."""

        def part(batch: Batch, shard: int, address: str) -> bytes:
            (table,) = batch.tables
            rows = blocks.whole(values_UD[table.positions(shard)])
            head = pb.WriteHead(
                header=self._delivery.header(batch),
                sequence=write.sequence,
                mode=mode,
                ids=table.part(shard),
                shape=table.shape_of(shard, rows),
            )
            chunks = messages(pb.WriteChunk(head=head), rows)
            return self._calls.stream_in(address, methods.WRITE, head, chunks, deadline)

        return self._to_shards(write, part, methods.WRITE, pb.WriteResponse, deadline)

    def remove(self, write: Write, deadline: Deadline, statistics_U2: npt.NDArray[np.uint32] | None = None) -> Flags:
        """Drops rows; returns which rows existed. With statistics, as exported, only rows that still have these
        statistics are dropped, and these are the ones returned as True."""

        def part(batch: Batch, shard: int, address: str) -> bytes:
            (table,) = batch.tables
            request = pb.RemoveRequest(
                header=self._delivery.header(batch), sequence=write.sequence, ids=table.part(shard)
            )
            if statistics_U2 is not None:
                request.statistics = codec.encode_statistics(statistics_U2[table.positions(shard)])
            return self._calls.unary(address, methods.REMOVE, request, deadline)

        return self._to_shards(write, part, methods.REMOVE, pb.RemoveResponse, deadline)

    def report_importance(self, write: Write, scores_U: Rows, deadline: Deadline) -> Flags:
        """Adds to the scores of rows; returns which rows existed."""

        def part(batch: Batch, shard: int, address: str) -> bytes:
            (table,) = batch.tables
            request = pb.ReportImportanceRequest(
                header=self._delivery.header(batch),
                sequence=write.sequence,
                ids=table.part(shard),
                scores=scores_U[table.positions(shard)].astype("<f4", copy=False).tobytes(),
            )
            return self._calls.unary(address, methods.REPORT_IMPORTANCE, request, deadline)

        return self._to_shards(write, part, methods.REPORT_IMPORTANCE, pb.ReportImportanceResponse, deadline)

    def _to_shards(self, write: Write, part: SendPart, method: Method, kind: type[Answer], deadline: Deadline) -> Flags:
        """Sends every shard its part; returns the answers in the order of the unique ids."""

        def run(batch: Batch) -> Flags:
            (table,) = batch.tables
            flags_U = np.zeros(len(table.unique_U), np.bool_)

            def one(shard: int) -> None:
                answer = self._delivery.send(write, batch, shard, partial(part, batch, shard), deadline)
                message = codec.parse(kind, answer)
                self._calls.traffic.answered(method, message)
                put_flags(flags_U, table.positions(shard), message.existed)

            self._delivery.connection.tasks.each([partial(one, shard) for shard in batch.shards], deadline, writes=True)
            return flags_U

        return self._delivery.routed(write, run, deadline)
