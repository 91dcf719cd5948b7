"""Counts the bytes of messages by kind. Both ends count by these rules, so the bytes that one has sent are those that
the other has received.

ids        ids as they are or sorted, how often each occurs, and which bags they are in
flags      other data of each id: whether it has a row, and an important one; positives, scores, statistics
rows       values that were pulled, written or exported, with the masks that say whose they are
gradients  values that were pushed, with theirs
headers    the rest of the messages: names, shapes, steps, protobuf's own framing; a message of the control plane whole

They are counted where a message is made or read. The bytes that gRPC, HTTP/2 and TCP add are not counted, nor is the
status of an error. Where a call fails, both have counted the same unless the network lost something, the shard refused
the call unread (`limits.max_requests`), or it said no while the rest of a stream was on its way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, methods
from ps.wire.methods import Method

KINDS = ("ids", "flags", "rows", "gradients", "headers")

_PAYLOADS = {methods.PULL: "rows", methods.EXPORT: "rows", methods.WRITE: "rows", methods.PUSH: "gradients"}
"""The kind of the payload in the chunks of a stream, by method. Streams of the control plane have none."""

_Parts = tuple[int, int]
"""A function that returns the bytes of ids and of flags in a message."""


class Moved:
    """Counts the bytes of messages in one direction: all of them, and those of each kind."""

    def __init__(self) -> None:
        self.total = 0
        self._parts: Counter[str] = Counter()

    def message(self, data: bytes, message: Message | None = None) -> None:
        """Counts a message that is no chunk of a stream; its parts too, if the parsed message is given."""
        self.total += len(data)
        if message is not None:
            self.said(message)

    def chunk(self, method: Method, data: bytes) -> None:
        """Counts a chunk of a stream. Only its frame is read. Raises InvalidArgument for bytes that are no message."""
        self.total += len(data)
        if method in _PAYLOADS:
            self._parts[_PAYLOADS[method]] += codec.payload_bytes(data)

    def said(self, message: Message) -> None:
        """Counts the ids and flags in a message, or in the head of a stream, whose bytes were counted by `message` or
        `chunk`."""
        ids, flags = _PARTS.get(type(message), _nothing)(message)
        self._parts["ids"] += ids
        self._parts["flags"] += flags

    def add(self, other: Moved) -> None:
        """Adds the bytes of another count."""
        self.total += other.total
        self._parts.update(other._parts)

    def by_kind(self) -> dict[str, int]:
        """Returns the bytes of each of KINDS; together they are the total."""
        parts = {kind: self._parts[kind] for kind in KINDS[:-1]}
        return {**parts, KINDS[-1]: self.total - sum(parts.values())}


class Call:
    """One call, as one of its ends has counted it."""

    def __init__(self) -> None:
        self.sent = Moved()
        self.received = Moved()


def _ids(tables: Iterable[pb.TableIds]) -> int:
    return sum(len(table.ids) + len(table.sorted_ids) + len(table.counts) + len(table.bags) for table in tables)


def _nothing(_: Message) -> _Parts:
    return 0, 0


def _existed(answer: Any) -> _Parts:
    return 0, len(answer.existed)


_PARTS: dict[type[Message], Callable[[Any], _Parts]] = {
    pb.PrepareRequest: lambda request: (_ids(request.ids.tables), 0),
    pb.PullRequest: lambda request: (_ids(request.ids.tables), 0),
    pb.PullHead: lambda head: (0, sum(len(table.exists) + len(table.important) for table in head.tables)),
    pb.PushHead: lambda head: (_ids(head.ids.tables), sum(len(table.positives) for table in head.tables)),
    pb.WriteHead: lambda head: (_ids([head.ids]), len(head.shape.positives)),
    pb.WriteResponse: _existed,
    pb.RemoveRequest: lambda request: (_ids([request.ids]), len(request.statistics)),
    pb.RemoveResponse: _existed,
    pb.ReportImportanceRequest: lambda request: (_ids([request.ids]), len(request.scores)),
    pb.ReportImportanceResponse: _existed,
    pb.ExportHead: lambda head: (len(head.ids), len(head.scores) + len(head.statistics)),
}
