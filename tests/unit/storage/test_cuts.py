"""What cuts meet, against every cut that was ever made."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ps.kernels.ranking import score
from ps.policy.ranking import EVERY_RANK
from ps.storage.ram.cuts import Cuts
from tests.unit.policy.test_ranking import ranks_of, statistics

some_lots = st.none() | st.lists(st.booleans(), min_size=score.LOTS, max_size=score.LOTS) | st.integers(0, 3)
"""None: all. A number: every fourth one."""


def lots_of(said: list[bool] | int | None) -> np.ndarray:
    if said is None:
        return np.ones(score.LOTS, np.bool_)
    return np.arange(score.LOTS) % 4 == said if isinstance(said, int) else np.array(said)


@given(
    st.lists(st.tuples(st.floats(0, 1e6, width=32), st.integers(0, 60), st.integers(0, score.LOTS - 1)), max_size=30),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12_000) | st.just(EVERY_RANK), some_lots), max_size=8),
)
def test_a_row_is_met_if_any_cut_of_its_lot_was_later_and_as_high(
    rows: list[tuple[float, int, int]], made: list[tuple[int, int, list[bool] | int | None]]
) -> None:
    rows_N2 = statistics([row[0] for row in rows], [row[1] for row in rows])
    rows_N2[:, 0] = rows_N2[:, 0] & ~np.uint32(score.LOTS - 1) | np.array([row[2] for row in rows], np.uint32)
    cuts = Cuts(np.uint32(1))
    for stamp, rank, said in made:
        before = cuts.copy()
        then_N = before.met(rows_N2)
        cuts.add(stamp, rank, None if said is None else lots_of(said))
        assert (before.met(rows_N2) == then_N).all(), "a copy stays as it was"
    expected = [
        any(stamp < tick and rank <= highest and lots_of(said)[lot] for tick, highest, said in made)
        for rank, (_, stamp, lot) in zip(ranks_of(rows_N2).tolist(), rows, strict=True)
    ]
    assert cuts.met(rows_N2).tolist() == expected
    assert (np.diff(cuts.stamps_C) > 0).all()
    assert (np.diff(cuts.ranks_C) < 0).all(), "what says nothing any more is forgotten"


def test_cuts_of_lots_that_say_nothing_any_more_are_forgotten() -> None:
    cuts = Cuts(np.uint32(1))
    for stamp in range(1, 100):
        cuts.add(stamp, 500, lots_of(stamp % 4))
    assert cuts.stamps_LC.shape == (score.LOTS, 1)
    cuts.add(100, 500)
    assert cuts.stamps_LC.shape == (score.LOTS, 0)
