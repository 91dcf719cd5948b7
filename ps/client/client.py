"""The client SDK.

    client = ps.connect("127.0.0.1:50051")
    client.create_table(ps.TableConfig(name="user", dim=64), exist_ok=True)
    step = client.prepare({"user": ids})
    rows = step.pull()["user"]
    step.push({"user": grads})

Many threads may use a client, but no forked process. Every blocking call takes `timeout_s`, any positive number, or
`inf` to wait for as long as it takes; without it the client's `timeout_s` applies. A write that a signal interrupts,
such as Ctrl-C, goes on in the background.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from ps.client.calls.checkpoints import CheckpointCalls
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


class Client(TableCalls, StepCalls, RowCalls, ServiceCalls, CheckpointCalls):
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
        """The address that `connect` was given."""
        return self._session.connection.address

    def wire_dtype(self, table: str) -> WireDtype:
        """Returns in which precision rows and gradients of a table travel, as it was given to `connect`."""
        return self._session.formats.given(table)

    def background(self, task: Callable[[], T], *, hint: bool = False) -> Future[T]:
        """Runs a task, such as a push, on a thread of the client, and returns its future. If the task raises and its
        future is never asked, an error is printed at the end of the process, unless the task is a hint, whose loss only
        costs time."""
        return self._session.connection.tasks.submit(task, hint=hint)

    def state_dict(self) -> dict[str, Any]:
        """Returns which worker this client is, and how many writes and pushes it has made, as plain numbers: to be
        saved beside a checkpoint of the service, for `load_state_dict`."""
        session = self._session
        return {
            "worker_id": session.worker_id,
            "sequence": session.next_sequence(),
            "pushes": session.push_numbers.made(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on as the worker that was saved. Shards count the pushes of each worker, for Adam's steps, and so count
        them as if it had never stopped.

        Only for a service that was restored exactly from that checkpoint (`restore` says so), and when the old worker
        has ended: any other takes its later writes for repeats of those that it knows, and does not apply them. No call
        may be under way. Raises InvalidArgument for what is no such state.
        """
        try:
            worker_id, sequence = int(state["worker_id"]), int(state["sequence"])
            pushes = {str(table): int(made) for table, made in state["pushes"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidArgument(f"{state!r} is no state of a client: give what state_dict() returned") from error
        self._session.go_on_as(worker_id, sequence, pushes)

    def close(self) -> None:
        """Waits for background calls and closes the connections; the service goes on. Later calls raise
        InvalidArgument.

        A process that ends without `close` waits for its writes for 3 s, then ends their calls, prints on stderr which
        are not known to be applied, and exits with status 120. It does so too for writes whose errors were never asked
        for.
        """
        with suppress(InvalidArgument):  # closed before, or in a forked child
            self._session.forget_abandoned()
        self._session.connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Closes the client. After an error it waits for calls under way only as long as the end of a process does."""
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
    `ps.ByImportance`, which rounds only less important rows; or {table: one of these}, where a table that is not named
    travels in fp32.
    compress_ids: sends ids sorted, as the gaps between them: 1 to 3 bytes each instead of 8 where they are dense.
    Sorting costs time, so this pays on links of less than about 1 Gbit/s. Of dense ids about 400,000 in one message are
    compressed and the others sent as they are, because a shard unpacks no more from so few bytes.
    timeout_s: seconds; the deadline of calls that are not given their own.
    max_message_bytes: the largest single message in both directions, as the service's setting of that name.
    Raises Unavailable if no server answers; InvalidArgument, DtypeMismatch or ConfigError for bad arguments.
    """
    seconds(timeout_s)  # before anything is connected
    if max_message_bytes < 1:
        raise InvalidArgument(f"max_message_bytes={max_message_bytes!r}: give a positive number of bytes")
    if shards := inproc.asked_shards(address):
        # Loaded by name: a trainer that connects over the network never loads the service.
        address = importlib.import_module("ps.cluster.inprocess").start(shards=shards)
    connection = Connection(address, partial(open_transport, max_message_bytes=max_message_bytes))
    return Client(connection, wire_dtype=wire_dtype, compress_ids=compress_ids, timeout_s=timeout_s)
