"""The client SDK.

    client = ps.connect("127.0.0.1:50051")
    client.create_table(ps.TableConfig(name="user", dim=64), exist_ok=True)
    step = client.prepare({"user": ids})
    rows = step.pull()["user"]
    step.push({"user": grads})

Threads: a client may be used by many. Processes: not across a fork. Every blocking call takes `timeout_s`, any positive
number, `inf` for as long as it takes; without it the client's `timeout_s` holds. A signal that interrupts a write, as
Ctrl-C does, leaves it to end by itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TypeVar

from ps.client.calls.rows import RowCalls
from ps.client.calls.service import ServiceCalls
from ps.client.calls.steps import StepCalls
from ps.client.calls.tables import TableCalls
from ps.client.connection.connection import Connection
from ps.client.connection.transport import MAX_MESSAGE_BYTES, open_transport
from ps.client.session import Session
from ps.client.writes.leaving import GRACE_S
from ps.errors import InvalidArgument
from ps.seconds import seconds
from ps.wire import inproc
from ps.wire.formats import WireDtype

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 30.0


class Client(TableCalls, StepCalls, RowCalls, ServiceCalls):
    """One worker's connection to the service."""

    def __init__(
        self,
        connection: Connection,
        *,
        wire_dtype: WireDtype | Mapping[str, WireDtype] = "fp32",
        compress_ids: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        super().__init__(Session(connection, wire_dtype, compress_ids, timeout_s))

    @property
    def address(self) -> str:
        """The address that it was connected to."""
        return self._session.connection.address

    def wire_dtype(self, table: str) -> WireDtype:
        """Returns how rows and gradients of a table travel: what `connect` was given for it."""
        return self._session.formats.given(table)

    def background(self, task: Callable[[], T], *, hint: bool = False) -> Future[T]:
        """Runs a task, such as a push, on a thread of the client's. If the task raises and nobody asks its future, the
        end of the process says so, unless the task is a hint: one whose loss only costs time."""
        return self._session.connection.tasks.submit(task, hint=hint)

    def close(self) -> None:
        """Waits for background calls, ends the connections; the service lives on. Later calls raise InvalidArgument.

        A process that ends without it waits for its writes for 3 s, then ends their calls, says on stderr which are not
        known to be applied, and has the exit status 120; the same for writes whose errors nobody has heard.
        """
        with suppress(InvalidArgument):  # closed before, or in a forked child
            self._session.forget_abandoned()
        self._session.connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Closes; after an error it waits for what is under way as long as the end of a process does."""
        self._session.connection.close(None if error is None else GRACE_S)


def connect(
    address: str,
    *,
    wire_dtype: WireDtype | Mapping[str, WireDtype] = "fp32",
    compress_ids: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> Client:
    """Connects to a service.

    address: "host:port" of the coordinator or of any shard; "inproc:" starts a private service of one shard in
    this process, "inproc:shards=4" one of four, for tests and notebooks.
    wire_dtype: "fp32"; "fp16" or "int8" for a half or a quarter of the bytes of rows and gradients, rounded to nearest;
    `ps.ByImportance`, which rounds only rows that matter less; or {table: one of these}, tables not named being exact.
    compress_ids: send ids sorted, as the gaps between them: 1 to 3 bytes each instead of 8 where they are dense, at the
    price of sorting them, which pays on links of less than about 1 Gbit/s. What is dense beyond about 400,000 ids in
    one message goes as it is all the same: a shard unpacks no more of so few bytes.
    timeout_s: the deadline of calls that are not given their own. max_message_bytes: the largest single message, both
    ways; as the service's own setting of that name. Raises Unavailable.
    """
    seconds(timeout_s)  # before anything is connected
    if max_message_bytes < 1:
        raise InvalidArgument(f"max_message_bytes={max_message_bytes!r}: give a positive number of bytes")
    if shards := inproc.asked_shards(address):
        # Loaded by name: a trainer that connects over the network never loads the service.
        address = importlib.import_module("ps.cluster.inprocess").start(shards=shards)
    connection = Connection(address, partial(open_transport, max_message_bytes=max_message_bytes))
    return Client(connection, wire_dtype=wire_dtype, compress_ids=compress_ids, timeout_s=timeout_s)
