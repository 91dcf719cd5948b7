from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ps.kernels.reference import tensor_train as reference
from ps.tensor_train.shape import TTShape, suggested_p, suggested_q, tt_shape

KAGGLE = [
    *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10, 5652),
    *(2173, 4, 7046547, 18, 15, 286181, 105, 142572),
]
"""Rows of the 26 tables of the Criteo Kaggle data set."""
KAGGLE_P = {
    10131227: (200, 220, 250),
    8351593: (200, 200, 209),
    7046547: (200, 200, 200),
    5461306: (166, 175, 188),
    2202608: (125, 130, 136),
    286181: (53, 72, 75),
    142572: (50, 52, 55),
}
"""How TT-Rec cuts the rows of the seven largest."""


@example(1, 2)
@example(10**15 + 1, 3)
@given(st.integers(1, 10**6) | st.integers(1, 10**15), st.integers(2, 4))
def test_suggested_p_stands_for_every_row_and_few_more(rows, cores):
    p = suggested_p(rows, cores)
    assert len(p) == cores
    assert list(p) == sorted(p)
    assert p[-1] - p[0] <= 1
    assert math.prod(p) >= rows
    assert (p[0] - 1) * math.prod(p[1:]) < rows  # padding < the product of all but the smallest


def equal_factors(dim, cores):
    """The smallest largest factor of all ways to write dim as a product."""
    divisors = [n for n in range(1, dim + 1) if dim % n == 0]
    return min(max(q) for q in itertools.product(divisors, repeat=cores) if math.prod(q) == dim)


@example(97, 3)
@example(64, 3)
@example(12, 4)
@given(st.integers(1, 130), st.integers(2, 4))
def test_suggested_q_multiplies_to_the_dim_and_its_largest_is_smallest(dim, cores):
    q = suggested_q(dim, cores)
    assert len(q) == cores
    assert list(q) == sorted(q)
    assert math.prod(q) == dim
    assert max(q) == equal_factors(dim, cores)


@pytest.mark.parametrize(
    ("dim", "cores", "q"), [(16, 3, (2, 2, 4)), (64, 3, (4, 4, 4)), (31, 3, (1, 1, 31)), (6, 2, (2, 3)), (1, 2, (1, 1))]
)
def test_suggested_q_of_known_dims(dim, cores, q):
    assert suggested_q(dim, cores) == q


@given(st.integers(1, 10**9), st.integers(2, 4), st.integers(0, 2**32))
def test_digits_are_those_of_unravel_index(rows, cores, seed):
    shape = tt_shape(rows, 4, 2, cores)
    index_N = np.append(np.random.default_rng(seed).integers(0, rows, 20), [0, rows - 1])
    digits_KN = shape.digits(index_N)
    assert digits_KN.dtype == np.int64
    assert np.array_equal(digits_KN, reference.digits(index_N, shape.p))


def test_digits_leave_the_row_numbers_alone():
    index_N = np.array([5, 3])
    tt_shape(8, 4, 2).digits(index_N)
    assert index_N.tolist() == [5, 3]


@given(st.integers(1, 5000), st.integers(1, 40), st.integers(2, 4), st.integers(1, 9))
def test_sizes_are_those_of_the_arrays(rows, dim, cores, rank):
    shape = tt_shape(rows, dim, rank, cores)
    arrays = [np.empty(size) for size in shape.cores]
    assert shape.parameters == sum(array.size for array in arrays)
    assert shape.slice_sizes == [array[0].size for array in arrays]
    assert shape.compression == rows * dim / shape.parameters
    assert shape.dim == dim
    assert shape.padding == math.prod(shape.p) - rows


def test_ranks_p_and_q_may_be_given():
    shape = tt_shape(100, 12, (3, 5), p=(4, 5, 6), q=(2, 3, 2))
    assert shape == TTShape(100, (4, 5, 6), (2, 3, 2), (3, 5))
    assert shape.cores == [(4, 1, 2, 3), (5, 3, 3, 5), (6, 5, 2, 1)]
    assert shape.padding == 20


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"rows": 0}, "0 rows"),
        ({"dim": 0}, "dim 0"),
        ({"cores": 5}, "5 cores"),
        ({"cores": 1}, "1 cores"),
        ({"ranks": (8,)}, r"\(8,\)"),
        ({"ranks": 0}, r"\(0, 0\)"),
        ({"p": (10, 10)}, r"\(10, 10\)"),
        ({"p": (9, 10, 11)}, r"990 rows, fewer than the 1,000"),
        ({"q": (2, 2, 2)}, "8 floats.* 16"),
        ({"q": (0, 4, 4)}, r"\(0, 4, 4\)"),
    ],
)
def test_parts_that_do_not_fit_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        tt_shape(**{"rows": 1000, "dim": 16, "ranks": 8, **arguments})


@pytest.mark.parametrize(("rank", "floats", "ratio"), [(8, 185_792, 221.9), (32, 2_354_432, 117.4)])
def test_the_sizes_of_the_paper(rank, floats, ratio):
    """Yin et al., table 3: the seven largest tables as cores of dim 16, the other nineteen as they are. A table's cores
    have p1 * 2 * R + p2 * R * 2 * R + p3 * R * 4 floats."""
    assert sorted(KAGGLE_P) == sorted(KAGGLE)[-7:]
    shapes = [tt_shape(rows, 16, rank, p=p, q=(2, 2, 4)) for rows, p in KAGGLE_P.items()]
    dense = sum(KAGGLE) * 16
    others = sum(rows for rows in KAGGLE if rows not in KAGGLE_P) * 16
    assert dense == 540_201_232
    assert others == 2_248_688
    assert sum(shape.parameters for shape in shapes) == floats
    assert round(dense / (floats + others), 1) == ratio


def test_suggested_shapes_of_the_kaggle_tables_are_no_larger_than_the_papers():
    suggested = sum(tt_shape(rows, 16, 32).parameters for rows in KAGGLE_P)
    assert suggested <= sum(tt_shape(rows, 16, 32, p=p, q=(2, 2, 4)).parameters for rows, p in KAGGLE_P.items())
