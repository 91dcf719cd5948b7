"""What `ttspeed` compares with does the same work: equal rows, and equal cores after a step."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from benchmarks.tensor_train.peers import Forward, TorchCores, einsum, grouped, whole_batch
from ps.config import SGD
from ps.kernels.updates.optim import update_rule
from ps.tensor_train.cores import Cores
from ps.tensor_train.initial import initial_cores
from ps.tensor_train.shape import tt_shape

LR, ROWS, BATCH = 0.5, 500, 60
SHAPE = tt_shape(ROWS, 24, (3, 5), p=(7, 8, 9), q=(2, 3, 4))
FORWARDS = {"einsum": einsum, "grouped": partial(grouped, chunk=BATCH), "grouped_cut": partial(grouped, chunk=7)}


@pytest.mark.parametrize("forward", FORWARDS.values(), ids=FORWARDS)
@pytest.mark.parametrize("chunk", [BATCH, 17])
def test_peers_read_and_train_as_our_cores_do(forward: Forward, chunk: int) -> None:
    rng = np.random.default_rng(0)
    arrays = initial_cores(SHAPE, variance=1.0)
    ours = Cores(SHAPE, arrays, [update_rule(SGD(lr=LR), size) for size in SHAPE.slice_sizes])
    theirs = TorchCores(SHAPE, arrays, LR)
    index_N = rng.choice(ROWS, BATCH, replace=False)
    grads_ND = rng.standard_normal((BATCH, SHAPE.dim), dtype=np.float32)

    rows_ND, out_ND = np.empty((BATCH, SHAPE.dim), np.float32), torch.empty(BATCH, SHAPE.dim)
    ours.lookup(index_N, rows_ND)
    theirs.lookup(forward, torch.from_numpy(index_N), chunk, out_ND)
    np.testing.assert_allclose(out_ND.numpy(), rows_ND, rtol=1e-4, atol=1e-5)

    ours.apply(index_N, grads_ND)
    theirs.train(forward, torch.from_numpy(index_N), chunk, torch.from_numpy(grads_ND))
    for before, mine, core in zip(arrays, ours.arrays, theirs.cores, strict=True):
        assert not np.allclose(mine, before, rtol=1e-2)
        np.testing.assert_allclose(core.detach().numpy().reshape(mine.shape), mine, rtol=1e-4, atol=1e-4)


def test_a_batch_is_cut_where_its_slices_would_not_fit() -> None:
    assert whole_batch(SHAPE, BATCH) == BATCH
    large = tt_shape(10_000_000, 64, 64)
    at_once = whole_batch(large, 100_000)
    assert 4 * at_once * sum(large.slice_sizes) < 2 << 30
    assert 1_000 < at_once < 100_000
