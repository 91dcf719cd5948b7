"""What fp16 cannot hold is refused in both directions, never handed over as infinity."""

from __future__ import annotations

import numpy as np
import pytest

import ps
from ps.server.shard_server import ShardServer
from tests.loopback.tables import DIM, block, summing


def test_a_value_beyond_fp16_is_refused_and_fp32_still_reads_it(shard_server: ShardServer) -> None:
    with ps.connect(shard_server.address) as full, ps.connect(shard_server.address, wire_dtype="fp16") as half:
        full.create_table(ps.TableConfig(name="t", dim=2, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant()))
        full.upsert("t", [1, 2], np.array([[1e6, 0.0], [3.0, 4.0]]))
        with pytest.raises(ps.InvalidArgument, match="fp16 cannot"):
            half.pull("t", [1, 2])
        with pytest.raises(ps.NonFiniteGradient):
            half.push("t", [2], np.array([[1e6, 0.0]]))
        assert half.pull("t", [2]).tolist() == [[3.0, 4.0]]
        assert full.pull("t", [1]).tolist() == [[1e6, 0.0]]


def test_gradients_of_another_shape_than_the_ids_are_refused(shard_server: ShardServer) -> None:
    with ps.connect(shard_server.address) as client:
        client.create_table(ps.TableConfig(name="t", dim=2))
        with pytest.raises(ps.LengthMismatch, match=r"\(3, 2, 2\)"):
            client.push("t", np.arange(6).reshape(2, 3), np.ones((3, 2, 2), np.float32))
        client.push("t", np.arange(6).reshape(2, 3), np.ones((6, 2), np.float32))
        assert client.size("t") == 6


@pytest.mark.parametrize("value", [65520.0, -65520.0])
def test_what_fp16_rounds_to_infinity_is_not_sent(shard_server: ShardServer, value: float) -> None:
    with ps.connect(shard_server.address, wire_dtype="fp16") as client:
        client.create_table(summing())
        with pytest.raises(ps.NonFiniteGradient, match="nothing was sent"):
            client.push("t", [1, 2], block([1, value]))


@pytest.mark.parametrize("value", [65519.9, -65519.9, 65504.0])
def test_what_fp16_can_hold_is_sent(shard_server: ShardServer, value: float) -> None:
    with ps.connect(shard_server.address, wire_dtype="fp16") as client:
        client.create_table(summing())
        client.push("t", [1], block([value]))
        client.push("t", [], block([]))
        assert client.pull("t", [1]).tolist() == [[-np.float32(np.float16(value))] * DIM]
