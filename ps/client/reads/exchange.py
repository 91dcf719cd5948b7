"""Reads: sends a batch's messages to every shard that has a part of it, concurrently. Any read may be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial

from ps.client.batch import Batch
from ps.client.bound import NO_HANDLE, Handle
from ps.client.connection.connection import Connection
from ps.client.connection.retry import Deadline
from ps.client.reads.pulled import Pulled
from ps.errors import PsError, StepNotFound
from ps.v1 import embedding_pb2 as pb
from ps.wire import methods
from ps.wire.formats import TableFormat
from ps.wire.routing import Routing


@dataclass(frozen=True)
class PullOptions:
    """The options of a pull."""

    formats: Sequence[TableFormat]
    """The format of each table of the batch."""
    return_exists: bool = False


class Exchange:
    """Makes the reads of one worker. Threads: any."""

    def __init__(self, connection: Connection, worker_id: int) -> None:
        self.connection = connection
        self.worker_id = worker_id

    def prepare(self, batch: Batch, step: int, shard: int, deadline: Deadline) -> bool:
        """Sends one shard its part, once. Returns False if it was refused: a prepare is a hint, and the pull will send
        the ids."""
        header = pb.Header(routing_epoch=batch.epoch, worker_id=self.worker_id)
        request = pb.PrepareRequest(header=header, step=step, ids=batch.named_ids(shard))
        try:
            address = self.connection.address_of(batch.routing, shard)
            self.connection.calls.unary(address, methods.PREPARE, request, deadline)
        except PsError:
            return False
        return True

    def forget(self, step: int, shard: int, routing: Routing, deadline: Deadline) -> None:
        """Tells one shard, once, that no push of this step will follow. This is a hint: if it is lost, the step's lease
        ends after its time."""
        header = pb.Header(routing_epoch=routing.epoch, worker_id=self.worker_id)
        with suppress(PsError):
            address = self.connection.address_of(routing, shard)
            self.connection.calls.unary(address, methods.FORGET, pb.ForgetRequest(header=header, step=step), deadline)

    def pull(self, batch: Batch, options: PullOptions, deadline: Deadline, handle: Handle = NO_HANDLE) -> Pulled:
        """Pulls rows from every shard, by the step's handle if the shard holds the step, otherwise by ids."""
        return self.connection.routed(batch.split_by, partial(self._pull, options, deadline, handle), deadline)

    def _pull(self, options: PullOptions, deadline: Deadline, handle: Handle, batch: Batch) -> Pulled:
        pulled = Pulled(batch, options.formats, options.return_exists)
        part = partial(self._part, pulled, options, deadline, handle)
        self.connection.tasks.each([partial(part, shard) for shard in batch.shards], deadline)
        pulled.add_up()
        return pulled

    def _part(self, pulled: Pulled, options: PullOptions, deadline: Deadline, handle: Handle, shard: int) -> None:
        """Pulls one shard's part: by the step, then by ids if the shard does not hold the step."""
        batch = pulled.batch
        request = pb.PullRequest(
            header=pb.Header(routing_epoch=batch.epoch, worker_id=self.worker_id),
            formats=[form.to_proto() for form in options.formats],
            return_exists=options.return_exists,
        )
        receive = partial(self._receive, pulled, shard, request, deadline)
        if step := handle.on(shard, batch.routing):
            request.step.step = step
            with suppress(StepNotFound):
                return self.connection.on_shard(batch.routing, shard, receive, deadline)
        request.ids.CopyFrom(batch.ids(shard))
        return self.connection.on_shard(batch.routing, shard, receive, deadline)

    def _receive(self, pulled: Pulled, shard: int, request: pb.PullRequest, deadline: Deadline, address: str) -> None:
        with closing(self.connection.calls.stream_out(address, methods.PULL, request, deadline)) as chunks:
            head = pulled.receive(shard, chunks)
        self.connection.calls.traffic.answered(methods.PULL, head)
