"""Rows that go to disk and come back: a shard with a disk holds the same bytes as one without, whatever the timing.

Also where rows change their precision: how far a shard has come with narrowing them shows nowhere.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import ps
from ps.shard import Shard, StepRef, TableIds
from ps.shard.requests import Wanted
from ps.table.cold.fp16 import Fp16Cold
from tests.unit.shard.helpers import DIM, a_write, grads_of, new_table, push, read_target

IDS = 40
some_ids = st.lists(st.integers(-IDS // 2, IDS // 2), min_size=1, max_size=12, unique=True)
seeds = st.integers(0, 2**32)


class Swapping(RuleBasedStateMachine):
    """One history for two shards; only the first one swaps and prepares, and their sweeps are of different speed."""

    table: ClassVar[dict[str, Any]] = {"optimizer": ps.Adam(lr=0.1)}
    """Of what the table is made, and what rows are dropped by."""

    @initialize(
        admission=st.sampled_from([ps.Always(), ps.CountThreshold(min_count=2), ps.Probability(p=0.5)]),
        sweep_slots=st.sampled_from([1, 5, 1 << 16]),
    )
    def start(self, admission: Any, sweep_slots: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        config = ps.ServiceConfig(disk={"path": Path(self.folder.name)}, performance={"disk_cache_bytes": 1 << 20})
        self.swapping, self.plain = Shard(0, config), Shard(0)
        for shard in (self.swapping, self.plain):
            new_table(
                shard,
                initializer=ps.Normal(),
                importance=ps.Importance(attribution=0.5, recency=0.1, external=2),
                **{"admission": admission, "half_life_pushes": 64, "swap_fraction": 0.7, **self.table},
            )
            cold = shard.tables["t"].cold
            if isinstance(cold, Fp16Cold):
                cold.sweep_slots = sweep_slots if shard is self.swapping else 2
        self.steps: dict[int, list[int]] = {}
        self.next_step = 1

    @rule(ids=some_ids)
    def prepare(self, ids: list[int]) -> None:
        self.swapping.prepare(StepRef(1, self.next_step), self._named(ids))
        self.steps[self.next_step] = ids
        self.next_step += 1

    @rule(ids=some_ids, seed=seeds)
    def push(self, ids: list[int], seed: int) -> None:
        self._push(self._named(ids), self._named(ids), seed)

    @rule(seed=seeds, which=st.randoms(use_true_random=False))
    def push_a_prepared_step(self, seed: int, which: Any) -> None:
        if self.steps:
            step = which.choice(sorted(self.steps))
            self._push(StepRef(1, step), self._named(self.steps.pop(step)), seed)

    @rule(which=st.randoms(use_true_random=False))
    def pull_a_prepared_step(self, which: Any) -> None:
        if self.steps:
            step = which.choice(sorted(self.steps))
            self._same_rows(StepRef(1, step), self._named(self.steps[step]))

    @rule(ids=st.lists(st.integers(-IDS, IDS), min_size=1, max_size=20))
    def pull(self, ids: list[int]) -> None:
        self._same_rows(self._named(ids), self._named(ids))
        heads = [shard.pull(self._named(ids), Wanted(exists=True)).head() for shard in (self.swapping, self.plain)]
        assert heads[0].tables[0].exists_N.tolist() == heads[1].tables[0].exists_N.tolist()

    @rule(ids=some_ids, seed=seeds, how=st.sampled_from(["upsert", "assign", "remove", "report_importance"]))
    def write(self, ids: list[int], seed: int, how: str) -> None:
        values = np.random.default_rng(seed).standard_normal((len(ids), DIM), np.float32)
        arguments = {"remove": [], "report_importance": [np.abs(values[:, 0])]}.get(how, [[values]])
        named = self._named(ids)[0]
        results = [getattr(shard, how)(a_write(), named, *arguments) for shard in (self.swapping, self.plain)]
        assert results[0].existed_N.tolist() == results[1].existed_N.tolist()

    @rule(share=st.floats(0, 1), rebuild=st.booleans())
    def give_back(self, share: float, rebuild: bool) -> None:
        """As for another table that needs memory: rows move to other slots, whoever holds them."""
        table = self.swapping.tables["t"]

        def run() -> None:
            free = table.store.free_slots()
            table.store.shrink(len(table.ram) + int(share * free), rebuild)

        self.swapping.engine.run(run)

    @invariant()
    def same_size(self) -> None:
        if hasattr(self, "plain"):
            tables = [shard.tables["t"] for shard in (self.swapping, self.plain)]
            assert len(tables[0]) == len(tables[1]) <= self.table.get("max_rows_per_shard", 2 * IDS)
            assert [table.counts.rows_evicted for table in tables] == [tables[0].counts.rows_evicted] * 2
            assert [table.counts.rows_expired for table in tables] == [tables[0].counts.rows_expired] * 2
            folds = [
                (counts.rows_folded, counts.rows_kept, counts.fold_error, counts.largest_fold_error)
                for counts in (table.counts for table in tables)
            ]
            assert folds[0] == folds[1]

    def teardown(self) -> None:
        if hasattr(self, "plain"):
            exported = [self._exported(shard) for shard in (self.swapping, self.plain)]
            assert exported[0] == exported[1]
            self.pull(list(range(-IDS, IDS)))
            everything = self._named(range(-IDS, IDS))
            self.swapping.prepare(StepRef(1, 10**6), everything)
            held = [self._whole_rows(shard, everything[0].ids_N) for shard in (self.swapping, self.plain)]
            assert held[0] == held[1]
            for shard in (self.swapping, self.plain):
                shard.close()
            self.folder.cleanup()

    def _named(self, ids: Any) -> list[TableIds]:
        ids_N = np.array(ids, np.int64)
        return [TableIds("t", ids_N, (1 + ids_N % 7 * (ids_N % 5)).astype(np.uint32))]

    def _push(self, swapping: Any, plain: Any, seed: int) -> None:
        (named,) = plain
        grads = grads_of("t", np.random.default_rng(seed).standard_normal((len(named.ids_N), DIM), np.float32))
        push(self.swapping, swapping, grads)
        push(self.plain, plain, grads)

    def _same_rows(self, swapping: Any, plain: Any) -> None:
        left, right = read_target(self.swapping, swapping)[0], read_target(self.plain, plain)[0]
        assert left.tobytes() == right.tobytes()

    def _exported(self, shard: Shard) -> dict[int, tuple[bytes, float]]:
        found: dict[int, tuple[bytes, float]] = {}
        cursor = 0
        while True:
            page = shard.export_page("t", cursor, 7)
            ids_N, rows_ND, scores_N, cursor = page.ids_N, page.values_ND, page.scores_N, page.next_cursor
            for id_, row_D, score in zip(ids_N.tolist(), rows_ND, scores_N.tolist(), strict=True):
                assert id_ not in found, "exported twice"
                found[id_] = row_D.tobytes(), score
            if not cursor:
                return found

    def _whole_rows(self, shard: Shard, ids_N: np.ndarray) -> dict[int, tuple[bytes, bytes]]:
        """Value, state and statistics of every row, all of them in RAM by now."""
        table = shard.tables["t"]
        found = shard.engine.run(lambda: table.cold.as_seen(table.ram.read(ids_N)))
        return {
            int(id_): (row_B.tobytes(), score.tobytes() + stamp.tobytes())
            for records in found
            for id_, row_B, score, stamp in zip(
                records.ids_N, records.rows_NB, records.scores_N, records.stamps_N, strict=True
            )
        }


BOUNDS = {"max_rows_per_shard": 16, "expire_after_pushes": 16}


class Evicting(Swapping):
    """The same, where rows are evicted for want of room and by age."""

    table: ClassVar[dict[str, Any]] = {"optimizer": ps.Adam(lr=0.1), **BOUNDS}


class SwappingCold(Swapping):
    """Most rows are cold."""

    table: ClassVar[dict[str, Any]] = {"optimizer": ps.Adam(lr=0.1), "cold": ps.Fp16(hot_fraction=0.3)}


class SwappingRowwise(Swapping):
    """Cold rows have less state than hot ones."""

    table: ClassVar[dict[str, Any]] = {
        "optimizer": ps.Adagrad(lr=0.1),
        "cold": ps.Fp16(hot_fraction=0.5, state="rowwise"),
    }


class EvictingCold(Swapping):
    """Both."""

    table: ClassVar[dict[str, Any]] = {**SwappingCold.table, **BOUNDS}


TRAIN = ps.TensorTrain(rows=50, index="hash", ranks=2, hot_rows=5, lift_after=1, fold_tolerance=0.6)


class SwappingTrain(Swapping):
    """Rows that are not frequent are in the cores, if they can be folded: those of this machine hardly ever can."""

    table: ClassVar[dict[str, Any]] = {"optimizer": ps.Adagrad(lr=0.1), "cold": TRAIN, "admission": ps.Always()}


class EvictingTrain(Swapping):
    """About half of them can. Rows that are dropped read as the cores say."""

    table: ClassVar[dict[str, Any]] = {**SwappingTrain.table, **BOUNDS, "optimizer": ps.SGD(lr=1e-3)}


@pytest.mark.parametrize(
    "machine", [Swapping, SwappingCold, SwappingRowwise, Evicting, EvictingCold, SwappingTrain, EvictingTrain]
)
def test_a_disk_shows_nowhere(machine: type[Swapping]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
