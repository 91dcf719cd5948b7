"""A row that overflows is not silent: not at the update, and not when somebody reads it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.server.shard_server import ShardServer
from tests.conftest import QUIET
from tests.loopback.tables import DIM, block
from tests.optimizers import EVERY

BIG = 3e38
OPTIMIZERS = [type(one)(lr=1.0) if "lr" in type(one).model_fields else one for one in EVERY.values()]


def config(name: str = "t", **settings: object) -> ps.TableConfig:
    defaults: dict[str, object] = {"optimizer": ps.SGD(lr=1.0), "initializer": ps.Constant()}
    return ps.TableConfig(name=name, dim=DIM, **{**defaults, **settings})


def counted(server: ShardServer, table: str = "t") -> tuple[int, int]:
    stats = server.shard.stats()["tables"][table]
    return stats["rows_nonfinite"], stats["rows_clamped"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.kind)
@pytest.mark.parametrize("cold", [None, ps.Fp16(hot_fraction=0.01)], ids=["fp32", "fp16"])
def test_an_update_that_overflows_is_counted_and_named(
    shard_server: ShardServer, optimizer: object, cold: object, caplog: pytest.LogCaptureFixture
) -> None:
    with ps.connect(shard_server.address) as client:
        client.create_table(config(optimizer=optimizer, cold=cold, half_life_pushes=64))
        for _ in range(3):
            client.push("t", np.arange(100), block(np.linspace(-1, 1, 100)))
        assert counted(shard_server)[0] == 0
        assert not caplog.records
        grads = block(np.ones(3))
        grads[1] = BIG
        for _ in range(2):
            client.push("t", [7, 50, 9], grads)  # w = -BIG * 2; or h = BIG ** 2
        again = counted(shard_server)[0]
    if cold and optimizer.kind == "sgd":
        assert (again, counted(shard_server)[1] > 0) == (0, True), "cut to what it holds, which is another fault"
        return
    assert 1 <= again <= 2
    (said,) = {r.getMessage() for r in caplog.records if r.levelno == logging.ERROR and "1 so far" in r.getMessage()}
    assert "table t:" in said
    assert "the first of id 50" in said
    assert ("state" in said) == (optimizer.kind != "sgd" and "in its state" in said)


def test_what_is_large_and_finite_is_not_counted(shard_server: ShardServer) -> None:
    with ps.connect(shard_server.address) as client:
        client.create_table(config(optimizer=ps.Adagrad(lr=1.0)))
        client.upsert("t", [1], block([-BIG]))
        client.push("t", [1], block([1.8e19]))  # h = 3.2e38
        assert counted(shard_server) == (0, 0)
        assert np.isfinite(client.pull("t", [1])).all()


def test_cores_that_overflow_are_counted(shard_server: ShardServer, caplog: pytest.LogCaptureFixture) -> None:
    cold = ps.TensorTrain(rows=1000, ranks=4, hot_rows=10, lift_after=100)
    with ps.connect(shard_server.address) as client:
        client.create_table(ps.TableConfig(name="t", dim=8, cold=cold, optimizer=ps.SGD(lr=1.0)))
        for _ in range(2):
            client.push("t", [1], block([BIG], 8))
    assert counted(shard_server)[0] > 0
    assert "slices of the cores" in caplog.text


def test_cold_rows_that_are_cut_to_what_half_precision_holds_are_counted(
    shard_server: ShardServer, caplog: pytest.LogCaptureFixture
) -> None:
    with ps.connect(shard_server.address) as client:
        client.create_table(config(cold=ps.Fp16(hot_fraction=0.01), half_life_pushes=64))
        client.push("t", [1], block([-70_000]))
        for _ in range(4):
            client.push("t", np.arange(100, 200), block(np.zeros(100)))
        assert client.pull("t", [1]).tolist() == [[65504.0] * DIM]
        assert counted(shard_server) == (0, 1), "as it became cold"
        client.push("t", [1], block([-10_000]))
        assert counted(shard_server) == (0, 2), "in an update"
        client.assign("t", [1], block([1e6]))
        assert counted(shard_server) == (0, 3), "as it was set"
    assert "beyond 65504" in caplog.text


@pytest.mark.parametrize("wire_dtype", ["fp16", "int8"])
def test_a_pull_that_cannot_be_sent_names_table_and_id(shard_server: ShardServer, wire_dtype: str) -> None:
    with ps.connect(shard_server.address) as full, ps.connect(shard_server.address, wire_dtype=wire_dtype) as small:
        for name in ("t", "u"):
            full.create_table(config(name))
            full.push(name, np.arange(300), block(np.ones(300)))
        for _ in range(2):
            full.push("u", [123], block([-BIG]))
        with pytest.raises(ps.InvalidArgument, match=r"table 'u': the row of id 123 cannot be sent"):
            small.prepare({"t": np.arange(300), "u": np.arange(299, -1, -1)}).pull()
        assert full.pull("u", [123]).tolist() == [[np.inf] * DIM]


def test_by_importance_the_row_named_is_the_one_that_cannot_be_sent(shard_server: ShardServer) -> None:
    wire = ps.ByImportance(important="fp32", others="fp16", share=0.1)
    with ps.connect(shard_server.address) as full, ps.connect(shard_server.address, wire_dtype=wire) as mixed:
        full.create_table(config())
        full.push("t", np.arange(100), block(np.zeros(100)))
        for _ in range(5):
            full.push("t", np.arange(8), block(np.zeros(8)))
        full.assign("t", [3, 60], block([1e30, 1e6]))
        with pytest.raises(ps.InvalidArgument, match="the row of id 60 cannot"):
            mixed.pull("t", np.arange(100))


def test_a_row_on_disk_is_no_exception(tmp_path: Path) -> None:
    settings = QUIET.having(disk={"path": tmp_path})
    with ShardServer(0, settings) as server, ps.connect(server.address) as client:
        client.create_table(config(swap_fraction=0.9))
        client.push("t", np.arange(100), block(np.ones(100)))
        for _ in range(2):
            client.push("t", [5], block([-BIG]))
        assert counted(server) == (1, 0)
