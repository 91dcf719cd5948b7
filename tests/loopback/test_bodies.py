"""Memory of messages under way: a push holds what has come of it, and large ones at once all get through."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ps
from benchmarks.service.half_calls import HalfCall
from ps.server.shard_server import ShardServer
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import methods
from tests.clocks import Fast
from tests.conftest import StartServer
from tests.loopback.tables import block, summing
from tests.waiting import until
from tests.wire_calls import fp32_shape, id_set, table_ids

RAM, DIM, NEVER_S = 64 << 20, 256, 600.0
"""16 MiB of it are for messages under way."""
ROWS = 10_000
"""10 MB: two of them do not fit."""


def head(server: ShardServer, method: methods.Method) -> bytes:
    data = server.dispatcher.unary(methods.DESCRIBE, control.DescribeRequest().SerializeToString())
    header = pb.Header(routing_epoch=control.DescribeResponse.FromString(data).routing.epoch, worker_id=7)
    shape = fp32_shape("t", ROWS, DIM)
    if method is methods.PUSH:
        said = pb.PushHead(header=header, sequence=1, ids=id_set(t=[1]), tables=[shape])
        return pb.PushChunk(head=said).SerializeToString()
    mode = pb.WRITE_MODE_UPSERT
    return pb.WriteChunk(
        head=pb.WriteHead(header=header, sequence=1, ids=table_ids("t", [1]), shape=shape, mode=mode)
    ).SerializeToString()


@pytest.mark.parametrize("method", [methods.PUSH, methods.WRITE], ids=lambda method: method.name)
def test_what_is_announced_and_does_not_come_holds_nothing(start_server: StartServer, method: methods.Method) -> None:
    server = start_server(memory={"ram_bytes": RAM}, network={"stall_timeout_s": NEVER_S, "drain_timeout_s": 0.1})
    with ps.connect(server.address) as client, HalfCall(server.address, method) as call:
        client.create_table(summing(dim=DIM))
        call.send(head(server, method))
        until(lambda: len(server.dispatcher.calls) == 1)
        client.push("t", range(ROWS), block(np.ones(ROWS), DIM))
        assert client.pull("t", range(ROWS))[-1, 0] == -1.0
        assert client.traffic()["retries"] == 0, "nobody was in the way"
        assert not call.ended.is_set()


def test_a_body_that_stalls_halfway_gives_way_to_one_that_needs_its_bytes(start_server: StartServer) -> None:
    server = start_server(
        clock=Fast(20),
        memory={"ram_bytes": RAM},
        network={"stall_timeout_s": 20 * NEVER_S, "drain_timeout_s": 0.1},
    )
    with ps.connect(server.address) as client, HalfCall(server.address, methods.PUSH) as call:
        client.create_table(summing(dim=DIM))
        call.send(head(server, methods.PUSH))
        for come in (4500, 9000):  # in two messages, which are each below max_message_bytes
            call.send_slowly(pb.PushChunk(payload=bytes(4500 * 4 * DIM)).SerializeToString())
            until(lambda come=come: server.shard.budget.bodies.used == come * 4 * DIM)
        client.push("t", range(ROWS), block(np.ones(ROWS), DIM), timeout_s=60)
        until(call.ended.is_set)
        assert client.pull("t", range(ROWS))[-1, 0] == -1.0


def test_large_pushes_at_once_all_get_through(start_server: StartServer) -> None:
    """Four trainers, of which no two fit together, each with its own idea of when to come again."""
    server, pushes, trainers = start_server(memory={"ram_bytes": RAM}), 3, 4
    with ps.connect(server.address) as client:
        client.create_table(summing(dim=DIM))

        def train(trainer: int) -> None:
            with ps.connect(server.address) as own:
                for _ in range(pushes):
                    own.push("t", range(ROWS), block(np.full(ROWS, 10.0**trainer), DIM), timeout_s=120)

        with ThreadPoolExecutor(trainers) as pool:
            list(pool.map(train, range(trainers)))
        assert client.pull("t", [0, ROWS - 1], timeout_s=60)[:, 0].tolist() == [-3333.0] * 2
    until(lambda: server.shard.budget.bodies.used == 0)
