"""A client whose last push can be looked at, and whose bytes of the step protocol can be read by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import ps
from ps.client.connection.connection import Connection
from ps.client.connection.transport import Begun, GrpcTransport
from ps.client.traffic import Traffic
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, methods
from ps.wire.formats import WireDtype
from ps.wire.methods import Method

STEP = (methods.PREPARE, methods.PULL, methods.PUSH)


class Tally:
    """Counts what the messages of the step protocol held since the last reading."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.push_head = pb.PushHead()
        self.push_body = b""
        """The bytes of the last push."""
        self.important = 0
        """How many rows the last pull called important."""
        self._taken: Counter[str] = Counter()

    def take(self) -> Counter[str]:
        """Returns the bytes by kind, both ways, and starts again from zero."""
        report, now = self.traffic.report(), Counter[str]()
        for way in ("sent_by_kind", "received_by_kind"):
            for method in STEP:
                now.update(report[way].get(method.name, {}))
        taken, self._taken = now - self._taken, now
        return taken

    def pulled(self, message: bytes) -> None:
        """Looks at the first message of a pull's answer."""
        head = codec.split(pb.PullChunk, message)[0].head
        self.important = sum(int.from_bytes(one.important).bit_count() for one in head.tables)

    def pushed(self, messages: list[bytes]) -> None:
        """Looks at all messages of a push."""
        self.push_head = codec.split(pb.PushChunk, messages[0])[0].head
        self.push_body = b"".join(codec.payload_of(message) for message in messages)


class TalliedTransport(GrpcTransport):
    """A gRPC transport that looks at pulls and pushes as they pass."""

    def __init__(self, address: str, tally: Tally) -> None:
        super().__init__(address)
        self._tally = tally

    def stream_in(self, method: Method, chunks: Iterable[bytes], timeout_s: float, begun: Begun | None = None) -> bytes:
        """Looks at pushes."""
        sent = list(chunks)
        if method is methods.PUSH:
            self._tally.pushed(sent)
        return super().stream_in(method, sent, timeout_s, begun)

    def stream_out(self, method: Method, data: bytes, timeout_s: float) -> Iterator[bytes]:
        """Looks at pulls."""
        for number, message in enumerate(super().stream_out(method, data, timeout_s)):
            if method is methods.PULL and not number:
                self._tally.pulled(message)
            yield message


def connect(address: str, tally: Tally, *, wire_dtype: WireDtype, compress_ids: bool) -> ps.Client:
    """Connects as `ps.connect` does; the tally counts what the client sends and receives."""
    connection = Connection(address, lambda its: TalliedTransport(its, tally))
    tally.traffic = connection.calls.traffic
    return ps.Client(connection, wire_dtype=wire_dtype, compress_ids=compress_ids)
