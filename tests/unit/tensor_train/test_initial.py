from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from ps.kernels.reference import tensor_train as reference
from ps.tensor_train.initial import BLOCK, TAIL, default_variance, initial_cores, tail_moment
from ps.tensor_train.shape import tt_shape

KINDS = ["approximate_uniform", "gaussian", "uniform"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cores", [2, 3, 4])
def test_rows_have_the_variance_asked_for(kind, cores):
    """Rows share slices, so one table's mean square scatters: the mean of 300 tables does so within 2.5 %."""
    shape = tt_shape(1000, 24, 4, cores)
    digits_KN = shape.digits(np.arange(1000))
    tables = [reference.rows(initial_cores(shape, 0.04, kind, seed), digits_KN) for seed in range(300)]
    squares = [np.mean(rows_ND**2) for rows_ND in tables]
    spread = np.std(squares) / math.sqrt(len(squares))
    assert spread < 0.025 * 0.04
    assert np.mean(squares) == pytest.approx(0.04, abs=3 * spread)
    assert np.mean(tables) == pytest.approx(0, abs=0.2 * 0.02)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("ranks", "moments"),
    [((16,), (0.5, 1 / 16)), ((16, 9), (1 / 16, 0.5, 1 / 9)), ((8, 16, 9), (1 / 8, 1 / 16, 0.5, 1 / 9))],
)
def test_one_core_has_the_variance_and_slices_of_the_others_norm_1(kind, ranks, moments):
    shape = tt_shape(1_000_000, 64, ranks, len(ranks) + 1)
    for array, size, moment in zip(initial_cores(shape, 0.5, kind, 0), shape.cores, moments, strict=True):
        assert array.dtype == np.float32
        assert array.shape == size
        assert np.mean(array.astype(np.float64) ** 2) == pytest.approx(moment, rel=6 * math.sqrt(2 / array.size))


def test_approximate_uniform_leaves_out_the_middle():
    shape = tt_shape(1_000_000, 64, 16)
    for array, moment in zip(initial_cores(shape, 1.0), (1 / 16, 1, 1 / 16), strict=True):
        scale = math.sqrt(moment / tail_moment(TAIL))
        assert np.abs(array).min() == pytest.approx(2 * scale, rel=0.01)
        assert np.abs(array).min() >= 2 * scale * (1 - 1e-6)
        assert np.mean(array > 0) == pytest.approx(0.5, abs=3 / math.sqrt(array.size))


def test_its_tail_is_that_of_a_normal():
    """P(abs(x) >= 3 | abs(x) >= 2) = erfc(3 / sqrt(2)) / erfc(2 / sqrt(2))."""
    array = initial_cores(tt_shape(10**9, 64, 16), 1.0)[1]
    scale = math.sqrt(1 / tail_moment(TAIL))
    expected = math.erfc(3 / math.sqrt(2)) / math.erfc(2 / math.sqrt(2))
    assert np.mean(np.abs(array) > 3 * scale) == pytest.approx(expected, abs=0.001)


def test_the_tails_moment_is_the_integral():
    x = np.linspace(TAIL, 40, 2_000_001)
    density = np.exp(-x * x / 2)
    assert tail_moment(TAIL) == pytest.approx(np.sum(x * x * density) / np.sum(density), rel=1e-4)


def near_zero(shape, kind):
    """The share of single products, of which an element of a row is the sum, that are near 0 for their size."""
    columns = [
        np.random.default_rng(k).choice(array.reshape(-1), 100_000) for k, array in enumerate(arrays(shape, kind))
    ]
    products = np.prod(columns, axis=0)
    return np.mean(np.abs(products) < 0.2 * np.sqrt(np.mean(products**2)))


def arrays(shape, kind):
    return [array.astype(np.float64) for array in initial_cores(shape, 1.0, kind, 5)]


def test_products_of_approximate_uniform_are_rarely_near_zero():
    shape = tt_shape(1_000_000, 64, 16)
    assert near_zero(shape, "approximate_uniform") == 0
    assert near_zero(shape, "gaussian") > 0.4
    assert near_zero(shape, "uniform") > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_of_the_seed(kind):
    shape = tt_shape(1000, 27, 4, p=(10, 10, 10), q=(3, 3, 3))
    one, same, other = (initial_cores(shape, 1.0, kind, seed) for seed in (0, 0, 1))
    for k in range(3):
        assert one[k].tobytes() == same[k].tobytes()
        assert not np.array_equal(one[k], other[k])
    assert not np.array_equal(one[0].reshape(-1), one[2].reshape(-1))


def test_the_default_variance_is_that_of_the_uniform_of_a_dense_table():
    draws = np.random.default_rng(0).uniform(-1 / math.sqrt(50), 1 / math.sqrt(50), 1_000_000)
    assert default_variance(50) == pytest.approx(draws.var(), rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_drawing_takes_little_more_than_what_is_drawn(kind):
    shape = tt_shape(10**6, 64, 64)
    tracemalloc.start()
    try:
        initial_cores(shape, 1.0, kind)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * shape.parameters + 80 * BLOCK
    assert shape.parameters > 10 * BLOCK
