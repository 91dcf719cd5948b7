"""The state that all calls of one client share: its connection, its identity as a worker, its settings and its
counters."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar

from google.protobuf.message import Message

from ps.array_like import ArrayLike
from ps.client.batch import Batch, make_batch
from ps.client.connection.connection import Connection
from ps.client.connection.retry import Deadline, retry
from ps.client.lease import Lease
from ps.client.reads.exchange import Exchange
from ps.client.writes.delivery import Delivery
from ps.client.writes.push_numbers import PushNumbers
from ps.client.writes.pushes import Pushes
from ps.client.writes.write import Write
from ps.client.writes.writes import Writes
from ps.errors import InvalidArgument
from ps.seconds import seconds
from ps.wire.bags import PooledBags
from ps.wire.formats import Formats, WireDtype
from ps.wire.methods import Method

T = TypeVar("T")


class Session:
    """One worker's connection to the service, and the numbers of its steps and writes. Threads: any."""

    def __init__(
        self,
        connection: Connection,
        wire_dtype: WireDtype | Mapping[str, WireDtype],
        compress_ids: bool,
        timeout_s: float,
    ) -> None:
        self.connection = connection
        self.formats = Formats(wire_dtype)
        self.compress_ids = compress_ids
        self.timeout_s = seconds(timeout_s)
        self.worker_id = connection.entropy.getrandbits(63)
        self.exchange = Exchange(connection, self.worker_id)
        self._delivery = Delivery(connection, self.worker_id)
        self.pushes = Pushes(self._delivery)
        self.writes = Writes(self._delivery)
        self.step_numbers = itertools.count(1)
        self.push_numbers = PushNumbers()
        self.abandoned: deque[Lease] = deque()
        """Leases of steps that no code refers to any more. Finalizers append to it and do nothing else, because they
        may run anywhere, even while a lock is held."""
        self._sequences = itertools.count(1)

    def deadline(self, timeout_s: float | None) -> Deadline:
        """Returns the deadline of a call that begins now: after `timeout_s`, or, if that is None, after the client's
        own."""
        return self.connection.deadline(self.timeout_s if timeout_s is None else timeout_s)

    def batch(
        self,
        ids: Mapping[str, ArrayLike],
        deadline: Deadline,
        counts: Mapping[str, ArrayLike] | None = None,
        bags: Mapping[str, PooledBags] | None = None,
    ) -> Batch:
        """Deduplicates ids and splits them by shard. Raises InvalidArgument for counts or bags of other tables,
        TableNotFound, and the errors of `make_batch`."""
        if not ids:
            raise InvalidArgument("no tables given: pass {table: ids}")
        if counts is not None and set(counts) != set(ids):
            raise InvalidArgument(
                f"counts for tables {sorted(counts)}, ids for {sorted(ids)}: give counts only of tables with ids"
            )
        if bags is not None and not set(bags) <= set(ids):
            raise InvalidArgument(
                f"bags for tables {sorted(bags)}, ids for {sorted(ids)}: give bags only of tables with ids"
            )
        configs = {name: self.connection.table(name, deadline) for name in ids}
        return make_batch(ids, configs, self.connection.routing, counts, self.compress_ids, bags)

    def new_write(self, batch: Batch) -> Write:
        """Makes a write with a sequence that no other write of this worker has. Call it when the write is about to be
        sent, because the shards' ledgers remember only the last sequences."""
        return Write(next(self._sequences), batch)

    def new_push(self, batch: Batch, in_round: bool = False) -> Write:
        """Makes the write of a push to all tables of the batch. Call it when the push is about to be sent."""
        numbers = None if in_round else self.push_numbers.next([table.config.name for table in batch.tables])
        return Write(next(self._sequences), batch, numbers)

    def next_sequence(self) -> int:
        """Returns the sequence of a write that is about to be sent, and that is not of rows."""
        return next(self._sequences)

    def ask_coordinator(self, method: Method, request: Callable[[int], Message], deadline: Deadline) -> bytes:
        """Sends `request(attempt number)` to the coordinator until it answers or the deadline comes; returns the
        answer."""

        def attempt(number: int, address: str) -> bytes:
            return self.connection.calls.unary(address, method, request(number), deadline)

        return self.at_coordinator(attempt, deadline)

    def at_coordinator(self, attempt: Callable[[int, str], T], deadline: Deadline) -> T:
        """Returns attempt(its number, the coordinator's address), with retries until the deadline."""

        def once(number: int) -> T:
            routing = self.connection.routing
            return attempt(number, routing.coordinator or routing.shards[0].address)

        return retry(once, deadline, self.connection.entropy, lambda: self.connection.refresh(deadline))

    def go_on_as(self, worker_id: int, sequence: int, pushes: Mapping[str, int]) -> None:
        """From now on is this worker, which has used the sequences up to `sequence` and made so many pushes by
        table. Call it while no call is under way."""
        self.worker_id = self.exchange.worker_id = self._delivery.worker_id = worker_id
        self._sequences = itertools.count(sequence + 1)
        self.push_numbers.go_on(pushes)

    def forget_abandoned(self) -> None:
        """Tells the shards to forget the steps that can no longer be pushed."""
        while self.abandoned:
            self.abandoned.popleft().forget()


class ClientCalls:
    """The base of the classes that group a client's calls by subject; they share its session."""

    def __init__(self, session: Session) -> None:
        self._session = session
