"""What clients send is logged as it came, digested as it is logged, and replayed to the same shard."""

from __future__ import annotations

import numpy as np
import pytest

import ps
from ps.server.shard_server import ShardServer
from ps.server.unpacking import WIRE
from ps.shard import Shard
from ps.shard.writes.push import Push
from ps.shard.writes.registry import decode
from tests.conftest import QUIET
from tests.loopback.tables import DIM, block, summing
from tests.unit.shard.histories import History, held, replayed

IDS = np.arange(40)


@pytest.mark.parametrize("wire_dtype", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("compress_ids", [False, True])
def test_requests_are_logged_digested_and_replayed(wire_dtype: str, compress_ids: bool) -> None:
    history = History()
    with (
        ShardServer(0, QUIET, history=history) as server,
        ps.connect(server.address, wire_dtype=wire_dtype, compress_ids=compress_ids) as client,
    ):
        client.create_table(summing())
        client.push("t", IDS, block(IDS))
        step = client.prepare({"t": IDS})
        step.pull()
        step.push({"t": block(IDS)})
        client.upsert("t", IDS[:5], block(IDS[:5]))
        client.assign("t", IDS[3:9], block(IDS[3:9]))
        client.remove("t", IDS[:2])
        rows = held(server.shard)
    writes = [decode(record, WIRE) for record in history.records]
    assert len(writes) == 6
    for write in writes:
        assert [entry.digest for entry in write.entries] in ([], [write.digest()])
    pushes = [write for write in writes if isinstance(write, Push)]
    assert all((push.sent[0].came is not None) == (wire_dtype != "fp32") for push in pushes)
    assert all((push.of[0].packed is not None) == compress_ids for push in pushes)
    assert all(push.sent[0].blocks[0].shape == (len(IDS), DIM) for push in pushes)
    second = Shard(0, QUIET)
    try:
        replayed(history.records, second)
        assert held(second) == rows
    finally:
        second.close()
