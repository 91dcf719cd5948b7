"""Configuration of what is sent, and the threshold that a density stands for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps.errors import ConfigError
from ps.nn.sparsify.thresholds import SMALLEST, Threshold, TopK, kth_largest, measured

F32 = np.float32


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TopK(density=0), r"TopK.density: 0 is not a share above 0"),
        (lambda: TopK(density=1.5), r"TopK.density: 1.5"),
        (lambda: TopK(density=float("nan")), r"TopK.density: nan"),
        (lambda: TopK(density="5 %"), r"TopK.density: '5 %'"),
        (lambda: TopK(by="columns"), r"TopK.by: 'columns': choose 'rows' or 'elements'"),
        (lambda: TopK(reestimate_every=0), r"TopK.reestimate_every: 0 is not a whole number from 1 on"),
        (lambda: TopK(sample=2.5), r"TopK.sample: 2.5"),
        (lambda: TopK(warm_up=-1), r"TopK.warm_up: -1 is not a whole number from 0 on"),
        (lambda: Threshold(-0.1), r"Threshold.value: -0.1 is not a number from 0"),
        (lambda: Threshold(float("inf")), r"Threshold.value: inf"),
        (lambda: Threshold(1.0, by="bags"), r"Threshold.by: 'bags'"),
    ],
)
def test_what_is_out_of_range_is_named(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_the_warm_up_falls_exponentially_from_1_to_the_density():
    config = TopK(density=0.01, warm_up=4)
    assert [config.density_at(t) for t in range(4)] == pytest.approx([1, 10**-0.5, 10**-1, 10**-1.5])
    assert [config.density_at(t) for t in (4, 5, 1000)] == [0.01] * 3
    assert TopK(density=0.3).density_at(0) == 0.3


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0.01, 1))
def test_the_threshold_is_reached_by_that_share_and_never_by_zeros(sizes, density):
    sizes_N = np.array(sizes, F32)
    threshold = kth_largest(sizes_N, density)
    wanted = max(1, round(density * len(sizes)))
    if density == 1:
        assert threshold == 0
    elif threshold > SMALLEST:
        assert np.count_nonzero(sizes_N > threshold) < wanted <= np.count_nonzero(sizes_N >= threshold)
    else:
        assert np.count_nonzero(sizes_N) <= wanted


@given(st.floats(0, 1e18), st.sampled_from(["rows", "elements"]))
def test_only_a_threshold_of_0_is_measured_as_0(value, by):
    assert (measured(value, by) == 0) == (value == 0)
    assert np.isfinite(measured(value, by))
