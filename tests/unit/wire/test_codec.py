"""Arrays <-> messages: exact both ways, readable by any protobuf, and never an exception of another kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ps.errors import DtypeMismatch, InvalidArgument, LengthMismatch
from ps.v1 import control_pb2, embedding_pb2
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec

FP32, FP16 = (codec.wire_dtype(name)[1] for name in ("fp32", "fp16"))
STREAMED: list[Any] = [pb.PullChunk, pb.PushChunk, pb.WriteChunk, pb.ExportChunk]
KINDS: list[Any] = [
    getattr(module, name)
    for module in (embedding_pb2, control_pb2)
    for name in sorted(module.DESCRIPTOR.message_types_by_name)
]

any_float32 = arrays.arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32, allow_nan=True))
payloads = st.binary(max_size=300)


# arrays


@given(arrays.arrays(np.int64, st.integers(0, 40)))
def test_ids_come_back_bit_for_bit(ids_N: np.ndarray) -> None:
    encoded = codec.encode_ids(ids_N)
    assert encoded == ids_N.astype("<i8").tobytes()
    np.testing.assert_array_equal(codec.decode_ids(encoded), ids_N)


@given(arrays.arrays(np.uint32, st.integers(1, 40)))
def test_counts_come_back_and_none_means_one_each(counts_N: np.ndarray) -> None:
    np.testing.assert_array_equal(codec.decode_counts(codec.encode_counts(counts_N), len(counts_N)), counts_N)
    assert codec.decode_counts(codec.encode_counts(None), len(counts_N)) is None
    with pytest.raises(LengthMismatch, match="counts for"):
        codec.decode_counts(codec.encode_counts(counts_N), len(counts_N) + 1)


@given(arrays.arrays(np.bool_, st.integers(0, 40)))
def test_flags_come_back(flags_N: np.ndarray) -> None:
    np.testing.assert_array_equal(codec.decode_flags(codec.encode_flags(flags_N)), flags_N)


@given(any_float32)
def test_fp32_rows_come_back_bit_for_bit_nan_included(rows: np.ndarray) -> None:
    back = codec.decode_rows(memoryview(bytes(codec.encode_rows(rows, FP32))), FP32)
    assert back.tobytes() == rows.tobytes()


@given(any_float32)
def test_fp16_rows_come_back_as_rounded_to_half(rows: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        expected = rows.astype(np.float16).astype(np.float32)
    back = codec.decode_rows(memoryview(bytes(codec.encode_rows(rows, FP16))), FP16)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, expected)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=20) | st.lists(st.integers(0, 255), max_size=20))
def test_counts_come_back_from_one_byte_each_or_four(counts: list[int]) -> None:
    counts_N = np.array(counts, np.uint32)
    sent = codec.encode_counts(counts_N)
    assert len(sent) == len(counts) * (1 if max(counts, default=0) < 256 else 4)
    back = codec.decode_counts(sent, len(counts))
    if counts:
        assert back is not None
        assert back.dtype == np.uint32
        assert back.tolist() == counts
    for n in {len(counts) + 1, 5 * len(counts), 2}:
        if sent and len(sent) not in (n, 4 * n):
            with pytest.raises(LengthMismatch, match=f"{len(sent)} bytes of counts for {n} ids"):
                codec.decode_counts(sent, n)


@pytest.mark.parametrize(
    ("decode", "size"),
    [
        (codec.decode_ids, 7),
        (codec.decode_scores, 2),
        (lambda data: codec.decode_rows(memoryview(data), FP32), 6),
        (lambda data: codec.decode_rows(memoryview(data), FP16), 3),
    ],
)
def test_bytes_that_are_no_whole_number_of_elements_are_refused(decode: Any, size: int) -> None:
    with pytest.raises(LengthMismatch, match="not a whole number"):
        decode(bytes(size))


def test_an_unknown_wire_dtype_is_named() -> None:
    with pytest.raises(DtypeMismatch, match="'int8'"):
        codec.wire_dtype("int8")
    with pytest.raises(DtypeMismatch, match="99"):
        codec.numpy_dtype(99)
    with pytest.raises(DtypeMismatch):
        codec.numpy_dtype(pb.DTYPE_UNSPECIFIED)


# messages


@pytest.mark.parametrize("n", [0, 1, 127, 128, 16_383, 16_384, codec.CHUNK_BYTES, (1 << 21) - 1])
@pytest.mark.parametrize("kind", STREAMED)
def test_protobuf_reads_our_payload_messages(kind: Any, n: int) -> None:
    payload = np.random.default_rng(n).bytes(n)
    message = kind.FromString(codec.payload_message(payload))
    assert message.payload == payload
    assert not message.HasField("head")


def test_a_payload_beyond_the_length_field_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="at most 2,097,151"):
        codec.payload_message(bytes(1 << 21))


@pytest.mark.parametrize("n", [0, 1, 31, 32, 5000, codec.CHUNK_BYTES // 4])
def test_a_blank_message_carries_what_is_written_to_its_view(n: int) -> None:
    message, view = codec.blank_payload_message(n)
    rows = np.random.default_rng(n).standard_normal(n, np.float32)
    view[:] = rows
    assert message == codec.payload_message(rows.tobytes())
    assert pb.PullChunk.FromString(message).payload == rows.tobytes()
    np.testing.assert_array_equal(codec.decode_rows(codec.payload_of(message), FP32), rows)


def test_rows_of_our_messages_are_read_where_they_lie() -> None:
    """Both framings put the floats at a multiple of four, so decoding copies nothing."""
    for message in (codec.payload_message(bytes(400)), codec.blank_payload_message(100)[0]):
        payload = codec.payload_of(message)
        rows = codec.decode_rows(payload, FP32)
        assert np.shares_memory(rows, np.frombuffer(message, np.uint8))
        assert rows.flags.aligned


@given(payloads, payloads)
def test_we_read_protobufs_own_messages_head_and_payload_in_one(ids: bytes, payload: bytes) -> None:
    """A foreign sender need not separate them, and does not pad the length."""
    sent = pb.ExportChunk(head=pb.ExportHead(ids=ids, dim=3, next_cursor=1 << 60), payload=payload)
    data = sent.SerializeToString()
    head, body = codec.split(pb.ExportChunk, data)
    assert head == pb.ExportChunk(head=sent.head)
    assert bytes(body) == payload
    assert bytes(codec.payload_of(data)) == payload


@given(payloads, st.integers(0, 7))
def test_rows_at_any_alignment_are_read(noise: bytes, shift: int) -> None:
    rows = np.arange(11, dtype="<f4")
    held = bytes(shift) + rows.tobytes() + noise
    np.testing.assert_array_equal(codec.decode_rows(memoryview(held)[shift : shift + 44], FP32), rows)
    np.testing.assert_array_equal(
        codec.decode_rows(memoryview(bytes(shift) + rows.astype("<f2").tobytes())[shift:], FP16), rows
    )


def test_a_payload_before_the_head_and_unknown_fields_are_understood() -> None:
    """Protobuf promises no order of fields, and a later version may add some."""
    head = pb.PushChunk(head=pb.PushHead(sequence=5)).SerializeToString()
    unknown = bytes((99 << 3 & 0x7F | 0x80 | 0, 99 >> 4, 42))  # field 99, varint
    fixed = bytes((14 << 3 | 1, *range(8), 13 << 3 | 5, *range(4)))
    data = codec.payload_message(b"abc") + unknown + fixed + head
    assert pb.PushChunk.FromString(data).payload == b"abc", "the test's own message is well-formed"
    parsed, payload = codec.split(pb.PushChunk, data)
    assert (parsed.head.sequence, bytes(payload)) == (5, b"abc")


@pytest.mark.parametrize("kind", STREAMED)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_parsed_or_invalid_argument(kind: Any, data: bytes) -> None:
    try:
        head, payload = codec.split(kind, data)
    except InvalidArgument:
        return
    assert isinstance(head, kind)
    assert len(payload) <= len(data)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary(max_size=100))
def test_every_message_kind_survives_random_bytes(kind: Any, data: bytes) -> None:
    try:
        assert isinstance(codec.parse(kind, data), Message)
    except InvalidArgument as error:
        assert kind.DESCRIPTOR.name in str(error)


@given(st.data())
def test_mutated_messages_are_parsed_or_invalid_argument(data: st.DataObject) -> None:
    """Bytes flipped, cut and inserted in a real push. What both parsers take, both take as the same."""
    head = pb.PushHead(
        header=pb.Header(routing_epoch=1, worker_id=2**63),
        sequence=9,
        ids=pb.IdSet(tables=[pb.TableIds(table="user", ids=bytes(range(24)), counts=bytes(12))]),
        tables=[pb.PushedTable(table="user", rows=3, dim=4)],
    )
    message = bytearray(pb.PushChunk(head=head).SerializeToString() + codec.payload_message(bytes(48)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(message) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                message[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del message[at : at + data.draw(st.integers(1, 9))]
            case "insert":
                message[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        if not message:
            break
    try:
        parsed, payload = codec.split(pb.PushChunk, bytes(message))
    except InvalidArgument:
        return
    assert parsed.payload == b""
    try:
        theirs = pb.PushChunk.FromString(bytes(message))
    except DecodeError:
        return  # a tag padded beyond what protobuf allows
    assert bytes(payload) == theirs.payload
    theirs.ClearField("payload")
    assert parsed == theirs


# pieces


@given(
    blocks=st.lists(st.tuples(st.integers(0, 3000), st.sampled_from([1, 3, 64, 1000, 65_536])), max_size=6),
    dtype=st.sampled_from([FP32, FP16]),
)
def test_pieces_never_cut_a_row_and_keep_the_order(blocks: list[tuple[int, int]], dtype: np.dtype) -> None:
    sizes = [(min(n, 2_000_000 // dim), dim) for n, dim in blocks]
    start, rows = 0, []
    for n, dim in sizes:
        rows.append((np.arange(start, start + n * dim) % 2048).astype(np.float32).reshape(n, dim))
        start += n * dim
    pieces = list(codec.pieces(rows, dtype))
    assert b"".join(pieces) == b"".join(block.astype(dtype).tobytes() for block in rows)
    ends, at = set(), 0
    for n, dim in sizes:
        ends.update(at + (i + 1) * dim * dtype.itemsize for i in range(n))
        at += n * dim * dtype.itemsize
    sent = 0
    for i, piece in enumerate(pieces):
        sent += len(piece)
        assert sent in ends, "a piece ends where a row ends"
        assert 0 < len(piece) <= codec.CHUNK_BYTES
        if i + 1 < len(pieces):
            assert len(piece) + 65_536 * dtype.itemsize > codec.CHUNK_BYTES, "nearly full: another row did not fit"


def test_small_tables_share_one_piece() -> None:
    assert len(list(codec.pieces([np.ones((3, 4), np.float32), np.ones((2, 8), np.float32)], FP32))) == 1


def test_no_rows_make_no_piece() -> None:
    assert list(codec.pieces([], FP32)) == []
    assert list(codec.pieces([np.empty((0, 4), np.float32)], FP32)) == []


# digest


def test_the_digest_of_ids_depends_on_every_part_and_on_where_one_part_ends() -> None:
    cases = [
        [("a", b"12345678", b"")],
        [("a", b"12345678", b"1234")],
        [("b", b"12345678", b"")],
        [("a", b"12345679", b"")],
        [("a", b"1234567812345678", b"")],
        [("a", b"12345678", b""), ("a", b"12345678", b"")],
        [("a", b"", b"12345678")],
        [],
    ]
    sets = [pb.IdSet(tables=[pb.TableIds(table=t, ids=i, counts=c) for t, i, c in case]) for case in cases]
    assert len({codec.digest_ids(ids) for ids in sets}) == len(cases)
    assert codec.digest_ids(sets[0]) == codec.digest_ids(pb.IdSet.FromString(sets[0].SerializeToString()))
    sorted_ids = [pb.IdSet(tables=[pb.TableIds(table="a", sorted_ids=data)]) for data in (b"1", b"2")]
    assert codec.digest_ids(sorted_ids[0]) != codec.digest_ids(sorted_ids[1])
