"""What a broken shard could answer to a pull: an error that says what was wrong with it, never a wrong row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ps
from ps.client.batch import make_batch
from ps.client.reads.pulled import Pulled
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec
from ps.wire.encodings import encode
from ps.wire.formats import TableFormat
from ps.wire.routing import Routing, ShardInfo

DIM = 3
ROUTING = Routing.even(1, [ShardInfo(0, "")])


def pulled(with_exists: bool = False, share: float | None = None) -> Pulled:
    configs = {name: ps.TableConfig(name=name, dim=DIM) for name in ("a", "b")}
    batch = make_batch({"a": [1, 2], "b": [3]}, configs, ROUTING)
    return Pulled(batch, [TableFormat(share=share)] * 2, with_exists)


def head(tables: int = 2, exists: bytes = b"", important: bytes = b"") -> bytes:
    shapes = [pb.PulledTable(dim=DIM, rows=1, exists=exists, important=important) for _ in range(tables)]
    return pb.PullChunk(head=pb.PullHead(version=5, tables=shapes)).SerializeToString()


def fp32(rows: int, floats: int | None = None) -> tuple[int, list[pb.Block]]:
    """A part of so many rows in one block, of another number of floats if said."""
    return rows, [pb.Block(encoding=pb.ENCODING_FP32, bytes=4 * (rows * DIM if floats is None else floats))]


def answer(*chunks: list[tuple[int, list[pb.Block]]], tables: int = 2, exists: bytes = b"") -> Iterator[bytes]:
    """A head, then chunks of these parts, with all the floats that they announce, counted from 0."""
    yield head(tables, exists)
    start = 0
    for parts in chunks:
        floats = sum(block.bytes for _, blocks in parts for block in blocks) // 4
        message = pb.PullChunk(parts=[pb.PulledPart(rows=rows, blocks=blocks) for rows, blocks in parts])
        body = np.arange(start, start + floats, dtype="<f4").tobytes()
        yield codec.payload_message(body, message.SerializeToString())
        start += floats


A, B, ROW = fp32(2), fp32(1), fp32(1)


@pytest.mark.parametrize("chunks", [([A, B],), ([ROW], [ROW, B]), ([ROW], [ROW], [B]), ([A], [fp32(0), B])])
def test_whole_rows_in_any_chunks_are_taken(chunks: tuple[list[tuple[int, list[pb.Block]]], ...]) -> None:
    whole = pulled()
    whole.receive(0, answer(*chunks))
    assert [rows.tolist() for rows in whole.rows] == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8]]]
    assert whole.versions == {0: 5}


def block_of(rows_R: list[int], encoding: pb.Encoding = pb.ENCODING_ROWS_FP32) -> bytes:
    """Of two rows."""
    values = np.array(rows_R, np.float32)[:, None] + np.zeros(DIM, np.float32)
    return bytes(encode(ps.Selected(np.array(rows_R, np.int64), values), encoding, 2))


def in_blocks(*blocks: bytes, encoding: int = pb.ENCODING_ROWS_FP32) -> Iterator[bytes]:
    """The rows of the first table in blocks; the second's are right."""
    yield head()
    known = [pb.Block(encoding=pb.Encoding.ValueType(encoding), bytes=len(block)) for block in blocks]
    parts = [pb.PulledPart(rows=2, blocks=known), pb.PulledPart(rows=1, blocks=B[1])]
    yield codec.payload_message(b"".join(blocks) + bytes(4 * DIM), pb.PullChunk(parts=parts).SerializeToString())


def test_rows_in_two_blocks_are_put_where_they_belong() -> None:
    whole = pulled()
    whole.receive(0, in_blocks(block_of([1]), block_of([0])))
    assert whole.rows[0].tolist() == [[0] * DIM, [1] * DIM]


@pytest.mark.parametrize(
    ("chunks", "what"),
    [
        (answer([A, B], [ROW]), "more rows"),
        (answer([A, fp32(2)]), "more rows"),
        (answer([A]), "fewer rows"),
        (answer([fp32(1)], [fp32(1, 2)]), "cannot be read"),
        (answer([A, B], tables=1), "1 tables of 2"),
        (answer([A, B], tables=3), "3 tables of 2"),
        (iter(()), "before its first message"),
        (iter([head(), codec.payload_message(bytes(9))]), "9 bytes that it did not announce"),
        (answer([(2, []), B]), "not each row once"),
        (in_blocks(block_of([1])), "not each row once"),
        (in_blocks(block_of([1]), block_of([1])), "not each row once"),
        (in_blocks(block_of([0, 1]), block_of([1])), "not each row once"),
        (in_blocks(block_of([0]), block_of([])), "not each row once"),
        (in_blocks(block_of([0, 1]), encoding=99), "cannot be read"),
        (in_blocks(b"\4" + block_of([0, 1])[1:]), "cannot be read"),
    ],
)
def test_an_answer_of_another_shape_is_an_internal_error(chunks: Iterator[bytes], what: str) -> None:
    with pytest.raises(ps.InternalError, match=what):
        pulled().receive(0, chunks)


@pytest.mark.parametrize(("with_exists", "share"), [(True, None), (False, 0.5)])
def test_another_number_of_flags_than_ids_is_an_internal_error(with_exists: bool, share: float | None) -> None:
    with pytest.raises(ps.InternalError, match="0 bytes of flags for 2 rows"):
        pulled(with_exists, share).receive(0, answer([A, B]))


@given(st.lists(st.binary(max_size=80), max_size=3), st.booleans())
def test_any_bytes_are_rows_or_a_typed_error(messages: list[bytes], with_head: bool) -> None:
    with suppress(ps.PsError):
        pulled(share=0.5).receive(0, iter([head(important=b"\1"), *messages] if with_head else messages))


@given(st.data())
def test_a_garbled_answer_is_rows_or_a_typed_error(data: st.DataObject) -> None:
    messages = [bytearray(message) for message in in_blocks(block_of([1], pb.ENCODING_ROWS_FP32), block_of([0]))]
    for _ in range(data.draw(st.integers(1, 4))):
        message = messages[data.draw(st.integers(0, 1))]
        message[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(1, 255))
    found = pulled()
    with suppress(ps.PsError):
        found.receive(0, iter(map(bytes, messages)))
    assert [rows.shape for rows in found.rows] == [(2, DIM), (1, DIM)]
