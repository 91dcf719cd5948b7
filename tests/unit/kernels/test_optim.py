from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import ps
from ps.kernels.updates.optim import update_rule
from tests.optimizers import EVERY, specified

from .strategies import frozen, given, same_bytes

F32 = np.float32


def rows_of(optimizer, dim, seed):
    """30 rows; state is positive, as a sum of squares is."""
    rng = np.random.default_rng(seed)
    rows_SW = np.abs(rng.standard_normal((30, dim + optimizer.state_width(dim)))).astype(F32)
    rows_SW[:, :dim] *= rng.choice([-1, 1], (30, dim))
    return rng, rows_SW


@pytest.mark.parametrize("kind", EVERY)
@given(st.integers(0, 20), st.integers(1, 70), st.integers(0, 2**32), st.integers(1, 5))
def test_every_update_is_that_of_the_reference_to_the_bit(kind, n, dim, seed, step):
    optimizer = EVERY[kind]
    update = update_rule(optimizer, dim).update
    rng, rows_SW = rows_of(optimizer, dim, seed)
    slots_N = rng.permutation(30)[:n]
    grads_ND = (rng.standard_normal((n, dim)) * 10.0 ** rng.integers(-5, 5, (n, 1))).astype(F32)
    expected_SW, out_SW, again_SW = (rows_SW.copy() for _ in range(3))
    grads_ND *= F32(10.0) ** rng.choice([0, 0, 0, 19, 33], (n, 1)).astype(F32)  # squares, or values, overflow
    with np.errstate(all="ignore"):
        broken = specified(optimizer)(expected_SW, slots_N, grads_ND, step)
    assert update(out_SW, slots_N, grads_ND, step) == broken
    assert broken >= (~np.isfinite(expected_SW[slots_N])).any(axis=1).sum()
    update(again_SW, frozen(slots_N), frozen(grads_ND), step)
    assert same_bytes(out_SW, expected_SW)
    assert same_bytes(again_SW, expected_SW)


@pytest.mark.parametrize("kind", EVERY)
@given(st.integers(1, 9), st.integers(0, 2**32), st.integers(1, 5))
def test_on_a_device_it_is_the_same_update(kind, dim, seed, step):
    optimizer = EVERY[kind]
    rng, rows_SW = rows_of(optimizer, dim, seed)
    grads_ND = rng.standard_normal((30, dim)).astype(F32)
    held = torch.tensor(rows_SW)
    optimizer.on_device(held, torch.tensor(grads_ND), step)
    specified(optimizer)(rows_SW, np.arange(30), grads_ND, step)
    np.testing.assert_allclose(held.numpy(), rows_SW, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", EVERY)
def test_a_gradient_of_zero_on_a_new_row_leaves_it_finite(kind):
    """Even with a tiny eps, where torch has 0/0, nothing raises in the middle of a push."""
    rule = update_rule(EVERY[kind], 9)
    rows_SW = np.zeros((1, 9 + rule.state_width), F32)
    rows_SW[:, 9:] = rule.initial_state
    rule.update(rows_SW, np.array([0]), np.zeros((1, 9), F32), 1)
    assert np.isfinite(rows_SW).all()


def test_a_division_by_zero_is_no_error():
    """0/0 is NaN, as in torch, and counted: nothing raises in the middle of a push."""
    for kind in ("adagrad", "rowwise_adagrad"):
        optimizer = EVERY[kind].model_copy(update={"eps": 0.0})
        rule = update_rule(optimizer, 9)
        assert rule.update(np.zeros((1, 9 + rule.state_width), F32), np.array([0]), np.zeros((1, 9), F32), 1) == 1


def trained_by_torch(optimizer, value_SD, pushes):
    parameter = torch.nn.Parameter(torch.tensor(value_SD))
    step = optimizer([parameter])
    with torch.sparse.check_sparse_tensor_invariants():
        for slots_N, grads_ND in pushes:
            where = torch.tensor(slots_N)[None]
            parameter.grad = torch.sparse_coo_tensor(where, torch.tensor(grads_ND), parameter.shape).coalesce()
            step.step()
    return parameter.detach().numpy()


@pytest.mark.parametrize(
    ("optimizer", "of_torch"),
    [
        (ps.SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
        (ps.Adagrad(lr=0.1, eps=1e-8), lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-8)),
        (ps.Adam(lr=0.1), lambda p: torch.optim.SparseAdam(p, lr=0.1)),
    ],
    ids=["sgd", "adagrad", "adam"],
)
def test_twenty_pushes_end_where_torch_ends(optimizer, of_torch):
    """Torch rounds in another order: 1e-5 apart at most. Every push meets every row, because SparseAdam's steps are
    those of the whole parameter, as ours are the table's."""
    rule, rng = update_rule(optimizer, 5), np.random.default_rng(0)
    rows_SW = np.zeros((6, 5 + rule.state_width), F32)
    rows_SW[:, :5] = rng.standard_normal((6, 5))
    pushes = [(rng.permutation(6), rng.standard_normal((6, 5)).astype(F32)) for _ in range(20)]
    expected_SD = trained_by_torch(of_torch, rows_SW[:, :5].copy(), pushes)
    for number, (slots_N, grads_ND) in enumerate(pushes, start=1):
        rule.update(rows_SW, slots_N, grads_ND, number)
    np.testing.assert_allclose(rows_SW[:, :5], expected_SD, rtol=1e-5, atol=1e-5)


def test_rowwise_adagrad_by_hand():
    """h = 1 + (9 + 16)/2 = 13.5; w = 1 - 0.1 * 3 / (sqrt(13.5) + 0.5), and with 4."""
    rows_SW = np.array([[1, 1, 1]], F32)
    optimizer = ps.RowwiseAdagrad(lr=0.1, eps=0.5)
    update_rule(optimizer, 2).update(rows_SW, np.array([0]), np.array([[3, 4]], F32), 1)
    root = 13.5**0.5 + 0.5
    np.testing.assert_allclose(rows_SW, [[1 - 0.3 / root, 1 - 0.4 / root, 13.5]], rtol=1e-6)


def test_ftrl_by_hand():
    """Algorithm 1 of McMahan et al. 2013 in double precision, one coordinate, ten pushes, some within l1."""
    alpha, beta, l1, l2 = 0.1, 1.0, 0.5, 0.01
    update = update_rule(ps.FTRL(alpha=alpha, beta=beta, l1=l1, l2=l2), 1).update
    grads = np.random.default_rng(1).standard_normal(10)
    rows_SW, w, z, n, zeros = np.zeros((1, 3), F32), 0.0, 0.0, 0.0, 0
    for g in grads:
        sigma = ((n + g * g) ** 0.5 - n**0.5) / alpha
        z, n = z + g - sigma * w, n + g * g
        w = 0.0 if abs(z) <= l1 else -(z - np.sign(z) * l1) / ((beta + n**0.5) / alpha + l2)
        update(rows_SW, np.array([0]), np.array([[g]], F32), 1)
        np.testing.assert_allclose(rows_SW[0], [w, z, n], rtol=1e-4, atol=1e-6)
        zeros += w == 0
    assert 0 < zeros < 10


@pytest.mark.parametrize("kind", EVERY)
def test_rows_of_other_slots_are_not_touched(kind):
    rule = update_rule(EVERY[kind], 8)
    rows_SW = np.ones((20, 8 + rule.state_width), F32)
    rule.update(rows_SW, np.array([3, 17]), np.ones((2, 8), F32), 1)
    assert (np.delete(rows_SW, [3, 17], axis=0) == 1).all()
    assert (rows_SW[[3, 17], :8] != 1).all()
