"""The index against a dict: any sequence of calls, ids that crowd a line or a segment, growth, the end of memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ps.errors import LengthMismatch, ResourceExhausted
from ps.kernels.index import index as index_module
from ps.kernels.index.index import MAX_SLOT, IdIndex
from ps.kernels.index.segments import LINES, MAX_DEPTH, MAX_FILL
from ps.kernels.reference.index.index import IdIndex as DictIndex
from ps.runtime.memory import ReservedArray

from .strategies import EDGE_IDS, frozen, ids_of_hash, same_bytes


def ids_at(line, x, n, first=0):
    """n ids whose probes start at one line of one segment: hash bits 32..41 are `line`, the low 32 `x`."""
    free = np.arange(first, first + n, dtype=np.uint64)  # bits 42..63
    return ids_of_hash(free << np.uint64(42) | np.uint64(line << 32) | np.uint64(x))


def filled(ids_N):
    """An index with ids_N at slots 0, 1, ..."""
    index = IdIndex()
    slots_N = np.empty(len(ids_N), np.int64)
    assert index.find_or_insert(ids_N, np.arange(len(ids_N)), slots_N) == len(ids_N)
    assert same_bytes(slots_N, np.arange(len(ids_N)))
    return index


def found(index, ids_N):
    slots_N = np.empty(len(ids_N), np.int64)
    index.find(ids_N, slots_N)
    return slots_N


POOL = np.unique(
    np.concatenate(
        [
            EDGE_IDS,
            np.arange(50),
            ids_at(LINES - 1, 5, 30),  # overflow from the last line of a segment to its first
            ids_at(LINES - 2, 5, 12),
            ids_at(0, 5, 12),
            ids_at(1, 2**32 - 1, 12),
        ]
    )
)
some_ids = st.lists(st.sampled_from(POOL.tolist()), max_size=60).map(lambda ids: np.array(ids, np.int64))


class IndexMachine(RuleBasedStateMachine):
    """Every answer of the index is that of a dict."""

    def __init__(self):
        super().__init__()
        self.index, self.model = IdIndex(), DictIndex()
        self.next_slot = 0

    def teardown(self):
        self.index.close()

    @rule(ids_N=some_ids)
    def insert(self, ids_N):
        new_slots_N = np.arange(self.next_slot, self.next_slot + len(ids_N))
        got_N, expected_N = np.empty((2, len(ids_N)), np.int64)
        created = self.index.find_or_insert(ids_N, new_slots_N, got_N)
        assert created == self.model.find_or_insert(ids_N, new_slots_N, expected_N)
        assert same_bytes(got_N, expected_N)
        self.next_slot += created

    @rule(ids_N=some_ids)
    def find(self, ids_N):
        got_N, expected_N = np.empty((2, len(ids_N)), np.int64)
        self.model.find(ids_N, expected_N)
        for given_N in (ids_N, frozen(ids_N)):
            self.index.find(given_N, got_N)
            assert same_bytes(got_N, expected_N)

    @rule(ids_N=some_ids)
    def erase(self, ids_N):
        got_N, expected_N = np.empty((2, len(ids_N)), np.int64)
        assert self.index.erase(ids_N, got_N) == self.model.erase(ids_N, expected_N)
        assert same_bytes(got_N, expected_N)

    @rule(x=st.integers(0, 2**32 - 1), seed=st.integers(0, 2**32), n=st.integers(1, 3 * MAX_FILL))
    def insert_a_crowd(self, x, seed, n):
        """Ids around one place of the directory: their segment splits again and again, all others stay as they are."""
        rng = np.random.default_rng(seed)
        near = rng.integers(max(0, x - 2**20), min(2**32, x + 2**20), n, np.uint64)
        self.insert(ids_of_hash(rng.integers(0, 2**32, n, np.uint64) << np.uint64(32) | near))

    @rule(share=st.floats(0, 1), seed=st.integers(0, 2**32))
    def erase_a_share(self, share, seed):
        ids_N, _ = self.model.items()
        self.erase(ids_N[np.random.default_rng(seed).random(len(ids_N)) < share])

    @rule(ids_N=some_ids)
    def reslot(self, ids_N):
        ids_N = np.unique(ids_N[found(self.model, ids_N) >= 0])
        slots_N = np.arange(self.next_slot, self.next_slot + len(ids_N))
        self.next_slot += len(ids_N)
        for index in (self.index, self.model):
            index.reslot(ids_N, slots_N)

    @rule()
    def rebuild(self):
        """Takes no memory, and leaves what these ids would have taken in an index of their own."""
        before, items = self.index.committed_bytes, self.index.items()
        self.index.rebuild(*items)
        assert self.index.committed_bytes <= before
        fresh = IdIndex()
        fresh.find_or_insert(*items, np.empty(len(items[0]), np.int64))
        assert self.index.nbytes == fresh.nbytes
        fresh.close()

    @invariant()
    def items_are_the_same(self):
        assert len(self.index) == len(self.model)
        assert dict(zip(*(a.tolist() for a in self.index.items()), strict=True)) == dict(
            zip(*(a.tolist() for a in self.model.items()), strict=True)
        )
        assert same_bytes(found(self.index, POOL), found(self.model, POOL))


TestIndexMachine = IndexMachine.TestCase
TestIndexMachine.settings = settings(deadline=None, max_examples=40, stateful_step_count=30)


def test_a_line_that_hundreds_of_ids_want():
    """Their probe goes around the segment's end; each half erased in turn, the other half stays found."""
    ids_N = ids_at(LINES - 3, 77, 900)
    index = filled(ids_N)
    odd_N, even_N = ids_N[1::2], ids_N[::2]
    slots_N = np.empty(450, np.int64)
    assert index.erase(odd_N, slots_N) == 450
    assert same_bytes(slots_N, np.arange(1, 900, 2))
    assert same_bytes(found(index, even_N), np.arange(0, 900, 2))
    assert (found(index, odd_N) == -1).all()
    assert index.erase(even_N[::-1].copy(), slots_N) == 450
    assert len(index) == 0
    assert index.splits == 0
    index.close()


def test_ids_that_come_and_go_do_not_make_it_grow():
    """A thousand in, a thousand out, a hundred times: what is erased is room again."""
    index, slots_N = IdIndex(), np.empty(1000, np.int64)
    for start in range(0, 100_000, 1000):
        ids_N = np.arange(start, start + 1000)
        index.find_or_insert(ids_N, ids_N, slots_N)
        assert index.erase(ids_N, slots_N) == 1000
    assert len(index) == 0
    assert index.splits == 0
    index.close()


def test_closing_twice_is_one_close_and_a_closed_index_answers_nothing():
    index = filled(np.arange(10))
    index.close()
    index.close()
    with pytest.raises(AttributeError):
        found(index, np.arange(10))


def test_slots_up_to_the_largest():
    index = IdIndex()
    ids_N, new_N, slots_N = np.array([-1, 0]), np.array([MAX_SLOT, 2**31]), np.empty(2, np.int64)
    index.find_or_insert(ids_N, new_N, slots_N)
    assert found(index, ids_N).tolist() == [MAX_SLOT, 2**31]
    assert index.erase(ids_N, slots_N) == 2
    assert slots_N.tolist() == [MAX_SLOT, 2**31]
    index.close()


def test_arrays_that_are_too_short_are_refused():
    index, three = IdIndex(), np.arange(3)
    for call in (
        lambda: index.find(three, three[:2].copy()),
        lambda: index.erase(three, three[:2].copy()),
        lambda: index.find_or_insert(three, three[:2].copy(), three.copy()),
        lambda: index.find_or_insert(three, three.copy(), three[:2].copy()),
    ):
        with pytest.raises(LengthMismatch):
            call()
    assert len(index) == 0
    index.close()


def test_ids_chosen_to_collide_end_in_an_error_that_changes_nothing():
    """All of them in one place of the deepest directory: no split can part them."""
    before_N = np.arange(1000)
    index = filled(before_N)
    chosen_N = np.concatenate([ids_at(line, 123, 6) for line in range(LINES)])
    assert len(chosen_N) > MAX_FILL
    slots_N = np.empty(len(chosen_N), np.int64)
    for _ in range(2):
        with pytest.raises(ResourceExhausted, match="hash"):
            index.find_or_insert(chosen_N, np.arange(1000, 1000 + len(chosen_N)), slots_N)
        assert len(index) == 1000
        assert same_bytes(found(index, before_N), before_N)
        assert (found(index, chosen_N) == -1).all()
    index.find_or_insert(np.arange(1000, 30_000), np.arange(1000, 30_000), np.empty(29_000, np.int64))
    assert same_bytes(found(index, np.arange(30_000)), np.arange(30_000))
    assert index.nbytes < (4 << MAX_DEPTH) + 100 * 65_541
    index.close()


def test_the_end_of_memory_is_an_error_that_changes_nothing(monkeypatch):
    """Also when it is asked again: the kernel must not write where nothing was reserved."""

    def scarce(tail, dtype, max_rows=None, memory=None):
        return ReservedArray(tail, dtype, max_rows if max_rows == 1 << MAX_DEPTH else 20)

    monkeypatch.setattr(index_module, "ReservedArray", scarce)
    index = filled(np.arange(10_000))
    many_N, slots_N = np.arange(5_000, 80_000), np.empty(75_000, np.int64)
    for _ in range(2):
        with pytest.raises(ResourceExhausted):
            index.find_or_insert(many_N, np.arange(10_000, 85_000), slots_N)
        assert len(index) == 10_000
        assert same_bytes(found(index, np.arange(10_000)), np.arange(10_000))
    for id_ in range(10_000, 60_000, 100):
        step_N = np.arange(id_, id_ + 100)
        try:
            index.find_or_insert(step_N, step_N, slots_N)
        except ResourceExhausted:
            break
    assert same_bytes(found(index, np.arange(id_)), np.arange(id_))
    assert id_ < 60_000
    index.close()


@pytest.mark.parametrize("partition", [None, 7])
def test_bytes_an_id_stay_bounded_while_it_grows(partition):
    """A shard sees few partitions, so the top 12 bits of its hashes are no help: they may be one number."""
    rng = np.random.default_rng(0)
    hashes_N = np.unique(rng.integers(0, 2**64 - 1, 1_000_000, np.uint64))
    if partition is not None:
        hashes_N = np.unique(hashes_N & np.uint64(2**52 - 1) | np.uint64(partition << 52))
    ids_N = rng.permutation(ids_of_hash(hashes_N))
    index, n = IdIndex(), 0
    for size in (10_000, 30_000, 100_000, 300_000, len(ids_N)):
        index.find_or_insert(ids_N[n:size], np.arange(n, size), np.empty(size - n, np.int64))
        n = size
        assert index.nbytes / n < (30 if n < 100_000 else 21)
    assert same_bytes(found(index, ids_N), np.arange(len(ids_N)))
    index.close()


def test_no_insertion_of_one_id_splits_more_than_one_segment():
    index, most = IdIndex(), 0
    for id_ in np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 60_000).reshape(-1, 1):
        before = index.splits
        index.find_or_insert(id_, np.array([len(index)]), np.empty(1, np.int64))
        most = max(most, index.splits - before)
    assert most == 1
    assert index.splits > 10
    index.close()


def test_splits_come_one_by_one_and_not_all_in_the_same_push():
    """From 200,000 ids to twice as many in 50 steps: every segment splits about once, at most a tenth of them in one
    step. With uniform hashing nearly all would in two or three steps."""
    rng = np.random.default_rng(0)
    index = filled(np.arange(200_000))
    segments = index.splits + 1
    per_step = []
    for start in range(200_000, 400_000, 4000):
        before = index.splits
        ids_N = rng.integers(-(2**63), 0, 4000)
        index.find_or_insert(ids_N, np.arange(start, start + 4000), np.empty(4000, np.int64))
        per_step.append(index.splits - before)
    assert 0.8 * segments < sum(per_step) < 1.3 * segments
    assert max(per_step) <= 0.1 * segments
    index.close()


def test_with_a_secret_nobody_can_choose_ids_that_collide():
    chosen_N = np.concatenate([ids_at(line, 123, 12) for line in range(LINES)])
    index, slots_N = IdIndex(secret=np.uint64(0x0123456789ABCDEF)), np.empty(len(chosen_N), np.int64)
    index.find_or_insert(chosen_N, np.arange(len(chosen_N)), slots_N)
    assert same_bytes(found(index, chosen_N), slots_N)
    assert index.nbytes < 8 * 65_541
    index.close()
