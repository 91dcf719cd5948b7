"""The routing table and the tables of one service, shared by all threads of a client."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from ps.client.bound import same_split
from ps.client.connection.calls import Calls
from ps.client.connection.incarnations import Incarnations
from ps.client.connection.retry import Deadline, retry
from ps.client.connection.tasks import CLOSED, Tasks
from ps.client.connection.transport import Transport, open_transport
from ps.client.writes import leaving
from ps.config import TableConfig
from ps.errors import DeadlineExceeded, InvalidArgument, PsError, StaleRouting, TableNotFound, Unavailable
from ps.quoting import shown, some_of
from ps.runtime.clock import SYSTEM_CLOCK, Clock
from ps.runtime.entropy import SYSTEM_ENTROPY, Entropy
from ps.v1 import control_pb2 as pb
from ps.wire import codec, methods
from ps.wire.routing import Routing

S = TypeVar("S")
T = TypeVar("T")

DESCRIBE_TIMEOUT_S = 5.0
REROUTES = 3
"""How often one call follows a change of the routing table before it gives up."""


class Connection:
    """The routing table and the tables of one service, the client's calls and threads, and its clock and entropy."""

    def __init__(
        self,
        address: str,
        open_transport: Callable[[str], Transport] = open_transport,
        clock: Clock = SYSTEM_CLOCK,
        entropy: Entropy = SYSTEM_ENTROPY,
    ) -> None:
        self.address = address
        self.clock = clock
        self.entropy = entropy
        self.calls = Calls(open_transport, self.check_usable)
        self.tasks = Tasks(self.check_usable)
        self._pid = os.getpid()
        self._closed = False
        self._aborted = threading.Event()
        leaving.watch(self)
        self.tables: dict[str, TableConfig] = {}
        self.release = ""
        """The release of embedding-ps that the server asked last runs; empty if it does not say."""
        self.routing: Routing
        self.incarnations = Incarnations()
        deadline = self.deadline(DESCRIBE_TIMEOUT_S)
        try:
            retry(lambda _: self._describe_from([address], deadline), deadline, entropy)
        except PsError as error:
            self.close()
            if isinstance(error, DeadlineExceeded):
                raise Unavailable(f"{address} did not say within {DESCRIBE_TIMEOUT_S:g} s what it serves") from error
            raise

    def deadline(self, timeout_s: float) -> Deadline:
        """Returns the deadline `timeout_s` from now. Raises InvalidArgument unless that is a positive number."""
        return Deadline(timeout_s, self.clock)

    def refresh(self, deadline: Deadline) -> None:
        """Asks for the routing table and the tables again: the coordinator first, then any shard that answers."""
        known = [self.routing.coordinator, self.address, *(shard.address for shard in self.routing.shards)]
        self._describe_from(dict.fromkeys(filter(None, known)), deadline.at_most(DESCRIBE_TIMEOUT_S))

    def table(self, name: str, deadline: Deadline) -> TableConfig:
        """Returns a table's configuration; asks the service if it is not known yet. Raises TableNotFound."""
        self.check_usable()
        if name not in self.tables:
            self.refresh(deadline)
        try:
            return self.tables[name]
        except KeyError:
            raise TableNotFound(
                f"no table {shown(name)} (there are: {some_of(self.tables)}); client.create_table makes one"
            ) from None

    def routed(self, split: Callable[[Routing], S], run: Callable[[S], T], deadline: Deadline) -> T:
        """Returns run(split(routing)); runs it again with the new table if the routing has changed meanwhile."""
        for number in range(REROUTES + 1):
            routing = self.routing
            parts = split(routing)
            try:
                return run(parts)
            except StaleRouting:
                if number == REROUTES:
                    raise
                if same_split(self.routing, routing):
                    self.refresh(deadline)
        raise AssertionError("unreachable: the last attempt raises")

    def on_shard(self, routing: Routing, shard: int, attempt: Callable[[str], T], deadline: Deadline) -> T:
        """Returns attempt(address), with retries; looks up the shard's address again before each of them. Raises
        RolledBack, once, where the shard came back without what it had acknowledged."""

        def once(number: int) -> T:
            if number:
                self.calls.traffic.retries += 1
            address = self.address_of(routing, shard)
            self.incarnations.check(routing.shards[shard].shard_id)
            return attempt(address)

        return retry(once, deadline, self.entropy, lambda: self.refresh(deadline), self._pause)

    def address_of(self, routing: Routing, shard: int) -> str:
        """Returns the present address of a shard of the caller's routing table, since it may have restarted elsewhere.
        Raises StaleRouting if that table is no longer valid, because its number would mean another shard, or none."""
        now = self.routing
        if not same_split(now, routing):
            raise StaleRouting(f"routing table {routing.epoch} has been replaced by {now.epoch}")
        return now.shards[shard].address

    def check_usable(self) -> None:
        """Raises InvalidArgument in a forked child (such as a DataLoader worker), where gRPC channels hang, and after
        `close`."""
        if os.getpid() != self._pid:
            raise InvalidArgument(
                "this client was made in another process (before a fork): use it in the main process only, "
                "or call ps.connect in each process"
            )
        if self._closed:
            raise InvalidArgument(CLOSED)

    def is_mine(self) -> bool:
        """Returns whether this process made the connection, and it is open."""
        return os.getpid() == self._pid and not self._closed

    def close(self, timeout_s: float | None = None) -> None:
        """Waits for background tasks for at most so long, and a moment for the calls of interrupted writes; then closes
        all transports."""
        if os.getpid() == self._pid:
            self.tasks.wait(timeout_s)
            self.abort()

    def abort(self) -> None:
        """Closes all transports, which ends the calls under way, and waits a moment until these have returned."""
        self._closed = True
        self._aborted.set()
        self.calls.end()
        self.tasks.end()

    def _pause(self, seconds: float) -> None:
        self.clock.wait(self._aborted, seconds)

    def _describe_from(self, addresses: Iterable[str], deadline: Deadline) -> None:
        last: PsError | None = None
        for address in addresses:
            try:
                answer = self.calls.unary(address, methods.DESCRIBE, pb.DescribeRequest(), deadline)
            except PsError as error:
                last = error
                continue
            message = codec.parse(pb.DescribeResponse, answer)
            self.tables = {c.name: c for c in map(TableConfig.from_json, message.table_configs_json)}
            self.release = message.release
            self.routing = Routing.from_proto(message.routing)
            self.incarnations.see(self.routing.shards)
            return
        raise last or Unavailable("no address to ask")
