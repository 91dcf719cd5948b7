"""Bytes of a client's messages by what they say: ids, counts, rows, gradients, the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import ps
from ps.client.connection import Connection
from ps.client.transport import GrpcTransport
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, methods
from ps.wire.formats import WireDtype
from ps.wire.methods import Method


class Tally:
    """What the messages of the step protocol held, since it was last taken."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()
        self.push_head = pb.PushHead()
        self.push_body = b""
        """Of the last push."""
        self.important = 0
        """Rows that the last pull said are."""

    def take(self) -> Counter[str]:
        """The bytes by kind, and starts again."""
        taken, self.bytes = self.bytes, Counter()
        return taken

    def ids(self, message: bytes, named: pb.IdSet) -> None:
        """A message that is all head."""
        ids = sum(len(one.ids) + len(one.sorted_ids) + len(one.bags) for one in named.tables)
        counts = sum(len(one.counts) for one in named.tables)
        self._add(message, ids=ids, counts=counts)

    def pulled(self, message: bytes) -> None:
        """One of a pull's answer."""
        chunk, payload = codec.split(pb.PullChunk, message)
        flags = {kind: sum(len(getattr(one, kind)) for one in chunk.head.tables) for kind in ("exists", "important")}
        if chunk.HasField("head"):
            self.important = sum(int.from_bytes(one.important).bit_count() for one in chunk.head.tables)
        self._add(message, rows=len(payload), **flags)

    def pushed(self, message: bytes) -> None:
        """One of a push."""
        chunk, payload = codec.split(pb.PushChunk, message)
        if chunk.HasField("head"):
            self.push_head, self.push_body = chunk.head, b""
        self.push_body += payload
        self._add(message, gradients=len(payload), counts=sum(len(one.positives) for one in chunk.head.tables))

    def plain(self, message: bytes) -> None:
        """One that holds neither."""
        self._add(message)

    def _add(self, message: bytes, **parts: int) -> None:
        self.bytes.update(parts)
        self.bytes["headers"] += len(message) - sum(parts.values())


class TalliedTransport(GrpcTransport):
    """gRPC as ever; messages of the step protocol are looked at as they pass."""

    def __init__(self, address: str, tally: Tally) -> None:
        super().__init__(address)
        self._tally = tally

    def unary(self, method: Method, data: bytes, timeout_s: float) -> bytes:
        """Looks at prepares."""
        answer = super().unary(method, data, timeout_s)
        if method is methods.PREPARE:
            self._tally.ids(data, codec.parse(pb.PrepareRequest, data).ids)
            self._tally.plain(answer)
        return answer

    def stream_in(self, method: Method, chunks: Iterable[bytes], timeout_s: float) -> bytes:
        """Looks at pushes."""
        if method is not methods.PUSH:
            return super().stream_in(method, chunks, timeout_s)
        sent = list(chunks)
        answer = super().stream_in(method, sent, timeout_s)
        for message in sent:
            self._tally.pushed(message)
        self._tally.plain(answer)
        return answer

    def stream_out(self, method: Method, data: bytes, timeout_s: float) -> Iterator[bytes]:
        """Looks at pulls."""
        if method is methods.PULL:
            self._tally.ids(data, codec.parse(pb.PullRequest, data).ids)
        for message in super().stream_out(method, data, timeout_s):
            if method is methods.PULL:
                self._tally.pulled(message)
            yield message


def connect(address: str, tally: Tally, *, wire_dtype: WireDtype, compress_ids: bool) -> ps.Client:
    """As `ps.connect`."""
    connection = Connection(address, lambda its: TalliedTransport(its, tally))
    return ps.Client(connection, wire_dtype=wire_dtype, compress_ids=compress_ids)
