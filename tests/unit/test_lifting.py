"""Rows of a tensor-train table that are lifted out of the cores and folded back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ps
from ps.errors import InvalidArgument, ResourceExhausted
from ps.kernels.ranking import score
from ps.policy import lifting
from ps.shard import Shard
from ps.storage.budget.budget import RamBudget
from ps.table.cold.cores import cores_of, shape_of
from ps.table.table import Table
from ps.tensor_train.contract import one_by_one
from tests.unit.shard.helpers import new_table, push_ids, read
from tests.waiting import until

DIM = 8


def config(rows: int = 200, **settings: Any) -> ps.TableConfig:
    cold = {"rows": rows, "ranks": 4, "hot_rows": 10, "lift_after": 1, "fold_tolerance": 0.5}
    cold |= {key: settings.pop(key) for key in list(settings) if key not in ps.TableConfig.model_fields}
    table: dict[str, Any] = {"name": "t", "dim": DIM, "optimizer": ps.SGD(lr=0.1), "half_life_pushes": 64}
    return ps.TableConfig(**{**table, **settings}, cold=ps.TensorTrain(**cold))


def look(table: Table, ids: Any) -> np.ndarray:
    ids_N = np.asarray(ids, np.int64)
    out_ND = np.empty((len(ids_N), table.config.dim), np.float32)
    table.lookup(ids_N, table.find(ids_N), out_ND)
    return out_ND


def push(table: Table, ids: Any, grads_ND: np.ndarray) -> np.ndarray:
    """Which of the ids have a row of their own now."""
    ids_N = np.asarray(ids, np.int64)
    slots_N = table.find(ids_N)
    table.reserve.create_admitted(ids_N, slots_N, None)
    table.writes.plan_push(ids_N, slots_N, None, [grads_ND.astype(np.float32)]).carry_out()
    return table.find(ids_N) >= 0


def own(table: Table) -> set[int]:
    """Ids with a row of their own, in RAM."""
    slots_N = np.flatnonzero(table.ram.marks_S[: table.ram.slots_end] & score.USED)
    return set(table.ram.ids_S[slots_N].tolist())


class Folds:
    """What is folded, as it happens."""

    def __init__(self, table: Table) -> None:
        self.last: list[tuple[np.ndarray, np.ndarray]] = []
        cores = table.cold._cores
        assert cores is not None
        fold = cores.fold

        def watched(ids_N: np.ndarray, rows_ND: np.ndarray) -> Any:
            self.last.append((ids_N.copy(), rows_ND.copy()))
            return fold(ids_N, rows_ND)

        cores.fold = watched  # type: ignore[method-assign]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    hot_rows=st.integers(0, 12),
    tolerance=st.sampled_from([1e-3, 0.05, 0.5, 5.0]),
    ranks=st.sampled_from([1, 4, 8]),
    cores=st.sampled_from([2, 3, 4]),
    index=st.sampled_from(["dense", "hash"]),
    lr=st.sampled_from([1e-4, 0.1]),
)
def test_no_row_that_was_demoted_is_worse_than_the_tolerance_without_being_exact(
    seed: int, hot_rows: int, tolerance: float, ranks: int, cores: int, index: str, lr: float
) -> None:
    table = Table(
        config(
            **{"hot_rows": hot_rows, "fold_tolerance": tolerance, "ranks": ranks, "cores": cores, "index": index},
            optimizer=ps.RowwiseAdagrad(lr=lr),
        )
    )
    folds, rng = Folds(table), np.random.default_rng(seed)
    for _ in range(30):
        folds.last.clear()
        ids_N = rng.choice(200, rng.integers(1, 40), replace=False)
        push(table, ids_N, rng.standard_normal((len(ids_N), DIM)))
        own_ids = own(table)
        for folded_N, rows_ND in folds.last:
            read_ND = look(table, folded_N)
            for id_, row_D, read_D in zip(folded_N.tolist(), rows_ND, read_ND, strict=True):
                if id_ in own_ids:
                    assert read_D.tobytes() == row_D.tobytes()
                else:
                    assert np.linalg.norm(read_D - row_D) <= tolerance * np.linalg.norm(row_D) * (1 + 1e-4)
        loose = np.flatnonzero(table.ram.marks_S[: table.ram.slots_end] & score.STAYS)
        assert len(loose) <= int(lifting.MOST * hot_rows)
        assert len(own_ids) == len(table)


def skewed(rng: np.random.Generator, n: int = 30) -> np.ndarray:
    """Unique ids below 200, small ones more often."""
    return np.unique(np.minimum(rng.zipf(1.2, n) - 1, 199))


def trained(pushes: int = 150, lr: float = 1e-3, **settings: Any) -> Table:
    table, rng = Table(config(optimizer=ps.SGD(lr=lr), **settings)), np.random.default_rng(0)
    for _ in range(pushes):
        ids_N = skewed(rng)
        push(table, ids_N, rng.standard_normal((len(ids_N), DIM)))
    return table


def test_rows_are_folded_where_the_cores_can_have_them_and_kept_where_not() -> None:
    """Both happen: the tests above and those of the shard show something."""
    near, far = trained(fold_tolerance=0.5).stats(), trained(fold_tolerance=1e-6).stats()
    assert near["rows_folded"] > 20
    assert 0 < near["fold_error"] / near["rows_folded"] <= near["largest_fold_error"] <= 0.5
    assert far["rows_kept"] > 20
    assert far["rows_folded"] == far["fold_error"] == 0


def test_a_row_reads_the_same_just_before_and_after_it_is_lifted_and_is_trained_by_itself_from_then_on() -> None:
    table = Table(config(optimizer=ps.SGD(lr=0.5)))
    ids_N, zeros_ND = np.arange(3), np.zeros((3, DIM))
    before_ND = look(table, ids_N)
    assert push(table, ids_N, zeros_ND).all()
    assert look(table, ids_N).tobytes() == before_ND.tobytes()
    others_ND = look(table, np.arange(3, 200))
    push(table, ids_N, np.ones((3, DIM)))
    np.testing.assert_array_equal(look(table, ids_N), before_ND - np.float32(0.5))
    assert look(table, np.arange(3, 200)).tobytes() == others_ND.tobytes()


def test_an_id_is_lifted_by_the_push_that_makes_it_frequent_enough() -> None:
    table = Table(config(lift_after=3))
    ids_N = np.array([7])
    assert [bool(push(table, ids_N, np.ones((1, DIM)))[0]) for _ in range(4)] == [False, False, True, True]
    assert table.stats()["rows_in_cores"] == 2
    assert table.stats()["rows_refused"] == 0


def test_the_most_frequent_ids_have_the_rows() -> None:
    table = trained(pushes=400, hot_rows=20, half_life_pushes=6400)
    assert own(table) >= set(range(10))
    assert len(table) - table.stats()["rows_kept"] <= 30


def test_more_frequent_ids_take_the_place_of_others() -> None:
    table, rng = Table(config(hot_rows=5, lift_after=2, fold_tolerance=1e9)), np.random.default_rng(0)
    for first in (0, 100):
        for _ in range(200):
            ids_N = first + rng.choice(5, 3, replace=False)
            push(table, ids_N, 1e-3 * rng.standard_normal((3, DIM)))
        assert own(table) >= set(range(first, first + 5))
    assert len(table) <= 7


def test_gradients_of_ids_without_a_row_train_the_cores_as_they_are_trained_alone() -> None:
    """Also the counts, and what a push says of positives, change nothing of that."""
    settings = config(hot_rows=0, index="hash", rows=50, optimizer=ps.Adagrad(lr=0.1))
    table = Table(settings)
    cores, rng = cores_of(settings, one_by_one, RamBudget(ps.ServiceConfig())), np.random.default_rng(1)
    cores.draw()
    for step in range(1, 6):
        ids_N = rng.choice(2**62, 40, replace=False) - 2**61
        grads_ND = rng.standard_normal((40, DIM), np.float32)
        slots_N = table.find(ids_N)
        table.reserve.create_admitted(ids_N, slots_N, np.full(40, 9, np.uint32))
        table.writes.plan_push(
            ids_N, slots_N, np.full(40, 9, np.uint32), [grads_ND[:7], grads_ND[7:]], np.ones(40, np.uint32)
        ).carry_out()
        cores.apply(ids_N, grads_ND, step)
        expected_ND = np.empty((40, DIM), np.float32)
        cores.fill(ids_N, expected_ND)
        assert look(table, ids_N).tobytes() == expected_ND.tobytes()
    assert len(table) == 0


def test_rows_begin_as_varied_as_those_of_a_table_without_cores() -> None:
    for initializer in (ps.Uniform(low=-0.3, high=0.3), ps.Normal(std=0.3)):
        table = Table(config(rows=5000, ranks=16, dim=16, initializer=initializer))
        variance = 0.3**2 / (3 if isinstance(initializer, ps.Uniform) else 1)
        assert look(table, np.arange(5000)).var() == pytest.approx(variance, rel=0.1)


def test_ids_that_dense_cores_do_not_stand_for_are_refused_and_nothing_is_lost() -> None:
    shard = Shard(0)
    made = config(rows=100)
    shard.create_table(made)
    for bad in (-1, 100, 2**62):
        with pytest.raises(InvalidArgument, match=rf"ids 0 to 99; got {bad}: raise cold.rows, or take cold.index"):
            read(shard, "t", [5, bad])
    assert read(shard, "t", [0, 99]).any()
    shard.close()


def test_cores_that_do_not_fit_are_refused_and_leave_no_table() -> None:
    shard = Shard(0, ps.ServiceConfig(memory={"ram_bytes": 64 << 20}))
    with pytest.raises(ResourceExhausted, match=r"bytes for the cores of table t and its hot_rows, memory\.ram_byt"):
        shard.create_table(config(rows=10**9, ranks=64, dim=64))
    with pytest.raises(ResourceExhausted, match=r"bytes for the cores of table t and its hot_rows, memory\.ram_byt"):
        shard.create_table(config(hot_rows=10**6))
    assert not shard.tables
    shard.create_table(config(rows=10**6))
    shard.close()


def test_the_room_of_cores_is_given_back_with_the_table() -> None:
    budget = RamBudget(ps.ServiceConfig(memory={"ram_bytes": 64 << 20}))
    before = budget.for_slots(1)
    table = Table(config(), budget=budget)
    assert budget.for_slots(1) < before
    table.close()
    assert budget.for_slots(1) == before


def test_rows_that_cannot_be_folded_go_to_disk_and_come_back_exactly(tmp_path: Any) -> None:
    """Rows that may still be folded stay in RAM, whatever they are worth."""
    shard = Shard(0, ps.ServiceConfig(disk={"path": tmp_path}))
    new_table(
        shard,
        dim=DIM,
        half_life_pushes=64,
        initializer=ps.Uniform(),
        optimizer=ps.SGD(lr=0.1),
        cold=ps.TensorTrain(rows=500, ranks=4, hot_rows=20, lift_after=1, fold_tolerance=1e-6),
    )
    table, rng = shard.tables["t"], np.random.default_rng(0)
    folds, expected = Folds(table), {}
    for start in range(0, 500, 10):
        ids_N = np.arange(start, start + 10)
        grads_ND = rng.standard_normal((10, DIM), np.float32)
        before_ND = read(shard, "t", ids_N)
        push_to(shard, ids_N, grads_ND)
        expected |= dict(zip(ids_N.tolist(), before_ND - np.float32(0.1) * grads_ND, strict=True))
    kept_N = np.concatenate([ids_N for ids_N, _ in folds.last])
    until(lambda: shard.stats()["tables"]["t"]["rows"]["disk"] > 100)
    stats = shard.stats()["tables"]["t"]
    assert stats["rows_kept"] == len(kept_N) > 100
    assert stats["rows"]["hot"] <= int(lifting.MOST * 20) + 64
    read_ND = read(shard, "t", kept_N)
    assert all(row_D.tobytes() == expected[id_].tobytes() for id_, row_D in zip(kept_N.tolist(), read_ND, strict=True))
    shard.close()


def test_the_shape_is_that_of_the_configuration() -> None:
    cold = ps.TensorTrain(rows=1000, ranks=(2, 3), p_shapes=(10, 10, 11), q_shapes=(2, 2, 4))
    shape = shape_of(16, cold)
    assert (shape.p, shape.q, shape.ranks) == ((10, 10, 11), (2, 2, 4), (2, 3))
    assert shape.parameters == 10 * 4 + 10 * 12 + 11 * 12


def push_to(shard: Shard, ids_N: np.ndarray, grads_ND: np.ndarray) -> None:
    push_ids(shard, "t", ids_N.tolist(), grads_ND)
