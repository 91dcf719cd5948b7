"""What messages are made of: parts that add up to the whole, whatever comes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ps.errors import InvalidArgument
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, methods
from ps.wire.kinds import KINDS, Moved


@given(st.binary(max_size=60))
@example(codec.payload_message(b"abcd") + codec.payload_message(b"efg"))
@example(pb.PushChunk(head=pb.PushHead(sequence=5), payload=b"abc").SerializeToString())
def test_a_payload_is_as_long_as_what_is_read_of_it(data: bytes) -> None:
    try:
        expected = len(codec.payload_of(data))
    except InvalidArgument:
        with pytest.raises(InvalidArgument):
            codec.payload_bytes(data)
    else:
        assert codec.payload_bytes(data) == expected


def test_what_nothing_was_said_of_is_headers() -> None:
    head = pb.PushHead(ids=pb.IdSet(tables=[pb.TableIds(table="t", ids=bytes(16), counts=b"12")]))
    head.tables.add(positives=b"345")
    moved = Moved()
    moved.said(head)
    first = pb.PushChunk(head=head).SerializeToString()
    moved.chunk(methods.PUSH, first)
    moved.chunk(methods.PUSH, codec.payload_message(bytes(40)))
    answer = pb.PushResponse(version=7)
    moved.message(answer.SerializeToString(), answer)
    assert moved.by_kind() == {"ids": 18, "flags": 3, "rows": 0, "gradients": 40, "headers": len(first) - 21 + 4 + 2}
    twice = Moved()
    twice.add(moved)
    twice.add(moved)
    assert twice.by_kind() == {kind: 2 * n for kind, n in moved.by_kind().items()}
    assert tuple(twice.by_kind()) == KINDS
