"""Cold rows in an arena against a dict of numpy float16 rows, to the bit; and what they learn against float32."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import ps
from ps.initializer import RowInitializer
from ps.kernels.reference.rows import half as half_reference
from ps.kernels.rows import half
from ps.kernels.updates.optim import update_rule
from ps.storage.budget.budget import RamBudget
from ps.storage.budget.part import Part
from ps.storage.ram.arena import Arena
from ps.storage.ram.half_layout import cold_optimizer, half_layout
from ps.storage.ram.mixed import BLOCK_BYTES, MixedRows
from ps.storage.tier import Records
from tests.optimizers import EVERY, ROWWISE, specified

F32 = np.float32
DIM = 9
IDS = [-(2**63), -5, -1, 0, 1, 2, 3, 2**32 + 5, 2**63 - 1]


ADAGRAD = ps.Adagrad(lr=0.3, eps=1e-6)
KINDS = {
    **{kind: (optimizer, "fp16") for kind, optimizer in EVERY.items()},
    **{f"{kind}-rowwise": (EVERY[kind], "rowwise") for kind in ROWWISE},
}
"""Optimizer, and how its state is kept."""
some_ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=len(IDS), unique=True)
seeds = st.integers(0, 2**32 - 1)


def table(optimizer, dim=DIM, state="fp16"):
    return ps.TableConfig(name="t", dim=dim, optimizer=optimizer, cold=ps.Fp16(state=state))


SEED = RowInitializer.of(table(ps.SGD())).seed


def new_arena(config):
    """An arena and its rows."""
    made = MixedRows(config, update_rule(config.optimizer, config.dim), config.cold.state)
    return Arena(made, RamBudget(ps.ServiceConfig())), made


def halved(layout, records):
    """float32 records as half ones."""
    return replace(records, rows_NB=layout.to_half(records.rows_NB))


def bytes_in(arena, slot):
    ((records),) = arena.records(np.array([slot]))
    return records.rows_NB.tobytes()


def records_of(ids_N, rows_NW):
    n = len(ids_N)
    rows_NB = np.ascontiguousarray(rows_NW).view(np.uint8).reshape(n, -1)
    return Records(np.asarray(ids_N), rows_NB, np.arange(n, dtype=F32), np.arange(n, dtype=np.uint32))


class ColdMachine(RuleBasedStateMachine):
    kind = "sgd"

    def __init__(self):
        super().__init__()
        optimizer, state = KINDS[self.kind]
        trains = optimizer.rowwise() if state == "rowwise" else optimizer
        self.expected_update, self.parts = specified(trains), trains.half(DIM)
        self.cold, self.bytes = new_arena(table(optimizer, state=state))
        self.layout = self.bytes.layout
        self.initializer = RowInitializer.of(table(optimizer))
        self.rows: dict[int, np.ndarray] = {}
        self.push = 0

    @rule(ids=some_ids, seed=seeds)
    def demote(self, ids, seed):
        """Rows as they come from the hot tier: any value, a state that is not negative."""
        rng = np.random.default_rng(seed)
        rows_NW = np.abs(rng.standard_normal((len(ids), DIM + KINDS[self.kind][0].state_width(DIM)))).astype(F32)
        rows_NW *= 10.0 ** rng.integers(-8, 3)
        rows_NW[:, :DIM] *= rng.choice([-1, 1], (len(ids), DIM))
        self.cold.write(halved(self.layout, records_of(np.array(ids), rows_NW)))
        for id_, row_W in zip(ids, rows_NW, strict=True):
            self.rows[id_] = self.halved(row_W)

    def halved(self, row_W):
        kept = sum(self.parts[:2])
        if self.parts[2]:
            mean = F32(sum(float(h) for h in row_W[kept:]) / len(row_W[kept:]))
            row_W = np.append(row_W[:kept], mean).astype(F32)
        out = np.empty((1, kept + 2 * self.parts[2]), np.uint16)
        half_reference.narrow(row_W[None], np.array([0]), out, *self.parts[:2])
        return out[0]

    @rule(ids=some_ids, seed=seeds, cut=st.integers(0, 9), shuffle=seeds)
    def update(self, ids, seed, cut, shuffle):
        """A push in two parts, in any order."""
        self.push += 1
        ids_N = np.array([id_ for id_ in ids if id_ in self.rows], np.int64)
        rng = np.random.default_rng(seed)
        grads_ND = (rng.standard_normal((len(ids_N), DIM)) * 10.0 ** rng.integers(-6, 2)).astype(F32)
        order_N = np.random.default_rng(shuffle).permutation(len(ids_N))
        for part_N in (order_N[:cut], order_N[cut:]):
            part = ids_N[part_N]
            self.bytes.update(self.cold.find(part), self.cold.ids_S, grads_ND[part_N], self.push, self.push)
        for id_, grad_D in zip(ids_N, grads_ND, strict=True):
            self.rows[int(id_)] = self.updated(id_, grad_D)

    def updated(self, id_, grad_D):
        zero, (half_, brain, full) = np.array([0]), self.parts
        wide, out = np.empty((1, half_ + brain + full), F32), self.rows[int(id_)].copy()[None]
        half_reference.widen(out, zero, wide, half_, brain)
        self.expected_update(wide, zero, grad_D[None], self.push)
        push = np.uint64(self.push)
        half_reference.narrow_stochastic(wide, zero, out, half_, brain, SEED, push, np.array([id_]))
        return out[0]

    @rule(ids=some_ids, seed=seeds)
    def assign(self, ids, seed):
        values_ND = np.random.default_rng(seed).standard_normal((len(ids), DIM)).astype(F32)
        self.bytes.set(self.cold.find(np.array(ids)), values_ND)
        for id_, value_D in zip(ids, values_ND, strict=True):
            if id_ in self.rows:
                self.rows[id_][:DIM] = value_D.astype(np.float16).view(np.uint16)

    @rule(ids=some_ids)
    def discard(self, ids):
        self.cold.discard(np.array(ids))
        for id_ in ids:
            self.rows.pop(id_, None)

    @invariant()
    def same_bytes_and_values(self):
        assert len(self.cold) == len(self.rows)
        slots_N = self.cold.find(np.array(IDS))
        out_ND = np.full((len(IDS), DIM), 7, F32)
        self.bytes.gather(slots_N, np.array(IDS), out_ND)
        for id_, slot, out_D in zip(IDS, slots_N, out_ND, strict=True):
            if id_ in self.rows:
                assert bytes_in(self.cold, slot) == self.rows[id_].tobytes()
                assert out_D.tobytes() == self.rows[id_][:DIM].view(np.float16).astype(F32).tobytes()
            else:
                assert slot == -1
                initial_1D = np.empty((1, DIM), F32)
                self.initializer.fill(np.array([id_]), initial_1D)
                assert out_D.tobytes() == initial_1D.tobytes()

    def teardown(self):
        self.cold.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_cold_tier_is_a_dict_of_halves(kind):
    machine = type("Machine", (ColdMachine,), {"kind": kind})
    run_state_machine_as_test(machine, settings=settings(max_examples=30, stateful_step_count=15, deadline=None))


@pytest.mark.parametrize("seed", range(2))
def test_both_precisions_together_never_take_more_than_float32_rows_would(seed):
    """Rows come, go and change their precision, all of them at once too: no byte of them is another one."""
    rng = np.random.default_rng(seed)
    config = ps.TableConfig(name="t", dim=64, optimizer=ps.SGD(), cold=ps.Fp16())
    part = Part(None, "tests", huge_pages=False)
    rows = MixedRows(config, update_rule(config.optimizer, 64), "fp16", part)
    budget = RamBudget(ps.ServiceConfig())
    arena = Arena(rows, budget)
    held: dict[int, float] = {}
    for _ in range(40):
        n = int(rng.integers(1, 3000))
        what = rng.choice(["insert", "narrow", "widen", "release"])
        known_N = np.array(sorted(held), np.int64)
        some_N = rng.choice(known_N, min(n, len(known_N)), replace=False) if len(known_N) else known_N
        slots_N = arena.find(some_N)
        if what == "insert":
            new_N = np.setdiff1d(rng.integers(0, 20_000, n), known_N)
            rows.set(arena.insert(new_N, 0), np.broadcast_to((new_N % 1000).astype(F32)[:, None], (len(new_N), 64)))
            held.update((int(id_), float(id_ % 1000)) for id_ in new_N)
        elif what == "release":
            arena.release(slots_N)
            for id_ in some_N.tolist():
                del held[id_]
        else:
            slots_N = slots_N[rows.pools.is_half(slots_N) == (what == "widen")]
            if len(slots_N):
                getattr(rows, what)(slots_N)
        taken = rows.committed_bytes + rows.pools.half.committed_bytes
        assert taken <= arena.slots_end * 256 + 4 * 4096
        known_N = np.array(sorted(held), np.int64)
        out_ND = np.empty((len(known_N), 64), F32)
        rows.gather(arena.find(known_N), known_N, out_ND)
        assert (out_ND == np.array([held[id_] for id_ in known_N.tolist()], F32).reshape(-1, 1)).all()
    arena.close()
    assert part.used == 0


def trained(order_N, spare=0, pieces=1, threads=False, pushes=3):
    """Bytes by id after some pushes: slots by `order_N` and `spare`, each push in so many pieces."""
    config = table(ps.Adam(lr=0.1))
    cold, made = new_arena(config)
    cold.insert(np.arange(-spare, 0), 0, made.lengths[1])
    rng = np.random.default_rng(1)
    ids_N, rows_NW = np.arange(len(order_N)), rng.random((len(order_N), 3 * DIM)).astype(F32)
    cold.write(halved(made.layout, records_of(ids_N[order_N], rows_NW[order_N])))
    for push in range(1, pushes + 1):
        grads_ND = rng.standard_normal((len(ids_N), DIM)).astype(F32)

        def apply(part_N, push=push, grads_ND=grads_ND):
            made.update(cold.find(ids_N[part_N]), cold.ids_S, grads_ND[part_N], push, push)

        parts = np.array_split(order_N, pieces)
        if threads:
            running = [threading.Thread(target=apply, args=(part_N,)) for part_N in parts]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
        else:
            for part_N in parts:
                apply(part_N)
    found = cold.records(cold.find(ids_N))[0].rows_NB.tobytes()
    cold.close()
    return found


def test_order_pieces_slots_and_threads_change_no_byte():
    n = 3 * BLOCK_BYTES // (4 * 3 * DIM) + 11  # some blocks and a bit
    order_N = np.random.default_rng(2).permutation(n)
    expected = trained(np.arange(n))
    assert trained(order_N) == expected
    assert trained(order_N, spare=13, pieces=7) == expected
    assert trained(order_N, pieces=2, threads=True) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_promoted_and_demoted_again_a_row_is_the_same(kind):
    """And its value as a hot row is that of the cold one. A mean of equal numbers is rounded once more at most."""
    optimizer, state = KINDS[kind]
    layout = half_layout(DIM, optimizer, state)
    rng = np.random.default_rng(3)
    rows_NW = np.abs(rng.standard_normal((50, DIM + optimizer.state_width(DIM)))).astype(F32) * F32(1e-3)
    hot_NB = rows_NW.view(np.uint8)
    cold_NB = layout.to_half(hot_NB)
    assert cold_NB.shape == (50, layout.row_bytes)
    back_NB = layout.to_full(cold_NB)
    assert back_NB.shape == hot_NB.shape
    assert layout.to_half(back_NB).tobytes() == cold_NB.tobytes()
    value_ND = back_NB.view(F32)[:, :DIM]
    assert value_ND.tobytes() == cold_NB[:, : 2 * DIM].copy().view(np.float16).astype(F32).tobytes()
    np.testing.assert_allclose(value_ND, rows_NW[:, :DIM], rtol=2**-11, atol=2**-25)


def test_the_state_of_adagrad_becomes_its_mean_and_the_mean_everybodys():
    layout = half_layout(4, ADAGRAD, "rowwise")
    hot = np.array([[1, 2, 3, 4, 1e-9, 2e-9, 3e-9, 6e-9]], F32)
    assert layout.row_bytes == 4 * 2 + 4
    back = layout.to_full(layout.to_half(hot.view(np.uint8))).view(F32)
    assert back.tolist() == [[1, 2, 3, 4, *[float(F32(3e-9))] * 4]]


def test_no_rows_are_converted_to_no_rows():
    layout = half_layout(DIM, ADAGRAD, "rowwise")
    cold_NB = layout.to_half(np.empty((0, 8 * DIM), np.uint8))
    assert cold_NB.shape == (0, layout.row_bytes)
    assert layout.to_full(cold_NB).shape == (0, 8 * DIM)


@pytest.mark.parametrize("optimizer", [ps.Adam(), ps.FTRL()])
def test_state_that_is_not_one_number_a_row_is_refused(optimizer):
    with pytest.raises(ps.ConfigError, match=f"{optimizer.kind} is not one number a row"):
        table(optimizer, state="rowwise")


def test_cold_rows_of_adagrad_kept_by_row_are_trained_by_row():
    trained = cold_optimizer(ps.Adagrad(lr=0.7, eps=0.5, initial_accumulator=0.25), "rowwise")
    assert trained == ps.RowwiseAdagrad(lr=0.7, eps=0.5, initial_accumulator=0.25)
    for optimizer, state in ((ADAGRAD, "fp16"), (ps.SGD(), "rowwise"), (ps.Adam(), "fp16")):
        assert cold_optimizer(optimizer, state) == optimizer


def test_an_update_of_nothing_is_nothing():
    arena, made = new_arena(table(ps.SGD()))
    made.update(np.empty(0, np.int64), arena.ids_S, np.empty((0, DIM), F32), 1, 1)
    arena.close()


# What is learned: logistic regression on bags of ids. The weight of an id is the sum of its row.

N_IDS, PER_BAG, BATCH, PUSHES, WIDTH = 2_000, 8, 256, 1_500, 4
START = [1.5, -1.5, 1.5, -1.5]
"""What a row begins with: nothing in sum. A step of less than 0.0005 is less than half the distance of halves there."""
LEARNERS = {
    "sgd": (ps.SGD(lr=0.3), "fp16"),
    "adagrad": (ps.Adagrad(lr=0.005), "fp16"),
    "adagrad-rowwise": (ps.Adagrad(lr=0.005), "rowwise"),
    "rowwise_adagrad": (ps.RowwiseAdagrad(lr=0.005), "fp16"),
    "adam": (ps.Adam(lr=0.0002), "fp16"),
}


class Bags:
    """Examples of a logistic model whose weights are known; the loss and its gradients."""

    def __init__(self):
        self.rng = np.random.default_rng(4)
        self.truth = self.rng.standard_normal(N_IDS)
        self.test_ids, self.test_labels = self.draw(20_000)

    def draw(self, n):
        ids = self.rng.integers(0, N_IDS, (n, PER_BAG))
        chance = 1 / (1 + np.exp(-self.truth[ids].sum(axis=1)))
        return ids, self.rng.random(n) < chance

    def loss(self, rows_ND):
        logits = rows_ND.astype(np.float64).sum(axis=1)[self.test_ids].sum(axis=1)
        return np.logaddexp(0, np.where(self.test_labels, -logits, logits)).mean()

    def gradients(self, rows_ND, ids, labels):
        logits = rows_ND.sum(axis=1)[ids].sum(axis=1)
        error = (1 / (1 + np.exp(-logits)) - labels) / len(labels)
        per_id = np.bincount(ids.reshape(-1), np.repeat(error, PER_BAG), N_IDS)
        unique = np.unique(ids)
        return unique, np.repeat(per_id[unique, None], WIDTH, axis=1).astype(F32)


def learned(optimizer, state, rounding):
    """The loss in the end. `rounding`: None for float32, or what brings rows back to 16 bits."""
    bags, config = Bags(), table(optimizer, WIDTH, state)
    update = update_rule(optimizer, WIDTH)
    rows_SW = np.zeros((N_IDS, WIDTH + update.state_width), F32)
    rows_SW[:, :WIDTH] = START
    cold, made = new_arena(config)
    cold.write(halved(made.layout, records_of(np.arange(N_IDS), rows_SW)))
    values, everybody = rows_SW[:, :WIDTH].copy(), np.arange(N_IDS)
    for push in range(1, PUSHES + 1):
        examples = bags.draw(BATCH)
        if rounding is None:
            ids_N, grads_ND = bags.gradients(rows_SW[:, :WIDTH], *examples)
            update.update(rows_SW, ids_N, grads_ND, push)
            values = rows_SW[:, :WIDTH]
        else:
            ids_N, grads_ND = bags.gradients(values, *examples)
            rounding(cold, cold.find(ids_N), grads_ND, push, config)
            made.gather(cold.find(everybody), everybody, values)
    cold.close()
    return bags.loss(values)


def stochastic(cold, slots_N, grads_ND, push, config):
    cold.rows.update(slots_N, cold.ids_S, grads_ND, push, push)


def to_nearest(cold, slots_N, grads_ND, push, config):
    (records,), state = cold.records(slots_N), config.cold.state
    layout = half_layout(config.dim, config.optimizer, state)
    wide_NW, order_N = np.empty((len(slots_N), layout.width), F32), np.arange(len(slots_N))
    item_NI = records.rows_NB.view(np.uint16)
    half.widen(item_NI, order_N, wide_NW, layout.half, layout.brain)
    update_rule(cold_optimizer(config.optimizer, state), config.dim).update(wide_NW, order_N, grads_ND, push)
    half.narrow(wide_NW, order_N, item_NI, layout.half, layout.brain)
    cold.rows.put(slots_N, item_NI.view(np.uint8))


@pytest.mark.parametrize("name", LEARNERS)
def test_cold_rows_learn_what_float32_learns_because_they_are_rounded_at_random(name):
    optimizer, state = LEARNERS[name]
    full, cold, nearest = (learned(optimizer, state, rounding) for rounding in (None, stochastic, to_nearest))
    assert abs(cold / full - 1) < 0.01
    assert nearest > 1.01 * full
