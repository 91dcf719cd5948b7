"""Arrays <-> messages: exact both ways, readable by any protobuf, and never an exception of another kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ps.errors import InvalidArgument, LengthMismatch
from ps.v1 import control_pb2, embedding_pb2
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec
from tests.wire_calls import fp32_shape

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
    np.testing.assert_array_equal(codec.decode_flags(codec.encode_flags(flags_N), len(flags_N)), flags_N)
    assert len(codec.encode_flags(flags_N)) == -(-len(flags_N) // 8)
    assert codec.encode_flags(None) == b""


@given(any_float32)
def test_fp32_rows_come_back_bit_for_bit_nan_included(rows: np.ndarray) -> None:
    back = codec.decode_rows(memoryview(rows.astype("<f4").tobytes()))
    assert back.tobytes() == rows.tobytes()


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
        (lambda data: codec.decode_rows(memoryview(data)), 6),
    ],
)
def test_bytes_that_are_no_whole_number_of_elements_are_refused(decode: Any, size: int) -> None:
    with pytest.raises(LengthMismatch, match="not a whole number"):
        decode(bytes(size))


@pytest.mark.parametrize(("size", "n"), [(0, 1), (1, 0), (1, 9), (2, 8)])
def test_another_number_of_flags_is_refused(size: int, n: int) -> None:
    with pytest.raises(LengthMismatch, match=f"{size} bytes of flags for {n} rows"):
        codec.decode_flags(bytes(size), n)


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
@pytest.mark.parametrize("parts", [[], [pb.PulledPart(rows=3)]])
def test_a_blank_message_carries_what_is_written_to_its_view(n: int, parts: list[pb.PulledPart]) -> None:
    fields = pb.PullChunk(parts=parts).SerializeToString()
    message, view = codec.blank_payload_message(n, fields)
    rows = np.random.default_rng(n).standard_normal(n, np.float32)
    view[:] = rows
    assert message == codec.payload_message(rows.tobytes(), fields)
    assert pb.PullChunk.FromString(message) == pb.PullChunk(parts=parts, payload=rows.tobytes())
    head, payload = codec.split(pb.PullChunk, message)
    assert list(head.parts) == parts
    np.testing.assert_array_equal(codec.decode_rows(payload), rows)


def test_rows_of_our_messages_are_read_where_they_lie() -> None:
    """Both framings put the floats at a multiple of four, so decoding copies nothing."""
    for message in (codec.payload_message(bytes(400)), codec.blank_payload_message(100)[0]):
        payload = codec.payload_of(message)
        rows = codec.decode_rows(payload)
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
    np.testing.assert_array_equal(codec.decode_rows(memoryview(held)[shift : shift + 44]), rows)


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
        tables=[fp32_shape("user", 3, 4)],
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


@given(parts=st.lists(st.tuples(st.integers(0, 3000), st.sampled_from([1, 4, 256, 4000, 262_144])), max_size=6))
def test_pieces_are_cut_only_where_they_may_be_and_keep_the_order(parts: list[tuple[int, int]]) -> None:
    sizes = [(min(n, 4_000_000 // unit), unit) for n, unit in parts]
    rng = np.random.default_rng(0)
    bodies = [(memoryview(rng.bytes(n * unit)), unit) for n, unit in sizes]
    pieces = list(codec.pieces(bodies))
    assert b"".join(pieces) == b"".join(body for body, _ in bodies)
    ends, at = set(), 0
    for n, unit in sizes:
        ends.update(at + (i + 1) * unit for i in range(n))
        at += n * unit
    sent = 0
    for i, piece in enumerate(pieces):
        sent += len(piece)
        assert sent in ends, "a piece ends where a row ends"
        assert 0 < len(piece) <= codec.CHUNK_BYTES
        if i + 1 < len(pieces):
            assert len(piece) + 262_144 > codec.CHUNK_BYTES, "nearly full: another row did not fit"


def test_small_tables_share_one_piece() -> None:
    assert len(list(codec.pieces([(memoryview(bytes(48)), 16), (memoryview(bytes(64)), 32)]))) == 1


def test_no_rows_make_no_piece() -> None:
    assert list(codec.pieces([])) == []
    assert list(codec.pieces([(memoryview(b""), 16)])) == []


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
