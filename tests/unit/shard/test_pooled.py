"""Bags on one shard: sums and gradients of them, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ps
from ps.kernels.reference.rows import bags as reference
from ps.shard import Gradients, Shard, StepRef, TableIds
from ps.shard.reads.stream import CHUNK_FLOATS
from ps.shard.requests import BagGradients, Bags
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table, push, push_ids, read, read_target
from tests.waiting import until

IDS = [7, -3, 11, 0]
BAGS = Bags(np.array([0, 2, 5, 6]), np.array([0, 1, 2, 2, 0, 1], np.int32))
"""{7, -3}, {11, 11, 7}, {-3}; 0 is in none."""
POOLED = TableIds("t", np.array(IDS, np.int64), None, BAGS)
NOTHING = np.empty(0, np.int64)


@pytest.fixture
def shard() -> Iterator[Shard]:
    running = Shard(0)
    new_table(running)
    yield running
    running.close()


def block(*values: float) -> np.ndarray:
    return np.repeat(np.array(values, np.float32)[:, None], DIM, axis=1)


def of_bags(
    *values: float, bags: int = 3, bags_R: np.ndarray | None = None, ids: int = 4, rows: Gradients | None = None
) -> Gradients:
    """Gradients of bags, and of rows if given."""
    sent = BagGradients(bags, DIM, [block(*values)] if values else [], bags_R)
    if rows is None:
        return Gradients("t", [], None, NOTHING, ids, sent)
    return Gradients("t", rows.blocks, None, rows.rows_R, ids, sent)


def values(shard: Shard) -> list[float]:
    return read(shard, "t", IDS)[:, 0].tolist()


def test_a_pull_gives_a_sum_for_each_bag_beside_rows_of_other_tables(shard: Shard) -> None:
    new_table(shard, "u", dim=3)
    push_ids(shard, "t", IDS, block(1, 2, 3, 4))
    push_ids(shard, "u", [5], np.full((1, 3), 8))
    for target in ([POOLED, ids_of("u", [5])], [ids_of("u", [5]), POOLED]):
        parts = dict(zip([part.table for part in target], read_target(shard, target), strict=True))
        assert (parts["t"] == block(-3, -7, -2)).all()
        assert (parts["u"] == -8).all()


def test_gradients_of_bags_are_those_of_their_rows_as_often_as_they_are_in_them(shard: Shard) -> None:
    shard.prepare(StepRef(1, 1), [POOLED])
    push(shard, StepRef(1, 1), of_bags(1, 10, 100))
    assert values(shard) == [-11, -101, -20, 0]
    assert shard.stats()["tables"]["t"]["rows"]["hot"] == 3, "the row that is in no bag was not created"


def test_some_bags_and_some_rows_come_in_one_push(shard: Shard) -> None:
    rows = Gradients("t", [block(1000, 2000)], None, np.array([1, 3]))
    push(shard, [POOLED], of_bags(5, bags_R=np.array([2]), rows=rows))
    assert values(shard) == [0, -1005, 0, -2000]
    push(shard, [POOLED], of_bags(1, 1, 1, rows=grads_of("t", block(1, 1, 1, 1))))
    assert values(shard) == [-3, -1008, -3, -2001]
    push(shard, [POOLED], grads_of("t", block(1, 1, 1, 1)))
    assert values(shard) == [-4, -1009, -4, -2002], "and rows may be pushed alone"


@pytest.mark.parametrize(
    ("target", "gradients", "error", "match"),
    [
        (ids_of("t", IDS), of_bags(1, 1, 1), ps.LengthMismatch, "its ids were not sent with bags"),
        (POOLED, of_bags(1, 1, bags=2), ps.LengthMismatch, "gradients of 2 of 2 bags sent, and the step has 3"),
        (POOLED, of_bags(1, 1), ps.LengthMismatch, "gradients of 2 of 3 bags sent"),
        (POOLED, of_bags(1, 1, 1, ids=5), ps.LengthMismatch, "gradients of 5 rows sent for 4 ids"),
        (POOLED, of_bags(3e38, 3e38, 0), ps.NonFiniteGradient, "add up to more than float32 holds"),
        (
            POOLED,
            of_bags(1, 1, 1, rows=Gradients("t", [np.ones((1, 3), np.float32)], None, np.array([1]))),
            ps.DimensionMismatch,
            "dim 4 of bags, 3 of rows",
        ),
        (
            POOLED,
            Gradients("t", [], None, NOTHING, 4, BagGradients(3, 5, [np.ones((3, 5), np.float32)])),
            ps.DimensionMismatch,
            "table 't' has dim 4, the rows sent have 5",
        ),
    ],
)
def test_what_does_not_fit_is_refused_whole(
    shard: Shard, target: TableIds, gradients: Gradients, error: type[ps.PsError], match: str
) -> None:
    with pytest.raises(error, match=match):
        push(shard, [target], gradients)
    shard.prepare(StepRef(1, 1), [target])
    with pytest.raises(error, match=match):
        push(shard, StepRef(1, 1), gradients)
    assert values(shard) == [0, 0, 0, 0]
    assert shard.commit.pushes == 0
    push(shard, StepRef(1, 1), grads_of("t", block(1, 1, 1, 1)))


def test_a_repeat_is_answered_from_the_ledger_also_when_its_step_is_gone(shard: Shard) -> None:
    write = a_write()
    shard.prepare(StepRef(1, 1), [POOLED])
    assert not push(shard, StepRef(1, 1), of_bags(1, 1, 1), write=write).repeated
    for target in (StepRef(1, 1), [POOLED]):
        assert push(shard, target, of_bags(1, 1, 1), write=write).repeated
    assert values(shard) == [-2, -2, -2, 0]


def test_a_step_that_comes_after_its_push_was_looked_at_is_not_found(shard: Shard) -> None:
    """A prepare that the network has held up: the client sends the ids then."""
    with shard.look_ahead(StepRef(1, 1)) as ahead:
        ahead.wait()
        shard.prepare(StepRef(1, 1), [POOLED])
        with pytest.raises(ps.StepNotFound, match="send the ids"):
            shard.push(a_write(), ahead, [of_bags(1, 1, 1)])
    assert shard.commit.pushes == 0
    push(shard, StepRef(1, 1), of_bags(1, 1, 1))


def test_bags_are_counted_with_the_steps_that_hold_them(shard: Shard) -> None:
    shard.prepare(StepRef(1, 1), [ids_of("t", IDS)])
    before = shard.watch.memory_usage()["steps"]
    shard.prepare(StepRef(1, 2), [POOLED])
    assert shard.watch.memory_usage()["steps"] - 2 * before == BAGS.nbytes


def test_sums_are_bounded_as_rows_are() -> None:
    """A bag costs the client half a byte, and the shard a row."""
    small = Shard(0, ps.ServiceConfig(limits={"max_body_bytes": 1 << 20}))
    new_table(small)
    many = Bags(np.arange(100_001), np.zeros(100_000, np.int32))
    with pytest.raises(ps.ResourceExhausted, match="1,600,016 bytes of rows in one pull"):
        small.pull([TableIds("t", np.array([1]), None, many)]).head()
    small.close()


def test_more_sums_than_a_chunk_holds_come_in_several(shard: Shard) -> None:
    n = CHUNK_FLOATS // DIM + 10
    push_ids(shard, "t", [1, 2], block(1, 2))
    bags = Bags(np.arange(n + 1), (np.arange(n) % 2).astype(np.int32))
    (sums_BD,) = read_target(shard, [TableIds("t", np.array([1, 2]), None, bags)])
    assert (sums_BD == -1 - np.arange(n)[:, None] % 2).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_rows_on_disk_are_summed_and_trained_as_those_in_ram(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    folder: Path = tmp_path_factory.mktemp("disk")
    swapping, plain = (
        Shard(0, ps.ServiceConfig(disk={"path": folder}, performance={"disk_cache_bytes": 1 << 20})),
        Shard(0),
    )
    for one in (swapping, plain):
        new_table(one, swap_fraction=0.8, optimizer=ps.Adagrad(lr=0.1), initializer=ps.Normal())
    for number in range(6):
        ids_U = rng.permutation(40)[:20]
        starts_K = np.concatenate(([0], np.cumsum(rng.integers(1, 6, 8))))
        bags = Bags(starts_K, rng.integers(0, 20, starts_K[-1]).astype(np.int32))
        part, grads = TableIds("t", ids_U, None, bags), rng.standard_normal((8, DIM), np.float32)
        if number % 2:
            swapping.prepare(StepRef(1, number), [part])
        target = StepRef(1, number) if number % 2 else [part]
        assert read_target(swapping, target)[0].tobytes() == read_target(plain, [part])[0].tobytes()
        sent = Gradients("t", [], None, NOTHING, 20, BagGradients(8, DIM, [grads]))
        push(swapping, target, sent)
        push(plain, [part], sent)
    table = swapping.tables["t"]
    until(lambda: swapping.engine.run(lambda: len(table.ram) < len(table)))
    assert read(swapping, "t", range(40)).tobytes() == read(plain, "t", range(40)).tobytes()
    swapping.close()
    plain.close()


@pytest.mark.parametrize(
    "settings_of",
    [
        {"admission": ps.CountThreshold(min_count=4)},
        {"cold": ps.Fp16(hot_fraction=0.3), "half_life_pushes": 64},
        {"cold": ps.TensorTrain(rows=1000, ranks=4, hot_rows=5)},
        {"importance": ps.Importance(occurrences=1, positives=2, attribution=1)},
    ],
    ids=lambda settings_of: next(iter(settings_of)),
)
def test_tables_of_every_kind_are_trained_by_bags_as_by_rows(settings_of: dict[str, object]) -> None:
    """The same gradients, spread to rows beforehand, with counts and positives: the same bytes and scores."""
    rng = np.random.default_rng(0)
    by_bags, by_rows = Shard(0), Shard(0)
    for one in (by_bags, by_rows):
        new_table(one, **{"optimizer": ps.Adagrad(lr=0.1), "initializer": ps.Normal(), **settings_of})
    for _ in range(20):
        ids_U = rng.permutation(60)[:15]
        positions_P = np.concatenate([rng.permutation(15), rng.integers(0, 15, 25)]).astype(np.int32)
        bags = Bags(np.arange(0, 41, 5), positions_P)
        counts_U = np.bincount(positions_P, minlength=15).astype(np.uint32)
        positives_U = (counts_U // 2).astype(np.uint32)
        grads = rng.standard_normal((8, DIM), np.float32)
        grads_UD, used_U = np.zeros((15, DIM), np.float32), np.zeros(15, np.bool_)
        reference.spread(grads, bags.starts_K, positions_P, np.arange(8), grads_UD, used_U)
        of_rows = [TableIds("t", ids_U, counts_U)]
        push(by_rows, of_rows, Gradients("t", [grads_UD], positives_U))
        of_bags = [TableIds("t", ids_U, counts_U, bags)]
        push(by_bags, of_bags, Gradients("t", [], positives_U, NOTHING, 15, BagGradients(8, DIM, [grads])))
        sums_BD, rows_UD = np.empty((8, DIM), np.float32), read_target(by_rows, of_rows)[0]
        reference.pool(rows_UD, bags.starts_K, positions_P, sums_BD)
        assert read_target(by_bags, of_bags)[0].tobytes() == sums_BD.tobytes()
    pages = [one.export_page("t", 0, 1000) for one in (by_bags, by_rows)]
    assert len(pages[0].ids_N)
    assert (pages[0].ids_N == pages[1].ids_N).all()
    assert (pages[0].scores_N == pages[1].scores_N).all()
    assert read(by_bags, "t", range(60)).tobytes() == read(by_rows, "t", range(60)).tobytes()
    by_bags.close()
    by_rows.close()
