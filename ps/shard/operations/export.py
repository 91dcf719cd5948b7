"""Reads a page of an export. The engine waits for the disk meanwhile, so that a page is of one moment."""

from __future__ import annotations

from ps.runtime.places import ENGINE, Operation
from ps.shard.core import Core
from ps.shard.requests import Page


def export_page(core: Core, name: str, cursor: int, n: int, least: int, highest_rank: int) -> Operation[Page]:
    """Returns up to n rows from the cursor on, none of a higher rank."""
    yield ENGINE
    table = core.table(name)
    highest = table.ranking.least(least) if least and not cursor else highest_rank
    with core.disk_health.reading():
        records, next_cursor = table.page(cursor, n, highest)
    values_ND, scores_N = table.values(records), table.ranking.decayed(records.statistics_N2)
    return Page(records.ids_N, values_ND, scores_N, records.statistics_N2, next_cursor, highest)
