from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import ps.kernels
from ps.kernels import half, hashing, init, optim, rows, segments, unique

from .strategies import frozen

MODULES = [half, hashing, init, optim, rows, segments, unique]
F32 = np.float32


def kernels_of(module):
    """Its public kernels; helpers that are inlined into them are compiled with them."""
    inlined = {"mix64", "row_key", "init_row"}
    return {
        name: kernel
        for name, kernel in vars(module).items()
        if isinstance(kernel, Dispatcher)
        and kernel.py_func.__module__ == module.__name__
        and not name.startswith("_")
        and name not in inlined
    }


def compiled():
    return {(m.__name__, name): len(k.signatures) for m in MODULES for name, k in kernels_of(m).items()}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_warm_up_runs_every_kernel(module):
    ps.kernels.warm_up()
    kernels = kernels_of(module)
    assert kernels
    assert [name for name, kernel in kernels.items() if not kernel.signatures] == []


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
    for wire in (np.copy, frozen):
        ids_N, counts_N = wire(np.arange(5)), wire(np.ones(5, np.uint32))
        grads_ND = wire(np.ones((5, 4), F32))
        unique.unique(ids_N)
        unique.has_duplicates(ids_N)
        index, slots_N = ps.kernels.index.IdIndex(), np.empty(5, np.int64)
        index.find(ids_N, slots_N)
        index.find_or_insert(ids_N, np.arange(5), slots_N)
        arena, fresh_NW = np.zeros((10, 5), F32), np.zeros((5, 5), F32)
        init.init_rows(ids_N, np.uint64(1), init.NORMAL, F32(0), F32(1), fresh_NW[:, :4])
        rows.scatter(arena, slots_N, fresh_NW)
        rows.all_finite(grads_ND.reshape(-1))
        optim.update_rowwise_adagrad(arena, slots_N, grads_ND, F32(1), F32(1))
        rows.add_counts(np.zeros(10, np.uint32), slots_N, counts_N)
        rows.gather_or_init(arena, slots_N, ids_N, np.uint64(1), init.NORMAL, F32(0), F32(1), np.empty((5, 4), F32))
        cold, wide_NW = np.zeros((10, 6), np.uint16), np.zeros((5, 5), F32)
        half.gather_half(cold, slots_N, np.empty((5, 4), F32))
        half.widen(cold, slots_N, wide_NW, 4, 0)
        half.narrow_stochastic(wide_NW, slots_N, cold, 4, 0, np.uint64(1), np.uint64(2), ids_N)
        half.narrow(grads_ND, slots_N, cold, 4, 0)
        index.erase(ids_N, slots_N)
        index.close()
