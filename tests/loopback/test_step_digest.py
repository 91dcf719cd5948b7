"""A push by step says by a digest which ids it means: other ids than were prepared are refused, not updated."""

from __future__ import annotations

import pytest

import ps
from ps.server.shard_server import ShardServer
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec
from tests.loopback.tables import DIM, block, summing
from tests.wire_calls import RawCalls, error_of, id_set, rows_bytes


@pytest.mark.parametrize("in_round", [False, True])
def test_a_push_of_other_ids_than_its_step_has_is_refused(shard_server: ShardServer, in_round: bool) -> None:
    body, fields = rows_bytes(block([1, 1])), {"step": pb.StepRef(step=5)}
    if in_round:
        fields |= {"round": pb.Round(group="g", number=1, rank=0, ranks=1), "wait_ms": 1000}
    with ps.connect(shard_server.address) as client, RawCalls(shard_server.address) as calls:
        client.create_table(summing())
        calls.prepare(5, id_set(t=[1, 2]))
        others = codec.digest_ids(id_set(t=[1, 3]))
        error = error_of(calls.push, 1, [("t", 2, DIM)], body, **fields, ids_digest=others)
        assert isinstance(error, ps.InvalidArgument)
        assert hex(others) in str(error)
        assert client.size("t") == 0
        right = codec.digest_ids(id_set(t=[1, 2]))
        for _ in range(2):
            calls.push(2, [("t", 2, DIM)], body, **fields, ids_digest=right)  # the second is answered by the ledger
        assert client.pull("t", [1, 2, 3])[:, 0].tolist() == [-1, -1, 0]


def test_who_does_not_say_is_taken_at_its_step(shard_server: ShardServer) -> None:
    with ps.connect(shard_server.address) as client, RawCalls(shard_server.address) as calls:
        client.create_table(summing())
        calls.prepare(5, id_set(t=[1, 2]))
        calls.push(1, [("t", 2, DIM)], rows_bytes(block([1, 1])), step=pb.StepRef(step=5))
        assert client.pull("t", [1])[0, 0] == -1
