"""What reads: a batch's messages to every shard that has a part of it, concurrently. Any read may run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

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

T = TypeVar("T")


@dataclass(frozen=True)
class PullOptions:
    """How to pull."""

    formats: Sequence[TableFormat]
    """Of each table of the batch."""
    return_exists: bool = False


class Exchange:
    """One worker's reads. Threads: any."""

    def __init__(self, connection: Connection, worker_id: int) -> None:
        self.connection = connection
        self.worker_id = worker_id

    def prepare(self, batch: Batch, step: int, shard: int, deadline: Deadline) -> bool:
        """Sends one shard its part, once. False if it was refused: a hint may fail, the pull will carry the ids."""
        header = pb.Header(routing_epoch=batch.epoch, worker_id=self.worker_id)
        request = pb.PrepareRequest(header=header, step=step, ids=batch.named_ids(shard))
        try:
            address = self.connection.address_of(batch.routing, shard)
            self.connection.calls.unary(address, methods.PREPARE, request, deadline)
        except PsError:
            return False
        return True

    def forget(self, step: int, shard: int, routing: Routing, deadline: Deadline) -> None:
        """Tells one shard, once, that no push of this step will follow. A hint, too: where it is lost, the step's lease
        ends it."""
        header = pb.Header(routing_epoch=routing.epoch, worker_id=self.worker_id)
        with suppress(PsError):
            address = self.connection.address_of(routing, shard)
            self.connection.calls.unary(address, methods.FORGET, pb.ForgetRequest(header=header, step=step), deadline)

    def pull(self, batch: Batch, options: PullOptions, deadline: Deadline, handle: Handle = NO_HANDLE) -> Pulled:
        """Rows from every shard, by the handle where the shard holds the step and by ids elsewhere."""

        def run(batch: Batch) -> Pulled:
            pulled = Pulled(batch, options.formats, options.return_exists)

            def one(shard: int) -> Callable[[], None]:
                call = partial(self._pull, pulled, shard, options, deadline)
                return lambda: by_step_or_ids(handle.on(shard, batch.routing), call)

            self.connection.tasks.each([one(shard) for shard in batch.shards], deadline)
            pulled.add_up()
            return pulled

        return self.connection.routed(batch.split_by, run, deadline)

    def _pull(self, pulled: Pulled, shard: int, options: PullOptions, deadline: Deadline, by_step: int) -> None:
        batch = pulled.batch
        header = pb.Header(routing_epoch=batch.epoch, worker_id=self.worker_id)
        formats = [form.to_proto() for form in options.formats]
        request = pb.PullRequest(header=header, formats=formats, return_exists=options.return_exists)
        if by_step:
            request.step.step = by_step
        else:
            request.ids.CopyFrom(batch.ids(shard))

        def call(address: str) -> None:
            with closing(self.connection.calls.stream_out(address, methods.PULL, request, deadline)) as chunks:
                head = pulled.receive(shard, chunks)
            self.connection.calls.traffic.answered(methods.PULL, head)

        self.connection.on_shard(batch.routing, shard, call, deadline)


def by_step_or_ids(step: int, call: Callable[[int], T]) -> T:
    """call(step), and with step 0, which means by ids, when the shard does not know the step."""
    if step:
        try:
            return call(step)
        except StepNotFound:
            pass
    return call(0)
