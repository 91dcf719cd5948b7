"""The formulas of `psctl size` against the structures that they are about; processes: tests/loopback/test_size.py."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import ps
from ps.cli import app
from ps.cli.sizing.demand import Demand, network, shard_size
from ps.cli.sizing.formulas import Load, filter_bytes, table_size
from ps.cli.sizing.log import durable_bytes, log_size
from ps.cli.sizing.nodes import Node, busy_shards, fitted_to, nodes, settled, suggested
from ps.kernels.rows.records import HEADER_BYTES, KEY_BYTES
from ps.server.shard_server import ShardServer
from ps.storage.budget.budget import RamBudget
from ps.storage.disk.filter import IdFilter
from ps.table.beside import fixed_bytes
from tests.conftest import QUIET
from tests.optimizers import EVERY

NODE = Node(64 << 30, 1e12, 1.25e9, 8)
ON_DISK = ps.ServiceConfig(disk={"path": Path("ssd")})


def table(**settings: Any) -> ps.TableConfig:
    return ps.TableConfig(**{"name": "t", "dim": 16, **settings})


@pytest.mark.parametrize("optimizer", EVERY.values(), ids=lambda optimizer: optimizer.kind)
@pytest.mark.parametrize("dim", [3, 64])
def test_rows_in_ram_are_as_large_as_the_table_says(optimizer: Any, dim: int) -> None:
    """Committed arrays come in pages, and an index splits one segment at a time: 5 %."""
    n = 150_000
    config = table(dim=dim, optimizer=optimizer)
    size = table_size(config, n, Load(), has_disk=False)
    with ps.connect("inproc:") as client:
        client.create_table(config)
        for part_N in np.array_split(np.random.default_rng(0).integers(-(2**62), 2**62, n), 10):
            client.push("t", part_N, np.zeros((len(part_N), dim), np.float32))
        (stats,) = client.stats()["shards"]
    assert stats["tables"]["t"]["row_bytes"] == size.row_bytes
    used = sum(stats["tables"]["t"]["bytes"]["hot"].values())
    assert used == pytest.approx(size.ram_bytes, rel=0.1 if dim == 3 else 0.05, abs=1 << 20)


@settings(max_examples=20)
@given(st.integers(1, 1_000_000))
def test_the_filter_takes_what_its_layers_take(ids: int) -> None:
    """Layers are whole pages, and of blocks of 64 bytes."""
    with closing(IdFilter()) as some:
        for start in range(0, ids, 100_000):
            some.add(np.arange(start, min(start + 100_000, ids)))
        # an id that it claims to have already takes no room: at a border there may be a layer less
        assert some.nbytes - 4096 * some.layers <= filter_bytes(ids)
        assert filter_bytes(ids - ids // 50) <= some.nbytes


@pytest.mark.parametrize(
    "config",
    [
        table(),
        table(admission=ps.CountThreshold(min_count=3, cells=5000)),
        table(cold=ps.TensorTrain(rows=1_000_000, ranks=8)),
        table(cold=ps.TensorTrain(rows=100_000, ranks=(4, 6), optimizer=ps.SGD()), optimizer=ps.Adam()),
    ],
    ids=["plain", "sketch", "tensor train", "own optimizer"],
)
def test_what_does_not_grow_with_rows_is_what_the_shard_says(config: ps.TableConfig) -> None:
    with ps.connect("inproc:") as client:
        client.create_table(config)
        held = client.memory_usage()["tables"]["t"]
    buffers_to_come = 2 / 3 if isinstance(config.cold, ps.TensorTrain) else 0
    cores = held.get("tensor_train", {}).get("cores", 0)
    assert sum(fixed_bytes(config, False).values()) == pytest.approx(
        held["hot"]["ranking"] + held["hot"].get("admission", 0) + cores / (1 - buffers_to_come), rel=0.05
    )


def test_half_precision_halves_what_is_cold() -> None:
    full = table_size(table(dim=64), 10**6, Load(), has_disk=False)
    half = table_size(
        table(dim=64, cold=ps.Fp16(hot_fraction=0), half_life_pushes=10_000), 10**6, Load(), has_disk=False
    )
    assert full.row_bytes == 4 * 65
    assert half.ram_row_bytes == pytest.approx(full.ram_row_bytes - 260 + 132 + 12)
    tenth = table_size(
        table(dim=64, cold=ps.Fp16(hot_fraction=0.1), half_life_pushes=10_000), 10**6, Load(), has_disk=False
    )
    assert tenth.ram_row_bytes == pytest.approx(half.ram_row_bytes + 0.125 * (260 - 132))


@given(
    st.integers(1, 10**12),
    st.integers(1, 10**12),
    st.sampled_from(list(EVERY.values())),
    st.sampled_from([None, ps.Fp16(), ps.Fp16(state="rowwise", hot_fraction=0.5)]),
    st.booleans(),
)
def test_more_rows_never_take_less(few: int, more: int, optimizer: Any, cold: Any, has_disk: bool) -> None:
    few, more = sorted((few, more))
    if cold is not None and cold.state == "rowwise":
        optimizer = ps.Adagrad()
    config = table(optimizer=optimizer, cold=cold)
    sizes = [table_size(config, n, Load(1000, 10), has_disk) for n in (few, more)]
    assert sizes[0].ram_bytes <= sizes[1].ram_bytes
    assert sizes[0].disk_bytes <= sizes[1].disk_bytes
    assert sizes[1].rows_in_ram <= more


@given(st.integers(1000, 10**9), st.integers(1, 64), st.sampled_from([ps.ServiceConfig(), ON_DISK]))
def test_the_suggested_settings_have_room_for_the_rows(ids: int, shards: int, service: ps.ServiceConfig) -> None:
    demand = Demand([(table(dim=64), ids), (table(name="u", dim=8), 2 * ids)], service, shards, step_ids=1000)
    given = suggested(demand)
    sizes = shard_size(settled(demand)).tables
    room = RamBudget(given).for_slots(2)
    assert room is not None
    assert sum(size.rows_in_ram * size.slot_bytes for size in sizes) <= room
    if given.disk.max_bytes is not None:
        below = sum(size.rows_on_disk * (size.row_bytes + KEY_BYTES + HEADER_BYTES) for size in sizes)
        assert below <= 0.8 * given.disk.max_bytes + 1


@pytest.mark.parametrize("wire", ["fp32", "fp16", "int8"])
def test_the_bytes_of_a_step_are_what_a_client_counts(wire: str) -> None:
    config, n = table(dim=64), 5000
    predicted = network(Demand([(config, n)], step_ids=n, wire=wire))
    with ps.connect("inproc:", wire_dtype=wire) as client:
        client.create_table(config)
        before = client.stats()["client"]
        step = client.prepare({"t": np.r_[0:n, 0]})  # with a duplicate, so that counts are sent
        step.pull()
        step.push({"t": np.ones((n + 1, 64), np.float32)})
        after = client.stats()["client"]

    def counted(direction: str) -> int:
        names = ("Prepare", "Pull", "Push")
        return sum(after[direction].get(name, 0) - before[direction].get(name, 0) for name in names)

    assert counted("sent_bytes") == pytest.approx(predicted.to_shards, rel=0.01)
    assert counted("received_bytes") == pytest.approx(predicted.from_shards, rel=0.01)


def test_what_is_short_decides_how_many_nodes() -> None:
    small = Demand([(table(dim=64), 10**6)], ON_DISK, step_ids=1000)
    assert nodes(small, NODE).needed == 1
    for short, name in (
        (NODE._replace(ram_bytes=1 << 28), "ram"),
        (NODE._replace(disk_bytes=1 << 26), "disk"),
        (NODE._replace(network_bytes_per_s=1e4), "network"),
    ):
        found = nodes(small, short)
        assert getattr(found, name) == found.needed > 1
    with pytest.raises(ps.InvalidArgument, match="--node-disk"):
        nodes(small, NODE._replace(disk_bytes=0))
    busy = Demand([(table(dim=64), 10**6)], step_ids=10**6, steps_per_s=100)
    assert nodes(busy, NODE._replace(network_bytes_per_s=1e12)).work == -(-busy_shards(busy) // 8) > 1


@given(st.integers(10**6, 10**12))
def test_shards_are_as_many_as_the_nodes_and_the_work_ask_for(ids: int) -> None:
    fitted = fitted_to(Demand([(table(dim=64), ids)], ON_DISK), NODE)
    needed = nodes(fitted, NODE).needed
    assert needed <= max(fitted.shards, 1)
    assert fitted.shards >= busy_shards(fitted)


LOGGED = ps.ServiceConfig(
    disk={"path": Path("ssd")},
    log={"mode": "sync", "path": Path("log")},
    checkpoint={"path": "checkpoints", "every_s": 60, "keep": 3},
)


@pytest.mark.parametrize("density", [1.0, 0.05])
@pytest.mark.parametrize("wire", ["fp32", "fp16", "int8"])
def test_a_push_adds_to_the_log_what_is_said(wire: Any, density: float, tmp_path: Path) -> None:
    """Ids that a batch names twice have counts, and the formula is for those."""
    ids_N, n = np.tile(np.random.default_rng(0).integers(-(2**62), 2**62, 2000), 2), 2000
    grads_ND = np.random.default_rng(1).standard_normal((2 * n, 64), np.float32)
    config = ps.ServiceConfig(watching={"metrics": False}, log={"mode": "interval", "path": tmp_path})
    with ShardServer(0, config) as server, ps.connect(server.address, wire_dtype=wire) as client:
        client.create_table(table(dim=64))
        before = server.shard.commit.log.stats()["bytes_written"]
        if density == 1.0:
            client.push("t", ids_N, grads_ND)
        else:
            few_M = np.arange(0, n, 20)
            step = client.prepare({"t": ids_N[:n]}, counts={"t": np.full(n, 2)})
            step.push({"t": ps.Selected(few_M, grads_ND[few_M])})
        added = server.shard.commit.log.stats()["bytes_written"] - before
    demand = Demand([(table(dim=64), n)], step_ids=n, wire=wire, density=density)
    assert log_size(demand).step_bytes == pytest.approx(added, abs=64)


def test_a_full_checkpoint_takes_what_is_said(tmp_path: Path) -> None:
    """Beside rows there are the state, of 0.2 MB, and the manifest."""
    n, config = 20_000, table(dim=64)
    with ShardServer(0, QUIET) as server, ps.connect(server.address) as client:
        client.create_table(config)
        client.push("t", np.arange(n), np.zeros((n, 64), np.float32))
        client.checkpoint(tmp_path)
    taken = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    demand = Demand([(config, n)], LOGGED.having(disk={"path": None}))
    assert log_size(demand).checkpoint_bytes == pytest.approx(taken, rel=0.01, abs=300_000)


def test_a_log_and_checkpoints_ask_for_disk_and_room() -> None:
    demand = Demand([(table(dim=64), 10**7)], LOGGED, shards=2, step_ids=10_000, steps_per_s=10)
    size, given = log_size(demand), suggested(demand)
    assert size.per_day_bytes == 24 * size.per_hour_bytes == 86_400 * 10 * size.step_bytes
    per_s = 10 * size.step_bytes / 2
    assert size.kept_bytes == 4 * 60 * per_s + 2 * LOGGED.log.segment_bytes
    assert given.log.max_bytes is not None
    assert 0 <= given.log.max_bytes - size.kept_bytes < 1 << 20
    assert 2 * size.checkpoint_bytes < size.checkpoints_bytes <= 10 * size.checkpoint_bytes
    every = log_size(replace(demand, service=LOGGED.having(checkpoint={"full_every": 1})))
    assert every.checkpoints_bytes == 4 * size.checkpoint_bytes, "one more while it is made"
    assert durable_bytes(demand) == size.kept_bytes + size.checkpoints_bytes
    assert durable_bytes(replace(demand, service=LOGGED.having(log={"mode": "off"}))) == 0
    small = Node(64 << 30, 2e10, 1.25e9, 8)
    assert nodes(demand, small).disk > nodes(replace(demand, service=ON_DISK), small).disk
    never = replace(demand, service=LOGGED.having(checkpoint={"every_s": None}))
    assert log_size(never).kept_bytes is None
    assert suggested(never).log.max_bytes is None


def test_the_command_says_what_a_log_takes() -> None:
    arguments = ["size", "--ids", "1e7", "--log", "sync", "--checkpoint-every-s", "60"]
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    text = CliRunner().invoke(app, arguments).stdout
    assert found["settings"]["log"]["max_bytes"] >= found["log"]["kept_bytes"] > 0
    assert f"    log: {{max_bytes: {found['settings']['log']['max_bytes'] >> 20}MiB}}\n" in text
    assert "with a checkpoint every 60 s: " in text
    off = CliRunner().invoke(app, ["size", "--ids", "1e7"]).stdout
    assert "a log of that: 25.6 MiB a step" in off
    assert "kept of each shard" not in off
    assert CliRunner().invoke(app, ["size", "--ids", "1e7", "--log", "on"]).exit_code == 2


def test_the_command() -> None:
    run = CliRunner().invoke(app, ["size", "--ids", "1e9", "--cold", "fp16", "--json"])
    assert run.exit_code == 0
    found = json.loads(run.stdout)
    assert found["nodes"]["needed"] >= 1
    assert found["tables"][0]["ids"] == 10**9
    text = CliRunner().invoke(app, ["size", "--ids", "1e9", "--cold", "fp16"]).stdout
    shown = yaml.safe_load("\n".join(line for line in text.splitlines() if line.startswith("    ")))
    assert found["settings"]["disk"]["max_bytes"]
    on_disk = ps.ServiceConfig(disk={"path": "ssd"})
    assert on_disk.having(**shown) == on_disk.having(**found["settings"]), "people read what programs get"
    assert max(map(len, text.splitlines())) < 140


def test_the_command_with_a_tables_file(tmp_path: Path) -> None:
    file = tmp_path / "tables.yaml"
    file.write_text("- {name: a, dim: 4}\n- {name: b, dim: 8}\n")
    arguments = ["size", "--tables", str(file), "--json", "--ids", "a=1e6"]
    run = CliRunner().invoke(app, [*arguments, "--ids", "b=2e6"])
    assert [part["ids"] for part in json.loads(run.stdout)["tables"]] == [10**6, 2 * 10**6]
    missing = CliRunner().invoke(app, arguments)
    assert isinstance(missing.exception, ps.InvalidArgument)
    assert "give --ids NAME=N for each" in str(missing.exception)
