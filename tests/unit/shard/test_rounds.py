"""Synchronous pushes on a shard: the sum of the ranks, once, the same bytes in whatever order they come."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ps
from ps.shard import Gradients, Shard, TableIds
from ps.shard.ledger import WriteId
from ps.shard.requests import PushResult
from ps.shard.writes.combine import combined
from tests.conftest import QUIET
from tests.unit.shard.helpers import DIM, a_write, everything, grads_of, ids_of, new_table, push, read
from tests.waiting import until

LIMIT_S = 30.0
SOON_S = 0.05

Push = tuple[list[TableIds], list[Gradients]]


def rank_push(ids: Sequence[int], values: Sequence[float], counts: Sequence[int] | None = None) -> Push:
    """Gradients with the same value in each element."""
    return [ids_of("t", ids, counts)], [grads_of("t", np.repeat(np.array(values, np.float32)[:, None], DIM, 1))]


def push_round(
    shard: Shard, rank: int, ranks: int, what: Push, *, number: int = 1, write: WriteId | None = None, wait_s: float
) -> PushResult:
    with shard.look_ahead(what[0]) as ahead:
        place = ps.Round("g", number, rank, ranks)
        waiting = shard.rounds.join(place, wait_s, write or a_write(rank), ahead, what[1])
        try:
            waiting.outcome.exception(wait_s)
        except TimeoutError:
            shard.rounds.expire(waiting)
        return waiting.outcome.result()


class Ranks:
    """Pushes under way, each on a thread."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self._pool = ThreadPoolExecutor(16)

    def start(self, rank: int, ranks: int, what: Push, **settings: object) -> Future[PushResult]:
        """Returns when it waits, or has ended."""
        before = self.waiting
        calls = {"wait_s": LIMIT_S, **settings}
        future = self._pool.submit(push_round, self.shard, rank, ranks, what, **calls)  # type: ignore[arg-type]
        until(lambda: future.done() or self.waiting != before)
        return future

    @property
    def waiting(self) -> int:
        return self.shard.engine.run(lambda: self.shard.core.rounds.waiting)

    def close(self) -> None:
        self._pool.shutdown()


@pytest.fixture
def ranks(shard: Shard) -> Ranks:
    new_table(shard)
    return Ranks(shard)


# the sum


whole = st.integers(-50, 50).map(float)


@st.composite
def pushes(draw: st.DrawFn) -> Push:
    """Of one rank: unique ids, gradients of all or of some of them, in one block or two."""
    ids = draw(st.lists(st.integers(-6, 6), unique=True, max_size=8))
    chosen = draw(st.none() | st.lists(st.sampled_from(range(len(ids))), unique=True).map(sorted) if ids else st.none())
    rows = len(ids) if chosen is None else len(chosen)
    values = np.array(draw(st.lists(whole, min_size=rows, max_size=rows)), np.float32)
    block_RD = np.repeat(values[:, None], DIM, 1)
    cut = draw(st.integers(0, rows))
    blocks = [block for block in (block_RD[:cut], block_RD[cut:]) if len(block)]
    of_each = st.lists(st.integers(0, 9), min_size=len(ids), max_size=len(ids))
    counts, positives = draw(st.none() | of_each), draw(st.none() | of_each)
    positives_N = None if positives is None else np.array(positives, np.uint32)
    rows_R = None if chosen is None else np.array(chosen, np.int64)
    return [ids_of("t", ids, counts)], [Gradients("t", blocks, positives_N, rows_R, len(ids))]


@given(st.lists(pushes(), min_size=1, max_size=3))
def test_the_sum_is_by_id(parts: list[Push]) -> None:
    ids, sums = combined([part[0][0] for part in parts], [part[1][0] for part in parts], DIM)
    expected: dict[int, list[float | None]] = {}
    for (part_ids,), (part,) in parts:
        given_R = range(len(part_ids.ids_N)) if part.rows_R is None else part.rows_R.tolist()
        flat = [row[0] for block in part.blocks for row in block.tolist()]
        grads = dict(zip(given_R, flat, strict=True))
        for at, id_ in enumerate(part_ids.ids_N.tolist()):
            was = expected.setdefault(id_, [None, 0, 0])
            if at in grads:
                was[0] = (was[0] or 0) + grads[at]
            was[1] += 1 if part_ids.counts_N is None else int(part_ids.counts_N[at])
            was[2] += 0 if part.positives_N is None else int(part.positives_N[at])
    assert ids.ids_N.tolist() == list(expected), "in the order of the ranks"
    rows_R = range(len(expected)) if sums.rows_R is None else sums.rows_R.tolist()
    flat = [row[0] for block in sums.blocks for row in block.tolist()]
    with_grad = dict(zip(rows_R, flat, strict=True))
    assert ids.counts_N is not None
    found = [
        [with_grad.get(at), int(ids.counts_N[at]), 0 if sums.positives_N is None else int(sums.positives_N[at])]
        for at in range(len(expected))
    ]
    assert found == list(expected.values())


def test_counts_that_overflow_stay_at_the_most() -> None:
    parts = [rank_push([1], [0.0], [2**32 - 1])] * 2
    ids, _ = combined([part[0][0] for part in parts], [part[1][0] for part in parts], DIM)
    assert ids.counts_N is not None
    assert ids.counts_N.tolist() == [2**32 - 1]


ORDERS = [[0, 1, 2], [2, 1, 0], [1, 2, 0]]


@settings(max_examples=15)
@given(st.lists(st.lists(pushes(), min_size=3, max_size=3), min_size=1, max_size=3), st.data())
def test_rounds_are_the_pushes_of_one_large_batch_in_any_order_of_arrival(
    rounds: list[list[Push]], data: st.DataObject
) -> None:
    """Of Adagrad's rows and scores every byte: against a shard that is given the sums by one worker."""
    table = {"optimizer": ps.Adagrad(), "importance": ps.Importance(occurrences=1, positives=2)}
    one, many = Shard(0, QUIET), Shard(0, QUIET)
    ranks = Ranks(many)
    try:
        for shard in (one, many):
            new_table(shard, **table)
        for number, parts in enumerate(rounds):
            ids, sums = combined([part[0][0] for part in parts], [part[1][0] for part in parts], DIM)
            push(one, [ids], sums)
            order = data.draw(st.sampled_from(ORDERS))
            futures = [ranks.start(rank, 3, parts[rank], number=number) for rank in order]
            assert {future.result(LIMIT_S) for future in futures} == {PushResult(number + 2)}
        for expected, found in zip(everything(one, "t"), everything(many, "t"), strict=True):
            assert found.tobytes() == expected.tobytes()
        assert many.commit.pushes == len(rounds)
        table_of_many, table_of_one = many.tables["t"].stats(), one.tables["t"].stats()
        assert table_of_many == table_of_one
    finally:
        ranks.close()
        one.close()
        many.close()


# once


def test_a_push_sent_again_while_it_waits_takes_the_place_of_the_first(ranks: Ranks) -> None:
    write = a_write(1)
    first = ranks.start(1, 2, rank_push([1], [1.0]), write=write)
    again = ranks._pool.submit(push_round, ranks.shard, 1, 2, rank_push([1], [1.0]), write=write, wait_s=LIMIT_S)
    with pytest.raises(ps.Unavailable, match="sent this push again"):
        first.result(LIMIT_S)
    ranks.start(0, 2, rank_push([1, 2], [2.0, 3.0])).result(LIMIT_S)
    assert again.result(LIMIT_S) == PushResult(2)
    assert read(ranks.shard, "t", [1, 2])[:, 0].tolist() == [-3.0, -3.0]


def test_after_the_round_a_repeat_is_answered_from_the_ledger(ranks: Ranks) -> None:
    writes = [a_write(0), a_write(1)]
    futures = [ranks.start(rank, 2, rank_push([1], [1.0]), write=writes[rank]) for rank in range(2)]
    assert [future.result(LIMIT_S).repeated for future in futures] == [False, False]
    for rank in range(2):
        again = push_round(ranks.shard, rank, 2, rank_push([1], [1.0]), write=writes[rank], wait_s=LIMIT_S)
        assert again == PushResult(2, repeated=True)
    assert ranks.shard.commit.pushes == 1
    assert ranks.waiting == 0


def test_a_rank_that_never_comes_is_named_and_the_round_can_be_completed_later(ranks: Ranks) -> None:
    writes = [a_write(rank) for rank in range(3)]
    waits = ranks.start(2, 3, rank_push([1], [1.0]), write=writes[2])
    with pytest.raises(ps.DeadlineExceeded, match=r"round 1 of group 'g': ranks \[1\] of 3"):
        push_round(ranks.shard, 0, 3, rank_push([1], [2.0]), write=writes[0], wait_s=SOON_S)
    assert ranks.shard.commit.pushes == 0
    assert read(ranks.shard, "t", [1]).tolist() == [[0.0] * DIM]
    rest = [ranks.start(rank, 3, rank_push([1], [2.0]), write=writes[rank]) for rank in (1, 0)]
    assert {future.result(LIMIT_S) for future in [waits, *rest]} == {PushResult(2)}
    assert read(ranks.shard, "t", [1]).tolist() == [[-5.0] * DIM]


# what does not fit


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ps.InvalidArgument, "3 ranks, rank 1 2", {"rank": 0, "ranks": 3}),
        (ps.InvalidArgument, "rank 1 waits in round 1", {"rank": 0, "ranks": 2, "number": 2}),
    ],
)
def test_one_that_does_not_fit_is_refused_and_the_other_waits_on(
    ranks: Ranks, error: type[ps.PsError], match: str, call: dict[str, int]
) -> None:
    waits = ranks.start(1, 2, rank_push([1], [1.0]))
    with pytest.raises(error, match=match):
        push_round(ranks.shard, what=rank_push([1], [4.0]), wait_s=LIMIT_S, **call)  # type: ignore[arg-type]
    assert not waits.done()
    ranks.start(0, 2, rank_push([1], [2.0])).result(LIMIT_S)
    assert waits.result(LIMIT_S) == PushResult(2)
    assert read(ranks.shard, "t", [1]).tolist() == [[-3.0] * DIM]


def test_another_body_under_the_sequence_of_one_that_waits_is_refused(ranks: Ranks) -> None:
    write = a_write(1)
    waits = ranks.start(1, 2, rank_push([1], [1.0]), write=write)
    with pytest.raises(ps.SequenceConflict, match="waits there with another body"):
        push_round(ranks.shard, 1, 2, rank_push([1], [4.0]), write=replace(write, digest=5), wait_s=LIMIT_S)
    assert not waits.done()
    ranks.start(0, 2, rank_push([1], [2.0])).result(LIMIT_S)
    waits.result(LIMIT_S)
    assert read(ranks.shard, "t", [1]).tolist() == [[-3.0] * DIM]


def test_a_rank_that_waits_alone_may_begin_anew_at_another_step(ranks: Ranks) -> None:
    first = ranks.start(1, 2, rank_push([1], [1.0]), number=7)
    again = ranks._pool.submit(push_round, ranks.shard, 1, 2, rank_push([1], [1.0]), number=1, wait_s=LIMIT_S)
    with pytest.raises(ps.SequenceConflict, match="has taken the place of this one"):
        first.result(LIMIT_S)
    ranks.start(0, 2, rank_push([1], [2.0]), number=1).result(LIMIT_S)
    assert again.result(LIMIT_S) == PushResult(2)
    assert read(ranks.shard, "t", [1]).tolist() == [[-3.0] * DIM]


def test_ranks_must_push_the_same_tables(ranks: Ranks) -> None:
    new_table(ranks.shard, "u")
    waits = ranks.start(1, 2, rank_push([1], [1.0]))
    with pytest.raises(ps.LengthMismatch, match=r"rank 0 pushes tables \['u'\], rank 1 \['t'\]"):
        push_round(ranks.shard, 0, 2, ([ids_of("u", [1])], [grads_of("u", np.ones((1, DIM)))]), wait_s=LIMIT_S)
    assert not waits.done()
    ranks.start(0, 2, rank_push([], [])).result(LIMIT_S)
    waits.result(LIMIT_S)


def test_more_ranks_than_calls_are_told_which_setting(ranks: Ranks) -> None:
    with pytest.raises(ps.InvalidArgument, match=r"set limits\.max_requests to 260 or more"):
        push_round(ranks.shard, 0, 130, rank_push([1], [1.0]), wait_s=LIMIT_S)


def test_a_sum_beyond_float32_is_an_error_of_all_and_changes_nothing(ranks: Ranks) -> None:
    waits = ranks.start(1, 2, rank_push([1], [3e38]))
    for future in (ranks.start(0, 2, rank_push([1], [3e38])), waits):
        with pytest.raises(ps.NonFiniteGradient, match="summed over 2 ranks"):
            future.result(LIMIT_S)
    assert ranks.shard.commit.pushes == 0
    assert not len(everything(ranks.shard, "t")[0])


def test_a_table_that_is_made_anew_while_a_rank_waits(ranks: Ranks) -> None:
    waits = ranks.start(1, 2, rank_push([1], [1.0]))
    ranks.shard.drop_table("t")
    new_table(ranks.shard, dim=1)
    with pytest.raises(ps.DimensionMismatch):
        push_round(ranks.shard, 0, 2, ([ids_of("t", [2])], [grads_of("t", np.ones((1, 1)))]), wait_s=LIMIT_S)
    with pytest.raises(ps.DimensionMismatch):
        waits.result(LIMIT_S)
    assert ranks.shard.commit.pushes == 0


def test_a_shard_that_closes_ends_the_waiting() -> None:
    shard = Shard(0, QUIET)
    new_table(shard)
    ranks = Ranks(shard)
    waits = ranks.start(0, 2, rank_push([1], [1.0]))
    closing = threading.Thread(target=shard.close)
    closing.start()
    with pytest.raises(ps.Unavailable, match="stopping"):
        waits.result(LIMIT_S)
    closing.join(LIMIT_S)
    ranks.close()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("", 1, 0, 2), "1 to 200 characters"),
        (("g" * 201, 1, 0, 2), "1 to 200 characters"),
        (("g", -1, 0, 2), "round -1"),
        (("g", 1, 2, 2), "rank 2 of 2"),
        (("g", 1, -1, 2), "rank -1 of 2"),
        (("g", 1, 0, 0), "rank 0 of 0"),
    ],
)
def test_a_round_says_what_is_wrong_with_it(arguments: tuple[str, int, int, int], match: str) -> None:
    with pytest.raises(ps.InvalidArgument, match=match):
        ps.Round(*arguments)
