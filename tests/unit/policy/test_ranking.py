"""The quantile of a ranking against a sort of all ranks, while time goes on and the lowest ranks merge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps.errors import ResourceExhausted
from ps.kernels.ranking import score
from ps.policy import eviction
from ps.policy.ranking import BEHIND, LAST_STAMP, Ranking
from ps.storage.ram.cuts import Cuts

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


def ticks(ranking: Ranking, move: Callable[[], None]) -> int:
    """How many ticks pass."""
    before = ranking.tick
    move()
    return ranking.tick - before


def test_the_clock_ticks_sixty_four_times_a_half_life() -> None:
    ranking = Ranking(half_life_pushes=6400)
    assert [ticks(ranking, ranking.advance) for _ in range(200)] == ([0] * 99 + [1]) * 2
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


lots = st.integers(0, score.LOTS - 1)
parted = st.lists(st.tuples(st.floats(0, 1e6, width=32), st.integers(0, 300), lots), min_size=1, max_size=60)


@settings(max_examples=15)
@given(parted, st.integers(1, 60), st.sampled_from([None, 16]), st.sampled_from([300, 13_000]))
def test_a_cut_is_counted_out_as_its_rows_are_met(
    rows: list[tuple[float, int, int]], most: int, expire: int | None, later: int
) -> None:
    """Those that are left are still counted by rank, age and lot: counted out one by one, nothing is left."""
    rows_N2 = statistics([row[0] for row in rows], [row[1] for row in rows])
    rows_N2[:, 0] = rows_N2[:, 0] & ~np.uint32(score.LOTS - 1) | np.array([row[2] for row in rows], np.uint32)
    ranking = Ranking(score.HALF_LIFE, expire_after_pushes=expire, parted=True)
    wait(ranking, 300)
    ranking.count(rows_N2, 1)
    wait(ranking, later)
    cut, cuts = ranking.cut(most), Cuts(ranking.per_tick)
    dropped = ranking.drop(cut)
    cuts.add(ranking.now + 1, cut.highest)
    cuts.add(ranking.now + 1, cut.border, cut.lots_L)
    met_N = cuts.met(rows_N2)
    assert dropped == int(met_N.sum())
    assert ranking.total == len(rows) - dropped
    assert ranking.total >= min(eviction.rows_least(most), len(rows))
    ranking.count(rows_N2[~met_N], -1)
    for left in (ranking.counts_R, ranking.counts_ER, ranking.lots_ERL):
        assert not left.any()


@given(st.lists(st.integers(0, 50), min_size=32, max_size=32), st.integers(0, 200), st.integers(1, 2000), st.integers())
def test_lots_go_until_about_as_many_rows_are_left_as_should_be(
    rows: list[int], above: int, most: int, turn: int
) -> None:
    keep, least = eviction.rows_kept(most), eviction.rows_least(most)
    above = min(above, keep - 1)
    rows_L, total = np.array(rows), above + sum(rows)
    dropped_L = eviction.lots_dropped(rows_L, above, eviction.Bounds(least, keep, most), turn % 2**32)
    left = total - int(rows_L[dropped_L].sum())
    assert left >= min(least, total)
    assert left <= most or (left - rows_L[~dropped_L] < least).all(), "no lot can go any more"
    assert left < keep + rows_L[~dropped_L].max(initial=0) or left == total


def test_what_turns_over_is_the_clock_where_there_is_no_half_life() -> None:
    ranking = Ranking(None)
    assert not ticks(ranking, ranking.advance)
    ranking.turn(500, 1000)
    assert ticks(ranking, ranking.advance)
    assert ranking.tick == ranking.now == score.HALF_LIFE // 2
    ranking.turn(10, 1000)
    assert not ticks(ranking, ranking.advance)
    ranking.sealed = False
    assert ticks(ranking, ranking.seal), "rows are to be dropped: touched before is told from touched later"
    assert ranking.tick == score.HALF_LIFE // 2 + 1
    assert not ticks(ranking, ranking.seal), "nobody was touched since"
    ranking.turn(10**6, 1000)
    assert ticks(ranking, ranking.advance)
    assert ranking.tick <= score.HALF_LIFE // 2 + 1 + score.HALF_LIFE, "at most one turn a write"


def test_a_clock_at_its_end_is_an_error_before_the_write() -> None:
    ranking = Ranking(score.HALF_LIFE)
    ranking.check_time("t")
    ranking.now = LAST_STAMP
    with pytest.raises(ResourceExhausted, match=r"'t'.*4,293,918,720.*create it again"):
        ranking.check_time("t")


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
