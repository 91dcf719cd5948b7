from __future__ import annotations

import subprocess
import sys

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

import ps.kernels
from ps.arrays import Flags, Rows, Slots
from ps.config import SGD, Fp16, TableConfig
from ps.kernels.index import unique
from ps.kernels.kernel import WARMED, kernel
from ps.kernels.rows import bags, rows
from ps.kernels.updates.optim import update_rule
from ps.shard import Gradients, TableIds
from ps.shard.reads.pooled import spread
from ps.shard.requests import BagGradients, Bags
from ps.table.table import Table
from ps.tensor_train.contract import SHARE_FROM_ROWS
from ps.tensor_train.cores import Cores
from ps.tensor_train.fold import fold
from ps.tensor_train.initial import initial_cores
from ps.tensor_train.shape import tt_shape
from ps.wire import encodings
from ps.wire.bags import decode_bags, encode_bags
from ps.wire.selected import Selected
from ps.wire.sorted_ids import decode_sorted_ids, encode_sorted_ids

from .strategies import frozen

F32 = np.float32
OF_TRAINERS = {"ps.kernels.updates.convergence", "ps.kernels.updates.residuals"}


def compiled():
    """How many signatures each kernel is compiled for."""
    return {one.dispatcher.py_func: len(one.dispatcher.signatures) for one in ps.kernels.kernels_of_shards()}


def test_the_warm_up_compiles_every_kernel():
    """Whatever numba compiles and Python may call: nothing that a file forgot to declare waits for a request."""
    ps.kernels.warm_up()
    kernels = ps.kernels.kernels_of_shards()
    assert [one for one in kernels if len(one.dispatcher.signatures) < len(one.signatures())] == []
    declared = {id(one.dispatcher) for one in kernels}
    public = {
        f"{module}.{name}"
        for module in [name for name in sys.modules if name.startswith("ps.kernels.")]
        for name, value in vars(sys.modules[module]).items()
        if isinstance(value, Dispatcher) and not name.startswith("_") and id(value) not in declared
    }
    helpers = {name for name in public if name.rpartition(".")[2] in HELPERS}
    assert {name.rpartition(".")[0] for name in public - helpers} == OF_TRAINERS


HELPERS = {"mix64", "rank_of", "row_key", "init_row", "prefetch_row", "prefetch_half_row"}
"""Public functions that only kernels call: they are compiled with them."""


def a_kernel(values_N: Rows, table_SD: Slots, limits: tuple[int, float], more_N: Flags | None, code: np.uint16) -> int:
    return len(values_N)


def test_types_are_read_from_a_declaration():
    before = list(WARMED)
    kernel(either="values_N", read_only="table_SD")(a_kernel)
    (declared,) = [one for one in WARMED if one not in before]
    WARMED.remove(declared)
    given = [
        (values_N, frozen(np.zeros((2, 3), np.int64)), (1, 2.0), more_N, np.uint16(3))
        for values_N in (np.zeros(3, F32), frozen(np.zeros(3, F32)))
        for more_N in (np.zeros(3, np.bool_), None)
    ]
    assert set(declared.signatures()) == {tuple(map(numba.typeof, arguments)) for arguments in given}


def test_after_warm_up_a_push_and_a_pull_compile_nothing():
    """With the types that arrays off the wire have: read-only ids, counts and gradients."""
    script = (
        "import ps.kernels; ps.kernels.warm_up();"
        "from tests.unit.kernels.test_warm_up import compiled, push_and_pull;"
        "before = compiled(); push_and_pull(); assert compiled() == before, (before, compiled())"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=200)


def push_and_pull():
    """What a shard and a client do with arrays, for ids that the caller may write to and for ids off the wire."""
    for cold in (None, Fp16(hot_fraction=0.4)):
        push_and_pull_a_table(Table(TableConfig(name="t", dim=4, cold=cold, half_life_pushes=64)))
    for number in (2, 3, 4):
        read_and_train_cores(tt_shape(1_000_000, 16, 2, number))
    for wire in (np.copy, frozen):
        send_and_receive(wire)


def read_and_train_cores(shape):
    """By gradients that were added up, and by those off the wire; in two parts too."""
    cores = Cores(shape, initial_cores(shape, 0.1), [update_rule(SGD(lr=0.1), size) for size in shape.slice_sizes])
    for wire in (np.copy, frozen):
        for n in (5, SHARE_FROM_ROWS):
            index_N, rows_ND = wire(np.arange(n) * 300), wire(np.ones((n, 16), F32))
            cores.lookup(index_N, np.empty((n, 16), F32))
            cores.apply(index_N, np.frombuffer(rows_ND.tobytes(), F32).reshape(n, 16))
            cores.apply(index_N, rows_ND)
            fold(cores, index_N, rows_ND, 0.1)


def send_and_receive(wire):
    """A step's ids and a selection of gradients, by every encoding."""
    decode_sorted_ids(encode_sorted_ids(wire(np.arange(300) ** 2)))
    sum_and_spread(wire)
    for encoding, (layout, precision) in encodings.ENCODINGS.items():
        rows_R = None if layout is encodings.Layout.DENSE else wire(np.arange(5))
        selected = Selected(rows_R, wire(np.ones((5, 4), F32)), elements=True)
        block = encodings.encode(selected, encoding, 5)
        for received in (block, bytes(block), bytearray(block)):
            encodings.decode(received, encoding, 5, 4)
        encodings.cheapest(selected, precision, 5)


def sum_and_spread(wire):
    """Bags on a shard and at the client."""
    ids_N, starts_positions = np.arange(5), decode_bags(encode_bags(np.array([2, 3]), np.arange(5), 5), 5)
    ids = TableIds("t", wire(ids_N), None, Bags(*starts_positions))
    sums_BD, out_BD = np.ones((2, 4), F32), np.ones((2, 4), F32)
    bags.pool(np.ones((5, 4), F32), *starts_positions, sums_BD)
    bags.add_at(sums_BD, np.arange(2), out_BD)
    for bags_R in (None, np.arange(2)):
        of_bags = BagGradients(2, 4, [wire(sums_BD)], bags_R)
        spread([ids], [Gradients("t", [], None, np.empty(0, np.int64), 5, of_bags)])


def push_and_pull_a_table(table):
    """Its rows change their precision, if there is more than one."""
    for wire in (np.copy, frozen):
        ids_N, counts_N = wire(np.arange(5)), wire(np.ones(5, np.uint32))
        grads_ND = wire(np.ones((5, 4), F32))
        unique.unique(ids_N)
        unique.has_duplicates(ids_N)
        rows.all_finite(grads_ND.reshape(-1))
        for some_counts_N in (counts_N, wire(np.array([1, 1, 9, 9, 9], np.uint32)), counts_N):
            slots_N = table.find(ids_N)
            table.reserve.create_missing(ids_N, slots_N)
            table.ram.hold(ids_N, slots_N)
            table.lookup(ids_N, slots_N, np.empty((5, 4), F32))
            table.writes.plan_push(ids_N, slots_N, some_counts_N, [grads_ND]).carry_out()
            table.lookup(ids_N, slots_N, np.empty((5, 4), F32))
            table.cold.sweep()
            table.writes.plan_upsert(ids_N, [grads_ND]).carry_out()
            table.ram.let_go(ids_N, slots_N)
        table.page(0, 100)
        if table.config.cold is not None:
            assert table.stats()["rows_narrowed"]
            assert table.stats()["rows_widened"]
        table.writes.plan_removal(ids_N[:2]).carry_out()
        for rebuild in (False, True):  # memory for another table: rows move
            table.store.free_slots()
            table.store.shrink(len(table), rebuild)
        table.writes.plan_removal(ids_N[2:]).carry_out()
    table.close()
