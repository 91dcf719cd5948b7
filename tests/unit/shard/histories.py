"""Logs in memory, and all that a shard holds as bytes: to tell whether one that replays a log is the same shard."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ps.errors import SequenceConflict
from ps.server.unpacking import WIRE
from ps.shard import Shard
from ps.shard.ledger import WriteId
from ps.shard.requests import WriteResult
from ps.shard.writes.log import NoLog
from ps.shard.writes.registry import decode
from ps.shard.writes.write import Write

TIMING = {
    "bytes",
    "disk",
    "rows",
    "rows_read",
    "rows_on_time",
    "rows_late",
    "rows_raised",
    "rows_demoted",
    "rows_narrowed",
}
"""Figures of a table that reads, steps and tiers have a part in: a row that comes up is narrowed where it was due. How
many rows there are is in the rows."""


class History(NoLog):
    """Keeps the bytes of each write, as a log would."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[bytes] = []

    def append(self, version: int, write: Write) -> None:
        assert version == len(self.records) + 1, "in order, and none is left out"
        self.records.append(b"".join(write.encode()))


def replayed(records: Iterable[bytes], shard: Shard) -> Shard:
    """The same shard, which has carried out these writes."""
    for record in records:
        shard.replay(decode(record, WIRE))
    return shard


def held(shard: Shard) -> dict[str, object]:
    """Every table's configuration, its rows with state and statistics, its figures, and the shard's."""
    tables = {name: _table(shard, name) for name in sorted(shard.tables)}
    return {"version": shard.version, "pushes": shard.commit.pushes, "staleness": shard.staleness.report(), **tables}


def _table(shard: Shard, name: str) -> object:
    table = shard.tables[name]
    records, _ = shard.engine.run(lambda: table.page(0, 1_000_000))
    order_N = np.argsort(records.ids_N)
    arrays = [records.ids_N, records.rows_NB, records.statistics_N2, table.ranking.decayed(records.statistics_N2)]
    figures = {key: value for key, value in table.stats().items() if key not in TIMING}
    return table.config, table.created_as, [array[order_N].tobytes() for array in arrays], figures


def answers(shard: Shard, writes: Iterable[WriteId]) -> list[object]:
    """What the ledger says to a repeat of each of these."""
    return [shard.engine.run(lambda write=write: _answer(shard, write)) for write in writes]


def _answer(shard: Shard, write: WriteId) -> object:
    try:
        result = shard.core.ledger.answer(write)
    except SequenceConflict as error:
        return str(error)
    if isinstance(result, WriteResult):
        return result.version, result.existed_N.tolist()
    return result
