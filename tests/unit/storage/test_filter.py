from __future__ import annotations

from contextlib import closing

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ps.storage.disk import filter as filters
from ps.storage.disk.filter import IdFilter
from tests.unit.kernels.strategies import id_arrays

RNG_IDS = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 400_000)


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(id_arrays, max_size=8), st.integers(1, 50))
def test_every_id_put_in_is_found_whatever_the_layers(batches, expected_ids):
    with closing(IdFilter(expected_ids)) as some:
        for ids_N in batches:
            some.add(ids_N)
        for ids_N in batches:
            assert some.may_contain(ids_N).all()
        assert some.may_contain(np.empty(0, np.int64)).tolist() == []


def test_a_new_one_finds_nothing():
    with closing(IdFilter()) as some:
        assert not some.may_contain(RNG_IDS).any()
        assert some.layers == 1


def test_layers_grow_and_mistakes_stay_few():
    with closing(IdFilter(10_000)) as some:
        for start in range(0, 200_000, 7_000):
            some.add(RNG_IDS[start : min(start + 7_000, 200_000)])
        assert some.may_contain(RNG_IDS[:200_000]).all()
        assert some.layers == 3  # 10 + 80 + 262 thousand
        assert some.may_contain(RNG_IDS[200_000:]).mean() < 0.03
        assert some.nbytes < 90_000 * 2 + 262_144 * 1.5 + 3 * 4096 + 3 * 64


@pytest.mark.parametrize("ids", [0, 1, 4096, 5000, 36_864, 40_000, 400_000])
def test_it_grows_with_its_table_and_the_bytes_are_told(ids):
    with closing(IdFilter()) as some:
        for start in range(0, ids, 3000):
            some.add(np.unique(RNG_IDS[start : min(start + 3000, ids)]))
        told = list(filters.layers_for(ids))
        assert some.layers >= len(told)
        assert some.nbytes <= sum(filters.layers_for(max(ids, 1))) + 4096 * len(told) + 4096
        assert some.may_contain(RNG_IDS[:ids]).all()
        assert some.nbytes <= 16 * 1024 + 16 * ids


def test_one_layer_of_the_expected_size_makes_half_a_percent_of_mistakes():
    with closing(IdFilter(filters.STEADY_IDS)) as some:
        some.add(RNG_IDS[: filters.STEADY_IDS])
        assert some.layers == 1
        assert some.may_contain(RNG_IDS[filters.STEADY_IDS :]).mean() == pytest.approx(0.005, abs=0.002)


def test_ids_that_are_put_in_again_take_no_room():
    with closing(IdFilter(1_000)) as some:
        for _ in range(20):
            some.add(RNG_IDS[:1_000])
        assert some.layers == 1


def test_close_may_be_called_again():
    some = IdFilter()
    some.close()
    some.close()
    assert some.nbytes == 0


def test_the_first_layer_is_small():
    with closing(IdFilter()) as some:
        assert some.nbytes <= filters.FIRST_IDS * filters.BITS_PER_ID // 8 + 4096
