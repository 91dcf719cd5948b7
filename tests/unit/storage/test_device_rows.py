"""Rows that torch holds: the arithmetic is the reference's, growth moves nothing, the bound holds.

On tensors in RAM, and on a GPU where there is one.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import ps
from ps.errors import ConfigError, ResourceExhausted
from ps.initializer import RowInitializer
from ps.kernels.updates.optim import update_rule
from ps.storage.budget.budget import RamBudget
from ps.storage.ram import device_chunks, device_rows
from ps.storage.ram.arena import Arena
from ps.storage.ram.device_budget import DeviceBudget
from ps.storage.ram.device_chunks import CHUNK_BYTES
from ps.storage.ram.device_rows import DeviceRows
from ps.storage.tier import Records
from tests.devices import DEVICES
from tests.optimizers import EVERY, specified

F32 = np.float32
DIM = 21
EVERY_HERE = {**EVERY, "ftrl": ps.FTRL(alpha=1.0, beta=1.5, l1=0.3, l2=0.02)}
"""FTRL divides what torch's roots are off by alpha."""


def config(device="torch-cpu", **fields):
    return ps.TableConfig(**{"name": "t", "dim": DIM, "device": device, **fields})


def new_rows(table, limit=None):
    return DeviceRows(table, update_rule(table.optimizer, table.dim), DeviceBudget(limit))


def read_only(array):
    array.setflags(write=False)
    return array


def bytes_in(rows, slots_N):
    ((positions_N, rows_NB),) = rows.copies(slots_N)
    assert positions_N.tolist() == list(range(len(slots_N)))
    return rows_NB


def in_chunks(rows, slots, chunks=3):
    """Room for so many slots, in several chunks."""
    for part in range(1, chunks + 1):
        rows.make_room(-(-slots * part // chunks) if part < chunks else slots, 0, rows.lengths[0])


@pytest.fixture
def small(monkeypatch):
    """Chunks of a few hundred rows and blocks of a hundred: all that is cut, is cut in a small test."""
    monkeypatch.setattr(device_chunks, "CHUNK_BYTES", 1 << 14)
    monkeypatch.setattr(device_rows, "BLOCK_BYTES", 1 << 13)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", EVERY_HERE)
def test_every_update_is_that_of_the_reference(kind, device, small):
    optimizer = EVERY_HERE[kind]
    expected_update = specified(optimizer)
    table = config(device, optimizer=optimizer)
    rows, rng, slots = new_rows(table), np.random.default_rng(0), 1000
    in_chunks(rows, slots)
    assert len(rows.chunks.tensors) > 1
    expected_SW = np.zeros((slots, rows.lengths[0] // 4), F32)
    expected_SW[:, :DIM] = rng.standard_normal((slots, DIM))
    rows.set(np.arange(slots), expected_SW)
    for push in range(1, 21):
        slots_N = rng.permutation(slots)[: rng.integers(1, slots)]
        scale_N1 = 10.0 ** rng.integers(-3, 1, (len(slots_N), 1))  # up to 1: FTRL subtracts what is alike, and
        grads_ND = (rng.standard_normal((len(slots_N), DIM)) * scale_N1).astype(F32)  # torch's roots are an ulp off
        expected_update(expected_SW, slots_N, grads_ND, push)
        rows.update(read_only(slots_N), np.empty(0, np.int64), read_only(grads_ND), push, push)
        found_SW = bytes_in(rows, np.arange(slots)).view(F32)
        np.testing.assert_allclose(found_SW, expected_SW, rtol=1e-6, atol=1e-6)
        expected_SW = found_SW
    if kind == "ftrl":
        zero_share = (expected_SW[:, :DIM] == 0).mean()
        assert 0 < zero_share < 1, "both sides of l1"
    rows.close()


@pytest.mark.parametrize("device", DEVICES)
def test_values_are_those_set_and_an_id_without_a_slot_reads_its_initial_value_to_the_bit(device, small):
    table = config(device, initializer=ps.Normal(), optimizer=ps.Adagrad())
    rows, rng = new_rows(table), np.random.default_rng(1)
    in_chunks(rows, 700)
    row_SW = rng.standard_normal((700, 2 * DIM)).astype(F32)
    rows.set(np.arange(700), row_SW)
    value_ND = rng.standard_normal((300, DIM)).astype(F32)
    slots_N = np.where(rng.random(300) < 0.2, -1, rng.permutation(700)[:300])
    rows.set(read_only(slots_N), read_only(value_ND))
    row_SW[slots_N[slots_N >= 0], :DIM] = value_ND[slots_N >= 0]
    np.testing.assert_array_equal(bytes_in(rows, np.arange(700)).view(F32), row_SW)  # and the state is as it was

    ids_N, initial_ND = rng.integers(-(2**63), 2**63 - 1, 300), np.empty((300, DIM), F32)
    RowInitializer.of(table).fill(ids_N, initial_ND)
    out_ND = np.full((300, DIM), np.nan, F32)
    rows.gather(slots_N, ids_N, out_ND)
    np.testing.assert_array_equal(out_ND, np.where(slots_N[:, None] < 0, initial_ND, row_SW[slots_N, :DIM]))
    for nothing in (np.empty(0, np.int64), np.full(3, -1)):
        rows.gather(nothing, ids_N[: len(nothing)], out_ND[: len(nothing)])
        rows.set(nothing, value_ND[: len(nothing)])
    rows.close()


@pytest.mark.parametrize("device", DEVICES)
def test_attribution_is_that_of_the_values(device, small):
    rows, rng = new_rows(config(device, optimizer=ps.RowwiseAdagrad())), np.random.default_rng(2)
    in_chunks(rows, 500)
    row_SW = rng.standard_normal((500, DIM + 1)).astype(F32)
    rows.set(np.arange(500), row_SW)
    slots_N, grads_ND, out_N = (
        rng.permutation(500)[:400],
        rng.standard_normal((400, DIM)).astype(F32),
        np.empty(400, F32),
    )
    rows.attribute(slots_N, grads_ND, out_N)
    exact_N = np.abs((row_SW[slots_N, :DIM].astype(float) * grads_ND).sum(axis=1))
    np.testing.assert_allclose(out_N, exact_N, rtol=1e-4, atol=1e-5)
    rows.close()


@pytest.mark.parametrize("device", DEVICES)
def test_growing_moves_nothing_and_is_at_most_a_quarter_ahead(device):
    rows = new_rows(config(device))
    for slots in (1, 100, 20_000, 60_000, 60_001, 200_000):
        rows.make_room(slots, 0, rows.lengths[0])
        needed = slots * rows.lengths[0]
        assert needed <= rows.committed_bytes <= needed * 5 // 4 + CHUNK_BYTES
        assert rows.committed_bytes == sum(chunk.nbytes for chunk in rows.chunks.tensors)
    places = [chunk.data_ptr() for chunk in rows.chunks.tensors]
    rows.make_room(400_000, 0, rows.lengths[0])
    assert [chunk.data_ptr() for chunk in rows.chunks.tensors][: len(places)] == places
    assert len(rows.chunks.tensors) < 10
    rows.close()
    assert rows.committed_bytes == 0


@pytest.mark.parametrize("device", DEVICES)
def test_tables_share_gpu_bytes_to_the_last_row_and_what_would_pass_it_changes_nothing(device):
    table, limit = config(device, optimizer=ps.SGD()), 3 << 20
    budget = RamBudget(ps.ServiceConfig(memory={"gpu_bytes": limit}))
    one, other = (
        Arena(DeviceRows(table, update_rule(table.optimizer, table.dim), budget.device), budget) for _ in range(2)
    )
    row_bytes = one.rows.lengths[0]
    one.insert(np.arange(10), 0)
    fits = (limit - one.rows.committed_bytes) // row_bytes
    with pytest.raises(ResourceExhausted, match="gpu_bytes=3,145,728") as refused:
        other.insert(np.arange(fits + 1), 0)
    assert refused.value.retry_after_s is None
    assert len(other) == other.rows.committed_bytes == 0
    assert budget.device.used == one.rows.committed_bytes
    other.insert(np.arange(fits - 5), 0)
    other.insert(np.arange(fits - 5, fits), 0)  # a chunk of a quarter would not fit any more
    assert limit - row_bytes < budget.device.used <= limit
    rows_NB = np.full((1, row_bytes), 7, np.uint8)
    with pytest.raises(ResourceExhausted, match="gpu_bytes"):
        other.write(Records(np.array([-1]), rows_NB, np.zeros(1, F32), np.zeros(1, np.uint32)))
    assert len(other) == fits
    one.close()
    other.insert(np.array([-1]), 0)
    other.close()
    assert budget.device.used == 0


def test_a_device_that_is_nearly_full_gives_what_is_needed_and_keeps_room_to_work(monkeypatch):
    """What CUDA would say of its free memory is given here: it is the one thing that tensors in RAM do not have."""
    budget, table = DeviceBudget(None), config(optimizer=ps.SGD())
    rows = DeviceRows(table, update_rule(table.optimizer, table.dim), budget)
    rows.make_room(1_000_000, 0, rows.lengths[0])
    monkeypatch.setattr(rows.chunks, "_free_bytes", lambda: device_chunks.SPARE_BYTES + 100 * rows.lengths[0])
    rows.make_room(1_000_010, 0, rows.lengths[0])
    assert rows.committed_bytes == 1_000_100 * rows.lengths[0], "not a quarter more"
    with pytest.raises(ResourceExhausted, match=r"on the device, which has .* free"):
        rows.make_room(1_000_201, 0, rows.lengths[0])
    assert rows.committed_bytes == budget.used == 1_000_100 * rows.lengths[0]
    rows.close()


def test_rows_on_a_device_take_slots_of_the_ram_budget_and_no_rows():
    budgets = [RamBudget(ps.ServiceConfig(memory={"ram_bytes": 1 << 30})) for _ in range(2)]
    wide = config(dim=1000, optimizer=ps.SGD())
    in_ram = Arena(device_rows_or_plain(wide.model_copy(update={"device": "cpu"}), budgets[0]), budgets[0])
    on_device = Arena(device_rows_or_plain(wide, budgets[1]), budgets[1])
    assert on_device.room.most() > 50 * in_ram.room.most()
    on_device.insert(np.arange(10_000), 0)
    assert on_device.rows.committed_bytes >= 40_000_000
    assert budgets[1].arrays.used < 2_000_000
    assert set(on_device.memory_usage()) == {"device_rows", "index", "metadata"}
    in_ram.close()
    on_device.close()


def device_rows_or_plain(table, budget):
    from ps.table.build import rows_of

    return rows_of(table, update_rule(table.optimizer, table.dim), budget, RowInitializer.of(table))


def test_without_a_gpu_or_without_torch_a_table_is_refused_and_told_what_to_do(monkeypatch):
    with ps.connect("inproc:") as client:
        if not torch.cuda.is_available():
            with pytest.raises(ConfigError, match=r"device: cuda, but torch .* sees no CUDA device.*use device: cpu"):
                client.create_table(config("cuda"))
        monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
        with pytest.raises(ConfigError, match=r"device: torch-cpu needs torch.*pip install torch.*device: cpu"):
            client.create_table(config("torch-cpu"))
        client.create_table(config("cpu"))
        client.push("t", np.arange(3), np.ones((3, DIM), F32))


def test_a_table_in_ram_imports_no_torch():
    program = (
        "import sys, numpy as np, ps\n"
        "client = ps.connect('inproc:')\n"
        "client.create_table(ps.TableConfig(name='t', dim=4))\n"
        "client.push('t', np.arange(3), np.ones((3, 4), np.float32))\n"
        "client.close()\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=120, check=False).returncode == 0


@pytest.mark.parametrize("device", DEVICES)
def test_memory_usage_tells_bytes_of_the_device_and_does_not_add_them_to_ram(device):
    with ps.connect("inproc:") as client:
        client.create_table(config(device))
        client.push("t", np.arange(1000), np.ones((1000, DIM), F32))
        usage = client.memory_usage()
        hot = usage["tables"]["t"]["hot"]
        assert hot["device_rows"] >= 1000 * (DIM + 1) * 4
        assert "rows" not in hot
        everything = sum(hot.values()) + sum(usage["outside_tables"].values())
        assert usage["total"] == everything - hot["device_rows"]
