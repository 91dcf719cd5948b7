"""What messages are made of, in bytes. Both ends count by these rules, so what one has sent the other has received.

ids        ids as they are or sorted, how often each occurs, and which bags they are in
flags      what else is said of each id: whether it has a row, and an important one; positives, scores, statistics
rows       values that were pulled, written or exported, with the masks that say whose they are
gradients  values that were pushed, with theirs
headers    the rest of the messages: names, shapes, steps, protobuf's own framing; a message of the control plane whole

Counted where a message is made or read, from the parts that are in hand there. What gRPC, HTTP/2 and TCP add is not
counted, and of an error its status is not. Where a call fails, both have counted the same unless the network lost
something, the shard refused the call unread (`limits.max_requests`), or it said no while the rest of a stream was on
its way.
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
"""What the chunks of a stream carry."""

_Parts = tuple[int, int]
"""Bytes of ids and of flags."""


class Moved:
    """Bytes of messages in one direction: how many, and of them what has been said to be something."""

    def __init__(self) -> None:
        self.total = 0
        self._parts: Counter[str] = Counter()

    def message(self, data: bytes, message: Message | None = None) -> None:
        """One that is no chunk of a stream; and what it says, if that is known by now."""
        self.total += len(data)
        if message is not None:
            self.said(message)

    def chunk(self, method: Method, data: bytes) -> None:
        """One of a stream. Only its frame is looked at. Raises InvalidArgument for one that is no message."""
        self.total += len(data)
        self._parts[_PAYLOADS[method]] += codec.payload_bytes(data)

    def said(self, message: Message) -> None:
        """What a message, or the head of a stream, says; its bytes are counted as those of `message` or `chunk`."""
        ids, flags = _PARTS.get(type(message), _nothing)(message)
        self._parts["ids"] += ids
        self._parts["flags"] += flags

    def add(self, other: Moved) -> None:
        """Adds the bytes of another count."""
        self.total += other.total
        self._parts.update(other._parts)

    def by_kind(self) -> dict[str, int]:
        """Returns bytes of each of KINDS; together they are the total."""
        parts = {kind: self._parts[kind] for kind in KINDS[:-1]}
        return {**parts, KINDS[-1]: self.total - sum(parts.values())}


class Call:
    """One call, as one end has seen it."""

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
