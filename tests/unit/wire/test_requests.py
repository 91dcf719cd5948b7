"""What a server makes of a request's bytes: messages as protobuf reads them, and of too many parts none."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps.errors import InvalidArgument, ResourceExhausted
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, requests
from tests.wire_calls import fp32_shape, id_set

MB = 1 << 20


def step_of(tables: int, ids: int = 3, blocks: int = 1) -> pb.PushHead:
    """A push of very many tables."""
    names = [f"table_{number}" for number in range(tables)]
    shapes = [fp32_shape(name, ids, 4) for name in names]
    for shape in shapes:
        shape.blocks.extend([shape.blocks[0]] * (blocks - 1))
    return pb.PushHead(sequence=1, ids=id_set(**{name: list(range(ids)) for name in names}), tables=shapes)


@pytest.mark.parametrize("tables", [0, 1, 26, 1300])
def test_a_step_of_very_many_tables_is_read_as_protobuf_reads_it(tables: int) -> None:
    head = step_of(tables)
    message = pb.PushChunk(head=head, payload=b"abcd")
    parsed, payload = requests.split(pb.PushChunk, message.SerializeToString())
    assert parsed.head == head
    assert bytes(payload) == b"abcd"


def test_what_a_newer_client_says_beside_is_skipped() -> None:
    head = step_of(500)
    beside = b"\x98\x06\x01" * 1000 + b"\xa2\x06\x03abc"
    assert requests.parse(pb.PushHead, head.SerializeToString() + beside).sequence == 1


EMPTY = {
    "tables of ids": (pb.PrepareRequest, lambda n: codec_field(3, b"\x0a\x00" * n)),
    "pushed tables": (pb.PushHead, lambda n: b"\x2a\x00" * n),
    "blocks": (pb.PushHead, lambda n: codec_field(5, b"\x2a\x00" * n)),
    "formats": (pb.PullRequest, lambda n: b"\x22\x00" * n),
    "fields that nobody knows": (pb.PushHead, lambda n: b"\xa0\x06\x01" * n),
    "fields that nobody knows, within": (pb.PrepareRequest, lambda n: codec_field(3, codec_field(1, b"\x78\x01" * n))),
    "sequences": (pb.PushHead, lambda n: b"\x10\x01" * n),
}


def codec_field(number: int, body: bytes) -> bytes:
    size, out = len(body), b""
    while size > 127:
        out, size = out + bytes((size & 127 | 128,)), size >> 7
    return bytes((number << 3 | 2,)) + out + bytes((size,)) + body


@pytest.mark.parametrize("what", EMPTY)
def test_megabytes_of_next_to_nothing_are_refused_and_nothing_is_built(what: str) -> None:
    kind, message = EMPTY[what]
    data = message(4 * MB)
    tracemalloc.start()
    try:
        with pytest.raises(ResourceExhausted, match="name fewer tables at once"):
            requests.parse(kind, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MB, "not even a copy"


def test_so_they_are_in_the_messages_of_a_stream() -> None:
    for data in (b"\x08\x01" * MB, b"\x0a\x00" * MB, b"\x12\x00" * MB):
        for read in (lambda d: requests.split(pb.PushChunk, d), codec.payload_of, codec.payload_bytes):
            with pytest.raises(InvalidArgument, match="more than 8,192 fields"):
                read(data)


def test_a_chunk_of_a_pull_may_be_of_very_many_tables() -> None:
    parts = [pb.PulledPart(rows=1, blocks=[pb.Block(encoding=pb.ENCODING_FP32, bytes=4)])] * 4096
    data = codec.payload_message(bytes(4 * 4096), pb.PullChunk(parts=parts).SerializeToString())
    assert len(codec.split(pb.PullChunk, data)[0].parts) == 4096


@pytest.mark.parametrize("cut", [1, 5, 3000])
def test_what_is_malformed_is_said_to_be(cut: int) -> None:
    for kind, data in ((pb.PushHead, step_of(500).SerializeToString()), (pb.PushHead, step_of(1).SerializeToString())):
        with pytest.raises(InvalidArgument, match="malformed PushHead"):
            requests.parse(kind, data[:-cut] if cut < len(data) else b"\x0a")


@settings(max_examples=20)
@given(st.integers(1, 2000), st.integers(1, 40), st.integers(1, 2))
def test_honest_pushes_are_within_the_limits(tables: int, ids: int, blocks: int) -> None:
    """Of so many tables as have room for a few ids each."""
    if tables * (2 + blocks) > requests.MAX_MESSAGES - 2:
        tables //= 2
    data = step_of(tables, ids, blocks).SerializeToString()
    assert len(requests.parse(pb.PushHead, data).tables) == tables


CONTROL: dict[str, Callable[[str], control.CreateTableRequest | control.DropTableRequest]] = {
    "create": lambda text: control.CreateTableRequest(config_json=text),
    "drop": lambda text: control.DropTableRequest(table=text),
}


@pytest.mark.parametrize("what", CONTROL)
def test_calls_of_the_control_plane_are_small(what: str) -> None:
    message = CONTROL[what]("x" * 60_000)
    assert requests.control(type(message), message.SerializeToString()) == message
    with pytest.raises(InvalidArgument, match="at most 65,536"):
        requests.control(type(message), CONTROL[what]("x" * 70_000).SerializeToString())


def test_clocks_of_as_many_ranks_as_may_be_are_within() -> None:
    message = control.AdvanceRequest(group="g" * 200, clocks=np.full(4096, 2**63 - 1).tolist())
    assert len(requests.control(control.AdvanceRequest, message.SerializeToString()).clocks) == 4096
