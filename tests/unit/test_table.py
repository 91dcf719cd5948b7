"""A shard's table against the obvious implementation: a dict of rows, updated by the numpy specification."""

from __future__ import annotations

import itertools
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import ps
from ps.arrays import Rows
from ps.initializer import RowInitializer
from ps.kernels.reference.rows import init as init_specification
from ps.shard import Gradients, Shard, StepRef, TableIds
from ps.shard.ledger import WriteId
from ps.shard.requests import Wanted
from ps.table.table import Table
from tests.optimizers import EVERY, specified
from tests.unit.shard.helpers import whole_rows

F32 = np.float32
STEPS = 25
LAST_BIT = 2.0**-18  # of a score
DIM = 9  # one more than the lanes of a row-wise mean
IDS = [-(2**63), -(2**32) - 5, -5, -1, 0, 1, 2, 3, 5, 2**32 - 5, 2**32 + 5, 2**63 - 1]


some_ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=len(IDS), unique=True)
any_ids = st.lists(st.sampled_from(IDS), max_size=20)
seeds = st.integers(0, 2**32 - 1)


class DictTable:
    """The specification: one numpy row an id, nothing shared."""

    def __init__(self, config: ps.TableConfig, kind: str) -> None:
        optimizer = EVERY[kind]
        self.state_width, self.start, self.update = (
            optimizer.state_width(DIM),
            optimizer.initial_state,
            specified(optimizer),
        )
        self.init = RowInitializer.of(config)
        self.rows: dict[int, Rows] = {}
        self.frequency: dict[int, int] = {}
        self.pushes = 0

    def initial(self, id_: int) -> Rows:
        row = np.empty((1, DIM), F32)
        init = self.init
        init_specification.init_rows(np.array([id_]), init.seed, init.kind, init.a, init.b, row)
        return row[0]

    def create(self, id_: int) -> None:
        if id_ not in self.rows:
            self.rows[id_] = np.concatenate([self.initial(id_), np.full(self.state_width, self.start, F32)])
            self.frequency[id_] = 0

    def push(self, ids: list[int], grads: Rows, counts: Rows | None) -> None:
        self.pushes += 1
        for i, id_ in enumerate(ids):
            self.create(id_)
            self.update(self.rows[id_][None], np.array([0]), grads[i : i + 1], self.pushes)
            self.frequency[id_] += 1 if counts is None else int(counts[i])

    def pull(self, ids: list[int]) -> Rows:
        return np.array([self.rows[i][:DIM] if i in self.rows else self.initial(i) for i in ids], F32).reshape(-1, DIM)

    def upsert(self, ids: list[int], values: Rows) -> list[bool]:
        existed = [id_ in self.rows for id_ in ids]
        for id_, value in zip(ids, values, strict=True):
            if id_ not in self.rows:
                self.create(id_)
                self.frequency[id_] = 1
            self.rows[id_][:DIM] = value
        return existed

    def assign(self, ids: list[int], values: Rows) -> list[bool]:
        existed = [id_ in self.rows for id_ in ids]
        self.upsert([i for i, e in zip(ids, existed, strict=True) if e], values[existed])
        return existed

    def remove(self, ids: list[int]) -> list[bool]:
        return [self.rows.pop(id_, None) is not None for id_ in ids]


class TableMachine(RuleBasedStateMachine):
    """Every operation on both, and after each the same contents to the bit."""

    kind = "sgd"

    @initialize(seed=st.integers(0, 2**63 - 1))
    def start(self, seed: int) -> None:
        optimizer = EVERY[self.kind]
        self.config = ps.TableConfig(
            **{"name": "t", "dim": DIM, "optimizer": optimizer, "seed": seed},
            initializer=ps.Uniform(low=-1, high=2),
            importance=ps.Importance(frequency=0, occurrences=1),
        )
        self.shard = Shard(0)
        self.shard.create_table(self.config)
        self.model = DictTable(self.config, self.kind)
        self.sequences = itertools.count(1)
        self.last: tuple[WriteId, list[TableIds], list[Gradients]] | None = None

    def write(self) -> WriteId:
        return WriteId(1, next(self.sequences), 0)

    @rule(ids=some_ids, seed=seeds, counted=st.booleans(), prepared=st.booleans(), removed=some_ids, cut=st.integers(0))
    def push(self, ids: list[int], seed: int, counted: bool, prepared: bool, removed: list[int], cut: int) -> None:
        """By ids, or by a step between whose prepare and push other rows are removed."""
        rng = np.random.default_rng(seed)
        grads = rng.standard_normal((len(ids), DIM), np.float32)
        counts = rng.integers(0, 100, len(ids)).astype(np.uint32) if counted else None
        named = [TableIds("t", np.array(ids), counts)]
        cut %= len(ids)
        sent = [Gradients("t", [block for block in (grads[:cut], grads[cut:]) if len(block)])]
        if prepared:
            self.shard.prepare(StepRef(1, 1), named)
            self.remove(removed)
        write = self.write()
        self._push(write, StepRef(1, 1) if prepared else named, sent)
        self.model.push(ids, grads, counts)
        self.last = write, named, sent

    def _push(self, write: WriteId, target: Any, sent: list[Gradients]) -> Any:
        with self.shard.look_ahead(target) as ahead:
            return self.shard.push(write, ahead, sent)

    @rule()
    def repeat_the_last_push(self) -> None:
        if self.last:
            write, named, sent = self.last
            assert self._push(write, named, sent).repeated

    @rule(ids=some_ids, seed=seeds)
    def upsert(self, ids: list[int], seed: int) -> None:
        values = np.random.default_rng(seed).standard_normal((len(ids), DIM), np.float32)
        found = self.shard.upsert(self.write(), TableIds("t", np.array(ids)), [values])
        assert found.existed_N.tolist() == self.model.upsert(ids, values)

    @rule(ids=some_ids, seed=seeds)
    def assign(self, ids: list[int], seed: int) -> None:
        values = np.random.default_rng(seed).standard_normal((len(ids), DIM), np.float32)
        found = self.shard.assign(self.write(), TableIds("t", np.array(ids)), [values])
        assert found.existed_N.tolist() == self.model.assign(ids, values)

    @rule(ids=some_ids)
    def remove(self, ids: list[int]) -> None:
        found = self.shard.remove(self.write(), TableIds("t", np.array(ids)))
        assert found.existed_N.tolist() == self.model.remove(ids)

    @rule(ids=any_ids)
    def pull(self, ids: list[int]) -> None:
        stream = self.shard.pull([TableIds("t", np.array(ids, np.int64))], Wanted(exists=True))
        head = stream.head().tables[0]
        rows = np.concatenate([np.empty(0, F32), *stream]).reshape(-1, DIM)
        np.testing.assert_array_equal(rows, self.model.pull(ids))
        assert head.exists_N is not None
        assert head.exists_N.tolist() == [id_ in self.model.rows for id_ in ids]

    @rule(page=st.integers(1, 7))
    def export(self, page: int) -> None:
        found: dict[int, tuple[Rows, float]] = {}
        cursor = 0
        while True:
            found_page = self.shard.export_page("t", cursor, page)
            ids_N, rows_ND, scores_N = found_page.ids_N, found_page.values_ND, found_page.scores_N
            cursor = found_page.next_cursor
            for id_, row, score in zip(ids_N.tolist(), rows_ND, scores_N, strict=True):
                assert id_ not in found
                found[id_] = (row, float(score))
            if not cursor:
                break
        assert {id_: score for id_, (_, score) in found.items()} == pytest.approx(
            {id_: float(self.model.frequency[id_]) for id_ in self.model.rows}, rel=STEPS * LAST_BIT
        ), "but for the last bits: a write that adds nothing raises the score by one, so that it can be told"
        for id_, (row, _) in found.items():
            np.testing.assert_array_equal(row, self.model.rows[id_][:DIM])

    @invariant()
    def same_rows_and_state(self) -> None:
        if not hasattr(self, "shard"):
            return
        table = self.shard.tables["t"]
        assert len(table) == len(self.model.rows)
        ids = list(self.model.rows)
        held = whole_rows(table, np.array(ids, np.int64))
        for row, expected in zip(held, self.model.rows.values(), strict=True):
            np.testing.assert_array_equal(row, expected)

    def teardown(self) -> None:
        if hasattr(self, "shard"):
            self.shard.close()


@pytest.mark.parametrize("kind", EVERY)
def test_a_shard_is_a_dict_of_rows(kind: str) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        type(f"TableMachine_{kind}", (TableMachine,), {"kind": kind}),
        settings=settings(
            max_examples=60, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def table(**fields: Any) -> Table:
    return Table(ps.TableConfig(**{"name": "t", "dim": 4, **fields}))


def test_the_initial_value_depends_on_seed_name_and_id_and_on_nothing_else() -> None:
    def first_rows(**fields: Any) -> bytes:
        made = table(**fields)
        ids_N = np.array([1, 2])
        out_ND = np.empty((2, 4), np.float32)
        made.lookup(ids_N, made.find(ids_N), out_ND)
        made.close()
        return out_ND.tobytes()

    assert first_rows() == first_rows() == first_rows(optimizer=ps.Adam())
    assert len({first_rows(), first_rows(seed=1), first_rows(name="u")}) == 3


def test_a_row_removed_and_made_again_starts_anew_in_state_and_frequency() -> None:
    occurrences = ps.Importance(frequency=0, occurrences=1)
    made = table(optimizer=ps.Adagrad(lr=1.0), initializer=ps.Constant(), importance=occurrences)
    ids_N, grads = np.array([1]), np.ones((1, 4), np.float32)
    seen = []
    for _ in range(2):
        slots_N = made.find(ids_N)
        made.reserve.create_missing(ids_N, slots_N)
        made.writes.plan_push(ids_N, slots_N, np.array([5], np.uint32), [grads]).carry_out()
        records, _ = made.page(0, 100_000)
        seen.append(
            [records.ids_N.tolist(), records.rows_NB.tolist(), made.ranking.decayed(records.statistics_N2).tolist()]
        )
        made.writes.plan_removal(ids_N).carry_out()
    assert seen[0] == seen[1]
    assert seen[0][2] == [5.0]
    made.close()


def test_a_push_counts_the_ids_that_it_leaves_out_with_their_occurrences() -> None:
    made = table(admission=ps.CountThreshold(min_count=4), optimizer=ps.SGD(lr=1.0), initializer=ps.Constant())
    ids_N, counts_N, out_ND = np.array([7, 8]), np.array([5, 2], np.uint32), np.empty((2, 4), np.float32)
    found = []
    for _ in range(3):
        slots_N = made.find(ids_N)
        made.reserve.create_admitted(ids_N, slots_N, counts_N)
        made.writes.plan_push(ids_N, slots_N, counts_N, [np.ones((2, 4), np.float32)]).carry_out()
        made.lookup(ids_N, made.find(ids_N), out_ND)
        found.append((made.counts.rows_refused, out_ND[:, 0].tolist()))
    assert found == [(1, [-1, 0]), (1, [-2, -1]), (1, [-3, -2])], "two of the first push count with the second's two"
    made.close()


def test_scores_add_up_beyond_uint32() -> None:
    made = table(importance=ps.Importance(frequency=0, occurrences=1))
    ids_N, most = np.array([1]), np.array([2**32 - 1], np.uint32)
    for _ in range(2):
        slots_N = made.find(ids_N)
        made.reserve.create_missing(ids_N, slots_N)
        made.writes.plan_push(ids_N, slots_N, most, [np.ones((1, 4), np.float32)]).carry_out()
    assert made.ranking.decayed(made.page(0, 100_000)[0].statistics_N2).tolist() == [2.0**33]
    made.close()


def test_memory_usage_counts_what_rows_cost() -> None:
    made = table(dim=64, optimizer=ps.RowwiseAdagrad())
    ids_N = np.arange(50_000)
    made.writes.plan_upsert(ids_N, [np.zeros((len(ids_N), 64), np.float32)]).carry_out()
    used = made.memory_usage()["hot"]
    assert used["rows"] >= 50_000 * 65 * 4
    assert used["rows"] <= 50_000 * 65 * 4 + (2 << 20), "no more than a huge page is committed ahead"
    assert used["index"] >= 50_000 * 12
    assert used["metadata"] >= 50_000 * 16
    assert made.stats()["rows"] == {"hot": 50_000, "disk": 0}
    made.close()


@pytest.fixture
def large_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 1 TiB of RAM, as far as tables ask."""
    for module in ("ps.runtime.memory", "ps.storage.ram.rows", "ps.kernels.index.index"):
        monkeypatch.setattr(f"{module}.host_ram_bytes", lambda: 1 << 40)


def reserved_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


@pytest.mark.parametrize("cold", [None, ps.Fp16()])
@pytest.mark.parametrize("dim", [1, 16, 1024])
def test_thousands_of_tables_have_room_in_the_address_space_of_a_large_host(
    large_host: None, dim: int, cold: ps.Fp16 | None
) -> None:
    before = reserved_bytes()
    made = table(dim=dim, optimizer=ps.SGD(), cold=cold)
    assert (reserved_bytes() - before) * 2500 < 128 << 40
    made.close()
    assert reserved_bytes() - before < 1 << 30


@pytest.mark.parametrize("cold", [None, ps.Fp16(hot_fraction=0.3)])
def test_a_table_whose_arrays_move_holds_what_one_holds_whose_arrays_stay(
    monkeypatch: pytest.MonkeyPatch, cold: ps.Fp16 | None
) -> None:
    def filled(first_bytes: int) -> Table:
        monkeypatch.setattr("ps.runtime.memory.FIRST_BYTES", first_bytes)
        made, rng = table(dim=8, optimizer=ps.Adagrad(), cold=cold, half_life_pushes=64), np.random.default_rng(1)
        for push in range(40):
            ids_N = np.unique(rng.integers(0, 200 * (push + 1), 1000))
            slots_N = made.find(ids_N)
            made.reserve.create_missing(ids_N, slots_N)
            made.writes.plan_push(
                ids_N, slots_N, np.ones(len(ids_N), np.uint32), [np.ones((len(ids_N), 8), np.float32)]
            ).carry_out()
            made.writes.plan_removal(ids_N[::7]).carry_out()
        return made

    moved, stayed = filled(1 << 14), filled(1 << 32)
    ids_N = np.arange(8000)
    for made in (moved, stayed):
        assert len(made) > 4000
    np.testing.assert_array_equal(moved.find(ids_N) >= 0, stayed.find(ids_N) >= 0)
    rows = [np.empty((len(ids_N), 8), np.float32) for _ in range(2)]
    for made, out_ND in zip((moved, stayed), rows, strict=True):
        made.lookup(ids_N, made.find(ids_N), out_ND)
    np.testing.assert_array_equal(*rows)
    moved.close()
    stayed.close()


@pytest.mark.slow
def test_three_thousand_tables_on_a_large_host_take_rows(large_host: None) -> None:
    tables = [table(dim=64, optimizer=ps.RowwiseAdagrad()) for _ in range(3000)]
    for made in tables:
        made.writes.plan_upsert(np.arange(3), [np.ones((3, 64), np.float32)]).carry_out()
    assert [len(made) for made in tables] == [3] * 3000
    for made in tables:
        made.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": ps.Adagrad(lr=0.3), "admission": ps.CountThreshold(min_count=3)},
        {"optimizer": ps.Adam(), "cold": ps.Fp16(hot_fraction=0.3), "half_life_pushes": 64},
        {"optimizer": ps.RowwiseAdagrad(), "importance": ps.Importance(attribution=1, positives=2)},
        {"optimizer": ps.SGD(), "half_life_pushes": 64, "cold": ps.TensorTrain(rows=40, ranks=2, hot_rows=8)},
    ],
)
def test_a_selection_of_all_rows_is_a_push_of_all_whatever_came_between(fields: Any) -> None:
    some, whole = table(**fields), table(**fields)
    rng = np.random.default_rng(0)
    for push in range(40):
        ids_N = rng.choice(40, 20, replace=False)
        counts_N, positives_N = rng.integers(1, 4, 20, np.uint32), rng.integers(0, 2, 20, np.uint32)
        rows_R = np.arange(20) if push % 4 == 0 else np.flatnonzero(rng.random(20) < 0.4)
        grads_RD = rng.standard_normal((len(rows_R), 4), np.float32)
        for made, selected in ((some, rows_R), (whole, None if push % 4 == 0 else rows_R)):
            slots_N = made.find(ids_N)
            made.reserve.create_admitted(ids_N, slots_N, counts_N, selected)
            made.writes.plan_push(
                ids_N, slots_N, counts_N, [grads_RD[:3], grads_RD[3:]], positives_N, selected
            ).carry_out()
    assert _values(some) == _values(whole)
    assert some.stats() == whole.stats()


def test_a_row_without_a_gradient_counts_as_used_and_stays_as_it_is() -> None:
    made = table(optimizer=ps.Adam(lr=0.1))
    ids_N, ones_ND = np.arange(3), np.ones((3, 4), np.float32)
    _push_some(made, ids_N, np.arange(3), ones_ND)
    for rows_R in (np.array([1]), np.array([], np.int64)):
        (before,) = made.ram.read(ids_N)
        _push_some(made, ids_N, rows_R, ones_ND[: len(rows_R)])
        (after,) = made.ram.read(ids_N)
        assert np.flatnonzero((after.rows_NB != before.rows_NB).any(axis=1)).tolist() == rows_R.tolist()
    assert after.scores_N == pytest.approx([3, 3, 3], rel=0.01)
    assert made.counts.rows_updated == 4
    _push_some(made, np.array([9]), np.array([], np.int64), ones_ND[:0])
    assert len(made) == 3


def _push_some(made: Table, ids_N: np.ndarray, rows_R: np.ndarray, grads_RD: np.ndarray) -> None:
    slots_N = made.find(ids_N)
    made.reserve.create_admitted(ids_N, slots_N, None, rows_R)
    made.writes.plan_push(ids_N, slots_N, None, [grads_RD], None, rows_R).carry_out()


def _values(made: Table) -> dict[int, bytes]:
    records, cursor = made.page(0, 10**6)
    assert not cursor
    return dict(zip(records.ids_N.tolist(), map(bytes, made.values(records)), strict=True))
