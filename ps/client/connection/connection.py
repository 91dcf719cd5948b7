"""Who serves what: the routing table and one transport per address, shared by all threads of a client."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from google.protobuf.message import Message

from ps.client.bound import same_split
from ps.client.connection.pool import Pool, Task
from ps.client.connection.retry import Deadline, retry
from ps.client.connection.transport import Begun, Transport, open_transport
from ps.client.traffic import Traffic
from ps.client.writes import leaving
from ps.config import TableConfig
from ps.errors import DeadlineExceeded, InvalidArgument, PsError, StaleRouting, TableNotFound, Unavailable
from ps.quoting import shown, some_of
from ps.v1 import control_pb2 as pb
from ps.wire import codec, methods
from ps.wire.kinds import Call
from ps.wire.methods import Method
from ps.wire.routing import Routing

S = TypeVar("S")
T = TypeVar("T")

DESCRIBE_TIMEOUT_S = 5.0
ABORT_S = 1.0
"""For calls whose connections have been ended to return."""
REROUTES = 3
"""How often one call follows the routing table before it gives up."""
CLOSED = "this client is closed; ps.connect makes another"


class Connection:
    """Addresses, transports, routing and tables of one service."""

    def __init__(self, address: str, open_transport: Callable[[str], Transport] = open_transport) -> None:
        self.address = address
        self.traffic = Traffic()
        self._open_transport = open_transport
        self._transports: dict[str, Transport] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._aborted = threading.Event()
        # Two pools: a background task (a push) waits for its calls to the shards, which must never queue behind it.
        self._background = Pool(16, "ps-background", leaving.failed)
        self._calls = Pool(64, "ps-call")
        self._left: set[Future[Any]] = set()
        leaving.watch(self)
        self.tables: dict[str, TableConfig] = {}
        self.release = ""
        """Of embedding-ps, of whoever was asked last what there is; empty where it does not say."""
        self.routing: Routing
        deadline = Deadline(DESCRIBE_TIMEOUT_S)
        try:
            retry(lambda _: self._describe_from([address], deadline), deadline)
        except PsError as error:
            self.close()
            if isinstance(error, DeadlineExceeded):
                raise Unavailable(f"{address} did not say within {DESCRIBE_TIMEOUT_S:g} s what it serves") from error
            raise

    def refresh(self, deadline: Deadline) -> None:
        """Asks for routing and tables again: the coordinator first, then any shard that answers."""
        known = [self.routing.coordinator, self.address, *(shard.address for shard in self.routing.shards)]
        self._describe_from(dict.fromkeys(filter(None, known)), deadline.at_most(DESCRIBE_TIMEOUT_S))

    def table(self, name: str, deadline: Deadline) -> TableConfig:
        """A table's configuration; asks the service when it is not known yet. Raises TableNotFound."""
        self.check_usable()
        if name not in self.tables:
            self.refresh(deadline)
        try:
            return self.tables[name]
        except KeyError:
            raise TableNotFound(
                f"no table {shown(name)} (there are: {some_of(self.tables)}); client.create_table makes one"
            ) from None

    def unary(self, address: str, method: Method, request: Message, deadline: Deadline) -> bytes:
        """One call, counted."""
        with self._counted(method) as call:
            data = request.SerializeToString()
            transport, timeout_s = self._transport(address), deadline.remaining_s()
            call.sent.message(data, request)
            answer = transport.unary(method, data, timeout_s)
            call.received.message(answer)
        return answer

    def stream_in(
        self,
        address: str,
        method: Method,
        head: Message,
        chunks: Iterable[bytes],
        deadline: Deadline,
        begun: Begun | None = None,
    ) -> bytes:
        """One call with a stream of requests, counted. head: what the first of them says. begun: told how to end it."""
        with self._counted(method) as call:

            def counted() -> Iterator[bytes]:
                for chunk in chunks:
                    if not call.sent.total:
                        call.sent.said(head)
                    call.sent.chunk(method, chunk)
                    yield chunk

            transport, timeout_s = self._transport(address), deadline.remaining_s()
            if begun is None:
                answer = transport.stream_in(method, counted(), timeout_s)
            else:
                answer = transport.stream_in(method, counted(), timeout_s, begun)
            call.received.message(answer)
        return answer

    def stream_out(self, address: str, method: Method, request: Message, deadline: Deadline) -> Generator[bytes]:
        """One call with a stream of responses, counted. Closed early, it ends the call."""
        with self._counted(method) as call:
            data = request.SerializeToString()
            transport, timeout_s = self._transport(address), deadline.remaining_s()
            call.sent.message(data, request)
            for chunk in transport.stream_out(method, data, timeout_s):
                call.received.chunk(method, chunk)
                yield chunk

    def routed(self, split: Callable[[Routing], S], run: Callable[[S], T], deadline: Deadline) -> T:
        """run(split(routing)), and again by the new table when the routing has changed meanwhile."""
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
        """attempt(address) with retries; the address is looked up again before each repeat."""

        def once(number: int) -> T:
            if number:
                self.traffic.retries += 1
            return attempt(self.address_of(routing, shard))

        return retry(once, deadline, before_next=lambda: self.refresh(deadline), sleep=self._aborted.wait)

    def address_of(self, routing: Routing, shard: int) -> str:
        """Where a shard of the routing that the caller goes by is now: it may have restarted elsewhere. Raises
        StaleRouting when that is no longer the table: the number would name another shard, or none."""
        now = self.routing
        if not same_split(now, routing):
            raise StaleRouting(f"routing table {routing.epoch} has been replaced by {now.epoch}")
        return now.shards[shard].address

    def submit(self, task: Callable[[], T], *, hint: bool = False) -> Future[T]:
        """Runs a task in the background. What becomes of it is said at the end of the process where nobody has asked
        its future, unless it is a hint."""
        self.check_usable()
        return self._start(self._background, task, hint)

    def each(self, tasks: Sequence[Callable[[], T]], deadline: Deadline) -> list[T]:
        """Runs tasks, which are calls, concurrently; waits for all, then raises the first error. A signal that
        interrupts the caller (Ctrl-C, an alarm) is raised at once: the calls end by themselves, and are not tried
        again."""
        return self._each(tasks, deadline, lambda _: None)

    def each_to_its_end(self, tasks: Sequence[Callable[[], T]], deadline: Deadline) -> list[T]:
        """As `each`, for writes: after an interrupt, `close` gives them a moment to end."""
        return self._each(tasks, deadline, self._leave)

    def _each(
        self, tasks: Sequence[Callable[[], T]], deadline: Deadline, leave: Callable[[Future[Any]], None]
    ) -> list[T]:
        """Signals come to the main thread. In the middle of a call they would break it off where gRPC leaves it open on
        the shard, and its own threads, and what these send, for good: so the main thread makes none itself. Any other
        makes the last one."""
        self.check_usable()
        futures: list[Future[T]] = []
        try:
            here = int(threading.current_thread() is not threading.main_thread())
            futures.extend(self._start(self._calls, task, hint=True) for task in tasks[: len(tasks) - here])
            for task in tasks[len(futures) :]:
                last: Future[T] = Future()
                futures.append(last)
                try:
                    last.set_result(task())
                except Exception as error:  # noqa: BLE001  raised below, after the others have ended
                    last.set_exception(error)
            for future in futures:
                future.exception()  # waits
        except BaseException:
            deadline.end()
            for future in futures:
                if not future.cancel():  # what has not begun need not
                    leave(future)
            raise
        return [future.result() for future in futures]

    def _leave(self, call: Future[Any]) -> None:
        self._left.add(call)
        call.add_done_callback(self._left.discard)

    def check_usable(self) -> None:
        """Raises InvalidArgument in a forked child, where gRPC channels hang (a DataLoader worker), and after close."""
        if os.getpid() != self._pid:
            raise InvalidArgument(
                "this client was made in another process (before a fork): use it in the main process only, "
                "or call ps.connect in each process"
            )
        if self._closed:
            raise InvalidArgument(CLOSED)

    def is_mine(self) -> bool:
        """Whether this is the process that made it, and it is open."""
        return os.getpid() == self._pid and not self._closed

    def unfinished(self) -> list[Task[Any]]:
        """Background calls that wait or run, but for hints."""
        return [task for task in self._background.unfinished() if not task.outcome.heard]

    def left(self) -> list[Future[Any]]:
        """Calls of interrupted writes that have not come to their end yet."""
        return list(self._left)

    def close(self, timeout_s: float | None = None) -> None:
        """Waits for background calls, for so long at most, and a moment for those of interrupted writes; then ends all
        connections."""
        if os.getpid() != self._pid:
            return
        self._background.close(timeout_s)  # its tasks make calls: only then is the rest closed
        wait(self.left(), leaving.GRACE_S)
        self.abort()

    def abort(self) -> None:
        """Ends all connections, and with them the calls under way; waits a moment until these have returned."""
        self._closed = True
        self._aborted.set()
        with self._lock:
            for transport in self._transports.values():
                transport.close()
            self._transports.clear()
        for pool in (self._calls, self._background):
            pool.close(ABORT_S)

    @contextmanager
    def _counted(self, method: Method) -> Iterator[Call]:
        call = Call()
        try:
            yield call
        finally:
            if call.sent.total or call.received.total:  # if it was made at all
                self.traffic.add(method, call)

    def _start(self, pool: Pool, task: Callable[[], T], hint: bool) -> Future[T]:
        try:
            return pool.submit(task, hint)
        except RuntimeError as error:  # the pool was shut down: another thread is closing the client
            raise InvalidArgument(CLOSED) from error

    def _transport(self, address: str) -> Transport:
        self.check_usable()  # before the lock: in a forked child it may be held for ever
        with self._lock:
            self.check_usable()
            if address not in self._transports:
                self._transports[address] = self._open_transport(address)
            return self._transports[address]

    def _describe_from(self, addresses: Iterable[str], deadline: Deadline) -> None:
        last: PsError | None = None
        for address in addresses:
            try:
                answer = self.unary(address, methods.DESCRIBE, pb.DescribeRequest(), deadline)
            except PsError as error:
                last = error
                continue
            message = codec.parse(pb.DescribeResponse, answer)
            self.tables = {c.name: c for c in map(TableConfig.from_json, message.table_configs_json)}
            self.release = message.release
            self.routing = Routing.from_proto(message.routing)
            return
        raise last or Unavailable("no address to ask")
