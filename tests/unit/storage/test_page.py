"""Pages of an export: every row once, and no more memory than a page."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import ps
from ps.storage.residence import pages
from ps.table.table import Table


def filled(n: int) -> Table:
    table = Table(ps.TableConfig(name="t", dim=1))
    ids_N = np.arange(n)
    table.reserve.create_missing(ids_N, table.find(ids_N))
    return table


def test_a_page_of_a_large_table_takes_what_a_page_takes() -> None:
    table = filled(500_000)
    table.page(4000, 10)
    tracemalloc.start()
    try:
        records, _ = table.page(4000, 10)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0 < len(records) < 500
    assert peak < 4 * pages.BLOCK_SLOTS * 8


@pytest.mark.parametrize("block", [1, 7, 1 << 16])
def test_pages_have_every_row_once_however_slots_are_looked_at(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "BLOCK_SLOTS", block)
    table, ids, cursor = filled(300), [], 0
    while True:
        records, cursor = table.page(cursor, 20)
        ids += records.ids_N.tolist()
        if not cursor:
            break
    assert sorted(ids) == list(range(300))
