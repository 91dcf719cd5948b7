"""What a table does as time passes is never lost: a part that fails after one write is made up for by the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ps
from ps.table.change import Change
from ps.table.table import Table

SEAMS: dict[str, Callable[[Table], object]] = {
    "pushed": lambda table: table.cold,
    "tick": lambda table: table.cold,
    "advance": lambda table: table.ranking,
    "drop": lambda table: table.store,
}
"""What may fail after a write: the name of a method, and whose it is. All but `pushed` is about time."""


@contextmanager
def failing(table: Table, *names: str) -> Iterator[None]:
    def fail(*_: object) -> None:
        raise MemoryError("injected")

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(SEAMS[name](table), name, fail)
        yield


def carry_out(change: Change) -> None:
    """As a shard does it: each part of what follows is tried."""
    change.make()
    for part in change.settle.values():
        with suppress(MemoryError):
            part()


def push(table: Table, ids: range) -> None:
    ids_N = np.array(ids)
    slots_N = table.find(ids_N)
    table.reserve.create_admitted(ids_N, slots_N, None)
    carry_out(table.writes.plan_push(ids_N, slots_N, None, [np.ones((len(ids_N), 1), np.float32)]))


def upsert(table: Table) -> None:
    carry_out(table.writes.plan_upsert(np.array([0]), [np.ones((1, 1), np.float32)]))


def new_table(**config: object) -> Table:
    return Table(ps.TableConfig(**{"name": "t", "dim": 1, "half_life_pushes": 64, **config}))


def test_a_tick_that_failed_is_made_up_for_by_the_next_write() -> None:
    """One tick parts hot rows from cold ones: with it they are narrowed, without it none is."""
    tables = [new_table(cold=ps.Fp16(hot_fraction=0.1), half_life_pushes=640) for _ in range(2)]
    for table in tables:
        for _ in range(9):
            push(table, range(100))
    push(tables[0], range(10))
    with failing(tables[1], "tick"):
        push(tables[1], range(10))
    assert [table.ranking.tick for table in tables] == [1, 1]
    for table in tables:
        upsert(table)
        while table.cold.sweep():
            pass
    assert tables[0].cold.rows_by_tier() == tables[1].cold.rows_by_tier() != {"cold": 0}


def test_an_expiry_that_failed_is_made_up_for_by_the_next_write() -> None:
    table = new_table(expire_after_pushes=160)
    push(table, range(50))
    with failing(table, "drop"):
        for _ in range(200):
            push(table, range(50, 60))
    assert (len(table), table.counts.rows_expired) == (60, 0)
    upsert(table)
    assert (table.counts.rows_expired, (table.find(np.arange(50)) < 0).sum()) == (49, 49), "0 is written again"


@settings(max_examples=15)
@given(st.lists(st.sets(st.sampled_from(list(SEAMS))), max_size=60), st.sampled_from([64, 200]))
def test_the_clock_shows_every_push_whatever_failed(failures: list[set[str]], half_life: int) -> None:
    decided = 0
    table = new_table(half_life_pushes=half_life, expire_after_pushes=48)
    tick = table.cold.tick

    def counting() -> None:
        nonlocal decided
        tick()
        decided = table.ranking.tick

    table.cold.tick = counting  # type: ignore[method-assign]
    for n, names in enumerate(failures):
        with failing(table, *names):
            push(table, range(n % 7, n % 7 + 3))
    upsert(table)
    assert table.ranking.now >= table.counts.pushes == len(failures)
    assert decided == table.ranking.tick
    assert not table.ranking.epoch_ended
    assert len(table) == table.ranking.counts_R.sum()
    table.close()


def test_a_sketch_fades_by_all_that_it_missed() -> None:
    gate = ps.CountThreshold(min_count=1000, cells=1 << 12)
    tables = [new_table(admission=gate) for _ in range(2)]
    for n in range(70):
        push(tables[0], range(5))
        broken = pytest.MonkeyPatch.context()
        with broken as patch:
            if n % 3:
                patch.setattr(tables[1].clock._gate, "tick", lambda now: 1 / 0)
            with suppress(ZeroDivisionError):
                push(tables[1], range(5))
    upsert(tables[1])
    shown = [table.clock._gate._now for table in tables]  # type: ignore[attr-defined]
    assert shown[0] == shown[1] > 0
