"""What `ps.storage.tier.Tier` promises, for every tier: it behaves like a dict from id to (row, score, stamp)."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ps.storage.tier import Records
from tests.unit.kernels.strategies import id_values

from .tiers import NAMES, TIERS

Row = tuple[bytes, bytes, int]
"""The bytes of the row and of its score (which may be NaN), and the stamp."""
ids_sets = st.lists(id_values, max_size=40, unique=True)


def as_ids(ids):
    return np.array(ids, np.int64)


def random_records(ids_N, width, seed):
    """Any bits, for the score too."""
    rng = np.random.default_rng(seed)
    n = len(ids_N)
    return Records(
        ids_N,
        rng.integers(0, 256, (n, width), dtype=np.uint8),
        rng.integers(0, 2**32, n, dtype=np.uint32).view(np.float32),
        rng.integers(0, 2**32, n, dtype=np.uint32),
    )


def rows_of(records: Records) -> dict[int, Row]:
    return {
        int(records.ids_N[i]): (
            records.rows_NB[i].tobytes(),
            records.scores_N[i].tobytes(),
            int(records.stamps_N[i]),
        )
        for i in range(len(records))
    }


def rows_read(tier, ids_N) -> dict[int, Row]:
    """What read gives, its form checked."""
    found: dict[int, Row] = {}
    batches = tier.read(ids_N)
    widths = [records.rows_NB.shape[1] for records in batches]
    assert len(set(widths)) == len(widths)
    for records in batches:
        assert len(records) > 0
        assert records.ids_N.dtype == np.int64
        assert records.rows_NB.dtype == np.uint8
        assert records.scores_N.dtype == np.float32
        assert records.stamps_N.dtype == np.uint32
        assert len(records.ids_N) == len(records.rows_NB) == len(records.scores_N) == len(records.stamps_N)
        assert records.rows_NB.flags.c_contiguous
        rows = rows_of(records)
        assert len(rows) == len(records)
        assert not rows.keys() & found.keys()
        found |= rows
    return found


class AgainstADict(RuleBasedStateMachine):
    """Writes, overwrites (with another length too), discards, reads and restarts, in any order."""

    kind = next(iter(TIERS.values()))

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.opened = ExitStack()
        self.tier = self.opened.enter_context(self.kind.make(Path(self.folder.name)))
        self.expected: dict[int, Row] = {}

    def teardown(self) -> None:
        self.opened.close()
        self.folder.cleanup()

    @precondition(lambda self: self.kind.again is not None)
    @rule()
    def restart(self) -> None:
        self.opened.close()
        self.tier = self.opened.enter_context(self.kind.again(Path(self.folder.name)))

    @rule(ids=ids_sets, seed=st.integers(0, 2**32), data=st.data())
    def write(self, ids, seed, data) -> None:
        records = random_records(as_ids(ids), data.draw(st.sampled_from(self.kind.row_bytes)), seed)
        self.tier.write(records)
        self.expected |= rows_of(records)

    @rule(ids=ids_sets)
    def discard(self, ids) -> None:
        self.tier.discard(as_ids(ids))
        for id_ in ids:
            self.expected.pop(id_, None)

    @rule(ids=ids_sets)
    def read(self, ids) -> None:
        assert rows_read(self.tier, as_ids(ids)) == {id_: self.expected[id_] for id_ in ids if id_ in self.expected}

    @rule()
    def read_all(self) -> None:
        assert rows_read(self.tier, as_ids(list(self.expected))) == self.expected

    @invariant()
    def its_length_is_the_number_of_rows(self) -> None:
        assert len(self.tier) == len(self.expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_tier_is_a_dict(name):
    machine = type("Machine", (AgainstADict,), {"kind": TIERS[name]})
    settings = hypothesis.settings(max_examples=25, stateful_step_count=20, deadline=None)
    hypothesis.stateful.run_state_machine_as_test(machine, settings=settings)


@pytest.fixture(params=NAMES)
def kind(request):
    return TIERS[request.param]


@pytest.fixture
def tier(kind, tmp_path):
    with kind.make(tmp_path) as made:
        yield made


def test_a_new_tier_is_empty(tier):
    assert len(tier) == 0
    assert tier.read(np.arange(10)) == []


def test_empty_batches_change_nothing(tier, kind):
    nothing = np.empty(0, np.int64)
    tier.write(random_records(np.arange(3), kind.row_bytes[0], 1))
    tier.write(random_records(nothing, kind.row_bytes[0], 1))
    tier.discard(nothing)
    assert tier.read(nothing) == []
    assert len(tier) == 3


def test_a_large_batch_comes_back_whole(tier, kind):
    ids_N = np.random.default_rng(5).permutation(30_000) - 15_000
    parts = np.array_split(ids_N, len(kind.row_bytes))
    expected: dict[int, Row] = {}
    for part_N, width in zip(parts, kind.row_bytes, strict=True):
        records = random_records(part_N, width, 7)
        tier.write(records)
        expected |= rows_of(records)
    assert rows_read(tier, np.arange(-20_000, 20_000)) == expected
    tier.discard(np.arange(0, 20_000))
    assert len(tier) == 15_000


def test_arrays_that_were_written_may_change_afterwards(tier, kind):
    """A tier copies: the caller's buffers are used again."""
    records = random_records(np.arange(10), kind.row_bytes[0], 3)
    expected = rows_of(records)
    tier.write(records)
    records.rows_NB[:] = 0
    records.scores_N[:] = 0
    records.ids_N[:] = 99
    assert rows_read(tier, np.arange(100)) == expected


def test_read_only_arrays_are_taken(tier, kind):
    records = random_records(np.arange(10), kind.row_bytes[0], 3)
    for array in (records.ids_N, records.rows_NB, records.scores_N, records.stamps_N):
        array.setflags(write=False)
    tier.write(records)
    assert rows_read(tier, records.ids_N) == rows_of(records)
    tier.discard(records.ids_N)
    assert len(tier) == 0


def test_memory_usage_is_in_bytes_by_purpose(tier, kind):
    tier.write(random_records(np.arange(1000), kind.row_bytes[0], 3))
    usage = tier.memory_usage()
    assert usage
    assert all(isinstance(purpose, str) and isinstance(used, int) and used >= 0 for purpose, used in usage.items())


def test_close_may_be_called_again(kind, tmp_path):
    with kind.make(tmp_path) as tier:
        tier.close()
        tier.close()
