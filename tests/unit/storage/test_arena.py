"""Rows in RAM against a dict: what hot and cold have in common."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ps.errors import LengthMismatch, ResourceExhausted
from ps.kernels.segments import MAX_FILL
from ps.storage.arena import Arena
from ps.storage.hot import HotTier
from ps.storage.tier import Records, RowLayout
from tests.unit.kernels.strategies import id_values, ids_of_hash

KINDS = {"float32": (3, np.float32), "uint16": (5, np.uint16)}
id_sets = st.lists(st.integers(-6, 6) | id_values, max_size=20, unique=True)
seeds = st.integers(0, 2**32 - 1)


def as_ids(ids):
    return np.array(ids, np.int64)


def random_records(ids_N, row_bytes, seed):
    """Any bits, for the score too."""
    rng = np.random.default_rng(seed)
    n = len(ids_N)
    return Records(
        ids_N,
        rng.integers(0, 256, (n, row_bytes), dtype=np.uint8),
        rng.integers(0, 2**32, n, dtype=np.uint32).view(np.float32),
        rng.integers(0, 2**32, n, dtype=np.uint32),
    )


def as_dict(records):
    rows = zip(records.rows_NB, records.scores_N, records.stamps_N.tolist(), strict=True)
    bytes_of = [(row.tobytes(), score.tobytes(), stamp) for row, score, stamp in rows]
    found = dict(zip(records.ids_N.tolist(), bytes_of, strict=True))
    assert len(found) == len(records)
    return found


def read(arena, ids):
    batches = arena.read(as_ids(ids))
    assert len(batches) == (len(batches) and 1)
    return as_dict(batches[0]) if batches else {}


class ArenaMachine(RuleBasedStateMachine):
    kind = "float32"

    def __init__(self):
        super().__init__()
        self.arena = Arena(*KINDS[self.kind])
        self.rows: dict[int, tuple[bytes, bytes, int]] = {}
        self.slots: dict[int, int] = {}
        self.most = 0

    @rule(ids=id_sets, seed=seeds)
    def write(self, ids, seed):
        records = random_records(as_ids(ids), self.arena.row_bytes, seed)
        slots_N = self.arena.write(records)
        for id_, slot in zip(ids, slots_N.tolist(), strict=True):
            assert self.slots.setdefault(id_, slot) == slot, "slots do not move"
        self.rows |= as_dict(records)

    @rule(ids=id_sets, stamp=st.integers(0, 2**32 - 1))
    def insert(self, ids, stamp):
        new = [id_ for id_ in ids if id_ not in self.rows]
        slots_N = self.arena.insert(as_ids(new), stamp)
        self.arena.rows_SW[slots_N] = 1
        row = np.ones(self.arena.rows_SW.shape[1], self.arena.rows_SW.dtype).tobytes()
        self.rows |= {id_: (row, bytes(4), stamp) for id_ in new}
        self.slots |= dict(zip(new, slots_N.tolist(), strict=True))

    @rule(ids=id_sets)
    def discard(self, ids):
        epoch = self.arena.layout_epoch
        gone_N = self.arena.discard(as_ids(ids))
        assert gone_N.tolist() == [self.rows.pop(id_, None) is not None for id_ in ids]
        assert (self.arena.layout_epoch > epoch) == bool(gone_N.any())
        for id_ in ids:
            self.slots.pop(id_, None)

    @rule(ids=id_sets)
    def read(self, ids):
        assert read(self.arena, ids) == {id_: self.rows[id_] for id_ in ids if id_ in self.rows}

    @rule(n=st.integers(1, 9))
    def page(self, n):
        found, cursor = [], 0
        while True:
            ids_N, slots_N, cursor = self.arena.page(cursor, n)
            found += list(zip(ids_N.tolist(), slots_N.tolist(), strict=True))
            if not cursor:
                break
        assert sorted(found) == sorted(self.slots.items())

    @invariant()
    def slots_are_of_one_id_and_used_again(self):
        assert len(self.arena) == len(self.rows) == len(set(self.slots.values()))
        assert self.arena.find(as_ids(list(self.slots))).tolist() == list(self.slots.values())
        self.most = max(self.most, len(self.rows))
        assert all(slot < self.most for slot in self.slots.values())

    def teardown(self):
        self.arena.close()


@pytest.mark.parametrize("kind", KINDS)
def test_an_arena_is_a_dict(kind):
    machine = type("Machine", (ArenaMachine,), {"kind": kind})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=20, deadline=None))


def no_slots(arena, monkeypatch):
    monkeypatch.setattr(arena._rows, "max_rows", 5)
    return np.arange(100, 110)


def no_statistics(arena, monkeypatch):
    monkeypatch.setattr(arena._stamps, "max_rows", 5)
    return np.arange(100, 110)


def no_index(arena, monkeypatch):
    return ids_of_hash((np.arange(MAX_FILL + 50, dtype=np.uint64) << np.uint64(32)) | np.uint64(7))


@pytest.mark.parametrize("cause", [no_slots, no_statistics, no_index])
@pytest.mark.parametrize("freed", [0, 2])
def test_an_insertion_that_fails_changes_nothing(cause, freed, monkeypatch):
    arena = Arena(3, np.uint16)
    records = random_records(np.arange(5), 6, 1)
    arena.write(records)
    arena.discard(np.arange(freed))
    before = read(arena, range(200)), arena.page(0, 100)[1].tolist(), arena.layout_epoch
    ids_N = cause(arena, monkeypatch)
    for attempt in (arena.insert, lambda ids_N: arena.write(random_records(ids_N, 6, 2))):
        with pytest.raises(ResourceExhausted):
            attempt(ids_N)
        assert (read(arena, range(200)), arena.page(0, 100)[1].tolist(), arena.layout_epoch) == before
    monkeypatch.undo()
    assert sorted(arena.insert(np.arange(1000, 1005)).tolist()) == sorted([*range(freed), *range(5, 10 - freed)])
    arena.close()


def test_rows_of_another_length_are_refused():
    arena = Arena(3, np.float32)
    with pytest.raises(LengthMismatch, match=r"8 bytes.*12"):
        arena.write(random_records(np.arange(2), 8, 1))
    assert len(arena) == 0
    arena.close()


def test_an_arena_copies_what_it_takes_and_gives():
    arena = Arena(2, np.uint16)
    records = random_records(np.arange(4), 4, 1)
    expected = as_dict(records)
    for array in (records.ids_N, records.rows_NB, records.scores_N, records.stamps_N):
        array.setflags(write=False)
    arena.write(records)
    given = arena.read(np.arange(4))[0]
    given.rows_NB[:] = 0
    given.stamps_N[:] = 0
    assert read(arena, range(4)) == expected
    arena.close()
    arena.close()


def test_the_frequency_of_a_hot_row_travels_as_its_score():
    hot = HotTier(RowLayout(2, 1))
    ids_N, counts_N = np.array([1, 2, 3]), np.array([7, 2**32 - 1, 0], np.uint32)
    hot.count(hot.insert(ids_N), counts_N, 2**32 + 9)
    hot.rows_SW[hot.find(ids_N)] = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    records = hot.read(ids_N)[0]
    assert records.scores_N.tolist() == [7.0, 2.0**32, 0.0]
    assert records.stamps_N.tolist() == [9, 9, 9]
    other = HotTier(RowLayout(2, 1))
    slots_N = other.write(records)
    assert other.frequency(slots_N).tolist() == [7, 2**32 - 256, 0]
    assert other.rows_SW[slots_N].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    hot.close()
    other.close()
