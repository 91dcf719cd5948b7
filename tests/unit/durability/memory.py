"""A saved shard in memory: what a file would have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import ps
from ps.durability.state import restore, save
from ps.kept import State
from ps.shard import Shard
from ps.storage.tier import Records


class InMemory:
    """Takes copies of what is saved, and gives them."""

    def __init__(self) -> None:
        self._state: dict[str, Any] = {}
        self._rows: dict[str, list[Records]] = {}

    def take_state(self, state: State) -> None:
        self._state = {name: np.copy(value) if isinstance(value, np.ndarray) else value for name, value in state.items()}

    def take_rows(self, table: str, records: Records) -> None:
        copied = (np.copy(part) for part in (records.ids_N, records.rows_NB, records.scores_N, records.stamps_N))
        self._rows.setdefault(table, []).append(Records(*copied))

    def state(self) -> State:
        return self._state

    def rows(self, table: str) -> list[Records]:
        return self._rows.get(table, [])


def saved(shard: Shard) -> InMemory:
    copy = InMemory()
    assert save(shard, copy) == shard.version
    return copy


def again(copy: InMemory, config: ps.ServiceConfig, **arguments: Any) -> Shard:
    """A new shard that is the one that was saved."""
    shard = Shard(0, config, **arguments)
    try:
        assert restore(shard, copy) == shard.version
    except BaseException:
        shard.close()
        raise
    return shard


def as_bytes(copy: InMemory) -> Mapping[str, object]:
    """All that was saved, comparable: whatever order the rows were in."""
    found: dict[str, object] = {}
    for name, value in copy.state().items():
        found[name] = (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
    for table in copy._rows:
        for records in copy.rows(table):
            for i, id_ in enumerate(records.ids_N.tolist()):
                row = (records.rows_NB[i].tobytes(), records.statistics_N2[i].tobytes())
                assert (table, id_) not in found, "twice"
                found[f"row {table} {id_}"] = row
    return found
