"""What cuts meet, against every cut that was ever made."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ps.policy.ranking import EVERY_RANK
from ps.storage.cuts import Cuts
from tests.unit.policy.test_ranking import ranks_of, statistics


@given(
    st.lists(st.tuples(st.floats(0, 1e6, width=32), st.integers(0, 60)), max_size=30),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12_000) | st.just(EVERY_RANK)), max_size=6),
)
def test_a_row_is_met_if_any_cut_was_later_and_as_high(
    rows: list[tuple[float, int]], made: list[tuple[int, int]]
) -> None:
    rows_N2 = statistics([row[0] for row in rows], [row[1] for row in rows])
    cuts = Cuts()
    for tick, rank in made:
        cuts.add(tick, rank)
    assert bool(cuts) == bool(made)
    expected = [
        any(stamp < tick and rank <= highest for tick, highest in made)
        for rank, (_, stamp) in zip(ranks_of(rows_N2).tolist(), rows, strict=True)
    ]
    assert cuts.met(rows_N2).tolist() == expected
    assert (np.diff(cuts.ticks_C) > 0).all()
    assert (np.diff(cuts.ranks_C) < 0).all(), "what says nothing any more is forgotten"
