"""A row moves through cores by what a row of its own moves by, at every rank."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import ps
from ps.config import MIN_FLOAT32, SGD, Adagrad, RowwiseAdagrad
from ps.kernels.updates.optim import update_rule
from ps.nn import TensorTrainEmbeddingBag
from ps.tensor_train.cores import Cores
from ps.tensor_train.initial import initial_cores
from ps.tensor_train.rates import core_optimizers, core_rules, gains
from ps.tensor_train.shape import tt_shape

from .strategies import rows_of

OPTIMIZERS = {
    "sgd": SGD(lr=0.05),
    "adagrad": Adagrad(lr=0.05),
    "adagrad_begun": Adagrad(lr=0.05, initial_accumulator=100.0),
    "rowwise_adagrad": RowwiseAdagrad(lr=0.05),
    "rowwise_adagrad_begun": RowwiseAdagrad(lr=0.05, initial_accumulator=100.0),
}
RANKS = (8, 16, 32, 64)
NEAR = 1.5
"""How far off a first step may be, as a factor: slices are random, and few."""


def first_steps(optimizer, shape, seed):
    """(moved through cores, moved as rows of their own): float64 [n, D], each row alone."""
    rng = np.random.default_rng(seed)
    index_N, grads_ND = rng.integers(0, shape.rows, 20), rng.standard_normal((20, shape.dim))
    arrays = [array.astype(np.float64) for array in initial_cores(shape, 1e-4, seed=seed)]
    through_ND = np.empty_like(grads_ND)
    for i in range(len(index_N)):
        cores = Cores(shape, arrays, core_rules(optimizer, shape))
        before = rows_of(cores, index_N[i : i + 1])
        cores.apply(index_N[i : i + 1], grads_ND[i : i + 1])
        through_ND[i] = (rows_of(cores, index_N[i : i + 1]) - before)[0]
    rule = update_rule(optimizer, shape.dim)
    own_NW = np.zeros((len(index_N), shape.dim + rule.state_width))
    own_NW[:, shape.dim :] = rule.initial_state
    rule.update(own_NW, np.arange(len(index_N)), grads_ND, 1)
    return through_ND, own_NW[:, : shape.dim]


def root_mean_square(x_ND):
    return math.sqrt(np.mean(x_ND**2))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_step_of_a_row_is_as_long_as_that_of_a_row_of_its_own(name, rank):
    """And goes the same way."""
    for number, dim in ((3, 16), (3, 64), (2, 16), (4, 16)):
        shape = tt_shape(5000, dim, rank, number)
        through_ND, own_ND = first_steps(OPTIMIZERS[name], shape, rank)
        ratio = root_mean_square(through_ND) / root_mean_square(own_ND)
        assert 1 / NEAR < ratio < NEAR, (number, dim)
        along = np.sum(through_ND * own_ND) / np.sqrt(np.sum(through_ND**2) * np.sum(own_ND**2))
        assert along > 0.5, (number, dim)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_core_moves_by_its_gain_less_than_rows_would_whose_gradient_is_as_much_larger(optimizer):
    """Over several steps, so with rate, eps and initial accumulator."""
    shape = tt_shape(60, 12, (3, 5))
    for of_core, gain, size in zip(
        core_optimizers(optimizer, shape), gains(optimizer, shape), shape.slice_sizes, strict=True
    ):
        rules = update_rule(of_core, size), update_rule(optimizer, size)
        mine, theirs = (
            np.hstack([np.zeros((1, size)), np.full((1, rule.state_width), rule.initial_state)]) for rule in rules
        )
        for step in (1, 2, 3):
            grads = np.random.default_rng(step).standard_normal((1, size))
            rules[0].update(mine, np.array([0]), grads, step)
            rules[1].update(theirs, np.array([0]), grads * gain, step)
        np.testing.assert_allclose(mine[:, :size] * gain, theirs[:, :size], rtol=1e-5)


def test_rates_too_small_for_floats_are_the_smallest_there_are():
    shape = tt_shape(1000, 16, 64)
    optimizer = Adagrad(lr=MIN_FLOAT32, eps=MIN_FLOAT32)
    for of_core in core_optimizers(optimizer, shape):
        assert (of_core.lr, of_core.eps) == (MIN_FLOAT32, MIN_FLOAT32)


def test_a_tables_cores_and_a_modules_learn_at_the_rate_of_rows():
    """By default, at every rank: the first push of ids moves what they read as by about what it moves rows. They share
    no slice."""
    ids = [1234, 77, 4500]
    grads_ND = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    with ps.connect("inproc:") as client:
        for rank in RANKS:
            cold = ps.TensorTrain(rows=5000, ranks=rank)
            client.create_table(ps.TableConfig(name=f"t{rank}", dim=16, optimizer=ps.Adagrad(lr=0.05), cold=cold))
            before_ND = client.pull(f"t{rank}", ids)
            client.push(f"t{rank}", ids, grads_ND)
            moved = root_mean_square(client.pull(f"t{rank}", ids) - before_ND)
            assert 0.05 / 1.6 < moved < 0.05 * 1.6
            module = TensorTrainEmbeddingBag(5000, 16, [rank, rank], optimizer=ps.Adagrad(lr=0.05))
            index = torch.tensor(ids)[:, None]
            before = module(index)
            before.backward(torch.from_numpy(grads_ND))
            assert 0.05 / 1.6 < root_mean_square((module(index) - before).detach().numpy()) < 0.05 * 1.6


@pytest.mark.parametrize("kind", [SGD, Adagrad, RowwiseAdagrad])
def test_cores_at_a_rate_of_0_have_that_rate(kind):
    assert [one.lr for one in core_optimizers(kind(lr=0), tt_shape(1000, 8, 16))] == [0, 0, 0]
