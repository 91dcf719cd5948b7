"""A table with cold rows against a dict that looks at every row at every tick; and what such a table learns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import ps
from ps.errors import ResourceExhausted
from ps.initializer import RowInitializer
from ps.kernels.ranking import score
from ps.kernels.reference.rows import half as half_reference
from ps.table.cold.fp16 import LEEWAY
from ps.table.table import Table
from tests.optimizers import EVERY, specified
from tests.unit.storage.test_cold import BATCH, N_IDS, START, WIDTH, Bags

F32 = np.float32
DIM = 5
ZERO = np.array([0])
IDS = list(range(-8, 8))
some_ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=8, unique=True)
seeds = st.integers(0, 2**32 - 1)
half_lives = st.sampled_from([64, 256])


KINDS = {
    **{kind: (optimizer, "fp16") for kind, optimizer in EVERY.items()},
    "adagrad-rowwise": (EVERY["adagrad"], "rowwise"),
}
"""Optimizer, and how cold rows keep its state."""


class Row:
    """Hot: float32 as it is. Cold: what `bits` says, with state reduced to one number where it is rowwise."""

    def __init__(self, values):
        self.row_1W = values
        self.cold = False
        self.score, self.stamp = F32(0), 0

    @property
    def rank(self):
        return (int(self.score.view(np.uint32)) >> 17) + self.stamp


class Model:
    """The specification: one row an id; nothing is shared, nothing is put off."""

    def __init__(self, config, kind):
        self.config = config
        optimizer, state = KINDS[kind]
        trains = optimizer.rowwise() if state == "rowwise" else optimizer
        self.state_width, self.start = optimizer.state_width(DIM), optimizer.initial_state
        self.hot_update, self.cold_update, self.parts = specified(optimizer), specified(trains), trains.half(DIM)[:2]
        self.spread = DIM if kind == "adagrad-rowwise" else 1
        self.init = RowInitializer.of(config)
        self.rows: dict[int, Row] = {}
        self.pushes = self.now = self.since = 0
        self.above = 0
        self.narrowed = self.widened = 0

    def initial(self, id_):
        value_1D = np.empty((1, DIM), F32)
        self.init.fill(np.array([id_]), value_1D)
        return value_1D

    def create(self, id_):
        if id_ not in self.rows:
            row_1W = np.hstack([self.initial(id_), np.full((1, self.state_width), self.start, F32)])
            self.rows[id_] = Row(row_1W)
            self.rows[id_].stamp = self.now

    def push(self, ids, grads_ND, counts):
        self.pushes += 1
        for id_, grad_D, count in zip(ids, grads_ND, counts, strict=True):
            self.create(id_)
            row = self.rows[id_]
            if row.cold:
                self.cold_update(row.row_1W, ZERO, grad_D[None], self.pushes)
                push, id_1 = np.uint64(self.pushes), np.array([id_])
                self.through(row, half_reference.narrow_stochastic, self.init.seed, push, id_1)
            else:
                self.hot_update(row.row_1W, ZERO, grad_D[None], self.pushes)
            self.touch(row, count)
            if row.cold and row.rank > self.above:
                row.cold = False
                kept = sum(self.parts)
                row.row_1W = np.hstack([row.row_1W[:, :kept], np.repeat(row.row_1W[:, kept:], self.spread, axis=1)])
                self.widened += 1
        self.since += 1
        if self.since == self.config.half_life_pushes // 64:
            self.tick()

    def touch(self, row, added):
        """A touch never lowers a rank."""
        before = row.rank
        row.score = F32(row.score * score.decay_table()[self.now - row.stamp]) + F32(added)
        row.stamp = self.now
        if row.rank < before:
            row.score = np.uint32((before - self.now) << 17).view(F32)

    def tick(self):
        self.since, self.now = 0, self.now + 1
        ranks = sorted((row.rank for row in self.rows.values()), reverse=True)
        keep = self.config.cold.hot_fraction * len(ranks)
        self.above, highest = (ranks[int(n) - 1] if int(n) else 1 << 40 for n in (keep, min(keep * LEEWAY, len(ranks))))
        for row in self.rows.values():
            cut = keep * LEEWAY < len(ranks) and row.stamp < self.now and row.rank <= highest
            if cut and not row.cold:
                self.narrow(row)

    def narrow(self, row):
        row.cold = True
        kept = sum(self.parts)
        if self.spread > 1:
            mean = F32(sum(float(h) for h in row.row_1W[0, kept:]) / self.spread)
            row.row_1W = np.append(row.row_1W[:, :kept], [[mean]], axis=1)
        self.through(row, half_reference.narrow)
        self.narrowed += 1

    def through(self, row, rounding, *randomness):
        """Rounds it to 16 bits and back."""
        full = row.row_1W.shape[1] - sum(self.parts)
        bits = np.empty((1, sum(self.parts) + 2 * full), np.uint16)
        rounding(row.row_1W, ZERO, bits, *self.parts, *randomness)
        half_reference.widen(bits, ZERO, row.row_1W, *self.parts)
        row.bits = bits.tobytes()

    def set(self, id_, value_D):
        """Written now, and as important as before."""
        row = self.rows[id_]
        self.touch(row, 0)
        row.row_1W[0, :DIM] = value_D
        if row.cold:
            self.through(row, half_reference.narrow)


class ColdTable(RuleBasedStateMachine):
    kind = "adam"

    @initialize(
        hot_fraction=st.sampled_from([0, 0.2, 0.5, 1]), half_life=half_lives, sweep_slots=st.sampled_from([1, 3, 100])
    )
    def start(self, hot_fraction, half_life, sweep_slots):
        optimizer, state = KINDS[self.kind]
        self.config = ps.TableConfig(
            name="t",
            dim=DIM,
            cold=ps.Fp16(hot_fraction=hot_fraction, state=state),
            half_life_pushes=half_life,
            optimizer=optimizer,
            importance=ps.Importance(frequency=0, occurrences=1),
        )
        self.table, self.model = Table(self.config), Model(self.config, self.kind)
        self.table.cold.sweep_slots = sweep_slots

    @rule(ids=some_ids, seed=seeds, cut=st.integers(0, 8))
    def push(self, ids, seed, cut):
        """Blocks with hot rows, with cold rows, and with both."""
        rng = np.random.default_rng(seed)
        grads_ND = (rng.standard_normal((len(ids), DIM)) * 10.0 ** rng.integers(-3, 2)).astype(F32)
        counts_N = rng.choice([1, 1, 2, 9], len(ids)).astype(np.uint32)
        ids_N = np.array(ids)
        slots_N = self.table.find(ids_N)
        self.table.reserve.create_missing(ids_N, slots_N)
        self.table.writes.plan_push(
            ids_N, slots_N, counts_N, [block for block in (grads_ND[:cut], grads_ND[cut:]) if len(block)]
        ).carry_out()
        self.model.push(ids, grads_ND, counts_N)

    @rule(ids=some_ids, seed=seeds)
    def upsert(self, ids, seed):
        values_ND = np.random.default_rng(seed).standard_normal((len(ids), DIM)).astype(F32)
        self.table.writes.plan_upsert(np.array(ids), [values_ND]).carry_out()
        for id_, value_D in zip(ids, values_ND, strict=True):
            if id_ not in self.model.rows:
                self.model.create(id_)
                self.model.rows[id_].score = F32(1)
            self.model.set(id_, value_D)

    @rule(ids=some_ids, seed=seeds)
    def assign(self, ids, seed):
        values_ND = np.random.default_rng(seed).standard_normal((len(ids), DIM)).astype(F32)
        self.table.writes.plan_assign(np.array(ids), [values_ND]).carry_out()
        for id_, value_D in zip(ids, values_ND, strict=True):
            if id_ in self.model.rows:
                self.model.set(id_, value_D)

    @rule(ids=some_ids)
    def remove(self, ids):
        self.table.writes.plan_removal(np.array(ids)).carry_out()
        for id_ in ids:
            self.model.rows.pop(id_, None)

    @rule()
    def sweep(self):
        self.table.cold.sweep()

    @invariant()
    def same_values(self):
        if hasattr(self, "table"):
            ids_N, out_ND = np.array(IDS), np.empty((len(IDS), DIM), F32)
            self.table.lookup(ids_N, self.table.find(ids_N), out_ND)
            for id_, out_D in zip(IDS, out_ND, strict=True):
                held = self.model.rows.get(id_)
                expected = self.model.initial(id_)[0] if held is None else held.row_1W[0, :DIM]
                assert out_D.tobytes() == expected.tobytes(), id_

    @invariant()
    def same_export(self):
        if hasattr(self, "table"):
            assert values_by_id(self.table) == {
                id_: row.row_1W[0, :DIM].tobytes() for id_, row in self.model.rows.items()
            }

    def teardown(self):
        if hasattr(self, "table"):
            while self.table.cold.sweep():
                pass
            self.same_rows()
            self.same_values()
            cold = sum(row.cold for row in self.model.rows.values())
            assert self.table.stats()["rows"] == {"hot": len(self.model.rows) - cold, "cold": cold, "disk": 0}
            assert self.table.stats()["rows_widened"] == self.model.widened
            assert self.table.stats()["rows_narrowed"] <= self.model.narrowed
            self.table.close()

    def same_rows(self):
        """State too, to the bit."""
        found = {
            int(id_): row_B.tobytes()
            for records in self.table.ram.read(np.array(IDS))
            for id_, row_B in zip(records.ids_N, records.rows_NB, strict=True)
        }
        expected = {id_: row.bits if row.cold else row.row_1W.tobytes() for id_, row in self.model.rows.items()}
        assert found == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_with_cold_rows_is_a_dict(kind):
    machine = type("Machine", (ColdTable,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def cold_table(**fields):
    defaults = {
        "name": "t",
        "dim": DIM,
        "cold": ps.Fp16(),
        "half_life_pushes": 64,
        "optimizer": ps.SGD(lr=1.0),
        "importance": ps.Importance(frequency=0, occurrences=1),
    }
    return Table(ps.TableConfig(**{**defaults, **fields}))


def pushed(table, ids, grad=1.0, counts=1):
    ids_N = np.array(ids)
    slots_N = table.find(ids_N)
    table.reserve.create_missing(ids_N, slots_N)
    table.writes.plan_push(
        ids_N, slots_N, np.full(len(ids), counts, np.uint32), [np.full((len(ids), DIM), grad, F32)]
    ).carry_out()


def values_by_id(table):
    records, _ = table.page(0, 100_000)
    return {int(id_): row.tobytes() for id_, row in zip(records.ids_N, table.values(records), strict=True)}


def test_what_is_used_most_becomes_float32_and_what_is_forgotten_half():
    table = cold_table(cold=ps.Fp16(hot_fraction=0.1))
    pushed(table, range(100))
    for _ in range(100):
        pushed(table, range(10))
        table.cold.sweep()
    assert table.stats()["rows"] == {"hot": 10, "cold": 90, "disk": 0}
    before = table.stats()["rows_widened"]
    for _ in range(40):
        pushed(table, range(50, 60), counts=100)
        table.cold.sweep()
    assert table.stats()["rows_widened"] == before + 10
    slots_N = table.find(np.arange(100))
    hot_N = slots_N[~table.ram.rows.pools.is_half(slots_N)]
    assert set(range(50, 60)) <= set(table.ram.ids_S[hot_N].tolist())
    table.close()


def test_rows_that_were_never_cold_are_those_of_a_table_without_a_cold_tier():
    tables = [cold_table(cold=ps.Fp16(hot_fraction=0.5), half_life_pushes=128), cold_table(cold=None)]
    for step in range(200):
        for table in tables:
            pushed(table, range(20), grad=0.1 * step)
            pushed(table, range(10, 20), grad=0.3)
            table.cold.sweep()
    out = np.empty((2, 20, DIM), F32)
    for table, out_ND in zip(tables, out, strict=True):
        table.lookup(np.arange(20), table.find(np.arange(20)), out_ND)
    assert tables[0].stats()["rows"]["cold"] == 10
    assert out[0, 10:].tobytes() == out[1, 10:].tobytes()
    assert out[0, :10].tobytes() != out[1, :10].tobytes()
    np.testing.assert_allclose(out[0, :10], out[1, :10], rtol=0.01)
    for table in tables:
        table.close()


def test_hot_and_cold_rows_in_one_push_are_those_of_two():
    def values(pushes):
        table = cold_table(cold=ps.Fp16(hot_fraction=0.1), half_life_pushes=1280, optimizer=ps.Adagrad(lr=0.1))
        pushed(table, range(50_000), 0.1)  # large enough for blocks
        for _ in range(40):
            pushed(table, range(0, 50_000, 10), 0.01)
        while table.cold.sweep():
            pass
        assert table.stats()["rows"] == {"hot": 5_000, "cold": 45_000, "disk": 0}
        slots_N = table.find(np.arange(50_000))
        grads_ND = np.random.default_rng(1).standard_normal((50_000, DIM)).astype(F32)
        table.cold.before_write(slots_N, 0)
        for some_N in pushes(table, slots_N):
            table.ram.rows.update(slots_N[some_N], table.ram.ids_S, grads_ND[some_N], 41, 41)
        out_ND = np.empty((50_000, DIM), F32)
        table.lookup(np.arange(50_000), slots_N, out_ND)
        table.close()
        return out_ND.tobytes()

    def apart(table, slots_N):
        cold_N = table.ram.rows.pools.is_half(slots_N)
        return [np.flatnonzero(cold_N), np.flatnonzero(~cold_N)]

    assert values(lambda table, slots_N: [np.arange(50_000)]) == values(apart)


def test_memory_at_its_end_fails_a_push_before_it_has_changed_anything(monkeypatch):
    table = cold_table(cold=ps.Fp16(hot_fraction=0.0))
    pushed(table, range(50))
    pushed(table, [99])
    before = values_by_id(table)
    monkeypatch.setattr(table.ram.rows.pools.half._rows, "max_rows", 10)
    with pytest.raises(ResourceExhausted):
        pushed(table, range(50))
    assert table.cold.sweep(), "it goes on trying"
    assert values_by_id(table) == before
    monkeypatch.undo()
    while table.cold.sweep():
        pass
    assert table.stats()["rows"]["cold"] == 51
    monkeypatch.setattr(table.ram.rows.pools.full._rows, "max_rows", 10)
    with pytest.raises(ResourceExhausted):
        pushed(table, range(200, 260))
    assert values_by_id(table) == before
    monkeypatch.undo()
    table.close()


def test_while_rows_are_created_as_many_are_narrowed():
    """No matter how seldom the sweep comes."""
    table = cold_table(cold=ps.Fp16(hot_fraction=0.0), half_life_pushes=640)
    for push in range(100):
        pushed(table, range(1000 * push, 1000 * (push + 1)))
    assert table.stats()["rows_narrowed"] >= 80_000
    assert len(table.ram.rows.pools.full) <= 20_000
    table.close()


def test_memory_by_tier():
    table = cold_table(cold=ps.Fp16(hot_fraction=0.0), dim=64, optimizer=ps.Adagrad())
    table.writes.plan_upsert(np.arange(20_000), [np.zeros((20_000, 64), F32)]).carry_out()
    table.writes.plan_push(
        np.arange(1), table.find(np.arange(1)), np.ones(1, np.uint32), [np.zeros((1, 64), F32)]
    ).carry_out()
    while table.cold.sweep():
        pass
    used = table.memory_usage()
    assert table.stats()["rows"] == {"hot": 0, "cold": 20_000, "disk": 0}
    assert 0 <= used["cold"]["rows"] - 20_000 * 256 < 2 << 20
    assert used["hot"]["rows"] + used["cold"]["rows"] < 20_000 * 512 + (2 << 20), "one room for both"
    table.close()


def learned(cold):
    bags = Bags()
    table = Table(
        ps.TableConfig(
            name="t",
            dim=WIDTH,
            optimizer=ps.Adagrad(lr=0.005),
            cold=cold,
            half_life_pushes=64,
            initializer=ps.Constant(value=START[0]),
        )
    )
    everybody, values_ND = np.arange(N_IDS), np.empty((N_IDS, WIDTH), F32)
    table.writes.plan_upsert(everybody, [np.tile(np.array(START, F32), (N_IDS, 1))]).carry_out()
    slots_N = table.find(everybody)
    for _ in range(1_500):
        table.lookup(everybody, slots_N, values_ND)
        ids_N, grads_ND = bags.gradients(values_ND, *bags.draw(BATCH))
        pushed_N = slots_N[ids_N]
        table.reserve.create_missing(ids_N, pushed_N)
        table.writes.plan_push(ids_N, pushed_N, np.ones(len(ids_N), np.uint32), [grads_ND]).carry_out()
        table.cold.sweep()
    rows = table.stats()["rows"]
    table.lookup(everybody, slots_N, values_ND)
    table.close()
    return bags.loss(values_ND), rows


def test_a_table_with_cold_rows_learns_what_one_of_float32_learns():
    full, cold = learned(None), learned(ps.Fp16())
    assert cold[1]["cold"] > 0.5 * N_IDS
    assert abs(cold[0] / full[0] - 1) < 0.01
