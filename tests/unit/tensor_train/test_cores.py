from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from ps.config import FTRL, SGD, Adagrad, Adam, RowwiseAdagrad
from ps.kernels.reference import tensor_train as reference
from ps.kernels.updates.optim import update_rule
from ps.tensor_train.contract import SHARE_FROM_ROWS
from ps.tensor_train.cores import Cores
from ps.tensor_train.shape import tt_shape
from tests.optimizers import EVERY, specified

from .strategies import (
    autograd,
    cores_of,
    given,
    random_arrays,
    random_cores,
    rows_of,
    seeds,
    shapes,
    states_of,
    whole_table,
)

F32 = np.float32


def one_after_another_reversed(tasks):
    for task in reversed(tasks):
        task()


def on_two_threads(tasks):
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()


def rounding(shape, kind, arrays, digits_KN):
    """What a row may be off by: every product is rounded, and every sum of as many as the ranks say."""
    steps = 2 * (sum(shape.ranks) + len(shape.p))
    return steps * np.finfo(kind).eps * reference.rows([np.abs(array) for array in arrays], digits_KN)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@given(shapes(), st.integers(1, 60), seeds)
def test_lookup_is_the_reference(kind, shape, n, seed):
    """Row numbers come in any order and more than once."""
    arrays = random_arrays(shape, seed, kind)
    index_N = np.random.default_rng(seed).integers(0, shape.rows, n)
    digits_KN = reference.digits(index_N, shape.p)
    out_ND = rows_of(cores_of(shape, arrays), index_N)
    assert out_ND.dtype == kind
    expected_ND = reference.rows(arrays, digits_KN)
    assert (np.abs(out_ND - expected_ND) <= rounding(shape, kind, arrays, digits_KN) + 1e-300).all()


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("n", [SHARE_FROM_ROWS - 1, SHARE_FROM_ROWS, SHARE_FROM_ROWS + 1, 3 * SHARE_FROM_ROWS])
def test_lookup_of_batches_that_are_shared_and_that_are_not(number, n):
    shape = tt_shape(2000, 12, 5, number)
    arrays = random_arrays(shape, n)
    index_N = np.random.default_rng(n).integers(0, 2000, n)
    expected_ND = reference.rows(arrays, reference.digits(index_N, shape.p))
    np.testing.assert_allclose(rows_of(cores_of(shape, arrays), index_N), expected_ND, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_shared_batch_of_one_row_many_times(number):
    """All of it is one pair: one of the parts is empty."""
    shape = tt_shape(2000, 12, 5, number)
    cores = random_cores(shape, 0)
    index_N = np.full(2 * SHARE_FROM_ROWS, 1234)
    assert (rows_of(cores, index_N) == rows_of(cores, index_N[:1])).all()
    grads_ND = np.random.default_rng(0).standard_normal((len(index_N), 12))
    same_gradients(cores, index_N, grads_ND)


def same_gradients(cores, index_N, grads_ND):
    """As autograd's, and 0 for the slices that are not touched."""
    expected = autograd(cores.arrays, index_N, grads_ND)
    digits_KN = reference.digits(index_N, cores.shape.p)
    last = len(expected) - 1
    for k, found in enumerate(cores.gradients(index_N, grads_ND)):
        assert np.array_equal(found.slices_T, np.unique(digits_KN[k]))
        p, before, q, after = cores.shape.cores[k]
        expected_PJ = (expected[k].transpose(0, 3, 2, 1) if k == last else expected[k]).reshape(p, -1)
        found_PJ = np.zeros((p, before * q * after))
        found_PJ[found.slices_T] = found.grads_TJ
        scale = np.abs(expected_PJ).max() + 1e-30
        np.testing.assert_allclose(found_PJ, expected_PJ, rtol=1e-9, atol=1e-11 * scale)


@given(shapes(), st.integers(1, 60), seeds)
def test_gradients_are_those_of_autograd_through_the_whole_table(shape, n, seed):
    rng = np.random.default_rng(seed)
    cores = random_cores(shape, seed)
    same_gradients(cores, rng.integers(0, shape.rows, n), rng.standard_normal((n, shape.dim)))
    same_gradients(cores, rng.integers(0, shape.rows, n), rng.standard_normal((n, shape.dim)))  # buffers of the first


@pytest.mark.parametrize("number", [2, 3, 4])
def test_gradients_of_a_shared_batch_are_those_of_autograd(number):
    shape = tt_shape(700, 12, 5, number)
    rng = np.random.default_rng(number)
    n = 2 * SHARE_FROM_ROWS
    same_gradients(random_cores(shape, number), rng.integers(0, 700, n), rng.standard_normal((n, 12)))


OPTIMIZERS = {
    **EVERY,
    "sgd": SGD(lr=0.1),
    "adagrad": Adagrad(lr=0.1, eps=1e-8),
    "rowwise_adagrad": RowwiseAdagrad(lr=0.1, eps=1e-8),
    "adam": Adam(lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8),
    "ftrl": FTRL(alpha=0.1, beta=1.0, l1=0.01, l2=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@given(shapes(), seeds)
def test_apply_is_the_optimizer_on_the_slices_touched(name, shape, seed):
    """Three steps, by autograd and the reference, in float64 but for the sums that the reference has in float32."""
    optimizer = OPTIMIZERS[name]
    update = specified(optimizer)
    rng = np.random.default_rng(seed)
    cores = random_cores(shape, seed, optimizer=optimizer)
    slices = [array.reshape(len(array), -1) for array in cores.arrays]
    widths = [update_rule(optimizer, size).state_width for size in shape.slice_sizes]
    expected = [
        np.hstack([slices_PJ, np.full((len(slices_PJ), width), optimizer.initial_state)])
        for slices_PJ, width in zip(slices, widths, strict=True)
    ]
    for step in (1, 2, 3):
        index_N = rng.integers(0, shape.rows, 7)
        grads_ND = 0.01 * rng.standard_normal((7, shape.dim))  # by large ones SGD would diverge, and so would roundings
        digits_KN = reference.digits(index_N, shape.p)
        values = [rows_PW[:, :size] for rows_PW, size in zip(expected, shape.slice_sizes, strict=True)]
        shaped = [value_PJ.reshape(size) for value_PJ, size in zip(values, shape.cores, strict=True)]
        for k, core_grads in enumerate(autograd(shaped, index_N, grads_ND)):
            touched_T = np.unique(digits_KN[k])
            grads_TJ = core_grads.reshape(len(core_grads), -1)[touched_T]
            update(expected[k], touched_T, grads_TJ, step)
        cores.apply(index_N, grads_ND)
        assert cores.steps == step
        for array, rows_PW in zip(cores.arrays, expected, strict=True):
            np.testing.assert_allclose(array.reshape(len(array), -1), rows_PW[:, : array[0].size], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "of_torch"),
    [
        (SGD(lr=0.05), lambda cores: torch.optim.SGD(cores, lr=0.05)),
        (Adagrad(lr=0.05, eps=1e-8), lambda cores: torch.optim.Adagrad(cores, lr=0.05, eps=1e-8)),
    ],
    ids=["sgd", "adagrad"],
)
@pytest.mark.parametrize("number", [2, 3, 4])
def test_ten_steps_towards_a_target_end_where_torch_ends(optimizer, of_torch, number):
    """Of these two a gradient of 0 moves nothing, so that torch may train the cores as a whole."""
    shape = tt_shape(200, 12, 3, number)
    cores = random_cores(shape, number, optimizer=optimizer)
    tensors = [torch.nn.Parameter(torch.tensor(array)) for array in cores.arrays]
    trainer = of_torch(tensors)
    rng = np.random.default_rng(number)
    for _ in range(10):
        index_N, target_ND = rng.integers(0, 200, 30), rng.standard_normal((30, 12))
        trainer.zero_grad()
        (whole_table(tensors)[torch.tensor(index_N)] - torch.tensor(target_ND)).square().mean().backward()
        trainer.step()
        cores.apply(index_N, (rows_of(cores, index_N) - target_ND) * 2 / target_ND.size)
    for array, tensor in zip(cores.arrays, tensors, strict=True):
        np.testing.assert_allclose(array, tensor.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
@given(shapes(), st.integers(1, 4), seeds)
def test_slices_that_no_row_has_stay_as_they_are(name, shape, n, seed):
    """State too, even of an optimizer that would decay it."""
    rng = np.random.default_rng(seed)
    cores = random_cores(shape, seed, F32, OPTIMIZERS[name])
    everything_N = np.arange(shape.rows)
    cores.apply(everything_N, rng.standard_normal((shape.rows, shape.dim)).astype(F32))
    before = states_of(cores)
    index_N = rng.integers(0, shape.rows, n)
    cores.apply(index_N, 1 + rng.random((n, shape.dim)).astype(F32))
    for digit_N, was, now in zip(shape.digits(index_N), before, states_of(cores), strict=True):
        assert {k for k in range(len(was)) if was[k] != now[k]} <= set(digit_N.tolist())


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_same_bytes_whoever_does_the_work(number, kind):
    shape = tt_shape(5000, 12, 5, number)
    rng = np.random.default_rng(0)
    batches = [
        (rng.integers(0, 5000, n), rng.standard_normal((n, 12)).astype(kind)) for n in (SHARE_FROM_ROWS, 7, 4000)
    ]
    found = []
    most = []

    def counted(share):
        return lambda tasks: (most.append(len(tasks)), share(tasks))

    for share in (None, counted(one_after_another_reversed), counted(on_two_threads)):
        cores = random_cores(shape, 0, kind, RowwiseAdagrad(lr=0.1))
        for index_N, grads_ND in batches:
            cores.apply(index_N, grads_ND, *([share] if share else []))
        found.append((states_of(cores), rows_of(cores, batches[-1][0], share).tobytes()))
    assert found[0] == found[1] == found[2]
    assert max(most) == 2


def test_a_step_leaves_nothing_behind_that_the_next_one_sees():
    """Buffers are used again: two tables of which one has read and computed before end with the same bytes."""
    shape = tt_shape(5000, 12, 5, 4)
    rng = np.random.default_rng(0)
    index_N, grads_ND = rng.integers(0, 5000, 2000), rng.standard_normal((2000, 12)).astype(F32)
    fresh, used = random_cores(shape, 0, F32), random_cores(shape, 0, F32)
    used.gradients(index_N[::-1].copy(), grads_ND)
    used.lookup(index_N, np.empty((2000, 12), F32))
    for cores in (fresh, used):
        cores.apply(index_N[:50], grads_ND[:50])
    assert states_of(fresh) == states_of(used)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_gradients_off_the_wire_are_as_good_as_any(number):
    """Read-only, and of memory that is not theirs."""
    shape = tt_shape(500, 12, 3, number)
    rng = np.random.default_rng(0)
    index_N, grads_ND = rng.integers(0, 500, 40), rng.standard_normal((40, 12)).astype(F32)
    one, other = random_cores(shape, 0, F32), random_cores(shape, 0, F32)
    one.apply(index_N, grads_ND)
    other.apply(np.frombuffer(index_N.tobytes(), np.int64), np.frombuffer(grads_ND.tobytes(), F32).reshape(40, 12))
    assert states_of(one) == states_of(other)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_an_empty_batch_is_no_step(number):
    cores = random_cores(tt_shape(500, 12, 3, number), 0, F32, Adam(lr=0.1))
    before = states_of(cores)
    assert rows_of(cores, np.empty(0, np.int64)).shape == (0, 12)
    cores.apply(np.empty(0, np.int64), np.empty((0, 12), F32))
    assert states_of(cores) == before
    assert cores.steps == 0


@given(shapes(), seeds)
def test_arrays_are_copies_of_what_was_given(shape, seed):
    arrays = random_arrays(shape, seed, F32)
    cores = cores_of(shape, arrays, Adagrad(lr=0.1))
    for given_array, found in zip(arrays, cores.arrays, strict=True):
        assert np.array_equal(given_array, found)
        found[:] = 0
    assert np.array_equal(cores.arrays[0], arrays[0])


def test_nbytes_are_of_values_and_state_and_then_of_buffers_too():
    shape = tt_shape(500, 12, 3)
    cores = random_cores(shape, 0, F32, Adagrad(lr=0.1))
    values_and_state = 2 * 4 * shape.parameters
    assert cores.nbytes == values_and_state
    cores.apply(np.arange(500), np.ones((500, 12), F32))
    assert cores.nbytes == values_and_state + 4 * shape.parameters


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("optimizer", [SGD(lr=0.1), Adagrad(lr=0.1), RowwiseAdagrad(lr=0.1)])
def test_cores_over_memory_of_somebody_else_are_read_and_trained_there(number, optimizer):
    shape = tt_shape(100, 6, 3, number)
    arrays, index_N, grads_ND = random_arrays(shape, 1, F32), np.arange(50), np.ones((50, 6), F32)
    rules = [update_rule(optimizer, size) for size in shape.slice_sizes]
    first = Cores(shape, arrays, rules)
    held = [rows_PW.copy() for rows_PW in first.rows]
    second = Cores.over(shape, held, rules)
    for cores in (first, second):
        cores.apply(index_N, grads_ND)
    np.testing.assert_array_equal(rows_of(second, index_N), rows_of(first, index_N))
    for mine, theirs in zip(held, first.rows, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert not np.shares_memory(mine, theirs)
