"""Prepared steps: a lease in time and number, and slots that are never trusted beyond it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import ps
from ps.errors import StepNotFound, TableNotFound
from ps.shard import Shard, StepRef
from tests.clocks import ByHand
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table, push, push_ids, read, read_target


@pytest.fixture
def clock() -> ByHand:
    return ByHand()


@pytest.fixture
def shard(clock: ByHand) -> Iterator[Shard]:
    running = Shard(0, ps.ServiceConfig(performance={"prepare_ttl_s": 10.0, "max_steps": 3}), clock)
    new_table(running)
    yield running
    running.close()


def held(shard: Shard) -> object:
    return shard.stats()["steps_held"]


def ones(n: int) -> np.ndarray:
    return np.ones((n, DIM), np.float32)


def test_a_step_is_pulled_often_and_pushed_once(shard: Shard) -> None:
    ref = StepRef(1, 1)
    shard.prepare(ref, [ids_of("t", [3, 1, 2])])
    for _ in range(2):
        np.testing.assert_array_equal(read_target(shard, ref)[0], np.zeros((3, DIM)))
    push(shard, ref, grads_of("t", [[1] * DIM, [2] * DIM, [3] * DIM]))
    np.testing.assert_array_equal(read(shard, "t", [1, 2, 3])[:, 0], [-2, -3, -1])
    with pytest.raises(StepNotFound, match="step 1 of worker 0x1"):
        read_target(shard, ref)
    with pytest.raises(StepNotFound):
        push(shard, ref, grads_of("t", ones(3)))


def test_a_step_expires_after_its_lease_and_not_before(shard: Shard, clock: ByHand) -> None:
    shard.prepare(StepRef(1, 1), [ids_of("t", [1])])
    clock.now += 9.9
    read_target(shard, StepRef(1, 1))
    clock.now += 0.2
    with pytest.raises(StepNotFound, match="expired"):
        read_target(shard, StepRef(1, 1))
    assert shard.stats()["steps_expired"] == 1
    assert shard.watch.memory_usage()["steps"] == 0


def test_the_oldest_of_too_many_steps_is_forgotten(shard: Shard) -> None:
    for step in range(1, 5):
        shard.prepare(StepRef(1, step), [ids_of("t", [step])])
    assert held(shard) == 3
    with pytest.raises(StepNotFound):
        read_target(shard, StepRef(1, 1))
    read_target(shard, StepRef(1, 4))


def test_preparing_a_step_again_replaces_it_and_renews_its_lease(shard: Shard, clock: ByHand) -> None:
    shard.prepare(StepRef(1, 1), [ids_of("t", [1])])
    clock.now += 8
    shard.prepare(StepRef(1, 1), [ids_of("t", [1, 2])])
    clock.now += 8
    assert len(read_target(shard, StepRef(1, 1))[0]) == 2
    assert held(shard) == 1


def test_steps_of_two_workers_are_two_steps(shard: Shard) -> None:
    shard.prepare(StepRef(1, 1), [ids_of("t", [1])])
    with pytest.raises(StepNotFound):
        read_target(shard, StepRef(2, 1))


def test_a_failing_prepare_holds_nothing(shard: Shard) -> None:
    with pytest.raises(TableNotFound):
        shard.prepare(StepRef(1, 1), [ids_of("t", [1]), ids_of("absent", [1])])
    assert held(shard) == 0


def test_steps_of_a_dropped_table_are_gone_even_if_it_comes_back(shard: Shard) -> None:
    new_table(shard, "other")
    shard.prepare(StepRef(1, 1), [ids_of("t", [1]), ids_of("other", [1])])
    shard.prepare(StepRef(1, 2), [ids_of("other", [1])])
    shard.drop_table("t")
    new_table(shard, "t", dim=8)
    with pytest.raises(StepNotFound):
        read_target(shard, StepRef(1, 1))
    assert len(read_target(shard, StepRef(1, 2))) == 1


def test_held_steps_are_counted_in_bytes(shard: Shard) -> None:
    shard.prepare(StepRef(1, 1), [ids_of("t", range(100), range(100))])
    assert shard.watch.memory_usage()["steps"] == 100 * (8 + 4 + 8)


# a prefetch that evicts a row in use: the slot of a prepared id is given to another id before the push


@pytest.mark.parametrize("pull_first", [False, True])
def test_a_slot_reused_between_prepare_and_push_is_not_written(shard: Shard, pull_first: bool) -> None:
    push_ids(shard, "t", [1, 2], ones(2))
    ref = StepRef(1, 1)
    shard.prepare(ref, [ids_of("t", [1, 2])])
    if pull_first:
        read_target(shard, ref)
    slot_of_1 = int(shard.tables["t"].find(np.array([1]))[0])
    shard.remove(a_write(), ids_of("t", [1]))
    shard.upsert(a_write(), ids_of("t", [77]), [np.full((1, DIM), 50, np.float32)])
    assert int(shard.tables["t"].find(np.array([77]))[0]) == slot_of_1, "the test is about a reused slot"
    push(shard, ref, grads_of("t", [[10] * DIM, [20] * DIM]))
    np.testing.assert_array_equal(read(shard, "t", [77]), np.full((1, DIM), 50), "the other id's row is untouched")
    np.testing.assert_array_equal(read(shard, "t", [1, 2])[:, 0], [-10, -21])


def test_a_slot_reused_between_prepare_and_pull_is_not_read(shard: Shard) -> None:
    push_ids(shard, "t", [1], ones(1))
    shard.prepare(StepRef(1, 1), [ids_of("t", [1])])
    shard.remove(a_write(), ids_of("t", [1]))
    shard.upsert(a_write(), ids_of("t", [77]), [np.full((1, DIM), 50, np.float32)])
    np.testing.assert_array_equal(read_target(shard, StepRef(1, 1))[0], np.zeros((1, DIM)))


def test_a_row_removed_and_made_again_between_prepare_and_push_is_updated_once(shard: Shard) -> None:
    push_ids(shard, "t", [1, 2], ones(2))
    shard.prepare(StepRef(1, 1), [ids_of("t", [1, 2])])
    shard.remove(a_write(), ids_of("t", [1, 2]))
    push_ids(shard, "t", [2, 3, 1], ones(3) * 5)  # other slots than before
    push(shard, StepRef(1, 1), grads_of("t", ones(2)))
    np.testing.assert_array_equal(read(shard, "t", [1, 2, 3])[:, 0], [-6, -6, -5])


def test_ids_without_a_row_at_prepare_are_found_when_another_push_made_them(shard: Shard) -> None:
    shard.prepare(StepRef(1, 1), [ids_of("t", [1, 2])])
    push_ids(shard, "t", [2], ones(1))
    push(shard, StepRef(1, 1), grads_of("t", ones(2)))
    np.testing.assert_array_equal(read(shard, "t", [1, 2])[:, 0], [-1, -2])
    assert len(shard.tables["t"]) == 2


def test_rows_looked_up_ahead_of_a_push_are_looked_up_again_after_a_removal(shard: Shard) -> None:
    push_ids(shard, "t", [1], ones(1))
    ahead = shard.look_ahead([ids_of("t", [1])])
    shard.remove(a_write(), ids_of("t", [1]))
    shard.upsert(a_write(), ids_of("t", [77]), [np.full((1, DIM), 50, np.float32)])
    shard.push(a_write(), ahead, [grads_of("t", ones(1))])
    np.testing.assert_array_equal(read(shard, "t", [77, 1])[:, 0], [50, -1])


def test_rows_looked_up_ahead_of_a_push_are_looked_up_again_when_the_table_is_a_new_one(shard: Shard) -> None:
    push_ids(shard, "t", [1], ones(1))
    ahead = shard.look_ahead([ids_of("t", [1])])
    shard.drop_table("t")
    new_table(shard)
    shard.push(a_write(), ahead, [grads_of("t", ones(1) * 3)])
    np.testing.assert_array_equal(read(shard, "t", [1]), -3 * ones(1))
