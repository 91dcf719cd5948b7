"""What a broken shard could answer to a pull: an error that says what was wrong with it, never a wrong row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import ps
from ps.client.batch import make_batch
from ps.client.pulled import Pulled
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec
from ps.wire.routing import Routing, ShardInfo

DIM = 3
ROUTING = Routing.even(1, [ShardInfo(0, "")])


def pulled(with_exists: bool = False) -> Pulled:
    configs = {name: ps.TableConfig(name=name, dim=DIM) for name in ("a", "b")}
    return Pulled(make_batch({"a": [1, 2], "b": [3]}, configs, ROUTING), with_exists)


def answer(*floats: int, tables: int = 2, exists: bytes = b"") -> Iterator[bytes]:
    """A head, then a chunk of so many floats each, counted from 0."""
    shapes = [pb.PulledTable(dim=DIM, rows=1, exists=exists) for _ in range(tables)]
    yield pb.PullChunk(head=pb.PullHead(version=5, tables=shapes)).SerializeToString()
    numbers = np.arange(sum(floats), dtype="<f4")
    for part in np.split(numbers, np.cumsum(floats)[:-1]):
        yield codec.payload_message(part.tobytes())


@pytest.mark.parametrize("floats", [(9,), (3, 6), (3, 3, 3), (6, 3)])
def test_whole_rows_in_any_chunks_are_taken(floats: tuple[int, ...]) -> None:
    whole = pulled()
    whole.receive(0, answer(*floats), "fp32")
    assert [rows.tolist() for rows in whole.rows] == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8]]]
    assert whole.versions == {0: 5}


@pytest.mark.parametrize(
    ("chunks", "what"),
    [
        (answer(9, 3), "more rows"),
        (answer(12), "more rows"),
        (answer(6), "fewer rows"),
        (answer(3, 2, 4), "inside a row"),
        (answer(9, tables=1), "1 tables of 2"),
        (answer(9, tables=3), "3 tables of 2"),
        (iter(()), "before its first message"),
    ],
    ids=["a chunk more", "a row more", "too few", "half a row", "a table less", "a table more", "nothing"],
)
def test_an_answer_of_another_shape_is_an_internal_error(chunks: Iterator[bytes], what: str) -> None:
    with pytest.raises(ps.InternalError, match=what):
        pulled().receive(0, chunks, "fp32")


def test_another_number_of_flags_than_ids_is_an_internal_error() -> None:
    with pytest.raises(ps.InternalError, match="1 flags for 2 ids"):
        pulled(with_exists=True).receive(0, answer(9, exists=b"\1"), "fp32")
