"""A store over a tier is a dict, whatever goes up and down meanwhile, and in whatever order the threads run.

The tier is a dict too: `Fetch.read`, `Demotion.write` and `Slice.write` run when the machine says so.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import ps
from ps.errors import DiskError
from ps.kernels.ranking import score
from ps.kernels.updates.optim import update_rule
from ps.policy.ranking import EVERY_RANK
from ps.storage.budget.budget import RamBudget
from ps.storage.ram.arena import Arena
from ps.storage.ram.rows import PlainRows
from ps.storage.residence import pages
from ps.storage.residence.dropped import Dropped
from ps.storage.residence.store import Store
from ps.storage.tier import Records
from tests.unit.storage.dict_tier import DictTier

IDS = 24
some_ids = st.lists(st.integers(0, IDS - 1), min_size=1, max_size=8, unique=True)
PER_TICK = np.uint32(1)


class AsTheyAre:
    """Rows are to be seen as their bytes are."""

    def as_seen(self, found: Any) -> list[Records]:
        return [records for records in found if len(records)]

    def moved(self) -> None:
        pass


def new_store(tier: DictTier | None) -> Store:
    budget, config = RamBudget(ps.ServiceConfig()), ps.TableConfig(name="t", dim=1, optimizer=ps.SGD())
    ram = Arena(PlainRows(config, update_rule(config.optimizer, 1), budget.arrays), budget)
    counts = SimpleNamespace(rows_raised=0, rows_demoted=0)
    return Store(ram, tier, budget, Dropped(ram, PER_TICK), PER_TICK, AsTheyAre(), counts)


def values(found: list[Records]) -> dict[int, float]:
    by_id = {
        id_: float(row.view(np.float32)[0])
        for records in found
        for id_, row in zip(records.ids_N.tolist(), records.rows_NB, strict=True)
    }
    assert len(by_id) == sum(map(len, found)), "a row came twice"
    return by_id


class AStoreIsADict(RuleBasedStateMachine):
    """Writes, fetches, demotions, removals, cuts, lost memory, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.tier = DictTier()
        self.store = new_store(self.tier)
        self.model: dict[int, float] = {}
        self.now = 1
        self.fetches: list[Any] = []
        self.pinned: list[np.ndarray] = []
        self.writing: Any = None
        self.export: tuple[int, dict[int, float], list[int], set[int]] | None = None

    @initialize(block=st.sampled_from([1, 5, 1 << 16]), window=st.sampled_from([1, 6, 1 << 17]))
    def small(self, block: int, window: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(pages, "BLOCK_SLOTS", block)
        self.patch.setattr(pages, "WINDOW_SLOTS", window)
        self.patch.setattr(pages, "WINDOWS", 1 << 20)

    def teardown(self) -> None:
        self.patch.undo()
        self.tier.failing = False
        if self.writing is not None:
            self.writing.write()
        for fetch in self.fetches:
            self.store.end(fetch)
        assert self._everything() == self.model
        self.store.close()

    # up and down

    @rule(ids=some_ids)
    def begin_to_fetch(self, ids: list[int]) -> None:
        ids_N = np.array(ids)
        fetch = self.store.fetch(ids_N[self.store.find(ids_N) < 0])
        if fetch is not None:
            self.fetches.append(fetch)

    @precondition(lambda self: self.fetches)
    @rule(data=st.data())
    def read(self, data: Any) -> None:
        data.draw(st.sampled_from(self.fetches)).read()

    @precondition(lambda self: self.fetches)
    @rule(data=st.data(), install=st.booleans())
    def end_fetch(self, data: Any, install: bool) -> None:
        fetch = data.draw(st.sampled_from(self.fetches))
        if install:
            fetch.read()
            found = values(self.store.found(fetch))
            assert found.items() <= self.model.items()
            assert self.store.install(fetch) == len(found)
        self.fetches.remove(fetch)
        self.store.end(fetch)

    @precondition(lambda self: self.writing is None)
    @rule(most=st.integers(1, 8), cut=st.booleans())
    def begin_to_write(self, most: int, cut: bool) -> None:
        self.writing = self.store.purge() if cut else self.store.demote(EVERY_RANK, most)
        assert self.store.demote(EVERY_RANK, most) is None or self.writing is None, "one at a time"
        if self.writing is None:
            self.writing = self.store._writing

    @precondition(lambda self: self.writing is not None)
    @rule(fails=st.booleans())
    def finish_writing(self, fails: bool) -> None:
        self.tier.failing = fails
        self.writing.write()
        self.tier.failing = False
        error = self.store.finish(self.writing)
        assert error is None or fails
        self.writing = None

    # writes, of rows that are in RAM

    @rule(ids=some_ids, value=st.integers(1, 1000))
    def write(self, ids: list[int], value: int) -> None:
        ids_N = np.array(ids)
        self._raise(ids_N)
        slots_N = self.store.find(ids_N)
        new_N = np.flatnonzero(slots_N < 0)
        self.store.dropped.make_room(len(new_N))
        slots_N[new_N] = self.store.ram.insert(ids_N[new_N], self.now)
        self.store.ram.rows.set(slots_N, np.full((len(ids), 1), value, np.float32))
        self.store.ram.statistics_S2[slots_N, 1] = self.now
        score.mark(self.store.ram.marks_S, slots_N, score.DIRTY, score.GOING)
        self.model |= dict.fromkeys(ids, float(value))

    @rule(ids=some_ids)
    def remove(self, ids: list[int]) -> None:
        ids_N = np.array(ids)
        self._raise(ids_N)
        slots_N = self.store.find(ids_N)
        self.store.ram.hold(ids_N, slots_N)  # as the request does, until they are gone
        self._let_it_write()
        self.store.removals.discard_copies(ids_N)
        self.store.removals.remove(ids_N)
        self.store.ram.let_go(ids_N, self.store.find(ids_N))
        for id_ in ids:
            self.model.pop(id_, None)
        self._forget(set(ids))

    @rule(ids=some_ids)
    def remove_where_they_are(self, ids: list[int]) -> None:
        there = [id_ for id_ in ids if id_ in self.model]
        self._let_it_write()
        self.store.removals.discard_below(np.array(there, np.int64))
        self.store.removals.remove(np.array(there, np.int64))
        for id_ in there:
            self.model.pop(id_)
        self._forget(set(there))

    @rule()
    def drop_all(self) -> None:
        """By a cut: all that was touched before now."""
        self.now += 1
        self.store.drop(self.now, EVERY_RANK, -EVERY_RANK, np.zeros(score.LOTS, np.bool_))
        self._forget(set(self.model))
        self.model = {}

    @rule()
    def sweep(self) -> None:
        self.store.dropped.sweep()

    @rule(ids=some_ids)
    def pin(self, ids: list[int]) -> None:
        """As a step that holds rows."""
        ids_N = np.array(ids)
        self.store.ram.hold(ids_N, self.store.find(ids_N))
        self.pinned.append(ids_N)

    @precondition(lambda self: self.pinned)
    @rule()
    def let_go(self) -> None:
        ids_N = self.pinned.pop()
        self.store.ram.let_go(ids_N, self.store.find(ids_N))

    @rule(share=st.floats(0, 1), rebuild=st.booleans())
    def give_back(self, share: float, rebuild: bool) -> None:
        free = self.store.free_slots()
        self.store.shrink(len(self.store.ram) + int(share * free), rebuild)

    # an export that goes on beside all that

    @precondition(lambda self: self.export is None)
    @rule()
    def begin_export(self) -> None:
        self.export = (0, dict(self.model), [], set(self.model))

    @precondition(lambda self: self.export is not None)
    @rule(n=st.sampled_from([1, 3, 10]), times=st.integers(1, 2000))
    def next_pages(self, n: int, times: int) -> None:
        assert self.export is not None
        first, seen, ids, living = self.export
        for _ in range(times):
            found, end = self.store.pages.page(first, n)
            page = values(found)
            assert page.items() <= self.model.items()
            ids += list(page)
            first = end
            if end == pages.PARTITIONS:
                assert len(set(ids)) == len(ids), "a row came twice"
                assert living <= set(ids), "a row that has lived through all pages was in none"
                self.export = None
                return
        self.export = (first, seen, ids, living)

    @invariant()
    def a_row_is_known_or_nowhere(self) -> None:
        in_ram = {id_ for id_ in self.model if self.store.find(np.array([id_]))[0] >= 0}
        below = set(self.model) - in_ram
        assert self.store.below.may_have(np.array(sorted(below), np.int64)).all()
        assert below <= set(self.tier.rows)
        for records in map(self.store.dropped.alive, self.tier.partitions(0, 4096)):
            assert set(records.ids_N.tolist()) <= set(self.model), "a row that was removed is below"
        assert len(self.tier) == len(self.tier.rows)

    def _raise(self, ids_N: np.ndarray) -> None:
        fetch = self.store.fetch(ids_N[self.store.find(ids_N) < 0])
        if fetch is not None:
            fetch.read()
            self.store.install(fetch)
            self.store.end(fetch)

    def _let_it_write(self) -> None:
        """A removal waits for what is being written."""
        if self.writing is not None:
            self.writing.write()
            self.writing = None

    def _forget(self, ids: set[int]) -> None:
        if self.export is not None:
            self.export[3].difference_update(ids)

    def _everything(self) -> dict[int, float]:
        found: dict[int, float] = {}
        first = 0
        while first < pages.PARTITIONS:
            records, first = self.store.pages.page(first, 4)
            page = values(records)
            assert not page.keys() & found.keys()
            found |= page
        return found


def test_a_store_is_a_dict() -> None:
    run_state_machine_as_test(AStoreIsADict, settings=settings(max_examples=25, stateful_step_count=30, deadline=None))


def test_without_a_tier_below_nothing_goes_down() -> None:
    store = new_store(None)
    store.ram.insert(np.arange(5), 1)
    assert store.demote(EVERY_RANK, 5) is None
    assert store.purge() is None
    assert store.fetch(np.arange(9)) is None
    assert not store.has_below
    assert store.removals.unreadable(np.arange(9)).tolist() == []
    assert store.below.stats(4) == {}
    store.removals.discard_below(np.arange(3))
    store.removals.remove(np.arange(3))
    assert sorted(values(store.pages.page(0, 100)[0])) == [3, 4]


def test_rows_stay_where_a_write_below_fails() -> None:
    tier = DictTier()
    store = new_store(tier)
    store.ram.insert(np.arange(5), 1)
    tier.failing = True
    demotion = store.demote(EVERY_RANK, 5)
    assert demotion is not None
    demotion.write()
    assert isinstance(store.finish(demotion), DiskError)
    assert (store.find(np.arange(5)) >= 0).all()
    assert store.going == len(tier) == 0


def down_and_up(store: Store, ids_N: np.ndarray) -> None:
    """Rows go down and come up again, to other slots: others have taken theirs."""
    demotion = store.demote(EVERY_RANK, 1000)
    assert demotion is not None
    demotion.write()
    assert store.finish(demotion) is None
    store.ram.insert(np.arange(1000, 1010), 1)
    fetch = store.fetch(ids_N)
    assert fetch is not None
    fetch.read()
    store.install(fetch)
    store.end(fetch)


def give_back(store: Store, ids_N: np.ndarray) -> None:
    """Rows move together, to where others were."""
    store.removals.remove(np.arange(500, 520))
    store.free_slots()
    store.shrink(len(store.ram))


@pytest.mark.parametrize("move", [down_and_up, give_back])
@pytest.mark.parametrize("pages_before", [1, 3])
def test_an_export_has_rows_that_have_moved_to_other_slots(move: Any, pages_before: int) -> None:
    """In the midst of a window."""
    store, ids_N = new_store(DictTier()), np.arange(40)
    store.ram.insert(np.arange(500, 520), 1)
    store.ram.insert(ids_N, 1)
    before = store.find(ids_N)
    first, ids, number = 0, [], 0
    while first < pages.PARTITIONS:
        found, first = store.pages.page(first, 5)
        ids += [id_ for id_ in values(found) if id_ < 40]
        number += 1
        if number == pages_before:
            move(store, ids_N)
            assert (store.find(ids_N) != before).any()
    assert number > 5
    assert sorted(ids) == ids_N.tolist()


def test_rows_that_find_no_memory_on_their_way_up_stay_below(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(*_: object) -> None:
        raise MemoryError("injected")

    store, ids_N = new_store(DictTier()), np.arange(3)
    rows_NB = np.full((3, 1), 7, np.float32).view(np.uint8)
    store.below.expect(ids_N)
    store.below.tier.write(Records(ids_N, rows_NB, np.ones(3, np.float32), np.ones(3, np.uint32)))
    for error in (MemoryError, None):
        fetch = store.fetch(ids_N)
        assert fetch is not None, "what is in RAM would hide what is below"
        fetch.read()
        if error is not None:
            monkeypatch.setattr(PlainRows, "put", breaking)
            with pytest.raises(error):
                store.install(fetch)
            monkeypatch.undo()
            assert (store.find(ids_N) < 0).all()
        else:
            assert store.install(fetch) == 3
        store.end(fetch)
    assert values(store.ram.read(ids_N)) == dict.fromkeys(range(3), 7.0)
    store.close()
    store.ram.close()
