"""The quantile of a ranking against a sort of all ranks, while time goes on and the lowest ranks merge."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ps.kernels import score
from ps.policy.ranking import BEHIND, Ranking

F32 = np.float32


def statistics(scores: list[float], stamps: list[int]) -> np.ndarray:
    """uint32 [n, 2]"""
    rows_N2 = np.zeros((len(scores), 2), np.uint32)
    rows_N2.view(F32)[:, 0] = scores
    rows_N2[:, 1] = stamps
    return rows_N2


def after(ticks: int) -> Ranking:
    """A ranking whose clock shows so many ticks."""
    ranking = Ranking(half_life_pushes=score.HALF_LIFE)
    wait(ranking, ticks)
    return ranking


def wait(ranking: Ranking, until: int) -> None:
    """Lets the clock go on."""
    while ranking.now < until:
        ranking.advance()


def ranks_of(rows_N2: np.ndarray) -> np.ndarray:
    """int64 [n]"""
    out_N = np.empty(len(rows_N2), np.int64)
    score.ranks(rows_N2, np.uint32(1), out_N)
    return out_N


@given(
    st.lists(st.tuples(st.floats(0, 1e6, width=32), st.integers(0, 300)), max_size=50),
    st.integers(0, 60),
    st.integers(300, 30_000),
)
def test_the_quantile_splits_rows_as_a_sort_does(rows: list[tuple[float, int]], keep: int, later: int) -> None:
    rows_N2 = statistics([row[0] for row in rows], [row[1] for row in rows])
    ranking = Ranking(half_life_pushes=score.HALF_LIFE)
    ranking.count(rows_N2, 1)
    for now in (300, later):
        wait(ranking, now)
        assert ranking.total == len(rows) == ranking.counts_R.sum()
        ranks_N = np.maximum(ranks_of(rows_N2), ranking.first)
        at = ranking.quantile(keep)
        above = int((ranks_N > at).sum())
        assert above < keep or keep == 0
        assert above + int((ranks_N == at).sum()) >= min(keep, len(rows))
    ranking.count(rows_N2, -1)
    assert ranking.total == 0
    assert not ranking.counts_R.any()


def test_rows_left_alone_for_long_count_as_the_lowest_and_can_still_be_counted_out() -> None:
    ranking = Ranking(half_life_pushes=score.HALF_LIFE)
    old_N2, new_N2 = statistics([1.0] * 3, [0, 1, 2]), statistics([1.0], [20_000])
    ranking.count(old_N2, 1)
    wait(ranking, 20_000)
    assert 0 <= ranking.now - BEHIND - ranking.first < score.HALF_LIFE
    ranking.count(new_N2, 1)
    assert ranking.counts_R[0] == 3
    assert ranks_of(new_N2)[0] == ranking.quantile(1)
    assert ranking.quantile(2) == ranking.first
    ranking.count(old_N2, -1)
    assert ranking.counts_R.sum() == ranking.total == 1


def test_the_clock_ticks_sixty_four_times_a_half_life() -> None:
    ranking = Ranking(half_life_pushes=6400)
    assert [ranking.advance() for _ in range(200)] == ([False] * 99 + [True]) * 2
    for _ in range(6200):
        ranking.advance()
    assert ranking.tick == score.HALF_LIFE


def test_rows_whose_statistics_are_lost_are_counted_out_of_the_lowest_ranks() -> None:
    ranking = Ranking(half_life_pushes=score.HALF_LIFE)
    rows_N2 = statistics([1.0, 1.0, 2.0, 64.0], [0, 0, 0, 0])
    ranking.count(rows_N2, 1)
    ranking.forget(3)
    assert ranking.total == 1 == ranking.counts_R.sum()
    assert ranking.counts_R.min() == 0
    assert ranking.quantile(1) == ranks_of(rows_N2)[3], "the row of the highest rank is the one left"


def test_rows_up_to_a_rank_are_counted_out_at_once() -> None:
    ranking = after(10)
    rows_N2 = statistics([1.0, 1.0, 2.0, 64.0], [0, 9, 0, 0])
    ranking.count(rows_N2, 1)
    ranks_N = ranks_of(rows_N2)
    assert ranking.drop(int(ranks_N[1])) == 2
    assert ranking.total == 2 == ranking.counts_R.sum()
    assert ranking.drop(ranking.first - 1) == 0
    assert ranking.drop(ranking.first + 10**6) == 2


@given(
    st.lists(st.tuples(st.floats(0, 1e6, width=32), st.integers(0, 300)), max_size=50),
    st.integers(0, 60),
    st.integers(300, 30_000),
)
def test_the_most_important_are_as_many_as_rows_alike_allow(rows: list[tuple[float, int]], n: int, later: int) -> None:
    rows_N2 = statistics([row[0] for row in rows], [row[1] for row in rows])
    ranking = after(300)
    ranking.count(rows_N2, 1)
    wait(ranking, later)
    ranks_N = np.maximum(ranks_of(rows_N2), ranking.first)  # those below are counted as one
    found_N = ranks_of(rows_N2) > ranking.below_most(n)
    possible = [int((ranks_N > rank).sum()) for rank in (*ranks_N, ranking.first - 1)]
    assert int(found_N.sum()) in possible
    assert abs(int(found_N.sum()) - n) == min(abs(many - n) for many in possible)
    assert not found_N.any() or ranks_N[found_N].min() > ranks_N[~found_N].max(initial=ranking.first - 1)
