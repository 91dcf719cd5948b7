from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from ps.kernels.reference.updates import optim as reference
from ps.kernels.updates import optim as kernels

from .strategies import frozen, given, same_bytes

F32 = np.float32
RULES = {
    "update_sgd": (lambda dim: dim, (F32(0.1),)),
    "update_adagrad": (lambda dim: 2 * dim, (F32(0.1), F32(1e-8))),
    "update_rowwise_adagrad": (lambda dim: dim + 1, (F32(0.1), F32(1e-8))),
    "update_adam": (lambda dim: 3 * dim, (0.1, 0.9, 0.999, 1e-8, 3)),
    "update_ftrl": (lambda dim: 3 * dim, (F32(0.05), F32(1), F32(0.3), F32(0.2))),
}
"""Kernel: the width of its rows, and its other arguments."""


@pytest.mark.parametrize("name", RULES)
@given(st.integers(0, 20), st.integers(1, 70), st.integers(0, 2**32))
def test_every_update_is_that_of_the_reference_to_the_bit(name, n, dim, seed):
    width, arguments = RULES[name]
    rng = np.random.default_rng(seed)
    rows_SW = np.abs(rng.standard_normal((30, width(dim)))).astype(F32)  # state is a sum of squares: never negative
    rows_SW[:, :dim] *= rng.choice([-1, 1], (30, dim))
    slots_N = rng.permutation(30)[:n]
    grads_ND = (rng.standard_normal((n, dim)) * 10.0 ** rng.integers(-5, 5, (n, 1))).astype(F32)
    expected_SW, out_SW, again_SW = (rows_SW.copy() for _ in range(3))
    grads_ND *= F32(10.0) ** rng.choice([0, 0, 0, 19, 33], (n, 1)).astype(F32)  # squares, or values, overflow
    with np.errstate(all="ignore"):
        broken = getattr(reference, name)(expected_SW, slots_N, grads_ND, *arguments)
    assert getattr(kernels, name)(out_SW, slots_N, grads_ND, *arguments) == broken
    assert broken >= (~np.isfinite(expected_SW[slots_N])).any(axis=1).sum()
    getattr(kernels, name)(again_SW, frozen(slots_N), frozen(grads_ND), *arguments)
    assert same_bytes(out_SW, expected_SW)
    assert same_bytes(again_SW, expected_SW)


@pytest.mark.parametrize("name", RULES)
def test_a_gradient_of_zero_on_a_new_row_leaves_it_finite(name):
    """Even with an eps of zero, where 0/0 is NaN as in torch, nothing raises in the middle of a push."""
    width, arguments = RULES[name]
    rows_SW = np.zeros((1, width(9)), F32)
    getattr(kernels, name)(rows_SW, np.array([0]), np.zeros((1, 9), F32), *arguments)
    assert np.isfinite(rows_SW).all()
    if "adagrad" in name:
        getattr(kernels, name)(rows_SW, np.array([0]), np.zeros((1, 9), F32), F32(1), F32(0))


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
    ("name", "optimizer", "arguments"),
    [
        ("update_sgd", lambda p: torch.optim.SGD(p, lr=0.1), lambda step: (F32(0.1),)),
        ("update_adagrad", lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-8), lambda step: (F32(0.1), F32(1e-8))),
        ("update_adam", lambda p: torch.optim.SparseAdam(p, lr=0.1), lambda step: (0.1, 0.9, 0.999, 1e-8, step)),
    ],
)
def test_twenty_pushes_end_where_torch_ends(name, optimizer, arguments):
    """Torch rounds in another order: 1e-5 apart at most. Every push meets every row, because SparseAdam's steps are
    those of the whole parameter, as ours are the table's."""
    rng = np.random.default_rng(0)
    rows_SW = np.zeros((6, RULES[name][0](5)), F32)
    rows_SW[:, :5] = rng.standard_normal((6, 5))
    pushes = [(rng.permutation(6), rng.standard_normal((6, 5)).astype(F32)) for _ in range(20)]
    expected_SD = trained_by_torch(optimizer, rows_SW[:, :5].copy(), pushes)
    for number, (slots_N, grads_ND) in enumerate(pushes, start=1):
        getattr(kernels, name)(rows_SW, slots_N, grads_ND, *arguments(number))
    np.testing.assert_allclose(rows_SW[:, :5], expected_SD, rtol=1e-5, atol=1e-5)


def test_rowwise_adagrad_by_hand():
    """h = 1 + (9 + 16)/2 = 13.5; w = 1 - 0.1 * 3 / (sqrt(13.5) + 0.5), and with 4."""
    rows_SW = np.array([[1, 1, 1]], F32)
    kernels.update_rowwise_adagrad(rows_SW, np.array([0]), np.array([[3, 4]], F32), F32(0.1), F32(0.5))
    root = 13.5**0.5 + 0.5
    np.testing.assert_allclose(rows_SW, [[1 - 0.3 / root, 1 - 0.4 / root, 13.5]], rtol=1e-6)


def test_ftrl_by_hand():
    """Algorithm 1 of McMahan et al. 2013 in double precision, one coordinate, ten pushes, some within l1."""
    alpha, beta, l1, l2 = 0.1, 1.0, 0.5, 0.01
    grads = np.random.default_rng(1).standard_normal(10)
    rows_SW, w, z, n, zeros = np.zeros((1, 3), F32), 0.0, 0.0, 0.0, 0
    for g in grads:
        sigma = ((n + g * g) ** 0.5 - n**0.5) / alpha
        z, n = z + g - sigma * w, n + g * g
        w = 0.0 if abs(z) <= l1 else -(z - np.sign(z) * l1) / ((beta + n**0.5) / alpha + l2)
        kernels.update_ftrl(rows_SW, np.array([0]), np.array([[g]], F32), F32(alpha), F32(beta), F32(l1), F32(l2))
        np.testing.assert_allclose(rows_SW[0], [w, z, n], rtol=1e-4, atol=1e-6)
        zeros += w == 0
    assert 0 < zeros < 10


@pytest.mark.parametrize("name", RULES)
def test_rows_of_other_slots_are_not_touched(name):
    width, arguments = RULES[name]
    rows_SW = np.ones((20, width(8)), F32)
    getattr(kernels, name)(rows_SW, np.array([3, 17]), np.ones((2, 8), F32), *arguments)
    assert (np.delete(rows_SW, [3, 17], axis=0) == 1).all()
    assert (rows_SW[[3, 17], :8] != 1).all()
