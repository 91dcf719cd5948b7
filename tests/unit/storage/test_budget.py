"""The arithmetic of a budget: what is set aside, who gets which share, what is refused and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ps
from ps.config import MIN_RAM_BYTES
from ps.errors import ConfigError, ResourceExhausted
from ps.kernels.updates.optim import update_rule
from ps.policy import placement
from ps.runtime.memory import ReservedArray
from ps.storage.budget.aside import fitted, set_aside
from ps.storage.budget.budget import RamBudget
from ps.storage.budget.part import Part
from ps.storage.budget.room import Room
from ps.storage.budget.slots import TABLE_BYTES
from ps.storage.disk.filter import IdFilter
from ps.storage.ram import arena
from ps.storage.ram.arena import Arena
from ps.storage.ram.rows import PlainRows

sizes = st.integers(MIN_RAM_BYTES, 1 << 40)
disks = st.sampled_from([None, Path("/somewhere")])


@given(sizes, disks)
def test_every_part_has_room_and_they_never_add_up_to_more(ram_bytes, disk_path):
    config = ps.ServiceConfig(memory={"ram_bytes": ram_bytes}, disk={"path": disk_path})
    aside = set_aside(config)
    assert aside.total < ram_bytes * 3 // 4
    assert set_aside(fitted(config)) == aside
    small = fitted(config)
    assert fitted(small) == small
    assert small.limits.max_body_bytes <= aside.bodies
    assert (aside.cache >= 1 << 20) == (disk_path is not None)


def test_without_a_budget_nothing_is_cut():
    config = ps.ServiceConfig(disk={"path": "/somewhere"})
    assert fitted(config) == config
    assert set_aside(config).cache == config.performance.disk_cache_bytes
    assert not RamBudget(config).slots.bounded


def test_too_small_a_budget_says_what_the_smallest_is():
    with pytest.raises(ConfigError, match=f"ram_bytes.*{MIN_RAM_BYTES:,}"):
        ps.ServiceConfig(memory={"ram_bytes": MIN_RAM_BYTES - 1})


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 700)), max_size=40))
def test_a_part_never_gives_more_than_it_has(steps):
    part, held = Part(1000, "tests"), []
    for more, n in steps:
        if more:
            try:
                part.hold(n)
                held.append(n)
            except ResourceExhausted as error:
                assert sum(held) + n > 1000
                assert error.retry_after_s is not None
        elif held:
            part.give(held.pop())
        assert part.used == sum(held) <= 1000


def test_what_can_never_fit_gets_no_hint_and_names_the_setting():
    with pytest.raises(ResourceExhausted, match=r"raise memory\.ram_bytes") as refused:
        Part(1000, "tests").hold(1001)
    assert refused.value.retry_after_s is None


class Rows:
    """A table's rows, by number: a lender whose free slots are behind them."""

    def __init__(self, slots):
        self.slots, self.rows = slots, 0
        slots.lender = self

    def free_slots(self):
        return self.slots.used - self.rows

    def shrink(self, slots, rebuild):
        assert self.rows <= slots <= self.slots.used

    def add(self, n):
        self.slots.open(self.rows + n)
        self.rows += n


moves = st.lists(st.tuples(st.integers(0, 2), st.integers(-400, 400)), max_size=60)


@given(moves, st.integers(10_000, 400_000), st.booleans())
def test_tables_never_open_more_slots_than_there_is_room_for(steps, nbytes, has_disk):
    nbytes += 3 * TABLE_BYTES
    room = Room(6 * TABLE_BYTES + nbytes, placement.Shares() if has_disk else None)
    tables = [Rows(room.join(row_bytes)) for row_bytes in (4, 260, 1000)]
    room.resize(-6 * TABLE_BYTES)
    most = nbytes - 3 * TABLE_BYTES
    for which, more in steps:
        table = tables[which]
        if more < 0:
            table.rows = max(table.rows + more, 0)
            continue
        before = table.slots.used
        try:
            table.add(more)
        except ResourceExhausted as error:
            assert "ram_bytes" in str(error)
            assert (error.retry_after_s is not None) == has_disk
            assert table.slots.used == before
            rows = [one.rows + more * (one is table) for one in tables]
            taken = sum(n * one.slots.bytes_each for n, one in zip(rows, tables, strict=True))
            assert has_disk or taken > most, "without a disk all that is free is anybody's"
        assert room.held == sum(one.slots.held for one in tables) <= most


def test_a_table_of_which_only_the_index_is_too_large_gets_no_slots_by_giving_that_back():
    """Its share may be more slots than it has; slots that nobody opened came to be, with what was there before."""
    room = Room(10**7, placement.Shares())
    table = Rows(room.join(260))
    table.add(1000)
    table.rows = 500
    table.slots.lend(300 * table.slots.bytes_each, 0, rebuild=False)
    assert table.slots.used == 700
    before = table.slots.held
    table.slots.lend(1, 800, rebuild=True)
    assert table.slots.used == 700
    assert table.slots.held < before


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_enough_slots_are_free_for_the_usual_request(room_rows, wanted, usual):
    room = Room(room_rows * 306 + 10**6, placement.Shares())
    table = room.join(260)
    usual = min(usual, table.most())
    table.ask(usual)
    table.want(wanted)
    target = placement.target_rows(wanted, table.most(), table.usual, table.claimed)
    assert 0 <= target <= wanted
    # Down there, the slack that `slice_rows` leaves included, the request fits.
    assert target + target // placement.SLACK + usual <= table.most() or target == 0


@given(
    st.integers(10_000, 4_000_000),
    st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 10**4), st.integers(0, 50)), min_size=1, max_size=6),
    st.data(),
)
def test_what_a_request_claims_is_its_tables_share(nbytes, tables, data):
    """Whatever other tables have, want and use; and the shares never add up to more than there is."""
    room = Room(2 * TABLE_BYTES * len(tables), placement.Shares())
    slots = []
    for wanted, usual, reserved in tables:
        slots.append(room.join(260))
        slots[-1].want(wanted)
        slots[-1].ask(usual)
        slots[-1].reserve(min(reserved, nbytes // (2 * 306 * len(tables))))
    room.resize(nbytes - TABLE_BYTES * len(tables))
    who = data.draw(st.sampled_from(slots))
    claimed = data.draw(st.integers(0, nbytes // 306))
    if room.fits({who: claimed}):
        who.claim(claimed)
        assert who.most() >= claimed
        assert all(one.most() >= one.reserved for one in slots)
    assert sum(one.most() * one.bytes_each for one in slots) <= nbytes


@pytest.mark.parametrize("dim", [64, 1])
def test_an_arena_commits_no_more_than_its_budget(dim):
    """Index and all, over thousands of ids that come and go."""
    budget = RamBudget(ps.ServiceConfig(memory={"ram_bytes": MIN_RAM_BYTES}, disk={"path": "/somewhere"}))
    limit = MIN_RAM_BYTES - budget.aside.total
    config = ps.TableConfig(name="t", dim=dim, optimizer=ps.RowwiseAdagrad())
    rows, rng = PlainRows(config, update_rule(config.optimizer, config.dim), budget.arrays), np.random.default_rng(0)
    arena = Arena(rows, budget)

    def fill() -> None:
        for start in range(0, 10**7, 5000):
            arena.insert(np.arange(start, start + 5000), 0)

    with pytest.raises(ResourceExhausted):
        fill()
    full = len(arena)
    assert full > 0.9 * limit / (4 * (dim + 1) + 46) - 5000
    for start in range(10**7, 10**7 + 100 * 5000, 5000):  # turned over: the index must never hit a wall of its own
        arena.release(rng.choice(np.flatnonzero(arena.marks_S[: arena.slots_end]), 5000, replace=False))
        arena.insert(np.arange(start, start + 5000), 0)
    assert len(arena) == full
    assert sum(arena.memory_usage().values()) <= limit
    assert budget.arrays.used <= limit
    arena.close()
    assert budget.arrays.used == 0


def test_a_filter_without_room_takes_ids_all_the_same():
    part = Part(600 << 10, "tests", huge_pages=False)
    some, ids_N = IdFilter(memory=part), np.arange(1_000_000)
    some.add(ids_N)
    assert some.may_contain(ids_N).all()
    assert some.nbytes == part.used <= 600 << 10
    some.close()
    assert part.used == 0


@pytest.mark.parametrize("made_before", [0, 1, 2])
def test_an_arena_that_finds_no_address_space_has_no_part_of_the_room(
    made_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget, config = RamBudget(ps.ServiceConfig(memory={"ram_bytes": 256 << 20})), ps.TableConfig(name="t", dim=2)
    rows = PlainRows(config, update_rule(config.optimizer, 2), budget.arrays)
    before = budget.arrays.used, budget.slots.unreserved
    left = [None] * made_before

    def array(*arguments: Any) -> ReservedArray:
        if not left:
            raise ResourceExhausted("injected")
        left.pop()
        return ReservedArray(*arguments)

    monkeypatch.setattr(arena, "ReservedArray", array)
    with pytest.raises(ResourceExhausted):
        arena.Arena(rows, budget)
    assert (budget.arrays.used, budget.slots.unreserved) == before
    rows.close()
