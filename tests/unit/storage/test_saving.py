"""An arena that changes while it is saved: what is saved is what it held at the cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

import ps
from ps.kernels.updates.optim import update_rule
from ps.storage.budget.budget import RamBudget
from ps.storage.ram.arena import Arena
from ps.storage.ram.cuts import Cuts
from ps.storage.ram.mixed import MixedRows
from ps.storage.ram.rows import ArenaRows, PlainRows
from ps.storage.ram.saving import Saved, Saving, Waiting
from ps.storage.tier import Records

CONFIG = ps.TableConfig(name="t", dim=3, optimizer=ps.Adagrad())
PER_TICK = np.uint32(1)
ids = st.lists(st.integers(0, 60), min_size=1, max_size=12, unique=True)
seeds = st.integers(0, 2**32)
Row = tuple[bytes, float, int]


def plain() -> ArenaRows:
    return PlainRows(CONFIG, update_rule(CONFIG.optimizer, CONFIG.dim))


def mixed() -> ArenaRows:
    return MixedRows(CONFIG, update_rule(CONFIG.optimizer, CONFIG.dim), "fp16")


class SavingMachine(RuleBasedStateMachine):
    """Rows come, change, go and move, and slices are taken in between."""

    def __init__(self, rows: ArenaRows) -> None:
        super().__init__()
        self.ram = Arena(rows, RamBudget(ps.ServiceConfig()))
        self.held: dict[int, Row] = {}
        self.expected: dict[int, Row] = {}
        self.found: dict[int, Row] = {}

    @rule(ids=ids, seed=seeds, length=st.integers(0, 1))
    def write(self, ids: list[int], seed: int, length: int) -> None:
        rng, n = np.random.default_rng(seed), len(ids)
        row_bytes = self.ram.rows.lengths[length % len(self.ram.rows.lengths)]
        records = Records(
            np.array(ids, np.int64),
            rng.integers(0, 100, (n, row_bytes), np.uint8),
            rng.random(n, np.float32),
            rng.integers(0, 20, n, np.uint32),
        )
        self.ram.write(records)
        self.held.update(rows_in([Saved("t", records, np.zeros(n, np.uint16))]))

    @rule(ids=ids)
    def discard(self, ids: list[int]) -> None:
        self.ram.discard(np.array(ids, np.int64))
        for id_ in ids:
            self.held.pop(id_, None)

    @rule(spare=st.integers(0, 5))
    def shrink(self, spare: int) -> None:
        self.ram.shrink(min(len(self.ram) + spare, self.ram.slots_end))

    @precondition(lambda self: self.ram.saving is None)
    @rule(since=st.sampled_from([0, 0, 10]), rank=st.sampled_from([None, None, 8128]))
    def begin(self, since: int, rank: int | None) -> None:
        cuts = Cuts(PER_TICK)
        if rank is not None:
            cuts.add(15, rank)
        self.waiting = Waiting(1 << 20)
        self.ram.saving = Saving("t", self.ram, cuts, since, self.waiting)
        kept = {id_: row for id_, row in self.held.items() if row[2] >= since}
        statistics_N2 = np.array([[np.float32(row[1]).view(np.uint32), row[2]] for row in kept.values()], np.uint32)
        met_N = cuts.met(statistics_N2.reshape(-1, 2))
        self.expected = {id_: row for (id_, row), met in zip(kept.items(), met_N, strict=True) if not met}
        self.found = {}

    @precondition(lambda self: self.ram.saving is not None)
    @rule(nbytes=st.integers(1, 300))
    def slice(self, nbytes: int) -> None:
        saving = self.ram.saving
        assert saving is not None
        if saving.done:
            self.ram.saving = None
        else:
            saving.slice(nbytes)
        self.take()
        if saving.done:
            assert saving.error is None
            assert self.found == self.expected

    def take(self) -> None:
        parts = self.waiting.take()
        rows = rows_in(parts)
        assert not self.found.keys() & rows.keys(), "each is saved once"
        self.found.update(rows)
        assert self.waiting.nbytes == sum(part.nbytes for part in parts)
        self.waiting.written(parts)

    def teardown(self) -> None:
        while self.ram.saving is not None:
            self.slice(1000)
        self.ram.close()


def rows_in(parts: list[Saved]) -> dict[int, Row]:
    return {
        int(id_): (part.records.rows_NB[i].tobytes(), float(part.records.scores_N[i]), int(part.records.stamps_N[i]))
        for part in parts
        for i, id_ in enumerate(part.records.ids_N)
    }


@pytest.mark.parametrize("rows", [plain, mixed])
def test_an_arena_is_saved_as_it_was(rows: Callable[[], ArenaRows]) -> None:
    run_state_machine_as_test(
        lambda: SavingMachine(rows()),
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
