"""Single calls in the wire's own words: what a foreign or a broken client could send."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ps.client.connection.transport import GrpcTransport, Transport
from ps.errors import PsError
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, methods
from ps.wire.methods import Method, Shape

TIMEOUT_S = 10.0


def table_ids(table: str, ids: Sequence[int], counts: Sequence[int] | None = None) -> pb.TableIds:
    encoded = codec.encode_counts(None if counts is None else np.array(counts, np.uint32))
    return pb.TableIds(table=table, ids=codec.encode_ids(np.array(ids, np.int64)), counts=encoded)


def id_set(**tables: Sequence[int]) -> pb.IdSet:
    return pb.IdSet(tables=[table_ids(table, ids) for table, ids in tables.items()])


def rows_bytes(rows: object) -> bytes:
    return np.asarray(rows, "<f4").tobytes()


def fp32_shape(table: str, rows: int, dim: int) -> pb.PushedTable:
    """Every row, as it is."""
    blocks = [pb.Block(encoding=pb.ENCODING_FP32, bytes=4 * rows * dim)]
    return pb.PushedTable(table=table, rows=rows, dim=dim, blocks=blocks)


class RawCalls:
    """A worker that speaks protobuf, through a transport and nothing else."""

    def __init__(self, address: str, worker_id: int = 7, transport: Transport | None = None) -> None:
        self.transport = transport or GrpcTransport(address)
        self.worker_id = worker_id

    @cached_property
    def header(self) -> pb.Header:
        """As of the routing table that the service has at the first request."""
        answer = self.call(methods.DESCRIBE, control.DescribeRequest().SerializeToString())[0]
        epoch = control.DescribeResponse.FromString(answer).routing.epoch
        return pb.Header(routing_epoch=epoch, worker_id=self.worker_id)

    def __enter__(self) -> RawCalls:
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.close()

    def call(self, method: Method, *messages: bytes) -> list[bytes]:
        """Any method with any bytes; the messages that came back."""
        if method.shape is Shape.STREAM_IN:
            return [self.transport.stream_in(method, messages, TIMEOUT_S)]
        if method.shape is Shape.STREAM_OUT:
            return list(self.transport.stream_out(method, messages[0], TIMEOUT_S))
        return [self.transport.unary(method, messages[0], TIMEOUT_S)]

    def prepare(self, step: int, ids: pb.IdSet) -> pb.PrepareResponse:
        request = pb.PrepareRequest(header=self.header, step=step, ids=ids)
        return pb.PrepareResponse.FromString(self.call(methods.PREPARE, request.SerializeToString())[0])

    def pull(self, **fields: object) -> tuple[pb.PullHead, np.ndarray]:
        """Head and the flat rows, read by protobuf's own parser."""
        request = pb.PullRequest(**{"header": self.header, **fields})
        chunks = [pb.PullChunk.FromString(data) for data in self.call(methods.PULL, request.SerializeToString())]
        return chunks[0].head, np.frombuffer(b"".join(chunk.payload for chunk in chunks), "<f4")

    def push(self, sequence: int, tables: Sequence[tuple[str, int, int]], *bodies: bytes, **fields: object) -> bytes:
        """tables: (name, rows, dim). Encoded by protobuf's own serializer."""
        return self.push_shapes(
            sequence,
            [fp32_shape(name, rows, dim) for name, rows, dim in tables],
            *bodies,
            **fields,
        )

    def push_shapes(self, sequence: int, shapes: Sequence[pb.PushedTable], *bodies: bytes, **fields: object) -> bytes:
        """The same."""
        head = pb.PushHead(**{"header": self.header, "sequence": sequence, "tables": shapes, **fields})
        messages = [pb.PushChunk(head=head), *(pb.PushChunk(payload=body) for body in bodies)]
        return self.call(methods.PUSH, *(message.SerializeToString() for message in messages))[0]

    def write(self, sequence: int, ids: pb.TableIds, dim: int, *bodies: bytes, **fields: object) -> bytes:
        shape = fp32_shape(ids.table, len(ids.ids) // 8, dim)
        known = {"header": self.header, "sequence": sequence, "ids": ids, "shape": shape, "mode": pb.WRITE_MODE_UPSERT}
        head = pb.WriteHead(**{**known, **fields})
        messages = [pb.WriteChunk(head=head), *(pb.WriteChunk(payload=body) for body in bodies)]
        return self.call(methods.WRITE, *(message.SerializeToString() for message in messages))[0]

    def remove(self, sequence: int, ids: pb.TableIds) -> bytes:
        request = pb.RemoveRequest(header=self.header, sequence=sequence, ids=ids)
        return self.call(methods.REMOVE, request.SerializeToString())[0]


def error_of(call: object, *arguments: object, **fields: object) -> PsError:
    """The error that a call raises; fails if it raises none."""
    try:
        call(*arguments, **fields)  # type: ignore[operator]
    except PsError as error:
        return error
    raise AssertionError("the call was answered")
